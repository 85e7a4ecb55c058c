from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EsmsViberConfig(AppConfig):
    name = "esms_viber"
    verbose_name = _("Viber messages (eSMS)")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import checks, receivers  # noqa: F401 - importing registers them
        from .gateways import remember_settings

        remember_settings()
