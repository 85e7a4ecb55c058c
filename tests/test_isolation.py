"""Two callers with one dedupe key, at every isolation level: the second comes when the first has committed.

Each waits for the other where the test says so; nothing depends on how fast anything is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import IntegrityError, connection, connections, transaction

from esms_viber import testing
from esms_viber.exceptions import DedupeKeyTaken, EsmsViberError
from esms_viber.mailing.mailing import Mailing, review, store
from esms_viber.mailing.recipients import read_pasted
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent
from esms_viber.services import queue_viber_message, queue_viber_messages, send_viber_message
from tests.shop.models import Order

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]

PHONE, TEXT = "0901888484", "Your order is paid"
RC, RR, SERIALIZABLE, SNAPSHOT = "READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE", "REPEATABLE READ, checked"
LEVELS = {
    "sqlite": [SERIALIZABLE],
    "postgresql": [RC, RR, SERIALIZABLE],
    # What newer MariaDB does by default: it ends a transaction that would lock a row younger than its snapshot.
    "mysql": [RC, RR, SNAPSHOT, SERIALIZABLE],
}[connection.vendor]
BLIND = {"sqlite": [], "postgresql": [RR, SERIALIZABLE], "mysql": [SNAPSHOT]}[connection.vendor]
"""Those in which a transaction cannot see the row that it has just been told of."""
LOCKS_WHAT_IT_READS = connection.vendor != "postgresql"
"""Is SERIALIZABLE made by locks? Then nobody comes in between."""


def send_one() -> Any:
    return send_viber_message(PHONE, TEXT, dedupe_key="order-17").pk


def queue_one() -> Any:
    return queue_viber_message(PHONE, TEXT, dedupe_key="order-17").pk


def queue_many() -> Any:
    keys = [None, "order-16", "order-17", "order-17", "order-18"]
    rows = queue_viber_messages([Message(phone=PHONE, content=TEXT, dedupe_key=key) for key in keys])
    assert [row.dedupe_key for row in rows] == keys
    assert len({row.pk for row in rows}) == 4
    return rows[2].pk


@pytest.fixture(params=LEVELS)
def level(request: pytest.FixtureRequest) -> Iterator[str]:
    """The isolation level of this test's connections."""
    yield request.param
    connection.close()


def isolate(level: str) -> None:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL {level}")
        elif connection.vendor == "mysql":
            if level == SNAPSHOT:
                cursor.execute("SET SESSION innodb_snapshot_isolation = ON")
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {level.partition(',')[0]}")


def elsewhere(call: Callable[[], Any], level: str) -> Any:
    """What the call gives on another connection, when it has committed."""

    def run() -> Any:
        try:
            isolate(level)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(60)


@contextmanager
def another_comes_before_the_insert(call: Callable[[], Any], level: str) -> Iterator[list[Any]]:
    """This connection has begun to read, when another stores a message with the key that it is about to insert."""
    came: list[Any] = []

    def wrapper(execute: Any, sql: str, *args: Any) -> Any:
        if not came and sql.startswith("INSERT INTO") and Message._meta.db_table in sql:
            came.append(None)
            Order.objects.count()
            came[0] = elsewhere(call, level)
        return execute(sql, *args)

    with connection.execute_wrapper(wrapper):
        yield came


def both_have_read(level: str) -> None:
    if not (LOCKS_WHAT_IT_READS and level == SERIALIZABLE):
        list(Message.objects.all())
        list(Order.objects.all())


@pytest.mark.parametrize("theirs", LEVELS)
@pytest.mark.parametrize("second", [queue_one, queue_many])
@pytest.mark.parametrize("first", [queue_one, queue_many])
def test_in_the_callers_transaction_the_first_row_is_found_or_the_error_says_what_to_do(
    level: str, theirs: str, first: Callable[[], Any], second: Callable[[], Any]
) -> None:
    def first_having_read() -> Any:
        with transaction.atomic():
            both_have_read(theirs)
            return first()

    def order() -> Any:
        # On SQLite nobody else writes from the first write on.
        with transaction.atomic():
            both_have_read(level)
            if connection.vendor != "sqlite":
                Order.objects.create(phone=PHONE)
            pks[:] = pks or [elsewhere(first_having_read, theirs)]
            return second()

    isolate(level)
    pks: list[Any] = []
    if level in BLIND:
        with pytest.raises(DedupeKeyTaken, match="Repeat the whole transaction") as caught:
            order()
        assert isinstance(caught.value, EsmsViberError)
        assert not Order.objects.exists()
    assert order() == pks[0]
    assert Message.objects.filter(dedupe_key="order-17").count() == 1
    assert Order.objects.exists() == (connection.vendor != "sqlite"), "the order is not lost"
    assert ViberMessageEvent.objects.filter(message=pks[0], kind="requested").count() == 1


@pytest.mark.parametrize("second", [queue_one, queue_many])
def test_a_transaction_survives_unless_the_database_has_ended_it(level: str, second: Callable[[], Any]) -> None:
    isolate(level)
    expected: Any = pytest.raises(transaction.TransactionManagementError) if level == SNAPSHOT else nullcontext()
    with expected, transaction.atomic():
        both_have_read(level)
        elsewhere(send_one, RC)
        with pytest.raises(DedupeKeyTaken) if level in BLIND else nullcontext():
            second()
        Order.objects.create(phone=PHONE)
    assert Order.objects.count() == (level != SNAPSHOT)


@pytest.mark.parametrize("first", [queue_one, queue_many])
@pytest.mark.parametrize("second", [send_one, queue_one, queue_many])
def test_in_a_transaction_of_our_own_the_first_row_is_always_found(
    level: str, first: Callable[[], Any], second: Callable[[], Any]
) -> None:
    if LOCKS_WHAT_IT_READS and level == SERIALIZABLE:
        first_pk = elsewhere(first, level)
        assert second() == first_pk
        return
    isolate(level)
    with another_comes_before_the_insert(first, level) as came:
        assert second() == came[0]
    assert Message.objects.filter(dedupe_key="order-17").count() == 1
    assert testing.outbox == [], "the first one sends it"


def test_a_mailing_that_two_people_store_is_stored_once(level: str) -> None:
    mailing = Mailing(campaign="tet", content=TEXT)
    mine, theirs = (review(mailing, read_pasted(f"{PHONE}, 0912345678")) for _ in range(2))
    user = User.objects.create_user("lan")

    def store_theirs() -> int:
        return store(mailing, theirs, user=user)

    if LOCKS_WHAT_IT_READS and level == SERIALIZABLE:
        assert (elsewhere(store_theirs, level), store(mailing, mine, user=user)) == (2, 0)
        return
    isolate(level)
    with another_comes_before_the_insert(store_theirs, level) as came:
        assert (store(mailing, mine, user=user), came) == (0, [2])
    assert Message.objects.count() == 2


@pytest.mark.parametrize("queue", [queue_one, queue_many])
def test_what_fails_for_another_reason_stays_djangos_error(queue: Callable[[], Any]) -> None:
    """And is not tried again and again."""
    tries = []

    def wrapper(execute: Any, sql: str, *args: Any) -> Any:
        if sql.startswith("INSERT INTO") and ViberMessageEvent._meta.db_table in sql:
            tries.append(sql)
            raise IntegrityError("some constraint of the site's own")
        return execute(sql, *args)

    with connection.execute_wrapper(wrapper), pytest.raises(IntegrityError):
        queue()
    assert len(tries) == 1
    assert not Message.objects.exists()
