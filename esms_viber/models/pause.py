"""What keeps due messages from being called for: pauses, and the hours of promotional messages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import UniqueConstraint
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import VIETNAM, readable_settings
from .choices import CAMPAIGN_PAUSED, OUTSIDE_HOURS, PAUSED, Purpose
from .fields import CrossDatabaseForeignKey, KeyField
from .querysets import ForWriting, MessageQuerySet
from .validators import normalize_text, validate_text

if TYPE_CHECKING:
    from .message import OutboundViberMessage


@dataclass(frozen=True, slots=True)
class Holds:
    """What keeps due messages waiting."""

    everything: bool = False
    """Is sending paused as a whole?"""
    campaigns: frozenset[str] = frozenset()
    """Paused ones."""
    hours: tuple[dt.time, dt.time] | None = None
    """When promotional messages may go out, in Vietnam time: from the first until before the second."""

    def reason(self, message: OutboundViberMessage, now: dt.datetime | None = None) -> str:
        """Say why no call is made for the message now, in stored English; empty where one may be made."""
        if self.everything:
            return PAUSED
        if message.campaign and message.campaign in self.campaigns:
            return CAMPAIGN_PAUSED
        return "" if self.open_for(message.purpose, now) else OUTSIDE_HOURS

    def open_for(self, purpose: str, now: dt.datetime | None = None) -> bool:
        """May messages of this purpose go out at this hour?"""
        if self.hours is None or purpose != Purpose.PROMOTIONAL:
            return True
        begin, end = self.hours
        return begin <= (now or timezone.now()).astimezone(VIETNAM).time() < end

    def purposes(self, now: dt.datetime | None = None) -> Sequence[Purpose]:
        """Return the purposes of messages that may go out at this hour, the urgent one first."""
        return [purpose for purpose in Purpose if self.open_for(purpose, now)]

    def opens_at(self, now: dt.datetime) -> dt.datetime | None:
        """Say when promotional messages may go out again; None where they may now."""
        if self.hours is None or self.open_for(Purpose.PROMOTIONAL, now):
            return None
        local = now.astimezone(VIETNAM)
        day = local.date() + dt.timedelta(days=local.time() >= self.hours[1])
        opens = dt.datetime.combine(day, self.hours[0], VIETNAM)
        return opens if settings.USE_TZ else timezone.make_naive(opens)


def due_lanes(
    rows: MessageQuerySet, holds: Holds, now: dt.datetime, *, campaign: str = ""
) -> Iterator[MessageQuerySet]:
    """Split what is due and held by nothing, so that each part is read along an index, soonest first.

    Transactional ones come before promotional ones. `campaign`: only of this one. While a campaign is paused there are
    as many parts as campaigns wait, so take no more than needed.
    """
    purposes = [] if holds.everything else holds.purposes(now)
    for of_purpose in [kind.filter(purpose=each) for each in purposes for kind in (rows.unknown(), rows.queued())]:
        if campaign or holds.campaigns:
            only = [campaign] if campaign else None
            for lane in of_purpose.lanes(campaigns=only, paused=holds.campaigns):
                yield lane.soonest_first(now)
        else:
            yield of_purpose.soonest_first(now)


MOST_LANES = 50
"""Parts of the queue that a look at it reads, where a pause splits it into very many."""


class PauseQuerySet(ForWriting):
    def holds(self) -> Holds:
        """Read what keeps messages waiting now: the pauses, and the hours in the settings."""
        names = set(self.for_writing().values_list("campaign", flat=True))
        return Holds("" in names, frozenset(names - {""}), readable_settings().promotional_hours)


class ViberPause(models.Model):
    """Nothing is sent of one campaign, or at all, as long as this row exists. What is on the wire is finished."""

    campaign = KeyField(
        _("campaign"), max_length=100, blank=True, validators=[validate_text], help_text=_("Empty: everything.")
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    user = CrossDatabaseForeignKey(settings.AUTH_USER_MODEL, verbose_name=_("user"), blank=True, editable=False)
    note = models.CharField(_("note"), max_length=200, blank=True, validators=[validate_text])

    objects: ClassVar[Any] = PauseQuerySet.as_manager()

    class Meta:
        verbose_name = _("pause")
        verbose_name_plural = _("pauses")
        constraints = [UniqueConstraint(fields=["campaign"], name="esms_viber_pause_campaign")]

    def __str__(self) -> str:
        return self.campaign or str(_("everything"))


def campaign_named(name: str) -> str:
    """Return the name as messages have it; empty, which stands for everything, only where it was empty before.

    Raises `ValidationError` for one that no message can have.
    """
    campaign = normalize_text(name).strip()
    if name and not campaign:
        raise ValidationError(
            {"campaign": ValidationError(_("A campaign's name cannot be white space alone."), "blank")}
        )
    ViberPause(campaign=campaign).clean_fields(exclude={"user", "note"})
    return campaign
