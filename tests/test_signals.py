"""What a site's receivers are told, when, and what their errors do."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection, transaction
from django.utils import timezone

from esms_viber.exceptions import EsmsViberError, GatewayRefused
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send, status_changed
from tests.factories import stored

PHONE, OTHER_PHONE, TEXT = "+84901888484", "+84912345678", "Xin chào"

pytestmark = pytest.mark.django_db(transaction=True)

ACCEPTED = SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="abc")
NO_ANSWER = SendResult(outcome=CallOutcome.NO_ANSWER, text="timed out")
NOT_CONNECTED = SendResult(outcome=CallOutcome.NOT_CONNECTED, text="refused")
NO_BALANCE = SendResult(outcome=CallOutcome.ANSWERED, code="103")


def _connecting(signal: Any) -> Iterator[Callable[[Callable[..., object]], None]]:
    receivers = []

    def connect(receiver: Callable[..., object]) -> None:
        receivers.append(receiver)
        signal.connect(receiver, weak=False)

    yield connect
    for receiver in receivers:
        signal.disconnect(receiver)


@pytest.fixture
def before_sending() -> Iterator[Any]:
    yield from _connecting(pre_send)


@pytest.fixture
def on_change() -> Iterator[Any]:
    yield from _connecting(status_changed)


def veto(message: OutboundViberMessage, **kwargs: object) -> None:
    if message.phone == OTHER_PHONE:
        raise CancelSend("opted out")


def fail(message: OutboundViberMessage, **kwargs: object) -> None:
    if message.phone == OTHER_PHONE:
        raise LookupError("the list of opt-outs is away")


def via_send(phone: str) -> OutboundViberMessage:
    return send_viber_message(phone, TEXT)


def via_queue(phone: str) -> OutboundViberMessage:
    return stored(queue_viber_message(phone, TEXT))


WAYS = [via_send, via_queue]


# -- pre_send ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_receivers_are_asked_before_anything_is_uncertain_and_with_no_transaction_open(before_sending, way) -> None:
    asked = []

    def receiver(sender: object, message: OutboundViberMessage, **kwargs: object) -> None:
        asked.append((sender, message.pk, connection.in_atomic_block, len(outbox)))
        found = stored(message)
        assert (found.status, found.uncertain_since, found.attempts) == (Status.SENDING, None, 0)
        assert found.request_id == message.request_id != ""

    before_sending(receiver)
    message = way(PHONE)
    assert asked == [(OutboundViberMessage, message.pk, False, 0)]
    assert message.status == Status.SENT


@pytest.mark.parametrize("way", WAYS)
def test_a_veto_cancels_the_message_with_its_reason_and_calls_nobody(before_sending, way) -> None:
    before_sending(veto)
    message = way(OTHER_PHONE)
    assert (message.status, message.error_message) == (Status.CANCELLED, "opted out")
    assert (message.attempts, message.uncertain_since, message.claim_id) == (0, None, "")
    assert message.completed_at is not None
    assert [event.text for event in message.events.filter(kind="note")] == ["opted out"]
    assert not outbox
    with pytest.raises(GatewayRefused, match="opted out"):
        message.raise_for_status()
    deliver_due_messages()
    assert not outbox


def test_a_veto_without_a_reason_gives_one(before_sending) -> None:
    def receiver(**kwargs: object) -> None:
        raise CancelSend

    before_sending(receiver)
    assert send_viber_message(PHONE, TEXT).error_message


def test_a_veto_holds_nobody_else_up(before_sending) -> None:
    before_sending(veto)
    phones = [PHONE, OTHER_PHONE, PHONE]
    messages = queue_viber_messages([OutboundViberMessage(phone=phone, content=TEXT) for phone in phones])
    assert [stored(m).status for m in messages] == [Status.SENT, Status.CANCELLED, Status.SENT]
    assert [m.phone for m in outbox] == [PHONE, PHONE]


@pytest.mark.parametrize("way", WAYS)
def test_a_guard_that_fails_lets_nothing_through(before_sending, way, caplog, clock: Any) -> None:
    before_sending(fail)
    message = way(OTHER_PHONE)
    assert message.status == Status.QUEUED
    assert message.next_attempt_at > timezone.now() + dt.timedelta(seconds=10)
    assert (message.uncertain_since, message.claim_id, message.lease_until) == (None, "", None)
    assert not outbox
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert f"message {message.pk} waits: LookupError" in record.getMessage()
    assert f"{__name__}:" in record.getMessage(), "where it failed"
    assert record.exc_info is None, "a receiver's own words may name the customer"
    with pytest.raises(EsmsViberError):
        message.raise_for_status()
    deliver_due_messages()
    assert not outbox


def test_a_guard_that_failed_is_asked_again_when_the_wait_is_over(before_sending, clock: Any) -> None:
    trouble = [LookupError("away")]

    def receiver(**kwargs: object) -> None:
        if trouble:
            raise trouble.pop()

    before_sending(receiver)
    message = send_viber_message(PHONE, TEXT)
    clock.advance(minutes=15)
    deliver_due_messages()
    assert stored(message).status == Status.SENT
    assert stored(message).error_message == ""
    assert len(outbox) == 1


def test_a_guard_that_fails_holds_nobody_else_up(before_sending) -> None:
    before_sending(fail)
    phones = [OTHER_PHONE, PHONE, PHONE]
    messages = queue_viber_messages([OutboundViberMessage(phone=phone, content=TEXT) for phone in phones])
    assert [stored(m).status for m in messages] == [Status.QUEUED, Status.SENT, Status.SENT]


def test_a_guard_that_is_stopped_leaves_the_message_to_be_sent_later(before_sending) -> None:
    stopped = [KeyboardInterrupt()]

    def receiver(**kwargs: object) -> None:
        if stopped:
            raise stopped.pop()

    before_sending(receiver)
    with pytest.raises(KeyboardInterrupt):
        send_viber_message(PHONE, TEXT)
    message = OutboundViberMessage.objects.get()
    assert (message.status, message.uncertain_since) == (Status.QUEUED, None)
    assert deliver_due_messages().sent == 1
    assert len(outbox) == 1


@pytest.mark.parametrize(
    ("first_answer", "asked"),
    [
        pytest.param(NO_ANSWER, 1, id="a repeat under the same RequestId"),
        pytest.param(NO_BALANCE, 2, id="a new RequestId"),
    ],
)
def test_receivers_are_asked_once_for_each_request_id(
    before_sending, queue_only: None, first_answer: SendResult, asked: int, clock: Any
) -> None:
    seen = []
    before_sending(lambda message, **kwargs: seen.append(message.request_id))
    MemoryGateway.answers.append(first_answer)
    message = queue_viber_message(PHONE, TEXT)
    deliver_due_messages()
    clock.advance(minutes=20)
    deliver_due_messages()
    assert stored(message).status == Status.SENT
    assert len(outbox) == 2
    assert len(seen) == len(set(seen)) == asked
    assert len({m.request_id for m in outbox}) == asked


def test_receivers_are_asked_again_for_a_resend(before_sending) -> None:
    asked = []
    before_sending(lambda message, **kwargs: asked.append(message.pk))
    message = send_viber_message(PHONE, TEXT)
    (again,) = resend_viber_messages([message])
    assert asked == [message.pk, again.pk]


def test_a_veto_is_not_asked_for_about_what_may_have_gone_out(before_sending, queue_only: None, clock: Any) -> None:
    MemoryGateway.answers.append(NO_ANSWER)
    message = queue_viber_message(OTHER_PHONE, TEXT)
    deliver_due_messages()
    before_sending(veto)
    clock.advance(minutes=20)
    deliver_due_messages()
    assert stored(message).status == Status.SENT


# -- status_changed ----------------------------------------------------------------------------------------------------


class Changes:
    """A receiver that writes down what it is told, and what the database says then."""

    def __init__(self) -> None:
        self.seen: list[tuple[Status, Status]] = []
        self.events: list[str | None] = []

    def __call__(self, sender: Any, message: Any, old_status: Any, new_status: Any, event: Any, **kwargs: Any) -> None:
        assert sender is OutboundViberMessage
        assert not connection.in_atomic_block
        self.seen.append((old_status, new_status))
        self.events.append(event and event.kind)


@pytest.fixture
def changes(on_change) -> Changes:
    changes = Changes()
    on_change(changes)
    return changes


def test_each_move_is_told_with_where_from_and_where_to(changes: Changes) -> None:
    queue_viber_message(PHONE, TEXT)
    assert changes.seen == [(Status.QUEUED, Status.SENDING), (Status.SENDING, Status.SENT)]
    assert changes.events[-1] == "attempt"


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (ACCEPTED, Status.SENT),
        (SendResult(outcome=CallOutcome.ANSWERED, code="146"), Status.FAILED),
        (NO_ANSWER, Status.UNKNOWN),
        (NOT_CONNECTED, Status.QUEUED),
        (NO_BALANCE, Status.QUEUED),
    ],
)
def test_each_outcome_is_told_with_its_event(changes: Changes, answer: SendResult, outcome: Status) -> None:
    MemoryGateway.answers.append(answer)
    send_viber_message(PHONE, TEXT)
    assert changes.seen == [(Status.SENDING, outcome)]
    assert changes.events == ["attempt"]


def test_a_receiver_finds_the_new_status_in_the_database(on_change) -> None:
    found = []
    on_change(lambda message, new_status, **kwargs: found.append((stored(message).status, new_status)))
    send_viber_message(PHONE, TEXT)
    assert found == [(Status.SENT, Status.SENT)]


def test_a_report_is_told_with_its_callback(changes: Changes, client) -> None:
    send_viber_message(PHONE, TEXT)
    path = outbox[0].callback_url.removeprefix("https://shop.example.vn")
    for _ in range(2):
        assert client.get(path, {"SendStatus": "5", "SendSuccess": "1"}).status_code == 200
    assert changes.seen == [(Status.SENDING, Status.SENT), (Status.SENT, Status.DELIVERED)]
    assert changes.events == ["attempt", "callback"]


def test_a_veto_and_a_cancellation_are_told(changes: Changes, before_sending, queue_only: None) -> None:
    before_sending(veto)
    send_viber_message(OTHER_PHONE, TEXT)
    cancel_viber_messages([queue_viber_message(PHONE, TEXT)])
    assert changes.seen == [(Status.SENDING, Status.CANCELLED), (Status.QUEUED, Status.CANCELLED)]


def test_a_move_rolled_back_is_told_to_nobody(changes: Changes, queue_only: None) -> None:
    message = queue_viber_message(PHONE, TEXT)
    with transaction.atomic():
        cancel_viber_messages([message])
        assert changes.seen == []
        transaction.set_rollback(True)
    assert changes.seen == []
    assert stored(message).status == Status.QUEUED


def test_a_save_that_changes_no_status_tells_nothing(changes: Changes) -> None:
    draft = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    draft.content = "Tạm biệt"
    draft.save()
    assert changes.seen == []


def test_a_receiver_that_fails_harms_neither_the_message_nor_the_next_receiver(on_change, changes, caplog) -> None:
    def failing(**kwargs: object) -> None:
        raise LookupError("receiver")

    on_change(failing)
    later = Changes()
    on_change(later)
    message = send_viber_message(PHONE, TEXT)
    assert message.status == stored(message).status == Status.SENT
    assert changes.seen == later.seen == [(Status.SENDING, Status.SENT)]
    (record,) = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert "a status_changed receiver failed: LookupError" in record.getMessage()
    assert record.exc_info is None


def test_a_receiver_may_send_the_next_message(on_change) -> None:
    """As a site does that falls back to another phone."""

    def fall_back(message: OutboundViberMessage, new_status: Status, **kwargs: object) -> None:
        if new_status == Status.FAILED and message.phone == PHONE:
            queue_viber_message(OTHER_PHONE, TEXT)

    on_change(fall_back)
    MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code="108"))
    send_viber_message(PHONE, TEXT)
    assert [m.phone for m in outbox] == [PHONE, OTHER_PHONE]
    assert OutboundViberMessage.objects.get(phone=OTHER_PHONE).status == Status.SENT


def test_a_receiver_may_call_back_into_send(on_change) -> None:
    def fall_back(message: OutboundViberMessage, new_status: Status, **kwargs: object) -> None:
        if new_status == Status.FAILED and message.phone == PHONE:
            send_viber_message(OTHER_PHONE, TEXT)

    on_change(fall_back)
    MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code="108"))
    send_viber_message(PHONE, TEXT)
    assert OutboundViberMessage.objects.get(phone=OTHER_PHONE).status == Status.SENT
