"""What a resend would do to each message, and which ones wait for that decision: pages ask, services act on it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from django.core.exceptions import ValidationError
from django.utils.translation import gettext as _

from .models import OutboundViberMessage, Status
from .transactions import write_alias

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
    """Those of the skipped that cannot be sent as they stand; their reason may repeat the phone."""


def plan_resend(messages: Iterable[OutboundViberMessage]) -> ResendPlan:
    """Changes nothing. Binding only where the rows are locked."""
    messages = list(messages)
    being_resent = _being_resent(messages)
    plan = ResendPlan()
    for message in messages:
        if reason := _obstacle(message, being_resent):
            plan.skipped.append((message, reason))
        elif reason := _what_is_wrong(message):
            plan.skipped.append((message, reason))
            plan.invalid.add(message.id)
        elif message.is_editable:
            plan.first.append(message)
        else:
            plan.again.append(message)
    return plan


def _being_resent(messages: list[OutboundViberMessage]) -> set[int | None]:
    pks = [message.id for message in messages]
    resends = OutboundViberMessage.objects.using(write_alias()).filter(resend_of__in=pks).exclude(status__in=FINAL)
    # Of a sandbox message no report need ever come.
    resends = resends.exclude(status=Status.SENT, sandbox=True)
    return set(resends.values_list("resend_of", flat=True))


def needing_decision(pks: Sequence[int]) -> set[int]:
    """Those of these messages of which only a person can find out, or decide, what becomes of them."""
    rows = OutboundViberMessage.objects.using(write_alias()).order_by()
    found: set[int] = set()
    for start in range(0, len(pks), 500):
        some = rows.filter(pk__in=pks[start : start + 500])
        found.update(some.undecided().values_list("pk", flat=True), some.unconfirmed().values_list("pk", flat=True))
    return found


def _obstacle(message: OutboundViberMessage, being_resent: set[int | None]) -> str:
    if message.status == Status.QUEUED:
        return _("It is in the queue already.")
    if message.status == Status.SENDING:
        return _("It is being sent.")
    if message.id in being_resent:
        return _("It has been sent again, and that message is not final yet.")
    return ""


def _what_is_wrong(message: OutboundViberMessage) -> str:
    try:
        message.validate_for_sending()
    except ValidationError as error:
        return " ".join(error.messages)
    return ""
