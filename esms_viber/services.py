"""The verbs: send, queue, resend, cancel, refresh. What a site calls."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import models, transaction
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import intake, lifecycle
from .claims import new_claim
from .delivery import DeliverySummary, deliver_claimed, deliver_due_messages, deliver_messages
from .dispatch import dispatch_on_commit
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .polling import refresh_viber_messages
from .readiness import require_setup
from .resending import needing_decision, plan_resend
from .transactions import in_transaction, lock, refuse_open_transaction, write_alias

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

logger = logging.getLogger("esms_viber")

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

    The row is committed before the call. Raises `ValidationError` for what cannot be sent, `ImproperlyConfigured` where
    a setting keeps everything from being sent, and `TransactionManagementError` inside an open transaction, where
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
    message.validate_for_sending()
    require_setup()
    if message.send_at is not None and message.send_at > timezone.now():
        raise ValidationError(
            {"send_at": _("This time is still to come. Use queue_viber_message() to send a message later.")}
        )
    refuse_open_transaction("Use queue_viber_message(), which sends after the commit.")
    lifecycle.enter(message, Status.SENDING, **new_claim(timezone.now()))
    stored = in_transaction(lambda: intake.insert_or_first(message, user=user), repeatable=False)
    if stored is message:
        deliver_claimed(message)
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
    message.validate_for_sending()
    lifecycle.enter(message, Status.QUEUED)

    def write() -> OutboundViberMessage:
        stored = intake.insert_or_first(message, user=user)
        if stored is message:
            dispatch_on_commit([message.id], write_alias())
        return stored

    return in_transaction(write, repeatable=False)


def queue_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Store unsaved messages in bulk, all or none, to be sent after the commit; a row for each, in their order.

    Raises `ValidationError`, naming the index of each message that cannot be sent; then none is stored. For a
    `dedupe_key` that was given before, in the list or in the table, the first row stands in.
    """
    messages = list(messages)
    intake.validate_all(messages)
    for message in messages:
        lifecycle.enter(message, Status.QUEUED)

    def write() -> list[OutboundViberMessage]:
        stored = intake.insert_all(messages, user=user)
        new = [row.id for row, given in zip(stored, messages, strict=True) if row is given]
        dispatch_on_commit(new, write_alias())
        return stored

    return in_transaction(write, repeatable=False)


def queue_stored_message(message: OutboundViberMessage, *, user: AbstractBaseUser | None = None) -> bool:
    """Queue a draft, or what failed or was cancelled, to be sent after the commit; False where it is none of these."""
    if not message.is_editable:
        return False
    message.validate_for_sending()
    alias = write_alias()
    with transaction.atomic(using=alias):
        if queued := lifecycle.queue(message):
            lifecycle.note(message, "", kind=ViberMessageEvent.Kind.REQUESTED, user=user)
            dispatch_on_commit([message.id], alias)
    return queued


def resend_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Send again, or for the first time, and return the rows queued for it.

    A draft, and what failed or was cancelled, is queued itself, as it is stored now. What eSMS took, or may have
    taken, becomes a new message. Skipped: what is queued or being sent, what has a resend that is not final yet, and
    what cannot be sent as it stands (`esms_viber.resending.plan_resend` tells which and why).
    """
    pks = _pks(messages)
    return in_transaction(lambda: _resend(pks, user), repeatable=False)


def _resend(pks: list[int], user: AbstractBaseUser | None) -> list[OutboundViberMessage]:
    with translation.override(None):  # the reasons are for the log, which is in English whoever resends
        plan = plan_resend(_locked(pks))
    for message, reason in plan.skipped:
        told = "it cannot be sent as it stands." if message.id in plan.invalid else reason
        logger.info("message %s is not sent again: %s", message.id, told)
    lifecycle.queue_all(plan.first)
    lifecycle.note_all(plan.first, "", kind=ViberMessageEvent.Kind.REQUESTED, user=user)
    lifecycle.stop_repeating([message for message in plan.again if message.status == Status.UNKNOWN])
    copies = [_copy_for_resend(message) for message in plan.again]
    intake.insert_all(copies, user=user)
    dispatch_on_commit([message.id for message in plan.first + copies], write_alias())
    return plan.first + copies


def _pks(messages: Iterable[OutboundViberMessage]) -> list[int]:
    """In the order in which everybody locks. To be read before the transaction begins, which must begin with a lock."""
    return sorted({message.id for message in messages})


def _locked(pks: list[int]) -> list[OutboundViberMessage]:
    """The rows as they are now; as many at a time as a statement may name."""
    rows = OutboundViberMessage.objects.using(write_alias()).order_by("pk")
    return [row for start in range(0, len(pks), 500) for row in lock(rows.filter(pk__in=pks[start : start + 500]))]


def _copy_for_resend(message: OutboundViberMessage) -> OutboundViberMessage:
    """A new message for the same phone; not its dedupe key, nor its times."""
    copy = OutboundViberMessage(
        **{
            name: getattr(message, name)
            for name in OutboundViberMessage.CALLERS_COLUMNS
            if name not in {"dedupe_key", "send_at", "expires_at"}
        },
        resend_of=message,
    )
    lifecycle.enter(copy, Status.QUEUED)
    return copy


def cancel_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Take drafts and queued messages out, and stop repeating `unknown` ones; the rows that this changed.

    An `unknown` message stays `unknown`: it may have been sent. Others are skipped.
    """
    pks = _pks(messages)

    def write() -> list[OutboundViberMessage]:
        rows = _locked(pks)
        waiting = [row for row in rows if row.status in {Status.DRAFT, Status.QUEUED}]
        repeating = [row for row in rows if row.status == Status.UNKNOWN and row.next_attempt_at is not None]
        lifecycle.cancel_all(waiting)
        lifecycle.note_all(waiting, _CANCELLED, user=user)
        lifecycle.stop_repeating(repeating)
        lifecycle.note_all(repeating, _REPEATING_STOPPED, user=user)
        return sorted(waiting + repeating, key=lambda row: row.id)

    return in_transaction(write)


def settle_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Note that somebody has looked up what became of messages that only a person can decide about; those noted.

    They keep their status, are not counted as waiting for a decision any more, and can be sent again all the same.
    """
    pks = _pks(messages)

    def write() -> list[OutboundViberMessage]:
        locked = _locked(pks)
        waiting = needing_decision(pks)
        rows = [row for row in locked if row.id in waiting]
        lifecycle.note_all(rows, _LOOKED_UP, user=user, data={"looked_up": True})
        return rows

    return in_transaction(write)
