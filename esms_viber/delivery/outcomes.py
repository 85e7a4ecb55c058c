"""The table of outcomes: the result of a call decides what becomes of the message. And how long a repeat waits."""

from __future__ import annotations

import datetime as dt
import random
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
    """Does the call count against `MAX_ATTEMPTS`?"""


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


def back_off(attempts: int) -> dt.timedelta:
    """15 s, doubled for each call made, up to 15 minutes; spread, so that waiting messages do not come all at once."""
    seconds = min(15 * 2 ** min(attempts - 1, 10), 900) if attempts else 15
    return dt.timedelta(seconds=seconds * random.uniform(0.75, 1))  # noqa: S311 - jitter, not a secret


def is_silent(result: SendResult | StatusResult) -> bool:
    """Did nothing come back? Many such calls in a row are an outage."""
    return result.outcome in {CallOutcome.NOT_CONNECTED, CallOutcome.NO_ANSWER}
