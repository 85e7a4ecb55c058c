"""Figures for the admin: results, costs and delivery times of many messages, counted from the rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Sequence
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
"""Drafts are not counted, because nobody has asked to send them."""

DELIVERY_BOUNDS = (
    dt.timedelta(seconds=10),
    dt.timedelta(minutes=1),
    dt.timedelta(minutes=10),
    dt.timedelta(hours=1),
)
"""Deliveries are counted by the time they took at most; those over the last bound come last."""

_TIMES = range(len(DELIVERY_BOUNDS) + 1)
_EARLIER = -1


@dataclass(slots=True)
class Tally:
    """Messages counted by status, and their cost."""

    counts: Counter[str] = field(default_factory=Counter)
    cost: Decimal = Decimal(0)
    """The sum of the prices that eSMS has reported."""

    @property
    def asked_for(self) -> int:
        return self.counts.total()

    @property
    def delivered(self) -> int:
        return self.counts[Status.DELIVERED]

    @property
    def reported(self) -> int:
        """The messages with a final report."""
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
    """Empty for all days before the others."""
    tally: Tally


@dataclass(frozen=True, slots=True)
class Figures:
    """The figures of a set of messages."""

    total: Tally
    days: list[Day]
    """The days with messages, newest first."""
    failures: list[tuple[str, str, int]]
    """Status, answer code and number, most frequent first; for undelivered messages the code is empty."""
    deliveries: list[int]
    """Numbers by `DELIVERY_BOUNDS` of the time from eSMS's answer to the report."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The work that is left for a set of messages."""

    queued: int
    """Waiting to be sent, those for a later time included."""
    sending: int
    repeated: int
    """Perhaps sent, and called again without anyone asking."""
    due: int
    """Queued or repeated, and to be called for now."""
    oldest_due_at: dt.datetime | None
    """When the oldest of these became due."""
    starts_at: dt.datetime | None
    """When the first of the queued messages for a later time goes out."""
    awaited: int
    """Taken by eSMS within the last hour, so that a report is likely to come soon."""
    latest_at: dt.datetime | None
    """When the latest of all was created."""

    @property
    def to_come(self) -> int:
        """The messages that a worker has not finished with."""
        return self.queued + self.sending + self.repeated


def counted(messages: MessageQuerySet) -> MessageQuerySet:
    """Leave out drafts, and sandbox messages, because nobody delivers or charges these."""
    return messages.for_writing().filter(sandbox=False, status__in=COUNTED).order_by()


def get_figures(messages: MessageQuerySet, days: Sequence[dt.date]) -> Figures:
    """Count messages by day, failure and time of delivery. The days come oldest first; all before them count as one."""
    starts = [start_of(day) for day in days]
    grouped = messages.annotate(day=_number_of_day(starts, _EARLIER, len(days))).values_list("day", "status")
    by_time = {f"n{number}": Count("pk", filter=took(number)) for number in _TIMES}
    rows: Any = grouped.annotate(count=Count("pk"), cost=Sum("total_price"), **by_time)
    total, tallies = Tally(), defaultdict[int, Tally](Tally)
    deliveries = [0] * len(_TIMES)
    for day, status, count, cost, *times in rows:
        for tally in (total, tallies[day]):
            tally.add(status, count, cost)
        deliveries = [before + more for before, more in zip(deliveries, times, strict=True)]

    # Failures have a query of their own, because grouping the first one by code as well takes longer than both.
    failures = Counter[tuple[str, str]]()
    ended_badly = messages.filter(status__in=[Status.FAILED, Status.UNDELIVERED])
    for status, code, count in ended_badly.values_list("status", "code_result").annotate(count=Count("pk")):
        # An undelivered message was taken, so its code is that of a success.
        failures[status, code if status == Status.FAILED else ""] += count
    return Figures(
        total=total,
        days=[Day(None if n == _EARLIER else days[n], tallies[n]) for n in sorted(tallies, reverse=True)],
        failures=[(*why, count) for why, count in sorted(failures.items(), key=lambda item: (-item[1], item[0]))],
        deliveries=deliveries,
    )


def _number_of_day(starts: Sequence[dt.datetime], low: int, high: int) -> Case | Value:
    """Find the last day that has begun, by halves: five comparisons for each row instead of thirty.

    `Trunc` would not do, because MariaDB knows time zones only where somebody has loaded its tables of them.
    """
    if high - low == 1:
        return Value(low)
    middle = (low + high) // 2
    later = When(created_at__gte=starts[middle], then=_number_of_day(starts, middle, high))
    return Case(later, default=_number_of_day(starts, low, middle))


def took(number: int) -> Q:
    """Select the deliveries that took at most the bound of this number, and more than the one before it."""
    bounds = (None, *DELIVERY_BOUNDS, None)
    over, within = list(pairwise(bounds))[number]
    condition = Q(status=Status.DELIVERED)
    if over is not None:
        condition &= Q(completed_at__gt=F("sent_at") + over)
    if within is not None:
        condition &= Q(completed_at__lte=F("sent_at") + within)
    return condition


def get_campaigns(messages: MessageQuerySet, *, most: int) -> dict[str, Tally]:
    """Return the campaigns with the latest messages, by name."""
    counts: dict[str, Any] = {status.name: Count("pk", filter=Q(status=status)) for status in COUNTED}
    grouped = messages.exclude(campaign="").values("campaign").annotate(last=Max("pk"), **counts)
    rows = grouped.annotate(cost=Sum("total_price")).order_by("-last")[:most]
    return {
        row["campaign"]: Tally(Counter({status: row[status.name] for status in COUNTED}), row["cost"] or Decimal(0))
        for row in rows
    }


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
            # This belongs here, because a query of its own would scan the `created_at` index of the whole table.
            latest_at=Max("created_at"),
        )
    )


def start_of(day: dt.date) -> dt.datetime:
    start = dt.datetime.combine(day, dt.time.min)
    return timezone.make_aware(start) if settings.USE_TZ else start


def days_until(last: dt.datetime, number: int) -> list[dt.date]:
    """Return this number of days in the current time zone, oldest first, up to the day of `last`."""
    day = (timezone.localtime(last) if timezone.is_aware(last) else last).date()
    return [day - dt.timedelta(days=back) for back in reversed(range(number))]
