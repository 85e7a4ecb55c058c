"""What became of many messages, in numbers: derived from the rows, for the admin."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any

from django.conf import settings
from django.db.models import Case, Count, F, Max, Min, Q, Sum, Value, When
from django.utils import timezone

from .models import Status
from .models.choices import WAITING
from .models.querysets import MessageQuerySet

COUNTED = tuple(status for status in Status if status != Status.DRAFT)
"""Nobody has asked to send a draft."""

DELIVERY_BOUNDS = (
    dt.timedelta(seconds=10),
    dt.timedelta(minutes=1),
    dt.timedelta(minutes=10),
    dt.timedelta(hours=1),
)
"""Deliveries are counted by what they took at most; those over the last bound come last."""

_TIMES = range(len(DELIVERY_BOUNDS) + 1)
_EARLIER = -1


@dataclass(slots=True)
class Tally:
    """Messages by what has become of them."""

    counts: Counter[str] = field(default_factory=Counter)
    """By status."""
    cost: Decimal = Decimal(0)
    """As far as eSMS has reported prices."""

    @property
    def asked_for(self) -> int:
        return self.counts.total()

    @property
    def delivered(self) -> int:
        return self.counts[Status.DELIVERED]

    @property
    def reported(self) -> int:
        """Those that eSMS has a final report on."""
        return self.counts[Status.DELIVERED] + self.counts[Status.UNDELIVERED]

    @property
    def delivery_rate(self) -> Decimal | None:
        """The delivered part of the reported ones; None without a report."""
        return Decimal(self.delivered) / self.reported if self.reported else None

    def add(self, status: str, count: int, cost: Decimal | None) -> None:
        self.counts[status] += count
        self.cost += cost or 0


@dataclass(frozen=True, slots=True)
class Day:
    """The messages that were created on one day of the current time zone."""

    date: dt.date | None
    """None: on all days before the others."""
    tally: Tally


@dataclass(frozen=True, slots=True)
class Figures:
    """What became of a set of messages."""

    total: Tally
    days: list[Day]
    """Those that have any, newest first."""
    failures: list[tuple[str, str, int]]
    """Status, answer code and number, most frequent first; what was not delivered has no code."""
    deliveries: list[int]
    """By `DELIVERY_BOUNDS`: how long they took from eSMS's answer to the report."""


@dataclass(frozen=True, slots=True)
class Progress:
    """What is still to come for a set of messages."""

    queued: int
    """Waiting to be sent, those for a later time included."""
    sending: int
    repeated: int
    """Perhaps sent, and asked again by themselves."""
    due: int
    """Of those that wait or are repeated, the ones whose time has come."""
    oldest_due_at: dt.datetime | None
    """Since when the oldest of these has been due."""
    starts_at: dt.datetime | None
    """When the first of those goes out that wait for a later time."""
    awaited: int
    """Taken by eSMS within the last hour, so that a report is likely to come soon."""
    latest_at: dt.datetime | None
    """When the latest of all was created."""

    @property
    def to_come(self) -> int:
        """Those that are not through yet."""
        return self.queued + self.sending + self.repeated


def counted(messages: MessageQuerySet) -> MessageQuerySet:
    """Those that figures are about: no drafts, and no sandbox messages, which nobody delivers or charges."""
    return messages.for_writing().filter(sandbox=False, status__in=COUNTED).order_by()


def get_figures(messages: MessageQuerySet, days: Sequence[dt.date]) -> Figures:
    """The days oldest first; what was created before them counts as one."""
    total, tallies = Tally(), defaultdict[int, Tally](Tally)
    deliveries = [0] * len(_TIMES)
    for day, status, count, cost, *times in _by_day_and_status(messages, days):
        for tally in (total, tallies[day]):
            tally.add(status, count, cost)
        deliveries = [before + more for before, more in zip(deliveries, times, strict=True)]
    return Figures(
        total=total,
        days=[Day(None if n == _EARLIER else days[n], tallies[n]) for n in sorted(tallies, reverse=True)],
        failures=_failures(messages),
        deliveries=deliveries,
    )


def _by_day_and_status(messages: MessageQuerySet, days: Sequence[dt.date]) -> Any:
    starts = [start_of(day) for day in days]
    grouped = messages.annotate(day=_number_of_day(starts, _EARLIER, len(days))).values_list("day", "status")
    times = {f"n{number}": Count("pk", filter=took(number)) for number in _TIMES}
    return grouped.annotate(count=Count("pk"), cost=Sum("total_price"), **times)


def _failures(messages: MessageQuerySet) -> list[tuple[str, str, int]]:
    # Not one more key of the other query: that takes longer than both of them.
    counts = Counter[tuple[str, str]]()
    ended_badly = messages.filter(status__in=[Status.FAILED, Status.UNDELIVERED])
    for status, code, count in ended_badly.values_list("status", "code_result").annotate(count=Count("pk")):
        # The code of what was taken and not delivered is that of a success.
        counts[status, code if status == Status.FAILED else ""] += count
    return [(*reason, count) for reason, count in sorted(counts.items(), key=lambda item: (-item[1], item[0]))]


def _number_of_day(starts: Sequence[dt.datetime], low: int, high: int) -> Case | Value:
    """The last day that has begun, by halves: five comparisons for each row instead of thirty.

    No Trunc: MariaDB truncates in a time zone only where somebody has loaded its tables of time zones.
    """
    if high - low == 1:
        return Value(low)
    middle = (low + high) // 2
    later = When(created_at__gte=starts[middle], then=_number_of_day(starts, middle, high))
    return Case(later, default=_number_of_day(starts, low, middle))


def took(number: int) -> Q:
    """Deliveries that took at most the bound of this number, and more than the one before it."""
    bounds = (None, *DELIVERY_BOUNDS, None)
    over, within = list(pairwise(bounds))[number]
    condition = Q(status=Status.DELIVERED)
    if over is not None:
        condition &= Q(completed_at__gt=F("sent_at") + over)
    if within is not None:
        condition &= Q(completed_at__lte=F("sent_at") + within)
    return condition


def get_campaigns(messages: MessageQuerySet, *, most: int) -> dict[str, Tally]:
    """The campaigns with the latest messages, by name."""
    counts: dict[str, Any] = {status.name: Count("pk", filter=Q(status=status)) for status in COUNTED}
    grouped = messages.exclude(campaign="").values("campaign").annotate(last=Max("pk"), **counts)
    rows = grouped.annotate(cost=Sum("total_price")).order_by("-last")[:most]
    return {row["campaign"]: _tally_of(row) for row in rows}


def _tally_of(row: Mapping[str, Any]) -> Tally:
    return Tally(Counter({status: row[status.name] for status in COUNTED}), row["cost"] or Decimal(0))


def get_progress(messages: MessageQuerySet) -> Progress:
    now = timezone.now()
    repeated = Q(status=Status.UNKNOWN, next_attempt_at__isnull=False)
    due = Q(status__in=WAITING, next_attempt_at__lte=now)
    hour_ago = now - dt.timedelta(hours=1)
    return Progress(
        **messages.aggregate(
            queued=Count("pk", filter=Q(status=Status.QUEUED)),
            sending=Count("pk", filter=Q(status=Status.SENDING)),
            repeated=Count("pk", filter=repeated),
            due=Count("pk", filter=due),
            oldest_due_at=Min("next_attempt_at", filter=due),
            starts_at=Min("next_attempt_at", filter=Q(status=Status.QUEUED, next_attempt_at__gt=now)),
            awaited=Count("pk", filter=Q(status=Status.SENT, sent_at__gte=hour_ago)),
            # Asked for alone, it would be looked for along the index of all messages.
            latest_at=Max("created_at"),
        )
    )


def start_of(day: dt.date) -> dt.datetime:
    start = dt.datetime.combine(day, dt.time.min)
    return timezone.make_aware(start) if settings.USE_TZ else start


def days_until(last: dt.datetime, number: int) -> list[dt.date]:
    """So many days of the current time zone, oldest first, up to the one that this moment is on."""
    day = (timezone.localtime(last) if timezone.is_aware(last) else last).date()
    return [day - dt.timedelta(days=back) for back in reversed(range(number))]
