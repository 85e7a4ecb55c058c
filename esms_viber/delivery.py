"""Claim, call, record: how queued messages get sent. What dispatchers, tasks and the command call.

The database is used from the calling thread alone; the others touch nothing but the network.
"""

from __future__ import annotations

import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from django.utils import timezone

from . import claims, lifecycle, monitoring
from .calls import GATHERING, Attempt, Calls
from .conf import get_settings
from .gateways import get_gateway
from .models import OutboundViberMessage, Status
from .preparing import attempt_at, begin, give_back, is_allowed
from .recording import record_attempts
from .transactions import refuse_open_transaction, write_alias

logger = logging.getLogger("esms_viber")

LOOKING = 1.0
"""Seconds between two looks for work, where a run goes on when nothing is due."""

_CLAIMED_AHEAD = 5
"""Seconds' worth of messages that a sender with a rate limit claims: others may send the rest, people cancel it."""


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
    return Drain(pks).run()


def deliver_due_messages(limit: int | None = None) -> DeliverySummary:
    """Send what is due, at most `limit` messages. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return Drain(limit=limit).run()


def deliver_claimed(message: OutboundViberMessage) -> None:
    """Send a message that the caller has inserted as claimed, and record the outcome on it."""
    Drain([]).run(claimed=[message])


class Drain:
    """One run: claims, calls and records until nothing is due, eSMS is in trouble, or it is told to stop."""

    def __init__(
        self,
        pks: Iterable[int] | None = None,
        *,
        limit: int | None = None,
        seconds: float | None = None,
        endless: bool = False,
        should_stop: Callable[[], bool] = lambda: False,
        on_progress: Callable[[int], object] = lambda count: None,
    ) -> None:
        """`pks`: these messages; None: any. `seconds`: after which no call starts any more. `endless`: when nothing is
        due, look again. `should_stop` is asked all the time: once it says so nothing more is claimed, what is on the
        wire is finished and recorded, the rest given back. `on_progress` is told how many more messages are done with.
        """
        self._conf = get_settings()
        self._pks = None if pks is None else list(pks)
        self._remaining = math.inf if limit is None else limit
        self._endless, self._should_stop = endless, should_stop
        self._on_progress = on_progress
        start_before = None if seconds is None else time.monotonic() + seconds
        self._calls = Calls(get_gateway(), self._conf, start_before=start_before)
        self._threads = ThreadPoolExecutor(self._conf.CONCURRENCY, thread_name_prefix="esms_viber")
        self._chunks = deque(_chunks(self._pks))
        self._starting: list[Attempt] = []
        self._pending: dict[Future[None], Attempt] = {}
        self._counts: Counter[str] = Counter()
        self._announcements: deque[Callable[[], object]] = deque()
        self._probing, self._repeats_first = False, True
        self._renewed = self._gathered = self._looked = -math.inf

    def run(self, claimed: Sequence[OutboundViberMessage] = ()) -> DeliverySummary:
        """The messages that were claimed before, and then the others."""
        refuse_open_transaction("Call it after the commit, e.g. by transaction.on_commit().")
        self._renewed = time.monotonic()
        if self._chunks:
            claims.take_over_abandoned()
            # One message is the probe while the last word from eSMS was trouble: the others keep their place.
            self._probing = (self._pks is None or len(self._pks) > 1) and monitoring.in_trouble()
            # Messages that are never answered, enough of them, look like an outage: they must not come first again.
            self._repeats_first = not self._probing
        with lifecycle.announcing_later() as self._announcements:
            try:
                self._start(claimed)
                while self._feed() or self._pending:
                    self._gather(GATHERING)
            except BaseException:
                self._calls.stop()
                raise
            finally:
                # Whatever went wrong, what is on the wire is finished and written down.
                self._threads.shutdown(wait=True)
                self._record(list(self._pending))
        return self._summary()

    # -- claiming ------------------------------------------------------------------------------------------------------

    def _feed(self) -> bool:
        """Claim as many messages as the threads have room for; will there be more to do?"""
        if self._should_stop():
            self._calls.stop()
        if self._probing and self._calls.made and not self._pending:
            self._end_probe()
        while self._is_open() and (room := self._room()) > 0:
            claimed = claims.claim(room, self._chunks[0], repeats_first=self._repeats_first)
            self._count(claimed.settled)
            self._remaining -= len(claimed.ready)
            self._start(claimed.ready)
            if self._pks is not None and claimed.found < room:
                self._chunks.popleft()
            elif not claimed.found and self._endless:
                self._look_again_later()
            elif not claimed.found:
                # Fewer than asked for may only mean that others had some locked for a moment.
                self._chunks.popleft()
            if self._should_stop():
                self._calls.stop()
            self._keep_up()
        return self._is_open()

    def _is_open(self) -> bool:
        return bool(self._chunks) and self._remaining > 0 and not self._calls.stopped

    def _room(self) -> int:
        """How many to claim now: enough that no thread waits for work, few enough that others find some."""
        if self._endless and time.monotonic() < self._looked + LOOKING:
            return 0
        if self._probing:
            # Nor when it is done: whether others follow is decided before the next look.
            return 0 if self._pending or self._calls.made else 1
        most = self._conf.CONCURRENCY * 4
        if self._conf.MAX_PER_SECOND:
            most = min(most, math.ceil(self._conf.MAX_PER_SECOND * _CLAIMED_AHEAD))
        # Not one by one as they are done: a claim costs the same for many.
        room = most - len(self._pending)
        return int(min(room, self._remaining)) if room * 2 > most else 0

    def _end_probe(self) -> None:
        if self._calls.in_trouble:
            # One call is enough where trouble was expected.
            self._calls.outage = not self._calls.account_code
            self._calls.stop()
        self._probing = False

    def _look_again_later(self) -> None:
        claims.take_over_abandoned()
        self._looked = time.monotonic()

    # -- calling -------------------------------------------------------------------------------------------------------

    def _start(self, messages: Sequence[OutboundViberMessage]) -> None:
        """Hand claimed messages to the threads, once the site's receivers have let them pass."""
        if not messages:
            return
        try:
            self._starting = [attempt_at(message) for message in messages]
            self._announce()
            begun = begin(list(self._allowed()))
        except BaseException:
            give_back(messages)
            raise
        finally:
            self._starting = []
        for attempt in begun:
            self._pending[self._threads.submit(self._calls.make, attempt)] = attempt
        self._count(message for message in messages if message.status != Status.SENDING)

    def _allowed(self) -> Iterator[Attempt]:
        """Receivers may take their time: meanwhile answers are recorded, claims renewed, and an end is noticed."""
        for number, attempt in enumerate(self._starting):
            if self._should_stop():
                self._calls.stop()
            if self._calls.stopped:
                give_back(left.message for left in self._starting[number:])
                return
            if is_allowed(attempt):
                yield attempt
            self._keep_up()

    def _keep_up(self) -> None:
        if time.monotonic() - self._gathered > GATHERING:
            self._gather(0)

    def _announce(self) -> None:
        """Tell the site's receivers what has been committed; they too may take their time."""
        while self._announcements:
            self._announcements.popleft()()
            self._renew()

    def _gather(self, seconds: float) -> None:
        if self._pending:
            done, _pending = wait(self._pending, timeout=seconds)
            self._record(list(done))
        elif self._endless:
            time.sleep(seconds)
        self._gathered = time.monotonic()
        self._renew()

    def _renew(self) -> None:
        if time.monotonic() - self._renewed > claims.LEASE.total_seconds() / 4:
            claims.renew(attempt.message for attempt in (*self._pending.values(), *self._starting))
            self._renewed = time.monotonic()
            if self._pks is None:
                # However much there is to do: what a dead sender left has to be repeated on its day.
                claims.take_over_abandoned()

    # -- recording -----------------------------------------------------------------------------------------------------

    def _record(self, done: list[Future[None]]) -> None:
        attempts = [self._pending[future] for future in done]
        record_attempts(attempts)
        # Not before: should recording fail, it is tried once more at the end.
        for future in done:
            del self._pending[future]
        self._count(attempt.message for attempt in attempts)
        self._announce()

    def _count(self, messages: Iterable[OutboundViberMessage]) -> None:
        """Those that are done with: what was given back is still due, and counted as left."""
        now = timezone.now()
        done = Counter(message.status for message in messages if not message.is_due(now))
        self._counts += done
        self._on_progress(done.total())

    def _summary(self) -> DeliverySummary:
        counts = self._counts
        due = OutboundViberMessage.objects.using(write_alias()).due()
        summary = DeliverySummary(
            sent=counts[Status.SENT] + counts[Status.DELIVERED] + counts[Status.UNDELIVERED],
            failed=counts[Status.FAILED] + counts[Status.CANCELLED],
            unknown=counts[Status.UNKNOWN],
            requeued=counts[Status.QUEUED],
            left=sum((due if chunk is None else due.filter(pk__in=chunk)).count() for chunk in _chunks(self._pks)),
            account_code=self._calls.account_code,
            outage=self._calls.outage,
        )
        waiting = summary.left + summary.requeued
        if summary.account_code:
            logger.error("eSMS refuses the account (code %s); %d messages wait", summary.account_code, waiting)
        elif summary.outage:
            logger.error("eSMS does not answer; no more calls were made, %d messages wait", waiting + summary.unknown)
        return summary


def _chunks(pks: list[int] | None) -> list[list[int] | None]:
    """What is claimed from: any messages, or these, as many at a time as a statement may name."""
    return [None] if pks is None else [pks[start : start + 500] for start in range(0, len(pks), 500)]
