"""What holds with every task engine: tests that the test class of each one inherits."""

from __future__ import annotations

import itertools
import logging
from collections import Counter
from collections.abc import Iterable
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.utils.module_loading import import_string

from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import deliver_due_messages, queue_viber_message, queue_viber_messages
from tests.engines.engine import Engine, Workers
from tests.engines.esms import Esms
from tests.factories import states

TEXT = "Xin chào"

_numbers = itertools.count()


def new_phone() -> str:
    """Of which nobody else has a message, so that calls can be counted by it."""
    return f"09{next(_numbers):08d}"


def queue() -> OutboundViberMessage:
    return queue_viber_message(new_phone(), TEXT)


def queue_several(count: int) -> list[OutboundViberMessage]:
    """In one transaction, and so in one task."""
    return queue_viber_messages([OutboundViberMessage(phone=new_phone(), content=TEXT) for _ in range(count)])


def hand_over(messages: Iterable[OutboundViberMessage]) -> None:
    """Start one more task with these messages."""
    import_string(settings.ESMS_VIBER["DISPATCHER"])([message.pk for message in messages])


def each_once(messages: Iterable[OutboundViberMessage]) -> Counter[str]:
    return Counter(message.phone for message in messages)


def all_are_sent() -> bool:
    return set(states()) == {Status.SENT}


def is_sent(message: OutboundViberMessage) -> bool:
    return OutboundViberMessage.objects.sent().filter(pk=message.pk).exists()


@pytest.mark.engines
@pytest.mark.django_db(transaction=True)
class EngineTests:
    """The fixture `engine` says which one. Where a test has one worker, that one runs the tasks in their order."""

    # -- after the commit, and once ------------------------------------------------------------------------------------

    def test_messages_are_handed_over_when_their_transaction_has_committed(
        self, engine: Engine, esms: Esms, workers: Workers
    ) -> None:
        with transaction.atomic():
            messages = [*queue_several(5), queue(), queue()]
            assert engine.waiting() == 0
        assert engine.waiting() == 1, "one task for all of them"
        workers.start()
        workers.wait_for(all_are_sent)
        assert esms.calls == each_once(messages)

    def test_messages_that_were_rolled_back_are_not_handed_over(
        self, engine: Engine, esms: Esms, workers: Workers
    ) -> None:
        with transaction.atomic():
            queue_several(3)
            transaction.set_rollback(True)
        assert engine.waiting() == 0
        with transaction.atomic():
            kept = queue()
            with transaction.atomic():
                queue()
                transaction.set_rollback(True)
        assert engine.waiting() == 1
        workers.start()
        workers.wait_for(all_are_sent)
        assert esms.calls == each_once([kept])

    # -- tasks that run twice, or not to their end ---------------------------------------------------------------------

    def test_two_workers_with_the_same_task_at_once_send_each_message_once(
        self, engine: Engine, esms: Esms, workers: Workers
    ) -> None:
        esms.hold()
        messages = queue_several(24)
        hand_over(messages)
        assert engine.waiting() == 2
        workers.start(2)
        # A worker makes no more than two calls at a time.
        workers.wait_for(lambda: esms.held == 4)
        workers.tell_to_stop()
        esms.release()
        workers.wait_for_their_end()
        assert states() == {Status.SENT: 24}, "what a worker has begun it finishes"
        assert esms.calls == each_once(messages)

    def test_task_that_runs_again_sends_nothing(self, engine: Engine, esms: Esms, workers: Workers) -> None:
        messages = queue_several(5)
        hand_over(messages)
        messages.append(queue())
        workers.start()
        workers.wait_for(all_are_sent)
        assert esms.calls == each_once(messages)

    def test_worker_killed_in_the_middle_of_its_task_neither_loses_nor_doubles_a_message(
        self, engine: Engine, esms: Esms, workers: Workers, clock: Any
    ) -> None:
        messages = queue_several(2)
        workers.start()
        workers.wait_for(all_are_sent)
        esms.hold()
        messages += queue_several(20)
        workers.wait_for(lambda: esms.held == 2)
        workers.kill()
        esms.release()
        claimed = states()[Status.SENDING]
        assert 2 <= claimed < 20

        # Another worker sends the rest, and leaves alone what the first had claimed.
        if engine.delivers_again:
            workers.wait_for(lambda: engine.waiting() == 1)
        else:
            hand_over(messages)
        messages.append(queue())
        workers.start()
        workers.wait_for(lambda: is_sent(messages[-1]))
        assert states() == {Status.SENDING: claimed, Status.SENT: 23 - claimed}
        assert esms.repeats == 0

        clock.advance(minutes=3)
        assert deliver_due_messages().sent == claimed
        assert states() == {Status.SENT: 23}
        assert esms.taken == each_once(messages)
        assert esms.repeats == 2, "the two that were on the wire; eSMS says that it has them"

    # -- a broker that comes and goes ----------------------------------------------------------------------------------

    def test_broker_restarted_before_a_worker_took_the_task_loses_no_message(
        self, engine: Engine, esms: Esms, workers: Workers
    ) -> None:
        messages = queue_several(5)
        engine.stop_broker()
        engine.start_broker()
        if not engine.keeps_tasks:
            assert engine.waiting() == 0
            assert deliver_due_messages().sent == 5
        # The connection that this process had to the broker is gone; it makes another one.
        messages.append(queue())
        workers.start()
        workers.wait_for(all_are_sent)
        assert esms.calls == each_once(messages)

    def test_broker_that_is_away_harms_no_caller_and_loses_no_message(
        self, engine: Engine, esms: Esms, workers: Workers, caplog: pytest.LogCaptureFixture
    ) -> None:
        messages = [queue()]
        engine.stop_broker()
        try:
            messages.append(queue())
            with transaction.atomic():
                messages += [*queue_several(3), queue()]
        finally:
            engine.start_broker()
        errors = [r for r in caplog.records if r.name == "esms_viber" and r.levelno == logging.ERROR]
        assert ["stay queued: " in error.getMessage() for error in errors] == [True, True]
        assert states() == {Status.QUEUED: 6}

        assert deliver_due_messages().sent == 6
        # The task of the first one may have outlived the broker; there is nothing left for it to do.
        messages.append(queue())
        workers.start()
        workers.wait_for(all_are_sent)
        assert esms.calls == each_once(messages)


class TimeLimitTests:
    """For engines that stop a task when it takes too long; the fixture `short_time_limit` makes that two seconds."""

    def test_task_stopped_at_its_time_limit_neither_loses_nor_doubles_a_message(
        self, short_time_limit: None, esms: Esms, workers: Workers, clock: Any
    ) -> None:
        esms.hold(seconds=0.4)
        # Two at a time, and so for 2.8 seconds.
        messages = queue_several(14)
        messages.append(queue())
        workers.start()
        workers.wait_for(lambda: is_sent(messages[-1]))
        assert not all_are_sent()
        clock.advance(minutes=3)
        deliver_due_messages()
        assert states() == {Status.SENT: 15}
        assert esms.taken == each_once(messages)
