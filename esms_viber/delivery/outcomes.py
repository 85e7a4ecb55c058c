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


def decide(result: SendResult, *, first: bool, while_open: bool = False) -> Decision:
    """Decide by the result of a call.

    `first`: no earlier call under this RequestId may have been taken. `while_open`: the call met a fault that hits
    every message, which is to spoil none of them.
    """
    not_now = Decision(Status.QUEUED if first else Status.UNKNOWN, repeat=True)
    refused = not_now if while_open else Decision(Status.FAILED if first else Status.UNKNOWN)
    if result.outcome is CallOutcome.NOT_CONNECTED:
        return not_now
    if is_silent(result):
        return Decision(Status.UNKNOWN, repeat=True, counts=not while_open)
    match describe(result.code).verdict:
        case Verdict.ACCEPTED:
            return Decision(Status.SENT)
        case Verdict.DUPLICATE:
            return refused if first else Decision(Status.SENT)
        case Verdict.ACCOUNT | Verdict.BRAND:
            return not_now
        case Verdict.PHONE:
            return Decision(Status.FAILED if first else Status.UNKNOWN)
        case Verdict.MESSAGE:
            return refused
        case _:
            return Decision(Status.UNKNOWN, repeat=while_open)


def back_off(attempts: int) -> dt.timedelta:
    """15 s, doubled for each call made, up to 15 minutes; spread, so that waiting messages do not come all at once."""
    seconds = min(15 * 2 ** min(attempts - 1, 10), 900) if attempts else 15
    return dt.timedelta(seconds=seconds * random.uniform(0.75, 1))  # noqa: S311 - jitter, not a secret


def is_silent(result: SendResult | StatusResult) -> bool:
    """Did nothing come back that decides anything? Many such calls in a row are an outage."""
    return result.outcome is not CallOutcome.ANSWERED
