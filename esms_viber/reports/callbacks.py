"""What eSMS reports to us: stored together with what it changes, and kept where that fails."""

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
from ..models import OutboundViberMessage, ViberMessageEvent
from . import applying
from .parsing import DeliveryReport, MalformedReport, bounded, parse_report

logger = logging.getLogger("esms_viber")

MOST_EVENTS = 100
"""Callbacks kept per message that moved nothing."""


class Receipt(enum.Enum):
    """What to answer to a callback."""

    GONE = 404
    TAKEN = 200
    NONSENSE = 400
    FAILED = 500


@dataclass(frozen=True, slots=True)
class _Callback:
    """What came, under a token that was valid."""

    pk: int
    request_id: str
    """As the token has it."""
    data: dict[str, str]
    fingerprint: str
    report: DeliveryReport | None
    """None: no result can be read from it."""


@dataclass(frozen=True, slots=True)
class _History:
    """What the events of a message tell of a callback, before it is stored."""

    had_request: bool
    """Was its RequestId ever the message's?"""
    known: int | None
    """The event of the same callback, where it came before."""
    applied: bool
    """Did it move the status then?"""
    moved_nothing: int
    """The callbacks that are kept and moved nothing."""


def receive_callback(pk: int, request_id: str, parameters: Mapping[str, str]) -> Receipt:
    """Store a callback whose token was valid, and apply it, in one transaction.

    Where applying fails it is stored all the same, and applied when eSMS repeats it.
    """
    callback = _read(pk, request_id, parameters)
    try:
        return _receive(callback)
    except Exception as error:  # noqa: BLE001 - whatever the database raises
        log_failure(error, "callback for message %s could not be applied", pk)
    try:
        _store_alone(callback)
    except Exception as error:  # noqa: BLE001 - as above
        log_failure(error, "callback for message %s could not be stored", pk)
    return Receipt.FAILED


def _read(pk: int, request_id: str, parameters: Mapping[str, str]) -> _Callback:
    data, report = bounded(parameters), None
    try:
        report = parse_report(data)
    except MalformedReport as error:
        logger.warning("callback for message %s makes no sense: %s", pk, error)
    else:
        if report.left_out:
            logger.warning("callback for message %s: cannot be read, and left out: %s", pk, ", ".join(report.left_out))
    return _Callback(pk, request_id, data, _fingerprint(pk, request_id, parameters), report)


def _fingerprint(pk: int, request_id: str, parameters: Mapping[str, str]) -> str:
    pairs = sorted((name.lower(), value) for name, value in parameters.items())
    return hashlib.sha256(json.dumps([pk, request_id, pairs]).encode()).hexdigest()


def _receive(callback: _Callback) -> Receipt:
    for tries_left in reversed(range(TRIES)):
        # Read outside the transaction, because on SQLite that has to begin with a write.
        message = OutboundViberMessage.objects.for_writing().filter(pk=callback.pk).first()
        if message is None:
            return Receipt.GONE
        history = _history(message, callback)
        if not history.had_request:
            logger.warning("callback for message %s carries a RequestId that it never had: not stored", callback.pk)
            return Receipt.GONE
        try:
            _store(message, history, callback)
        except (applying.MovedOn, IntegrityError):
            # A sender, or the same callback in another process, came in between: look again.
            if not tries_left:
                raise
        else:
            break
    return Receipt.TAKEN if callback.report else Receipt.NONSENSE


def _history(message: OutboundViberMessage, callback: _Callback) -> _History:
    kept = ViberMessageEvent.Kind.CALLBACK
    is_current = callback.request_id == message.request_id
    events = ViberMessageEvent.objects.for_writing().filter(message=message.pk).order_by()
    events = events.filter(Q(kind=kept) if is_current else Q(kind=kept) | Q(request_id=callback.request_id))
    found = list(events.values_list("kind", "pk", "fingerprint", "applied"))
    known = {fingerprint: (pk, applied) for _kind, pk, fingerprint, applied in found}
    pk, applied = known.get(callback.fingerprint, (None, False))
    return _History(
        # Whatever is queued, called or taken over leaves an event under its RequestId.
        had_request=bool(callback.request_id) and (is_current or any(kind != kept for kind, *_ in found)),
        known=pk,
        applied=applied,
        moved_nothing=sum(kind == kept and not applied for kind, _pk, _fingerprint, applied in found),
    )


def _store(message: OutboundViberMessage, history: _History, callback: _Callback) -> None:
    """Write the event and what the report changes; nothing for a known one that changes nothing, or one too many."""
    if history.applied:
        return
    to = None
    if callback.report is not None and _speaks_of(message, callback.report, callback.request_id):
        to = applying.status_after(message, callback.report)
    if history.known is not None and to is None:
        return
    if history.known is None and to in {None, message.status} and history.moved_nothing >= MOST_EVENTS:
        logger.warning("message %s has %d callbacks that moved nothing; one more is not kept", message.pk, MOST_EVENTS)
        return
    known = None
    if history.known is not None:
        known = ViberMessageEvent.objects.for_writing().filter(pk=history.known).first()

    alias = OutboundViberMessage.objects.write_alias()

    def write() -> None:
        # On copies, because what a rollback takes back must not stay on what is written once more.
        changed, event = copy.copy(message), copy.copy(known) or _new_event(callback)
        if callback.report is not None and to is not None:
            # First, because an event that is inserted locks its message on MariaDB, too weakly for the UPDATE.
            event.applied = applying.apply_report(changed, callback.report, event, again=known is not None)
        if known is None:
            event.save(using=alias, force_insert=True)
        elif event.applied:
            event.save(using=alias, update_fields=["applied"])

    in_transaction(write, using=alias)


def _new_event(callback: _Callback) -> ViberMessageEvent:
    return ViberMessageEvent(
        message_id=callback.pk,
        kind=ViberMessageEvent.Kind.CALLBACK,
        request_id=callback.request_id[:50],
        text=put_together(*callback.report.notes) if callback.report else "",
        data=callback.data,
        fingerprint=callback.fingerprint,
    )


def _store_alone(callback: _Callback) -> None:
    """Keep a callback that could not be applied, unless it is kept already or not of this message."""
    message = OutboundViberMessage.objects.for_writing().filter(pk=callback.pk).first()
    if message is not None and (history := _history(message, callback)).had_request and history.known is None:
        alias = OutboundViberMessage.objects.write_alias()
        in_transaction(lambda: lifecycle.store_events([_new_event(callback)]), using=alias)


def _speaks_of(message: OutboundViberMessage, report: DeliveryReport, request_id: str) -> bool:
    """May this report move the status? An older attempt's, or one that contradicts itself, may not."""
    if request_id != message.request_id:
        logger.info("callback for message %s belongs to an earlier attempt", message.pk)
        return False
    if report.names_another_request(message.request_id):
        logger.warning("callback for message %s carries another RequestId", message.pk)
        return False
    if report.names_another_phone(message.phone):
        logger.warning("callback for message %s carries another phone", message.pk)
        return False
    if message.sms_id and report.names_another_sms_id(message.sms_id):
        logger.warning("callback for message %s carries another SMSID; the first one is kept", message.pk)
    return True
