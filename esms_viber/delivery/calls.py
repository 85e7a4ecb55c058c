"""Call eSMS from the threads of this process: when a call may start, and when no more should. No database here."""

from __future__ import annotations

import datetime as dt
import logging
import math
import os
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from django.utils import timezone

from ..codes import ACCOUNT_CODES, Verdict, describe
from ..conf import ViberSettings, accepts
from ..exceptions import outline
from ..gateways.base import BaseGateway, CallOutcome, OutgoingMessage, SendResult, SentResult, StatusResult
from ..lifecycle import may_repeat_at
from ..models import OutboundViberMessage
from ..models.pause import Holds
from .outcomes import is_silent
from .payload import Attempt

logger = logging.getLogger("esms_viber")

GATHERING = 0.05
"""Seconds for which results are gathered, to be recorded in one transaction."""

_BLINK = 0.001
"""Seconds between two looks of a thread that waits until a doubtful result is recorded."""

MOST_SILENT = 5
"""Status queries in a row without an answer, after which no more are made."""

Subject = TypeVar("Subject")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Query:
    """One message that eSMS is to be asked about."""

    message: OutboundViberMessage
    result: StatusResult | None = None
    """Stays None if eSMS was not asked."""


class _Process:
    """The threads that call eSMS and the pace of `MAX_PER_SECOND`, shared by all runs of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}
        self._limit = 0
        self._next_turn = 0.0

    def submit(self, limit: int, depth: int, work: Callable[[Subject], None], subject: Subject) -> Future[None]:
        """Have one of `CONCURRENCY` threads do the work; they are others where the setting has changed.

        A run within a run has threads of its own, because those of the outer one may wait for what this one holds up.
        """
        with self._lock:
            if limit != self._limit:
                for pool in self._pools.values():
                    pool.shutdown(wait=False)
                self._pools, self._limit = {}, limit
            if depth not in self._pools:
                self._pools[depth] = ThreadPoolExecutor(limit, thread_name_prefix="esms_viber")
            return self._pools[depth].submit(work, subject)

    def reserve_turn(self, per_second: float, before: float) -> float | None:
        """Seconds to wait for the turn that this reserves; None where none is left before then."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next_turn)
            if turn >= before:
                return None
            self._next_turn = turn + 1 / per_second
            return turn - now


_process = _Process()


_runs = threading.local()


@contextmanager
def nested() -> Iterator[None]:
    """Note that a run goes on in this thread: what a receiver of the site's begins meanwhile is a run within it."""
    _runs.depth = _depth() + 1
    try:
        yield
    finally:
        _runs.depth -= 1


def _depth() -> int:
    return getattr(_runs, "depth", 0)


def _start_anew() -> None:
    """Forget the parent's threads after a fork: they are gone, and may have held the lock."""
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Calls:
    """The calls of one run, made from many threads."""

    def __init__(
        self,
        gateway: BaseGateway,
        conf: ViberSettings,
        *,
        start_before: float | None = None,
        deadline: float | None = None,
    ) -> None:
        """No call starts after `start_before`, and each ends by the `deadline`, both moments of `time.monotonic()`."""
        self.held: frozenset[str] = frozenset()
        """Brand names under which no call starts any more, but the one that probes."""
        self.holds = Holds()
        """Pauses and hours, which keep a call that has not started from starting."""
        self.account_code = ""
        self.outage = False
        """Did so many status queries in a row have no answer that no more were made?"""
        self._gateway, self._depth = gateway, _depth()
        self._concurrency = conf.CONCURRENCY
        self._per_second = conf.MAX_PER_SECOND
        self._start_before = float("inf") if start_before is None else start_before
        self._patience, self._deadline = sum(conf.TIMEOUT), float("inf") if deadline is None else deadline
        self._send: Callable[[OutgoingMessage], SendResult] = gateway.send
        if deadline is not None and accepts(gateway.send, None, deadline=None):
            self._send = partial(gateway.send, deadline=deadline)
        self._stop = threading.Event()
        # For the threads alone. The main thread may be interrupted by a signal, and would never release it.
        self._lock = threading.Lock()
        self._ended = self._gathered = 0
        self._awaited = math.inf
        """Attempts that must have ended to wake the main thread. Waking it for each one would cost more than a call."""
        # An Event would take a lock of its own, which the main thread would keep if a signal interrupted it there.
        self._enough_ended = queue.SimpleQueue[None]()
        self._doubted = self._settled = 0
        self._silent = 0

    @property
    def stopped(self) -> bool:
        """Does no call start any more, because the time is over, or because it was told so?"""
        return self._stop.is_set() or time.monotonic() >= self._start_before

    def stop(self) -> None:
        self._stop.set()

    # -- sending -------------------------------------------------------------------------------------------------------

    def start(self, attempt: Attempt) -> Future[None]:
        """Have a thread call the gateway once, if the attempt may still start then."""
        return _process.submit(self._concurrency, self._depth, self._make, attempt)

    def _make(self, attempt: Attempt) -> None:
        try:
            self._make_if_allowed(attempt)
        finally:
            with self._lock:
                self._ended += 1
                self._doubted += is_doubtful(attempt)
            if self._is_enough():
                self._enough_ended.put(None)

    def _make_if_allowed(self, attempt: Attempt) -> None:
        if not self._wait_for_turn() or not self._wait_for_record(attempt):
            return
        # The lease, the deadline and the day must allow the call at this moment, however long it has waited.
        message, now = attempt.message, timezone.now()
        is_ours = message.lease_until is not None and message.lease_until > now
        is_past = message.expires_at is not None and message.expires_at <= now
        # A probe must have ended before another process may make one.
        is_late = attempt.probe is not None and attempt.probe.until <= now + self._longest()
        if (
            is_ours
            and not is_past
            and not is_late
            and not self.holds.reason(message, now)
            and (attempt.first or may_repeat_at(message.uncertain_since or now, now))
        ):
            attempt.began = now
            # Assume no answer, in case send() raises after the request has left.
            attempt.result = SendResult(outcome=CallOutcome.NO_ANSWER, text="The gateway failed")
            attempt.result = self._call(self._send, attempt.outgoing) or attempt.result
            attempt.ended = timezone.now()

    def _longest(self) -> dt.timedelta:
        """How long a call may take."""
        return dt.timedelta(seconds=min(self._patience, self._deadline - time.monotonic()))

    def gather(self, futures: Iterable[Future[None]], enough: int, seconds: float) -> set[Future[None]]:
        """Wait until `enough` have ended, or one whose result cannot wait, but at most so many seconds.

        Returns those that have ended.
        """
        while not self._enough_ended.empty():
            self._enough_ended.get()
        self._awaited = self._gathered + enough
        if not self._is_enough():
            with suppress(queue.Empty):
                self._enough_ended.get(timeout=seconds)
        self._awaited = math.inf
        # Unlike wait(), this takes the lock of one call at a time, and so keeps no thread from ending its own.
        done = {future for future in futures if future.done()}
        self._gathered += len(done)
        return done

    def _is_enough(self) -> bool:
        return self._ended >= self._awaited or self._in_doubt

    def _wait_for_record(self, attempt: Attempt) -> bool:
        """Wait while a result that may open a circuit breaker is not recorded; False where the call must not start.

        Without waiting, all threads would call on while the first results of an outage come in.
        """
        while self._in_doubt and not self.stopped:
            time.sleep(_BLINK)
        is_held = attempt.outgoing.brandname in self.held and attempt.probe is None
        return not (is_held or self.stopped)

    @property
    def _in_doubt(self) -> bool:
        return self._doubted > self._settled

    def resume(self, recorded: int) -> None:
        """Let calls start again, now that so many doubtful results are recorded."""
        self._settled += recorded

    # -- asking --------------------------------------------------------------------------------------------------------

    def start_query(self, query: Query) -> Future[None]:
        """Have a thread ask the gateway once what became of a message."""
        return _process.submit(self._concurrency, self._depth, self._ask, query)

    def _ask(self, query: Query) -> None:
        if not self._wait_for_turn():
            return
        query.result = self._call(self._gateway.fetch_status, query.message.sms_id)
        result = query.result or StatusResult(outcome=CallOutcome.NO_ANSWER)
        # Stop at once, from the thread that saw it: waiting for the record lets a hundred more go out.
        with self._lock:
            self._silent = self._silent + 1 if is_silent(result) else 0
            if result.code in ACCOUNT_CODES:
                self.account_code = result.code
            self.outage = self.outage or self._silent >= MOST_SILENT
        if self.account_code or self.outage:
            self.stop()

    def fetch_sent(self, begin: dt.datetime, end: dt.datetime, page: int) -> SentResult | None:
        """Ask, from this thread, for a page of what was sent; None where no call starts, or the gateway fails."""
        if not self._wait_for_turn():
            return None
        result = self._call(partial(self._gateway.fetch_sent, begin, end), page)
        if result is not None and result.code in ACCOUNT_CODES:
            self.account_code = result.code
            self.stop()
        return result

    # -- both ----------------------------------------------------------------------------------------------------------

    def _wait_for_turn(self) -> bool:
        """Wait as `MAX_PER_SECOND` demands; False where no call starts any more."""
        if self._per_second and not self.stopped:
            delay = _process.reserve_turn(self._per_second, self._start_before)
            if delay is None or self._stop.wait(delay):
                return False
        return not self.stopped

    def _call(self, method: Callable[[Subject], Result], subject: Subject) -> Result | None:
        """Call the gateway; None where a foreign one raises something, though it should not."""
        try:
            return method(subject)
        except Exception as error:  # noqa: BLE001 - what a foreign gateway raises is not known
            name = getattr(method, "func", method).__qualname__
            logger.error("%s raised %s", name, outline(error))  # noqa: TRY400 - a traceback may hold a key
            return None


def is_doubtful(attempt: Attempt) -> bool:
    """May the call open a circuit breaker, alone or with others like it?"""
    if attempt.result is None or attempt.is_silent:
        return attempt.result is not None
    return describe(attempt.result.code).verdict not in {Verdict.ACCEPTED, Verdict.PHONE}
