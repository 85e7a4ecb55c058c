"""Callbacks from eSMS: each is stored together with what it changes, and stored alone where applying it fails."""

from __future__ import annotations

import copy
import datetime as dt
import enum
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

from django.db import IntegrityError, connections, router
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..database import TRIES, column_list, from_row, in_transaction, insert_one, update_one
from ..exceptions import log_failure
from ..formatting import put_together
from ..lifecycle import Transition
from ..models import OutboundViberMessage, ViberMessageEvent
from ..phones import mask_phone
from ..signals import status_changed
from . import applying
from .parsing import DeliveryReport, MalformedReport, bounded, parse_phone, parse_report, without_person

logger = logging.getLogger("esms_viber")

_OTHER_PHONE = gettext_noop("It names another phone, so it changed nothing.")

MOST_EVENTS = 100
"""Limit, for each message, of stored callbacks that changed no status."""

_SALT = "esms_viber.reports.callbacks"

APPLIED_AGAIN_AFTER = dt.timedelta(minutes=1)
"""eSMS may repeat the callback itself before that."""

FAILED_AGAIN = dt.timedelta(hours=1)
"""Until a stored report is tried again whose applying has failed more than once."""

GIVEN_UP_AFTER = dt.timedelta(days=7)

_SLICE, _MOST_APPLIED = 100, 1000
"""Stored reports that are read together, and that one run applies."""

_IDENTITY = ("id", "status", "phone", "redacted_at", "request_id", "sms_id", "sent_to_sandbox", "claim_id")
_RESULT = ("sent_at", "uncertain_since", "next_query_at", "send_status", "error_message", "total_price", "telco_id")
_NEEDED = frozenset((*_IDENTITY, *_RESULT, "held_up_since"))
"""The columns of a message that applying a report reads. Only a receiver of `status_changed` may read others."""


class Receipt(enum.Enum):
    """The HTTP status to answer a callback with."""

    GONE = 404
    TAKEN = 200
    NONSENSE = 400
    FAILED = 500


@dataclass(frozen=True, eq=False)
class _Callback:
    """A request whose token was valid. It is read no further than need be, because eSMS repeats its callbacks."""

    pk: int
    request_id: str
    """The RequestId in the token."""
    parameters: Mapping[str, str]
    stored_as: str = ""
    """The fingerprint of its event, where it is read from there, with what was cut off."""

    @cached_property
    def fingerprint(self) -> str:
        if self.stored_as:
            return self.stored_as
        pairs = sorted((name.lower(), value) for name, value in self.parameters.items())
        named = json.dumps([self.pk, self.request_id, pairs])
        # Keyed, because a phone could be found from a bare digest by trying all that there are.
        return salted_hmac(_SALT, named, algorithm="sha256").hexdigest()

    @cached_property
    def data(self) -> dict[str, str]:
        return bounded(self.parameters)

    @cached_property
    def report(self) -> DeliveryReport | None:
        """None if no result can be read from the parameters. What cannot be read is logged, once."""
        try:
            report = parse_report(self.data)
        except MalformedReport as error:
            logger.warning("callback for message %s makes no sense: %s", self.pk, error)
            return None
        if report.left_out:
            names = ", ".join(report.left_out)
            logger.warning("callback for message %s: cannot be read, and left out: %s", self.pk, names)
        return report

    def is_about(self, message: OutboundViberMessage) -> bool:
        """Does its token name the RequestId that the message has now? A draft has none."""
        return bool(self.request_id) and self.request_id == message.request_id


@dataclass(frozen=True, slots=True)
class _Found:
    """What one SELECT tells of a callback."""

    columns: Sequence[Any]
    """Those of its message, as the driver gives them."""
    only: frozenset[str]
    """Their names, if they are not all."""
    known: int | None
    """The event of the same callback, if it came before."""
    applied: bool
    """Did that event change the status?"""

    def message(self, alias: str) -> OutboundViberMessage:
        return from_row(OutboundViberMessage, self.columns, using=alias, only=self.only)


@dataclass(frozen=True, slots=True)
class _History:
    """What a second SELECT tells of a callback that moves nothing, or is about an earlier attempt."""

    had_request: bool
    """Did the message ever have the callback's RequestId?"""
    unapplied: int
    """Stored callbacks that changed no status."""


def receive_callback(pk: int, request_id: str, parameters: Mapping[str, str]) -> Receipt:
    """Store a callback whose token was valid, and apply it, in one transaction.

    Where that fails the callback is stored alone, and applied when eSMS repeats it.
    """
    callback, alias = _Callback(pk, request_id, parameters), router.db_for_write(OutboundViberMessage)
    try:
        return _receive_in_turn(callback, alias)
    except Exception as error:  # noqa: BLE001 - whatever the database raises
        log_failure(error, "callback for message %s could not be applied", pk)

    try:
        found = _find(callback, alias)
        if found is not None and found.known is None:
            message = found.message(alias)
            if callback.is_about(message) or _look_back(callback, alias).had_request:
                in_transaction(lambda: _store_alone(callback, message, alias), using=alias)
    except Exception as error:  # noqa: BLE001 - as above
        log_failure(error, "callback for message %s could not be stored", pk)
    return Receipt.FAILED


def apply_stored_reports(*, should_stop: Callable[[], bool] = lambda: False) -> int:
    """Apply callbacks that were stored alone, because applying them failed; returns how many moved their messages.

    One that fails again is tried hourly, for seven days. Any number of processes may do so at once: a report that
    another one has applied changes nothing.
    """
    alias = router.db_for_write(OutboundViberMessage)
    waiting = ViberMessageEvent.objects.for_writing().order_by("apply_again_at", "pk")
    moved, now = 0, timezone.now()
    for _number in range(_MOST_APPLIED // _SLICE):
        events = [] if should_stop() else list(waiting.filter(apply_again_at__lte=now)[:_SLICE])
        for event in events:
            values = event.data if isinstance(event.data, dict) else {}
            parameters = {str(name): str(value) for name, value in values.items()}
            callback = _Callback(event.message_id, event.request_id, parameters, stored_as=event.fingerprint or "")
            again_at = None
            try:
                _receive_in_turn(callback, alias)
            except Exception as error:  # noqa: BLE001 - whatever the database raises
                log_failure(error, "stored report for message %s could not be applied", event.message_id)
                if now - event.created_at < GIVEN_UP_AFTER:
                    again_at = now + FAILED_AGAIN
            stored = ViberMessageEvent.objects.for_writing().filter(pk=event.pk)
            stored.update(apply_again_at=again_at)
            moved += not event.applied and stored.filter(applied=True).exists()
        if len(events) < _SLICE:
            break
    return moved


def _receive_in_turn(callback: _Callback, alias: str) -> Receipt:
    for _try in range(TRIES - 1):
        try:
            return _receive(callback, alias)
        except (applying.MovedOn, IntegrityError):
            # A worker, or the same callback in another process, wrote after our read, so read again.
            continue
    return _receive(callback, alias)


def _receive(callback: _Callback, alias: str) -> Receipt:
    """Store the event of a callback, and what its report changes; raise where another process writes in between."""
    # Read outside the transaction, because on SQLite that has to begin with a write.
    found = _find(callback, alias)
    if found is None:
        return Receipt.GONE
    if found.applied:
        return Receipt.TAKEN
    message = found.message(alias)
    is_current, history = callback.is_about(message), None
    # The event of a known callback is proof enough that the message had its RequestId.
    if found.known is None and not is_current:
        history = _look_back(callback, alias)
        if not history.had_request:
            logger.warning("callback for message %s carries a RequestId that it never had: not stored", callback.pk)
            return Receipt.GONE

    # A report changes nothing if it is about an earlier attempt, or contradicts the message.
    report, to = callback.report, None
    receipt = Receipt.NONSENSE if report is None else Receipt.TAKEN
    if report is not None:
        if not is_current:
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
    if found.known is not None:
        if report is None or to is None or not applying.columns_after(message, report, to, again=True):
            return receipt
        known = ViberMessageEvent.objects.for_writing().filter(pk=found.known).first()
    elif to in {None, message.status}:
        history = history or _look_back(callback, alias)
        if history.unapplied >= MOST_EVENTS:
            limit = MOST_EVENTS
            logger.warning("message %s has %d callbacks that moved nothing; one more is not kept", message.pk, limit)
            return receipt

    changes_nothing = report is None or to is None
    if report is not None and to == message.status:
        changes_nothing = not applying.columns_after(message, report, to)

    def write() -> tuple[ViberMessageEvent, list[Transition]]:
        # Work on a copy, because after a rollback this runs again and must not find its own changes.
        event: ViberMessageEvent = copy.copy(known) if known else _new_event(callback, message)
        changes: list[Transition] = []
        if known is None and changes_nothing:
            _hold(message, alias)
        if report is not None and to is not None:
            # Update the message before inserting the event: on MariaDB the insert locks the message's row, but too
            # weakly for the UPDATE.
            changes = applying.apply_report(message, report, event, again=known is not None)
            event.applied = bool(changes)
        if known is None:
            insert_one(event, using=alias)
        elif event.applied:
            event.save(using=alias, update_fields=["applied"])
        return event, changes

    def was_committed(written: tuple[ViberMessageEvent, list[Transition]]) -> bool:
        # The primary key too, because the same callback may have come to another process.
        event = written[0]
        if known is not None and not event.applied:
            return False  # the event does not tell, and filling the same empty columns again changes nothing
        events = ViberMessageEvent.objects.for_writing().filter(pk=event.pk, fingerprint=event.fingerprint)
        return events.filter(applied=event.applied).exists()

    _event, changes = in_transaction(write, using=alias, was_committed=was_committed)
    if changes and status_changed.has_listeners(OutboundViberMessage):
        lifecycle.adopt(changes)
        lifecycle.announce_after_commit(changes)
    return receipt


# -- reading -----------------------------------------------------------------------------------------------------------


def _find(callback: _Callback, alias: str) -> _Found | None:
    """Read the message and the event of the same callback; None where the message is deleted."""
    only = frozenset[str]() if status_changed.has_listeners(OutboundViberMessage) else _NEEDED
    with connections[alias].cursor() as cursor:
        cursor.execute(_find_statement(alias, only), [callback.fingerprint, callback.pk])
        row = cursor.fetchone()
    return row and _Found(row[:-2], only, row[-2], bool(row[-1]))


@lru_cache(maxsize=8)
def _find_statement(alias: str, only: frozenset[str]) -> str:
    quote = connections[alias].ops.quote_name
    messages, events = OutboundViberMessage._meta, ViberMessageEvent._meta
    key, applied, fingerprint = map(quote, ("id", "applied", "fingerprint"))
    columns = column_list(OutboundViberMessage, using=alias, table="m", only=only)
    # The names are the models' own, and every value is a parameter.
    return (
        f"SELECT {columns}, e.{key}, e.{applied}"  # noqa: S608 - the models' own names
        f" FROM {quote(messages.db_table)} m LEFT JOIN {quote(events.db_table)} e ON e.{fingerprint} = %s"
        f" WHERE m.{key} = %s"
    )


def _look_back(callback: _Callback, alias: str) -> _History:
    kind = ViberMessageEvent.Kind.CALLBACK.value
    with connections[alias].cursor() as cursor:
        cursor.execute(_look_back_statement(alias), [kind, callback.request_id, kind, False, callback.pk])
        others, unapplied = cursor.fetchone()
    # Each RequestId leaves an event that is no callback, when its message is queued, called or taken over.
    return _History(had_request=bool(callback.request_id and others), unapplied=unapplied)


@lru_cache(maxsize=8)
def _look_back_statement(alias: str) -> str:
    quote = connections[alias].ops.quote_name
    kind, request_id, applied, message = map(quote, ("kind", "request_id", "applied", "message_id"))
    return (
        f"SELECT COUNT(CASE WHEN {kind} <> %s AND {request_id} = %s THEN 1 END),"  # noqa: S608 - the models' own names
        f" COUNT(CASE WHEN {kind} = %s AND {applied} = %s THEN 1 END)"
        f" FROM {quote(ViberMessageEvent._meta.db_table)} WHERE {message} = %s"
    )


def _hold(message: OutboundViberMessage, alias: str) -> None:
    """Keep others from redacting the message until its event is stored, as an UPDATE by a report does.

    Raises `MovedOn` where somebody has redacted it since it was read: then it has another phone, none.
    """
    expected, same = {"pk": message.pk, "phone": message.phone}, {"phone": message.phone}
    if not update_one(OutboundViberMessage, expected, same, using=alias):
        raise applying.MovedOn


def _store_alone(callback: _Callback, message: OutboundViberMessage, alias: str) -> None:
    _hold(message, alias)
    event = _new_event(callback, message)
    event.apply_again_at = timezone.now() + APPLIED_AGAIN_AFTER
    insert_one(event, using=alias)


def _new_event(callback: _Callback, message: OutboundViberMessage) -> ViberMessageEvent:
    report = callback.report or parse_phone(callback.data)
    data, notes = callback.data, [*report.notes]
    if message.redacted_at is not None:
        data = without_person(data, request_id=callback.request_id)
    elif report.names_another_phone(message.phone):
        # It is about somebody else, whose phone must stand in no history but their own, where it can be erased.
        is_late = not callback.is_about(message)
        data = without_person(data, request_id=callback.request_id) if is_late else {}
        data, notes = data | {"phonenumber": mask_phone(report.phone)}, [*notes, _OTHER_PHONE]
    return ViberMessageEvent(
        message_id=callback.pk,
        kind=ViberMessageEvent.Kind.CALLBACK,
        request_id=callback.request_id[:50],
        text=put_together(*notes),
        data=data,
        fingerprint=callback.fingerprint,
    )
