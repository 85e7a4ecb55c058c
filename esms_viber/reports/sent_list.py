"""Look up what no SMSID can be asked for in eSMS's list of what was sent, by phone, text and time.

The list has no RequestId. So an entry tells of a message only where it can be of no other, and no other can be its.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import logging
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from django.db.models import Q
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..conf import VIETNAM
from ..database import in_chunks, in_transaction, update_each
from ..delivery.calls import Calls
from ..delivery.results import in_log
from ..gateways.base import CANNOT_TELL, CallOutcome, SentEntry
from ..lifecycle import ABANDONED, Transition, next_query_at
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..phones import mask_phone
from .applying import apply_report
from .parsing import parse_report

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

BEFORE, AFTER = dt.timedelta(minutes=2), dt.timedelta(minutes=5)
"""An entry created so long before the first call, or after the last, may be of the message: clocks differ."""

TELLS_AFTER = dt.timedelta(hours=1)
"""What the list does not have so long after the last call, it will not have: eSMS lists nothing at once."""

CLOSE = dt.timedelta(minutes=10)
"""Times no further apart are asked for together."""

LONGEST = dt.timedelta(days=3)
"""eSMS documents that it lists three days at once."""

TELLS_FOR = dt.timedelta(days=7)
"""eSMS documents that it tells of the last seven days, when it is asked by an SMSID; of the list it says nothing."""

MOST_PAGES = 100
"""Pages of one list, 50,000 messages. Nothing is decided by a list that is longer."""

MOST_CANDIDATES = 10

FOUND = gettext_noop("Found in eSMS's list of what was sent.")
NOT_LISTED = gettext_noop("eSMS's list of what was sent does not show it.")
RECOGNISED = gettext_noop("Recognised by a person in eSMS's list of what was sent.")
AMBIGUOUS = gettext_noop("eSMS's list of what was sent has messages that may be this one; only a person can tell.")

_POSSIBLE = (Status.SENDING, Status.UNKNOWN, Status.SENT, Status.DELIVERED, Status.UNDELIVERED)
"""States of messages that eSMS may have listed."""


def can_look_up(message: OutboundViberMessage) -> bool:
    """Is the list all that may tell of the message? eSMS lists no sandbox messages, and tells of seven days only."""
    rests = message.status == Status.SENT or (message.status == Status.UNKNOWN and message.next_attempt_at is None)
    if not rests or message.sms_id or message.sent_to_sandbox or not message.phone:
        return False
    since = _since(message)
    return since is not None and timezone.now() - since < TELLS_FOR


def look_up(
    messages: Iterable[OutboundViberMessage],
    calls: Calls,
    *,
    user: AbstractBaseUser | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> list[OutboundViberMessage]:
    """Read eSMS's list once for all messages of a time; returns the messages whose list was read, as they are then.

    Where eSMS does not answer, the rest is left. Where it refuses one list, the next is still asked for.
    """
    looked_up: list[OutboundViberMessage] = []
    for window in _windows(list(messages)):
        if should_stop() or calls.stopped:
            break
        listed = _read(window, calls, should_stop)
        if listed is None:
            break
        if listed.is_given:
            looked_up += _record(window, listed, user)
    return looked_up


# -- when it was called for --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Calls:
    """When a message was called for under its RequestId."""

    first: dt.datetime
    last: dt.datetime

    @property
    def begin(self) -> dt.datetime:
        return self.first - BEFORE

    @property
    def end(self) -> dt.datetime:
        return self.last + AFTER

    def may_have_made(self, entry: SentEntry) -> bool:
        return self.begin <= entry.sent_at <= self.end


def _since(message: OutboundViberMessage) -> dt.datetime | None:
    return message.uncertain_since or message.sent_at


def _calls_of(messages: Sequence[OutboundViberMessage]) -> dict[int, _Calls]:
    """Find when each message was called for; one that is being called for may be called for until now."""
    ended: defaultdict[tuple[int, str], list[dt.datetime]] = defaultdict(list)
    events = ViberMessageEvent.objects.for_writing().order_by()
    events = events.filter(Q(kind=ViberMessageEvent.Kind.ATTEMPT) | Q(data__outcome=ABANDONED))
    for chunk in in_chunks(message.id for message in messages):
        found = events.filter(message__in=chunk).values_list("message", "request_id", "created_at")
        for pk, request_id, when in found:
            ended[pk, request_id].append(when)
    calls = {}
    for message in messages:
        since = _since(message)
        if since is None:
            continue
        times = ended[message.id, message.request_id]
        if message.status == Status.SENDING:
            times = [*times, timezone.now()]
        first = since.astimezone(VIETNAM)
        # No repeat starts on another day, however late somebody notes that a worker was gone.
        midnight = first.replace(hour=0, minute=0, second=0, microsecond=0) + dt.timedelta(days=1)
        last = max((when.astimezone(VIETNAM) for when in times), default=first)
        calls[message.id] = _Calls(first, max(first, min(last, midnight)))
    return calls


# -- reading -----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Window:
    """Messages that are looked for in one list."""

    begin: dt.datetime
    end: dt.datetime
    messages: list[OutboundViberMessage] = field(default_factory=list)


def _windows(messages: Sequence[OutboundViberMessage]) -> list[_Window]:
    calls = _calls_of(messages)
    found: list[_Window] = []
    for message in sorted((m for m in messages if m.id in calls), key=lambda m: calls[m.id].begin):
        begin, end = calls[message.id].begin, calls[message.id].end
        window = found[-1] if found else None
        if window is None or begin > window.end + CLOSE or end - window.begin > LONGEST:
            window = _Window(begin, end)
            found.append(window)
        window.end = max(window.end, end)
        window.messages.append(message)
    return found


@dataclass(slots=True)
class _Listed:
    """The entries for the phones that were looked for."""

    by_phone: defaultdict[str, dict[str, SentEntry]] = field(default_factory=lambda: defaultdict(dict))
    """By phone and SMSID."""
    unreadable: set[str] = field(default_factory=set)
    """Phones with entries that cannot be read; an empty one stands for any."""
    is_given: bool = False
    """Did eSMS give at least its first page?"""
    is_complete: bool = False

    def is_doubtful(self, phone: str) -> bool:
        """May there be entries for the phone that are not among these?"""
        return not self.is_complete or not self.unreadable.isdisjoint({"", phone})


def _read(window: _Window, calls: Calls, should_stop: Callable[[], bool]) -> _Listed | None:
    """Read all pages of a list, or those that eSMS gives; None where it does not answer."""
    phones = {message.phone for message in window.messages}
    listed, seen, unreadable = _Listed(), set[tuple[str, str]](), 0
    # The times on the wire have no fractions of a second.
    end = window.end + dt.timedelta(seconds=1)
    for page in range(1, MOST_PAGES + 1):
        result = None if should_stop() else calls.fetch_sent(window.begin, end, page)
        if result is not None and result.entries is None and result.text != CANNOT_TELL:
            logger.warning("eSMS did not give its list of what was sent: %s", in_log(result))
        if result is None:
            return None
        if result.entries is None:
            # An answer may be about this time alone: it is too long ago, or has too many entries.
            is_answered = result.outcome is CallOutcome.ANSWERED or result.http_status == HTTPStatus.OK
            return listed if is_answered else None
        listed.is_given = True
        before = len(seen) + unreadable
        seen.update((entry.sms_id, entry.phone) for entry in result.entries)
        unreadable += len(result.unreadable)
        listed.unreadable.update(result.unreadable)
        for entry in result.entries:
            if entry.phone in phones:
                listed.by_phone[entry.phone][entry.sms_id] = entry
        number = len(seen) + unreadable
        is_empty = not (result.entries or result.unreadable)
        if result.total is not None and number >= result.total:
            listed.is_complete = True
        elif is_empty:
            # Where eSMS tells no number, a page without entries is the end.
            listed.is_complete = result.total is None
        if listed.is_complete or number == before:
            break
    if not listed.is_complete:
        logger.warning("eSMS's list of what was sent could not be read to its end, so nothing is decided by it")
    return listed


# -- deciding ----------------------------------------------------------------------------------------------------------


def _record(window: _Window, listed: _Listed, user: AbstractBaseUser | None) -> list[OutboundViberMessage]:
    rows, _events, changes = in_transaction(
        lambda: _write(window, listed, user),
        using=OutboundViberMessage.objects.write_alias(),
        was_committed=lambda written: lifecycle.is_stored(written[1]),
    )
    lifecycle.announce_after_commit(changes)
    for row in rows:
        logger.info("looked for message %s to %s in eSMS's list: %s", row.id, mask_phone(row.phone), row.status)
    return rows


def _write(
    window: _Window, listed: _Listed, user: AbstractBaseUser | None
) -> tuple[list[OutboundViberMessage], list[ViberMessageEvent], list[Transition]]:
    asked = {message.id: message.request_id for message in window.messages}
    rows = OutboundViberMessage.objects.locked(asked)
    # A report may have come meanwhile.
    waiting = [row for row in rows if can_look_up(row) and row.request_id == asked[row.id]]
    calls, owners = _calls_of(waiting), _possible_owners(waiting, listed)
    known = _known({entry.sms_id for entries in listed.by_phone.values() for entry in entries.values()})
    marked: list[tuple[str, OutboundViberMessage, list[SentEntry]]] = []
    events, changes, plans = list[ViberMessageEvent](), list[Transition](), []
    now = timezone.now()
    for row in waiting:
        # The clock of the site may know no time zone, but the calls' times have one.
        age = now.astimezone(VIETNAM) - calls[row.id].last
        mine = [
            entry
            for entry in listed.by_phone.get(row.phone, {}).values()
            if entry.sms_id not in known
            and _comparable(entry.content) == _comparable(row.content)
            and calls[row.id].may_have_made(entry)
        ]
        status = row.status
        if len(mine) == 1 and owners[mine[0].sms_id] == {row.id} and not listed.is_doubtful(row.phone):
            event, moved = _settle(row, mine[0], user)
            events.append(event)
            lifecycle.adopt(moved)
            changes += moved
            status = moved[0].to if moved else status
        elif mine:
            marked.append((AMBIGUOUS, row, mine[:MOST_CANDIDATES]))
        elif not listed.is_doubtful(row.phone) and age >= TELLS_AFTER:
            marked.append((NOT_LISTED, row, []))
        if status in {Status.UNKNOWN, Status.SENT}:
            when = next_query_at(now - age, now)
            plans.append(({"pk": row.id, "status": status}, {"next_query_at": when}))
    events += _new_notes(marked, user)
    lifecycle.store_events(events)
    update_each(OutboundViberMessage, plans, using=OutboundViberMessage.objects.write_alias())
    settled = OutboundViberMessage.objects.for_writing().in_bulk([row.id for row in rows]) if events else {}
    return [settled.get(row.id, row) for row in rows], events, changes


def _possible_owners(waiting: Sequence[OutboundViberMessage], listed: _Listed) -> defaultdict[str, set[int]]:
    """Find, by SMSID, the messages without one that each entry could be of."""
    owners: defaultdict[str, set[int]] = defaultdict(set)
    rows = OutboundViberMessage.objects.for_writing().filter(sms_id="", sent_to_sandbox=False, status__in=_POSSIBLE)
    # The calls for one message end on the day on which they began.
    rows = rows.exclude(uncertain_since__lt=timezone.now() - TELLS_FOR - dt.timedelta(days=1))
    # A redacted one may have been to any phone, with any text.
    redacted = list(rows.filter(phone="", redacted_at__isnull=False).order_by())
    calls = _calls_of(redacted)
    for entry in (entry for entries in listed.by_phone.values() for entry in entries.values()):
        owners[entry.sms_id].update(
            row.id for row in redacted if row.id in calls and calls[row.id].may_have_made(entry)
        )
    for chunk in in_chunks({row.phone for row in waiting} & listed.by_phone.keys()):
        rivals = list(rows.filter(phone__in=chunk).order_by())
        calls = _calls_of(rivals)
        for rival in rivals:
            for entry in listed.by_phone[rival.phone].values():
                is_alike = _comparable(entry.content) == _comparable(rival.content)
                if is_alike and rival.id in calls and calls[rival.id].may_have_made(entry):
                    owners[entry.sms_id].add(rival.id)
    return owners


def _known(sms_ids: Collection[str]) -> set[str]:
    """Find those of the SMSIDs that a message has."""
    rows = OutboundViberMessage.objects.for_writing().order_by()
    found: set[str] = set()
    for chunk in in_chunks(sms_ids):
        found.update(rows.filter(sms_id__in=chunk).values_list("sms_id", flat=True))
    return found


def _comparable(text: str) -> str:
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def _settle(
    row: OutboundViberMessage, entry: SentEntry, user: AbstractBaseUser | None, text: str = FOUND
) -> tuple[ViberMessageEvent, list[Transition]]:
    """Write what the one entry that is the message's tells, its SMSID included."""
    values = {"SMSID": entry.sms_id}
    if entry.send_status is not None:
        values["SendStatus"] = str(entry.send_status)
    if entry.delivered is not None:
        values |= {"SendSuccess": str(int(entry.delivered)), "SendFailed": str(int(not entry.delivered))}
    if entry.price is not None:
        values["TotalPrice"] = f"{entry.price:f}"[:40]
    event = lifecycle.make_note(row, text, kind=ViberMessageEvent.Kind.POLL, code="100", data=values, user=user)
    moved = apply_report(row, parse_report(values), event, is_listed=True)
    event.applied = bool(moved)
    return event, moved


def _new_notes(
    marked: Iterable[tuple[str, OutboundViberMessage, list[SentEntry]]], user: AbstractBaseUser | None
) -> list[ViberMessageEvent]:
    """Make those of the notes that the history does not have yet: each says the same once only."""
    notes = []
    for text, row, candidates in marked:
        data: dict[str, Any] = {}
        if candidates:
            data["candidates"] = [
                {
                    "time": entry.sent_at.isoformat(),
                    "sms_id": entry.sms_id,
                    "send_status": entry.send_status,
                    "delivered": entry.delivered,
                    "price": None if entry.price is None else f"{entry.price:f}",
                }
                for entry in sorted(candidates, key=lambda entry: (entry.sent_at, entry.sms_id))
            ]
        mark = json.dumps([text, row.id, row.request_id, data])
        fingerprint = hashlib.sha256(mark.encode()).hexdigest()
        notes.append(lifecycle.make_note(row, text, data=data, user=user, fingerprint=fingerprint))
    events = ViberMessageEvent.objects.for_writing().order_by()
    stored: set[str] = set()
    for chunk in in_chunks(note.fingerprint for note in notes):
        stored.update(events.filter(fingerprint__in=chunk).values_list("fingerprint", flat=True))
    return [note for note in notes if note.fingerprint not in stored]


def status_of(entry: SentEntry) -> Status:
    """Return the status that the entry would give a message."""
    if entry.send_status == 5 and entry.delivered is not None:
        return Status.DELIVERED if entry.delivered else Status.UNDELIVERED
    return Status.UNDELIVERED if entry.send_status == 4 else Status.SENT


# -- deciding by a person ----------------------------------------------------------------------------------------------


def candidates_in(event: ViberMessageEvent) -> list[SentEntry]:
    """Read the candidates that an event with the text `AMBIGUOUS` holds, without phone and text."""
    listed = event.data.get("candidates") if isinstance(event.data, dict) else None
    found = []
    for each in listed if isinstance(listed, list) else []:
        with suppress(KeyError, TypeError, ValueError, ArithmeticError):  # what somebody has changed in the database
            entry = SentEntry(
                sms_id=str(each["sms_id"]),
                phone="",
                sent_at=dt.datetime.fromisoformat(each["time"]),
                send_status=each["send_status"],
                delivered=each["delivered"],
                price=None if each["price"] is None else Decimal(each["price"]),
            )
            found.append(entry)
    return found


def can_recognise(message: OutboundViberMessage, event: ViberMessageEvent) -> bool:
    """May a person still say that one of the candidates in this event is the message?"""
    return event.request_id == message.request_id and can_look_up(message)


def recognise(pk: int, sms_id: str, *, user: AbstractBaseUser | None) -> bool:
    """Record that the entry with this SMSID is the message, and commit; returns whether it is known now.

    Nothing is recorded where the entry is no candidate, another message has its SMSID, or nothing is to be decided.
    """
    message = OutboundViberMessage.objects.for_writing().filter(pk=pk).first()
    if message is None:
        return False
    # Lock those that it could be as well, because two people may give them the same SMSID at once.
    rivals = OutboundViberMessage.objects.for_writing().filter(sms_id="", phone=message.phone, status__in=_POSSIBLE)
    pks = {pk, *rivals.values_list("pk", flat=True)}

    def write() -> tuple[list[ViberMessageEvent], list[Transition], bool]:
        rows = {row.id: row for row in OutboundViberMessage.objects.locked(pks)}
        row = rows.get(pk)
        if row is None or (sms_id and row.sms_id == sms_id):  # as after the first post of a double click
            return [], [], row is not None
        entry = _candidate(row, sms_id)
        if entry is None or _known([sms_id]):
            return [], [], False
        event, changes = _settle(row, entry, user, RECOGNISED)
        lifecycle.store_events([event])
        return [event], changes, True

    _events, changes, is_known = in_transaction(
        write,
        using=OutboundViberMessage.objects.write_alias(),
        was_committed=lambda written: lifecycle.is_stored(written[0]),
    )
    lifecycle.adopt(changes)
    lifecycle.announce_after_commit(changes)
    return is_known


def _candidate(row: OutboundViberMessage, sms_id: str) -> SentEntry | None:
    """Find what was told last about an entry, if it may still be the message's."""
    events = ViberMessageEvent.objects.for_writing().filter(message=row.id, text=AMBIGUOUS).order_by("-pk")
    found = (each for event in events if can_recognise(row, event) for each in candidates_in(event))
    return next((each for each in found if each.sms_id == sms_id), None)
