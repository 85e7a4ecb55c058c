"""What receivers of the site's may do while a run goes on: take their time, delete, pause, send messages themselves."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connection
from django.utils import timezone

from esms_viber.delivery import claims, worker
from esms_viber.models import OutboundViberMessage, ViberGatewayState
from esms_viber.services import (
    deliver_due_messages,
    deliver_messages,
    queue_viber_messages,
    send_viber_message,
)
from esms_viber.signals import pre_send, status_changed
from tests.factories import queue, states, unsaved
from tests.fake_gateway import PATIENCE, accepted, json_answer, refused

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]

Connect = Callable[[Any, Callable[..., None]], None]


@pytest.fixture
def connect() -> Iterator[Connect]:
    """Connect receivers for the time of a test."""
    connected: list[tuple[Any, Callable[..., None]]] = []

    def connect(sent: Any, receiver: Callable[..., None]) -> None:
        sent.connect(receiver)
        connected.append((sent, receiver))

    yield connect
    for sent, receiver in connected:
        sent.disconnect(receiver)


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Have a worker look around often; returns what a receiver calls to take longer than that."""
    monkeypatch.setattr(worker, "LOOKING", 0.05)
    return lambda: time.sleep(0.1)


def change(settings: Any, **keys: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, **keys}


def open_breaker(brandname: str = "", **columns: Any) -> None:
    ago = timezone.now() - dt.timedelta(minutes=1)
    columns = {"opened_at": ago, "next_probe_at": ago, **columns}
    ViberGatewayState.objects.update_or_create(brandname=brandname, defaults=columns)


def within(seconds: float, run: Callable[[], object]) -> None:
    """Fail, instead of waiting for ever, where a run does not end."""

    def run_and_close() -> None:
        try:
            run()
        finally:
            connection.close()

    thread = threading.Thread(target=run_and_close, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), "the run does not end"


def test_a_brand_whose_fault_is_over_while_another_is_probed_is_no_trouble(esms, connect, soon):
    esms.answer_all(accepted())
    open_breaker("A", code="104"), open_breaker("B", code="104")
    queue_viber_messages([unsaved(phone=f"090000000{n}", brandname=name) for n, name in enumerate("AB")])

    def find_the_other_in_order(message, new_status, **kwargs):
        if new_status == "sending":
            ViberGatewayState.objects.exclude(brandname__in=["", message.brandname]).delete()
            soon()

    connect(status_changed, find_the_other_in_order)
    deliver_due_messages()
    assert states() == {"sent": 2}


def test_an_outage_that_another_worker_notices_meanwhile_stops_what_had_passed(esms, settings, connect, soon):
    change(settings, CONCURRENCY=4)
    messages, calls = queue(8), []
    esms.answer_all(lambda request: json_answer({}))

    def notice(message, **kwargs):
        calls.append(len(esms.requests))
        if message == messages[6]:
            open_breaker(silent=9)
            soon()

    connect(pre_send, notice)
    deliver_due_messages()
    assert set(calls) == {0}
    assert len(esms.requests) == 1, "the probe alone"
    assert states() == {"queued": 7, "unknown": 1}


@pytest.mark.parametrize("deliver", [lambda pks: deliver_messages(pks), lambda pks: deliver_due_messages()])
def test_a_message_that_a_receiver_deletes_holds_up_no_other(esms, connect, deliver):
    esms.answer_all(accepted())
    messages = queue(3)
    asked = []

    def delete(message, **kwargs):
        asked.append(message.pk)
        if message.pk == messages[0].pk:
            message.delete()

    connect(pre_send, delete)
    pks = [message.pk for message in messages]
    deliver(pks)
    assert sorted(asked) == pks
    assert states() == {"sent": 2}
    assert len(esms.requests) == 2


def test_a_message_taken_over_while_a_receiver_takes_its_time_is_called_for_once(esms, settings, connect, soon):
    change(settings, CONCURRENCY=2)
    esms.answer_all(lambda request: accepted(f"sms-{request['RequestId']}"))
    queue(4)
    done = threading.Event()

    def take_long(new_status, **kwargs):
        if new_status == "sent" and not done.is_set():
            done.set()
            soon()
            OutboundViberMessage.objects.filter(status="sending").update(
                lease_until=timezone.now() - dt.timedelta(seconds=1)
            )
            claims.take_over_abandoned()  # as another worker does

    connect(status_changed, take_long)
    deliver_due_messages()
    deliver_due_messages()
    assert states() == {"sent": 4}
    assert len(esms.requests) == 4


@pytest.mark.parametrize("has_deadline", [False, True])
def test_what_has_expired_is_settled_until_the_run_is_to_end(settings, connect, has_deadline):
    change(settings, CONCURRENCY=1)
    queue(100)
    OutboundViberMessage.objects.update(expires_at=timezone.now() - dt.timedelta(hours=1))
    seen = []

    def take_time(**kwargs):
        seen.append(1)
        if has_deadline and len(seen) == 1:
            time.sleep(3)  # longer than half of the time, after which no call starts

    connect(status_changed, take_time)
    run = worker.Worker(within=6) if has_deadline else worker.Worker(should_stop=lambda: bool(seen))
    run.run()
    assert 0 < len(seen) < 50
    worker.Worker().run()
    assert states() == {"failed": 100}


def test_the_probe_is_no_message_whose_call_is_not_recorded_yet(esms, settings, connect, soon):
    """This worker was so slow that another one has taken it over and given it back, and it is due once more."""
    change(settings, CONCURRENCY=2)
    esms.answer_all(lambda request: accepted(f"sms-{request['RequestId']}"))
    messages = queue_viber_messages([unsaved(phone=f"090000000{n}", brandname="A") for n in range(4)])
    done = threading.Event()

    def take_long(new_status, **kwargs):
        if new_status == "sent" and not done.is_set():
            done.set()
            OutboundViberMessage.objects.filter(status="sending").update(
                lease_until=timezone.now() - dt.timedelta(seconds=1)
            )
            claims.take_over_abandoned()  # as another worker does
            open_breaker("A", code="104")
            soon()

    connect(status_changed, take_long)
    within(PATIENCE, lambda: deliver_messages([message.pk for message in messages]))
    assert done.is_set()
    deliver_due_messages()
    assert states() == {"sent": 4}
    assert len(esms.requests) == 4


# -- a run within a run ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sent", [pre_send, status_changed])
def test_a_receiver_may_send_messages_while_doubtful_answers_wait_to_be_recorded(esms, settings, connect, sent):
    """All threads wait for the record then, which waits for the receiver."""
    change(settings, CONCURRENCY=1)
    messages, began = queue(6), threading.Event()
    esms.answer(accepted())
    esms.answer_all(lambda request: refused("105"))

    def send_another(message, **kwargs):
        if not began.is_set() and esms.requests:
            began.set()
            time.sleep(0.2)  # until doubtful answers are there
            deliver_messages([queue_viber_messages([unsaved(phone="0912345678")])[0].pk])

    connect(sent, send_another)
    within(PATIENCE, lambda: deliver_messages([message.pk for message in messages]))
    assert began.is_set()
    assert OutboundViberMessage.objects.get(phone="+84912345678").attempts == 1
    assert "sending" not in states()


def test_a_receiver_that_sends_at_once_has_its_outcome(esms, settings, connect):
    change(settings, CONCURRENCY=1)
    messages, outcomes = queue(4), []
    esms.answer(refused("105"))
    esms.answer_all(accepted())

    def send(message, **kwargs):
        if message == messages[2]:
            outcomes.append(send_viber_message("0912345678", "Xin chào").status)

    connect(pre_send, send)
    within(PATIENCE, lambda: deliver_messages([message.pk for message in messages]))
    assert outcomes == ["sent"]
