"""Keeps messages in a list instead of sending them: for tests."""

from __future__ import annotations

import threading
import uuid
from collections import deque
from decimal import Decimal
from typing import ClassVar

from .base import BalanceResult, BaseGateway, OutgoingMessage, Reach, SendResult, StatusResult
from .esms import usual_query_length

outbox: list[OutgoingMessage] = []
"""Every message given to a `MemoryGateway` of this process, oldest first."""


class MemoryGateway(BaseGateway):
    """Answers every message with code 100 and an SMSID of its own, unless `answers` holds something else."""

    answers: ClassVar[deque[SendResult]] = deque()
    """Results for the next sends, in order; shared by all instances, as `outbox` is."""
    statuses: ClassVar[deque[StatusResult]] = deque()
    """Results for the next status queries, in order."""
    balance: ClassVar[BalanceResult] = BalanceResult(reach=Reach.ANSWERED, code="100", balance=Decimal(1_000_000))
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def send(self, message: OutgoingMessage) -> SendResult:
        with self._lock:
            outbox.append(message)
            if self.answers:
                return self.answers.popleft()
        return SendResult(reach=Reach.ANSWERED, code="100", sms_id=f"memory-{uuid.uuid4().hex}", http_status=200)

    def query_length(self, message: OutgoingMessage) -> int:
        """As for eSMS: what is too long there is refused here."""
        return usual_query_length(message)

    def fetch_status(self, sms_id: str) -> StatusResult:
        """Unless scripted, status 7: handed over, no report yet."""
        with self._lock:
            if self.statuses:
                return self.statuses.popleft()
        return StatusResult(reach=Reach.ANSWERED, code="100", values={"SMSID": sms_id, "SendStatus": "7"})

    def fetch_balance(self) -> BalanceResult:
        return self.balance

    @classmethod
    def reset(cls) -> None:
        """Forget what was sent and what was scripted."""
        with cls._lock:
            outbox.clear()
            cls.answers.clear()
            cls.statuses.clear()
