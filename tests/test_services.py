"""The verbs that a site calls: what each stores, sends, returns and refuses."""

from __future__ import annotations

import datetime as dt
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.core.validators import URLValidator
from django.db import OperationalError, close_old_connections, connection, connections, transaction
from django.db.models.signals import post_save
from django.db.transaction import TransactionManagementError
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber.database import CHUNK
from esms_viber.exceptions import GatewayRefused
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, Status, ViberMessageEvent
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from tests.factories import columns_of, row, stored, unsaved
from tests.fake_gateway import PATIENCE
from tests.shop.models import Order

PHONE, OTHER_PHONE, TEXT = "+84901888484", "+84912345678", "Xin chào"
QUEUE_ONLY = "esms_viber.dispatch.queue_only"

committing = pytest.mark.django_db(transaction=True)


def queue_one(phone: str = PHONE, content: str = TEXT, **fields: Any) -> OutboundViberMessage:
    """`queue_viber_messages()` with one message, called as its sister is."""
    user = fields.pop("user", None)
    return queue_viber_messages([OutboundViberMessage(phone=phone, content=content, **fields)], user=user)[0]


VERBS = [send_viber_message, queue_viber_message, queue_one]
QUEUEING = [queue_viber_message, queue_one]


@pytest.fixture
def user(db) -> Any:
    return get_user_model().objects.create_user("lan")


# -- send and queue ----------------------------------------------------------------------------------------------------


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_one_message_is_stored_goes_out_once_and_is_sent(verb: Callable[..., OutboundViberMessage]) -> None:
    message = verb(
        "0901 888 484",
        "Xin\r\nchào",
        button_label="Xem",
        button_url="https://shop.example.vn/",
        image_url="https://shop.example.vn/sale.png",
        campaign="tet-2027",
        brandname="OTHER",
    )
    (outgoing,) = outbox
    message = stored(message)
    assert message.status == Status.SENT
    assert (message.phone, message.content, message.brandname, message.campaign) == (
        PHONE,
        "Xin\nchào",
        "OTHER",
        "tet-2027",
    )
    assert (outgoing.phone, outgoing.content, outgoing.brandname) == (PHONE, "Xin\nchào", "OTHER")
    assert (outgoing.button_label, outgoing.button_url) == ("Xem", "https://shop.example.vn/")
    assert outgoing.image_url == "https://shop.example.vn/sale.png"
    assert outgoing.request_id == message.request_id
    assert (message.code_result, message.attempts) == ("100", 1)
    assert message.sms_id.startswith("memory-")


@committing
@pytest.mark.parametrize(
    "answer",
    [
        SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="abc"),
        SendResult(outcome=CallOutcome.ANSWERED, code="104", text="Brandname not found"),
        SendResult(outcome=CallOutcome.ANSWERED, code="103"),
        SendResult(outcome=CallOutcome.NO_ANSWER, text="timed out"),
        SendResult(outcome=CallOutcome.NOT_CONNECTED, text="refused"),
    ],
    ids=lambda answer: answer.code or answer.outcome.value,
)
def test_send_returns_the_row_as_it_is_stored(answer: SendResult) -> None:
    MemoryGateway.answers.append(answer)
    message = send_viber_message(PHONE, TEXT)
    assert {name: getattr(message, name) for name in columns_of(message)} == columns_of(message)
    assert message.status not in {Status.SENDING, Status.DRAFT}


@committing
def test_what_was_refused_can_be_raised() -> None:
    MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code="104"))
    with pytest.raises(GatewayRefused) as caught:
        send_viber_message(PHONE, TEXT).raise_for_status()
    assert caught.value.code == "104"


@committing
def test_the_row_is_committed_as_claimed_before_the_gateway_is_called(settings) -> None:
    seen = []

    def drain_and_look() -> None:
        deliver_due_messages()
        seen.extend(OutboundViberMessage.objects.values_list("status", "request_id", "uncertain_since"))

    with calling(drain_and_look, settings):
        message = send_viber_message(PHONE, TEXT)
    assert len(outbox) == 1
    ((status, request_id, uncertain_since),) = seen
    assert (status, request_id) == (Status.SENDING, message.request_id)
    assert uncertain_since is not None


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_what_cannot_be_sent_is_neither_stored_nor_sent(verb: Callable[..., OutboundViberMessage]) -> None:
    for fields in ({"phone": "12345"}, {"content": ""}, {"button_label": "Xem"}, {"content": "x" * 1001}):
        with pytest.raises(ValidationError):
            verb(**fields) if "phone" in fields else verb(PHONE, **{"content": TEXT, **fields})
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_the_related_object_is_kept(verb: Callable[..., OutboundViberMessage]) -> None:
    order = Order.objects.create(phone=PHONE)
    message = verb(PHONE, TEXT, related_object=order)
    assert stored(message).related_object == order
    assert OutboundViberMessage.objects.for_object(order).get().pk == message.pk


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_the_history_begins_with_who_asked(verb: Callable[..., OutboundViberMessage], user: Any) -> None:
    message = verb(PHONE, TEXT, user=user)
    event = message.events.first()
    assert (event.kind, event.user, event.request_id) == ("requested", user, message.request_id)
    assert not message.events.exclude(pk=event.pk).filter(user__isnull=False).exists()


def test_everything_beyond_phone_and_text_is_named() -> None:
    for verb in (send_viber_message, queue_viber_message):
        with pytest.raises(TypeError):
            verb(PHONE, TEXT, "https://shop.example.vn/sale.png")


# -- times -------------------------------------------------------------------------------------------------------------


@committing
@pytest.mark.parametrize("zone", ["aware", "naive"])
def test_send_refuses_a_time_to_come_and_names_the_one_that_waits(zone: str) -> None:
    soon = timezone.localtime(timezone.now()) + dt.timedelta(minutes=5)
    with pytest.raises(ValidationError, match="queue_viber_message"):
        send_viber_message(PHONE, TEXT, send_at=soon if zone == "aware" else soon.replace(tzinfo=None))
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
@pytest.mark.parametrize("zone", ["aware", "naive"])
def test_send_takes_a_time_that_has_come(zone: str) -> None:
    past = timezone.localtime(timezone.now()) - dt.timedelta(minutes=5)
    message = send_viber_message(PHONE, TEXT, send_at=past if zone == "aware" else past.replace(tzinfo=None))
    assert message.status == Status.SENT


@committing
@pytest.mark.parametrize("queue", QUEUEING)
def test_queue_waits_for_the_time_and_no_longer(queue: Callable[..., OutboundViberMessage], clock: Any) -> None:
    message = queue(PHONE, TEXT, send_at=timezone.now() + dt.timedelta(minutes=5))
    assert deliver_due_messages().sent == 0
    assert not outbox
    assert stored(message).status == Status.QUEUED
    clock.advance(minutes=5, seconds=1)
    assert deliver_due_messages().sent == 1
    assert stored(message).status == Status.SENT


@committing
def test_what_expired_before_it_could_be_sent_fails_without_a_call(queue_only: None, clock: Any) -> None:
    message = queue_viber_message(PHONE, TEXT, expires_at=timezone.now() + dt.timedelta(minutes=5))
    clock.advance(minutes=6)
    assert deliver_due_messages().sent == 0
    assert stored(message).status == Status.FAILED
    assert "expired" in stored(message).error_message
    assert not outbox


@committing
def test_send_calls_nobody_for_what_has_expired() -> None:
    message = send_viber_message(PHONE, TEXT, expires_at=timezone.now() - dt.timedelta(seconds=1))
    assert message.status == Status.FAILED
    assert stored(message).uncertain_since is None
    assert not outbox
    with pytest.raises(GatewayRefused, match="expired"):
        message.raise_for_status()


@pytest.mark.parametrize("verb", VERBS)
@committing
def test_it_cannot_expire_before_it_may_go_out(verb: Callable[..., OutboundViberMessage]) -> None:
    now = timezone.now()
    with pytest.raises(ValidationError):
        verb(PHONE, TEXT, send_at=now - dt.timedelta(minutes=1), expires_at=now - dt.timedelta(minutes=2))


# -- brand and sandbox -------------------------------------------------------------------------------------------------


@committing
def test_the_brand_is_the_one_of_the_settings_when_it_was_queued(settings, queue_only: None) -> None:
    message = queue_viber_message(PHONE, TEXT)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BRANDNAME": "RENAMED"}
    deliver_due_messages()
    assert outbox[0].brandname == "SHOP"
    assert stored(message).brandname == "SHOP"


@committing
@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("at_queueing", [False, True])
@pytest.mark.parametrize("at_sending", [False, True])
def test_what_goes_to_the_sandbox_is_decided_at_the_call(
    settings, asked: bool, at_queueing: bool, at_sending: bool
) -> None:
    conf = {**settings.ESMS_VIBER, "DISPATCHER": QUEUE_ONLY}
    settings.ESMS_VIBER = {**conf, "SANDBOX": at_queueing}
    message = queue_viber_message(PHONE, TEXT, sandbox=asked)
    assert stored(message).sent_to_sandbox is (asked or at_queueing)
    settings.ESMS_VIBER = {**conf, "SANDBOX": at_sending}
    deliver_due_messages()
    expected = asked or at_sending
    assert outbox[0].sandbox is expected
    assert stored(message).sent_to_sandbox is expected
    assert stored(message).sandbox is asked


# -- dedupe key --------------------------------------------------------------------------------------------------------


@committing
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("status", Status)
def test_a_key_given_again_returns_the_first_row_unchanged_and_sends_nothing(
    verb: Callable[..., OutboundViberMessage], status: Status, caplog
) -> None:
    first = row(status, dedupe_key="order-17")
    before = columns_of(first)
    again = verb("0901 888 484", TEXT, dedupe_key="order-17")
    assert again.pk == first.pk
    assert columns_of(first) == before
    assert OutboundViberMessage.objects.count() == 1
    assert not first.events.exists()
    assert not outbox
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


@committing
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(("phone", "content"), [(OTHER_PHONE, TEXT), (PHONE, "Tạm biệt")])
def test_a_key_given_again_for_something_else_is_told(
    verb: Callable[..., OutboundViberMessage], phone: str, content: str, caplog
) -> None:
    first = row(Status.SENT, dedupe_key="order-17")
    before = columns_of(first)
    assert verb(phone, content, dedupe_key="order-17").pk == first.pk
    assert columns_of(first) == before
    assert first.events.get().kind == ViberMessageEvent.Kind.NOTE
    (warning,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert f"message {first.pk} " in warning.getMessage()
    assert "order-17" not in warning.getMessage(), "a key of the site's may hold a phone"
    assert phone not in warning.getMessage()
    assert not outbox


@committing
def test_a_key_twice_in_one_list_is_one_message() -> None:
    messages = [unsaved(dedupe_key="a"), unsaved(), unsaved(dedupe_key="a", content="Tạm biệt"), unsaved()]
    stored_rows = queue_viber_messages(messages)
    assert [m.pk for m in stored_rows] == [messages[0].pk, messages[1].pk, messages[0].pk, messages[3].pk]
    assert [m.content for m in outbox].count(TEXT) == len(outbox) == 3
    assert stored_rows[0].events.filter(kind="note").count() == 1


@committing
def test_a_list_may_mix_known_and_new_keys() -> None:
    first = send_viber_message(PHONE, TEXT, dedupe_key="a")
    outbox.clear()
    returned = queue_viber_messages([unsaved(dedupe_key="b"), unsaved(dedupe_key="a")])
    assert returned[1].pk == first.pk
    assert [m.request_id for m in outbox] == [returned[0].request_id]


@committing
def test_the_same_instance_given_twice_is_one_message_or_refused() -> None:
    message = unsaved()
    with suppress(ValidationError):
        queue_viber_messages([message, message])
    deliver_due_messages()
    assert len(outbox) == OutboundViberMessage.objects.count() <= 1


@committing
@pytest.mark.parametrize("queue", QUEUEING)
def test_the_callers_transaction_survives_a_key_given_again(queue: Callable[..., OutboundViberMessage]) -> None:
    first = send_viber_message(PHONE, TEXT, dedupe_key="order-17")
    with transaction.atomic():
        Order.objects.create(phone="before")
        assert queue(PHONE, TEXT, dedupe_key="order-17").pk == first.pk
        Order.objects.create(phone="after")
        third = queue(PHONE, TEXT)
    assert set(Order.objects.values_list("phone", flat=True)) == {"before", "after"}
    assert stored(third).status == Status.SENT
    assert len(outbox) == 2


def in_threads(count: int, work: Callable[[int], Any]) -> list[Any]:
    """The results, or what was raised, of calls that begin together."""
    barrier = threading.Barrier(count)
    results: list[Any] = [None] * count

    def run(index: int) -> None:
        barrier.wait()
        try:
            results[index] = work(index)
        except Exception as error:  # noqa: BLE001 - the test looks at it
            results[index] = error
        finally:
            connections.close_all()

    threads = [threading.Thread(target=run, args=[index]) for index in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_callers_who_come_at_once_with_one_key_get_one_row(verb: Callable[..., OutboundViberMessage]) -> None:
    for round_ in range(3):
        outbox.clear()
        results = in_threads(6, lambda index, key=f"order-{round_}": verb(PHONE, TEXT, dedupe_key=key))
        assert not [found for found in results if isinstance(found, Exception)]
        assert len({found.pk for found in results}) == 1
        assert len(outbox) == 1
    assert OutboundViberMessage.objects.count() == 3


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_callers_who_wait_for_one_with_their_key_that_is_rolled_back_get_one_row(
    verb: Callable[..., OutboundViberMessage],
) -> None:
    first_is_in = threading.Event()

    def work(index: int) -> OutboundViberMessage | None:
        if index:
            first_is_in.wait(PATIENCE)
            return verb(PHONE, TEXT, dedupe_key="order-17")
        with transaction.atomic():
            queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
            first_is_in.set()
            time.sleep(0.5)  # for the others to come to where they wait
            transaction.set_rollback(True)
        return None

    rolled_back, *results = in_threads(5, work)
    assert rolled_back is None
    assert not [found for found in results if isinstance(found, Exception)]
    row = OutboundViberMessage.objects.get()
    assert {found.pk for found in results} == {row.pk}
    assert row.status == Status.SENT
    assert len(outbox) == 1


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_what_may_have_been_committed_is_not_stored_again(
    verb: Callable[..., OutboundViberMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = connection.commit

    def lose_the_answer() -> None:
        stored = OutboundViberMessage.objects.exists()
        commit()
        if stored:
            raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patched:
        patched.setattr(connection, "commit", lose_the_answer)
        with pytest.raises(OperationalError, match="closed the connection"):
            verb(PHONE, TEXT)
    assert OutboundViberMessage.objects.count() == 1
    assert outbox == []


@committing
@pytest.mark.parametrize("verb", [resend_viber_messages, cancel_viber_messages])
def test_a_queryset_is_taken_while_another_connection_writes(
    verb: Callable[..., list[OutboundViberMessage]], queue_only: None, another_writer: Any
) -> None:
    message = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    with another_writer():
        assert [row.pk for row in verb(OutboundViberMessage.objects.draft())] == [message.pk]


@committing
def test_a_draft_is_saved_while_another_connection_writes(another_writer: Any) -> None:
    draft = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    draft.content = "Another text"
    with another_writer():
        draft.save()
    assert stored(draft).content == "Another text"


@committing
def test_a_dedupe_key_given_first_in_a_transaction_waits_its_turn(queue_only: None, another_writer: Any) -> None:
    """On SQLite only a transaction that begins with a write can wait."""
    with another_writer(), transaction.atomic():
        message = queue_viber_message(PHONE, TEXT, dedupe_key="order-17-paid")
    assert stored(message).status == "queued"


@committing
@pytest.mark.parametrize("queue", QUEUEING)
def test_with_autocommit_off_an_error_of_the_database_ends_nobodys_transaction(
    queue: Callable[..., OutboundViberMessage],
) -> None:
    def fail(execute: Any, sql: str, *args: Any) -> Any:
        if "INSERT" in sql and "esms_viber" in sql:
            raise OperationalError("deadlock")
        return execute(sql, *args)

    transaction.set_autocommit(False)
    try:
        Order.objects.create(phone=PHONE)
        with connection.execute_wrapper(fail), pytest.raises(OperationalError, match="deadlock"):
            queue(PHONE, TEXT)
        assert not transaction.get_autocommit()
        transaction.rollback()
    finally:
        transaction.set_autocommit(True)
    assert not Order.objects.exists()
    assert not OutboundViberMessage.objects.exists()


@committing
def test_lists_with_keys_that_come_at_once_are_all_stored(queue_only: None) -> None:
    for round_ in range(3):
        results = in_threads(
            6,
            lambda index, round_=round_: queue_viber_messages(
                [unsaved(dedupe_key=f"{round_}-{index}-{n}") for n in range(5)]
            ),
        )
        assert not [found for found in results if isinstance(found, Exception)]
    assert OutboundViberMessage.objects.queued().count() == 3 * 6 * 5


@contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    def give_up(*args: object) -> None:
        raise TimeoutError(f"not done within {seconds} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@committing
@pytest.mark.parametrize("key", ["ORDER-17", "order-17 ", "ordér-17"])
def test_keys_that_only_a_database_takes_for_the_same_are_told_apart(key: str, queue_only: None) -> None:
    first = queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
    with time_limit(10):
        (alone,) = queue_viber_messages([unsaved(dedupe_key=key)])
        again = queue_viber_message(PHONE, TEXT, dedupe_key=key)
    assert alone.pk == again.pk
    assert alone.pk != first.pk


# -- all or nothing ----------------------------------------------------------------------------------------------------


@committing
def test_a_list_with_a_fault_is_refused_whole_and_says_where() -> None:
    messages = [unsaved(), unsaved(phone="12345"), unsaved(), unsaved(content="", button_label="Xem")]
    with pytest.raises(ValidationError) as caught:
        queue_viber_messages(messages)
    assert {error.params["index"] for error in caught.value.error_list} == {1, 3}
    assert all(f"messages[{index}]: " in " ".join(caught.value.messages) for index in (1, 3))
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
def test_the_index_is_told_also_where_the_sentence_holds_a_percent_sign() -> None:
    with pytest.raises(ValidationError) as caught:
        queue_viber_messages([unsaved(), unsaved(send_at="100% soon")])
    assert "100% soon" in " ".join(caught.value.messages)
    assert "messages[1]: " in " ".join(caught.value.messages)


@committing
def test_a_list_refused_can_be_mended_and_queued() -> None:
    messages = [unsaved(), unsaved(phone="12345")]
    with pytest.raises(ValidationError):
        queue_viber_messages(messages)
    messages[1].phone = OTHER_PHONE
    assert [stored(m).status for m in queue_viber_messages(messages)] == [Status.SENT] * 2


@committing
def test_a_stored_message_is_not_queued_as_a_new_one() -> None:
    draft = row(Status.DRAFT)
    with pytest.raises(ValidationError, match="resend_viber_messages"):
        queue_viber_messages([unsaved(), draft])
    assert OutboundViberMessage.objects.count() == 1


@committing
def test_a_list_keeps_its_order_and_an_empty_one_is_nothing() -> None:
    phones = [f"+8490188848{n}" for n in range(10)]
    assert [m.phone for m in queue_viber_messages(unsaved(phone=phone) for phone in phones)] == phones
    assert queue_viber_messages([]) == []


@committing
def test_a_list_is_stored_with_few_statements(django_assert_max_num_queries, queue_only: None) -> None:
    with django_assert_max_num_queries(30):
        queue_viber_messages([unsaved(dedupe_key=str(n)) for n in range(200)])
    assert OutboundViberMessage.objects.queued().count() == ViberMessageEvent.objects.count() == 200


@committing
def test_the_statements_of_a_list_grow_with_its_parts_alone(queue_only: None) -> None:
    def statements(count: int) -> list[str]:
        with CaptureQueriesContext(connection) as captured:
            queue_viber_messages([unsaved(phone=f"09{number:08d}") for number in range(count)])
        return [query["sql"].lstrip().split()[0].upper() for query in captured]

    one_part, three_parts = statements(CHUNK), statements(2 * CHUNK + 1)
    # SQLite takes fewer rows in a statement on Django 5.2, and MySQL one, because it tells no primary keys of many.
    if connection.features.can_return_rows_from_bulk_insert and connection.features.max_query_params != 999:
        assert one_part.count("INSERT") == 2
        assert three_parts.count("INSERT") == 6
    parts = {"INSERT", "SELECT"}
    assert [each for each in three_parts if each not in parts] == [each for each in one_part if each not in parts]
    # The opt-outs among the phones of each part.
    assert (one_part.count("SELECT"), three_parts.count("SELECT")) == (1, 3)
    assert ViberMessageEvent.objects.filter(kind="requested").count() == 3 * CHUNK + 1


@committing
def test_each_message_of_a_list_begins_its_history(user: Any, queue_only: None) -> None:
    messages = queue_viber_messages([unsaved(), unsaved(), unsaved()], user=user)
    events = ViberMessageEvent.objects.order_by("message_id")
    assert [(event.message_id, event.request_id) for event in events] == [(m.id, m.request_id) for m in messages]
    for event in events:
        assert (event.kind, event.user_id, event.data, event.text, event.fingerprint) == (
            "requested",
            user.pk,
            {},
            "",
            None,
        )
        assert timezone.now() - dt.timedelta(minutes=1) < event.created_at <= timezone.now()


@committing
def test_what_the_messages_of_a_list_share_is_judged_once(monkeypatch: pytest.MonkeyPatch, queue_only: None) -> None:
    judged: list[str] = []
    before = URLValidator.__call__
    monkeypatch.setattr(URLValidator, "__call__", lambda self, value: (judged.append(value), before(self, value))[1])
    image, link = "https://shop.example.vn/a.png", " https://shop.example.vn/đơn "
    parts = {"image_url": image, "button_label": "Xem", "button_url": link}
    messages = queue_viber_messages([unsaved(**parts, campaign="tết") for _ in range(20)])
    assert sorted(judged) == [image, link.strip()]
    assert {(m.image_url, m.button_url, m.campaign) for m in messages} == {(image, link.strip(), "tết")}
    assert {(stored(m).button_url, stored(m).campaign) for m in messages} == {(link.strip(), "tết")}


def test_a_value_that_was_refused_is_refused_in_each_message(db: None) -> None:
    fields: list[dict[str, Any]] = [
        {"campaign": "x" * 101},
        {"campaign": "tet"},
        {"campaign": "x" * 101},
        {"button_label": "tet", "button_url": "https://shop.example.vn"},
        {"button_label": "tet", "button_url": "tet"},
        {"sandbox": "tet"},
        {"sms_id": "x" * 65},
    ]
    with pytest.raises(ValidationError) as caught:
        queue_viber_messages([unsaved(**each) for each in fields])
    assert {error.params["index"] for error in caught.value.error_list} == {0, 2, 4, 5, 6}


# -- transactions ------------------------------------------------------------------------------------------------------


@committing
def test_send_refuses_an_open_transaction_and_names_queue() -> None:
    with transaction.atomic():
        with pytest.raises(TransactionManagementError, match="queue_viber_message"):
            send_viber_message(PHONE, TEXT)
        Order.objects.create(phone=PHONE)
    assert Order.objects.exists()
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
def test_send_refuses_where_autocommit_is_off() -> None:
    transaction.set_autocommit(False)
    try:
        with pytest.raises(TransactionManagementError, match="queue_viber_message"):
            send_viber_message(PHONE, TEXT)
    finally:
        transaction.rollback()
        transaction.set_autocommit(True)
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


class SendInTestCase(TestCase):
    def test_the_transaction_of_a_test_case_does_not_count(self) -> None:
        message = send_viber_message(PHONE, TEXT)
        self.assertEqual(stored(message).status, Status.SENT)  # noqa: PT009 - a site's own TestCase
        self.assertEqual(len(outbox), 1)  # noqa: PT009

    def test_one_opened_inside_it_does(self) -> None:
        with transaction.atomic(), self.assertRaises(TransactionManagementError):  # noqa: PT027
            send_viber_message(PHONE, TEXT)
        self.assertEqual(len(outbox), 0)  # noqa: PT009


@committing
@pytest.mark.parametrize("error", [RuntimeError("receiver"), TransactionManagementError("receiver")])
def test_an_error_of_a_receiver_stays_what_it_is(error: Exception) -> None:
    def receiver(**kwargs: object) -> None:
        raise error

    post_save.connect(receiver, sender=OutboundViberMessage)
    try:
        with pytest.raises(type(error)) as caught:
            send_viber_message(PHONE, TEXT)
    finally:
        post_save.disconnect(receiver, sender=OutboundViberMessage)
    assert caught.value is error
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
@pytest.mark.parametrize("queue", QUEUEING)
def test_an_order_rolled_back_sends_nothing(queue: Callable[..., OutboundViberMessage]) -> None:
    with transaction.atomic():
        queue(PHONE, TEXT)
        transaction.set_rollback(True)
    deliver_due_messages()
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


@committing
@pytest.mark.parametrize("queue", QUEUEING)
def test_nothing_goes_out_before_the_commit(queue: Callable[..., OutboundViberMessage]) -> None:
    with transaction.atomic():
        message = queue(PHONE, TEXT)
        assert message.status == Status.QUEUED
        assert not outbox
    assert len(outbox) == 1


@committing
def test_a_save_repeated_after_a_rollback_is_written() -> None:
    """What a loop does that tries a transaction again after a deadlock."""
    draft = row(Status.DRAFT)
    draft.content = "Tạm biệt"
    with transaction.atomic():
        draft.save()
        transaction.set_rollback(True)
    draft.save()
    assert stored(draft).content == "Tạm biệt"


@committing
def test_a_draft_stored_again_after_a_rollback_is_there() -> None:
    draft = unsaved()
    with transaction.atomic():
        draft.save()
        transaction.set_rollback(True)
    draft.save()
    assert OutboundViberMessage.objects.get().content == TEXT


# -- resend ------------------------------------------------------------------------------------------------------------

SAME_ROW = {Status.DRAFT, Status.FAILED, Status.CANCELLED}
NEW_ROW = {Status.SENT, Status.DELIVERED, Status.UNDELIVERED, Status.UNKNOWN}
SKIPPED = {Status.QUEUED, Status.SENDING}


@committing
@pytest.mark.parametrize("status", Status)
def test_resend_does_what_the_state_allows(status: Status) -> None:
    assert status in SAME_ROW | NEW_ROW | SKIPPED
    message = row(status, next_attempt_at=None, request_id="old" if status != Status.DRAFT else "")
    returned = resend_viber_messages([message])
    if status in SAME_ROW:
        assert [m.pk for m in returned] == [message.pk]
        assert stored(message).status == Status.SENT
        assert stored(message).request_id not in {"", "old"}
        assert OutboundViberMessage.objects.count() == 1
    elif status in NEW_ROW:
        (again,) = returned
        assert again.pk != message.pk
        assert stored(again).resend_of_id == message.pk
        assert stored(again).status == Status.SENT
        assert stored(message).status == status
    else:
        assert returned == []
        assert stored(message).status == status
    assert len(outbox) == len(returned) == (status not in SKIPPED)


@committing
@pytest.mark.parametrize("status", [Status.FAILED, Status.CANCELLED])
def test_a_resend_of_the_same_row_forgets_how_it_ended(status: Status, queue_only: None) -> None:
    past = timezone.now() - dt.timedelta(days=1)
    message = row(
        status,
        request_id="old",
        attempts=4,
        code_result="104",
        error_message="why",
        send_at=past,
        expires_at=past + dt.timedelta(hours=1),
        completed_at=past,
        dedupe_key="order-17",
    )
    (again,) = resend_viber_messages([message])
    found = stored(message)
    assert (found.status, found.attempts, found.code_result, found.error_message) == (Status.QUEUED, 0, "", "")
    assert (found.send_at, found.expires_at, found.completed_at) == (None, None, None)
    assert found.request_id not in {"", "old"}
    assert found.dedupe_key == "order-17"
    assert {name: getattr(again, name) for name in columns_of(again)} == columns_of(again)
    assert deliver_due_messages().sent == 1


@committing
def test_a_draft_keeps_its_times(queue_only: None) -> None:
    later = timezone.now() + dt.timedelta(hours=1)
    message = row(Status.DRAFT, send_at=later, expires_at=later + dt.timedelta(hours=1))
    resend_viber_messages([message])
    found = stored(message)
    assert (found.send_at, found.next_attempt_at) == (later, later)
    assert found.expires_at == later + dt.timedelta(hours=1)


@committing
@pytest.mark.parametrize("status", sorted(NEW_ROW))
def test_a_new_row_takes_over_the_message_but_neither_key_nor_times(status: Status, queue_only: None) -> None:
    order = Order.objects.create(phone=PHONE)
    past = timezone.now() - dt.timedelta(days=1)
    message = row(
        status,
        related_object=order,
        button_label="Xem",
        button_url="https://shop.example.vn/",
        image_url="https://shop.example.vn/sale.png",
        brandname="OTHER",
        campaign="tet-2027",
        dedupe_key="order-17",
        send_at=past,
        expires_at=past + dt.timedelta(hours=1),
        sms_id="abc",
        attempts=3,
        total_price=300,
        request_id="old",
        uncertain_since=past,
    )
    (again,) = resend_viber_messages([message])
    again = stored(again)
    for name in ("phone", "content", "image_url", "button_label", "button_url", "brandname", "campaign"):
        assert getattr(again, name) == getattr(message, name), name
    assert again.related_object == order
    assert (again.dedupe_key, again.send_at, again.expires_at) == (None, None, None)
    assert (again.sms_id, again.attempts, again.total_price, again.uncertain_since) == ("", 0, None, None)
    assert again.request_id not in {"", "old"}
    assert deliver_due_messages().sent == 1


@committing
def test_an_unknown_message_stops_repeating_when_it_is_resent(queue_only: None) -> None:
    message = row(Status.UNKNOWN, next_attempt_at=timezone.now(), uncertain_since=timezone.now(), request_id="old")
    resend_viber_messages([message])
    assert stored(message).next_attempt_at is None
    deliver_due_messages()
    assert [m.request_id for m in outbox] != ["old"]
    assert len(outbox) == 1


@committing
@pytest.mark.parametrize("status", sorted(NEW_ROW | SAME_ROW))
def test_a_double_click_sends_once(status: Status, queue_only: None) -> None:
    message = row(status)
    assert len(resend_viber_messages([message, message])) == 1
    assert resend_viber_messages([message]) == []
    deliver_due_messages()
    assert len(outbox) == 1


@committing
@pytest.mark.parametrize("status", sorted(NEW_ROW))
@pytest.mark.parametrize("resend_is", [status for status in Status if status != Status.DRAFT])
def test_a_message_is_resent_again_only_when_its_resend_is_final(status: Status, resend_is: Status) -> None:
    message = row(status)
    row(resend_is, resend_of=message)
    final = {Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELLED}
    assert len(resend_viber_messages([message])) == (resend_is in final)


@committing
@pytest.mark.parametrize("status", sorted(NEW_ROW | SAME_ROW))
def test_resends_that_come_at_once_make_one(status: Status, queue_only: None) -> None:
    message = row(status)
    results = in_threads(6, lambda index: resend_viber_messages([message]))
    assert not [found for found in results if isinstance(found, Exception)]
    assert sum(len(found) for found in results) == 1
    assert deliver_due_messages().sent == 1


@committing
def test_a_resend_is_in_the_history_with_who_asked(user: Any, queue_only: None) -> None:
    failed, sent = row(Status.FAILED), row(Status.SENT)
    for message in resend_viber_messages([failed, sent], user=user):
        event = message.events.get()
        assert (event.kind, event.user, event.request_id) == ("requested", user, message.request_id)


@committing
def test_a_resend_says_why_it_skips(caplog) -> None:
    caplog.set_level(logging.INFO, "esms_viber")
    message = row(Status.SENDING)
    resend_viber_messages([message])
    (record,) = [r for r in caplog.records if r.name == "esms_viber"]
    assert str(message.pk) in record.getMessage()
    assert "being sent" in record.getMessage()


@committing
def test_what_cannot_be_sent_as_it_stands_is_skipped_and_the_rest_goes() -> None:
    bad, good = row(Status.FAILED, content="x" * 1001), row(Status.FAILED)
    assert [m.pk for m in resend_viber_messages([bad, good])] == [good.pk]
    assert stored(bad).status == Status.FAILED
    assert len(outbox) == 1


@committing
def test_a_resend_acts_on_the_row_not_on_a_stale_instance() -> None:
    stale = row(Status.FAILED)
    OutboundViberMessage.objects.filter(pk=stale.pk).update(status=Status.SENDING)
    assert resend_viber_messages([stale]) == []
    assert not outbox


@committing
def test_a_resend_rolled_back_leaves_everything_as_it_was() -> None:
    failed, unknown = row(Status.FAILED), row(Status.UNKNOWN, next_attempt_at=timezone.now() + dt.timedelta(hours=1))
    before = [columns_of(failed), columns_of(unknown)]
    with transaction.atomic():
        resend_viber_messages([failed, unknown])
        transaction.set_rollback(True)
    assert [columns_of(failed), columns_of(unknown)] == before
    assert OutboundViberMessage.objects.count() == 2
    assert not outbox


# -- cancel ------------------------------------------------------------------------------------------------------------


@committing
@pytest.mark.parametrize("status", Status)
def test_cancel_does_what_the_state_allows(status: Status, user: Any) -> None:
    waits = timezone.now() if status in {Status.QUEUED, Status.UNKNOWN} else None
    message = row(status, next_attempt_at=waits)
    changed = cancel_viber_messages([message], user=user)
    found = stored(message)
    if status in {Status.DRAFT, Status.QUEUED}:
        assert found.status == Status.CANCELLED
        assert found.completed_at is not None
    else:
        assert found.status == status
    assert [m.pk for m in changed] == ([message.pk] if found.next_attempt_at != waits or changed else [])
    assert bool(changed) is (status in {Status.DRAFT, Status.QUEUED, Status.UNKNOWN})
    assert found.next_attempt_at is None
    assert [event.user for event in message.events.all()] == [user] * len(changed)
    deliver_due_messages()
    assert not outbox


@committing
def test_an_unknown_message_that_no_longer_repeats_is_skipped() -> None:
    message = row(Status.UNKNOWN, next_attempt_at=None)
    assert cancel_viber_messages([message]) == []
    assert not message.events.exists()


@committing
def test_cancel_rolled_back_leaves_the_message_queued(queue_only: None) -> None:
    message = queue_viber_message(PHONE, TEXT)
    with transaction.atomic():
        cancel_viber_messages([message])
        transaction.set_rollback(True)
    assert deliver_due_messages().sent == 1


@committing
def test_a_message_cancelled_and_sent_at_once_is_one_or_the_other(queue_only: None) -> None:
    for _ in range(5):
        outbox.clear()
        message = queue_viber_message(PHONE, TEXT)
        results = in_threads(
            2, lambda index, message=message: cancel_viber_messages([message]) if index else deliver_due_messages()
        )
        assert not [found for found in results if isinstance(found, Exception)]
        assert stored(message).status == (Status.CANCELLED if results[1] else Status.SENT)
        assert len(outbox) == (0 if results[1] else 1)


# -- SEND_ON_SAVE ------------------------------------------------------------------------------------------------------


@pytest.fixture
def send_on_save(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": True}


def _save() -> OutboundViberMessage:
    message = unsaved()
    message.save()
    return message


def _create() -> OutboundViberMessage:
    return OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)


def _get_or_create() -> OutboundViberMessage:
    return OutboundViberMessage.objects.get_or_create(dedupe_key="a", defaults={"phone": PHONE, "content": TEXT})[0]


@committing
@pytest.mark.parametrize("store", [_save, _create, _get_or_create])
def test_a_draft_is_sent_when_first_saved_if_the_site_wants_it(send_on_save: None, store: Any) -> None:
    message = store()
    assert stored(message).status == Status.SENT
    message.save()
    stored(message).save()
    deliver_due_messages()
    assert len(outbox) == 1


@committing
@pytest.mark.parametrize("store", [_save, _create, _get_or_create])
def test_a_draft_stays_one_unless_the_site_wants_it(store: Any) -> None:
    assert stored(store()).status == Status.DRAFT
    deliver_due_messages()
    assert not outbox


@committing
def test_a_draft_saved_with_the_order_goes_out_with_the_order(send_on_save: None) -> None:
    with transaction.atomic():
        _save()
        transaction.set_rollback(True)
    assert not outbox
    with transaction.atomic():
        _save()
        assert not outbox
    assert len(outbox) == 1


@committing
def test_what_is_to_stay_a_draft_does(send_on_save: None) -> None:
    message = unsaved()
    message.keep_draft = True
    message.save()
    assert stored(message).status == Status.DRAFT
    stored(message).save()
    assert not outbox


@committing
def test_bulk_create_sends_nothing(send_on_save: None) -> None:
    OutboundViberMessage.objects.bulk_create([unsaved()])
    assert OutboundViberMessage.objects.get().status == Status.DRAFT
    assert not outbox


@committing
@pytest.mark.parametrize("status", [Status.DRAFT, Status.DELIVERED])
def test_loading_a_fixture_sends_nothing(send_on_save: None, tmp_path, status: Status) -> None:
    message = row(status)
    fixture = tmp_path / "messages.json"
    fixture.write_text(serializers.serialize("json", [message]))
    message.delete()
    call_command("loaddata", fixture, verbosity=0)
    assert OutboundViberMessage.objects.get().status == status
    deliver_due_messages()
    assert not outbox


@committing
def test_a_draft_that_cannot_be_sent_is_refused_by_the_save_that_would_send_it(send_on_save: None) -> None:
    with pytest.raises(ValidationError):
        unsaved(content="x" * 1001).save()
    assert not OutboundViberMessage.objects.exists()


@committing
@pytest.mark.parametrize("verb", VERBS)
def test_the_services_work_as_ever_where_a_save_sends(send_on_save: None, verb: Any) -> None:
    message = verb(PHONE, TEXT, dedupe_key="order-17")
    assert verb(PHONE, TEXT, dedupe_key="order-17").pk == message.pk
    assert len(outbox) == 1
    assert stored(message).status == Status.SENT
    assert message.events.filter(kind="requested").count() == 1
    if verb is send_viber_message:
        assert message.status == Status.SENT


@committing
def test_queue_keeps_the_time_where_a_save_sends(send_on_save: None) -> None:
    message = queue_viber_message(PHONE, TEXT, send_at=timezone.now() + dt.timedelta(hours=1))
    assert stored(message).status == Status.QUEUED
    assert stored(message).send_at is not None
    assert not outbox


# -- a gateway that lets the test act while a call is on the wire ------------------------------------------------------


class ActingGateway(MemoryGateway):
    """Does something of the test's in the middle of each call."""

    act: Callable[[], object] = staticmethod(lambda: None)

    def send(self, message: Any) -> SendResult:
        try:
            type(self).act()
        finally:
            connection.close()
        return super().send(message)


@contextmanager
def calling(act: Callable[[], object], settings: Any) -> Iterator[None]:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.ActingGateway"}
    ActingGateway.act = staticmethod(act)
    try:
        yield
    finally:
        ActingGateway.act = staticmethod(lambda: None)
        close_old_connections()


@committing
def test_a_message_deleted_while_its_call_is_on_the_wire_disturbs_no_other(settings, queue_only: None) -> None:
    messages = queue_viber_messages([unsaved() for _ in range(5)])
    with calling(lambda: OutboundViberMessage.objects.filter(pk=messages[2].pk).delete(), settings):
        deliver_due_messages()
    assert len(outbox) == 5
    assert OutboundViberMessage.objects.sent().count() == OutboundViberMessage.objects.count() == 4
