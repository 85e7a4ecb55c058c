"""What the threads do that call eSMS: when a call may start, and when no more should. No database here."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

from django.utils import timezone

from .codes import ACCOUNT_CODES
from .conf import ViberSettings
from .gateways.base import BaseGateway, OutgoingMessage, Reach, SendResult, StatusResult
from .models import OutboundViberMessage
from .outcomes import is_non_answer, may_repeat_at
from .tracebacks import outline

logger = logging.getLogger("esms_viber")

GATHERING = 0.05
"""Seconds for which results are gathered, to be recorded in one transaction."""

Subject = TypeVar("Subject")
Result = TypeVar("Result")


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed message and the call to make for it."""

    message: OutboundViberMessage
    outgoing: OutgoingMessage
    first: bool
    """Can no earlier call under this RequestId have been taken?"""
    code: str = ""
    """What eSMS said to the call before; to be kept where none is made now."""
    result: SendResult | None = None
    """None: no call was made."""


@dataclass(slots=True, eq=False)
class Query:
    """One message that eSMS is to be asked about."""

    message: OutboundViberMessage
    result: StatusResult | None = None
    """None: it was not asked."""


class _Process:
    """What all threads of the process share: the calls in flight, and the pace."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots = threading.BoundedSemaphore()
        self._limit = 1
        self._next_turn = 0.0

    def slots(self, limit: int) -> threading.BoundedSemaphore:
        """`CONCURRENCY` of them; new ones where the setting has changed."""
        with self._lock:
            if limit != self._limit:
                self._limit, self._slots = limit, threading.BoundedSemaphore(limit)
            return self._slots

    def take_turn(self, per_second: float, before: float) -> float | None:
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
    """After a fork: locks may be held by threads that are gone."""
    global _process
    _process = _Process()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)


class Calls:
    """The calls of one drain, made from many threads, and what they have learnt in common."""

    def __init__(self, gateway: BaseGateway, conf: ViberSettings, *, start_before: float | None = None) -> None:
        self.concurrency = conf.CONCURRENCY
        self.account_code = ""
        self.outage = False
        """Did so many calls in a row have no answer that no more were made?"""
        self.made = 0
        self._gateway = gateway
        self._per_second = conf.MAX_PER_SECOND
        self._start_before = float("inf") if start_before is None else start_before
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._non_answers = 0

    @property
    def stopped(self) -> bool:
        """No call starts any more: the account is refused, nothing answers, the time is over, or it was said."""
        return self._stop.is_set() or time.monotonic() >= self._start_before

    @property
    def in_trouble(self) -> bool:
        """Was the last answer none, or one that refuses the account?"""
        return bool(self.account_code or self._non_answers)

    def stop(self) -> None:
        self._stop.set()

    def make(self, attempt: Attempt) -> None:
        """Call the gateway once, if the attempt may still start."""
        with self._turn() as may_call:
            if may_call and _may_start(attempt):
                # Stands if the call ends in anything but a result: nobody knows then what it did before.
                attempt.result = SendResult(reach=Reach.NO_ANSWER, text="The gateway failed")
                attempt.result = self._call(self._gateway.send, attempt.outgoing) or attempt.result
                self._learn(attempt.result)

    def ask(self, query: Query) -> None:
        """Ask the gateway once what became of a message."""
        with self._turn() as may_call:
            if may_call:
                query.result = self._call(self._gateway.fetch_status, query.message.sms_id)
                self._learn(query.result or StatusResult(reach=Reach.NO_ANSWER))

    @contextmanager
    def _turn(self) -> Iterator[bool]:
        """A place among the calls in flight; False where no call starts any more."""
        if not self._wait_for_turn():
            yield False
            return
        slot = _process.slots(self.concurrency)
        while not slot.acquire(timeout=0.2):
            if self.stopped:
                yield False
                return
        try:
            yield not self.stopped
        finally:
            slot.release()

    def _wait_for_turn(self) -> bool:
        if self.stopped:
            return False
        if self._per_second:
            delay = _process.take_turn(self._per_second, self._start_before)
            return delay is not None and not self._stop.wait(delay)
        return True

    def _call(self, method: Callable[[Subject], Result], subject: Subject) -> Result | None:
        """None where a foreign gateway raises something, though it should not."""
        try:
            return method(subject)
        except Exception as error:  # noqa: BLE001 - what a foreign gateway raises is not known
            logger.error("%s raised %s", method.__qualname__, outline(error))  # noqa: TRY400
            return None

    def _learn(self, result: SendResult | StatusResult) -> None:
        """Stop at once, from the thread that saw it: waiting for the record lets a hundred more go out."""
        with self._lock:
            self.made += 1
            self._non_answers = self._non_answers + 1 if is_non_answer(result) else 0
            if result.code in ACCOUNT_CODES:
                self.account_code = result.code
            if self._non_answers >= self.concurrency:
                self.outage = True
            if self.account_code or self.outage:
                self._stop.set()


def _may_start(attempt: Attempt) -> bool:
    """Do the claim, the day and the deadline still allow it, now?"""
    message, now = attempt.message, timezone.now()
    if message.lease_until is None or message.lease_until <= now:
        return False
    if message.expires_at is not None and message.expires_at <= now:
        return False
    return attempt.first or may_repeat_at(message.uncertain_since or now, now)
