"""The verbs: send, queue, resend, cancel, refresh. What a site calls."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import models
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import creation, lifecycle
from .conf import get_settings
from .database import in_transaction, refuse_open_transaction
from .delivery import breaker
from .delivery.claims import new_claim
from .delivery.worker import IN_REQUEST, DeliverySummary, Worker, deliver_due_messages, deliver_messages
from .dispatch import dispatch_on_commit
from .lifecycle import Transition
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .reports.polling import refresh_viber_messages
from .resend import needing_decision, resend

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


__all__ = [
    "DeliverySummary",
    "cancel_viber_messages",
    "deliver_due_messages",
    "deliver_messages",
    "queue_viber_message",
    "queue_viber_messages",
    "refresh_viber_messages",
    "resend_viber_messages",
    "send_viber_message",
    "settle_viber_messages",
]

_CANCELLED = gettext_noop("Cancelled.")
_LOOKED_UP = gettext_noop("Looked up: it need not be sent again.")
_REPEATING_STOPPED = gettext_noop("Repeating stopped.")


def send_viber_message(
    phone: str,
    content: str = "",
    *,
    image_url: str = "",
    button_label: str = "",
    button_url: str = "",
    brandname: str = "",
    sandbox: bool = False,
    campaign: str = "",
    dedupe_key: str | None = None,
    related_object: models.Model | None = None,
    send_at: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    user: AbstractBaseUser | None = None,
) -> OutboundViberMessage:
    """Store a message, call eSMS now, and return the row with the outcome; see `raise_for_status()`.

    The row is committed before the call, which ends after ten seconds at most. While eSMS does not answer, or refuses
    the account or the brand name, no call is made, but for one at a time that shows whether that is over; the row is
    `queued` with the reason. Raises `ValidationError` for what cannot be sent, `ImproperlyConfigured` where a setting
    keeps everything from being sent, and `TransactionManagementError` inside an open transaction, where
    `queue_viber_message()` is the one to use. With a `dedupe_key` that was given before, the first row is returned and
    nothing is sent.
    """
    message = OutboundViberMessage(
        phone=phone,
        content=content,
        image_url=image_url,
        button_label=button_label,
        button_url=button_url,
        brandname=brandname,
        sandbox=sandbox,
        campaign=campaign,
        dedupe_key=dedupe_key,
        related_object=related_object,
        send_at=send_at,
        expires_at=expires_at,
    )
    creation.validate(message, strict=True)
    if message.send_at is not None and message.send_at > timezone.now():
        raise ValidationError(
            {"send_at": _("This time is still to come. Use queue_viber_message() to send a message later.")}
        )
    alias = OutboundViberMessage.objects.write_alias()
    refuse_open_transaction("Use queue_viber_message(), which sends after the commit.", using=alias)
    states = breaker.look()
    held = breaker.holding(states, message.brandname or get_settings().BRANDNAME, in_request=True)
    if held is not None and not held.is_probe_due():
        lifecycle.enter([message], Status.QUEUED, **breaker.reason(held))
    else:
        claim_id, lease_until = new_claim(timezone.now())
        lifecycle.enter([message], Status.SENDING, claim_id=claim_id, lease_until=lease_until)
    [stored] = in_transaction(lambda: creation.insert([message], user=user), using=alias, repeatable=False)
    if stored is message and message.status == Status.SENDING:
        Worker([], within=IN_REQUEST, states=states).run(claimed=[message])
    return stored


def queue_viber_message(
    phone: str,
    content: str = "",
    *,
    image_url: str = "",
    button_label: str = "",
    button_url: str = "",
    brandname: str = "",
    sandbox: bool = False,
    campaign: str = "",
    dedupe_key: str | None = None,
    related_object: models.Model | None = None,
    send_at: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    user: AbstractBaseUser | None = None,
) -> OutboundViberMessage:
    """Store a message to be sent after the transaction commits, and return the queued row.

    Rolled back with the transaction. Raises `ValidationError` for what cannot be sent; a setting that is wrong is
    logged, and the message waits until it is mended. With a `dedupe_key` that was given before, the first row is
    returned and nothing is queued.
    """
    message = OutboundViberMessage(
        phone=phone,
        content=content,
        image_url=image_url,
        button_label=button_label,
        button_url=button_url,
        brandname=brandname,
        sandbox=sandbox,
        campaign=campaign,
        dedupe_key=dedupe_key,
        related_object=related_object,
        send_at=send_at,
        expires_at=expires_at,
    )
    creation.validate(message)
    [stored] = creation.queue([message], user=user)
    return stored


def queue_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Store unsaved messages in bulk, all or none, to be sent after the commit; a row for each, in their order.

    Raises `ValidationError`, naming the index of each message that cannot be sent; then none is stored. For a
    `dedupe_key` that was given before, in the list or in the table, the first row stands in.
    """
    messages = list(messages)
    creation.validate_all(messages)
    return creation.queue(messages, user=user)


def queue_stored_message(message: OutboundViberMessage, *, user: AbstractBaseUser | None = None) -> bool:
    """Queue a draft, or what failed or was cancelled, to be sent after the commit; False where it is none of these."""
    if not message.is_editable:
        return False
    creation.validate(message)

    def write() -> bool:
        queued = lifecycle.transition(lifecycle.queue(message))
        if queued:
            lifecycle.note([message], "", kind=ViberMessageEvent.Kind.REQUESTED, user=user)
            dispatch_on_commit([message.id])
        return queued

    return in_transaction(write, using=OutboundViberMessage.objects.write_alias(), repeatable=False)


def resend_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Send again, or for the first time, and return the rows queued for it.

    A draft, and what failed or was cancelled, is queued itself, as it is stored now. What eSMS took, or may have
    taken, becomes a new message. Skipped: what is queued or being sent, what has a resend that is not final yet, and
    what cannot be sent as it stands (`esms_viber.resend.plan_resend` tells which and why).
    """
    pks = [message.id for message in messages]
    alias = OutboundViberMessage.objects.write_alias()
    return in_transaction(lambda: resend(pks, user=user), using=alias, repeatable=False)


def cancel_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Take drafts and queued messages out, and stop repeating `unknown` ones; the rows that this changed.

    An `unknown` message stays `unknown`: it may have been sent. Others are skipped.
    """
    pks = [message.id for message in messages]
    alias = OutboundViberMessage.objects.write_alias()

    def write() -> tuple[list[Transition], list[OutboundViberMessage], list[ViberMessageEvent]]:
        rows = OutboundViberMessage.objects.locked(pks)
        waiting = [lifecycle.cancel(row) for row in rows if row.status in {Status.DRAFT, Status.QUEUED}]
        repeating = [row for row in rows if row.status == Status.UNKNOWN and row.next_attempt_at is not None]
        lifecycle.write(*waiting)
        lifecycle.stop_repeating(repeating)
        events = lifecycle.note([change.message for change in waiting], _CANCELLED, user=user)
        return waiting, repeating, events + lifecycle.note(repeating, _REPEATING_STOPPED, user=user)

    waiting, repeating, _events = in_transaction(
        write, using=alias, was_committed=lambda written: lifecycle.is_stored(written[2])
    )
    lifecycle.adopt(waiting)
    lifecycle.announce_after_commit(waiting)
    return sorted([*(change.message for change in waiting), *repeating], key=lambda row: row.id)


def settle_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Note that somebody has looked up what became of messages that only a person can decide about; those noted.

    They keep their status, are not counted as waiting for a decision any more, and can be sent again all the same.
    """
    pks = [message.id for message in messages]

    def write() -> list[ViberMessageEvent]:
        locked = OutboundViberMessage.objects.locked(pks)
        waiting = needing_decision(pks)
        rows = [row for row in locked if row.id in waiting]
        return lifecycle.note(rows, _LOOKED_UP, user=user, data={"looked_up": True})

    alias = OutboundViberMessage.objects.write_alias()
    return [note.message for note in in_transaction(write, using=alias, was_committed=lifecycle.is_stored)]
