"""Figures: exact to the day and the second, without drafts and sandbox messages, in a fixed number of queries."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from esms_viber import statistics
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.statistics import Day, Figures, Tally, counted, get_figures, get_overview
from tests.clock import VIETNAM, Clock

pytestmark = pytest.mark.django_db

FIRST = dt.date(2026, 3, 4)
DAYS = [FIRST, FIRST + dt.timedelta(days=1), FIRST + dt.timedelta(days=2)]


def store(status: str, count: int = 1, *, created_at: dt.datetime | None = None, **columns: Any) -> None:
    callers = {name: columns.pop(name) for name in [*columns] if name in Message.CALLERS_COLUMNS}
    stored = Message.objects.bulk_create(Message(phone="0901888484", content="x", **callers) for _ in range(count))
    columns |= {"status": status} | ({"created_at": created_at} if created_at else {})
    Message.objects.filter(pk__in=[message.pk for message in stored]).update(**columns)


def on(day: dt.date, *time: int) -> dt.datetime:
    return dt.datetime.combine(day, dt.time(*time), VIETNAM)


def look() -> Figures:
    return get_figures(counted(Message.objects.all()), DAYS)[0]


def campaigns(*, most: int = 20) -> dict[str, Tally]:
    today = timezone.localdate()
    return get_overview(counted(Message.objects.all()), [today - dt.timedelta(days=1), today], most=most)[1]


def by_day(found: Figures) -> dict[dt.date | None, dict[str, int]]:
    return {day.date: dict(day.tally.counts) for day in found.days}


def test_a_day_begins_and_ends_at_midnight_in_vietnam() -> None:
    store("sent", created_at=on(DAYS[1], 0) - dt.timedelta(microseconds=1))
    store("delivered", created_at=on(DAYS[1], 0))
    store("failed", created_at=on(DAYS[1], 23, 59, 59, 999999))
    store("queued", created_at=on(DAYS[2], 0))
    assert by_day(look()) == {
        DAYS[2]: {"queued": 1},
        DAYS[1]: {"delivered": 1, "failed": 1},
        DAYS[0]: {"sent": 1},
    }


def test_days_are_those_of_the_current_time_zone() -> None:
    store("sent", created_at=on(DAYS[1], 3))
    with timezone.override("UTC"):
        assert by_day(look()) == {DAYS[0]: {"sent": 1}}


def test_what_is_older_counts_as_one_and_comes_last() -> None:
    store("sent", created_at=on(DAYS[2], 9))
    store("delivered", created_at=on(FIRST, 0) - dt.timedelta(seconds=1))
    store("delivered", created_at=on(FIRST, 0) - dt.timedelta(days=400))
    assert [(day.date, day.tally.asked_for) for day in look().days] == [(DAYS[2], 1), (None, 2)]


def test_drafts_and_sandbox_messages_are_not_counted() -> None:
    store("draft", 2, created_at=on(FIRST, 9))
    store("delivered", 3, created_at=on(FIRST, 9), sent_to_sandbox=True, total_price=Decimal(450), campaign="tet")
    found = look()
    assert found == Figures(total=Tally(), days=[], failures=[], deliveries=[0, 0, 0, 0, 0])
    assert campaigns() == {}


def test_totals_rate_and_cost() -> None:
    store("delivered", 3, created_at=on(FIRST, 9), total_price=Decimal("450.5"))
    store("undelivered", 1, created_at=on(DAYS[1], 9))
    store("sent", 2, created_at=on(DAYS[1], 9), total_price=Decimal(1000))
    total = look().total
    assert total.counts == Counter(delivered=3, undelivered=1, sent=2)
    assert (total.asked_for, total.delivered, total.reported) == (6, 3, 4)
    assert (total.delivery_rate, total.cost) == (Decimal("0.75"), Decimal("3351.5"))


def test_no_rate_without_a_report() -> None:
    store("failed", created_at=on(FIRST, 9))
    assert look().total.delivery_rate is None


@pytest.mark.parametrize(
    ("seconds", "number"),
    [(0, 0), (10, 0), (11, 1), (60, 1), (61, 2), (600, 2), (601, 3), (3600, 3), (3601, 4), (86400 * 9, 4)],
)
def test_a_delivery_counts_by_the_time_it_took(seconds: int, number: int) -> None:
    store("delivered", delivery_seconds=seconds)
    store("delivered")  # by a report for a message of which nobody knows when it was sent
    store("undelivered")
    expected = [0] * 5
    expected[number] = 1
    assert look().deliveries == expected
    assert counted(Message.objects.all()).filter(statistics.took(number)).count() == 1


def test_failures_by_reason_the_most_frequent_first() -> None:
    store("failed", 2, code_result="104")
    store("failed", 1, code_result="")
    store("failed", 3, code_result="99")
    store("undelivered", 2, code_result="100")
    store("undelivered", 2, code_result="")
    store("cancelled", 9, code_result="104")
    assert look().failures == [
        ("undelivered", "", 4),
        ("failed", "99", 3),
        ("failed", "104", 2),
        ("failed", "", 1),
    ]


def test_campaigns_the_latest_first() -> None:
    for name in ("tet", "orders", "tet", ""):
        store("delivered", campaign=name, total_price=Decimal(10))
    store("failed", campaign="orders")
    store("delivered", campaign="sale")
    assert list(campaigns().items()) == [
        ("sale", Tally(Counter(delivered=1), Decimal(0))),
        ("orders", Tally(Counter(delivered=1, failed=1), Decimal(10))),
        ("tet", Tally(Counter(delivered=2), Decimal(20))),
    ]
    assert list(campaigns(most=1)) == ["sale"]


def test_progress(clock: Clock) -> None:
    now = timezone.now()
    minute = dt.timedelta(minutes=1)
    store("queued", 1, next_attempt_at=now - 5 * minute, created_at=now + minute)
    store("queued", 2, next_attempt_at=now + 5 * minute)
    store("sending", 3, lease_until=now)
    store("unknown", 4, next_attempt_at=now - 2 * minute)
    store("unknown", 5, next_attempt_at=None)
    store("sent", 6, sent_at=now - 59 * minute)
    store("sent", 7, sent_at=now - 61 * minute)
    store("delivered", 8, sent_at=now)
    _figures, found = get_figures(counted(Message.objects.all()), DAYS)
    assert (found.queued, found.sending, found.repeated, found.awaited) == (3, 3, 4, 6)
    assert (found.due, found.oldest_due_at, found.to_come) == (5, now - 5 * minute, 10)
    assert found.starts_at == now + 5 * minute


def test_the_overview_counts_the_same_day_by_day(clock: Clock) -> None:
    for day in DAYS:
        for hour, status in enumerate(Message.Status):
            columns = {"delivery_seconds": 70} if status == "delivered" else {}
            store(status, created_at=on(day, hour), campaign="tet", total_price=Decimal("450.5"), **columns)
    store("delivered", created_at=on(FIRST, 0) - dt.timedelta(microseconds=1))
    store("delivered", created_at=on(DAYS[-1], 23) + dt.timedelta(days=9))
    since = counted(Message.objects.filter(created_at__gte=on(FIRST, 0)))
    figures, tallies = get_overview(counted(Message.objects.all()), DAYS, most=20)
    assert figures == get_figures(since, DAYS)[0]
    assert tallies["tet"].asked_for == 24


def test_the_latest_of_a_campaign_is_found_among_others() -> None:
    for day in DAYS:
        store("sent", created_at=on(day, 9), campaign="tet")
        store("sent", created_at=on(day, 10), campaign="tet-2")
    everything = counted(Message.objects.all())
    assert statistics.latest_of_campaign(everything, "tet") == on(DAYS[-1], 9)
    assert statistics.latest_of_campaign(everything, "te") is None


def test_the_queries_are_as_many_whatever_the_number_of_rows(django_assert_num_queries: Any) -> None:
    for rows in (1, 40):
        for status in Message.Status:
            store(status, rows, created_at=on(DAYS[rows % 3], 9), code_result=str(rows), campaign=f"{rows}")
        # On PostgreSQL four more: a savepoint with settings of its own, which is rolled back and released.
        number = 6 if connection.vendor == "postgresql" else 2
        with django_assert_num_queries(number):
            look()
        with django_assert_num_queries(number):
            campaigns()


def test_a_site_without_time_zones(settings) -> None:
    settings.USE_TZ = False
    for time in (dt.time.min, dt.time.max):
        store("sent", created_at=dt.datetime.combine(DAYS[1], time))
    assert look().days == [Day(DAYS[1], Tally(Counter(sent=2)))]
    assert statistics.days_until(dt.datetime(2026, 3, 6, 23, 59), 3) == DAYS  # noqa: DTZ001 - the point


def test_the_last_days_are_those_of_vietnam() -> None:
    assert statistics.days_until(dt.datetime(2026, 3, 5, 17, 0, tzinfo=dt.UTC), 3) == DAYS
    assert statistics.days_until(dt.datetime(2026, 3, 6, 16, 59, tzinfo=dt.UTC), 3) == DAYS


@pytest.mark.postgresql
def test_the_transaction_of_the_caller_keeps_its_settings() -> None:
    def settings() -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_setting('jit'), current_setting('enable_sort')")
            return list(cursor.fetchone())

    with transaction.atomic():
        before = settings()
        store("delivered", created_at=on(DAYS[1], 12))
        look()
        campaigns()
        assert settings() == before
        assert before[1] == "on"
    assert look().total.delivered == 1
