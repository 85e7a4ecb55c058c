"""Claiming messages: one short transaction that makes them ours, before anything goes over the network."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Sequence

from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from . import lifecycle
from .conf import get_settings
from .models import OutboundViberMessage, Status
from .outcomes import may_repeat_at
from .outgoing import new_request_id
from .transactions import lock, write_alias

LEASE = dt.timedelta(minutes=2)
"""How long a claim holds without being renewed; then another sender takes the message over."""

EXPIRED = _("It expired before it could be sent.")


def new_claim(now: dt.datetime) -> dict[str, object]:
    return {"claim_id": uuid.uuid4().hex, "lease_until": now + LEASE}


def claim(limit: int, pks: Sequence[int] | None = None) -> list[OutboundViberMessage]:
    """At most `limit` messages that are due, now `sending` and ours; of these primary keys, or any.

    What has expired or may not be repeated any more is settled on the way, and not returned.
    """
    while True:
        ready, settled = _claim_once(limit, pks)
        if ready or not settled:
            return ready


def _claim_once(limit: int, pks: Sequence[int] | None) -> tuple[list[OutboundViberMessage], int]:
    alias = write_alias()
    now = timezone.now()
    with transaction.atomic(using=alias):
        rows = OutboundViberMessage.objects.using(alias).due(now)
        if pks is not None:
            rows = rows.filter(pk__in=pks).order_by("pk")
        due = list(lock(rows, skip_locked=pks is None)[:limit])
        ready = [message for message in due if _is_still_wanted(message, now)]
        for message in ready:
            _renew_request_id(message)
        if ready:
            lifecycle.move_all(ready, Status.SENDING, **new_claim(now))
    return ready, len(due) - len(ready)


def _is_still_wanted(message: OutboundViberMessage, now: dt.datetime) -> bool:
    expired = message.expires_at is not None and message.expires_at <= now
    if message.status == Status.QUEUED and expired:
        lifecycle.expire(message, EXPIRED)
        return False
    if message.uncertain_since and (expired or not may_repeat_at(message.uncertain_since, now)):
        return not lifecycle.stop_repeating(message)
    return True


def _renew_request_id(message: OutboundViberMessage) -> None:
    """A definite refusal ended the RequestId it was given for; an uncertain one must stay."""
    if message.status == Status.QUEUED and message.code_result:
        columns = {"request_id": new_request_id(), "attempts": 0}
        OutboundViberMessage.objects.using(write_alias()).filter(pk=message.pk).update(**columns)
        for name, value in columns.items():
            setattr(message, name, value)


def renew(messages: Sequence[OutboundViberMessage], claim_id: str) -> None:
    """Hold on to those of the messages that are still ours."""
    until = timezone.now() + LEASE
    with transaction.atomic(using=write_alias()):
        ours = lock_claimed(messages, claim_id)
        OutboundViberMessage.objects.using(write_alias()).filter(pk__in=ours).update(lease_until=until)
    for message in messages:
        message.lease_until = until if message.pk in ours else None


def lock_claimed(messages: Sequence[OutboundViberMessage], claim_id: str) -> set[int]:
    """Lock the rows of these that are still ours, in the order in which everybody does; their primary keys."""
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=[message.pk for message in messages])
    return set(lock(rows.filter(claim_id=claim_id).order_by("pk")).values_list("pk", flat=True))


def take_over_abandoned() -> int:
    """Return to the queue what a sender that is gone had claimed; as uncertain where its call may have been made."""
    alias = write_alias()
    now = timezone.now()
    rows = OutboundViberMessage.objects.using(alias).abandoned(now)
    if not rows.exists():
        return 0
    with transaction.atomic(using=alias):
        abandoned = list(lock(rows, skip_locked=True)[:1000])
        for message in abandoned:
            exhausted = message.attempts >= get_settings().MAX_ATTEMPTS and message.uncertain_since
            lifecycle.put_back(message, claim=message.claim_id, when=None if exhausted else now)
            lifecycle.note(message, _("The process that was sending it has stopped; another took it over."))
    return len(abandoned)
