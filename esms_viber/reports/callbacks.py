"""Callbacks from eSMS: each is stored together with what it changes, and stored alone where applying it fails."""

from __future__ import annotations

import copy
import enum
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass

from django.db import IntegrityError
from django.db.models import Q

from .. import lifecycle
from ..database import TRIES, in_transaction
from ..exceptions import log_failure
from ..formatting import put_together
from ..lifecycle import Transition
from ..models import OutboundViberMessage, ViberMessageEvent
from . import applying
from .parsing import DeliveryReport, MalformedReport, bounded, parse_report

logger = logging.getLogger("esms_viber")

MOST_EVENTS = 100
"""Limit, for each message, of stored callbacks that changed no status."""


class Receipt(enum.Enum):
    """The HTTP status to answer a callback with."""

    GONE = 404
    TAKEN = 200
    NONSENSE = 400
    FAILED = 500


@dataclass(frozen=True, slots=True)
class _Callback:
    """A request whose token was valid."""

    pk: int
    request_id: str
    """The RequestId in the token."""
    data: dict[str, str]
    fingerprint: str
    report: DeliveryReport | None
    """Stays None if no result can be read from the parameters."""


@dataclass(frozen=True, slots=True)
class _History:
    """The traces of a callback in the stored events of its message."""

    had_request: bool
    """Did the message ever have the callback's RequestId?"""
    known: int | None
    """The event of the same callback, if it came before."""
    applied: bool
    """Did that event change the status?"""
    unapplied: int
    """Stored callbacks that changed no status."""


def receive_callback(pk: int, request_id: str, parameters: Mapping[str, str]) -> Receipt:
    """Store a callback whose token was valid, and apply it, in one transaction.

    Where that fails the callback is stored alone, and applied when eSMS repeats it.
    """
    data, report = bounded(parameters), None
    try:
        report = parse_report(data)
    except MalformedReport as error:
        logger.warning("callback for message %s makes no sense: %s", pk, error)
    else:
        if report.left_out:
            logger.warning("callback for message %s: cannot be read, and left out: %s", pk, ", ".join(report.left_out))
    pairs = sorted((name.lower(), value) for name, value in parameters.items())
    fingerprint = hashlib.sha256(json.dumps([pk, request_id, pairs]).encode()).hexdigest()
    callback = _Callback(pk, request_id, data, fingerprint, report)

    try:
        for tries_left in reversed(range(TRIES)):
            try:
                return _receive(callback)
            except (applying.MovedOn, IntegrityError):
                # A worker, or the same callback in another process, wrote after our read, so read again.
                if not tries_left:
                    raise
    except Exception as error:  # noqa: BLE001 - whatever the database raises
        log_failure(error, "callback for message %s could not be applied", pk)

    try:
        message = OutboundViberMessage.objects.for_writing().filter(pk=pk).first()
        if message is not None and (history := _history(message, callback)).had_request and history.known is None:
            alias = OutboundViberMessage.objects.write_alias()
            in_transaction(lambda: lifecycle.store_events([_new_event(callback)]), using=alias)
    except Exception as error:  # noqa: BLE001 - as above
        log_failure(error, "callback for message %s could not be stored", pk)
    return Receipt.FAILED


def _receive(callback: _Callback) -> Receipt:
    """Store the event of a callback, and what its report changes; raise where another process writes in between."""
    # Read outside the transaction, because on SQLite that has to begin with a write.
    message = OutboundViberMessage.objects.for_writing().filter(pk=callback.pk).first()
    if message is None:
        return Receipt.GONE
    history = _history(message, callback)
    if not history.had_request:
        logger.warning("callback for message %s carries a RequestId that it never had: not stored", callback.pk)
        return Receipt.GONE
    receipt = Receipt.TAKEN if callback.report else Receipt.NONSENSE
    if history.applied:
        return receipt

    # A report changes nothing if it is about an earlier attempt, or contradicts the message.
    report, to = callback.report, None
    if report is not None:
        if callback.request_id != message.request_id:
            logger.info("callback for message %s belongs to an earlier attempt", message.pk)
        elif report.names_another_request(message.request_id):
            logger.warning("callback for message %s carries another RequestId", message.pk)
        elif report.names_another_phone(message.phone):
            logger.warning("callback for message %s carries another phone", message.pk)
        else:
            if message.sms_id and report.names_another_sms_id(message.sms_id):
                logger.warning("callback for message %s carries another SMSID; the first one is kept", message.pk)
            to = applying.status_after(message, report)

    known = None
    if history.known is not None:
        if to is None:
            return receipt
        known = ViberMessageEvent.objects.for_writing().filter(pk=history.known).first()
    elif to in {None, message.status} and history.unapplied >= MOST_EVENTS:
        logger.warning("message %s has %d callbacks that moved nothing; one more is not kept", message.pk, MOST_EVENTS)
        return receipt

    def write() -> tuple[ViberMessageEvent, list[Transition]]:
        # Work on a copy, because after a rollback this runs again and must not find its own changes.
        event, changes = copy.copy(known) or _new_event(callback), list[Transition]()
        if report is not None and to is not None:
            # Update the message before inserting the event: on MariaDB the insert locks the message's row, but too
            # weakly for the UPDATE.
            changes = applying.apply_report(message, report, event, again=known is not None)
            event.applied = bool(changes)
        if known is None:
            event.save(using=alias, force_insert=True)
        elif event.applied:
            event.save(using=alias, update_fields=["applied"])
        return event, changes

    def was_committed(written: tuple[ViberMessageEvent, list[Transition]]) -> bool:
        # The primary key too, because the same callback may have come to another process.
        event = written[0]
        events = ViberMessageEvent.objects.for_writing().filter(pk=event.pk, fingerprint=event.fingerprint)
        return events.filter(applied=event.applied).exists()

    alias = OutboundViberMessage.objects.write_alias()
    _event, changes = in_transaction(write, using=alias, was_committed=was_committed)
    lifecycle.adopt(changes)
    lifecycle.announce_after_commit(changes)
    return receipt


def _history(message: OutboundViberMessage, callback: _Callback) -> _History:
    kept = ViberMessageEvent.Kind.CALLBACK
    is_current = callback.request_id == message.request_id
    events = ViberMessageEvent.objects.for_writing().filter(message=message.pk).order_by()
    events = events.filter(Q(kind=kept) if is_current else Q(kind=kept) | Q(request_id=callback.request_id))
    found = list(events.values_list("kind", "pk", "fingerprint", "applied"))
    known = {fingerprint: (pk, applied) for _kind, pk, fingerprint, applied in found}
    pk, applied = known.get(callback.fingerprint, (None, False))
    return _History(
        # Each RequestId leaves an event that is no callback, when its message is queued, called or taken over.
        had_request=bool(callback.request_id) and (is_current or any(kind != kept for kind, *_ in found)),
        known=pk,
        applied=applied,
        unapplied=sum(kind == kept and not applied for kind, _pk, _fingerprint, applied in found),
    )


def _new_event(callback: _Callback) -> ViberMessageEvent:
    return ViberMessageEvent(
        message_id=callback.pk,
        kind=ViberMessageEvent.Kind.CALLBACK,
        request_id=callback.request_id[:50],
        text=put_together(*callback.report.notes) if callback.report else "",
        data=callback.data,
        fingerprint=callback.fingerprint,
    )
