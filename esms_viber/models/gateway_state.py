from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .fields import KeyField
from .querysets import ForWriting


class GatewayStateQuerySet(ForWriting):
    def in_trouble(self) -> Self:
        """Breakers that are open, or on their way there."""
        return self.filter(Q(opened_at__isnull=False) | Q(silent__gt=0) | Q(refusals__gt=0))


class ViberGatewayState(models.Model):
    """The circuit breaker of the account (empty name), or of one brand name: what the latest calls have shown.

    All processes share it; `esms_viber.delivery.breaker` writes it. Deleting a row is harmless: calls start again, and
    find out anew.
    """

    brandname = KeyField(_("brand name"), max_length=100, unique=True, blank=True)
    silent = models.PositiveIntegerField(default=0)
    """Calls in a row, the last one included, that had no answer, or none that decides anything. Of the account only."""
    code = models.CharField(_("code"), max_length=16, blank=True)
    """The code with which eSMS refuses the account or the brand name, or refused its last messages."""
    refusals = models.PositiveIntegerField(default=0)
    """Messages in a row that were refused with this code, and none accepted between."""
    last_accepted_at = models.DateTimeField(null=True, blank=True)
    """When the last accepted call ended, give or take a second."""
    opened_at = models.DateTimeField(null=True, blank=True)
    """Null while the breaker is closed."""
    probes = models.PositiveIntegerField(default=0)
    """Probes since then that have met the fault again."""
    next_probe_at = models.DateTimeField(null=True, blank=True)
    """From when on one call shows whether the fault is over; null: at any time. Set as soon as something waits."""
    probe_until = models.DateTimeField(null=True, blank=True)
    """Until when the place of the one prober is taken."""

    objects: ClassVar[Any] = GatewayStateQuerySet.as_manager()

    class Meta:
        verbose_name = _("state of the gateway")
        verbose_name_plural = _("states of the gateway")

    def __str__(self) -> str:
        return self.brandname or "eSMS"

    @property
    def is_open(self) -> bool:
        return self.opened_at is not None

    @property
    def in_trouble(self) -> bool:
        return self.is_open or self.silent > 0 or self.refusals > 0

    def holds(self, *, in_request: bool) -> bool:
        """Does no call start but a probe? In a web request the first call without an answer is enough for that."""
        return self.is_open or (in_request and self.silent > 0)

    def is_probe_due(self, now: dt.datetime | None = None) -> bool:
        now = now or timezone.now()
        is_free = self.probe_until is None or self.probe_until < now
        return is_free and (self.next_probe_at is None or self.next_probe_at <= now)
