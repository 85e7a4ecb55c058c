"""`send_viber_messages` as an operator runs it: what it says, how it ends, and what it leaves behind."""

from __future__ import annotations

import contextlib
import datetime as dt
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import SimpleNamespace

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import OperationalError, connection, connections

from esms_viber.delivery import breaker, watching, worker
from esms_viber.delivery.watching import watch
from esms_viber.gateways.base import CallOutcome, OutgoingMessage, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.lifecycle import Transition
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.services import queue_viber_message
from esms_viber.signals import pre_send
from tests.factories import queue, states
from tests.fake_gateway import PATIENCE, Close, Hang, Until, Wait, accepted, refused, wait_until
from tests.test_concurrency import _database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]

PHONE, TEXT = "0901888484", "Xin chào"
ROOT = Path(__file__).parents[1]


def send(**options) -> str:
    out = StringIO()
    call_command("send_viber_messages", stdout=out, **options)
    return out.getvalue()


# -- one run -----------------------------------------------------------------------------------------------------------


def test_it_sends_what_is_due_and_says_how_it_went():
    queue(5)
    assert "5 sent, 0 failed, 0 unknown, 0 to be tried again, 0 left" in send()
    assert "0 sent" in send()


def test_no_more_than_the_limit():
    queue(5)
    assert "3 sent, 0 failed, 0 unknown, 0 to be tried again, 2 left" in send(limit=3)


def test_nothing_is_said_with_verbosity_0():
    queue(2)
    assert send(verbosity=0) == ""
    assert states() == {"sent": 2}


def test_a_refused_account_ends_it_with_a_code_for_cron():
    queue(3)
    MemoryGateway.answers.extend([SendResult(outcome=CallOutcome.ANSWERED, code="103")] * 3)
    with pytest.raises(CommandError, match="103: The balance of the eSMS account is too low") as error:
        send()
    assert error.value.returncode == 1
    assert states() == {"queued": 3}


def test_an_outage_ends_it_with_a_code_for_cron(settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 2}
    queue(30)
    MemoryGateway.answers.extend([SendResult(outcome=CallOutcome.NOT_CONNECTED)] * 30)
    with pytest.raises(CommandError, match="does not answer") as error:
        send()
    assert error.value.returncode == 1
    assert states() == {"queued": 30}


def test_after_an_outage_one_message_is_tried_first(settings, clock):
    """Time-outs too: what is left `unknown` shows no trouble in its own row."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    queue(60)
    silent = SendResult(outcome=CallOutcome.NO_ANSWER)
    MemoryGateway.answers.extend([silent] * 60)
    with pytest.raises(CommandError):
        send()
    calls = len(outbox)
    assert calls < 20

    for seconds, probes in ((1, 0), (15, 1), (15, 1), (30, 2)):
        clock.advance(seconds=seconds)
        with pytest.raises(CommandError, match="does not answer"):
            send()
        assert len(outbox) == calls + probes

    MemoryGateway.answers.clear()
    clock.advance(minutes=5)
    send()
    assert states() == {"sent": 60}


def test_messages_that_are_never_answered_hold_up_no_other(esms, settings, clock):
    """They are the last to be recorded, and the first that are due again."""
    bad = {f"09{n:08d}" for n in range(90, 100)}
    esms.answer_all(lambda request: [Close()] if request["Phone"] in bad else accepted())
    queue(100)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    send(limit=90)  # apart, because silence that began before an accepted call ended is no sign of an outage
    with pytest.raises(CommandError):
        send()
    for _ in range(12):
        clock.advance(minutes=1)
        queue_viber_message(PHONE, "a good one")
        queue_viber_message(PHONE, "a good one")
        with contextlib.suppress(CommandError):
            send()
    # Every fourth probe is a new message; when it is accepted, all the new ones go out.
    for _ in range(5):
        clock.advance(minutes=1)
        with contextlib.suppress(CommandError):
            send()
    assert not OutboundViberMessage.objects.filter(content="a good one").exclude(status="sent").exists()


def test_an_outage_is_told_to_cron_each_time_and_to_the_log_once(settings, clock, caplog):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 2}
    queue(20)
    MemoryGateway.answers.extend([SendResult(outcome=CallOutcome.NOT_CONNECTED)] * 30)
    for _ in range(3):
        with pytest.raises(CommandError, match="does not answer"):
            send()
        clock.advance(minutes=1)
    assert caplog.text.count("eSMS does not answer") == 1


@pytest.mark.parametrize("options", [{"limit": 3, "watch": True}, {"watch": True, "status": "text"}])
def test_options_that_exclude_each_other(options):
    arguments = [f"--{name}" if value is True else f"--{name}={value}" for name, value in options.items()]
    with pytest.raises(CommandError, match="not allowed with"):
        call_command("send_viber_messages", *arguments)


# -- progress ----------------------------------------------------------------------------------------------------------


def _environment(**settings: str) -> dict[str, str]:
    return {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TEST_DATABASE_URL": _database_url(),
        **settings,
    }


PROGRAM = """
import django
from django.conf import settings
settings.ESMS_VIBER = {{**settings.ESMS_VIBER, "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
    "BASE_URL": {url!r}, "CONCURRENCY": 4, "DISPATCHER": "esms_viber.dispatch.queue_only"}}
django.setup()
import datetime as dt
from esms_viber.delivery import claims
claims.LEASE = dt.timedelta(seconds={lease})
from django.core.management import execute_from_command_line
execute_from_command_line(["manage.py", "send_viber_messages", *{arguments!r}])
"""


def start(url: str, *arguments: str, lease: float = 120, **streams) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    program = PROGRAM.format(url=url, lease=lease, arguments=arguments)
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **streams}
    return subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=_environment(), text=True, **streams)


def wait_for_line(process: subprocess.Popen[str], word: str) -> None:
    for line in process.stdout:
        if word in line:
            return
    pytest.fail(f"it ended without saying {word!r}")


def test_a_count_in_place_on_a_terminal(esms):
    queue(40)
    esms.answer_all([Wait(0.05), *accepted()])
    ours, theirs = pty.openpty()
    with start(esms.url, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                more = os.read(ours, 4096)
            except OSError:
                break
            if not more:
                break
            shown += more
        out, _ = process.communicate(timeout=PATIENCE)
    os.close(ours)
    assert process.returncode == 0
    assert b"\r40 of 40 done" in shown
    assert "40 sent" in out


def test_plain_counts_elsewhere(monkeypatch):
    from esms_viber.management import running

    monkeypatch.setattr(running, "SECONDS_BETWEEN_COUNTS", 0)
    queue(20)
    out = send()
    assert "20 of 20 done" in out
    assert "\r" not in out


# -- signals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("--watch",)], ids=["once", "watch"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "Ctrl-C"])
def test_told_to_stop_it_finishes_what_is_on_the_wire_and_gives_back_the_rest(esms, number, arguments):
    queue(60)
    told, recorded = threading.Event(), threading.Event()
    esms.answer(*[accepted()] * 4, *[[Until(told), *accepted()]] * 4)
    esms.answer_all([Until(recorded), *accepted()])
    with start(esms.url, *arguments) as process:
        wait_until(lambda: len(esms.requests) == 8)
        process.send_signal(number)
        wait_for_line(process, "Stopping")
        told.set()
        wait_until(lambda: states()["sent"] == 8)
        recorded.set()
        out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert f"{len(esms.requests)} sent" in out
    assert len(esms.requests) <= 12, "it had claimed sixteen"
    assert states() == {"sent": len(esms.requests), "queued": 60 - len(esms.requests)}
    waiting = OutboundViberMessage.objects.queued()
    assert set(waiting.values_list("attempts", "uncertain_since", "claim_id", "error_message")) == {(0, None, "", "")}


def test_told_to_stop_it_waits_for_no_more_than_one_slow_receiver():
    queue(30)
    asked: list[int] = []

    def slow(message, **kwargs) -> None:
        asked.append(message.pk)

    pre_send.connect(slow)
    try:
        summary = worker.Worker(should_stop=lambda: len(asked) == 5).run()
    finally:
        pre_send.disconnect(slow)
    assert len(asked) == 5
    assert (summary.sent, summary.left) == (0, 30)
    assert states() == {"queued": 30}
    assert set(OutboundViberMessage.objects.values_list("attempts", "uncertain_since", "claim_id")) == {(0, None, "")}


def test_told_twice_it_ends_at_once_and_nothing_is_lost(esms, clock):
    queue(8)
    esms.answer_all([Hang()])
    with start(esms.url) as process:
        wait_until(lambda: len(esms.requests) == 4)
        process.send_signal(signal.SIGTERM)
        wait_for_line(process, "Stopping")
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGTERM
    assert states()["sending"] >= 4
    esms.answer_all(refused("124"))
    clock.advance(hours=1)
    worker.deliver_due_messages()
    assert states()["sending"] == 0
    first = {request["RequestId"] for request in esms.requests[:4]}
    assert set(OutboundViberMessage.objects.sent().values_list("request_id", flat=True)) >= first


def test_a_sender_stopped_past_its_lease_and_continued_harms_nothing(esms, clock):
    """SIGSTOP: what it then learns comes too late, and is written down all the same."""
    queue(12)
    released = threading.Event()
    esms.answer_all([Until(released), *accepted()])
    with start(esms.url, lease=1.0) as process:
        wait_until(lambda: len(esms.requests) == 4)
        process.send_signal(signal.SIGSTOP)
        taken = {request["RequestId"] for request in esms.requests}
        # Its own clock is to run on: by it the leases are over when it is continued.
        wait_until(lambda: OutboundViberMessage.objects.abandoned().count() == 12)
        esms.answer_all(lambda request: refused("124") if request["RequestId"] in taken else accepted())
        worker.deliver_due_messages()
        assert states() == {"sent": 12}
        released.set()
        process.send_signal(signal.SIGCONT)
        _out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert states() == {"sent": 12}
    counts = Counter(request["RequestId"] for request in esms.requests)
    assert len(counts) == 12
    assert all(count == 1 for request_id, count in counts.items() if request_id not in taken)
    late = ViberMessageEvent.objects.filter(kind="attempt", code="100", request_id__in=taken)
    assert late.count() == 4, "the late answers are in the history"


def test_a_result_that_the_sites_code_cannot_store_costs_only_itself(esms, settings):
    """As a receiver or an instrumentation of the site may, with an error that is none of a database."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    esms.answer_all(accepted())
    bad, *_ = queue(20)

    def fail(execute, sql, params, many, context):
        if sql.startswith("INSERT") and "messageevent" in sql and f"-{bad.pk}-1" in str(params):
            raise KeyError("no such span")
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        worker.deliver_due_messages()
    assert states() == {"sent": 19, "sending": 1}
    assert len(esms.requests) == 20


# -- going on ----------------------------------------------------------------------------------------------------------


class Watcher:
    """`watch()` in a thread; stops at the end of the block."""

    def __init__(self) -> None:
        self.stopped = False
        self.done = 0
        self.summary = None
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        try:
            self.summary = watch(should_stop=lambda: self.stopped, on_progress=self._progress)
        except BaseException as error:  # noqa: BLE001 - told to the test
            self.error = error
        finally:
            connections.close_all()

    def _progress(self, count: int) -> None:
        self.done += count

    def __enter__(self) -> Watcher:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stopped = True
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive()
        if self.error is not None:
            raise self.error


@pytest.fixture(autouse=True)
def _impatient(monkeypatch) -> None:
    monkeypatch.setattr(worker, "LOOKING", 0.05)
    monkeypatch.setattr(watching, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(watching, "LONGEST_PAUSE", 0.2)


@pytest.fixture
def wait_for_looks(monkeypatch) -> Callable[[int], None]:
    """`wait_for_looks(3)`: until a sender that goes on has looked for work, and found none, three times more."""
    looks = []
    look = worker.claims.take_over_abandoned

    def counted() -> list[Transition]:
        taken = look()
        looks.append(True)
        return taken

    def wait(more: int) -> None:
        enough = len(looks) + more
        wait_until(lambda: len(looks) >= enough)

    monkeypatch.setattr(worker.claims, "take_over_abandoned", counted)
    return wait


def test_watching_sends_what_becomes_due_later(clock, wait_for_looks):
    with Watcher() as watcher:
        queue(3)
        wait_until(lambda: len(outbox) == 3)
        queue_viber_message(PHONE, TEXT, send_at=clock.now() + dt.timedelta(hours=1))
        wait_for_looks(3)
        assert len(outbox) == 3
        clock.advance(hours=2)
        wait_until(lambda: watcher.done == 4)
    assert states() == {"sent": 4}
    assert watcher.summary.sent == 4


def test_watching_is_not_held_up_by_a_slow_call(esms):
    queue(1)
    released = threading.Event()
    esms.answer([Until(released), *accepted("slow")])
    with Watcher():
        wait_until(lambda: len(esms.requests) == 1)
        queue_viber_message(PHONE, "a second one")
        wait_until(lambda: states() == {"sending": 1, "sent": 1})
        released.set()
        wait_until(lambda: states() == {"sent": 2})


def test_watching_goes_on_when_the_account_is_in_order_again(settings, monkeypatch):
    monkeypatch.setattr(breaker, "FIRST_WAIT", dt.timedelta(seconds=0.3))
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    refusal = SendResult(outcome=CallOutcome.ANSWERED, code="103")
    MemoryGateway.answers.extend([refusal] * 3)
    queue(10)
    with Watcher() as watcher:
        wait_until(lambda: len(outbox) == 3)
        wait_until(lambda: OutboundViberMessage.objects.sent().count() >= 9)
    assert watcher.summary.account_code == ""
    assert not OutboundViberMessage.objects.failed().exists()
    # The first that was refused waits its time; what was refused as a probe keeps its place.
    assert OutboundViberMessage.objects.queued().count() <= 1


def test_watching_lets_a_refused_account_rest(settings, monkeypatch):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    rests = []

    def sleep(seconds: float) -> None:
        rests.append(len(outbox))
        time.sleep(seconds)

    monkeypatch.setattr(watching, "time", SimpleNamespace(monotonic=time.monotonic, sleep=sleep))
    MemoryGateway.answers.extend([SendResult(outcome=CallOutcome.ANSWERED, code="103")] * 10)
    queue(10)
    with Watcher():
        wait_until(lambda: len(rests) >= 3)
    assert set(rests) == {1}
    assert states() == {"queued": 10}


def test_watching_outlives_its_database(monkeypatch, caplog):
    """As when the server is restarted."""
    claim, failures = worker.claims.claim, []

    def fail(*args, **options):
        if len(failures) < 2:
            failures.append(True)
            raise OperationalError("server closed the connection unexpectedly")
        return claim(*args, **options)

    monkeypatch.setattr(worker.claims, "claim", fail)
    queue(2)
    with Watcher():
        wait_until(lambda: len(outbox) == 2)
    assert caplog.text.count("the database failed") == 2
    assert states() == {"sent": 2}


def test_watching_takes_over_what_others_left(clock):
    (message,) = queue(1)
    with Watcher():
        wait_until(lambda: states() == {"sent": 1})
        OutboundViberMessage.objects.filter(pk=message.pk).update(
            status="sending",
            claim_id="gone",
            uncertain_since=clock.now(),
            lease_until=clock.now() - dt.timedelta(seconds=1),
        )
        wait_until(lambda: len(outbox) == 2)
    assert len({outgoing.request_id for outgoing in outbox}) == 1


def test_a_busy_sender_takes_over_what_others_left(clock_of_leases, settings, esms):
    """However much there is to do: what a dead sender left has to be repeated on its day."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    left, *_ = queue(200)
    OutboundViberMessage.objects.filter(pk=left.pk).update(
        status="sending",
        claim_id="gone",
        uncertain_since=clock_of_leases.now(),
        lease_until=clock_of_leases.now() + dt.timedelta(seconds=60),
    )

    def answer(request):
        if len(esms.requests) == 5:
            clock_of_leases.advance(seconds=80)
        return accepted()

    esms.answer_all(answer)
    assert worker.deliver_due_messages().sent == 200
    order = [request["RequestId"] for request in esms.requests]
    assert 5 <= order.index(left.request_id) < 100
    assert len(set(order)) == len(order) == 200


# -- holding back ------------------------------------------------------------------------------------------------------


class HeldGateway(MemoryGateway):
    """Answers no call before the test lets it."""

    released = threading.Event()

    def send(self, message: OutgoingMessage) -> SendResult:
        assert self.released.wait(PATIENCE)
        time.sleep(0.002)
        return super().send(message)


def test_messages_held_back_and_put_back_while_senders_run_are_sent_once(settings):
    from esms_viber.services import cancel_viber_messages, resend_viber_messages

    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 2, "GATEWAY": f"{__name__}.HeldGateway"}
    HeldGateway.released.clear()
    messages = queue(150)
    put_back = 0
    with Watcher(), Watcher():
        wait_until(lambda: states()["sending"] > 3)
        for start_ in range(140, 30, -10):
            held = cancel_viber_messages(messages[start_ : start_ + 10])
            # By now ten at least are held back; the others race with the workers.
            HeldGateway.released.set()
            put_back += len(resend_viber_messages(held))
        wait_until(lambda: states() == {"sent": 150})
    assert put_back > 0
    assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == 150
    assert len({outgoing.phone for outgoing in outbox}) == 150


# -- pace --------------------------------------------------------------------------------------------------------------


def test_no_more_a_second_than_the_setting_allows(settings, esms):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_PER_SECOND": 20}
    times = []
    esms.answer_all(lambda request: times.append(time.monotonic()) or accepted())
    queue(15)
    began = time.monotonic()
    worker.deliver_due_messages()
    assert len(times) == 15
    assert max(times) - began >= 14 / 20, "never sooner, however fast the machine"


def test_a_slow_pace_claims_no_more_than_a_few_seconds_worth(settings, esms):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_PER_SECOND": 2}
    queue(40)
    released = threading.Event()
    esms.answer(accepted())
    esms.answer_all([Until(released), *accepted()])
    with Watcher():
        wait_until(lambda: len(esms.requests) >= 2)
        assert OutboundViberMessage.objects.sending().count() <= 10
        assert OutboundViberMessage.objects.queued().count() >= 28
        released.set()
