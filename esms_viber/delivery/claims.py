"""Claim messages, hold on to the claims, and commit what must be known before a call.

Each step is one short transaction, and none is open while eSMS is called.
"""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..conf import get_settings
from ..database import in_transaction, lock
from ..exceptions import log_failure
from ..formatting import put_together
from ..lifecycle import ABANDONED, Transition
from ..models import OutboundViberMessage, Status
from ..signals import CancelSend, pre_send
from .outcomes import back_off
from .payload import Attempt, outgoing_for

logger = logging.getLogger("esms_viber")

LEASE = dt.timedelta(minutes=2)
"""How long a claim holds without being renewed; then another worker takes the message over."""

_TAKEN_OVER = gettext_noop("The process that was sending it has stopped; another took it over.")
_VETOED = gettext_noop("This site decided not to send it.")
_NOT_CHECKED = gettext_noop("Not sent: this site's own check before sending (pre_send) failed.")
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


def claim(limit: int, pks: Sequence[int] | None = None, *, repeats_first: bool = True) -> Claimed:
    """Claim at most `limit` messages that are due, of these primary keys or any. Nothing found: nothing is due."""
    if pks is None and not OutboundViberMessage.objects.for_writing().due().exists():
        # On SQLite even looking for work in a transaction keeps others from writing.
        return Claimed()
    claimed = in_transaction(
        lambda: _claim(limit, pks, repeats_first), using=OutboundViberMessage.objects.write_alias()
    )
    for message in claimed.settled:
        if message.status == Status.UNKNOWN:
            lifecycle.log_undecided(message)
    return claimed


def _claim(limit: int, pks: Sequence[int] | None, repeats_first: bool) -> Claimed:
    now = timezone.now()
    ready, expired, over = [], [], []
    for message in _lock_due(limit, pks, now, repeats_first):
        is_past = message.expires_at is not None and message.expires_at <= now
        since = message.uncertain_since
        if message.status == Status.QUEUED and is_past:
            expired.append(message)
        elif since is not None and (is_past or not lifecycle.may_repeat_at(since, now)):
            over.append(message)
        else:
            ready.append(message)
    claim_id, lease_until = new_claim(now)
    changes = [lifecycle.expire(message) for message in expired]
    changes += [lifecycle.claim(message, claim_id, lease_until) for message in ready]
    lifecycle.transition(*changes, announce_them=False)
    lifecycle.store_events(change.event for change in changes)
    lifecycle.stop_repeating(over)
    return Claimed(ready, expired + over, changes)


def _lock_due(
    limit: int, pks: Sequence[int] | None, now: dt.datetime, repeats_first: bool
) -> list[OutboundViberMessage]:
    messages = OutboundViberMessage.objects.for_writing()
    if pks is not None:
        return list(lock(messages.due(now).filter(pk__in=pks).order_by("pk"))[:limit])
    # One status at a time, because the index has them in that order. Repeats come first, because they expire at
    # midnight in Vietnam. After an outage new messages come first, so that messages which always time out cannot keep
    # it going.
    statuses = [messages.unknown(), messages.queued()]
    found: list[OutboundViberMessage] = []
    for rows in statuses if repeats_first else reversed(statuses):
        if len(found) < limit:
            found += lock(rows.due(now), skip_locked=True)[: limit - len(found)]
    return found


def take_over_abandoned() -> list[Transition]:
    """Return to the queue what workers that are gone had claimed; as uncertain where a call may have been made."""
    taken: list[Transition] = []
    while OutboundViberMessage.objects.for_writing().abandoned().exists():
        changes = in_transaction(_take_over, using=OutboundViberMessage.objects.write_alias())
        if not changes:
            break
        logger.warning("took over %d messages of workers that are gone", len(changes))
        for change in changes:
            if change.to == Status.UNKNOWN and change.message.next_attempt_at is None:
                lifecycle.log_undecided(change.message)
        taken += changes
    return taken


def _take_over() -> list[Transition]:
    now = timezone.now()
    messages = list(lock(OutboundViberMessage.objects.for_writing().abandoned(now), skip_locked=True)[:_AT_ONCE])
    unanswered = lifecycle.count_unanswered([message for message in messages if message.uncertain_since])
    most = get_settings().MAX_ATTEMPTS
    changes = []
    for message in messages:
        # The call that may have been made counts as one without an answer.
        exhausted = message.uncertain_since and unanswered[message.id] + 1 >= most
        change = lifecycle.release(message, when=None if exhausted else now)
        data = {"outcome": ABANDONED} if message.uncertain_since else {}
        change.event = lifecycle.make_note(message, _TAKEN_OVER, data=data)
        changes.append(change)
    lifecycle.transition(*changes, announce_them=False)
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


def prepare(message: OutboundViberMessage) -> Attempt:
    return Attempt(message, outgoing_for(message), message.uncertain_since is None, message.code_result)


def refused_by_site(attempt: Attempt) -> Transition | None:
    """Ask the site's receivers before a message goes out for the first time. Returns what becomes of a refused one."""
    message = attempt.message
    if not attempt.first:
        return None
    try:
        pre_send.send(OutboundViberMessage, message=message)
    except CancelSend as veto:
        reason = str(veto) or _VETOED
        change = lifecycle.cancel(message, reason)
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "a pre_send receiver failed; message %s waits", message.id)
        reason = put_together(_NOT_CHECKED, type(error).__name__)
        when = timezone.now() + back_off(5)
        change = lifecycle.release(message, when=when, error_message=reason)
    else:
        return None
    change.event = lifecycle.make_note(message, reason)

    def write() -> None:
        if lifecycle.transition(change, announce_them=False):
            lifecycle.store_events([change.event])

    in_transaction(write, using=OutboundViberMessage.objects.write_alias())
    return change


def release(messages: Iterable[OutboundViberMessage]) -> list[Transition]:
    """Give up the claims of messages for which no call was made, because an error or somebody's Ctrl-C came first."""
    changes = [lifecycle.release(m, when=timezone.now()) for m in messages if m.status == Status.SENDING]
    for change in changes:
        # One by one, because any of them may have been taken over by another worker.
        lifecycle.transition(change, announce_them=False)
    return changes


def begin(attempts: list[Attempt]) -> list[Attempt]:
    """Commit that a call may be made from now on. Drops what has been taken from us in the meantime."""
    now = timezone.now()
    lease_until = now + LEASE

    def write() -> set[int]:
        ours = _lock_claimed([attempt.message for attempt in attempts])
        for sandbox in (True, False):
            pks = [a.message.id for a in attempts if a.message.id in ours and a.outgoing.sandbox is sandbox]
            if pks:
                OutboundViberMessage.objects.for_writing().filter(pk__in=pks).update(
                    attempts=F("attempts") + 1,
                    sandbox=sandbox,
                    code_result="",
                    uncertain_since=Coalesce("uncertain_since", Value(now)),
                    lease_until=lease_until,
                )
        return ours

    ours = in_transaction(write, using=OutboundViberMessage.objects.write_alias()) if attempts else set()
    begun = [attempt for attempt in attempts if attempt.message.id in ours]
    for attempt in begun:
        message = attempt.message
        message.attempts += 1
        message.sandbox, message.code_result = attempt.outgoing.sandbox, ""
        message.uncertain_since, message.lease_until = message.uncertain_since or now, lease_until
    return begun
