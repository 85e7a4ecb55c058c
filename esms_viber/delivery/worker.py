"""Claim, call, record: the worker that sends queued messages.

The database is used from the calling thread alone; the threads that call eSMS touch nothing but the network.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, replace

from django.db import Error as DatabaseTrouble
from django.db import close_old_connections
from django.utils import timezone

from .. import lifecycle, monitoring
from ..conf import get_settings
from ..database import in_chunks, refuse_open_transaction
from ..exceptions import log_failure
from ..gateways.loading import get_gateway
from ..lifecycle import Transition
from ..models import OutboundViberMessage, Status
from . import claims
from .calls import GATHERING, Calls
from .payload import Attempt
from .results import record_attempts

logger = logging.getLogger("esms_viber")

LOOKING = 1.0
"""Seconds between two looks for work where nothing is due, and calls are still on the wire."""

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds until eSMS is tried again, with a single message, after it refused the account or did not answer."""

_CLAIMED_AHEAD = 5
"""Seconds' worth of messages that a worker with a rate limit claims: others may send the rest, people cancel it."""


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """How many messages went which way, and whether the account is in trouble."""

    sent: int = 0
    failed: int = 0
    """Refused, expired or vetoed."""
    unknown: int = 0
    requeued: int = 0
    """Surely not taken; they wait for another try."""
    left: int = 0
    """Due, and not tried this time."""
    account_code: str = ""
    """The code with which eSMS refused the account itself; empty: it did not."""
    outage: bool = False
    """Did so many calls in a row have no answer that no more were made?"""


def deliver_messages(pks: Sequence[int]) -> DeliverySummary:
    """Send those of these messages that are due. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return Worker(pks).run()


def deliver_due_messages(limit: int | None = None) -> DeliverySummary:
    """Send what is due, at most `limit` messages. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return Worker(limit=limit).run()


def deliver_claimed(message: OutboundViberMessage) -> None:
    """Send a message that the caller has inserted as claimed, and record the outcome on it."""
    Worker([]).run(claimed=[message])


class Worker:
    """One run: claim, call and record until nothing is due, eSMS is in trouble, or it is told to stop."""

    def __init__(
        self,
        pks: Iterable[int] | None = None,
        *,
        limit: int | None = None,
        seconds: float | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        """`pks`: these messages; None: any. `seconds`: after which no call starts any more.

        `should_stop` is asked all the time: once it says so nothing more is claimed, what is on the wire is finished
        and recorded, and the rest is released. `on_progress` is told how many more messages are done with.
        """
        conf = get_settings()
        self._pks = None if pks is None else list(pks)
        # Claimed from one after the other: any messages, or these, as many at a time as a statement may name.
        self._sources: deque[list[int] | None] = deque(in_chunks(self._pks) if self._pks is not None else [None])
        self._remaining = math.inf if limit is None else limit
        self._should_stop, self._on_progress = should_stop, on_progress
        start_before = None if seconds is None else time.monotonic() + seconds
        self._calls = Calls(get_gateway(), conf, start_before=start_before)
        # Enough that no thread waits for the next claim, few enough that other workers find some.
        self._room = conf.CONCURRENCY * 4
        if conf.MAX_PER_SECOND:
            self._room = min(self._room, math.ceil(conf.MAX_PER_SECOND * _CLAIMED_AHEAD))
        self._starting: Sequence[OutboundViberMessage] = ()
        """Claimed, and not called yet."""
        self._on_the_wire: dict[Future[None], Attempt] = {}
        self._probing = False
        """Is one message to show first whether eSMS is well again?"""
        self._repeats_first = True
        self._renewed_at = self._next_look = 0.0
        self._counts: Counter[str] = Counter()

    def run(self, claimed: Sequence[OutboundViberMessage] = ()) -> DeliverySummary:
        """Send the messages that were claimed before, and then the others."""
        self._renewed_at = time.monotonic()
        try:
            if self._sources:
                refuse_open_transaction(
                    "Call it after the commit, e.g. by transaction.on_commit().",
                    using=OutboundViberMessage.objects.write_alias(),
                )
                self._announce(claims.take_over_abandoned())
                # While the last word from eSMS was trouble, one message is tried first; the others keep their place.
                # Asked only where something is due, because a worker that watches looks every second.
                is_one = self._pks is not None and len(self._pks) == 1
                due = OutboundViberMessage.objects.for_writing().due()
                self._probing = not is_one and due.exists() and monitoring.in_trouble()
                self._repeats_first = not self._probing
            self._start(claimed)
            while self._claim() or self._on_the_wire:
                self._gather(GATHERING)
        except BaseException:
            self._calls.stop()
            raise
        finally:
            if self._on_the_wire:
                # Something went wrong. What is on the wire is finished and recorded all the same.
                wait([future for future in self._on_the_wire if not future.cancel()])
                self._record(list(self._on_the_wire))
        return self._summary()

    # -- claim ---------------------------------------------------------------------------------------------------------

    def _claim(self) -> bool:
        """Claim and start as many messages as there is room for. Is there, or may there be, more to do?"""
        if not self._sources or self._stopped():
            return False
        if self._probing:
            # A claimed message may not be called for after all, e.g. because it has expired.
            while not self._calls.made and not self._on_the_wire and self._has_more():
                self._claim_some(1)
            if self._on_the_wire or not self._calls.made:
                return bool(self._on_the_wire)
            self._probing = False
            if self._calls.in_trouble:
                # One call is enough where trouble was expected.
                self._calls.outage = not self._calls.account_code
                self._calls.stop()
                return False
        # Wait until half of the room is free, because a claim of many costs no more than a claim of one.
        while (room := self._room - len(self._on_the_wire)) * 2 > self._room and self._has_more():
            self._claim_some(room)
            if self._stopped():
                return False
            self._gather(0)
        return self._has_more()

    def _has_more(self) -> bool:
        return bool(self._sources) and self._remaining > 0 and time.monotonic() >= self._next_look

    def _claim_some(self, room: int) -> None:
        source = self._sources[0]
        room = int(min(room, self._remaining))
        claimed = claims.claim(room, source, repeats_first=self._repeats_first)
        self._count(claimed.settled)
        self._remaining -= len(claimed.ready)
        self._start(claimed.ready, claimed.changes)
        if source is not None and claimed.found < room:
            self._sources.popleft()
        elif source is None and not claimed.found:
            # Fewer than asked for would only mean that others had some locked for a moment.
            self._next_look = time.monotonic() + LOOKING

    def _stopped(self) -> bool:
        if self._should_stop is not None and self._should_stop():
            self._calls.stop()
        return self._calls.stopped

    # -- call ----------------------------------------------------------------------------------------------------------

    def _start(self, messages: Sequence[OutboundViberMessage], changes: Sequence[Transition] = ()) -> None:
        """Tell the site's receivers of the claim, ask them about each message, and hand those that pass to threads."""
        self._starting = messages
        try:
            self._announce(changes)
            passed = []
            for attempt in [claims.prepare(message) for message in messages]:
                if self._stopped():
                    break
                if change := claims.refused_by_site(attempt):
                    self._announce([change])
                else:
                    passed.append(attempt)
                self._hold()
            if self._stopped():
                passed = []
                self._announce(claims.release(messages))
            for attempt in claims.begin(passed):
                self._on_the_wire[self._calls.start(attempt)] = attempt
        except BaseException:
            called = {attempt.message.id for attempt in self._on_the_wire.values()}
            claims.release(message for message in messages if message.id not in called)
            raise
        finally:
            self._starting = ()
        self._count([message for message in messages if message.status != Status.SENDING])

    def _hold(self) -> None:
        """Renew the leases in time.

        A worker that sends anything also takes over what dead ones left, however busy it is, because an uncertain call
        can be repeated on its own day only.
        """
        if time.monotonic() - self._renewed_at > claims.LEASE.total_seconds() / 4:
            self._renewed_at = time.monotonic()
            claims.renew([*(attempt.message for attempt in self._on_the_wire.values()), *self._starting])
            if self._pks is None:
                self._announce(claims.take_over_abandoned())

    # -- record --------------------------------------------------------------------------------------------------------

    def _gather(self, seconds: float) -> None:
        """Record what has been answered; wait at most so long for it."""
        if self._on_the_wire:
            done, _pending = wait(self._on_the_wire, timeout=seconds)
            self._record(list(done))
        self._hold()

    def _record(self, done: list[Future[None]]) -> None:
        attempts = [self._on_the_wire[future] for future in done]
        changes = record_attempts(attempts)
        # Only now, because what could not be recorded is tried once more at the end of the run.
        for future in done:
            del self._on_the_wire[future]
        self._count([attempt.message for attempt in attempts])
        self._announce(changes)

    def _announce(self, changes: Sequence[Transition]) -> None:
        """Tell the site's receivers what was committed. They may take their time, so leases are renewed meanwhile."""
        for change in changes:
            if change.is_written:
                lifecycle.announce(change)
                self._hold()

    def _count(self, messages: Sequence[OutboundViberMessage]) -> None:
        """Count those that are done with. What was released is still due, and counts as left."""
        now = timezone.now()
        done = Counter([message.status for message in messages if not message.is_due(now)])
        self._counts += done
        if self._on_progress is not None:
            self._on_progress(done.total())

    def _summary(self) -> DeliverySummary:
        counts = self._counts
        due = OutboundViberMessage.objects.for_writing().due()
        summary = DeliverySummary(
            sent=counts[Status.SENT] + counts[Status.DELIVERED] + counts[Status.UNDELIVERED],
            failed=counts[Status.FAILED] + counts[Status.CANCELLED],
            unknown=counts[Status.UNKNOWN],
            requeued=counts[Status.QUEUED],
            left=due.count() if self._pks is None else sum(due.filter(pk__in=p).count() for p in in_chunks(self._pks)),
            account_code=self._calls.account_code,
            outage=self._calls.outage,
        )
        waiting = summary.left + summary.requeued
        if summary.account_code:
            logger.error("eSMS refuses the account (code %s); %d messages wait", summary.account_code, waiting)
        elif summary.outage:
            logger.error("eSMS does not answer; no more calls were made, %d messages wait", waiting + summary.unknown)
        return summary


# -- without end -------------------------------------------------------------------------------------------------------


def watch(*, should_stop: Callable[[], bool], on_progress: Callable[[int], object]) -> DeliverySummary:
    """Send what becomes due until told to stop; returns the sum of all runs.

    Trouble with eSMS or with the database does not end it: it is logged, and tried again after a pause.
    """
    total, pause = DeliverySummary(), FIRST_PAUSE
    while not should_stop():
        close_old_connections()
        in_trouble = False
        run = DeliverySummary()
        try:
            run = Worker(should_stop=should_stop, on_progress=on_progress).run()
            in_trouble = bool(run.account_code) or run.outage
        except DatabaseTrouble as error:
            in_trouble = True
            log_failure(error, "the database failed; what was on its way is taken over in two minutes")
        # Messages are added up; what is left, and whether there is trouble, is as the last run says.
        total = replace(
            run,
            sent=total.sent + run.sent,
            failed=total.failed + run.failed,
            unknown=total.unknown + run.unknown,
            requeued=total.requeued + run.requeued,
        )
        pause = FIRST_PAUSE if run.sent or not in_trouble else pause
        _rest(pause if in_trouble else LOOKING, should_stop)
        pause = min(pause * 2, LONGEST_PAUSE) if in_trouble else pause
    return total


def _rest(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        time.sleep(0.2)
