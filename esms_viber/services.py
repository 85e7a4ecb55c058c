"""The verbs: send, queue, resend, cancel, refresh. What a site calls."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from asgiref.sync import sync_to_async
from django.core.exceptions import ValidationError
from django.db import connections, models
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import creation, lifecycle, privacy
from .conf import get_settings
from .database import begin_with_write, in_transaction, refuse_open_transaction
from .delivery import breaker
from .delivery.claims import due_pks, new_claim
from .delivery.worker import IN_REQUEST, DeliverySummary, Worker, deliver_due_messages, deliver_messages
from .dispatch import dispatch_on_commit
from .lifecycle import Transition
from .models import (
    OutboundViberMessage,
    Purpose,
    Status,
    ViberMessageEvent,
    ViberOptOut,
    ViberPause,
    ViberTemplate,
)
from .models.opt_out import Scope, forbids
from .models.pause import Holds, campaign_named
from .phones import InvalidPhone, mask_phone, normalize_phone
from .reports.polling import refresh_viber_messages
from .resend import needing_decision, resend

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


__all__ = [
    "DeliverySummary",
    "aqueue_viber_message",
    "asend_viber_message",
    "cancel_viber_messages",
    "deliver_due_messages",
    "deliver_messages",
    "erase_messages_of",
    "export_messages_of",
    "opt_out",
    "pause_sending",
    "queue_viber_message",
    "queue_viber_messages",
    "refresh_viber_messages",
    "resend_viber_messages",
    "resume_sending",
    "send_viber_message",
    "settle_viber_messages",
    "withdraw_opt_out",
]

_REHEARSED = gettext_noop("Sent as a rehearsal, to a phone of one's own.")
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
    purpose: str = "",
    dedupe_key: str | None = None,
    related_object: models.Model | None = None,
    metadata: Mapping[str, Any] | None = None,
    send_at: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    user: AbstractBaseUser | None = None,
) -> OutboundViberMessage:
    """Store a message, call eSMS now, and return the row with the outcome; see `raise_for_status()`.

    The row is committed before the call, which ends after ten seconds at most. While eSMS does not answer, or refuses
    the account or the brand name, no call is made, but for one at a time that shows whether that is over; the row is
    `queued` with the reason. So it is while sending or the campaign is paused, and outside `PROMOTIONAL_HOURS`; where
    the phone has opted out, it is `cancelled`. A `template` brings the texts, filled with the `context`, and the
    purpose unless one is given.

    Raises `ValidationError` for what cannot be sent, `ImproperlyConfigured` where a setting keeps everything from being
    sent, and `TransactionManagementError` inside an open transaction, where `queue_viber_message()` is the one to use.
    With a `dedupe_key` that was given before, the first row is returned and nothing is sent.
    """
    message = _new_message(
        template,
        context,
        {"content": content, "image_url": image_url, "button_label": button_label, "button_url": button_url},
        phone=phone,
        brandname=brandname,
        sandbox=sandbox,
        campaign=campaign,
        purpose=purpose,
        dedupe_key=dedupe_key,
        related_object=related_object,
        metadata=metadata,
        send_at=send_at,
        expires_at=expires_at,
    )
    creation.validate(message, strict=True)
    if message.send_at is not None and message.send_at > timezone.now():
        raise ValidationError(
            {"send_at": _("This time is still to come. Use queue_viber_message() to send a message later.")}
        )
    return send_new_message(message, user=user)


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
    purpose: str = "",
    dedupe_key: str | None = None,
    related_object: models.Model | None = None,
    metadata: Mapping[str, Any] | None = None,
    send_at: dt.datetime | None = None,
    expires_at: dt.datetime | None = None,
    template: str | None = None,
    context: Mapping[str, Any] | None = None,
    user: AbstractBaseUser | None = None,
) -> OutboundViberMessage:
    """Store a message to be sent after the transaction commits, and return the queued row.

    Rolled back with the transaction. Where the phone has opted out, the row is `cancelled` instead. A `template` brings
    the texts, filled with the `context`, and the purpose unless one is given. Raises `ValidationError` for what cannot
    be sent, or a template or a value for it that is missing; a setting that is wrong is
    logged, and the message waits until it is mended. With a `dedupe_key` that was given before, the first row is
    returned and nothing is queued.
    """
    message = _new_message(
        template,
        context,
        {"content": content, "image_url": image_url, "button_label": button_label, "button_url": button_url},
        phone=phone,
        brandname=brandname,
        sandbox=sandbox,
        campaign=campaign,
        purpose=purpose,
        dedupe_key=dedupe_key,
        related_object=related_object,
        metadata=metadata,
        send_at=send_at,
        expires_at=expires_at,
    )
    creation.validate(message)
    [stored] = creation.queue([message], user=user)
    return stored


def _new_message(
    template: str | None, context: Mapping[str, Any] | None, texts: dict[str, str], *, purpose: str, **terms: Any
) -> OutboundViberMessage:
    """Make the unsaved message, with the texts of a template or those that were given."""
    if template is None:
        if context is not None:
            raise TypeError("context is for a template; name one, or leave it out")
        return OutboundViberMessage(**texts, purpose=purpose or Purpose.TRANSACTIONAL, **terms)
    if given := [name for name, text in texts.items() if text]:
        raise TypeError(f"a template brings its own texts; leave out {', '.join(given)}")
    found = ViberTemplate.objects.named(template)
    return OutboundViberMessage(**found.filled(context or {}), purpose=purpose or found.purpose, **terms)


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


def send_new_message(
    message: OutboundViberMessage, *, user: AbstractBaseUser | None, mark: str | None = None
) -> OutboundViberMessage:
    """Store a validated message, call eSMS now, and return the row with the outcome, or the first row with its key.

    `mark`: a fingerprint for its history; raises `IntegrityError`, and sends nothing, where a message has it already.
    """
    alias = OutboundViberMessage.objects.write_alias()
    refuse_open_transaction("Use queue_viber_message(), which sends after the commit.", using=alias)
    states = breaker.look()
    held = breaker.holding(states, message.brandname or get_settings().BRANDNAME, in_request=True)
    claim_id, lease_until = new_claim(timezone.now())

    def write() -> tuple[OutboundViberMessage, Holds]:
        if held is not None and not held.is_probe_due():
            lifecycle.enter([message], Status.QUEUED, **breaker.reason(held))
        else:
            lifecycle.enter([message], Status.SENDING, claim_id=claim_id, lease_until=lease_until)
        [stored] = creation.insert([message], user=user)
        # Asked once the row is there, because the insert may have waited for others to write.
        holds = ViberPause.objects.holds()
        if stored is message and message.status == Status.SENDING and (reason := holds.reason(message)):
            # No signal tells, because nobody has seen this row otherwise.
            change = lifecycle.release(message, when=message.next_attempt_at, error_message=reason)
            lifecycle.write(change)
            lifecycle.adopt([change])
        if mark is not None:
            lifecycle.note([stored], _REHEARSED, user=user, fingerprint=mark)
        return stored, holds

    stored, holds = in_transaction(write, using=alias, repeatable=False)
    if stored is message and message.status == Status.SENDING:
        Worker([], within=IN_REQUEST, states=states, holds=holds).run(claimed=[message])
    return stored


def queue_stored_message(message: OutboundViberMessage, *, user: AbstractBaseUser | None = None) -> bool:
    """Queue a draft, or what failed or was cancelled, to be sent after the commit; False where it is none of these.

    False as well where the phone has opted out: then a draft is cancelled.
    """
    if not message.is_editable:
        return False
    creation.validate(message)

    def write() -> bool:
        # It may have been redacted since it was loaded.
        if any(row.redacted_at is not None for row in OutboundViberMessage.objects.locked([message.id])):
            return False
        scope = ViberOptOut.objects.among([message.phone]).get(message.phone)
        if forbids(scope, message.purpose):
            if message.status == Status.DRAFT:
                change = lifecycle.take_out(message)
                lifecycle.store_events([change.event] if lifecycle.transition(change) else [])
            return False
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


# -- who gets what, and when -------------------------------------------------------------------------------------------


def opt_out(phone: str, *, scope: str, note: str = "", user: AbstractBaseUser | None = None) -> ViberOptOut:
    """Send this phone no promotional message any more, or none at all (`scope`: `promotional` or `everything`).

    What is queued for it is cancelled when its turn comes; what is on the wire is finished. Given again, the wider
    scope stands. Raises `ValidationError` for a phone that cannot be read.
    """
    given = ViberOptOut(phone=_readable(phone), scope=scope, note=note)
    given.full_clean(exclude={"user"}, validate_unique=False, validate_constraints=False)
    rows = ViberOptOut.objects.for_writing()

    def write() -> ViberOptOut:
        begin_with_write(rows, "note")
        defaults = {"scope": given.scope, "note": given.note, "user": user}
        stored: ViberOptOut
        stored, is_new = rows.get_or_create(phone=given.phone, defaults=defaults)
        if not is_new and given.scope == Scope.EVERYTHING != stored.scope:
            rows.filter(pk=stored.pk).update(scope=given.scope, note=given.note or stored.note)
            stored.refresh_from_db(using=rows.db)
        return stored

    return in_transaction(write, using=rows.db)


def withdraw_opt_out(phone: str, *, user: AbstractBaseUser | None = None) -> bool:
    """Let this phone get messages again; False where it has not opted out. What was cancelled stays so.

    Raises `ValidationError` for a phone that cannot be read.
    """
    phone = _readable(phone)
    deleted, _models = ViberOptOut.objects.for_writing().filter(phone=phone).delete()
    if deleted:
        logger.info("the opt-out of %s was withdrawn by %s", mask_phone(phone), _named(user))
    return bool(deleted)


def _named(user: AbstractBaseUser | None) -> str:
    return "code" if user is None else f"user {user.pk}"


def _readable(phone: str) -> str:
    # A lookup by a phone that cannot be read finds nothing, and a typing error would do nothing without a word.
    try:
        return normalize_phone(phone)
    except InvalidPhone as error:
        raise ValidationError({"phone": ValidationError(error.message, code=error.code)}) from None


def pause_sending(campaign: str = "", *, note: str = "", user: AbstractBaseUser | None = None) -> ViberPause:
    """Start no call for messages of this campaign, or for any, until `resume_sending()`.

    They keep their place and their times; what is on the wire is finished. One row, however many messages wait.
    Raises `ValidationError` for a name that no campaign can have, and for a note that cannot be stored.
    """
    given = ViberPause(campaign=campaign_named(campaign), note=note)
    given.full_clean(exclude={"user"}, validate_unique=False, validate_constraints=False)
    rows = ViberPause.objects.for_writing()
    defaults = {"note": given.note, "user": user}

    def write() -> ViberPause:
        begin_with_write(rows, "note")
        stored: ViberPause = rows.get_or_create(campaign=given.campaign, defaults=defaults)[0]
        return stored

    return in_transaction(write, using=rows.db)


def resume_sending(campaign: str = "", *, user: AbstractBaseUser | None = None) -> bool:
    """End a pause, and have what is due by now sent after the commit; False where there was none.

    The dispatcher is given 50,000 messages at most; `manage.py send_viber_messages` sends all. Raises
    `ValidationError` for a name that no campaign can have.
    """
    campaign = campaign_named(campaign)
    rows = ViberPause.objects.for_writing()

    def write() -> bool:
        deleted, _models = rows.filter(campaign=campaign).delete()
        if deleted:
            logger.info("sending of %r was resumed by %s", campaign or "everything", _named(user))
            dispatch_on_commit(due_pks(campaign))
        return bool(deleted)

    return in_transaction(write, using=rows.db)


# -- what is kept ------------------------------------------------------------------------------------------------------


def export_messages_of(phone: str) -> dict[str, Any]:
    """Return all that is stored about one person, as values that JSON has: messages with their histories, and opt-out.

    Times are in ISO 8601, prices are strings. Who of the site's staff did something is left out. Nothing is written.
    Raises `ValidationError` for a phone that cannot be read.
    """
    return privacy.export(_readable(phone))


def erase_messages_of(phone: str, *, user: AbstractBaseUser | None = None) -> int:
    """Redact every message to this phone and its history, and return how many messages that were.

    What was not sent yet is cancelled, and what is on the wire is redacted at once, so that its result finds nothing to
    bring back. Status, price and times stay, and so does the opt-out, the one place that still has the phone. Messages
    are redacted and committed a few hundred at a time: after an error, call it again. When it returns there is none
    left, unless one was queued meanwhile; opt the phone out first to keep what is queued later from being sent. Raises
    `ValidationError` for a phone that cannot be read.
    """
    return privacy.erase(_readable(phone), user=user)


# -- from async code ---------------------------------------------------------------------------------------------------


async def aqueue_viber_message(phone: str, content: str = "", **terms: Any) -> OutboundViberMessage:
    """Do as `queue_viber_message()`, in the thread in which Django runs the database of this async code.

    So the message belongs to the transaction of that thread, if one is open.
    """
    return await sync_to_async(queue_viber_message)(phone, content, **terms)


async def asend_viber_message(phone: str, content: str = "", **terms: Any) -> OutboundViberMessage:
    """Do as `send_viber_message()`, in a thread of its own, because eSMS may take ten seconds to answer.

    Raises `TransactionManagementError` where the caller's thread has a transaction open.
    """
    alias = OutboundViberMessage.objects.write_alias()
    await sync_to_async(refuse_open_transaction)(
        "Use aqueue_viber_message(), which sends after the commit.", using=alias
    )

    def send() -> OutboundViberMessage:
        try:
            return send_viber_message(phone, content, **terms)
        finally:
            connections.close_all()  # those of this thread, which ends

    return await sync_to_async(send, thread_sensitive=False)()
