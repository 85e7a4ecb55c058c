"""Asking about messages that eSMS does not report on: when, how often, how many, and what ends it."""

from __future__ import annotations

import datetime as dt
import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from io import StringIO

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.utils import timezone

from esms_viber.gateways.base import CallOutcome, StatusResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage
from esms_viber.reports.polling import refresh_due_messages
from esms_viber.services import deliver_due_messages, queue_viber_messages, refresh_viber_messages, send_viber_message
from esms_viber.testing import play_callback
from tests.fake_gateway import PATIENCE, Close, accepted, http_answer, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"
DELIVERED = {"SendStatus": 5, "SendSuccess": 1, "SendFailed": 0, "TotalPrice": 850.0}
UNDELIVERED = {"SendStatus": 5, "SendSuccess": 0, "SendFailed": 1, "TotalPrice": 0}
ON_ITS_WAY = {"SendStatus": 2, "SendSuccess": 0, "SendFailed": 0}


def answer(esms, found=None, code="100"):
    """Sends are taken, each with an SMSID of its own; queries are answered like this."""

    def reply(request):
        if request.path.endswith("GetSendStatus"):
            return json_answer({"CodeResponse": code, "SMSID": request["RefId"], **(found or {})})
        return accepted(f"sms-{request['RequestId']}")

    esms.answer_all(reply)


def asked(esms) -> list[str]:
    return [request["RefId"] for request in esms.requests if request.path.endswith("GetSendStatus")]


def refresh(**options) -> str:
    out = StringIO()
    call_command("refresh_viber_messages", stdout=out, **options)
    return out.getvalue()


def send(count: int = 1, **fields) -> list[OutboundViberMessage]:
    return [send_viber_message(PHONE, f"{TEXT} {number}", **fields) for number in range(count)]


def test_a_message_without_a_report_is_asked_about_after_a_while(esms, clock):
    answer(esms, DELIVERED)
    (message,) = send()
    refresh()
    assert asked(esms) == [], "its report may be on the way"

    clock.advance(minutes=5, seconds=1)
    assert "1 delivered" in refresh()
    assert asked(esms) == [message.sms_id]
    message.refresh_from_db()
    assert (message.status, message.total_price, message.next_query_at) == ("delivered", 850, None)
    event = message.events.last()
    assert (event.kind, event.code, event.applied) == ("poll", "100", True)

    clock.advance(days=1)
    refresh()
    assert len(asked(esms)) == 1


def test_what_was_not_delivered_is_told(esms, clock):
    answer(esms, UNDELIVERED)
    (message,) = send()
    clock.advance(minutes=6)
    assert "1 not delivered" in refresh()
    message.refresh_from_db()
    assert message.status == "undelivered"


@pytest.mark.parametrize(("found", "code"), [(ON_ITS_WAY, "100"), (None, "105")], ids=["on its way", "not found yet"])
def test_it_is_asked_about_at_growing_intervals_for_seven_days(esms, clock, found, code):
    answer(esms, found, code)
    (message,) = send()
    sent_at, times = message.sent_at, []
    while True:
        message.refresh_from_db()
        assert message.status == "sent"
        if message.next_query_at is None:
            break
        clock.set(message.next_query_at + dt.timedelta(seconds=1))
        refresh()
        times.append(timezone.now() - sent_at)
    assert len(times) == len(asked(esms))
    assert 8 <= len(times) <= 15
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert gaps[:-1] == sorted(gaps[:-1])
    assert times[0] < dt.timedelta(minutes=6)
    assert dt.timedelta(days=6) < times[-1] < dt.timedelta(days=7)


def test_only_what_can_be_found_is_asked_about(esms, clock):
    answer(esms, DELIVERED)
    send(sandbox=True)
    esms.answer(accepted(""))
    send()
    esms.answer([Close()])
    unknown = send_viber_message(PHONE, "unknown")
    reported = send_viber_message(PHONE, "reported")
    play_callback(reported)
    clock.advance(hours=1)
    refresh()
    assert asked(esms) == []
    unknown.refresh_from_db()
    assert unknown.status == "unknown"


def test_no_more_than_the_limit_and_then_the_rest(esms, clock):
    answer(esms, DELIVERED)
    send(7)
    clock.advance(minutes=6)
    assert "5 delivered, 0 not delivered, 0 undecided yet, 2 left" in refresh(limit=5)
    assert len(asked(esms)) == 5
    assert "2 delivered" in refresh(limit=5)
    assert len(set(asked(esms))) == 7


def test_many_are_asked_about_at_the_same_time(settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.MeetingGateway", "CONCURRENCY": 8}
    send(24)
    clock.advance(minutes=6)
    summary = refresh_due_messages()
    assert summary.undecided == 24


class MeetingGateway(MemoryGateway):
    """Answers two at a time: one alone would wait in vain."""

    meeting = threading.Barrier(2)

    def fetch_status(self, sms_id: str) -> StatusResult:
        self.meeting.wait(PATIENCE)
        return super().fetch_status(sms_id)


def test_two_at_once_ask_about_each_message_once(esms, clock):
    answer(esms, ON_ITS_WAY)
    send(40)
    clock.advance(minutes=6)

    def run(_number: int) -> int:
        try:
            return refresh_due_messages().undecided
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as threads:
        assert sum(threads.map(run, range(3))) == 40
    assert len(asked(esms)) == len(set(asked(esms))) == 40


@pytest.mark.parametrize(
    ("reply", "sentence"),
    [
        (json_answer({"CodeResponse": "101", "SMSID": "x"}), "does not accept the API key"),
        ([Close()], "does not answer"),
    ],
)
def test_trouble_stops_it_and_what_was_not_asked_about_is_asked_about_next_time(esms, clock, settings, reply, sentence):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 2}
    answer(esms, DELIVERED)
    send(30)
    clock.advance(minutes=6)
    esms.answer_all(reply)
    with pytest.raises(CommandError, match=sentence):
        refresh()
    calls = len(asked(esms))
    assert calls < 10
    assert OutboundViberMessage.objects.sent().count() == 30
    assert OutboundViberMessage.objects.due_for_query().count() == 30 - calls

    answer(esms, DELIVERED)
    refresh()
    clock.advance(hours=1)
    refresh()
    assert OutboundViberMessage.objects.delivered().count() == 30


def test_an_sms_id_that_comes_with_a_report_makes_it_askable(esms, clock):
    """After a 124 there is none."""
    esms.answer([Close()])
    (message,) = send()
    clock.advance(minutes=1)
    esms.answer(json_answer({"CodeResult": "124", "ErrorMessage": "Request exist 1"}))
    deliver_due_messages()
    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("sent", "")
    play_callback(message, SendStatus="7", SMSID="sms-late")
    answer(esms, DELIVERED)
    clock.advance(minutes=10)
    refresh()
    assert asked(esms) == ["sms-late"]


def test_a_status_that_makes_no_sense_changes_nothing(esms, clock):
    (message,) = send()
    answer(esms, {"SendStatus": "delivered"})
    clock.advance(minutes=6)
    refresh()
    message.refresh_from_db()
    assert message.status == "sent"
    assert message.events.last().kind == "poll"


@pytest.mark.parametrize(
    ("name", "raw"),
    [
        ("TotalPrice", '"470,0000"'),
        ("TotalPrice", '"null"'),
        ("TotalPrice", "1e400"),
        ("TotalPrice", "1e99999999999999999999"),
        ("TotalPrice", "NaN"),
        ("TotalPrice", "-1"),
        ("TotalPrice", '{"VND": 470}'),
        ("TelcoId", '"Viettel"'),
        ("SMSID", '"' + "y" * 65 + '"'),
        ("SMSID", '"null"'),
        ("SMSID", "null"),
    ],
)
@pytest.mark.parametrize("by_command", [True, False])
def test_a_field_that_cannot_be_read_costs_the_verdict_nothing(esms, clock, name, raw, by_command, caplog):
    (message,) = send()
    good = {"CodeResponse": '"100"', "SendStatus": "5", "SendSuccess": '"1"', "SendFailed": "null", name: raw}
    body = "{" + ", ".join(f'"{name}": {value}' for name, value in good.items()) + "}"
    esms.answer_all(http_answer(body.encode(), content_type="application/json"))
    clock.advance(minutes=6)
    if by_command:
        assert "1 delivered" in refresh()
    else:
        refresh_viber_messages([message])
    sms_id = message.sms_id
    message.refresh_from_db()
    assert (message.status, message.total_price, message.telco_id, message.sms_id) == ("delivered", None, None, sms_id)
    event = message.events.last()
    assert (event.kind, event.applied) == ("poll", True)
    if "null" not in raw and "{" not in raw:
        assert "could not be read and is left out." in event.text
        assert "left out: " in caplog.text
        assert raw.strip('"') not in caplog.text


def test_an_sms_id_in_capitals_is_the_same(esms, clock):
    (message,) = send()
    esms.answer_all(json_answer({"CodeResponse": "100", "SMSID": message.sms_id.upper(), **DELIVERED}))
    clock.advance(minutes=6)
    assert "1 delivered" in refresh()


def test_an_answer_about_another_message_changes_nothing(esms, clock):
    (message,) = send()
    esms.answer_all(json_answer({"CodeResponse": "100", "SMSID": "another", **DELIVERED}))
    clock.advance(minutes=6)
    refresh()
    message.refresh_from_db()
    assert message.status == "sent"


def test_told_to_stop_it_asks_about_no_more(settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.HoldingGateway", "CONCURRENCY": 1}
    send(40)
    clock.advance(minutes=6)
    told = []

    def should_stop() -> bool:
        if HoldingGateway.asked < 5:
            return False
        if told:
            # It has been told before, and answers come only now.
            HoldingGateway.released.set()
        told.append(True)
        return True

    summary = refresh_due_messages(should_stop=should_stop)
    assert (summary.undecided, summary.left) == (5, 35)


class HoldingGateway(MemoryGateway):
    """Answers the fifth query when it is told to."""

    asked = 0
    released = threading.Event()

    def fetch_status(self, sms_id: str) -> StatusResult:
        HoldingGateway.asked += 1
        if HoldingGateway.asked == 5:
            self.released.wait(PATIENCE)
        return super().fetch_status(sms_id)


def test_a_gateway_that_raises_ends_nothing_but_its_query(settings, clock, caplog):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.RaisingGateway"}
    messages = send(3)
    clock.advance(minutes=6)
    assert refresh_viber_messages(messages) == []
    assert "RaisingGateway.fetch_status raised ZeroDivisionError" in caplog.text
    assert OutboundViberMessage.objects.sent().count() == 3


class RaisingGateway(MemoryGateway):
    def fetch_status(self, sms_id: str) -> StatusResult:
        raise ZeroDivisionError("with a secret in it")


def test_a_message_deleted_meanwhile_costs_no_other_its_answer(settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.DeletingGateway", "CONCURRENCY": 1}
    messages = send(3)
    DeletingGateway.victim = messages[1].pk
    rows = refresh_viber_messages(messages)
    assert [row.pk for row in rows] == [messages[0].pk, messages[2].pk]


class DeletingGateway(MemoryGateway):
    victim = 0

    def fetch_status(self, sms_id: str) -> StatusResult:
        try:
            OutboundViberMessage.objects.filter(pk=self.victim).delete()
        finally:
            connections.close_all()
        return super().fetch_status(sms_id)


def test_it_refuses_an_open_transaction(clock):
    with transaction.atomic(), pytest.raises(TransactionManagementError):
        refresh_due_messages()


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_that_is_none_is_refused(limit):
    with pytest.raises(CommandError, match="at least 1"):
        refresh(limit=limit)


def test_nothing_is_said_with_verbosity_0(esms, clock):
    answer(esms, DELIVERED)
    send()
    clock.advance(minutes=6)
    assert refresh(verbosity=0) == ""


def test_an_esms_that_cannot_be_reached_is_not_asked_about_everything(settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=f"{n}") for n in range(40)])
    clock.advance(minutes=6)
    MemoryGateway.statuses.extend([StatusResult(outcome=CallOutcome.NOT_CONNECTED, text="Could not connect")] * 40)
    summary = refresh_due_messages()
    assert summary.outage
    assert 40 - len(MemoryGateway.statuses) <= 8
    assert summary.left >= 32
