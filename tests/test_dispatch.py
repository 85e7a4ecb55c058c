"""Handing queued messages over after the commit: to whom, when, how often and what happens if that fails."""

from __future__ import annotations

import datetime as dt
import logging
import time
from types import SimpleNamespace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connection, transaction
from django.test import TestCase

from esms_viber import dispatch
from esms_viber.delivery import calls, worker
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import deliver_due_messages, queue_viber_message, queue_viber_messages, resend_viber_messages

PHONE, TEXT = "+84901888484", "Xin chào"

committing = pytest.mark.django_db(transaction=True)


def queue() -> int:
    return queue_viber_message(PHONE, TEXT).pk


def queue_several(count: int) -> list[OutboundViberMessage]:
    return queue_viber_messages([OutboundViberMessage(phone=PHONE, content=TEXT) for _ in range(count)])


def status_of(pk: int) -> str:
    return OutboundViberMessage.objects.values_list("status", flat=True).get(pk=pk)


class Recorder:
    """A dispatcher that writes down what it is given, and whether a transaction was open then."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.open: list[bool] = []

    def __call__(self, pks: list[int]) -> None:
        assert type(pks) is list
        self.calls.append(pks)
        self.open.append(connection.in_atomic_block)


recorder_by_path = Recorder()


@pytest.fixture
def recorder(settings) -> Recorder:
    recorder = Recorder()
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": recorder}
    return recorder


# -- once for each transaction -----------------------------------------------------------------------------------------


@committing
def test_one_transaction_is_one_dispatch_with_all_its_messages(recorder: Recorder) -> None:
    draft = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    with transaction.atomic():
        pks = [queue()]
        pks += [message.pk for message in queue_several(3)]
        pks += [message.pk for message in resend_viber_messages([draft])]
        with transaction.atomic():
            pks.append(queue())
        assert recorder.calls == []
    assert recorder.calls == [pks]
    assert recorder.open == [False]


@committing
def test_each_transaction_is_a_dispatch_of_its_own(recorder: Recorder) -> None:
    pks = []
    for _ in range(3):
        with transaction.atomic():
            pks.append([queue(), queue()])
    assert recorder.calls == pks


@committing
def test_without_a_transaction_the_dispatch_comes_at_once(recorder: Recorder) -> None:
    first = queue()
    assert recorder.calls == [[first]]
    second = queue()
    assert recorder.calls == [[first], [second]]
    assert recorder.open == [False, False]


@committing
@pytest.mark.parametrize("rolled_back", ["first", "second", "third"])
def test_a_savepoint_rolled_back_is_not_among_them(recorder: Recorder, rolled_back: str) -> None:
    pks = []
    with transaction.atomic():
        for name in ("first", "second", "third"):
            with transaction.atomic():
                pk = queue()
                if name == rolled_back:
                    transaction.set_rollback(True)
                else:
                    pks.append(pk)
    assert recorder.calls == [pks]


@committing
def test_a_savepoint_rolled_back_takes_those_inside_it_along(recorder: Recorder) -> None:
    with transaction.atomic():
        kept = queue()
        with transaction.atomic():
            queue()
            with transaction.atomic():
                queue()
            transaction.set_rollback(True)
        later = queue()
    assert recorder.calls == [[kept, later]]


@committing
def test_a_savepoint_rolled_back_by_an_error_that_is_kept_is_not_among_them(recorder: Recorder) -> None:
    def fail() -> None:
        message = queue_viber_message(PHONE, TEXT)
        raise ValueError(message.pk)

    kept_errors = []
    with transaction.atomic():
        kept = queue()
        try:
            with transaction.atomic():
                fail()
        except ValueError as error:
            kept_errors.append(error)
    assert len(kept_errors) == 1
    assert recorder.calls == [[kept]]


@committing
def test_a_transaction_rolled_back_dispatches_nothing_then_or_later(recorder: Recorder) -> None:
    with transaction.atomic():
        queue()
        transaction.set_rollback(True)
    assert recorder.calls == []
    pk = queue()
    assert recorder.calls == [[pk]]


@committing
def test_nothing_new_is_no_dispatch(recorder: Recorder) -> None:
    queue_viber_messages([])
    first = queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
    queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
    queue_viber_messages([OutboundViberMessage(phone=PHONE, content=TEXT, dedupe_key="order-17")])
    resend_viber_messages([first])
    assert recorder.calls == [[first.pk]]


@committing
def test_a_commit_hook_of_the_site_that_queues_gets_its_own_dispatch(recorder: Recorder) -> None:
    pks = []
    with transaction.atomic():
        transaction.on_commit(lambda: pks.append(queue()))
        first = queue()
    assert sorted(recorder.calls) == sorted([[first], pks])


@committing
def test_a_commit_hook_of_the_site_that_fails_leaves_later_dispatches_alone(recorder: Recorder) -> None:
    def fail() -> None:
        raise LookupError

    def order() -> None:
        with transaction.atomic():
            transaction.on_commit(fail)
            queue()

    with pytest.raises(LookupError):
        order()
    pk = queue()
    assert recorder.calls[-1] == [pk]
    assert deliver_due_messages().sent == 2


@committing
def test_with_autocommit_off_it_waits_for_the_commit(recorder: Recorder) -> None:
    transaction.set_autocommit(False)
    try:
        queue()
        transaction.rollback()
        pk = queue()
        assert recorder.calls == []
        transaction.commit()
    finally:
        # Django runs the hooks of a manual commit here.
        transaction.set_autocommit(True)
    assert recorder.calls == [[pk]]


# -- in a TestCase -----------------------------------------------------------------------------------------------------


class QueueInTestCase(TestCase):
    """A site's own tests, inside a transaction that never commits."""

    def test_nothing_goes_out_unless_asked_for(self) -> None:
        queue()
        self.assertEqual(outbox, [])  # noqa: PT009 - a site's own TestCase

    def test_what_is_queued_inside_the_capture_goes_out(self) -> None:
        with self.captureOnCommitCallbacks(execute=True):
            pks = [queue(), queue()]
        self.assertEqual([status_of(pk) for pk in pks], [Status.SENT] * 2)  # noqa: PT009
        self.assertEqual(len(outbox), 2)  # noqa: PT009

    def test_what_was_queued_outside_stays_queued_and_keeps_nothing_back(self) -> None:
        before = queue()
        with self.captureOnCommitCallbacks(execute=True):
            inside = queue()
        after = queue()
        with self.captureOnCommitCallbacks(execute=True):
            second = queue()
        statuses = [status_of(pk) for pk in (before, inside, after, second)]
        self.assertEqual(statuses, [Status.QUEUED, Status.SENT, Status.QUEUED, Status.SENT])  # noqa: PT009
        self.assertEqual(len(outbox), 2)  # noqa: PT009

    def test_a_savepoint_rolled_back_inside_the_capture_sends_nothing(self) -> None:
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic():
            queue()
            transaction.set_rollback(True)
        self.assertEqual(outbox, [])  # noqa: PT009

    def test_callbacks_captured_are_run_by_hand(self) -> None:
        with self.captureOnCommitCallbacks() as callbacks:
            pks = [queue(), queue()]
        self.assertEqual(outbox, [])  # noqa: PT009
        for callback in callbacks:
            callback()
        self.assertEqual([status_of(pk) for pk in pks], [Status.SENT] * 2)  # noqa: PT009
        self.assertEqual(len(outbox), 2)  # noqa: PT009


@pytest.mark.django_db
def test_the_fixture_of_pytest_django_sends_as_well(django_capture_on_commit_callbacks: Any) -> None:
    queue()
    with django_capture_on_commit_callbacks(execute=True):
        inside = queue()
    assert status_of(inside) == Status.SENT
    assert len(outbox) == 1


# -- who it is handed to -----------------------------------------------------------------------------------------------


@committing
def test_the_dispatcher_is_a_callable_or_its_dotted_path(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": f"{__name__}.recorder_by_path"}
    pk = queue()
    assert recorder_by_path.calls == [[pk]]
    assert not outbox


@committing
def test_queue_only_leaves_the_sending_to_another_process(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    pk = queue()
    assert status_of(pk) == Status.QUEUED
    assert not outbox
    assert deliver_due_messages().sent == 1


def fail_to_dispatch(pks: list[int]) -> None:
    raise ConnectionError("the broker is away")


@committing
@pytest.mark.parametrize(
    "dispatcher",
    [fail_to_dispatch, f"{__name__}.fail_to_dispatch", "esms_viber.dispatch.inlin", "no.such.module", "nonsense", 17],
)
def test_a_dispatcher_that_fails_is_logged_and_the_messages_stay_queued(settings, dispatcher: Any, caplog) -> None:
    conf = settings.ESMS_VIBER
    settings.ESMS_VIBER = {**conf, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    with transaction.atomic():
        pks = [queue(), queue()]
        # The rest of the settings stays readable; only who is to send is not.
        settings.ESMS_VIBER = {**conf, "DISPATCHER": dispatcher}
    (record,) = [r for r in caplog.records if r.levelno >= logging.ERROR]
    assert "2 messages stay queued: " in record.getMessage()
    assert "esms_viber.dispatch:" in record.getMessage(), "where it failed"
    assert [status_of(pk) for pk in pks] == [Status.QUEUED] * 2
    settings.ESMS_VIBER = conf
    assert deliver_due_messages().sent == 2


@pytest.mark.parametrize("path", ["esms_viber.dispatch.inlin", "no.such.module", "nonsense", "esms_viber.__version__"])
def test_a_path_that_leads_nowhere_names_the_setting(settings, path: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": path}
    with pytest.raises(ImproperlyConfigured, match="DISPATCHER"):
        dispatch.get_dispatcher()


# -- inline ------------------------------------------------------------------------------------------------------------


def warnings_in(caplog: Any) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]


@committing
def test_the_inline_dispatcher_leaves_what_passes_its_limit_queued_and_says_so(settings, caplog) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "INLINE_LIMIT": 3}
    messages = queue_several(5)
    assert [status_of(m.pk) for m in messages] == [Status.SENT] * 3 + [Status.QUEUED] * 2
    assert len(outbox) == 3
    (warning,) = warnings_in(caplog)
    assert "2 of 5" in warning
    assert "send_viber_messages" in warning
    assert deliver_due_messages().sent == 2


@committing
def test_the_inline_dispatcher_sends_all_up_to_its_limit_and_says_nothing(caplog) -> None:
    assert {status_of(m.pk) for m in queue_several(50)} == {Status.SENT}
    assert not warnings_in(caplog)


@committing
def test_the_inline_dispatcher_sends_nothing_but_what_it_was_given(settings) -> None:
    conf = settings.ESMS_VIBER
    settings.ESMS_VIBER = {**conf, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    waiting = queue()
    settings.ESMS_VIBER = conf
    given = queue()
    assert (status_of(waiting), status_of(given)) == (Status.QUEUED, Status.SENT)


class SlowGateway(MemoryGateway):
    """Takes three seconds for a call, by its own watch."""

    watch = 0.0

    def send(self, message: Any) -> SendResult:
        SlowGateway.watch += 3
        return super().send(message)


@committing
def test_the_inline_dispatcher_starts_no_call_when_its_time_is_over(settings, monkeypatch, caplog) -> None:
    """It has ten seconds, and a call that starts after half of them would have too few left."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.SlowGateway", "CONCURRENCY": 1}
    measured = SimpleNamespace(monotonic=lambda: SlowGateway.watch, sleep=time.sleep)
    with monkeypatch.context() as patched:
        for module in (calls, worker):
            patched.setattr(module, "time", measured)
        messages = queue_several(6)
    assert len(outbox) == 2
    left = len(messages) - len(outbox)
    assert OutboundViberMessage.objects.sent().count() == len(outbox)
    rest = OutboundViberMessage.objects.queued().values_list("attempts", "uncertain_since", "claim_id", "error_message")
    assert list(rest) == [(0, None, "", "")] * left
    assert f"{left} of {len(messages)}" in warnings_in(caplog)[-1]
    assert deliver_due_messages().sent == left


@committing
def test_what_waits_for_its_time_is_not_told_as_left(caplog, clock: Any) -> None:
    queue_viber_message(PHONE, TEXT, send_at=clock.now() + dt.timedelta(days=365))
    assert not outbox
    assert not warnings_in(caplog)


@committing
def test_a_refused_account_stops_the_batch_and_loses_nothing(settings, caplog) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1}
    MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code="103"))
    queue_several(5)
    assert len(outbox) == 1
    assert OutboundViberMessage.objects.queued().count() == 5
    assert [r for r in caplog.records if r.levelno == logging.ERROR and "103" in r.getMessage()]
