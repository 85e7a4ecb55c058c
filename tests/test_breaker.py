"""One fault that hits every message: noticed within a handful of calls, told once, and over by itself."""

from __future__ import annotations

import datetime as dt
import itertools
import json
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection
from django.utils import timezone

from esms_viber.delivery import breaker, worker
from esms_viber.exceptions import GatewayRefused, GatewayUnreachable
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage, Status, ViberGatewayState, ViberMessageEvent
from esms_viber.monitoring import get_queue_status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send, status_changed
from tests.factories import show_status as status
from tests.factories import states
from tests.fake_gateway import PATIENCE, Close, Hang, accepted, http_answer, json_answer, refused, wait_until
from tests.test_concurrency import _database_url

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "+84901888484", "Xin chào"
UNAVAILABLE = {"message": "Service Unavailable"}
LIST = "/admin/esms_viber/outboundvibermessage/"


@pytest.fixture(autouse=True)
def _queue_only(queue_only) -> None:
    """Sending begins when a test says so."""


def queue(count: int, **fields) -> list[OutboundViberMessage]:
    messages = [OutboundViberMessage(phone=PHONE, content=f"{TEXT} {n}", **fields) for n in range(count)]
    return queue_viber_messages(messages)


def drain() -> str:
    """Run the command as cron does. Returns what it says when it fails."""
    try:
        call_command("send_viber_messages", verbosity=0)
    except CommandError as error:
        return str(error)
    return ""


def errors_in(caplog) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


# -- what counts as silence --------------------------------------------------------------------------------------------

UNDECIDED = {
    **{f"HTTP {code} in JSON": json_answer(UNAVAILABLE, status=code) for code in (403, 404, 429, 500, 502, 503, 504)},
    "invalid request": json_answer({"error": "Invalid request"}),
    "an empty object": json_answer({}),
    "a code that is null": json_answer({"CodeResult": None}),
    "HTML": http_answer(b"<html>Service Unavailable"),
    "closed": [Close()],
}


@pytest.mark.parametrize("answer", UNDECIDED.values(), ids=UNDECIDED)
def test_answers_that_decide_nothing_stop_the_run_and_spoil_nothing(esms, clock, caplog, admin_client, answer):
    queue(200)
    esms.answer_all(answer)

    assert "does not answer" in drain()

    called = len(esms.requests)
    assert breaker.OPENS_AT <= called <= breaker.OPENS_AT + 16, "those on the wire finish"
    assert states() == {"queued": 200 - called, "unknown": called}
    assert not OutboundViberMessage.objects.filter(next_attempt_at=None).exists(), "all are called again by themselves"
    assert errors_in(caplog) == ["eSMS does not answer: calls stop, messages wait, and one at a time is tried"]
    code, text = status()
    assert code == 2
    assert "eSMS does not answer" in text
    assert "The last call was at" in text
    assert "is tried again from" in text
    assert "eSMS does not answer" in admin_client.get(LIST).content.decode()

    for seconds in (15, 30, 60, 120, 120):
        clock.advance(seconds=seconds - 8)
        drain()
        assert len(esms.requests) == called, "no probe before its time"
        clock.advance(seconds=8)
        drain()
        called += 1
        assert len(esms.requests) == called
    assert len(errors_in(caplog)) == 1, "told once"

    esms.answer_all(accepted())
    clock.advance(seconds=120)
    assert drain() == ""
    assert states() == {"sent": 200}
    assert len({request["RequestId"] for request in esms.requests}) == 200, "repeats keep their RequestId"
    assert status()[0] == 0


def test_half_an_hour_of_outage_uses_up_no_tries(esms, clock, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": 2}
    queue(30)
    esms.answer_all(json_answer(UNAVAILABLE, status=503))
    for _ in range(180):
        drain()
        clock.advance(seconds=10)
    assert not OutboundViberMessage.objects.filter(next_attempt_at=None).exists()
    esms.answer_all(accepted())
    clock.advance(seconds=120)
    drain()
    assert states() == {"sent": 30}


@pytest.mark.parametrize("most", [1, 3])
def test_the_calls_that_open_it_are_not_counted_either(esms, clock, settings, most):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": most, "CONCURRENCY": 1}
    queue(10)
    esms.answer_all([Close()])
    drain()
    assert len(esms.requests) == breaker.OPENS_AT
    assert OutboundViberMessage.objects.unknown().filter(next_attempt_at__isnull=False).count() == breaker.OPENS_AT
    esms.answer_all(accepted())
    clock.advance(minutes=1)
    drain()
    assert states() == {"sent": 10}


def test_calls_without_an_answer_while_others_are_taken_do_count(esms, clock, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": 2}
    bad = queue_viber_message("0901888485", TEXT)
    esms.answer_all(lambda request: [Close()] if request["Phone"] == "0901888485" else accepted())
    for _ in range(4):
        queue(1)
        drain()
        clock.advance(minutes=1)
    bad.refresh_from_db()
    assert (bad.status, bad.attempts, bad.next_attempt_at) == ("unknown", 2, None)
    assert states() == {"unknown": 1, "sent": 4}
    assert not ViberGatewayState.objects.in_trouble().filter(opened_at__isnull=False).exists()


def test_a_call_that_hung_while_others_were_taken_says_nothing(esms, settings):
    """Ten calls hang for as long as forty others are taken; they end together, after the last of these."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "TIMEOUT": (PATIENCE, 2), "CONCURRENCY": 12}
    esms.answer_all(lambda request: [Hang()] if request["Content"].endswith("hangs") else accepted())
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=f"{n} hangs") for n in range(10)])
    queue(40)
    assert drain() == ""
    assert states() == {"unknown": 10, "sent": 40}
    assert not ViberGatewayState.objects.filter(opened_at__isnull=False).exists()


# -- refusals that hit everybody ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", ["101", "102", "103", "140", "118", "300"])
def test_the_accounts_trouble_lets_everything_wait(esms, clock, caplog, code):
    queue(60, brandname="A")
    queue(60, brandname="B")
    esms.answer_all(refused(code))
    assert f"Code {code}" in drain()
    assert len(esms.requests) <= 16
    assert states() == {"queued": 120}
    assert len(errors_in(caplog)) == 1
    assert status()[0] == 2
    esms.answer_all(accepted())
    clock.advance(seconds=15)
    assert drain() == ""
    assert states() == {"sent": 120}
    assert status()[0] == 0


def test_a_brands_trouble_is_the_brands_alone(esms, clock, caplog, admin_client):
    queue(60, brandname="Good")
    queue(60, brandname="Bad")
    esms.answer_all(lambda request: refused("104") if request["Brandname"] == "Bad" else accepted())
    said = drain()
    assert "“Bad”" in said
    assert "104" in said
    assert Counter(OutboundViberMessage.objects.values_list("brandname", "status")) == {
        ("Good", "sent"): 60,
        ("Bad", "queued"): 60,
    }
    called = len([request for request in esms.requests if request["Brandname"] == "Bad"])
    assert called <= 16
    assert [error for error in errors_in(caplog) if "'Bad'" in error] == errors_in(caplog)
    assert len(errors_in(caplog)) == 1
    code, text = status()
    assert code == 2
    assert "brand name “Bad”" in text
    assert "brand name “Bad”" in admin_client.get(LIST).content.decode()
    assert get_queue_status().refused_brands == {"Bad": "104"}

    queue(5, brandname="Good")
    drain()
    assert OutboundViberMessage.objects.sent().count() == 65
    assert len([request for request in esms.requests if request["Brandname"] == "Bad"]) == called

    with pytest.raises(GatewayRefused) as refusal:
        send_viber_message(PHONE, TEXT, brandname="Bad").raise_for_status()
    assert refusal.value.code == "104"
    assert send_viber_message(PHONE, TEXT, brandname="Good").status == "sent"

    esms.answer_all(accepted())
    clock.advance(seconds=15)
    assert drain() == ""
    assert states() == {"sent": 127}
    assert status()[0] == 0


def test_a_brand_name_left_to_the_settings_is_the_same_brand(esms, settings, clock):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BRANDNAME": ""}
    queue(20)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BRANDNAME": "SHOP"}
    queue(20)
    esms.answer_all(refused("104"))
    drain()
    assert len(esms.requests) <= 16
    called = len(esms.requests)
    drain()
    assert len(esms.requests) == called
    esms.answer_all(accepted())
    clock.advance(seconds=15)
    drain()
    assert states() == {"sent": 40}


@pytest.mark.parametrize("code", ["145", "110", "199", "105", "787"])
def test_many_messages_refused_with_one_code_stop_the_run(esms, clock, caplog, code):
    queue(120)
    esms.answer_all(refused(code))
    assert code in drain()
    called = len(esms.requests)
    assert breaker.OPENS_AT <= called <= breaker.OPENS_AT + 16
    spoilt = 120 - OutboundViberMessage.objects.queued().count()
    assert len(errors_in(caplog)) - errors_in(caplog).count("somebody has to decide") >= 1
    assert status()[0] == 2

    for seconds in (15, 30, 60):
        clock.advance(seconds=seconds)
        drain()
    assert len(esms.requests) == called + 3
    assert OutboundViberMessage.objects.failed().count() <= spoilt, "probes spoil nothing"
    assert OutboundViberMessage.objects.undecided().count() <= spoilt

    esms.answer_all(accepted())
    clock.advance(seconds=120)
    assert drain() == ""
    assert OutboundViberMessage.objects.sent().count() >= 120 - spoilt
    assert not OutboundViberMessage.objects.queued().exists()


def test_refusals_with_an_accepted_one_between_or_with_different_codes_stop_nothing(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    answers = ["146", "146", "146", "146", "100", "146", "146", "146", "146", "177", "146", "146", "146"]
    esms.answer(*[refused(code) if code != "100" else accepted() for code in answers])
    queue(20)
    assert drain() == ""
    assert states() == {"failed": 12, "sent": 8}


@pytest.mark.parametrize("code", ["99", "108"])
def test_many_refused_phones_are_told_and_stop_nothing(esms, code, admin_client):
    queue(40)
    esms.answer_all(refused(code))
    assert drain() == ""
    assert states() == {"failed": 40}
    exit_code, text = status()
    assert exit_code == 0
    assert "eSMS refused the last 5 phones" in text
    assert "eSMS refused the last 5 phones" in admin_client.get(LIST).content.decode()


def test_a_refused_phone_as_the_probe_is_followed_by_the_next_at_once(esms, clock):
    queue(30)
    esms.answer_all(refused("103"))
    drain()
    clock.advance(seconds=15)
    esms.answer(refused("108"))
    esms.answer_all(accepted())
    drain()
    assert states() == {"failed": 1, "sent": 29}


def test_an_outage_that_ends_in_a_refused_account_is_told_as_that(esms, clock, caplog):
    queue(30)
    esms.answer_all([Close()])
    drain()
    esms.answer_all(refused("101"))
    clock.advance(seconds=15)
    assert "101" in drain()
    assert get_queue_status().account_code == "101"
    assert not get_queue_status().outage
    assert len(errors_in(caplog)) == 2
    assert not OutboundViberMessage.objects.failed().exists()


def test_deleting_its_row_is_harmless(esms):
    queue(30)
    esms.answer_all(refused("103"))
    drain()
    ViberGatewayState.objects.all().delete()
    esms.answer_all(accepted())
    drain()
    assert OutboundViberMessage.objects.sent().count() + OutboundViberMessage.objects.queued().count() == 30
    assert status()[0] == 0


def test_it_costs_a_drain_without_faults_almost_nothing(esms, django_assert_max_num_queries):
    queue(300)
    drain()
    writes = []

    def watch(execute, sql, params, many, context):
        if sql.startswith(("UPDATE", "INSERT")) and "gatewaystate" in sql:
            writes.append(sql)
        return execute(sql, params, many, context)

    queue(300)
    began = time.monotonic()
    with connection.execute_wrapper(watch):
        drain()
    # The one moment that is kept for later is written once a second at most.
    assert len(writes) <= 2 + (time.monotonic() - began)


# -- in a web request --------------------------------------------------------------------------------------------------


@pytest.fixture
def inline(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.inline"}


@pytest.fixture
def hanging(esms, settings, monkeypatch, inline):
    """A gateway that hangs, and requests that have a second instead of ten."""
    from esms_viber import dispatch, services

    for module in (dispatch, services):
        monkeypatch.setattr(module, "IN_REQUEST", 1.0)
    esms.answer_all([Hang()])
    return esms


def timed(work) -> float:
    began = time.monotonic()
    work()
    return time.monotonic() - began


def test_after_the_first_silence_requests_wait_for_nothing_but_one_probe_at_a_time(hanging, clock):
    first = timed(lambda: queue_viber_message(PHONE, "first"))
    assert first < 5
    assert len(hanging.requests) == 1
    for n in range(5):
        queue_viber_message(PHONE, f"at once {n}")
        send_viber_message(PHONE, f"at once, too {n}")
    assert len(hanging.requests) == 1
    with pytest.raises(GatewayUnreachable, match="eSMS does not answer"):
        send_viber_message(PHONE, TEXT).raise_for_status()

    clock.advance(seconds=20)
    threads = [threading.Thread(target=_queue_one, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
    assert len(hanging.requests) == 2, "one of them probes"
    assert hanging.requests[0]["RequestId"] == hanging.requests[1]["RequestId"], "with what may have been taken"
    assert OutboundViberMessage.objects.filter(status="failed").count() == 0

    hanging.answer_all(accepted())
    clock.advance(minutes=1)
    assert send_viber_message(PHONE, TEXT).status == "sent"
    clock.advance(minutes=1)
    drain()
    assert set(states()) == {"sent"}


def _queue_one(n: int) -> None:
    try:
        queue_viber_message(PHONE, f"concurrent {n}")
    finally:
        connection.close()


def test_a_worker_goes_on_after_a_call_or_two_without_an_answer(esms, settings):
    queue(20)
    esms.answer([Close()], [Close()])
    assert drain() == ""
    assert states() == {"sent": 18, "unknown": 2}


class WithoutDeadline(MemoryGateway):
    """A site's own, which does not know of deadlines, and hangs."""

    is_over = threading.Event()

    def send(self, message):
        self.is_over.wait(PATIENCE)
        return super().send(message)


def test_a_gateway_that_knows_no_deadline_is_given_up(settings, inline, monkeypatch):
    from esms_viber import services

    monkeypatch.setattr(services, "IN_REQUEST", 0.5)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.WithoutDeadline"}
    message = send_viber_message(PHONE, TEXT)
    WithoutDeadline.is_over.set()
    assert (message.status, message.attempts) == ("unknown", 1)
    assert message.events.get(kind="attempt").text.startswith("No answer in time")


def test_looking_up_the_name_has_a_deadline(esms, settings, inline, monkeypatch):
    from esms_viber import services

    monkeypatch.setattr(services, "IN_REQUEST", 0.5)
    is_over = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: is_over.wait(PATIENCE))
    try:
        message = send_viber_message(PHONE, TEXT)
    finally:
        is_over.set()
    assert (message.status, message.uncertain_since) == ("queued", None), "nothing has left, and nothing will"
    assert message.error_message == "Could not connect: time-out"
    assert esms.requests == []


def test_an_answer_that_drips_has_a_deadline(esms, settings, inline, monkeypatch):
    from esms_viber import services
    from tests.fake_gateway import Drip

    monkeypatch.setattr(services, "IN_REQUEST", 1.0)
    esms.answer([Drip(b"HTTP/1.1 200 OK\r\n" + b"X-A: b\r\n" * 4000, 0.05)])
    began = time.monotonic()
    assert send_viber_message(PHONE, TEXT).status == "unknown"
    assert time.monotonic() - began < PATIENCE / 2


def test_three_runs_that_gave_up_are_told_at_once(esms, clock):
    queue(5)
    esms.answer_all(refused("103"))
    drain()
    esms.answer_all([Close()])
    for _ in range(3):
        clock.advance(minutes=2)
        drain()
    code, text = status()
    assert code == 2
    assert "Connection closed before the answer was complete" in text
    told = json.loads(status("json")[1])
    assert told["last_call"].startswith("Connection closed")
    assert dt.datetime.fromisoformat(told["next_probe_at"]) > timezone.now()


def test_a_last_call_without_an_answer_is_told_after_a_minute(esms, clock):
    esms.answer([Close()])
    queue(1)
    drain()
    assert status()[0] == 0, "another one may follow"
    clock.advance(seconds=61)
    code, text = status()
    assert code == 2
    assert "The last call was at" in text


def test_a_refusal_and_an_interruption_are_no_failing_receiver(esms, clock, monkeypatch):
    queue(3)
    esms.answer_all(refused("103", "Not enough balance"))
    drain()
    clock.advance(seconds=20)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("esms_viber.delivery.worker.record_attempts", interrupted)
    with pytest.raises(KeyboardInterrupt):
        deliver_due_messages()
    assert get_queue_status().held_up == 0
    assert ViberGatewayState.objects.get(brandname="").probe_until is None, "the place of the prober is free again"


# -- processes ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def processes(esms):
    """Start processes that watch, for whom time is short."""
    started: list[subprocess.Popen[str]] = []

    def start(count: int, read_seconds: float) -> list[subprocess.Popen[str]]:
        command = [sys.executable, "-m", "tests.chaos.sender", esms.url, "http://127.0.0.1:9", str(read_seconds)]
        environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_DATABASE_URL": _database_url()}
        root = Path(__file__).parents[1]
        started.extend(subprocess.Popen(command, cwd=root, env=environment, text=True) for _ in range(count))
        return started

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_four_processes_make_one_call_at_a_time_while_the_gateway_hangs(esms, processes):
    """It hangs, then recovers: everything is sent, nothing failed, nothing is left to a person."""
    wire = Wire()
    esms.answer_all(wire)
    queue(300)
    processes(4, 1.0)
    wait_until(lambda: ViberGatewayState.objects.filter(brandname="", opened_at__isnull=False).exists())
    wait_until(lambda: wire.now == 0)  # calls on the wire finish
    wire.most = 0
    probes = len(esms.requests)
    wait_until(lambda: len(esms.requests) >= probes + 5)
    assert wire.most == 1
    wire.hangs.clear()
    wait_until(lambda: not OutboundViberMessage.objects.exclude(status="sent").exists())
    assert len({request["RequestId"] for request in esms.requests}) == 300


class Wire:
    """Hangs as long as it is told, and counts the calls that are on the wire at the same time."""

    def __init__(self) -> None:
        self.hangs = threading.Event()
        self.hangs.set()
        self.now = self.most = 0
        self._lock = threading.Lock()

    def __call__(self, request):
        from tests.fake_gateway import Wait

        if not self.hangs.is_set():
            return accepted(request["RequestId"])
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        threading.Timer(1.0, self._left).start()
        return [Wait(PATIENCE), Close()]

    def _left(self) -> None:
        with self._lock:
            self.now -= 1


def test_after_kill_at_most_twice_as_many_as_threads_are_uncertain(esms, processes):
    queue(300)
    esms.answer_all([Hang()])
    (process,) = processes(1, PATIENCE)
    wait_until(lambda: len(esms.requests) == 8)
    process.kill()
    process.wait()
    uncertain = OutboundViberMessage.objects.filter(uncertain_since__isnull=False).count()
    assert 8 <= uncertain <= 16
    assert OutboundViberMessage.objects.sending().count() > 16, "claims may be larger"


# -- results and the database ------------------------------------------------------------------------------------------


def test_results_are_kept_while_the_database_is_away(esms, monkeypatch, caplog):
    """For longer than a transaction is tried."""
    queue(20)
    monkeypatch.setattr(worker, "LOOKING", 0.05)
    monkeypatch.setattr(worker, "is_reachable", lambda alias: False)
    away = Away(30)
    with connection.execute_wrapper(away):
        assert deliver_due_messages().sent == 20
    assert away.left == 0
    assert len(esms.requests) == 20
    assert ViberMessageEvent.objects.filter(kind="attempt").count() == 20


class Away:
    """The database refuses so many attempts to store what was answered."""

    def __init__(self, failures: int) -> None:
        self.left = failures

    def __call__(self, execute, sql, params, many, context):
        from django.db import OperationalError

        if self.left and sql.startswith("INSERT") and "messageevent" in sql:
            self.left -= 1
            raise OperationalError("server closed the connection unexpectedly")
        return execute(sql, params, many, context)


def test_one_result_that_cannot_be_written_costs_only_itself(esms, clock, caplog):
    bad, *_ = queue(20)

    def fail(execute, sql, params, many, context):
        # PostgreSQL is given a list for each column.
        given = params.values() if isinstance(params, dict) else params or ()
        values = itertools.chain.from_iterable(each if isinstance(each, list) else [each] for each in given)
        is_about_it = any(f"-{bad.pk}-" in str(value) for value in values)
        if sql.startswith("INSERT") and "messageevent" in sql and is_about_it:
            from django.db import DataError

            raise DataError("value out of range")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        deliver_due_messages()
    assert states() == {"sent": 19, "sending": 1}
    assert f"what came of message {bad.pk} cannot be stored" in caplog.text
    clock.advance(minutes=3)
    esms.answer(refused("124"))
    assert deliver_due_messages().sent == 1
    assert len(esms.requests) == 21
    assert ViberMessageEvent.objects.filter(kind="attempt").values("message").distinct().count() == 20


@pytest.fixture
def told():
    changes = []

    def note(message, old_status, new_status, **kwargs):
        changes.append((message.pk, str(old_status), str(new_status)))

    status_changed.connect(note)
    yield changes
    status_changed.disconnect(note)


@pytest.fixture
def lost_commits(monkeypatch):
    """Each outermost COMMIT of this process succeeds, and its answer is lost, as often as told."""
    from django.db import OperationalError
    from django.db.backends.base.base import BaseDatabaseWrapper

    commit = BaseDatabaseWrapper._commit
    lost = []

    def lose(times: int, *, after: int = 0, once: Callable[[], object] = lambda: True) -> None:
        """Lose the answers to so many commits: those that follow the first `after` while `once()` holds."""
        countdown = [after]

        def committed(self):
            is_counted = once()
            commit(self)
            countdown[0] -= bool(is_counted)
            if countdown[0] < 0 and len(lost) < times:
                lost.append(1)
                raise OperationalError("the connection was lost")

        monkeypatch.setattr(BaseDatabaseWrapper, "_commit", committed)

    lose.lost = lost
    return lose


@pytest.mark.parametrize("after", range(1, 9))
def test_a_lost_commit_in_a_run_is_recognised(esms, lost_commits, told, after):
    """Whichever transaction it is: the claim, the beginning of calls, the results."""
    messages = queue(3)
    lost_commits(1, after=after)
    deliver_due_messages()
    assert states() == {"sent": 3}
    assert len(esms.requests) == 3
    events = ViberMessageEvent.objects.filter(kind="attempt")
    assert Counter(events.values_list("message", flat=True)) == {message.pk: 1 for message in messages}
    assert set(OutboundViberMessage.objects.values_list("attempts", flat=True)) == {1}
    moves = Counter(told)
    assert set(moves.values()) == {1}, "each is told once"
    assert {(old, new) for _pk, old, new in moves} == {("queued", "sending"), ("sending", "sent")}
    assert len(moves) == 6


def test_a_lost_commit_of_a_callback_is_recognised(esms, lost_commits, told, client):
    from urllib.parse import urlsplit

    message = send_viber_message(PHONE, TEXT)
    told.clear()
    path = urlsplit(esms.last["CallbackUrl"]).path
    lost_commits(1)
    assert client.get(path, {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}).status_code == 200
    assert lost_commits.lost
    assert told == [(message.pk, "sent", "delivered")]
    assert message.events.filter(kind="callback").count() == 1


def test_a_lost_commit_of_a_cancel_is_recognised(lost_commits, told):
    messages = queue(3)
    lost_commits(1)
    assert len(cancel_viber_messages(messages)) == 3
    assert len(told) == 3
    assert ViberMessageEvent.objects.filter(kind="note").count() == 3


def test_a_lost_commit_of_a_take_over_is_recognised(esms, lost_commits, told, clock):
    queue(3)
    OutboundViberMessage.objects.update(
        status=Status.SENDING, claim_id="gone", lease_until=timezone.now() - dt.timedelta(minutes=1)
    )
    lost_commits(1, after=1)
    assert deliver_due_messages().sent == 3
    assert Counter(new for _pk, _old, new in told) == {"queued": 3, "sending": 3, "sent": 3}
    assert ViberMessageEvent.objects.filter(kind="note").count() == 3


# -- what a reviewer tried ---------------------------------------------------------------------------------------------


def test_an_outage_of_hours_ends_like_any_other(esms, clock):
    queue(10)
    esms.answer_all(refused("103"))
    for _ in range(100):
        drain()
        clock.advance(minutes=2)
    state = ViberGatewayState.objects.get(brandname="")
    assert state.probes > 60
    esms.answer_all(accepted())
    drain()
    assert states() == {"sent": 10}


def test_messages_that_are_never_taken_do_not_hold_their_brand_for_ever(esms, clock):
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=f"bad {n}") for n in range(20)])
    queue(30)
    esms.answer_all(lambda request: refused("146") if request["Content"].startswith("bad") else accepted())
    for _ in range(60):
        drain()
        clock.advance(minutes=1)
    assert OutboundViberMessage.objects.sent().count() == 30


def test_a_row_that_cannot_be_taken_over_holds_up_no_other(esms, clock, caplog):
    rows = queue(5)
    OutboundViberMessage.objects.update(
        status=Status.SENDING, claim_id="gone", lease_until=timezone.now() - dt.timedelta(minutes=1)
    )
    bad = rows[2]

    def fail(execute, sql, params, many, context):
        given = params.values() if isinstance(params, dict) else params or ()
        values = itertools.chain.from_iterable(each if isinstance(each, list) else [each] for each in given)
        if sql.startswith("UPDATE") and "outboundvibermessage" in sql and bad.pk in list(values):
            from django.db import DataError

            raise DataError("value out of range")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        assert deliver_due_messages().sent == 4
    assert f"message {bad.pk} cannot be taken over" in caplog.text
    assert states() == {"sent": 4, "sending": 1}


def test_probes_of_a_brand_without_an_answer_use_up_no_tries(esms, clock, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": 2}
    queue(20, brandname="Bad")
    esms.answer_all(lambda request: refused("104") if request["Brandname"] == "Bad" else accepted())
    drain()
    esms.answer_all(lambda request: [Close()] if request["Brandname"] == "Bad" else accepted())
    for _ in range(6):
        clock.advance(minutes=2)
        queue(1, brandname="Good")
        drain()
    assert not OutboundViberMessage.objects.undecided().exists()
    esms.answer_all(accepted())
    clock.advance(minutes=2)
    drain()
    assert states() == {"sent": 26}


def test_an_outage_ends_though_all_that_waits_is_of_a_refused_brand(esms, clock):
    """The probes of the brand name meet the outage, and then the account's own have nothing else to call for."""
    queue(30, brandname="Only")
    esms.answer_all(refused("104"))
    drain()
    esms.answer_all([Close()])
    for _ in range(8):
        clock.advance(minutes=2)
        drain()
    assert ViberGatewayState.objects.get(brandname="").is_open

    esms.answer_all(refused("104"))
    clock.advance(minutes=2)
    drain()
    assert not ViberGatewayState.objects.get(brandname="").is_open, "eSMS answers again"
    esms.answer_all(accepted())
    clock.advance(minutes=2)
    drain()
    assert states() == {"sent": 30}


def test_a_refused_account_is_probed_with_a_refused_brand_no_faster_than_with_others(esms, clock):
    queue(30, brandname="Only")
    esms.answer_all(refused("104"))
    drain()
    clock.advance(minutes=2)
    esms.answer_all(refused("103"))
    drain()
    esms.answer_all(refused("104"))
    called = len(esms.requests)
    for _ in range(5):
        clock.advance(minutes=2)
        drain()
    assert len(esms.requests) - called <= 5
    esms.answer_all(accepted())
    clock.advance(minutes=2)
    drain()
    assert states() == {"sent": 30}


def test_an_account_in_trouble_is_not_opened_again_and_again_by_other_refusals(esms, clock, caplog):
    queue(3, brandname="Unknown")
    queue(40, brandname="Known")
    esms.answer_all(lambda request: refused("104") if request["Brandname"] == "Unknown" else refused("103"))
    for _ in range(8):
        drain()
        clock.advance(minutes=2)
    assert len(errors_in(caplog)) == 2, "one of the account, one of the brand name"
    assert not OutboundViberMessage.objects.failed().exists()
    esms.answer_all(accepted())
    clock.advance(minutes=4)
    drain()
    drain()
    assert states() == {"sent": 43}


def test_silence_while_the_account_is_refused_neither_closes_nor_reopens_it(esms, clock, caplog):
    queue(2, brandname="Unknown")
    queue(20, brandname="Known")
    esms.answer_all(refused("103"))
    drain()
    for answer in ([Close()], refused("103"), [Close()], refused("104"), [Close()], refused("103")):
        clock.advance(minutes=2)
        esms.answer(answer)
        drain()
        account = ViberGatewayState.objects.get(brandname="")
        assert (account.is_open, account.code) == (True, "103")
    assert account.probes >= 5
    assert len([error for error in errors_in(caplog) if "refuses the account" in error]) == 1


def test_a_fault_of_everybody_under_many_brand_names_is_the_accounts(esms, caplog):
    for n in range(20):
        queue(4, brandname=f"Brand {n}")
    esms.answer_all(refused("110"))
    assert "110" in drain()
    assert len(esms.requests) <= breaker.OPENS_AT + 16
    assert len(errors_in(caplog)) == 1
    assert status()[0] == 2


def test_a_probe_that_made_no_call_leaves_its_place(esms, clock):
    queue(20)
    esms.answer_all(refused("103"))
    drain()
    clock.advance(seconds=15)
    esms.answer_all(accepted())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(worker.Calls, "_make_if_allowed", lambda self, attempt: None)
        drain()
    assert ViberGatewayState.objects.get(brandname="").probe_until is None
    drain()
    assert states() == {"sent": 20}


def test_calls_stop_when_another_process_has_opened_the_breaker(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_PER_SECOND": 5, "CONCURRENCY": 4, "TIMEOUT": (PATIENCE, 4)}
    queue(60)

    def then_open(request):
        if len(esms.requests) == 2:
            now = timezone.now()
            ViberGatewayState.objects.note_of_account(opened_at=now, next_probe_at=now + dt.timedelta(minutes=1))
            connection.close()
        return [Hang()]

    esms.answer_all(then_open)
    drain()
    assert len(esms.requests) <= 2 + 8, "within a second or so"


@pytest.mark.parametrize("most", [2, 3])
def test_one_message_on_a_quiet_site_outlives_an_outage(esms, clock, settings, most):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": most}
    queue(1)
    esms.answer_all([Close()])
    for _ in range(6):
        drain()
        clock.advance(minutes=5)
    assert status()[0] == 2
    esms.answer_all(accepted())
    drain()
    assert states() == {"sent": 1}


def test_three_silent_runs_are_told(esms, clock):
    esms.answer([Close()], [Close()], [Close()])
    queue(1)
    for _ in range(3):
        drain()
        clock.advance(seconds=59)
    assert status()[0] == 2


def test_what_was_begun_and_not_called_goes_back_with_its_reason(esms, settings):
    queue(60, brandname="Bad")
    esms.answer_all(refused("104"))
    drain()
    waiting = OutboundViberMessage.objects.filter(brandname="Bad", attempts=0)
    assert set(waiting.exclude(lease_until=None).values_list("code_result", flat=True)) <= {"104"}
    assert OutboundViberMessage.objects.filter(code_result="104").count() >= 32


def test_the_inline_dispatcher_gives_up_in_time_when_the_database_is_away(esms, monkeypatch, settings):
    from esms_viber import dispatch

    monkeypatch.setattr(dispatch, "IN_REQUEST", 3.0)
    monkeypatch.setattr(worker, "is_reachable", lambda alias: False)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    messages = queue(30)
    with connection.execute_wrapper(Away(10_000)):
        began = time.monotonic()
        dispatch_inline(messages)
        assert time.monotonic() - began < 3.0 + 4


def dispatch_inline(messages) -> None:
    from django.db import OperationalError

    from esms_viber import dispatch

    with pytest.raises(OperationalError):
        dispatch.inline([message.pk for message in messages])


def test_a_commit_lost_at_the_last_try_is_recognised(esms, lost_commits, told, monkeypatch):
    """All tries of the transaction fail after they have been committed; then the results are stored one by one."""
    monkeypatch.setattr("esms_viber.database.TRIES", 1)
    monkeypatch.setattr(worker, "_PATIENCE", 0)
    queue(3)
    lost_commits(1, once=lambda: esms.requests)
    deliver_due_messages(limit=3)  # so that nothing else is claimed, however slow the machine
    assert lost_commits.lost
    assert states() == {"sent": 3}
    assert ViberMessageEvent.objects.filter(kind="attempt").count() == 3
    assert Counter(new for _pk, _old, new in told)["sent"] == 3


def test_a_code_that_may_be_a_phone_is_in_no_log_line(esms, caplog):
    queue(20)
    esms.answer_all(refused("0901888484"))
    drain()
    assert ViberGatewayState.objects.filter(code="0901888484", opened_at__isnull=False).exists()
    assert "0901888484" not in caplog.text


def test_a_brands_probe_that_the_site_refuses_leaves_its_place(esms, clock):
    """Beside calls of another brand name that are on the wire."""
    queue(8, brandname="Bad")
    esms.answer_all(lambda request: refused("104") if request["Brandname"] == "Bad" else accepted())
    drain()
    clock.advance(seconds=15)
    queue(60, brandname="Good")

    def veto(message, **kwargs):
        if message.brandname == "Bad":
            raise CancelSend("no")

    pre_send.connect(veto)
    try:
        drain()
    finally:
        pre_send.disconnect(veto)
    assert OutboundViberMessage.objects.sent().filter(brandname="Good").count() == 60
    assert ViberGatewayState.objects.get(brandname="Bad").probe_until is None
