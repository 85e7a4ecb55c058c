"""Claiming messages: one short transaction that makes them ours, before anything goes over the network."""

from __future__ import annotations

import datetime as dt
import logging
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import NamedTuple

from django.utils import timezone
from django.utils.translation import gettext_noop

from . import lifecycle
from .conf import get_settings
from .lifecycle import EXPIRED, Move
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .outcomes import may_repeat_at
from .outgoing import new_request_id
from .recording import ABANDONED, count_unanswered, tell_undecided
from .rows import insert_each
from .transactions import in_transaction, lock, write_alias

logger = logging.getLogger("esms_viber")

LEASE = dt.timedelta(minutes=2)
"""How long a claim holds without being renewed; then another sender takes the message over."""

_TAKEN_OVER = gettext_noop("The process that was sending it has stopped; another took it over.")
_AT_ONCE = 500


class Claimed(NamedTuple):
    ready: list[OutboundViberMessage]
    """Now `sending`, and ours."""
    settled: list[OutboundViberMessage]
    """Were due, and will not be called: expired, or not to be repeated any more."""

    @property
    def found(self) -> int:
        return len(self.ready) + len(self.settled)


def new_claim(now: dt.datetime) -> dict[str, object]:
    return {"claim_id": uuid.uuid4().hex, "lease_until": now + LEASE}


def claim(limit: int, pks: Sequence[int] | None = None, *, repeats_first: bool = True) -> Claimed:
    """At most `limit` messages that are due; of these primary keys, or any. Nothing at all: nothing is due."""
    if pks is None and not OutboundViberMessage.objects.using(write_alias()).due().exists():
        # Asked before, since on SQLite even looking for work in earnest keeps others from writing.
        return Claimed([], [])
    claimed = in_transaction(lambda: _claim(limit, pks, repeats_first))
    for message in claimed.settled:
        if message.status == Status.UNKNOWN:
            tell_undecided(message)
    return claimed


def _claim(limit: int, pks: Sequence[int] | None, repeats_first: bool) -> Claimed:
    now = timezone.now()
    due = _lock_due(limit, pks, now, repeats_first)
    expired = [message for message in due if message.status == Status.QUEUED and _is_past(message.expires_at, now)]
    over = [message for message in due if message.uncertain_since and not _may_repeat(message, now)]
    settled = expired + over
    left_out = {message.id for message in settled}
    ready = [message for message in due if message.id not in left_out]
    lifecycle.move_all(Move(message, Status.FAILED, lifecycle.end_columns(EXPIRED)) for message in expired)
    lifecycle.note_all(expired, EXPIRED)
    lifecycle.stop_repeating(over)
    claimed = new_claim(now)
    lifecycle.move_all(Move(message, Status.SENDING, {**claimed, **_request_columns(message)}) for message in ready)
    return Claimed(ready, settled)


def _lock_due(
    limit: int, pks: Sequence[int] | None, now: dt.datetime, repeats_first: bool
) -> list[OutboundViberMessage]:
    messages = OutboundViberMessage.objects.using(write_alias())
    if pks is not None:
        return list(lock(messages.due(now).filter(pk__in=pks).order_by("pk"))[:limit])
    # One status at a time, as the index has them in order. Repeats come first: their day ends. Not after trouble: what
    # had no answer before may have none again for reasons of its own.
    kinds = [messages.unknown(), messages.queued()]
    found: list[OutboundViberMessage] = []
    for kind in kinds if repeats_first else reversed(kinds):
        if len(found) < limit:
            found += lock(kind.due(now), skip_locked=True)[: limit - len(found)]
    return found


def _is_past(when: dt.datetime | None, now: dt.datetime) -> bool:
    return when is not None and when <= now


def _may_repeat(message: OutboundViberMessage, now: dt.datetime) -> bool:
    since = message.uncertain_since
    return not _is_past(message.expires_at, now) and since is not None and may_repeat_at(since, now)


def _request_columns(message: OutboundViberMessage) -> dict[str, object]:
    """A definite refusal ended the RequestId it was given for; an uncertain one must stay."""
    if message.status == Status.QUEUED and message.code_result:
        return {"request_id": new_request_id(), "attempts": 0}
    return {}


def renew(messages: Iterable[OutboundViberMessage]) -> None:
    """Hold on to those of the messages that are still ours; a lease of None says that it is lost."""
    messages = list(messages)
    if not messages:
        return
    until = timezone.now() + LEASE

    def write() -> set[int]:
        ours = lock_claimed(messages)
        OutboundViberMessage.objects.using(write_alias()).filter(pk__in=ours).update(lease_until=until)
        return ours

    ours = in_transaction(write)
    for message in messages:
        message.lease_until = until if message.id in ours else None


def lock_claimed(messages: Iterable[OutboundViberMessage]) -> set[int]:
    """Lock the rows of these that are still ours, in the order in which everybody does; their primary keys."""
    claims = {message.id: message.claim_id for message in messages}
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=claims, status=Status.SENDING)
    locked = lock(rows.order_by("pk")).values_list("pk", "claim_id")
    return {pk for pk, claim_id in locked if claim_id == claims[pk]}


def take_over_abandoned() -> None:
    """Return to the queue what senders that are gone had claimed; as uncertain where a call may have been made."""
    abandoned = OutboundViberMessage.objects.using(write_alias()).abandoned
    while abandoned().exists():
        taken = in_transaction(_take_over)
        if not taken:
            return
        logger.warning("took over %d messages of senders that are gone", len(taken))
        for message in taken:
            if message.status == Status.UNKNOWN and message.next_attempt_at is None:
                tell_undecided(message)


def _take_over() -> list[OutboundViberMessage]:
    now = timezone.now()
    messages = list(lock(OutboundViberMessage.objects.using(write_alias()).abandoned(now), skip_locked=True)[:_AT_ONCE])
    unanswered = count_unanswered([message for message in messages if message.uncertain_since])
    most = get_settings().MAX_ATTEMPTS
    moves = []
    for message in messages:
        exhausted = message.uncertain_since and unanswered[message.id] + 1 >= most
        when = None if exhausted else now
        moves.append(replace(lifecycle.put_back(message, when=when), event=_note_of_take_over(message)))
    lifecycle.move_all(moves)
    insert_each([move.event for move in moves if move.event is not None], using=write_alias())
    return messages


def _note_of_take_over(message: OutboundViberMessage) -> ViberMessageEvent:
    """Counted as a call without an answer where one may have been made."""
    return lifecycle.make_note(message, _TAKEN_OVER, data={"reach": ABANDONED} if message.uncertain_since else {})
