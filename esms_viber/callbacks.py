"""What eSMS reports to us: written down first, believed afterwards."""

from __future__ import annotations

import enum
import hashlib
import json
import logging
from collections.abc import Mapping

from django.db import transaction

from . import recording
from .models import OutboundViberMessage, ViberMessageEvent
from .phones import same_phone
from .reports import DeliveryReport, MalformedReport, bounded, parse_report
from .transactions import in_transaction, lock, write_alias

logger = logging.getLogger("esms_viber")

MOST_EVENTS = 100
"""Callbacks kept per message."""


class Receipt(enum.Enum):
    """What to answer to a callback."""

    GONE = 404
    TAKEN = 200
    NONSENSE = 400
    FAILED = 500


def receive_callback(pk: int, request_id: str, parameters: Mapping[str, str]) -> Receipt:
    """Store a callback whose token was valid, then apply it, in one transaction that begins with a write.

    Where applying fails it is stored all the same, and applied when eSMS repeats it.
    """
    try:
        return in_transaction(lambda: _receive(pk, request_id, parameters))
    except Exception:
        logger.exception("callback for message %s could not be stored", pk)
        return Receipt.FAILED


def _receive(pk: int, request_id: str, parameters: Mapping[str, str]) -> Receipt:
    message = lock(OutboundViberMessage.objects.using(write_alias()).filter(pk=pk)).first()
    if message is None:
        return Receipt.GONE
    event = _keep(message, request_id, parameters)
    try:
        report = parse_report(parameters)
    except MalformedReport as error:
        logger.warning("callback for message %s makes no sense: %s", pk, error)
        return Receipt.NONSENSE
    if event is None or event.applied or not _speaks_of(message, report, request_id):
        return Receipt.TAKEN
    try:
        with transaction.atomic(using=write_alias()):
            recording.apply_report(message, report, event)
    except Exception:
        if transaction.get_rollback(using=write_alias()):
            # A deadlock took the savepoint along, and with it the event: all of it once more.
            raise
        logger.exception("callback for message %s is stored but could not be applied", pk)
        return Receipt.FAILED
    return Receipt.TAKEN


def _keep(message: OutboundViberMessage, request_id: str, parameters: Mapping[str, str]) -> ViberMessageEvent | None:
    """The event of this callback, new or known; None where the message has too many."""
    events = ViberMessageEvent.objects.using(write_alias())
    fingerprint = _fingerprint(message.pk, request_id, parameters)
    known = events.filter(fingerprint=fingerprint).first()
    if known is not None:
        return known
    if events.filter(message=message, kind=ViberMessageEvent.Kind.CALLBACK).count() >= MOST_EVENTS:
        logger.warning("message %s has %d callbacks; another one is not kept", message.pk, MOST_EVENTS)
        return None
    return events.create(
        message=message,
        kind=ViberMessageEvent.Kind.CALLBACK,
        request_id=request_id[:50],
        data=bounded(parameters),
        fingerprint=fingerprint,
    )


def _fingerprint(pk: int, request_id: str, parameters: Mapping[str, str]) -> str:
    pairs = sorted((name.lower(), value) for name, value in parameters.items())
    return hashlib.sha256(json.dumps([pk, request_id, pairs]).encode()).hexdigest()


def _speaks_of(message: OutboundViberMessage, report: DeliveryReport, request_id: str) -> bool:
    """May this report move the status? An older attempt's, or one that contradicts itself, may not."""
    if request_id != message.request_id:
        logger.info("callback for message %s belongs to an earlier attempt", message.pk)
        return False
    if report.request_id and report.request_id != message.request_id:
        logger.warning("callback for message %s carries another RequestId", message.pk)
        return False
    if report.phone and not same_phone(report.phone, message.phone):
        logger.warning("callback for message %s carries another phone", message.pk)
        return False
    if report.sms_id and message.sms_id and report.sms_id != message.sms_id:
        logger.warning("callback for message %s carries another SMSID; the first one is kept", message.pk)
    return True
