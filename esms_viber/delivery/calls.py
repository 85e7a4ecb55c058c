"""Call eSMS from the threads of this process: when a call may start, and when no more should. No database here."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

from django.utils import timezone

from ..codes import ACCOUNT_CODES
from ..conf import ViberSettings
from ..exceptions import outline
from ..gateways.base import BaseGateway, CallOutcome, SendResult, StatusResult
from ..lifecycle import may_repeat_at
from ..models import OutboundViberMessage
from .outcomes import is_silent
from .payload import Attempt

logger = logging.getLogger("esms_viber")

GATHERING = 0.05
"""Seconds for which results are gathered, to be recorded in one transaction."""

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
        self._threads: ThreadPoolExecutor | None = None
        self._limit = 0
        self._next_turn = 0.0

    def submit(self, limit: int, work: Callable[[Subject], None], subject: Subject) -> Future[None]:
        """Have one of `CONCURRENCY` threads do the work; they are others where the setting has changed."""
        with self._lock:
            if self._threads is None or limit != self._limit:
                if self._threads is not None:
                    self._threads.shutdown(wait=False)
                self._threads = ThreadPoolExecutor(limit, thread_name_prefix="esms_viber")
                self._limit = limit
            return self._threads.submit(work, subject)

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


def _start_anew() -> None:
    """Forget the parent's threads after a fork: they are gone, and may have held the lock."""
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Calls:
    """The calls of one run, made from many threads, and what they have learnt in common."""

    def __init__(self, gateway: BaseGateway, conf: ViberSettings, *, start_before: float | None = None) -> None:
        """No call starts after `start_before`, a moment of `time.monotonic()`."""
        self.account_code = ""
        self.outage = False
        """Did so many calls in a row have no answer that no more were made?"""
        self.made = 0
        self._gateway = gateway
        self._concurrency = conf.CONCURRENCY
        self._per_second = conf.MAX_PER_SECOND
        self._start_before = float("inf") if start_before is None else start_before
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._silent = 0

    @property
    def stopped(self) -> bool:
        """Does no call start any more? The account is refused, nothing answers, the time is over, or it was told so."""
        return self._stop.is_set() or time.monotonic() >= self._start_before

    @property
    def in_trouble(self) -> bool:
        """Was the last answer none, or one that refuses the account?"""
        return bool(self.account_code or self._silent)

    def stop(self) -> None:
        self._stop.set()

    def start(self, attempt: Attempt) -> Future[None]:
        """Have a thread call the gateway once, if the attempt may still start then."""
        return _process.submit(self._concurrency, self._make, attempt)

    def start_query(self, query: Query) -> Future[None]:
        """Have a thread ask the gateway once what became of a message."""
        return _process.submit(self._concurrency, self._ask, query)

    def _make(self, attempt: Attempt) -> None:
        if not self._wait_for_turn():
            return
        # The lease, the deadline and the day must allow the call at this moment, however long it has waited.
        message, now = attempt.message, timezone.now()
        is_held = message.lease_until is not None and message.lease_until > now
        is_past = message.expires_at is not None and message.expires_at <= now
        if is_held and not is_past and (attempt.first or may_repeat_at(message.uncertain_since or now, now)):
            # Assume no answer, in case send() raises after the request has left.
            attempt.result = SendResult(outcome=CallOutcome.NO_ANSWER, text="The gateway failed")
            attempt.result = self._call(self._gateway.send, attempt.outgoing) or attempt.result
            self._learn(attempt.result)

    def _ask(self, query: Query) -> None:
        if self._wait_for_turn():
            query.result = self._call(self._gateway.fetch_status, query.message.sms_id)
            self._learn(query.result or StatusResult(outcome=CallOutcome.NO_ANSWER))

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
            logger.error("%s raised %s", method.__qualname__, outline(error))  # noqa: TRY400 - a traceback may hold a key
            return None

    def _learn(self, result: SendResult | StatusResult) -> None:
        """Stop at once, from the thread that saw it: waiting for the record lets a hundred more go out."""
        with self._lock:
            self.made += 1
            self._silent = self._silent + 1 if is_silent(result) else 0
            if result.code in ACCOUNT_CODES:
                self.account_code = result.code
            if self._silent >= self._concurrency:
                self.outage = True
            if self.account_code or self.outage:
                self._stop.set()
