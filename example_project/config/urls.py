from django.contrib import admin
from django.templatetags.static import static
from django.urls import include, path
from django.views.generic import RedirectView

urlpatterns = [
    path("", include("shop.urls")),
    path("admin/", admin.site.urls),
    path("esms-viber/", include("esms_viber.urls")),
    path("i18n/", include("django.conf.urls.i18n")),
    path("", include("simulator.urls")),
    # Browsers ask for it on pages that name no icon, the admin's among them.
    path("favicon.ico", RedirectView.as_view(url=static("site/cup.svg"))),
]
