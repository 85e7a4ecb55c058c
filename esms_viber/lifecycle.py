"""The moves a message may make, and the only writer of `status`."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from django.db import transaction
from django.utils import timezone

from .conf import get_settings
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .outcomes import may_repeat_at
from .outgoing import new_request_id
from .signals import status_changed
from .transactions import write_alias

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise

MOVES: Mapping[Status, frozenset[Status]] = {
    Status.DRAFT: frozenset({Status.QUEUED, Status.CANCELLED}),
    Status.QUEUED: frozenset({Status.SENDING, Status.CANCELLED, Status.FAILED}),
    Status.SENDING: frozenset(
        {
            Status.SENT,
            Status.FAILED,
            Status.UNKNOWN,
            Status.CANCELLED,
            Status.QUEUED,
            Status.DELIVERED,
            Status.UNDELIVERED,
        }
    ),
    Status.UNKNOWN: frozenset({Status.SENDING, Status.SENT, Status.DELIVERED, Status.UNDELIVERED}),
    Status.SENT: frozenset({Status.DELIVERED, Status.UNDELIVERED}),
    Status.FAILED: frozenset({Status.QUEUED, Status.DELIVERED, Status.UNDELIVERED}),
    Status.CANCELLED: frozenset({Status.QUEUED}),
    Status.DELIVERED: frozenset(),
    Status.UNDELIVERED: frozenset(),
}


def move(
    message: OutboundViberMessage,
    to: Status,
    *,
    event: ViberMessageEvent | None = None,
    claim: str | None = None,
    **columns: Any,
) -> bool:
    """Write the status and the columns in one UPDATE that names the status, and the claim, the message is held to have.

    False, and nothing written, where the row has moved on in the meantime. Raises `ValueError` for a move that the
    table does not have.
    """
    old = Status(message.status)
    _refuse_unless_allowed(old, to)
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.pk, status=old)
    if claim is not None:
        rows = rows.filter(claim_id=claim)
    if old == Status.SENDING:
        columns |= {"claim_id": "", "lease_until": None}
    if not rows.update(status=to, **columns):
        return False
    _set(message, status=to, **columns)
    _announce(message, old, to, event)
    return True


def _refuse_unless_allowed(old: Status, new: Status) -> None:
    if new not in MOVES[old]:
        raise ValueError(f"a message does not go from {old} to {new}")


def move_all(messages: Iterable[OutboundViberMessage], to: Status, **columns: Any) -> None:
    """As `move()`, the same for several rows that the caller holds locked, in one UPDATE."""
    messages = list(messages)
    old = {message.pk: Status(message.status) for message in messages}
    for status in set(old.values()):
        _refuse_unless_allowed(status, to)
    for status in set(old.values()):
        pks = [pk for pk, was in old.items() if was == status]
        rows = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=pks, status=status)
        rows.update(status=to, **columns)
    for message in messages:
        _set(message, status=to, **columns)
        _announce(message, old[message.pk], to, None)


def _set(message: OutboundViberMessage, **columns: Any) -> None:
    for name, value in columns.items():
        setattr(message, name, value)
    message.remember(columns)


def _announce(message: OutboundViberMessage, old: Status, new: Status, event: ViberMessageEvent | None) -> None:
    if status_changed.has_listeners(OutboundViberMessage):
        transaction.on_commit(
            lambda: status_changed.send_robust(
                OutboundViberMessage, message=message, old_status=old, new_status=new, event=event
            ),
            using=write_alias(),
            robust=True,
        )


def note(message: OutboundViberMessage, text: StrOrPromise, **fields: Any) -> ViberMessageEvent:
    """Add a line to the history; a note, unless another kind is given."""
    fields.setdefault("kind", ViberMessageEvent.Kind.NOTE)
    return ViberMessageEvent.objects.using(write_alias()).create(
        message=message, request_id=message.request_id, text=str(text)[:500], **fields
    )


# -- coming in, going out of the queue ---------------------------------------------------------------------------------


def enter(message: OutboundViberMessage, status: Status, **columns: Any) -> None:
    """Prepare an unsaved row to be inserted as queued or, by the sender itself, as claimed."""
    _set(message, status=status, **queue_columns(message), **columns)


def queue_columns(message: OutboundViberMessage) -> dict[str, Any]:
    """What queueing writes: a RequestId of its own, brand and sandbox as the settings have them now."""
    conf = get_settings()
    now = timezone.now()
    return {
        "request_id": new_request_id(),
        "brandname": message.brandname or conf.BRANDNAME,
        "sandbox": message.sandbox or conf.SANDBOX,
        "queued_at": now,
        "next_attempt_at": max(now, message.send_at) if message.send_at else now,
    }


def queue(message: OutboundViberMessage, *, event: ViberMessageEvent | None = None) -> bool:
    """Queue a draft, or again what failed or was cancelled; forget what the attempts before came to."""
    if message.status != Status.DRAFT:
        _set(message, send_at=None, expires_at=None)
    return move(
        message,
        Status.QUEUED,
        event=event,
        **queue_columns(message),
        send_at=message.send_at,
        expires_at=message.expires_at,
        attempts=0,
        code_result="",
        error_message="",
        sms_id="",
        send_status=None,
        completed_at=None,
        uncertain_since=None,
    )


def cancel(message: OutboundViberMessage, reason: StrOrPromise, *, claim: str | None = None) -> bool:
    """Take a message out that surely was not sent."""
    return _end(message, Status.CANCELLED, reason, claim)


def expire(message: OutboundViberMessage, reason: StrOrPromise, *, claim: str | None = None) -> bool:
    """Give a message up that surely was not sent in time, and note it."""
    expired = _end(message, Status.FAILED, reason, claim)
    if expired:
        note(message, reason)
    return expired


def _end(message: OutboundViberMessage, to: Status, reason: StrOrPromise, claim: str | None) -> bool:
    return move(
        message,
        to,
        claim=claim,
        error_message=str(reason)[:500],
        code_result="",
        completed_at=timezone.now(),
        next_attempt_at=None,
        uncertain_since=None,
    )


def stop_repeating(message: OutboundViberMessage) -> bool:
    """An `unknown` message stays so until a report comes; nothing repeats it any more."""
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.pk, status=Status.UNKNOWN)
    _set(message, next_attempt_at=None)
    return bool(rows.update(next_attempt_at=None))


def put_back(message: OutboundViberMessage, *, claim: str, when: dt.datetime | None, **columns: Any) -> bool:
    """Give up a claim under which no call was made; a message that was uncertain before stays so."""
    uncertain_since = columns.get("uncertain_since", message.uncertain_since)
    if uncertain_since and when and not may_repeat_at(uncertain_since, when):
        when = None
    to = Status.UNKNOWN if uncertain_since else Status.QUEUED
    columns["uncertain_since"] = uncertain_since
    return move(message, to, claim=claim, next_attempt_at=when, **columns)
