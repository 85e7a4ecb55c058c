"""Signals whose handlers raise something in the middle of a run: the time limits of task queues, Ctrl-C."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.db.backends.base.base import BaseDatabaseWrapper

from esms_viber.delivery import results, worker
from esms_viber.delivery.interruptions import held_interruptions
from esms_viber.models import OutboundViberMessage
from esms_viber.reports.polling import refresh_due_messages
from esms_viber.services import deliver_due_messages, deliver_messages, refresh_viber_messages
from esms_viber.signals import pre_send, status_changed
from tests.factories import queue, states
from tests.fake_gateway import Until, Wait, accepted, json_answer

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]


class TimeLimit(Exception):
    """As Celery's and RQ's."""


@pytest.fixture
def limit() -> Iterator[None]:
    """Have SIGUSR1 raise `TimeLimit`."""

    def end(number: int, frame: object) -> None:
        raise TimeLimit

    before = signal.signal(signal.SIGUSR1, end)
    yield
    assert signal.getsignal(signal.SIGUSR1) is end, "the handler is there again"
    signal.signal(signal.SIGUSR1, before)


def strike() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


def once(condition: Callable[[], bool], struck: threading.Event | None = None) -> Callable[[], None]:
    """Strike the first time that this is called while the condition holds."""
    done = struck or threading.Event()

    def check() -> None:
        if not done.is_set() and condition():
            done.set()
            strike()

    return check


def in_statement(verb: str) -> Callable[[Any, ExitStack, Callable[[], None]], None]:
    def install(monkeypatch: Any, stack: ExitStack, check: Callable[[], None]) -> None:
        def execute(execute, sql, params, many, context):
            if sql.startswith(verb):
                check()
            return execute(sql, params, many, context)

        stack.enter_context(connection.execute_wrapper(execute))

    return install


def in_commit(monkeypatch: Any, stack: ExitStack, check: Callable[[], None]) -> None:
    commit = BaseDatabaseWrapper._commit

    def commit_and_check(self):
        commit(self)
        check()

    monkeypatch.setattr(BaseDatabaseWrapper, "_commit", commit_and_check)


def in_receiver(sent: Any) -> Callable[[Any, ExitStack, Callable[[], None]], None]:
    def install(monkeypatch: Any, stack: ExitStack, check: Callable[[], None]) -> None:
        def receive(**kwargs):
            check()

        sent.connect(receive)
        stack.callback(sent.disconnect, receive)

    return install


MOMENTS = {
    "select": in_statement("SELECT"),
    "insert": in_statement("INSERT"),
    "update": in_statement("UPDATE"),
    "commit": in_commit,
    "pre_send": in_receiver(pre_send),
    "status_changed": in_receiver(status_changed),
}


def assert_nothing_is_lost(esms: Any, count: int) -> None:
    """Each call's answer stands in its row, and the rest goes out afterwards, all of them once."""
    called = len(esms.requests)
    assert states() == Counter(sent=called, queued=count - called)
    deliver_due_messages()
    assert states() == {"sent": count}
    assert len({request["RequestId"] for request in esms.requests}) == len(esms.requests) == count


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("concurrency", [1, 8])
def test_a_time_limit_ends_the_run_and_loses_no_answer(esms, settings, monkeypatch, limit, moment, concurrency):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": concurrency}
    esms.answer_all(accepted())
    queue(60)
    with ExitStack() as stack:
        MOMENTS[moment](monkeypatch, stack, once(lambda: bool(esms.requests)))
        with pytest.raises(TimeLimit):
            deliver_due_messages()
    assert 0 < len(esms.requests) < 60
    assert not connection.in_atomic_block
    assert_nothing_is_lost(esms, 60)


def test_a_time_limit_while_answers_are_awaited_loses_none(esms, settings, limit):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    queue(40)
    struck = threading.Event()

    def answer(request):
        if len(esms.requests) < 8:
            return accepted()
        if not struck.is_set():
            struck.set()
            strike()
        return [Until(struck), *accepted()]

    esms.answer_all(answer)
    with pytest.raises(TimeLimit):
        deliver_due_messages()
    assert 8 <= len(esms.requests) < 40
    esms.answer_all(accepted())
    assert_nothing_is_lost(esms, 40)


def test_a_time_limit_at_any_moment_loses_no_answer(esms, settings, limit):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4}
    # Slower than any strike, so that each finds the run going on.
    esms.answer_all(lambda request: [Wait(0.02), *accepted()])
    moments = random.Random(20261127)
    for _round in range(10):
        OutboundViberMessage.objects.all().delete()
        esms.requests.clear()
        queue(60)
        timer = threading.Timer(seconds := moments.uniform(0.001, 0.1), strike)
        with pytest.raises(TimeLimit):  # noqa: PT012 - it is over when it has struck
            timer.start()
            try:
                deliver_due_messages()
            finally:
                timer.join()
        assert len(esms.requests) < 60, f"after {seconds} s"
        assert_nothing_is_lost(esms, 60)


def test_a_handler_that_raises_nothing_ends_no_run(esms):
    esms.answer_all(accepted())
    queue(60)
    told: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: told.append(number))
    with ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGUSR1, before)
        in_receiver(status_changed)(None, stack, once(lambda: True))
        assert deliver_due_messages().sent == 60
    assert told == [signal.SIGUSR1]


def test_a_run_in_another_thread_leaves_signals_alone(esms, limit):
    esms.answer_all(accepted())
    (message,) = queue(1)
    seen = []
    handler = signal.getsignal(signal.SIGUSR1)

    def receive(**kwargs):
        seen.append(signal.getsignal(signal.SIGUSR1))

    def run() -> None:
        try:
            deliver_messages([message.pk])
        finally:
            connection.close()

    pre_send.connect(receive)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    pre_send.disconnect(receive)
    assert seen == [handler]
    assert states() == {"sent": 1}


@pytest.mark.parametrize("moment", ["insert", "update", "commit"])
@pytest.mark.parametrize(
    "ask", [refresh_due_messages, lambda: refresh_viber_messages(OutboundViberMessage.objects.all())]
)
def test_a_time_limit_ends_the_asking_and_loses_no_answer(esms, clock, settings, monkeypatch, limit, moment, ask):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    struck = threading.Event()
    delivered = {"CodeResponse": "100", "SendStatus": 5, "SendSuccess": 1, "SendFailed": 0, "TotalPrice": 850.0}

    def answer(request):
        if request.path.endswith("GetSendStatus"):
            # Six, the last of which is recorded when the limit strikes, then none until it has, then few.
            pause = [Until(struck), Wait(0.05)] if asked() > 6 else []
            return [*pause, *json_answer({**delivered, "SMSID": request["RefId"]})]
        return accepted(f"sms-{request['RequestId']}")

    def asked() -> int:
        return sum(request.path.endswith("GetSendStatus") for request in esms.requests)

    esms.answer_all(answer)
    queue(60)
    deliver_due_messages()
    clock.advance(minutes=6)
    with ExitStack() as stack:
        MOMENTS[moment](monkeypatch, stack, once(lambda: asked() > 5, struck))
        with pytest.raises(TimeLimit):
            ask()
    assert not connection.in_atomic_block
    assert 0 < states()["delivered"] <= asked() < 60


def test_an_interrupted_query_is_asked_again(esms, clock, settings, limit):
    """Also where its last time had come: claiming it plans no other."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    asked: list[str] = []

    def answer(request):
        if not request.path.endswith("GetSendStatus"):
            return accepted(f"sms-{request['RequestId']}")
        asked.append(request["RefId"])
        if len(asked) == 3:
            strike()
        return [Wait(0.02), *json_answer({"CodeResponse": "100", "SendStatus": 5, "SendSuccess": 1, "SendFailed": 0})]

    esms.answer_all(answer)
    queue(60)
    deliver_due_messages()
    clock.advance(days=6, hours=19)
    OutboundViberMessage.objects.update(next_query_at=clock.now())
    with pytest.raises(TimeLimit):
        refresh_due_messages()
    assert states() == Counter(delivered=len(asked), sent=60 - len(asked))
    refresh_due_messages()
    assert states() == {"delivered": 60}


def test_results_that_a_database_does_not_take_are_given_up_for_a_time_limit(esms, monkeypatch, limit):
    """As they are when a command is told to stop."""
    queue(1)
    esms.answer_all(accepted())
    record, is_away = results._record, threading.Event()

    def fail(attempts, *args, **kwargs):
        if attempts:
            is_away.set()
            raise OperationalError("away")
        return record(attempts, *args, **kwargs)

    monkeypatch.setattr(results, "_record", fail)
    monkeypatch.setattr(worker, "is_reachable", lambda alias: not is_away.is_set())
    timer = threading.Thread(target=lambda: is_away.wait() and strike())
    timer.start()
    with pytest.raises(TimeLimit):
        deliver_due_messages()
    timer.join()


def test_an_error_that_is_none_of_the_database_costs_no_answer(esms):
    """As the time limit that RQ raises from a thread where there are no signals."""
    esms.answer_all(accepted())
    queue(1)
    errors = [TimeLimit]

    def fail(execute, sql, params, many, context):
        if sql.startswith("INSERT") and esms.requests and errors:
            raise errors.pop()
        return execute(sql, params, many, context)

    with connection.execute_wrapper(fail):
        deliver_due_messages()
    assert states() == {"sent": 1}


# -- how they are held -------------------------------------------------------------------------------------------------


@pytest.fixture
def told() -> Iterator[list[int]]:
    """The signals whose handlers were called: that of SIGALRM raises something, that of SIGUSR1 does not."""
    told: list[int] = []

    def tell(number: int, frame: object) -> None:
        told.append(number)
        if number == signal.SIGALRM:
            raise TimeLimit

    before = {number: signal.signal(number, tell) for number in (signal.SIGALRM, signal.SIGUSR1)}
    yield told
    assert {signal.getsignal(number) for number in before} == {tell}
    for number, handler in before.items():
        signal.signal(number, handler)


def kill(number: int) -> None:
    os.kill(os.getpid(), number)


def test_all_that_came_are_called_though_the_first_raises(told):
    with pytest.raises(TimeLimit), held_interruptions():  # noqa: PT012 - it ends with the block
        kill(signal.SIGALRM)
        kill(signal.SIGUSR1)
        assert told == []
    assert told == [signal.SIGALRM, signal.SIGUSR1]


def test_one_that_comes_twice_does_not_wait(told):
    with pytest.raises(TimeLimit), held_interruptions() as held:  # noqa: PT012 - it ends with the block
        kill(signal.SIGUSR1)
        kill(signal.SIGUSR1)
        assert told == [signal.SIGUSR1]
        held.let_through()
        assert told == [signal.SIGUSR1] * 2
        kill(signal.SIGUSR1)
        assert told == [signal.SIGUSR1] * 3, "nor after the first was let through"
        kill(signal.SIGALRM)
        kill(signal.SIGALRM)
        pytest.fail("not reached")


def test_the_inner_of_two_blocks_leaves_it_to_the_outer(told):
    with pytest.raises(TimeLimit), held_interruptions():  # noqa: PT012 - as above
        with held_interruptions() as inner:
            kill(signal.SIGALRM)
            inner.let_through()
        assert told == []
    assert told == [signal.SIGALRM]


@pytest.mark.parametrize("is_leaving", [False, True])
def test_one_that_comes_while_handlers_change_places_leaves_all_in_theirs(told, monkeypatch, is_leaving):
    set_handler, armed = signal.signal, not is_leaving

    def set_later(number, handler):
        nonlocal armed
        if number == signal.SIGUSR1 and armed:
            armed = False
            kill(signal.SIGALRM)
        return set_handler(number, handler)

    monkeypatch.setattr(signal, "signal", set_later)
    with pytest.raises(TimeLimit), held_interruptions():
        armed = True
    monkeypatch.undo()
    assert told == [signal.SIGALRM]


def test_one_that_comes_while_others_are_let_through_is_not_lost():
    told: list[int] = []

    def tell(number: int, frame: object) -> None:
        told.append(number)
        if number == signal.SIGUSR1:
            kill(signal.SIGALRM)

    before = {number: signal.signal(number, tell) for number in (signal.SIGALRM, signal.SIGUSR1)}
    try:
        with held_interruptions() as held:
            kill(signal.SIGUSR1)
            held.let_through()
            assert told == [signal.SIGUSR1]
            held.let_through()
            assert told == [signal.SIGUSR1, signal.SIGALRM]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
