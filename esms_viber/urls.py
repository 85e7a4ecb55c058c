from __future__ import annotations

from django.urls import path

from .views import callback

app_name = "esms_viber"

urlpatterns = [
    path("callback/<str:token>/", callback, name="callback"),
    # Should the slash get lost on the way: APPEND_SLASH would redirect, and nothing says that eSMS follows.
    path("callback/<str:token>", callback),
]
