"""The table of outcomes: it decides by the result of a call what becomes of the message."""

from __future__ import annotations

from dataclasses import dataclass

from ..codes import Verdict, describe
from ..gateways.base import CallOutcome, SendResult, StatusResult
from ..models.choices import Status


@dataclass(frozen=True, slots=True)
class Decision:
    """The status of a message after one call, and whether it is called again."""

    status: Status
    repeat: bool = False
    """Will it be called again without anyone asking?"""
    counts: bool = False
    """Is the repeat one of the `MAX_ATTEMPTS`?"""


_SENT = Decision(Status.SENT)
_FAILED = Decision(Status.FAILED)
_LEFT_UNKNOWN = Decision(Status.UNKNOWN)
_REPEATED = Decision(Status.UNKNOWN, repeat=True, counts=True)


def decide(result: SendResult, *, first: bool) -> Decision:
    """Decide by the result of a call. `first`: no earlier call under this RequestId may have been taken."""
    not_now = Decision(Status.QUEUED if first else Status.UNKNOWN, repeat=True)
    if result.outcome is CallOutcome.NOT_CONNECTED:
        return not_now
    if result.outcome is CallOutcome.NO_ANSWER:
        return _REPEATED
    if result.outcome is CallOutcome.ANSWERED_WITHOUT_CODE:
        return _LEFT_UNKNOWN
    match describe(result.code).verdict:
        case Verdict.ACCEPTED:
            return _SENT
        case Verdict.DUPLICATE:
            return _FAILED if first else _SENT
        case Verdict.ACCOUNT:
            return not_now
        case Verdict.MESSAGE:
            return _FAILED if first else _LEFT_UNKNOWN
        case _:
            return _LEFT_UNKNOWN


def is_silent(result: SendResult | StatusResult) -> bool:
    """Did nothing come back? Many such calls in a row are an outage."""
    return result.outcome in {CallOutcome.NOT_CONNECTED, CallOutcome.NO_ANSWER}
