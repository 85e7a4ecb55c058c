"""The transitions of a message: their table, the only writer of `status`, and the columns that go with each.

Beside it, `delivery.claims` writes the lease and what must be committed before a call, and `reports` what a late
answer or a report adds without moving the status.
"""

from __future__ import annotations

import datetime as dt
import logging
import math
import secrets
import time
import uuid
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import DatabaseError, router, transaction
from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from .conf import VIETNAM, ViberSettings, readable_settings
from .database import insert_beside, insert_each, update_each
from .gateways.base import CallOutcome
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .models.choices import REDACTED as REDACTED
from .signals import status_changed

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

EXPIRED = gettext_noop("It expired before it could be sent.")
EDITED = gettext_noop("Changed in the admin.")
OPTED_OUT = gettext_noop("Not sent: this phone has opted out.")

TRANSITIONS: Mapping[Status, frozenset[Status]] = {
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


@dataclass(slots=True, eq=False)
class Transition:
    """One message, the status it gets, and what is written with it."""

    message: OutboundViberMessage
    to: Status
    columns: dict[str, Any] = field(default_factory=dict)
    event: ViberMessageEvent | None = None
    """The event that caused it; the caller stores it."""
    under: str | None = None
    """Where given, the row must still have this RequestId, and its phone."""
    old: Status = field(init=False)

    def __post_init__(self) -> None:
        self.old = Status(self.message.status)
        if self.to not in TRANSITIONS[self.old]:
            raise ValueError(f"a message does not go from {self.old} to {self.to}")
        if self.old == Status.SENDING:
            self.columns = {**self.columns, "claim_id": "", "lease_until": None}
        if self.to == Status.UNKNOWN and self.columns.get("next_attempt_at", True) is None:
            # Nothing repeats it, so that eSMS's list is all that may tell of it.
            self.columns = {"next_query_at": first_query_at(self.message, timezone.now()), **self.columns}
        # A message that is given back, though nobody has asked the site again, stays held up.
        is_settled = self.to not in {Status.SENDING, Status.QUEUED} or "error_message" in self.columns
        if self.message.held_up_since is not None and is_settled:
            self.columns = {"held_up_since": None, **self.columns}

    @property
    def written(self) -> dict[str, Any]:
        """The columns that the UPDATE writes."""
        return {"status": self.to, **self.columns}

    @property
    def expected(self) -> dict[str, Any]:
        """The conditions of the UPDATE: the row is still as it was read, so that nothing in between is overwritten."""
        found: dict[str, Any] = {"pk": self.message.id, "status": self.old}
        if self.old == Status.SENDING:
            found["claim_id"] = self.message.claim_id
        if self.under is not None:
            # The phone too, because a message that was redacted in the meantime has none.
            found |= {"request_id": self.under, "phone": self.message.phone}
        return found


def transition(*changes: Transition) -> bool:
    """Write the changes, in as few UPDATEs as `update_each()` needs, and send `status_changed` after the commit.

    False, and nothing written, where the row of a single change has moved on in the meantime. For several the caller
    holds the rows locked; `DatabaseError` where one of them is not as expected after all.
    """
    if not write(*changes):
        return False
    adopt(changes)
    announce_after_commit(changes)
    return True


def write(*changes: Transition) -> bool:
    """Do as `transition()`, but leave the instances as they are, and tell nobody.

    So a transaction that is repeated finds the instances as they were. After the commit the caller hands the changes to
    `adopt()`, and then to `announce()` or `announce_after_commit()`.
    """
    pairs = [(change.expected, change.written) for change in changes]
    found = update_each(OutboundViberMessage, pairs, using=router.db_for_write(OutboundViberMessage))
    if found != len(changes):
        if len(changes) > 1:
            raise DatabaseError(f"{len(changes)} messages were to change, {found} are as expected")
        return False
    return True


def adopt(changes: Iterable[Transition]) -> None:
    """Set on the instances what was written to their rows."""
    for change in changes:
        set_columns(change.message, **change.written)


def announce_after_commit(changes: Iterable[Transition]) -> None:
    """Send `status_changed` for each change as soon as no transaction is open."""
    alias = router.db_for_write(OutboundViberMessage)
    for change in changes:
        transaction.on_commit(partial(announce, change), using=alias, robust=True)


def announce(change: Transition) -> None:
    """Send `status_changed` for a committed transition."""
    status_changed.send_robust(
        OutboundViberMessage, message=change.message, old_status=change.old, new_status=change.to, event=change.event
    )


def set_columns(message: OutboundViberMessage, **columns: Any) -> None:
    """Set on the instance what was written to its row."""
    for name, value in columns.items():
        setattr(message, name, value)
    if not columns.keys().isdisjoint(message.CALLERS_COLUMNS):
        message.remember(columns)


# -- into the queue ----------------------------------------------------------------------------------------------------


def new_request_id() -> str:
    """Draw a RequestId of 32 characters; eSMS documents at most 50.

    It begins with the time in milliseconds, because an index of keys without any order is dear to write to.
    """
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def enter(messages: Iterable[OutboundViberMessage], status: Status, **columns: Any) -> None:
    """Prepare unsaved rows to be inserted as queued or, by the worker itself, as claimed."""
    conf, now = readable_settings(), timezone.now()
    for message in messages:
        # `set_columns()` would note the caller's columns as stored.
        # What a first try of the same insert has left is undone as well.
        fresh = {"error_message": "", "completed_at": None, **_queued(message, conf, now)}
        vars(message).update(status=status, **{**fresh, **columns})


def queue(message: OutboundViberMessage) -> Transition:
    """Queue a draft, or again a failed or cancelled message as if it had never been tried."""
    conf, now = readable_settings(), timezone.now()
    if message.status == Status.DRAFT:
        columns = _queued(message, conf, now)
    else:
        columns = {"send_at": None, **_queued(message, conf, now, again=True)}
    columns |= {"attempts": 0, "code_result": "", "error_message": "", "sms_id": "", "send_status": None}
    return Transition(message, Status.QUEUED, {**columns, "completed_at": None, "uncertain_since": None})


def _queued(
    message: OutboundViberMessage, conf: ViberSettings, now: dt.datetime, *, again: bool = False
) -> dict[str, Any]:
    """A RequestId of its own, and what the settings say now. `again`: its old times do not count any more."""
    when = max(now, message.send_at) if message.send_at and not again else now
    expires_at = None if again else message.expires_at
    if expires_at is None and conf.EXPIRES_AFTER is not None:
        with suppress(OverflowError):  # after the last moment that Python knows, it never expires
            expires_at = when + conf.EXPIRES_AFTER
    return {
        "request_id": new_request_id(),
        "brandname": message.brandname or conf.BRANDNAME,
        "sent_to_sandbox": goes_to_sandbox(message, conf),
        "queued_at": now,
        "next_attempt_at": when,
        "expires_at": expires_at,
    }


def goes_to_sandbox(message: OutboundViberMessage, conf: ViberSettings) -> bool:
    """Would a first call made now go to the sandbox?"""
    return message.sandbox or conf.SANDBOX or conf.leaves_out(message.phone)


# -- out of the queue --------------------------------------------------------------------------------------------------


def claim(message: OutboundViberMessage, claim_id: str, lease_until: dt.datetime) -> Transition:
    """Claim a due message. A definite refusal has ended its RequestId; after an uncertain call it must stay."""
    columns: dict[str, Any] = {"claim_id": claim_id, "lease_until": lease_until}
    if message.status == Status.QUEUED and message.code_result:
        columns |= {"request_id": new_request_id(), "attempts": 0}
    return Transition(message, Status.SENDING, columns)


def release(message: OutboundViberMessage, *, when: dt.datetime | None, **columns: Any) -> Transition:
    """Give up a claim: queued again or, where an earlier call may have been taken, unknown and to be repeated then.

    What has been redacted meanwhile is not sent any more: cancelled, or unknown and not to be repeated.
    """
    uncertain_since = columns.setdefault("uncertain_since", message.uncertain_since)
    is_redacted = message.redacted_at is not None
    if is_redacted and not uncertain_since:
        return cancel(message, REDACTED)
    if is_redacted or (uncertain_since and when and not may_repeat_at(uncertain_since, max(when, timezone.now()))):
        when = None
    to = Status.UNKNOWN if uncertain_since else Status.QUEUED
    return Transition(message, to, {"next_attempt_at": when, **columns})


def cancel(message: OutboundViberMessage, reason: str = "") -> Transition:
    """Take out a message that surely was not sent."""
    return Transition(message, Status.CANCELLED, _ended(reason))


def take_out(message: OutboundViberMessage) -> Transition:
    """Cancel a message whose phone has opted out."""
    return Transition(message, Status.CANCELLED, _ended(OPTED_OUT), make_note(message, OPTED_OUT))


def expire(message: OutboundViberMessage) -> Transition:
    """Fail a message that surely was not sent, because its time is over."""
    return Transition(message, Status.FAILED, _ended(EXPIRED), make_note(message, EXPIRED))


def _ended(reason: str) -> dict[str, Any]:
    return {
        "error_message": reason[:500],
        "code_result": "",
        "completed_at": timezone.now(),
        "next_attempt_at": None,
        "uncertain_since": None,
    }


def stop_repeating(messages: Sequence[OutboundViberMessage]) -> None:
    """Repeat these `unknown` messages no more; they stay so until a report comes. The caller has locked their rows."""
    now, changes = timezone.now(), []
    for message in messages:
        columns = {"next_attempt_at": None, "next_query_at": first_query_at(message, now)}
        changes.append(({"pk": message.id, "status": Status.UNKNOWN}, columns))
    update_each(OutboundViberMessage, changes, using=OutboundViberMessage.objects.write_alias())
    for message, (_expected, columns) in zip(messages, changes, strict=True):
        set_columns(message, **columns)


# -- after a call ------------------------------------------------------------------------------------------------------


def answer(
    message: OutboundViberMessage,
    to: Status,
    event: ViberMessageEvent,
    *,
    code: str,
    error: str,
    sms_id: str,
    next_attempt_at: dt.datetime | None,
    now: dt.datetime,
) -> Transition:
    """Write what a call came to. `event` holds nothing that a redacted message must not have.

    `now`: when it is recorded, the same for all that are recorded together.
    """
    if message.redacted_at is not None:
        if to == Status.QUEUED:
            return Transition(message, Status.CANCELLED, _ended(REDACTED), event)
        # What eSMS says may repeat the phone or the text.
        error, next_attempt_at = "", None
    columns: dict[str, Any] = {"code_result": code, "error_message": error, "next_attempt_at": next_attempt_at}
    if sms_id:
        columns["sms_id"] = sms_id
    match to:
        case Status.SENT:
            columns |= {"error_message": "", "sent_at": now, "next_query_at": first_query_at(message, now)}
        case Status.FAILED:
            columns |= {"completed_at": now, "uncertain_since": None}
        case Status.QUEUED:
            columns |= {"uncertain_since": None}
    return Transition(message, to, columns, event)


def report(message: OutboundViberMessage, to: Status, columns: dict[str, Any], event: ViberMessageEvent) -> Transition:
    """Write a delivery report; `columns` are what the report itself says."""
    columns = {**columns, "next_attempt_at": None}
    if to != Status.SENT:
        now = timezone.now()
        columns |= {"completed_at": now, "next_query_at": None}
        if to == Status.DELIVERED and (sent_at := columns.get("sent_at", message.sent_at)) is not None:
            columns["delivery_seconds"] = max(math.ceil((now - sent_at).total_seconds()), 0)
    return Transition(message, to, columns, event, under=message.request_id)


# -- until when to repeat, and when to ask -----------------------------------------------------------------------------

QUIET_END_OF_DAY = dt.timedelta(minutes=5)
"""No repeat starts so late in the day: it could reach eSMS tomorrow, when the RequestId may count as new."""

FIRST_QUERY = dt.timedelta(minutes=5)
"""The age at which eSMS is first asked about a message that it has not reported; then at twice that age, and so on.

eSMS documents that it cannot tell of a message at once, and not how long that lasts."""

LAST_QUERY = dt.timedelta(days=6, hours=18)
"""eSMS documents that it tells of the last seven days only."""


def may_repeat_at(uncertain_since: dt.datetime, when: dt.datetime) -> bool:
    """Is a repeat with the same RequestId surely on the same Vietnam calendar day as the first call?

    eSMS documents that it blocks a RequestId "within the day" and elsewhere for 24 hours; this trusts the narrower.
    """
    last = (when + QUIET_END_OF_DAY).astimezone(VIETNAM)
    return uncertain_since.astimezone(VIETNAM).date() == last.date()


def first_query_at(message: OutboundViberMessage, sent_at: dt.datetime) -> dt.datetime | None:
    """When to ask eSMS about a message that it took, or may have taken. It stores no sandbox message."""
    return next_query_at(sent_at, timezone.now()) if not message.sent_to_sandbox else None


def next_query_at(sent_at: dt.datetime, now: dt.datetime) -> dt.datetime | None:
    """When to ask what became of a message, if it has been asked by now; None: not again.

    `sent_at`: when it was called for, or taken.
    """
    age = max(now - sent_at, FIRST_QUERY / 2)
    return sent_at + min(2 * age, LAST_QUERY) if age < LAST_QUERY else None


# -- the history -------------------------------------------------------------------------------------------------------

ABANDONED = "abandoned"
"""Beside the values of `CallOutcome`, in the history: the worker was gone before it could tell how far its call got."""


_UNANSWERED = (CallOutcome.NO_ANSWER.value, CallOutcome.ANSWERED_WITHOUT_CODE.value, ABANDONED)


def make_note(message: OutboundViberMessage, text: str, **fields: Any) -> ViberMessageEvent:
    """A line for the history, not stored yet: a note unless another kind is given; English, as `formatting` has it.

    By its fingerprint a transaction that is repeated knows that the line, and all that came with it, was committed.
    "Requested" has none, because what a caller asks for is never repeated.
    """
    fields.setdefault("kind", ViberMessageEvent.Kind.NOTE)
    if fields["kind"] != ViberMessageEvent.Kind.REQUESTED and "fingerprint" not in fields:
        fields["fingerprint"] = uuid.uuid4().hex
    return ViberMessageEvent(message=message, request_id=message.request_id, text=text[:500], **fields)


def note(messages: Iterable[OutboundViberMessage], text: str, **fields: Any) -> list[ViberMessageEvent]:
    """Add the same line to the history of each message."""
    events = [make_note(message, text, **fields) for message in messages]
    store_events(events)
    return events


def note_requested(messages: Sequence[OutboundViberMessage], *, user: AbstractBaseUser | None) -> None:
    """Begin the history of messages that this transaction has inserted."""
    if messages:
        # The event of the first is like all others but for the columns that are taken from each message.
        event = make_note(messages[0], "", kind=ViberMessageEvent.Kind.REQUESTED, user=user)
        taken = {"message": "id", "request_id": "request_id"}
        alias = OutboundViberMessage.objects.write_alias()
        insert_beside(event, OutboundViberMessage, [message.id for message in messages], taken, using=alias)


def is_stored(events: Iterable[ViberMessageEvent | None]) -> bool:
    """Does the history hold these lines? All of them were written in one transaction, so that one tells."""
    first = next((event.fingerprint for event in events if event is not None and event.fingerprint), None)
    return first is not None and ViberMessageEvent.objects.for_writing().filter(fingerprint=first).exists()


def store_events(events: Iterable[ViberMessageEvent | None]) -> None:
    if found := [event for event in events if event is not None]:
        insert_each(found, using=OutboundViberMessage.objects.write_alias())


def count_unanswered(messages: Sequence[OutboundViberMessage]) -> Counter[int]:
    """Count, by primary key, the calls under the current RequestId that may have reached eSMS and had no answer.

    Those of an outage do not count: they are marked `while_open`, or taken back by a later line that is `uncounted`.
    """
    if not messages:
        return Counter()
    current = {message.id: message.request_id for message in messages}
    events = ViberMessageEvent.objects.for_writing().filter(message__in=current).order_by()
    counts = Counter[int]()
    for pk, request_id, data in events.filter(Q(data__outcome__in=_UNANSWERED) | Q(data__uncounted=True)).values_list(
        "message", "request_id", "data"
    ):
        if request_id == current[pk] and not data.get("while_open"):
            counts[pk] += -1 if data.get("uncounted") else 1
    return counts


def log_undecided(message: OutboundViberMessage) -> None:
    logger.error("message %s may have been sent, or not; nothing repeats it, somebody has to decide", message.id)
