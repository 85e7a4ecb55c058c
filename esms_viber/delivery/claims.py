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
from ..models import OutboundViberMessage, Status, ViberGatewayState
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

    @property
    def found(self) -> int:
        return len(self.ready) + len(self.settled)


def new_claim(now: dt.datetime) -> tuple[str, dt.datetime]:
    """Draw the id of a claim, and the end of its lease."""
    return uuid.uuid4().hex, now + LEASE


# -- claiming ----------------------------------------------------------------------------------------------------------


def claim(
    limit: int, pks: Sequence[int] | None = None, *, but_not: Collection[str] = (), repeats_first: bool = True
) -> Claimed:
    """Claim at most `limit` messages that are due, of these primary keys or any, `but_not` under these brand names.

    Nothing found: nothing is due.
    """
    rows = OutboundViberMessage.objects.for_writing()
    if pks is not None:
        mine = rows.due().filter(pk__in=pks).exclude(brandname__in=but_not).order_by("pk")
        return _claim(lambda _now: list(lock(mine)[:limit]))
    # Repeats come first, because they expire at midnight in Vietnam. After an outage new messages come first, so that
    # messages which always time out cannot keep the breaker open.
    kinds = [rows.unknown(), rows.queued()] if repeats_first else [rows.queued(), rows.unknown()]
    due = [_due_lanes(kind, but_not) for kind in kinds]

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

    return _claim(find) if any(due) else Claimed()


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
    rows, now = OutboundViberMessage.objects.for_writing(), timezone.now()

    def lanes(kind: MessageQuerySet, *, newest: bool = False) -> list[MessageQuerySet]:
        """Return the lanes of one status, that of the oldest, or else the newest, message first."""
        named = [kind.filter(brandname=name) for name in brandnames]
        found = [lane.soonest_first(now) for lane in named or _due_lanes(kind, but_not)]
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

    return _claim(find) if order else Claimed()


def _due_lanes(rows: MessageQuerySet, but_not: Collection[str]) -> list[MessageQuerySet]:
    """Split the rows of one status, where some brand names have to wait, by the other ones that have something due."""
    if not but_not and has_row_locks(rows.db):
        return [rows]
    # Look before the transaction, because on SQLite even looking for work in one keeps others from writing.
    lanes = rows.lanes(but_not) if but_not else [rows]
    return [lane for lane in lanes if lane.soonest_first(timezone.now()).exists()]


def _claim(find: Callable[[dt.datetime], list[OutboundViberMessage]]) -> Claimed:
    claim_id, _lease_until = new_claim(timezone.now())

    def write() -> Claimed:
        now = timezone.now()
        ready, expired, over = [], [], []
        for message in find(now):
            is_past = message.expires_at is not None and message.expires_at <= now
            since = message.uncertain_since
            if message.status == Status.QUEUED and is_past:
                expired.append(message)
            elif since is not None and (is_past or not lifecycle.may_repeat_at(since, now)):
                over.append(message)
            else:
                ready.append(message)
        changes = [lifecycle.expire(message) for message in expired]
        changes += [lifecycle.claim(message, claim_id, now + LEASE) for message in ready]
        lifecycle.write(*changes)
        lifecycle.store_events(change.event for change in changes)
        lifecycle.stop_repeating(over)
        return Claimed(ready, expired + over, changes)

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
    """Lock those that are still ours, in the order in which everybody locks. Returns their primary keys."""
    claims = {message.id: message.claim_id for message in messages}
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=claims, status=Status.SENDING)
    locked = lock(rows.order_by("pk")).values_list("pk", "claim_id")
    return {pk for pk, claim_id in locked if claim_id == claims[pk]}


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
        reason = str(veto) or _VETOED
        change = lifecycle.cancel(message, reason)
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "a pre_send receiver failed; message %s waits", message.id)
        reason, now = put_together(_NOT_CHECKED, type(error).__name__), timezone.now()
        change = lifecycle.release(message, when=now + back_off(5), code_result="", error_message=reason)
        change.columns["held_up_since"] = message.held_up_since or now
    else:
        return False, []
    change.event = lifecycle.make_note(message, reason)

    def write() -> list[Transition]:
        if not lifecycle.write(change):
            return []
        lifecycle.store_events([change.event])
        return [change]

    alias = OutboundViberMessage.objects.write_alias()
    changes = in_transaction(write, using=alias, was_committed=lambda _changes: lifecycle.is_stored([change.event]))
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
