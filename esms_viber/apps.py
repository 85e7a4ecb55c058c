from __future__ import annotations

from django.apps import AppConfig
from django.utils.translation import gettext_lazy as _


class EsmsViberConfig(AppConfig):
    name = "esms_viber"
    verbose_name = _("Viber messages (eSMS)")
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import signal_handlers  # noqa: F401 - importing registers them
        from .checks import settings  # noqa: F401 - as above
        from .gateways.loading import remember_settings

        remember_settings()
