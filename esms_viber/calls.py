"""The sender threads: when a call may start, and when no more should. No database here."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from django.utils import timezone

from .codes import ACCOUNT_CODES
from .conf import ViberSettings
from .gateways.base import BaseGateway, OutgoingMessage, Reach, SendResult
from .models import OutboundViberMessage
from .outcomes import is_non_answer, may_repeat_at

logger = logging.getLogger("esms_viber")


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed message and the call to make for it."""

    message: OutboundViberMessage
    outgoing: OutgoingMessage
    first: bool
    """Can no earlier call under this RequestId have been taken?"""
    result: SendResult | None = None
    """None: no call was made."""


class _Pace:
    """`MAX_PER_SECOND`, for all threads of the process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next = 0.0

    def delay(self, per_second: float) -> float:
        """Seconds to wait for the turn that this reserves."""
        with self._lock:
            now = time.monotonic()
            turn = max(now, self._next)
            self._next = turn + 1 / per_second
            return turn - now


_pace = _Pace()


class Calls:
    """The calls of one drain, made from many threads, and what they have learnt in common."""

    def __init__(self, gateway: BaseGateway, conf: ViberSettings, *, start_before: float | None = None) -> None:
        self.concurrency = conf.CONCURRENCY
        self.account_code = ""
        self._gateway = gateway
        self._per_second = conf.MAX_PER_SECOND
        self._start_before = start_before
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._non_answers = 0

    @property
    def stopped(self) -> bool:
        """No call starts any more: the account is refused, nothing answers, the time is over, or it was said."""
        return self._stop.is_set() or (self._start_before is not None and time.monotonic() >= self._start_before)

    def stop(self) -> None:
        self._stop.set()

    def make(self, attempt: Attempt) -> None:
        """Call the gateway once, if the attempt may still start."""
        if self._per_second and not self.stopped:
            self._stop.wait(_pace.delay(self._per_second))
        if self.stopped or not _may_start(attempt):
            return
        attempt.result = self._send(attempt.outgoing)
        self._learn(attempt.result)

    def _send(self, outgoing: OutgoingMessage) -> SendResult:
        try:
            return self._gateway.send(outgoing)
        except Exception as error:  # noqa: BLE001 - a foreign gateway; what it did before raising is not known
            # Neither the text nor the traceback: they may hold what the gateway sent.
            logger.error("%s.send() raised %s", type(self._gateway).__name__, type(error).__name__)  # noqa: TRY400
            return SendResult(reach=Reach.NO_ANSWER, text=f"The gateway failed: {type(error).__name__}")

    def _learn(self, result: SendResult) -> None:
        """Stop at once, from the thread that saw it: waiting for the record lets a hundred more go out."""
        with self._lock:
            self._non_answers = self._non_answers + 1 if is_non_answer(result) else 0
            if result.code in ACCOUNT_CODES:
                self.account_code = result.code
            if self.account_code or self._non_answers >= self.concurrency:
                self._stop.set()


def _may_start(attempt: Attempt) -> bool:
    """Do the claim, the day and the deadline still allow it, now?"""
    message, now = attempt.message, timezone.now()
    if message.lease_until is None or message.lease_until <= now:
        return False
    if message.expires_at is not None and message.expires_at <= now:
        return False
    return attempt.first or may_repeat_at(message.uncertain_since or now, now)
