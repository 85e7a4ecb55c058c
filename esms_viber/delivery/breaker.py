"""The circuit breaker: it opens when calls show that a fault hits every message, and closes when one is accepted again.

There is one for the account and one for each brand name, shared by all processes through `ViberGatewayState`. While it
is open, whoever wins the place of the prober makes one call at a time.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import DatabaseError
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from ..codes import Verdict, describe, loggable
from ..conf import get_settings
from ..database import lock
from ..exceptions import log_failure
from ..models import ViberGatewayState
from .payload import Attempt, Probe

logger = logging.getLogger("esms_viber")

ACCOUNT = ""
"""The name of the account's breaker; the others have that of their brand."""

OPENS_AT = 5
"""Calls in a row without an answer, or messages in a row refused with one code, that open it."""

FIRST_WAIT, LONGEST_WAIT = dt.timedelta(seconds=15), dt.timedelta(minutes=2)
"""Until the first probe; then twice the wait before, up to the longest."""

NOT_ANSWERING = gettext_noop("Not sent yet: eSMS does not answer. It is sent when eSMS answers again.")

ACCURACY = dt.timedelta(seconds=1)
"""`last_accepted_at` is kept this exactly while all is well, so that not every message writes to the same row."""

SEEN_EVERY = dt.timedelta(minutes=1)
"""`sender_seen_at` is written no more often."""

States = Mapping[str, ViberGatewayState]


# -- what it has come to -----------------------------------------------------------------------------------------------


def look() -> States:
    """Return the breakers that are open, or on their way there, by name."""
    return {state.brandname: state for state in ViberGatewayState.objects.for_writing().in_trouble()}


def look_in() -> States:
    """Do as `look()`, for a worker: note that it was seen, at most every minute."""
    rows = {state.brandname: state for state in ViberGatewayState.objects.for_writing().in_trouble_or_account()}
    now, account = timezone.now(), rows.get(ACCOUNT)
    seen_at = account.sender_seen_at if account is not None else None
    if seen_at is None or not dt.timedelta(0) <= now - seen_at < SEEN_EVERY:
        try:
            ViberGatewayState.objects.note_of_account(sender_seen_at=now)
        except DatabaseError as error:  # which must not keep messages from being sent
            log_failure(error, "it cannot be noted that a worker is running")
    return {name: state for name, state in rows.items() if state.in_trouble}


def holding(states: States, brandname: str, *, in_request: bool) -> ViberGatewayState | None:
    """Return the breaker that keeps messages of this brand name from being called for."""
    for name in (ACCOUNT, brandname):
        if name in states and states[name].holds(in_request=in_request):
            return states[name]
    return None


def reason(state: ViberGatewayState) -> dict[str, Any]:
    """Return the columns of a queued message that say why it waits."""
    return {"code_result": state.code, "error_message": "" if state.code else NOT_ANSWERING}


def names_of(brandname: str) -> Sequence[str]:
    """Return what messages under a brand name have in their row: an empty name stands for the setting's."""
    return [brandname, ""] if brandname == get_settings().BRANDNAME else [brandname]


# -- probes ------------------------------------------------------------------------------------------------------------


def win_probe(name: str, seconds: float) -> Probe | None:
    """Take the place of the prober for so long; None where no probe is due, or another has the place."""
    now = timezone.now()
    until = now + dt.timedelta(seconds=seconds)
    rows = ViberGatewayState.objects.for_writing().filter(brandname=name)
    is_due = Q(next_probe_at__lte=now) | Q(next_probe_at=None)
    is_free = Q(probe_until__lt=now) | Q(probe_until=None)
    return Probe(name, until) if rows.filter(is_due, is_free).update(probe_until=until) else None


def give_back(probe: Probe) -> None:
    """Leave the place of the prober, because no call was made."""
    rows = ViberGatewayState.objects.for_writing().filter(brandname=probe.name, probe_until=probe.until)
    rows.update(probe_until=None)


# -- learning from calls -----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lesson:
    """The changes that some calls have made."""

    states: States
    """The breakers of these calls, as they are now."""
    opened: list[ViberGatewayState] = field(default_factory=list)
    closed: list[ViberGatewayState] = field(default_factory=list)


def learn(attempts: Iterable[Attempt], *, known: States | None, in_request: bool) -> Lesson:
    """Take note of calls, in the order in which they ended, in the transaction that records their results.

    Sets `while_open` on each attempt. A row is written only where it changes. `known`: the breakers in trouble, if they
    were looked at within `ACCURACY`; then accepted calls can change nothing where there are none.
    """
    calls = sorted((attempt for attempt in attempts if attempt.result is not None), key=lambda call: call.ended)
    if not calls or (known == {} and all(is_accepted(call) for call in calls)):
        return Lesson({})
    names = {ACCOUNT, *(call.outgoing.brandname for call in calls), *(call.probe.name for call in calls if call.probe)}
    table = ViberGatewayState.objects.for_writing()
    rows = table.filter(brandname__in=names).order_by("brandname")
    states = {name: ViberGatewayState(brandname=name) for name in names} | {row.brandname: row for row in rows}
    before = {name: _columns(state) for name, state in states.items()}
    for call in calls:
        _fold(states, call, in_request=in_request)
    changed = sorted(name for name, state in states.items() if _differs(before[name], _columns(state)))
    if not changed:
        return Lesson(states)

    # These rows change. Lock them, and change them as they stand by now.
    if missing := [ViberGatewayState(brandname=name) for name in changed if states[name].pk is None]:
        table.bulk_create(missing, ignore_conflicts=True)
    for name in names:
        states[name] = ViberGatewayState(brandname=name, **before[name])
    states |= {row.brandname: row for row in lock(rows.filter(brandname__in=changed))}
    before = {name: _columns(state) for name, state in states.items()}
    for call in calls:
        _fold(states, call, in_request=in_request)
    for name in changed:
        table.filter(brandname=name).update(**_columns(states[name]))
    lesson = Lesson(states)
    for name in changed:
        was_open, is_open = before[name]["opened_at"] is not None, states[name].is_open
        if is_open and (not was_open or states[name].code != before[name]["code"]):
            lesson.opened.append(states[name])
        elif was_open and not is_open:
            lesson.closed.append(states[name])
    return lesson


_COLUMNS = (
    "silent",
    "code",
    "refusals",
    "last_accepted_at",
    "opened_at",
    "probes",
    "next_probe_at",
    "probe_until",
)
"""The breaker's own columns. The others of the account's row are written elsewhere, at any time."""


def _columns(state: ViberGatewayState) -> dict[str, Any]:
    return {name: getattr(state, name) for name in _COLUMNS}


def _differs(before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
    known, accepted = before["last_accepted_at"], after["last_accepted_at"]
    if accepted != known and (known is None or accepted - known > ACCURACY):
        return True
    return {**before, "last_accepted_at": None} != {**after, "last_accepted_at": None}


def _fold(states: States, call: Attempt, *, in_request: bool) -> None:
    """Change the breakers by one call."""
    account, brand = states[ACCOUNT], states[call.outgoing.brandname]
    code = call.result.code if call.result else ""
    verdict = describe(code).verdict
    call.while_open, brand_was_open = account.is_open or brand.is_open, brand.is_open
    if call.is_silent:
        # A call that hung while others were accepted says nothing about what came after them.
        if account.last_accepted_at is None or call.began >= account.last_accepted_at:
            account.silent += 1
            if account.silent >= OPENS_AT:
                account.code = ""
                _open(account, call.ended)
            elif in_request and account.next_probe_at is None:
                account.next_probe_at = call.ended + FIRST_WAIT
        call.while_open = account.is_open or brand.is_open
    elif is_accepted(call):
        account.last_accepted_at = max(account.last_accepted_at or call.ended, call.ended)
        for state in (account, brand):
            # A call that began before a refusal says nothing about what came after it.
            if state.opened_at is None or not state.code or call.began >= state.opened_at:
                _close(state)
    else:
        # eSMS answers, so an outage is over; a refused account need not be in order again.
        if account.is_open and account.code:
            account.silent = 0
        elif account.is_open or account.silent:
            _close(account)
        if verdict is Verdict.ACCOUNT:
            account.code = code
            _open(account, call.ended)
        elif verdict is Verdict.BRAND:
            brand.code = code
            _open(brand, call.ended)
        elif verdict is not Verdict.PHONE:
            for state in {id(state): state for state in (brand, account)}.values():
                if not state.is_open:
                    state.refusals = state.refusals + 1 if state.code == code else 1
                    state.code = code
            if brand.refusals >= OPENS_AT:
                _open(brand, call.ended)
            elif account.refusals >= OPENS_AT:
                # More than one brand name is concerned.
                _open(account, call.ended)
    if call.probe is not None:
        # A brand name that is refused again is all that there is to probe with.
        about_others = {Verdict.PHONE} if call.probe.name or brand_was_open else {Verdict.PHONE, Verdict.BRAND}
        _end_probe(states[call.probe.name], call, tells=verdict not in about_others)


def is_accepted(call: Attempt) -> bool:
    """Does eSMS have the message, by this call or by one before?"""
    verdict = describe(call.result.code if call.result else "").verdict
    return verdict is Verdict.ACCEPTED or (verdict is Verdict.DUPLICATE and not call.first)


def _open(state: ViberGatewayState, now: dt.datetime) -> None:
    if not state.is_open:
        state.opened_at, state.probes, state.next_probe_at = now, 0, now + FIRST_WAIT


def _close(state: ViberGatewayState) -> None:
    state.silent, state.refusals, state.code = 0, 0, ""
    state.opened_at, state.probes, state.next_probe_at = None, 0, None


def _end_probe(state: ViberGatewayState, call: Attempt, *, tells: bool) -> None:
    """Free the place of the prober, and say when the next one is due, if the fault goes on."""
    if call.probe is not None and state.probe_until == call.probe.until:
        state.probe_until = None
    if state.next_probe_at is None:
        return
    if not tells:
        # It says something of a phone, or of one brand name only: the next message is tried at once.
        state.next_probe_at = call.ended
    else:
        state.probes += 1
        wait = min(FIRST_WAIT * 2 ** min(state.probes, 10), LONGEST_WAIT)
        state.next_probe_at = max(call.began + wait, call.ended)


# -- telling -----------------------------------------------------------------------------------------------------------


def tell(lesson: Lesson) -> None:
    """Write to the log, once for all processes, what a committed lesson has opened or closed."""
    for state in lesson.opened:
        code = loggable(state.code)
        if not state.code:
            logger.error("eSMS does not answer: calls stop, messages wait, and one at a time is tried")
        elif state.brandname == ACCOUNT:
            logger.error("eSMS refuses the account (code %s): messages wait, and one at a time is tried", code)
        else:
            logger.error(
                "eSMS refuses messages under the brand name %r (code %s): they wait, and one at a time is tried",
                state.brandname,
                code,
            )
    for state in lesson.closed:
        where = f" under the brand name {state.brandname!r}" if state.brandname else ""
        logger.warning("eSMS takes messages again%s", where)
