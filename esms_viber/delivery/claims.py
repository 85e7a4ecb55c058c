"""Claim messages, hold on to the claims, ask the site before a call, and release what is not called for.

Each step is one short transaction, and none is open while eSMS is called.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import random
import uuid
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from operator import itemgetter
from typing import Any

from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..conf import get_settings
from ..database import AWAY, has_row_locks, in_transaction, lock
from ..exceptions import log_failure
from ..formatting import put_together
from ..lifecycle import ABANDONED, Transition
from ..models import OutboundViberMessage, Status, ViberGatewayState, ViberOptOut, ViberPause
from ..models.opt_out import forbids
from ..models.pause import MOST_LANES, Holds, due_lanes
from ..models.querysets import MessageQuerySet
from ..signals import CancelSend, pre_send
from .outcomes import back_off
from .payload import Attempt, Probe, outgoing_for

logger = logging.getLogger("esms_viber")

LEASE = dt.timedelta(minutes=2)
"""How long a claim holds without being renewed; then another worker takes the message over."""

_TAKEN_OVER = gettext_noop("The process that was sending it has stopped; another took it over.")
_NOT_CHECKED = gettext_noop("Not sent: this site's own check before sending (pre_send) failed.")
_VETOED = gettext_noop("This site decided not to send it.")
_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Claimed:
    """The result of a look for work."""

    ready: list[OutboundViberMessage] = field(default_factory=list)
    """They are `sending` now, and ours."""
    settled: list[OutboundViberMessage] = field(default_factory=list)
    """They were due and will not be called: expired, or not to be repeated any more."""
    changes: list[Transition] = field(default_factory=list)
    """The committed transitions, for the caller to announce."""
    holds: Holds = field(default_factory=Holds)
    """What kept others waiting."""

    @property
    def found(self) -> int:
        return len(self.ready) + len(self.settled)


def new_claim(now: dt.datetime) -> tuple[str, dt.datetime]:
    """Draw the id of a claim, and the end of its lease."""
    return uuid.uuid4().hex, now + LEASE


# -- claiming ----------------------------------------------------------------------------------------------------------


def claim(
    limit: int,
    pks: Sequence[int] | None = None,
    *,
    but_not: Collection[str] = (),
    holds: Holds | None = None,
    repeats_first: bool = True,
    urgent_only: bool = False,
) -> Claimed:
    """Claim at most `limit` messages that are due, of these primary keys or any, `but_not` under these brand names.

    Nothing found: nothing is due. Transactional messages come before promotional ones; `urgent_only` leaves out all but
    those that were never called for. `holds`: what the caller knows of pauses, so that it is looked for elsewhere; what
    holds by now is asked again before anything is claimed.
    """
    rows = OutboundViberMessage.objects.for_writing()
    holds = holds or ViberPause.objects.holds()
    purposes = holds.purposes()
    if holds.everything:
        return Claimed(holds=holds)
    if pks is not None:
        mine = rows.due().filter(pk__in=pks, purpose__in=purposes).order_by("pk")
        mine = mine.exclude(brandname__in=but_not).exclude(campaign__in=holds.campaigns)
        return _claim(lambda _now: list(lock(mine)[:limit]), holds)
    queued = [rows.queued().filter(purpose=purpose) for purpose in purposes]
    repeats = [rows.unknown().filter(purpose=purpose) for purpose in purposes]
    # Of each purpose repeats come first, because they expire at midnight in Vietnam. After an outage new messages come
    # first, so that messages which always time out cannot keep the breaker open.
    in_turn = [each for pair in zip(repeats, queued, strict=True) for each in pair]
    classes = queued[:1] if urgent_only else in_turn if repeats_first else [*queued, *repeats]
    due = [_due_lanes(each, but_not, holds) for each in classes]

    def find(now: dt.datetime) -> list[OutboundViberMessage]:
        found: list[OutboundViberMessage] = []
        for lanes in due:
            # In any order, so that none comes last each time where there are more of them than messages to claim.
            random.shuffle(lanes)
            for number, lane in enumerate(lanes):
                # Each gets its share of what is left to claim, and leaves to the next ones what it has no use for.
                share = math.ceil((limit - len(found)) / (len(lanes) - number))
                found += lock(lane.soonest_first(now), skip_locked=True)[:share]
        return found

    return _claim(find, holds) if any(due) else Claimed(holds=holds)


def claim_for_probe(
    pks: Sequence[int] | None = None,
    *,
    brandnames: Collection[str] = (),
    but_not: Collection[str] = (),
    another: bool = False,
) -> Claimed:
    """Claim the one message that is to show whether a fault is over: the oldest that is due for a repeat.

    A message that was never called for comes only where nothing is to be repeated: one of these primary keys, or any.
    `another`: the newest of those instead, because what was tried so far may be of a kind that eSMS never takes.
    `brandnames`: only under these; `but_not`: under none of these.
    """
    rows, now, holds = OutboundViberMessage.objects.for_writing(), timezone.now(), ViberPause.objects.holds()
    if holds.everything:
        return Claimed(holds=holds)

    def lanes(kind: MessageQuerySet, *, newest: bool = False) -> list[MessageQuerySet]:
        """Return the lanes of one status, that of the oldest, or else the newest, message first."""
        found = []
        for purpose in holds.purposes():
            of_purpose = kind.filter(purpose=purpose)
            if brandnames:
                named = list(of_purpose.lanes(brandnames=brandnames, paused=holds.campaigns))
            else:
                named = _due_lanes(of_purpose, but_not, holds)
            found += [lane.soonest_first(now) for lane in named]
        found = [lane.reverse() for lane in found] if newest else found
        if len(found) < 2:
            return found
        heads = [(lane.values_list("next_attempt_at", "pk").first(), lane) for lane in found]
        due = sorted(((head, lane) for head, lane in heads if head is not None), key=itemgetter(0), reverse=newest)
        return [lane for _head, lane in due]

    fresh = rows.queued() if pks is None else rows.queued().filter(pk__in=pks)
    repeats, queued = lanes(rows.unknown()), lanes(fresh, newest=another)
    order = [*queued, *repeats] if another else [*repeats, *queued]

    def find(_now: dt.datetime) -> list[OutboundViberMessage]:
        for lane in order:
            if found := list(lock(lane, skip_locked=True)[:1]):
                return found
        return []

    return _claim(find, holds) if order else Claimed(holds=holds)


def due_pks(campaign: str, *, most: int = 50_000) -> list[int]:
    """Return the primary keys of due messages of a campaign, or of any where it is empty, which nothing holds now."""
    rows, holds = OutboundViberMessage.objects.for_writing(), ViberPause.objects.holds()
    found: list[int] = []
    for lane in due_lanes(rows, holds, timezone.now(), campaign=campaign):
        found += lane.values_list("pk", flat=True)[: most - len(found)]
    return found


def _due_lanes(rows: MessageQuerySet, but_not: Collection[str], holds: Holds) -> list[MessageQuerySet]:
    """Split the rows of one status and purpose, where some have to wait, by the lanes that have something due.

    Where there are very many, by some of them: the next look goes on with the others.
    """
    global _looked_until
    if not (but_not or holds.campaigns):
        # Look before the transaction, because on SQLite even looking for work in one keeps others from writing.
        return [rows] if has_row_locks(rows.db) or rows.soonest_first(timezone.now()).exists() else []
    found = []
    for number, lane in enumerate(rows.lanes(but_not=but_not, paused=holds.campaigns, after=_looked_until), start=1):
        first = lane.soonest_first(timezone.now()).values_list("campaign", flat=True).first()
        if first is not None:
            found.append(lane)
            if number >= MOST_LANES:
                _looked_until = first
                return found
    _looked_until = ""
    return found


_looked_until = ""
"""The campaign at which this process stopped looking, because it had seen enough lanes."""


def _claim(find: Callable[[dt.datetime], list[OutboundViberMessage]], known: Holds) -> Claimed:
    claim_id, _lease_until = new_claim(timezone.now())

    def write() -> Claimed:
        now = timezone.now()
        found = find(now)
        if not found:
            return Claimed(holds=known)
        # Ask with the rows locked, because somebody may have paused or opted out since they were looked for.
        holds = ViberPause.objects.holds()
        scopes = ViberOptOut.objects.among(message.phone for message in found)
        ready, ended, over = list[OutboundViberMessage](), list[Transition](), list[OutboundViberMessage]()
        for message in found:
            is_past = message.expires_at is not None and message.expires_at <= now
            is_out = forbids(scopes.get(message.phone), message.purpose)
            is_redacted = message.redacted_at is not None
            since = message.uncertain_since
            if message.status == Status.QUEUED and is_redacted:
                ended.append(lifecycle.cancel(message, lifecycle.REDACTED))
            elif message.status == Status.QUEUED and (is_past or is_out):
                ended.append(lifecycle.take_out(message) if is_out else lifecycle.expire(message))
            elif since is not None and (is_past or is_out or is_redacted or not lifecycle.may_repeat_at(since, now)):
                over.append(message)
            elif not holds.reason(message, now):
                ready.append(message)
        claims = [lifecycle.claim(message, claim_id, now + LEASE) for message in ready]
        lifecycle.write(*ended, *claims)
        lifecycle.store_events(change.event for change in ended)
        lifecycle.stop_repeating(over)
        return Claimed(ready, [*(change.message for change in ended), *over], [*ended, *claims], holds)

    def was_committed(claimed: Claimed) -> bool:
        is_ours = OutboundViberMessage.objects.for_writing().filter(claim_id=claim_id, status=Status.SENDING)
        return is_ours.exists() or lifecycle.is_stored(change.event for change in claimed.changes)

    alias = OutboundViberMessage.objects.write_alias()
    claimed = in_transaction(write, using=alias, was_committed=was_committed)
    lifecycle.adopt(claimed.changes)
    for message in claimed.settled:
        if message.status == Status.UNKNOWN:
            lifecycle.log_undecided(message)
    return claimed


def take_over_abandoned() -> list[Transition]:
    """Return to the queue what workers that are gone had claimed; as uncertain where a call may have been made.

    A row that the database does not let change is logged, and keeps no other from being taken over.
    """
    abandoned = OutboundViberMessage.objects.for_writing().abandoned().order_by("lease_until")
    taken: list[Transition] = []
    failed: set[int] = set()
    while pks := list(abandoned.exclude(pk__in=failed).values_list("pk", flat=True)[:_AT_ONCE]):
        found = _take_over(pks, failed)
        if not found and failed.isdisjoint(pks):
            break  # another worker has them locked
        taken += found
    return taken


def _take_over(pks: Sequence[int], failed: set[int]) -> list[Transition]:
    try:
        changes = in_transaction(
            partial(_write_take_over, pks),
            using=OutboundViberMessage.objects.write_alias(),
            was_committed=lambda changes: lifecycle.is_stored(change.event for change in changes),
        )
    except AWAY:
        raise
    except Exception as error:  # noqa: BLE001 - a database and its triggers raise what they like
        if len(pks) > 1:
            return [change for pk in pks for change in _take_over([pk], failed)]
        log_failure(error, "message %s cannot be taken over from a worker that is gone", pks[0])
        failed.update(pks)
        return []
    lifecycle.adopt(changes)
    if changes:
        logger.warning("took over %d messages of workers that are gone", len(changes))
    for change in changes:
        if change.to == Status.UNKNOWN and change.message.next_attempt_at is None:
            lifecycle.log_undecided(change.message)
    return changes


def _write_take_over(pks: Sequence[int]) -> list[Transition]:
    now = timezone.now()
    rows = OutboundViberMessage.objects.for_writing().abandoned(now).filter(pk__in=pks).order_by("pk")
    messages = list(lock(rows, skip_locked=True))
    uncertain = [message for message in messages if message.uncertain_since]
    unanswered = lifecycle.count_unanswered(uncertain)
    is_open = bool(uncertain) and ViberGatewayState.objects.for_writing().filter(opened_at__isnull=False).exists()
    most = get_settings().MAX_ATTEMPTS
    changes = []
    for message in messages:
        # The call that may have been made counts as one without an answer.
        exhausted = message.uncertain_since and not is_open and unanswered[message.id] + 1 >= most
        change = lifecycle.release(message, when=None if exhausted else now)
        data = {"outcome": ABANDONED, "while_open": is_open} if message.uncertain_since else {}
        change.event = lifecycle.make_note(message, _TAKEN_OVER, data=data)
        changes.append(change)
    lifecycle.write(*changes)
    lifecycle.store_events(change.event for change in changes)
    return changes


# -- holding -----------------------------------------------------------------------------------------------------------


def renew(messages: Iterable[OutboundViberMessage]) -> None:
    """Renew the leases of those of the messages that are still ours. A lost one is None afterwards."""
    messages = list(messages)
    if not messages:
        return
    until = timezone.now() + LEASE

    def write() -> set[int]:
        ours = _lock_claimed(messages)
        OutboundViberMessage.objects.for_writing().filter(pk__in=ours).update(lease_until=until)
        return ours

    ours = in_transaction(write, using=OutboundViberMessage.objects.write_alias())
    for message in messages:
        message.lease_until = until if message.id in ours else None


def _lock_claimed(messages: Iterable[OutboundViberMessage]) -> set[int]:
    """Lock those that are still ours, in the order in which everybody locks. Returns their primary keys.

    Note on each whether it has been redacted since it was claimed.
    """
    claimed = {message.id: message for message in messages}
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=claimed, status=Status.SENDING)
    ours = set()
    for pk, claim_id, redacted_at in lock(rows.order_by("pk")).values_list("pk", "claim_id", "redacted_at"):
        if claim_id == claimed[pk].claim_id:
            claimed[pk].redacted_at = redacted_at
            ours.add(pk)
    return ours


def take_out_opted_out(
    messages: Collection[OutboundViberMessage],
) -> tuple[list[OutboundViberMessage], list[Transition]]:
    """Give up the claims of messages whose phones have opted out since; returns them, and what became of them.

    One that surely was not sent is cancelled; another is not repeated any more.
    """
    scopes = ViberOptOut.objects.among(message.phone for message in messages)
    out = [message for message in messages if forbids(scopes.get(message.phone), message.purpose)]

    def write() -> list[Transition]:
        ours = _lock_claimed(out)
        changes = [
            lifecycle.take_out(message) if message.uncertain_since is None else lifecycle.release(message, when=None)
            for message in out
            if message.id in ours
        ]
        lifecycle.write(*changes)
        lifecycle.store_events(change.event for change in changes)
        return changes

    if not out:
        return [], []

    def was_committed(changes: list[Transition]) -> bool:
        return bool(changes) and not _lock_claimed(change.message for change in changes)

    alias = OutboundViberMessage.objects.write_alias()
    changes = in_transaction(write, using=alias, was_committed=was_committed)
    lifecycle.adopt(changes)
    return out, changes


# -- before the call ---------------------------------------------------------------------------------------------------


def prepare(message: OutboundViberMessage, probe: Probe | None = None) -> Attempt:
    first = message.uncertain_since is None
    return Attempt(message, outgoing_for(message), first, message.code_result, probe)


def refused_by_site(attempt: Attempt) -> tuple[bool, list[Transition]]:
    """Ask the site's receivers before a message goes out for the first time.

    Returns whether they refuse it, and what becomes of it then: nothing, if another worker has taken it over meanwhile.
    """
    message = attempt.message
    if not attempt.first:
        return False, []
    try:
        pre_send.send(OutboundViberMessage, message=message)
    except CancelSend as veto:
        reason, is_vetoed = str(veto) or _VETOED, True
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "a pre_send receiver failed; message %s waits", message.id)
        reason, is_vetoed = put_together(_NOT_CHECKED, type(error).__name__), False
    else:
        return False, []
    now, fingerprint = timezone.now(), uuid.uuid4().hex

    def write() -> list[Transition]:
        if not _lock_claimed([message]):
            return []
        if message.redacted_at is not None:
            # The site's reason may name the customer.
            change = lifecycle.cancel(message, lifecycle.REDACTED)
        elif is_vetoed:
            change = lifecycle.cancel(message, reason)
        else:
            change = lifecycle.release(message, when=now + back_off(5), code_result="", error_message=reason)
            change.columns["held_up_since"] = message.held_up_since or now
        change.event = lifecycle.make_note(message, change.columns["error_message"], fingerprint=fingerprint)
        lifecycle.write(change)
        lifecycle.store_events([change.event])
        return [change]

    alias = OutboundViberMessage.objects.write_alias()
    changes = in_transaction(
        write, using=alias, was_committed=lambda changes: lifecycle.is_stored(change.event for change in changes)
    )
    lifecycle.adopt(changes)
    return True, changes


def release(messages: Iterable[OutboundViberMessage], reason: Mapping[str, Any]) -> list[Transition]:
    """Give up the claims of messages for which no call is made. They keep their place in the queue.

    `reason`: columns that say why a queued one waits.
    """
    held = [message for message in messages if message.status == Status.SENDING]

    def write() -> list[Transition]:
        ours = _lock_claimed(held)
        changes = [
            lifecycle.release(m, when=m.next_attempt_at, **({} if m.uncertain_since else reason))
            for m in held
            if m.id in ours
        ]
        lifecycle.write(*changes)
        return changes

    if not held:
        return []

    def was_committed(changes: list[Transition]) -> bool:
        return bool(changes) and not _lock_claimed(change.message for change in changes)

    alias = OutboundViberMessage.objects.write_alias()
    changes = in_transaction(write, using=alias, was_committed=was_committed)
    lifecycle.adopt(changes)
    return changes
