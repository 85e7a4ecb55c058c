"""Figures for the admin: results, costs and delivery times of many messages, counted from the rows."""

from __future__ import annotations

import datetime as dt
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import pairwise
from typing import Any, Final, Self

from django.conf import settings
from django.db import connections, transaction
from django.db.models import Case, Count, IntegerField, Max, Min, Q, Sum, Value, When
from django.utils import timezone

from .models import Status
from .models.choices import REDACTED
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

LIKELY_SOON = dt.timedelta(hours=1)
"""How long after eSMS has taken a message its report is likely to come."""

_TIMES = range(len(DELIVERY_BOUNDS) + 1)
_EARLIER = -1
_LOOKED_AT = 100
_NEVER = dt.timedelta(days=36_500)


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
    """Taken by eSMS lately, so that a report is likely to come soon."""

    @property
    def to_come(self) -> int:
        """The messages that a worker has not finished with."""
        return self.queued + self.sending + self.repeated


def counted(messages: MessageQuerySet) -> MessageQuerySet:
    """Leave out drafts, rehearsals, and sandbox messages, because nobody delivers or charges these."""
    # Exclude instead of naming what is wanted, because SQLite would take an index of that for the best one.
    real = messages.for_writing().exclude(sent_to_sandbox=True).exclude(rehearsal=True).exclude(status=Status.DRAFT)
    # A draft is cancelled when it is redacted, and must not become one more message in the figures.
    return real.exclude(status=Status.CANCELLED, queued_at=None, error_message=REDACTED).order_by()


def get_figures(messages: MessageQuerySet, days: Sequence[dt.date]) -> tuple[Figures, Progress]:
    """Read all of the messages once. The days come oldest first; all before them count as one."""
    rows: Any = messages.annotate(group=_number_of_group(days, _EARLIER)).values_list("group")
    with _grouping_fast(messages.db):
        read = list(rows.annotate(count=Count("pk"), cost=Sum("total_price"), next_at=Min("next_attempt_at")))
    counts = [(_Group.numbered(number, count, cost), next_at) for number, count, cost, next_at in read]
    figures = _figures([group for group, _next_at in counts], days, messages)
    return figures, _progress(counts)


def get_overview(messages: MessageQuerySet, days: Sequence[dt.date], *, most: int) -> tuple[Figures, dict[str, Tally]]:
    """Read all messages of these days once, for figures and for the campaigns with the latest messages, by name."""
    # The last day has an end as well, because SQLite would look for a range without one in another index.
    messages = messages.filter(created_at__gte=start_of(days[0]), created_at__lt=start_of(days[-1] + _NEVER))
    rows: Any = messages.annotate(group=_number_of_group(days, 0)).values_list("group", "campaign")
    with _grouping_fast(messages.db):
        read = list(rows.annotate(count=Count("pk"), cost=Sum("total_price"), last=Max("pk")))
    groups: list[_Group] = []
    campaigns, latest = defaultdict[str, Tally](Tally), defaultdict[str, int](int)
    for number, campaign, count, cost, last in read:
        group = _Group.numbered(number, count, cost)
        groups.append(group)
        if campaign:
            group.add_to(campaigns[campaign])
            latest[campaign] = max(latest[campaign], last)
    names = sorted(latest, key=lambda name: -latest[name])[:most]
    figures = _figures(groups, days, messages)
    return figures, {name: campaigns[name] for name in names}


@contextmanager
def _grouping_fast(alias: str) -> Iterator[None]:
    """Keep PostgreSQL from what takes longer than to count: it compiles the statements, and sorts before it groups.

    It sorts because it cannot tell how few groups there are, and expects nearly as many as rows.
    """
    connection = connections[alias]
    if connection.vendor != "postgresql":
        yield
        return
    with transaction.atomic(using=alias):
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('jit', 'off', true), set_config('enable_sort', 'off', true)")
        yield
        # A rollback restores the settings, which would outlive the savepoint if the caller has a transaction.
        transaction.set_rollback(True, using=alias)


@dataclass(frozen=True, slots=True)
class _Part:
    """Messages of one status, or some of them."""

    status: Status
    condition: Callable[[dt.datetime], Q]
    number: int | None = None
    """For deliveries, the number of the bound of the time that they took."""
    is_due: bool = False
    is_repeated: bool = False
    is_awaited: bool = False


def _of(status: Status, **found: Any) -> _Part:
    return _Part(status, lambda now: Q(status=status), **found)


def _delivered_in(number: int) -> _Part:
    return _Part(Status.DELIVERED, lambda _now: took(number), number)


# Each row belongs to the first part whose condition it meets.
_PARTS: Final = (
    *(_delivered_in(number) for number in _TIMES),
    _of(Status.DELIVERED),
    _Part(Status.SENT, lambda now: Q(status=Status.SENT, sent_at__gte=now - LIKELY_SOON), is_awaited=True),
    _of(Status.SENT),
    _of(Status.UNDELIVERED),
    _of(Status.FAILED),
    _of(Status.CANCELLED),
    _Part(Status.QUEUED, lambda now: Q(status=Status.QUEUED, next_attempt_at__lte=now), is_due=True),
    _of(Status.QUEUED),
    _of(Status.SENDING),
    _Part(
        Status.UNKNOWN,
        lambda now: Q(status=Status.UNKNOWN, next_attempt_at__lte=now),
        is_due=True,
        is_repeated=True,
    ),
    _Part(Status.UNKNOWN, lambda _now: Q(status=Status.UNKNOWN, next_attempt_at__isnull=False), is_repeated=True),
    _of(Status.UNKNOWN),
)


def _number_of_group(days: Sequence[dt.date], first: int) -> Any:
    """One number for day and part, because sorting by two columns takes half as long again.

    `first`: the number for what is before the second of the days, or before all of them.
    """
    starts = [start_of(day) for day in days]
    return _number_of_day(starts, first, len(days)) * len(_PARTS) + _number_of_part(timezone.now())


def _number_of_part(now: dt.datetime) -> Case:
    parts = [When(part.condition(now), then=Value(number)) for number, part in enumerate(_PARTS)]
    return Case(*parts, output_field=IntegerField())


@dataclass(frozen=True, slots=True)
class _Group:
    """Messages of one day and one part, as the database has counted them."""

    day: int
    part: _Part
    count: int
    cost: Decimal | None

    @classmethod
    def numbered(cls, number: int, count: int, cost: Decimal | None) -> Self:
        day, part = divmod(number, len(_PARTS))
        return cls(day, _PARTS[part], count, cost)

    def add_to(self, tally: Tally) -> None:
        tally.add(self.part.status, self.count, self.cost)


def _figures(groups: Iterable[_Group], days: Sequence[dt.date], messages: MessageQuerySet) -> Figures:
    total, tallies = Tally(), defaultdict[int, Tally](Tally)
    deliveries = [0] * len(_TIMES)
    for group in groups:
        group.add_to(total)
        group.add_to(tallies[group.day])
        if group.part.number is not None:
            deliveries[group.part.number] += group.count
    # Failures have a query of their own, because grouping the first one by code as well takes longer than both.
    failed = messages.filter(status=Status.FAILED).values_list("code_result").annotate(count=Count("pk"))
    failures = [(str(Status.FAILED), code, count) for code, count in failed]
    if undelivered := total.counts[Status.UNDELIVERED]:
        # An undelivered message was taken, so its code is that of a success.
        failures.append((str(Status.UNDELIVERED), "", undelivered))
    return Figures(
        total=total,
        days=[Day(None if n == _EARLIER else days[n], tallies[n]) for n in sorted(tallies, reverse=True)],
        failures=sorted(failures, key=lambda failure: (-failure[2], failure[:2])),
        deliveries=deliveries,
    )


def _progress(groups: Iterable[tuple[_Group, dt.datetime | None]]) -> Progress:
    counts = Counter[str]()
    due_at, later_at = [], []
    for group, next_at in groups:
        part, count = group.part, group.count
        counts["queued"] += count * (part.status == Status.QUEUED)
        counts["sending"] += count * (part.status == Status.SENDING)
        counts["repeated"] += count * part.is_repeated
        counts["due"] += count * part.is_due
        counts["awaited"] += count * part.is_awaited
        if next_at is not None and part.is_due:
            due_at.append(next_at)
        elif next_at is not None and part.status == Status.QUEUED:
            later_at.append(next_at)
    return Progress(
        queued=counts["queued"],
        sending=counts["sending"],
        repeated=counts["repeated"],
        due=counts["due"],
        awaited=counts["awaited"],
        oldest_due_at=min(due_at, default=None),
        starts_at=min(later_at, default=None),
    )


def _number_of_day(starts: Sequence[dt.datetime], low: int, high: int) -> Case | Value:
    """Find the last day that has begun, by halves: five comparisons for each row instead of thirty.

    `Trunc` would not do, because MariaDB knows time zones only where somebody has loaded its tables of them.
    """
    if high - low == 1:
        return Value(low)
    middle = (low + high) // 2
    later = When(created_at__gte=starts[middle], then=_number_of_day(starts, middle, high))
    return Case(later, default=_number_of_day(starts, low, middle), output_field=IntegerField())


def took(number: int) -> Q:
    """Select the deliveries that took at most the bound of this number, and more than the one before it."""
    bounds = (None, *(int(bound.total_seconds()) for bound in DELIVERY_BOUNDS), None)
    over, within = list(pairwise(bounds))[number]
    # What was not delivered has no seconds.
    found = {"delivery_seconds__gt": over, "delivery_seconds__lte": within}
    return Q(**{name: bound for name, bound in found.items() if bound is not None})


def latest_of_campaign(messages: MessageQuerySet, name: str) -> dt.datetime | None:
    """Return when the latest message of the campaign was created, going by the numbers of the messages."""
    # A maximum would read all of them.
    return max(_latest(messages, name).values_list("created_at", flat=True)[:_LOOKED_AT], default=None)


def was_stopped(messages: MessageQuerySet, name: str) -> bool:
    """Has somebody cancelled any of the latest messages of the campaign, which are the last to go out?"""
    # What is cancelled for another reason, for example an opt-out, has it as its error.
    latest = _latest(messages, name).values_list("status", "error_message")[:_LOOKED_AT]
    return (Status.CANCELLED.value, "") in set(latest)


def _latest(messages: MessageQuerySet, name: str) -> MessageQuerySet:
    # Sorted by the campaign as well, because PostgreSQL takes its messages to be spread over the whole table, and would
    # look for them from its end.
    return messages.filter(campaign__gte=name, campaign__lte=name).order_by("-campaign", "-pk")


def start_of(day: dt.date) -> dt.datetime:
    start = dt.datetime.combine(day, dt.time.min)
    return timezone.make_aware(start) if settings.USE_TZ else start


def days_until(last: dt.datetime, number: int) -> list[dt.date]:
    """Return this number of days in the current time zone, oldest first, up to the day of `last`."""
    day = (timezone.localtime(last) if timezone.is_aware(last) else last).date()
    return [day - dt.timedelta(days=back) for back in reversed(range(number))]
