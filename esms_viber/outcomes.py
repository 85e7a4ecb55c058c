"""What the outcome of a call means for its message: one table, as a function of the result alone."""

from __future__ import annotations

import datetime as dt
import random
import zoneinfo
from dataclasses import dataclass

from .codes import Verdict, describe
from .gateways.base import Reach, SendResult, StatusResult
from .models import Status

VIETNAM = zoneinfo.ZoneInfo("Asia/Ho_Chi_Minh")

QUIET_END_OF_DAY = dt.timedelta(minutes=5)
"""No repeat starts so late in the day: it could reach eSMS tomorrow, when the RequestId may count as new."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What to do with a message after one call."""

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
    """First: no call under this RequestId may have been taken before this one."""
    if result.reach is Reach.NOT_CONNECTED:
        return _not_now(first)
    if result.reach is Reach.NO_ANSWER:
        return _REPEATED
    if result.reach is Reach.ANSWERED_WITHOUT_CODE:
        return _LEFT_UNKNOWN
    match describe(result.code).verdict:
        case Verdict.ACCEPTED:
            return _SENT
        case Verdict.DUPLICATE:
            return _FAILED if first else _SENT
        case Verdict.ACCOUNT:
            return _not_now(first)
        case Verdict.MESSAGE:
            return _FAILED if first else _LEFT_UNKNOWN
        case _:
            return _LEFT_UNKNOWN


def _not_now(first: bool) -> Decision:
    return Decision(Status.QUEUED if first else Status.UNKNOWN, repeat=True)


def is_non_answer(result: SendResult | StatusResult) -> bool:
    """Nothing came back: many of these in a row are an outage."""
    return result.reach in {Reach.NOT_CONNECTED, Reach.NO_ANSWER}


def wait_before(attempts: int) -> dt.timedelta:
    """15 s, doubled for each call made, up to 15 minutes; spread, so that waiting messages do not come all at once."""
    seconds = min(15 * 2 ** min(attempts - 1, 10), 900) if attempts else 15
    return dt.timedelta(seconds=seconds * random.uniform(0.75, 1))  # noqa: S311 - jitter, not a secret


FIRST_QUERY = dt.timedelta(minutes=5)
"""After which eSMS is asked about a message of which it has not reported by itself; later at twice that age, and so on.

eSMS documents that it cannot tell of a message at once, and not how long that lasts."""

LAST_QUERY = dt.timedelta(days=6, hours=18)
"""eSMS documents that it tells of the last seven days only."""


def next_query_at(sent_at: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    """When to ask what became of a message, if it has been asked by now; None: not again."""
    age = max(now - sent_at, FIRST_QUERY / 2)
    return sent_at + min(2 * age, LAST_QUERY) if age < LAST_QUERY else None


def may_repeat_at(uncertain_since: dt.datetime, when: dt.datetime) -> bool:
    """Is a repeat with the same RequestId surely on the same Vietnam calendar day as the first call?

    eSMS documents that it blocks a RequestId "within the day" and elsewhere for 24 hours; this trusts the narrower.
    """
    last = (when + QUIET_END_OF_DAY).astimezone(VIETNAM)
    return uncertain_since.astimezone(VIETNAM).date() == last.date()
