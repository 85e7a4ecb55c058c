from django.contrib import admin
from django.urls import include, path

urlpatterns = [
    path("", include("shop.urls")),
    path("admin/", admin.site.urls),
    path("esms-viber/", include("esms_viber.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("simulator.urls")),
]
