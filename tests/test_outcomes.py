"""What each outcome of a call does to its message: every cell of the table, over a real socket."""

from __future__ import annotations

import datetime as dt
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from django.db import OperationalError, connection
from django.utils import timezone

from esms_viber.codes import CODES, Verdict
from esms_viber.delivery import claims, worker
from esms_viber.exceptions import GatewayRefused, GatewayUnreachable, OutcomeUnknown
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage, Status, ViberGatewayState
from esms_viber.services import (
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send, status_changed
from tests.clock import noon
from tests.fake_gateway import (
    PATIENCE,
    Close,
    Drip,
    Hang,
    Reset,
    accepted,
    echo,
    http_answer,
    json_answer,
    redirect,
    refused,
    wait_until,
)

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "+84901888484", "Xin chào"


@dataclass(frozen=True)
class End:
    """How a message stands after a call."""

    status: Status
    waits: bool = False
    """Has it an automatic next attempt?"""
    uncertain: bool = False
    """May a call under its RequestId have been taken?"""
    error: type[Exception] | None = None


SENT = End(Status.SENT, uncertain=True)
FAILED = End(Status.FAILED, error=GatewayRefused)
BACK_IN_QUEUE = End(Status.QUEUED, waits=True, error=GatewayRefused)
UNREACHED = End(Status.QUEUED, waits=True, error=GatewayUnreachable)
REPEATED = End(Status.UNKNOWN, waits=True, uncertain=True, error=OutcomeUnknown)
LEFT = End(Status.UNKNOWN, uncertain=True, error=OutcomeUnknown)

NO_CONNECTION = "no connection"

OUTCOMES = {
    "taken": (accepted("a1"), SENT, SENT),
    "taken, code as a number": (json_answer({"CodeResult": 100, "SMSID": 17}), SENT, SENT),
    "taken, with HTTP 500": (json_answer({"CodeResult": "100", "SMSID": "x"}, status=500), SENT, SENT),
    "RequestId used before": (refused("124", "Request exist 1"), FAILED, SENT),
    "never connected": (NO_CONNECTION, UNREACHED, REPEATED),
    **{
        f"account or brand: {code}": (refused(code), BACK_IN_QUEUE, REPEATED)
        for code in ("101", "102", "103", "140", "118", "300", "104")
    },
    **{
        f"message or phone: {code}": (refused(code), FAILED, LEFT)
        for code, found in CODES.items()
        if found.verdict in {Verdict.MESSAGE, Verdict.PHONE}
    },
    "message: 146, with an SMSID": (json_answer({"CodeResult": "146", "SMSID": "s"}), FAILED, LEFT),
    **{f"undecided: {code}": (refused(code), LEFT, LEFT) for code in ("105", "199", "999", "zzz")},
    "JSON without a code": (json_answer({"error": "Invalid request"}), REPEATED, REPEATED),
    "time-out": ([Hang()], REPEATED, REPEATED),
    "dripping for ever": ([Drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 400, 0.05)], REPEATED, REPEATED),
    "reset": ([Reset()], REPEATED, REPEATED),
    "closed without an answer": ([Close()], REPEATED, REPEATED),
    "redirect": (redirect("http://127.0.0.1:9/"), REPEATED, REPEATED),
    "HTML with status 200": (http_answer(b"<html>hello"), REPEATED, REPEATED),
    "HTTP 500 that repeats the URL": (echo, REPEATED, REPEATED),
    "HTTP 503, empty": (http_answer(b"", status=503), REPEATED, REPEATED),
    "truncated": (
        [*http_answer(b'{"CodeResult": "100"}', headers={"Content-Length": "99"}), Close()],
        REPEATED,
        REPEATED,
    ),
    "too large": (http_answer(b'{"CodeResult":"100","a":"' + b"a" * 70_000 + b'"}'), REPEATED, REPEATED),
    "JSON list": (http_answer(b'["100"]'), REPEATED, REPEATED),
}


NEVER_COMPLETE = [OUTCOMES["time-out"][0], OUTCOMES["dripping for ever"][0]]
"""Answers that only a short time-out ends."""


def _closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def _prepare(esms, settings, answer) -> None:
    if answer == NO_CONNECTION:
        url = f"http://127.0.0.1:{_closed_port()}/"
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BASE_URL": url}
    else:
        esms.answer(answer)
    if answer in NEVER_COMPLETE:
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "TIMEOUT": (PATIENCE, 0.4)}


def _check(message: OutboundViberMessage, end: End) -> None:
    message.refresh_from_db()
    now = timezone.now()
    assert message.status == end.status
    assert (message.next_attempt_at is not None and message.next_attempt_at > now) is end.waits
    assert (message.uncertain_since is not None) is end.uncertain
    assert (message.claim_id, message.lease_until) == ("", None)
    if end.error is None:
        message.raise_for_status()
    else:
        with pytest.raises(end.error):
            message.raise_for_status()


def _make_due(message: OutboundViberMessage) -> None:
    OutboundViberMessage.objects.filter(pk=message.pk).update(next_attempt_at=timezone.now())


def _forget_outage(message: OutboundViberMessage) -> None:
    """As if the calls of this test had not come one after the other."""
    ViberGatewayState.objects.all().delete()
    _make_due(message)


@pytest.mark.parametrize(("answer", "first", "repeat"), OUTCOMES.values(), ids=OUTCOMES)
def test_first_attempt(esms, settings, answer, first, repeat):
    _prepare(esms, settings, answer)

    message = send_viber_message(PHONE, TEXT)

    assert message.status == first.status
    _check(message, first)
    assert len(esms.requests) == (0 if answer == NO_CONNECTION else 1)
    assert list(message.events.values_list("kind", flat=True)) == ["requested", "attempt"]


@pytest.mark.parametrize(("answer", "first", "repeat"), OUTCOMES.values(), ids=OUTCOMES)
def test_repeat_of_an_uncertain_outcome(esms, settings, answer, first, repeat):
    esms.answer([Close()])
    message = send_viber_message(PHONE, TEXT)
    assert message.status == Status.UNKNOWN
    _make_due(message)
    _prepare(esms, settings, answer)

    deliver_due_messages()

    _check(message, repeat)
    assert len(esms.requests) == (1 if answer == NO_CONNECTION else 2)
    assert {request["RequestId"] for request in esms.requests} == {message.request_id}


def test_what_failed_tells_meaning_and_remedy(esms):
    esms.answer(refused("146", "Template not match"))
    message = send_viber_message(PHONE, TEXT)
    assert message.error_message == "Template not match"
    with pytest.raises(GatewayRefused) as refusal:
        message.raise_for_status()
    assert refusal.value.code == "146"
    assert refusal.value.remedy == str(CODES["146"].remedy)


@pytest.mark.parametrize("answer", [refused("101"), refused("104"), refused("146")])
def test_a_definite_refusal_ends_the_request_id(esms, clock, answer):
    esms.answer(answer)
    message = send_viber_message(PHONE, TEXT)
    if message.status == Status.FAILED:
        resend_viber_messages([message])
    else:
        clock.advance(seconds=15)
        deliver_due_messages()
    message.refresh_from_db()
    assert message.status == Status.SENT
    first, second = (request["RequestId"] for request in esms.requests)
    assert first != second == message.request_id


def test_uncertain_outcomes_are_repeated_up_to_the_limit(esms):
    esms.answer_all([Close()])
    message = send_viber_message(PHONE, TEXT)
    for _ in range(10):
        message.refresh_from_db()
        if message.next_attempt_at is None:
            break
        _forget_outage(message)
        deliver_due_messages()
    assert len(esms.requests) == 5
    assert len({request.query for request in esms.requests}) == 1
    assert message.next_attempt_at is None
    _check(message, LEFT)


def test_calls_that_never_left_do_not_use_up_the_repeats(esms, settings):
    working = settings.ESMS_VIBER
    _prepare(esms, settings, NO_CONNECTION)
    message = send_viber_message(PHONE, TEXT)
    for _ in range(6):
        _forget_outage(message)
        deliver_due_messages()
    settings.ESMS_VIBER = working
    _forget_outage(message)
    esms.answer([Close()])
    _make_due(message)
    deliver_due_messages()
    _check(message, REPEATED)


def test_waits_grow_to_a_quarter_of_an_hour(esms, settings):
    _prepare(esms, settings, NO_CONNECTION)
    message = send_viber_message(PHONE, TEXT)
    waits = []
    for _ in range(9):
        message.refresh_from_db()
        waits.append((message.next_attempt_at - timezone.now()).total_seconds())
        _forget_outage(message)
        deliver_due_messages()
    assert waits[0] <= 15
    assert waits[3] > waits[0] * 4
    assert 600 < waits[-1] <= 900


def test_an_account_refusal_stops_the_batch_and_the_next_begins_with_one(esms, settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only", "CONCURRENCY": 4}
    esms.answer_all(refused("103", "Not enough balance"))
    for number in range(40):
        queue_viber_message(PHONE, f"{TEXT} {number}")

    summary = deliver_due_messages()

    assert len(esms.requests) <= 8
    assert summary.account_code == "103"
    assert summary.requeued + summary.left == 40
    assert OutboundViberMessage.objects.queued().count() == 40

    before = len(esms.requests)
    deliver_due_messages()
    assert len(esms.requests) == before, "the first probe is due after 15 seconds"
    clock.advance(seconds=15)
    deliver_due_messages()
    assert len(esms.requests) == before + 1

    esms.answer_all(accepted())
    clock.advance(seconds=30)
    assert deliver_due_messages().sent == 40


def test_an_outage_stops_the_batch(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only", "CONCURRENCY": 4}
    esms.answer_all([Close()])
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=f"{TEXT} {number}") for number in range(60)])

    summary = deliver_due_messages()

    assert 4 <= len(esms.requests) <= 12
    assert summary.unknown == len(esms.requests)
    assert summary.left == 60 - len(esms.requests)
    assert not OutboundViberMessage.objects.failed().exists()


class TestVietnamDay:
    """eSMS blocks a RequestId within the day: a repeat after midnight could be a second message."""

    def _uncertain_at(self, esms, clock, hour: int, minute: int) -> OutboundViberMessage:
        clock.set(noon().replace(hour=hour, minute=minute))
        esms.answer([Close()])
        return send_viber_message(PHONE, TEXT)

    def test_no_repeat_is_planned_for_the_last_minutes_of_the_day(self, esms, clock):
        message = self._uncertain_at(esms, clock, 23, 54)
        clock.advance(seconds=55)
        _check(message, LEFT)

    def test_no_repeat_the_day_after(self, esms, clock):
        message = self._uncertain_at(esms, clock, 20, 0)
        assert message.next_attempt_at is not None
        clock.advance(hours=4, minutes=1)
        deliver_due_messages()
        assert len(esms.requests) == 1
        _check(message, LEFT)

    def test_a_first_attempt_after_midnight_is_no_repeat(self, esms, clock, settings):
        _prepare(esms, settings, NO_CONNECTION)
        clock.set(noon().replace(hour=23, minute=58))
        message = send_viber_message(PHONE, TEXT)
        clock.advance(minutes=30)
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BASE_URL": esms.url}
        deliver_due_messages()
        _check(message, SENT)

    def test_a_message_killed_with_its_sender_yesterday_is_left_to_a_person(self, esms, clock):
        message = self._uncertain_at(esms, clock, 12, 0)
        OutboundViberMessage.objects.filter(pk=message.pk).update(
            status="sending", claim_id="gone", lease_until=timezone.now() + dt.timedelta(minutes=2)
        )
        clock.advance(hours=13)
        deliver_due_messages()
        assert len(esms.requests) == 1
        _check(message, LEFT)


def test_what_is_given_back_keeps_the_reason_why_it_waited(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only", "CONCURRENCY": 1}
    messages = queue_viber_messages([OutboundViberMessage(phone=PHONE, content=str(number)) for number in range(6)])
    OutboundViberMessage.objects.update(code_result="103", attempts=1)
    esms.answer(accepted())
    esms.answer_all(refused("103"))
    assert deliver_due_messages().sent == 1
    waiting = OutboundViberMessage.objects.queued()
    assert waiting.count() == len(messages) - 1
    assert set(waiting.values_list("code_result", flat=True)) == {"103"}


def test_a_probe_that_a_receiver_vetoes_is_no_probe(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    first, *_ = queue_viber_messages([OutboundViberMessage(phone=PHONE, content=str(number)) for number in range(20)])
    ViberGatewayState.objects.create(code="103", opened_at=timezone.now(), next_probe_at=timezone.now())
    esms.answer_all(refused("103"))

    def veto(message, **kwargs):
        if message.pk == first.pk:
            raise CancelSend("no")

    pre_send.connect(veto)
    try:
        deliver_due_messages()
    finally:
        pre_send.disconnect(veto)
    assert len(esms.requests) == 1


@pytest.mark.parametrize("signal", [pre_send, status_changed], ids=["pre_send", "status_changed"])
def test_slow_receivers_do_not_outlast_the_claim(esms, settings, clock_of_leases, signal):
    """All of a claim takes longer than its lease, and another sender looks for work all the while."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=str(number)) for number in range(10)])
    told, others = [], []

    def slow(message, new_status="", **kwargs):
        told.append((message.pk, new_status))
        if threading.current_thread() is not threading.main_thread():
            return
        clock_of_leases.advance(seconds=claims.LEASE.total_seconds() / 3)
        with ThreadPoolExecutor(1) as other:
            others.append(other.submit(_deliver_elsewhere).result())

    signal.connect(slow)
    try:
        assert deliver_due_messages().sent == 10
    finally:
        signal.disconnect(slow)
    assert len(told) == len(set(told)) == (10 if signal is pre_send else 20)
    assert set(others) == {0}
    assert len(esms.requests) == 10


def _deliver_elsewhere() -> int:
    try:
        return deliver_due_messages().sent
    finally:
        connection.close()


def test_a_message_taken_over_while_receivers_are_asked_is_left_to_the_other(esms, caplog):
    def take_over(message, **kwargs):
        OutboundViberMessage.objects.filter(pk=message.pk).update(claim_id="another")

    pre_send.connect(take_over)
    try:
        message = send_viber_message(PHONE, TEXT)
    finally:
        pre_send.disconnect(take_over)
    assert esms.requests == []
    message.refresh_from_db()
    assert (message.status, message.claim_id, message.uncertain_since) == ("sending", "another", None)


def test_a_message_taken_over_while_it_waits_for_its_turn_is_not_called_for(esms, settings, clock_of_leases):
    """The claim is looked at when it is renewed; a lease that was lost does not come back."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only", "CONCURRENCY": 1}
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=str(number)) for number in range(3)])

    def take_the_others(request):
        sending = OutboundViberMessage.objects.sending()
        others = sending.exclude(request_id=request["RequestId"])
        others.update(claim_id="another", lease_until=timezone.now() + dt.timedelta(hours=1))
        # Twice, because the sender knows what was lost once it has gone on to the second.
        for _ in range(2):
            before = sending.get(request_id=request["RequestId"]).lease_until
            clock_of_leases.advance(seconds=claims.LEASE.total_seconds() / 2)
            wait_until(lambda before=before: sending.get(request_id=request["RequestId"]).lease_until > before)
        connection.close()
        return accepted()

    esms.answer(take_the_others)
    assert deliver_due_messages().sent == 1
    assert len(esms.requests) == 1
    assert OutboundViberMessage.objects.sending().filter(claim_id="another").count() == 2


def test_repeats_come_before_what_was_never_tried(esms, settings):
    """Their day ends."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    queue_viber_message(PHONE, "queued before it")
    esms.answer([Close()])
    uncertain = send_viber_message(PHONE, TEXT)
    _make_due(uncertain)
    deliver_due_messages(limit=1)
    uncertain.refresh_from_db()
    assert uncertain.status == Status.SENT


def test_senders_that_die_use_up_the_repeats_too(esms, clock):
    esms.answer_all([Close()])
    message = send_viber_message(PHONE, TEXT)
    for _ in range(3):
        _make_due(message)
        deliver_due_messages()
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status="sending", claim_id="gone", lease_until=timezone.now() - dt.timedelta(seconds=1)
    )
    calls = len(esms.requests)
    deliver_due_messages()
    assert len(esms.requests) == calls == 4
    _check(message, LEFT)


@pytest.mark.parametrize("code", ["100", "146", "103"])
@pytest.mark.parametrize("failures", [1, 3])
def test_an_answer_whose_recording_failed_is_recorded_at_another_try(esms, code, failures):
    """The database fails at the very statement that stores the attempt."""
    failed = []

    def fail(execute, sql, params, many, context):
        if "INSERT" in sql and "viberevent" in sql.replace("message", "") and esms.requests and len(failed) < failures:
            failed.append(sql)
            raise OperationalError("deadlock")
        return execute(sql, params, many, context)

    esms.answer(refused(code))
    with connection.execute_wrapper(fail):
        message = send_viber_message(PHONE, TEXT)
    assert len(failed) == failures
    for seen in (message, OutboundViberMessage.objects.get()):
        assert (seen.status, seen.code_result, seen.attempts) == (
            {"100": Status.SENT, "146": Status.FAILED, "103": Status.QUEUED}[code],
            code,
            1,
        )
    assert message.events.filter(kind="attempt").count() == 1


def test_an_answer_that_cannot_be_recorded_leaves_the_message_uncertain(esms, clock, monkeypatch):
    def fail(execute, sql, params, many, context):
        if "INSERT" in sql and esms.requests:
            raise OperationalError("disk full")
        return execute(sql, params, many, context)

    monkeypatch.setattr(worker, "_PATIENCE", 0)
    with connection.execute_wrapper(fail):
        message = send_viber_message(PHONE, TEXT)
    with pytest.raises(OutcomeUnknown):
        message.raise_for_status()
    assert OutboundViberMessage.objects.get().status == Status.SENDING

    clock.advance(minutes=3)
    esms.answer(refused("124"))
    assert deliver_due_messages().sent == 1
    first, second = (request["RequestId"] for request in esms.requests)
    assert first == second


def test_no_more_calls_in_one_process_than_the_setting_allows(settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "tests.test_outcomes.CountingGateway", "CONCURRENCY": 2}
    CountingGateway.most = 0

    def send(number):
        try:
            return send_viber_message(PHONE, str(number)).status
        finally:
            connection.close()

    with ThreadPoolExecutor(6) as threads:
        assert list(threads.map(send, range(12))) == [Status.SENT] * 12
    assert CountingGateway.most == 2


class CountingGateway(MemoryGateway):
    """Notes how many calls are in flight at the same time; a call ends when another one has met it."""

    now = most = 0
    lock = threading.Lock()
    meeting = threading.Barrier(2)

    def send(self, message):
        kind = type(self)
        with kind.lock:
            kind.now += 1
            kind.most = max(kind.most, kind.now)
        kind.meeting.wait(PATIENCE)
        with kind.lock:
            kind.now -= 1
        return super().send(message)
