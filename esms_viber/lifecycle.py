"""The moves a message may make, and the only writer of `status`."""

from __future__ import annotations

import datetime as dt
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_noop

from .conf import readable_settings
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .outcomes import may_repeat_at
from .outgoing import new_request_id
from .rows import insert_each, update_each
from .signals import status_changed
from .transactions import write_alias

EXPIRED = gettext_noop("It expired before it could be sent.")

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
    under: str | None = None,
    **columns: Any,
) -> bool:
    """Write the status and the columns in one UPDATE that names what the message is held to have.

    That is its status and, where they are given, its claim and (`under`) its RequestId. False, and nothing written,
    where the row has moved on in the meantime. Raises `ValueError` for a move that the table does not have.
    """
    old = Status(message.status)
    _refuse_unless_allowed(old, to)
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.id, status=old)
    if claim is not None:
        rows = rows.filter(claim_id=claim)
    if under is not None:
        rows = rows.filter(request_id=under)
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


@dataclass(slots=True)
class Move:
    """One of several moves that are written together."""

    message: OutboundViberMessage
    to: Status
    columns: dict[str, Any] = field(default_factory=dict)
    event: ViberMessageEvent | None = None


def move_all(moves: Iterable[Move]) -> None:
    """As `move()`, for rows that the caller holds locked and has found as the messages say: a statement for many rows.

    Raises `DatabaseError` where one is not like that after all.
    """
    moves = list(moves)
    old = [Status(move.message.status) for move in moves]
    changes = []
    for was, move_ in zip(old, moves, strict=True):
        _refuse_unless_allowed(was, move_.to)
        found: dict[str, Any] = {"pk": move_.message.id, "status": was}
        if was == Status.SENDING:
            found["claim_id"] = move_.message.claim_id
            move_.columns |= {"claim_id": "", "lease_until": None}
        changes.append((found, {"status": move_.to, **move_.columns}))
    update_each(OutboundViberMessage, changes, using=write_alias())
    for was, move_ in zip(old, moves, strict=True):
        _set(move_.message, status=move_.to, **move_.columns)
        _announce(move_.message, was, move_.to, move_.event)


def _set(message: OutboundViberMessage, **columns: Any) -> None:
    for name, value in columns.items():
        setattr(message, name, value)
    message.remember(columns)


_later: ContextVar[deque[Callable[[], object]] | None] = ContextVar("esms_viber_announcements", default=None)


@contextmanager
def announcing_later() -> Iterator[deque[Callable[[], object]]]:
    """Within it, `status_changed` is sent by whoever has entered it: receivers are slow, and claims are to be renewed.

    Gives what is committed and still to be called, in order.
    """
    waiting: deque[Callable[[], object]] = deque()
    token = _later.set(waiting)
    try:
        yield waiting
    finally:
        _later.reset(token)


def _announce(message: OutboundViberMessage, old: Status, new: Status, event: ViberMessageEvent | None) -> None:
    if not status_changed.has_listeners(OutboundViberMessage):
        return

    def send() -> None:
        status_changed.send_robust(OutboundViberMessage, message=message, old_status=old, new_status=new, event=event)

    waiting = _later.get()
    transaction.on_commit(send if waiting is None else lambda: waiting.append(send), using=write_alias(), robust=True)


def make_note(message: OutboundViberMessage, text: str, **fields: Any) -> ViberMessageEvent:
    """A line for the history, to be stored; a note, unless another kind is given. The text as in `sentences`."""
    fields.setdefault("kind", ViberMessageEvent.Kind.NOTE)
    return ViberMessageEvent(message=message, request_id=message.request_id, text=text[:500], **fields)


def note(message: OutboundViberMessage, text: str, **fields: Any) -> ViberMessageEvent:
    """Add a line to the history."""
    event = make_note(message, text, **fields)
    event.save(using=write_alias())
    return event


def note_all(messages: Iterable[OutboundViberMessage], text: str, **fields: Any) -> None:
    """Add the same line to the histories of several."""
    insert_each([make_note(message, text, **fields) for message in messages], using=write_alias())


# -- coming in, going out of the queue ---------------------------------------------------------------------------------


def enter(message: OutboundViberMessage, status: Status, **columns: Any) -> None:
    """Prepare an unsaved row to be inserted as queued or, by the sender itself, as claimed."""
    _set(message, status=status, **queue_columns(message), **columns)


def queue_columns(message: OutboundViberMessage) -> dict[str, Any]:
    """What queueing writes: a RequestId of its own, brand and sandbox as the settings have them now."""
    conf = readable_settings()
    now = timezone.now()
    return {
        "request_id": new_request_id(),
        "brandname": message.brandname or conf.BRANDNAME,
        "sandbox": message.sandbox or conf.SANDBOX,
        "queued_at": now,
        "next_attempt_at": max(now, message.send_at) if message.send_at else now,
    }


def queue(message: OutboundViberMessage) -> bool:
    """Queue a draft, or again what failed or was cancelled; forget what the attempts before came to."""
    return move(message, Status.QUEUED, **_anew(message))


def queue_all(messages: Iterable[OutboundViberMessage]) -> None:
    """As `queue()`, for rows that the caller holds locked."""
    move_all(Move(message, Status.QUEUED, _anew(message)) for message in messages)


def _anew(message: OutboundViberMessage) -> dict[str, Any]:
    columns = queue_columns(message)
    if message.status != Status.DRAFT:
        columns |= {"send_at": None, "expires_at": None, "next_attempt_at": columns["queued_at"]}
    return {
        **columns,
        "attempts": 0,
        "code_result": "",
        "error_message": "",
        "sms_id": "",
        "send_status": None,
        "completed_at": None,
        "uncertain_since": None,
    }


def cancel_all(messages: Iterable[OutboundViberMessage]) -> None:
    """Take messages out that surely were not sent. Rows are locked."""
    move_all(Move(message, Status.CANCELLED, end_columns("")) for message in messages)


def end_columns(reason: str) -> dict[str, Any]:
    """What ending a message writes that surely was not sent."""
    return {
        "error_message": reason[:500],
        "code_result": "",
        "completed_at": timezone.now(),
        "next_attempt_at": None,
        "uncertain_since": None,
    }


def stop_repeating(messages: Sequence[OutboundViberMessage]) -> None:
    """`unknown` messages stay so until a report comes; nothing repeats them any more. Rows are locked."""
    changes = [({"pk": message.id, "status": Status.UNKNOWN}, {"next_attempt_at": None}) for message in messages]
    update_each(OutboundViberMessage, changes, using=write_alias())
    for message in messages:
        message.next_attempt_at = None


def put_back(message: OutboundViberMessage, *, when: dt.datetime | None, **columns: Any) -> Move:
    """The move that gives up a claim; a message that was uncertain before stays so."""
    uncertain_since = columns.setdefault("uncertain_since", message.uncertain_since)
    if uncertain_since and when and not may_repeat_at(uncertain_since, when):
        when = None
    to = Status.UNKNOWN if uncertain_since else Status.QUEUED
    return Move(message, to, {"next_attempt_at": when, **columns})
