"""Resending: what it would do to each message, doing it, and which messages wait for that decision."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.utils import translation
from django.utils.translation import gettext as _

from . import creation, lifecycle
from .database import in_chunks
from .dispatch import dispatch_on_commit
from .models import OutboundViberMessage, Status, ViberMessageEvent, ViberOptOut
from .models.opt_out import forbids

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

FINAL = (Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELLED)
"""A resend in any other state may still arrive."""


@dataclass(slots=True)
class ResendPlan:
    """Messages by what a resend does with them."""

    first: list[OutboundViberMessage] = field(default_factory=list)
    """Queued themselves: surely never taken."""
    again: list[OutboundViberMessage] = field(default_factory=list)
    """Sent again as new messages: taken, or perhaps taken."""
    skipped: list[tuple[OutboundViberMessage, str]] = field(default_factory=list)
    """With the reason, a sentence for people."""
    invalid: set[int] = field(default_factory=set)
    """Skipped because they cannot be sent as they stand. Their reason may repeat the phone."""


def plan_resend(messages: Iterable[OutboundViberMessage]) -> ResendPlan:
    """Sort the messages, and change nothing. The plan is binding only where the caller has locked the rows."""
    messages = list(messages)
    resends = OutboundViberMessage.objects.for_writing().filter(resend_of__in=[message.id for message in messages])
    # A sandbox message rests at `sent`, because no report need ever come.
    resends = resends.exclude(status__in=FINAL).exclude(status=Status.SENT, sent_to_sandbox=True)
    being_resent = set(resends.values_list("resend_of", flat=True))
    scopes = ViberOptOut.objects.among(message.phone for message in messages)
    plan, validator = ResendPlan(), creation.Validator()
    for message in messages:
        if message.status == Status.QUEUED:
            plan.skipped.append((message, _("It is in the queue already.")))
        elif message.status == Status.SENDING:
            plan.skipped.append((message, _("It is being sent.")))
        elif message.redacted_at is not None:
            plan.skipped.append((message, _("Its text and phone were redacted.")))
        elif forbids(scopes.get(message.phone), message.purpose):
            plan.skipped.append((message, _("This phone has opted out.")))
        elif message.id in being_resent:
            plan.skipped.append((message, _("It has been sent again, and that message is not final yet.")))
        else:
            try:
                validator.validate(message)
            except ValidationError as error:
                plan.skipped.append((message, " ".join(error.messages)))
                plan.invalid.add(message.id)
            else:
                (plan.first if message.is_editable else plan.again).append(message)
    return plan


def resend(
    pks: Iterable[int], *, user: AbstractBaseUser | None, hold_inline: bool = False
) -> list[OutboundViberMessage]:
    """Queue what can be sent again, and return it. Runs in the caller's transaction.

    `hold_inline`: the inline dispatcher is given it later; see `dispatch_on_commit()`.
    """
    with translation.override(None):  # the reasons are for the log, which is in English whoever resends
        plan = plan_resend(OutboundViberMessage.objects.locked(pks))
    for message, reason in plan.skipped:
        told = "it cannot be sent as it stands." if message.id in plan.invalid else reason
        logger.info("message %s is not sent again: %s", message.id, told)
    lifecycle.transition(*(lifecycle.queue(message) for message in plan.first))
    lifecycle.note(plan.first, "", kind=ViberMessageEvent.Kind.REQUESTED, user=user)
    dispatch_on_commit((message.id for message in plan.first), hold_inline=hold_inline)
    lifecycle.stop_repeating([message for message in plan.again if message.status == Status.UNKNOWN])
    left_out = {"dedupe_key", "send_at", "expires_at"}
    copied = [name for name in OutboundViberMessage.CALLERS_COLUMNS if name not in left_out]
    copies = [
        OutboundViberMessage(
            **{name: getattr(message, name) for name in copied}, resend_of=message, rehearsal=message.rehearsal
        )
        for message in plan.again
    ]
    return plan.first + creation.queue(copies, user=user, hold_inline=hold_inline)


def needing_decision(pks: Sequence[int]) -> set[int]:
    """Find those of these messages of which only a person can find out, or decide, what becomes of them."""
    rows = OutboundViberMessage.objects.for_writing().order_by()
    found: set[int] = set()
    for chunk in in_chunks(pks):
        some = rows.filter(pk__in=chunk)
        found.update(some.undecided().values_list("pk", flat=True), some.unconfirmed().values_list("pk", flat=True))
    return found
