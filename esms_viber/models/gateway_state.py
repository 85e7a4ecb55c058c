from __future__ import annotations

import datetime as dt
from typing import Any, ClassVar, Self

from django.db import models
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .fields import KeyField
from .querysets import ForWriting

_IN_TROUBLE = Q(opened_at__isnull=False) | Q(silent__gt=0) | Q(refusals__gt=0)


class GatewayStateQuerySet(ForWriting):
    def of_account(self) -> Self:
        return self.filter(brandname="")

    def note_of_account(self, **columns: Any) -> None:
        """Write columns of the account's row, which need not be there yet."""
        rows = self.for_writing()
        if not rows.of_account().update(**columns):
            rows.bulk_create([self.model(brandname="")], ignore_conflicts=True)
            rows.of_account().update(**columns)

    def in_trouble(self) -> Self:
        """Breakers that are open, or on their way there."""
        return self.filter(_IN_TROUBLE)

    def in_trouble_or_account(self) -> Self:
        """These, and the account's row whether it is among them or not."""
        return self.filter(_IN_TROUBLE | Q(brandname=""))


class ViberGatewayState(models.Model):
    """The circuit breaker of the account (empty name), or of one brand name: what the latest calls have shown.

    All processes share it; `esms_viber.delivery.breaker` writes it. The account's row also has what eSMS told of the
    account, and when a worker last looked for messages. Deleting a row is harmless: calls start again, and find out
    anew.
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
    balance = models.DecimalField(max_digits=20, decimal_places=4, null=True, blank=True)
    """In VND, when eSMS last told it. This and the following are of the account only; null: nobody has asked."""
    balance_at = models.DateTimeField(null=True, blank=True)
    brandnames = models.JSONField(default=list, blank=True)
    """The brand names that are active for Viber, when eSMS last told them."""
    sender_seen_at = models.DateTimeField(null=True, blank=True)
    """When a worker last looked for messages, give or take a minute."""

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
