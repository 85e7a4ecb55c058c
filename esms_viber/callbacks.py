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
from .transactions import lock, write_alias

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
    """Store a callback whose token was valid, then apply it: two transactions, so that the first survives the second.

    A callback that was stored but could not be applied is applied when eSMS repeats it.
    """
    try:
        event = _store(pk, request_id, parameters)
    except Exception:
        logger.exception("callback for message %s could not be stored", pk)
        return Receipt.FAILED
    if event is None:
        return Receipt.GONE
    try:
        report = parse_report(parameters)
    except MalformedReport as error:
        logger.warning("callback for message %s makes no sense: %s", pk, error)
        return Receipt.NONSENSE
    if event.pk is None or event.applied:
        return Receipt.TAKEN
    try:
        _apply(event, report)
    except Exception:
        logger.exception("callback for message %s is stored but could not be applied", pk)
        return Receipt.FAILED
    return Receipt.TAKEN


def _store(pk: int, request_id: str, parameters: Mapping[str, str]) -> ViberMessageEvent | None:
    """The event, new or known; unsaved where the message has too many; None where there is no such message."""
    alias = write_alias()
    with transaction.atomic(using=alias):
        message = lock(OutboundViberMessage.objects.using(alias).filter(pk=pk)).first()
        if message is None:
            return None
        event = ViberMessageEvent(
            message=message,
            kind=ViberMessageEvent.Kind.CALLBACK,
            request_id=request_id[:50],
            data=bounded(parameters),
            fingerprint=_fingerprint(pk, request_id, parameters),
        )
        events = ViberMessageEvent.objects.using(alias)
        known = events.filter(fingerprint=event.fingerprint).first()
        if known is not None:
            return known
        if events.filter(message=message, kind=event.kind).count() >= MOST_EVENTS:
            logger.warning("message %s has %d callbacks; another one is not kept", pk, MOST_EVENTS)
            return event
        event.save(using=alias)
        return event


def _fingerprint(pk: int, request_id: str, parameters: Mapping[str, str]) -> str:
    pairs = sorted((name.lower(), value) for name, value in parameters.items())
    return hashlib.sha256(json.dumps([pk, request_id, pairs]).encode()).hexdigest()


def _apply(event: ViberMessageEvent, report: DeliveryReport) -> None:
    alias = write_alias()
    with transaction.atomic(using=alias):
        message = lock(OutboundViberMessage.objects.using(alias).filter(pk=event.message_id)).first()
        if message is not None and _speaks_of(message, report, event.request_id):
            recording.apply_report(message, report, event)


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
