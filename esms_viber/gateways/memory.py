"""Keep messages in a list instead of sending them, for tests."""

from __future__ import annotations

import datetime as dt
import threading
import uuid
from collections.abc import MutableSequence
from decimal import Decimal
from typing import Any, ClassVar, TypeVar, overload

from .base import (
    BalanceResult,
    BaseGateway,
    BrandnamesResult,
    CallOutcome,
    OutgoingMessage,
    SendResult,
    SentEntry,
    SentResult,
    StatusResult,
)
from .esms import EsmsGateway
from .loading import running_test

T = TypeVar("T")


class PerTestList(MutableSequence[T]):
    """A list that is empty at the start of each test, because it empties itself when another test uses it."""

    def __init__(self) -> None:
        self._items: list[T] = []
        self._test: object | None = None
        self._lock = threading.Lock()

    def _current(self) -> list[T]:
        test = running_test()
        with self._lock:
            if test is not self._test:
                self._items, self._test = [], test
            return self._items

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> list[T]: ...
    def __getitem__(self, index: int | slice) -> T | list[T]:
        return self._current()[index]

    def __setitem__(self, index: Any, value: Any) -> None:
        self._current()[index] = value

    def __delitem__(self, index: int | slice) -> None:
        del self._current()[index]

    def __len__(self) -> int:
        return len(self._current())

    def insert(self, index: int, value: T) -> None:
        self._current().insert(index, value)

    def __eq__(self, other: object) -> bool:
        return self._current() == (list(other) if isinstance(other, PerTestList) else other)

    __hash__ = None  # type: ignore[assignment]  # unhashable like a list, because its items change

    def __repr__(self) -> str:
        return repr(self._current())


outbox: PerTestList[OutgoingMessage] = PerTestList()
"""Every message given to a `MemoryGateway` of this process in the running test, oldest first."""


class MemoryGateway(BaseGateway):
    """A gateway that answers every message with code 100 and an SMSID of its own, unless `answers` holds a result."""

    answers: ClassVar[PerTestList[SendResult]] = PerTestList()
    """Results for the next sends, in order; shared by all instances, as `outbox` is."""
    statuses: ClassVar[PerTestList[StatusResult]] = PerTestList()
    """Results for the next status queries, in order."""
    balance: ClassVar[BalanceResult] = BalanceResult(
        outcome=CallOutcome.ANSWERED, code="100", balance=Decimal(1_000_000)
    )
    brandnames: ClassVar[PerTestList[str]] = PerTestList()
    """The names that are active for Viber; none: the gateway cannot tell."""
    sent: ClassVar[PerTestList[SentEntry]] = PerTestList()
    """The gateway's list of what was sent. What goes to the outbox is not put into it."""
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def send(self, message: OutgoingMessage, *, deadline: float | None = None) -> SendResult:
        with self._lock:
            outbox.append(message)
            if self.answers:
                return self.answers.pop(0)
        return SendResult(
            outcome=CallOutcome.ANSWERED, code="100", sms_id=f"memory-{uuid.uuid4().hex}", http_status=200
        )

    @classmethod
    def usual_query_length(cls, message: OutgoingMessage) -> int:
        """Measure as eSMS's gateway does, so that a test fails for a message too long for eSMS."""
        return EsmsGateway.usual_query_length(message)

    def fetch_status(self, sms_id: str) -> StatusResult:
        """Return the next of `statuses`, or else status 7: handed over, no report yet."""
        with self._lock:
            if self.statuses:
                return self.statuses.pop(0)
        return StatusResult(outcome=CallOutcome.ANSWERED, code="100", values={"SMSID": sms_id, "SendStatus": "7"})

    def fetch_balance(self) -> BalanceResult:
        return self.balance

    def fetch_brandnames(self) -> BrandnamesResult:
        if not self.brandnames:
            return super().fetch_brandnames()
        return BrandnamesResult(outcome=CallOutcome.ANSWERED, code="100", brandnames=tuple(self.brandnames))

    def fetch_sent(self, begin: dt.datetime, end: dt.datetime, page: int) -> SentResult:
        """Return those of `sent` that are of this time, all on one page."""
        found = tuple(entry for entry in self.sent if begin <= entry.sent_at <= end)
        entries = found if page == 1 else ()
        return SentResult(outcome=CallOutcome.ANSWERED, code="100", entries=entries, total=len(found))

    @classmethod
    def reset(cls) -> None:
        """Empty the outbox, drop the results that wait in `answers` and `statuses`, and forget `sent` and names."""
        with cls._lock:
            outbox.clear()
            cls.answers.clear()
            cls.statuses.clear()
            cls.brandnames.clear()
            cls.sent.clear()
