from __future__ import annotations

from typing import Any, ClassVar

from django.conf import settings
from django.core.checks import CheckMessage
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from .choices import EventKind
from .fields import CrossDatabaseForeignKey, KeyField
from .message import OutboundViberMessage
from .querysets import ForWriting


class ViberMessageEvent(models.Model):
    """One line of a message's history.

    Only `applied` and `apply_again_at` ever change, until redaction empties `text` and `data`, or a phone that was
    corrected is taken out of them; it is deleted only with its message.
    """

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
    apply_again_at = models.DateTimeField(null=True, blank=True, editable=False)
    """When to apply a callback again, where applying it failed and it was stored alone; null for all others."""

    objects: ClassVar[Any] = ForWriting.as_manager()

    class Meta:
        verbose_name = _("event of a Viber message")
        verbose_name_plural = _("events of Viber messages")
        ordering = ["pk"]
        # The latest calls, on a site that receives many reports.
        indexes = [
            models.Index(fields=["kind", "id"], name="esms_viber_kind_of_event"),
            # Reports whose applying failed: hardly ever any.
            models.Index(
                fields=["apply_again_at", "id"],
                condition=Q(apply_again_at__isnull=False),
                name="esms_viber_apply_again",
            ),
        ]
        # Not `unique=True`, for which Django makes two indexes on PostgreSQL.
        constraints = [models.UniqueConstraint(fields=["fingerprint"], name="esms_viber_fingerprint")]

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        # MySQL and MariaDB have no partial indexes, and Django warns of it. There they are whole, and serve as well.
        return [found for found in super().check(**kwargs) if found.id != "models.W037"]

    def __str__(self) -> str:
        return f"{self.get_kind_display()} {self.code}".strip()
