"""Many at once, on the database under test: callbacks, drains, callers with one dedupe key, senders that die."""

from __future__ import annotations

import contextlib
import http.client
import itertools
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest
from django.db import connection, connections
from django.test import Client

from esms_viber.delivery import claims
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    deliver_messages,
    queue_viber_message,
    queue_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import status_changed
from tests.factories import queue, states, stored
from tests.fake_gateway import PATIENCE, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "0901888484"
TAKEN = {"SendStatus": "7"}
DELIVERED = {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}
UNDELIVERED = {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "1"}
TIME_OUT = SendResult(outcome=CallOutcome.NO_ANSWER, text="no answer within 30 s")


def answered(code, sms_id=""):
    return SendResult(outcome=CallOutcome.ANSWERED, code=code, sms_id=sms_id)


class SlowGateway(MemoryGateway):
    """Takes a little time, so that senders meet."""

    def send(self, message):
        time.sleep(0.005)
        return super().send(message)


class ScriptedGateway(MemoryGateway):
    """Does in each call what the test says."""

    script = None
    errors = []

    def send(self, message):
        try:
            answer = type(self).script(message)
        except BaseException as error:
            # A sender takes whatever its gateway raises for a missing answer.
            self.errors.append(error)
            raise
        finally:
            connections.close_all()
        with self._lock:
            outbox.append(message)
        return answer


class FileGateway(MemoryGateway):
    """Writes each RequestId to a file that several processes share."""

    def send(self, message):
        with open(os.environ["CALLS"], "a") as calls:
            calls.write(f"{message.request_id}\n")
        return super().send(message)


class DyingGateway(FileGateway):
    """The process is killed while the call is on the wire."""

    def send(self, message):
        super().send(message)
        os._exit(9)


@pytest.fixture(autouse=True)
def _queue_only(settings):
    MemoryGateway.reset()
    configure(settings, DISPATCHER="esms_viber.dispatch.queue_only")
    ScriptedGateway.errors.clear()
    yield
    MemoryGateway.reset()
    assert ScriptedGateway.errors == []


@pytest.fixture
def moves():
    """Every `status_changed`, from whatever thread."""
    seen = []

    def receiver(message, old_status, new_status, event, **kwargs):
        seen.append((message.pk, old_status, new_status))

    status_changed.connect(receiver)
    yield seen
    status_changed.disconnect(receiver)


def configure(settings, **values):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, **values}


def use(settings, gateway):
    configure(settings, GATEWAY=f"{__name__}.{gateway.__name__}")


def at_once(*calls):
    """Run them all at the same instant, each on a connection of its own; their results, or the first error."""
    barrier = threading.Barrier(len(calls))

    def run(call):
        try:
            barrier.wait(PATIENCE)
            return call()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(calls)) as pool:
        return [future.result(PATIENCE) for future in [pool.submit(run, call) for call in calls]]


def get(path, parameters):
    return Client().get(path, parameters).status_code


def path_of(outgoing):
    return urlsplit(outgoing.callback_url).path


def send_many(number):
    """So many sent messages; the path for the reports on each."""
    queue(number)
    deliver_due_messages()
    assert OutboundViberMessage.objects.sent().count() == number
    return [path_of(outgoing) for outgoing in outbox]


# -- callbacks ---------------------------------------------------------------------------------------------------------


def test_800_callbacks_from_16_threads_at_once_lose_none(moves):
    paths = send_many(200)
    reports = [
        (path, parameters)
        for number, path in enumerate(paths)
        for parameters in ({"SendStatus": "1"}, {"SendStatus": "2"}, TAKEN, DELIVERED if number % 2 else UNDELIVERED)
    ]
    random.Random(1).shuffle(reports)
    moves.clear()

    shares = [reports[share::16] for share in range(16)]
    answers = at_once(*[lambda share=share: [get(*report) for report in share] for share in shares])

    assert Counter(code for codes in answers for code in codes) == {200: 800}
    assert ViberMessageEvent.objects.filter(kind="callback").count() == 800
    assert states() == {"delivered": 100, "undelivered": 100}
    assert Counter(pk for pk, _old, _new in moves) == dict.fromkeys((pk for pk, _, _ in moves), 1)
    assert len(moves) == 200


def test_200_callbacks_over_http_from_16_threads_lose_none(live_server):
    reports = [f"{live_server.url}{path}?{urlencode(DELIVERED)}" for path in send_many(200)]

    def fetch(url):
        with contextlib.closing(http.client.HTTPConnection(urlsplit(url).netloc, timeout=PATIENCE)) as server:
            server.request("GET", url.removeprefix(live_server.url))
            return server.getresponse().status

    shares = [reports[share::16] for share in range(16)]
    answers = at_once(*[lambda share=share: [fetch(url) for url in share] for share in shares])

    assert Counter(answer for share in answers for answer in share) == {200: 200}
    assert ViberMessageEvent.objects.filter(kind="callback").count() == 200
    assert states() == {"delivered": 200}


def test_callbacks_on_one_message_from_16_threads_lose_none(moves):
    (path,) = send_many(1)
    moves.clear()
    answers = at_once(
        *[
            lambda n=n: [get(path, {**(DELIVERED if i == 2 else TAKEN), "n": f"{n}-{i}"}) for i in range(5)]
            for n in range(16)
        ]
    )
    assert {code for codes in answers for code in codes} == {200}
    assert ViberMessageEvent.objects.filter(kind="callback").count() == 80
    assert states() == {"delivered": 1}
    assert len(moves) == 1


def test_same_callback_at_the_same_instant_is_one_event_one_move_one_signal(moves):
    for path in send_many(10):
        moves.clear()
        assert set(at_once(*[lambda path=path: get(path, DELIVERED)] * 4)) == {200}
        assert len(moves) == 1
    assert ViberMessageEvent.objects.filter(kind="callback", applied=True).count() == 10
    assert ViberMessageEvent.objects.filter(kind="callback").count() == 10
    assert states() == {"delivered": 10}


def test_opposite_final_reports_at_the_same_instant_move_it_once(moves):
    for path in send_many(10):
        moves.clear()
        assert at_once(lambda path=path: get(path, DELIVERED), lambda path=path: get(path, UNDELIVERED)) == [200, 200]
        ((pk, _old, new),) = moves
        assert OutboundViberMessage.objects.get(pk=pk).status == new
    assert ViberMessageEvent.objects.filter(kind="callback").count() == 20


@pytest.mark.parametrize(
    ("parameters", "end"), [(TAKEN, "sent"), (DELIVERED, "delivered"), (UNDELIVERED, "undelivered")]
)
@pytest.mark.parametrize("answer", [answered("100", "sms-1"), TIME_OUT, answered("124"), answered("103")])
def test_report_that_comes_before_the_answer_stays(parameters, end, answer, settings, moves):
    def report_then_answer(outgoing):
        assert get(path_of(outgoing), parameters) == 200
        return answer

    use(settings, ScriptedGateway)
    ScriptedGateway.script = staticmethod(report_then_answer)

    message = send_viber_message(PHONE, "Hello")

    assert (message.status, stored(message).status) == (end, end)
    message.refresh_from_db()
    assert (message.sms_id, message.code_result) == (answer.sms_id, answer.code)
    assert message.sent_at is not None
    assert list(message.events.values_list("kind", flat=True)) == ["requested", "callback", "attempt"]
    assert moves == [(message.pk, "sending", end)]
    assert deliver_due_messages().sent == 0
    assert len(outbox) == 1


def test_reports_racing_the_record_of_the_answers_win(settings):
    reports = ThreadPoolExecutor(8)

    def report(path):
        try:
            return get(path, DELIVERED)
        finally:
            connections.close_all()

    pending = []

    def answer_and_report(outgoing):
        pending.append(reports.submit(report, path_of(outgoing)))
        return answered("100", outgoing.request_id)

    use(settings, ScriptedGateway)
    ScriptedGateway.script = staticmethod(answer_and_report)
    queue(150)
    with reports:
        deliver_due_messages()

    assert Counter(future.result() for future in pending) == {200: 150}
    assert states() == {"delivered": 150}
    rows = OutboundViberMessage.objects.values_list("request_id", "sms_id", "code_result")
    assert all(request_id == sms_id and code == "100" for request_id, sms_id, code in rows)


# -- one dedupe key, several callers -----------------------------------------------------------------------------------


def _send_now(key):
    return send_viber_message(PHONE, "Your order is paid", dedupe_key=key)


def _queue(key):
    return queue_viber_message(PHONE, "Your order is paid", dedupe_key=key)


def _queue_many(key):
    (message,) = queue_viber_messages([OutboundViberMessage(phone=PHONE, content="Your order is paid", dedupe_key=key)])
    return message


@pytest.mark.parametrize(
    "callers", [[_send_now] * 2, [_queue] * 2, [_send_now, _queue], [_queue, _queue_many], [_queue] * 6]
)
def test_callers_with_one_dedupe_key_at_once_send_one_message(callers, settings):
    configure(settings, DISPATCHER="esms_viber.dispatch.inline")
    for round_ in range(20):
        key = f"order-{round_}"
        rows = at_once(*[lambda caller=caller, key=key: caller(key) for caller in callers])
        assert len({row.pk for row in rows}) == 1
        assert stored(rows[0]).status == "sent"
    assert OutboundViberMessage.objects.count() == 20
    assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == 20


@pytest.mark.parametrize("other", ["ĐƠN-1", "don-1", "đơn-1 "])
def test_keys_that_differ_in_a_letter_are_two_on_every_database(other):
    """Not so under MySQL's usual collations, where asking for the one finds the other, again and again."""
    queries = itertools.count()

    def bounded(execute, *args):
        assert next(queries) < 200, "endless"
        return execute(*args)

    with connection.execute_wrapper(bounded):
        rows = [_queue_many("đơn-1"), _queue_many(other), _queue(other), _queue("đơn-1")]

    assert [row.dedupe_key for row in rows] == ["đơn-1", other, other, "đơn-1"]
    assert OutboundViberMessage.objects.count() == 2


# -- several senders ---------------------------------------------------------------------------------------------------


def test_drains_in_four_threads_send_each_message_once(settings):
    use(settings, SlowGateway)
    queue(300)

    summaries = at_once(*[deliver_due_messages] * 4)

    assert sum(summary.sent for summary in summaries) == 300
    assert states() == {"sent": 300}
    assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == 300
    assert ViberMessageEvent.objects.filter(kind="attempt").count() == 300


def test_drains_of_the_same_messages_by_name_send_each_once(settings):
    use(settings, SlowGateway)
    pks = [message.pk for message in queue(60)]

    summaries = at_once(*[lambda: deliver_messages(pks)] * 3)

    assert sum(summary.sent for summary in summaries) == 60
    assert states() == {"sent": 60}
    assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == 60


def _database_url():
    name = connection.settings_dict["NAME"]
    if connection.vendor == "sqlite":
        return f"sqlite:///{name}"
    return os.environ["TEST_DATABASE_URL"].rpartition("/")[0] + f"/{name}"


def start_process(code, calls, gateway):
    """A Python process of its own on the database under test."""
    program = f"""
import django
from django.conf import settings
settings.ESMS_VIBER = {{**settings.ESMS_VIBER, "GATEWAY": "{__name__}.{gateway.__name__}"}}
django.setup()
from esms_viber.services import deliver_due_messages, send_viber_message
from esms_viber.signals import pre_send
{code}
"""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "tests.settings",
        "TEST_DATABASE_URL": _database_url(),
        "CALLS": str(calls),
    }
    return subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent.parent,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def end_of(process):
    with process:
        try:
            output, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
    return process.returncode, output


def test_drains_in_three_processes_send_each_message_once(tmp_path):
    queue(300)
    calls = tmp_path / "calls"

    drain = "print('sent', deliver_due_messages().sent)"
    results = [end_of(process) for process in [start_process(drain, calls, FileGateway) for _ in range(3)]]

    assert [code for code, _ in results] == [0, 0, 0], results
    assert sum(int(output.split()[-1]) for _, output in results) == 300
    requests = calls.read_text().split()
    assert (len(requests), len(set(requests))) == (300, 300)
    assert states() == {"sent": 300}


def test_resend_clicked_twice_at_once_makes_one_copy(settings):
    configure(settings, DISPATCHER="esms_viber.dispatch.inline")
    for _ in range(10):
        message = send_viber_message(PHONE, "Hello")
        copies = at_once(*[lambda message=message: resend_viber_messages([message])] * 2)
        assert sorted(map(len, copies)) == [0, 1]
        assert message.resends.count() == 1
    assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == 20


def test_failed_message_resent_twice_at_once_is_sent_once(settings):
    configure(settings, DISPATCHER="esms_viber.dispatch.inline")
    for _ in range(10):
        MemoryGateway.answers.append(answered("146"))
        message = send_viber_message(PHONE, "Hello")
        assert message.status == "failed"
        outbox.clear()
        queued = at_once(*[lambda message=message: resend_viber_messages([message])] * 2)
        # The second click may find it sent by then, and sends a copy; that is a resend of its own.
        assert [row.pk for rows in queued for row in rows].count(message.pk) == 1
        assert len({outgoing.request_id for outgoing in outbox}) == len(outbox) == sum(map(len, queued))


def test_message_is_cancelled_or_sent_and_never_both(settings):
    configure(settings, CONCURRENCY=2)
    use(settings, SlowGateway)
    messages = queue(120)

    def cancel():
        cancelled = []
        wait_until(lambda: outbox)
        for start in range(115, -1, -5):
            cancelled += cancel_viber_messages(messages[start : start + 5])
            time.sleep(0.005)
        return [row.pk for row in cancelled]

    _summary, cancelled = at_once(deliver_due_messages, cancel)

    rows = OutboundViberMessage.objects
    assert set(states()) == {"sent", "cancelled"}
    assert set(rows.cancelled().values_list("pk", flat=True)) == set(cancelled)
    assert {outgoing.request_id for outgoing in outbox} == set(rows.sent().values_list("request_id", flat=True))
    assert len(outbox) == rows.sent().count()


def test_people_who_press_buttons_while_a_batch_is_sent_neither_stop_it_nor_lose_an_answer(settings):
    use(settings, SlowGateway)
    messages = queue(64)
    done = threading.Event()

    def drain():
        try:
            return deliver_due_messages()
        finally:
            done.set()

    def press():
        wait_until(lambda: outbox)
        while not done.is_set():
            assert cancel_viber_messages(messages) == []
            time.sleep(0.002)

    summary, *_ = at_once(drain, press, press)

    assert summary.sent == 64
    assert states() == {"sent": 64}
    assert ViberMessageEvent.objects.filter(kind="attempt").count() == 64


# -- senders that die or lose their claim ------------------------------------------------------------------------------


def test_message_of_a_sender_killed_in_its_call_is_repeated_under_the_same_request_id(tmp_path, clock):
    calls = tmp_path / "calls"
    code, output = end_of(start_process(f"send_viber_message('{PHONE}', 'Hello')", calls, DyingGateway))
    assert code == 9, output
    message = OutboundViberMessage.objects.get()
    assert message.status == "sending"
    assert [message.request_id] == calls.read_text().split()

    assert deliver_due_messages().sent == 0, "its lease still holds"

    clock.advance(minutes=3)
    MemoryGateway.answers.append(answered("124"))
    assert deliver_due_messages().sent == 1

    assert [outgoing.request_id for outgoing in outbox] == [message.request_id]
    assert (stored(message).status, stored(message).attempts) == ("sent", 2)


def test_message_of_a_sender_killed_yesterday_stays_unknown(tmp_path, clock):
    code, output = end_of(start_process(f"send_viber_message('{PHONE}', 'Hello')", tmp_path / "calls", DyingGateway))
    assert code == 9, output
    clock.advance(days=1)
    deliver_due_messages()
    message = OutboundViberMessage.objects.get()
    assert (message.status, message.next_attempt_at, outbox) == ("unknown", None, [])


def test_message_of_a_sender_killed_before_its_call_is_sent_as_for_the_first_time(tmp_path, clock):
    calls = tmp_path / "calls"
    die = f"pre_send.connect(lambda **kw: os._exit(9), weak=False)\nsend_viber_message('{PHONE}', 'Hello')"
    code, output = end_of(start_process(f"import os\n{die}", calls, FileGateway))
    assert code == 9, output
    message = OutboundViberMessage.objects.get()
    assert (message.status, message.uncertain_since, calls.exists()) == ("sending", None, False)

    clock.advance(days=1)
    MemoryGateway.answers.append(answered("146"))
    assert deliver_due_messages().failed == 1, "a refusal of a first call is definite"
    assert stored(message).status == "failed"


def _start(gateway_script, settings):
    use(settings, ScriptedGateway)
    ScriptedGateway.script = staticmethod(gateway_script)


class TwoSenders:
    """The first call hangs; when a second sender has taken over and called, both answer in the order wanted."""

    def __init__(self, first, second, *, first_answers_while_second_waits):
        self.first, self.second = first, second
        self.early = first_answers_while_second_waits
        self.calls = 0
        self.taken_over, self.first_recorded = threading.Event(), threading.Event()

    def __call__(self, outgoing):
        self.calls += 1
        if self.calls == 1:
            assert self.taken_over.wait(PATIENCE)
            return self.first
        if self.early:
            self.taken_over.set()
            assert self.first_recorded.wait(PATIENCE)
        return self.second

    def run(self, settings, clock):
        _start(self, settings)
        (message,) = queue(1)

        def first_sender():
            try:
                deliver_due_messages()
            finally:
                self.first_recorded.set()

        def second_sender():
            wait_until(lambda: self.calls)
            clock.advance(minutes=3)
            deliver_due_messages()
            self.taken_over.set()

        at_once(first_sender, second_sender)
        assert self.calls == 2
        assert len({outgoing.request_id for outgoing in outbox}) == 1
        return stored(message)


@pytest.mark.parametrize("while_second_waits", [False, True])
@pytest.mark.parametrize(
    "late", [answered("100", "first"), answered("146"), answered("103"), answered("124"), TIME_OUT]
)
@pytest.mark.parametrize("second", [answered("100", "second"), answered("124")])
def test_answer_to_a_sender_that_lost_its_claim_harms_nothing(late, second, while_second_waits, settings, clock, moves):
    senders = TwoSenders(late, second, first_answers_while_second_waits=while_second_waits)
    message = senders.run(settings, clock)

    assert message.status == "sent"
    assert message.sms_id in {late.sms_id, second.sms_id} - ({""} if late.sms_id or second.sms_id else set())
    assert message.events.filter(kind="attempt").count() == 2, "both answers are kept"
    assert message.next_attempt_at is None
    assert message.next_query_at is not None, "it is asked about by its SMSID, or looked up in eSMS's list"
    assert [new for _pk, _old, new in moves] == ["sending", "unknown", "sending", "sent"]


def test_late_100_settles_what_the_repeat_left_unknown(settings, clock):
    message = TwoSenders(answered("100", "first"), TIME_OUT, first_answers_while_second_waits=False).run(
        settings, clock
    )
    assert (message.status, message.sms_id, message.next_attempt_at) == ("sent", "first", None)


@pytest.mark.parametrize("refusal", ["146", "104", "103", "101", "99"])
def test_late_refusal_does_not_make_certain_what_the_repeat_left_unknown(refusal, settings, clock):
    message = TwoSenders(answered(refusal), TIME_OUT, first_answers_while_second_waits=False).run(settings, clock)
    assert message.status == "unknown"
    assert message.uncertain_since is not None


@pytest.mark.parametrize("second", [TIME_OUT, answered("146"), answered("103"), answered("199")])
def test_100_for_the_first_sender_counts_though_the_repeat_on_the_wire_ends_otherwise(second, settings, clock):
    message = TwoSenders(answered("100", "first"), second, first_answers_while_second_waits=True).run(settings, clock)

    assert (message.status, message.sms_id) == ("sent", "first")
    clock.advance(minutes=20)
    deliver_due_messages()
    assert len(outbox) == 2, "nothing is sent again that was taken"


def test_lease_is_renewed_while_a_call_takes_longer_than_it(settings, clock_of_leases):
    others = []

    def slow(outgoing):
        row = OutboundViberMessage.objects.filter(request_id=outgoing.request_id)
        for _ in range(4):
            before = row.get().lease_until
            clock_of_leases.advance(seconds=claims.LEASE.total_seconds() / 2)
            wait_until(lambda before=before: row.get().lease_until > before)
            others.append(deliver_due_messages())
        return answered("100")

    message = queue_viber_message(PHONE, "Hello")
    _start(slow, settings)
    deliver_due_messages()

    message.refresh_from_db()
    assert message.status == "sent"
    assert [summary.sent + summary.unknown for summary in others] == [0, 0, 0, 0]
    assert len(outbox) == 1
    assert not message.events.filter(kind="note").exists()


def test_message_deleted_while_its_call_is_on_the_wire_costs_no_other_its_answer(settings):
    messages = queue(8)
    victim = messages[3]

    def delete(outgoing):
        if outgoing.phone == victim.phone:
            OutboundViberMessage.objects.filter(pk=victim.pk).delete()
        return answered("100", outgoing.request_id)

    configure(settings, CONCURRENCY=1)
    _start(delete, settings)

    deliver_due_messages()

    assert states() == {"sent": 7}
    assert ViberMessageEvent.objects.filter(kind="attempt").count() == 7
