from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from .choices import EventKind
from .fields import CrossDatabaseForeignKey, KeyField
from .message import OutboundViberMessage
from .querysets import ForWriting


class ViberMessageEvent(models.Model):
    """One line of a message's history. Only `applied` ever changes; it is deleted only with its message."""

    Kind = EventKind

    message = models.ForeignKey(
        OutboundViberMessage, verbose_name=_("message"), on_delete=models.CASCADE, related_name="events"
    )
    kind = models.CharField(_("kind"), max_length=10, choices=EventKind)
    created_at = models.DateTimeField(_("time"), auto_now_add=True)
    request_id = models.CharField("RequestId", max_length=50, blank=True)
    code = models.CharField(_("code"), max_length=16, blank=True)
    text = models.CharField(_("text"), max_length=500, blank=True)
    duration_ms = models.PositiveIntegerField(_("duration (ms)"), null=True, blank=True)
    data = models.JSONField(_("data"), default=dict, blank=True)
    user = CrossDatabaseForeignKey(settings.AUTH_USER_MODEL, verbose_name=_("user"), blank=True)
    fingerprint = KeyField(max_length=64, null=True, blank=True, editable=False)
    applied = models.BooleanField(_("applied"), default=False, help_text=_("The status was moved by it."))

    objects: ClassVar[Any] = ForWriting.as_manager()

    class Meta:
        verbose_name = _("event of a Viber message")
        verbose_name_plural = _("events of Viber messages")
        ordering = ["pk"]
        # The latest calls, on a site that receives many reports.
        indexes = [models.Index(fields=["kind", "id"], name="esms_viber_kind_of_event")]
        # Not `unique=True`, for which Django makes two indexes on PostgreSQL.
        constraints = [models.UniqueConstraint(fields=["fingerprint"], name="esms_viber_fingerprint")]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.code}".strip()
