"""What is kept: redacting messages, pruning them by age, and everything about one person, out or gone."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any

from django.contrib.contenttypes.models import ContentType
from django.db.models import Case, Exists, F, OuterRef, ProtectedError, Q, RestrictedError, Value, When
from django.utils import timezone
from django.utils.translation import gettext_noop

from . import lifecycle
from .database import in_chunks, in_transaction, lock, update_differing
from .lifecycle import REDACTED, Transition
from .models import OutboundViberMessage, Status, ViberMessageEvent, ViberOptOut
from .models.querysets import MessageQuerySet
from .phones import holds_number
from .reports.parsing import without_person

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

TELLS_FOR = dt.timedelta(days=7)
"""How long eSMS tells what became of a message. Until then a report may still come for what it has taken."""

SLICE = 200
"""Messages of one transaction: so few that nobody waits for their rows as long as a second, also on a busy machine."""

FINAL = (Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELLED)

_REASON = gettext_noop("Its reason was redacted.")
_OURS = (REDACTED, _REASON, lifecycle.EXPIRED, lifecycle.OPTED_OUT)
"""Reasons that name nobody. Any other may be in eSMS's words, or in those of the site."""

_EMPTY: dict[str, Any] = {
    "phone": "",
    "content": "",
    "image_url": "",
    "button_label": "",
    "button_url": "",
    "metadata": {},
    "content_type_id": None,
    "object_id": "",
}
_KEPT_OF_CALLS = {"outcome", "http_status", "sms_id", "while_open", "uncounted", "looked_up"}
"""What the app notes of its own calls, and reads again."""

_LEFT_OUT_OF_EXPORT = {"claim_id", "lease_until", "held_up_since", "next_query_at", "redacted_kind"}
_LEFT_OUT_OF_HISTORY = {"id", "message", "user", "fingerprint", "apply_again_at"}
"""Columns by which workers go about their work, and who of the staff did something."""


# -- redacting ---------------------------------------------------------------------------------------------------------


def redact(pks: Iterable[int], *, user: AbstractBaseUser | None = None) -> list[int]:
    """Redact these messages and their histories, some in each transaction; returns those that were not yet.

    Drafts and queued ones are cancelled, and `unknown` ones stop repeating. A worker that has one of them in memory
    finds out when it begins the call or records its result.
    """
    pks, done = sorted(pks), list[int]()
    for start in range(0, len(pks), SLICE):
        done += _redact_slice(partial(OutboundViberMessage.objects.locked, pks[start : start + SLICE]), user)
    return done


def erase(phone: str, *, user: AbstractBaseUser | None = None) -> int:
    """Redact all messages to a phone, which is E.164. See `services.erase_messages_of()`."""
    of_person = OutboundViberMessage.objects.for_writing().filter(phone=phone).order_by("pk")
    count = 0
    # What is redacted has no phone any more, so the first rows that are left are always new ones.
    while done := _redact_slice(lambda: list(lock(of_person)[:SLICE]), user):
        count += len(done)
    return count


def _redact_slice(find: Callable[[], list[OutboundViberMessage]], user: AbstractBaseUser | None) -> list[int]:
    """Redact what is found, locked, in one transaction; returns the primary keys."""
    now = timezone.now()

    def write() -> tuple[list[int], list[Transition]]:
        rows = [row for row in find() if row.redacted_at is None]
        return [row.id for row in rows], _redact(rows, now, user)

    def was_committed(written: tuple[list[int], list[Transition]]) -> bool:
        some = OutboundViberMessage.objects.for_writing().filter(pk__in=written[0][:1], redacted_at=now)
        return not written[0] or some.exists()

    alias = OutboundViberMessage.objects.write_alias()
    pks, changes = in_transaction(write, using=alias, was_committed=was_committed)
    lifecycle.adopt(changes)
    for change in changes:
        lifecycle.set_columns(change.message, **{**_EMPTY, "metadata": {}}, redacted_at=now)
    lifecycle.announce_after_commit(changes)
    return pks


def _redact(rows: Sequence[OutboundViberMessage], now: dt.datetime, user: AbstractBaseUser | None) -> list[Transition]:
    """Redact rows that the caller has locked. Returns the transitions, to be adopted and announced after the commit."""
    cancelled = [lifecycle.cancel(row, REDACTED) for row in rows if row.status in {Status.DRAFT, Status.QUEUED}]
    lifecycle.write(*cancelled)
    lifecycle.stop_repeating([row for row in rows if row.status == Status.UNKNOWN and row.next_attempt_at is not None])
    named = [row.id for row in rows if row.dedupe_key and holds_number(row.dedupe_key, row.phone)]
    kinds = {row.id: row.kind.value for row in rows if row.kind is not None}
    OutboundViberMessage.objects.for_writing().filter(pk__in=[row.id for row in rows]).order_by().update(
        **_EMPTY,
        redacted_at=now,
        redacted_kind=_of_each(kinds, default=Value("")),
        error_message=Case(
            When(error_message__in=("", *_OURS), then=F("error_message")),
            # One that a person cancelled has no reason, and that must go on telling it from the others.
            When(status=Status.CANCELLED, then=Value(_REASON)),
            default=Value(""),
        ),
        dedupe_key=_of_each(dict.fromkeys(named), default=F("dedupe_key")),
    )
    _redact_events({row.id: row.phone for row in rows})
    if user is not None:
        lifecycle.note(rows, REDACTED, user=user)
    return cancelled


def _of_each(values: dict[int, Any], *, default: Any) -> Any:
    """Write the values to the rows that have these primary keys."""
    if not values:
        return default
    keys: dict[Any, list[int]] = {}
    for pk, value in values.items():
        keys.setdefault(value, []).append(pk)
    return Case(*(When(pk__in=pks, then=Value(value)) for value, pks in keys.items()), default=default)


def _redact_events(phones: dict[int, str]) -> None:
    """Empty the histories of these messages, whose phones were these."""
    events = ViberMessageEvent.objects.for_writing().filter(message__in=phones).order_by("pk")
    # What begins a history has neither text nor data.
    events = events.exclude(kind=ViberMessageEvent.Kind.REQUESTED, text="")
    last = 0
    while found := list(lock(events.filter(pk__gt=last))[:SLICE]):
        last = found[-1].pk
        changed = []
        for event in found:
            kept = _kept_of(event, phones[event.message_id])
            if event.text or event.data != kept:
                changed.append(["", kept, event.pk])
        update_differing(ViberMessageEvent, ["text", "data"], changed, using=events.db)


def _kept_of(event: ViberMessageEvent, phone: str) -> dict[str, Any]:
    if not isinstance(event.data, dict):
        return {}
    if event.kind in {ViberMessageEvent.Kind.CALLBACK, ViberMessageEvent.Kind.POLL}:
        values = {str(name): str(value) for name, value in event.data.items()}
        kept = without_person(values, request_id=event.request_id, phone=phone)
    else:
        kept = {name: value for name, value in event.data.items() if name in _KEPT_OF_CALLS}
    return {name: value for name, value in kept.items() if not holds_number(str(value), phone)}


# -- by age ------------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Pruned:
    """The counts of one run of `prune()`."""

    looked_at: int = 0
    redacted: int = 0
    deleted: int = 0


def prune(
    *,
    redact_after: dt.timedelta | None = None,
    delete_after: dt.timedelta | None = None,
    campaign: str = "",
    dry_run: bool = False,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], object] = lambda count: None,
) -> Pruned:
    """Redact or delete what is at rest and older than that, of one campaign or of all; each slice is committed.

    At rest is what has its result, what eSMS tells nothing of any more, and a draft that is as old as that. The age is
    that of the last thing that happened to a message, a change in the admin included. What was sent again for one of
    which nobody knows whether it arrived is not deleted before that one. `dry_run`: only count. Deleting also deletes
    what the site's own models keep with a message, by their `on_delete`.
    """
    now, done = timezone.now(), Pruned()
    for pks in _slices(campaign):
        if should_stop():
            break
        deleted: list[int] = []
        if delete_after is not None:
            old = _at_rest(now, delete_after) & ~_answers_doubt()
            deleted = _at_rest_among(pks, old)
            if deleted and not dry_run:
                deleted = _delete(deleted, old)
        redacted: list[int] = []
        if redact_after is not None:
            old = _at_rest(now, redact_after) & Q(redacted_at=None)
            # A dry run has deleted nothing.
            redacted = [pk for pk in _at_rest_among(pks, old) if pk not in deleted]
            if redacted and not dry_run:
                redacted = _redact_slice(partial(_locked, redacted, old), None)
        done.looked_at += len(pks)
        done.deleted += len(deleted)
        done.redacted += len(redacted)
        on_progress(len(pks))
    return done


def messages_of(campaign: str) -> MessageQuerySet:
    """The messages that `prune()` looks at."""
    rows: MessageQuerySet = OutboundViberMessage.objects.for_writing()
    # A range of one name, because PostgreSQL would leave an equal column out of the order, and walk the whole table.
    return rows.filter(campaign__gte=campaign, campaign__lte=campaign) if campaign else rows


def _slices(campaign: str) -> Iterator[list[int]]:
    """Walk along the primary key, so that each slice costs the same, and no message is looked at twice."""
    order = ["campaign", "pk"] if campaign else ["pk"]
    keys = messages_of(campaign).order_by(*order).values_list("pk", flat=True)
    last = 0
    while pks := list(keys.filter(pk__gt=last)[:SLICE]):
        yield pks
        last = pks[-1]


def _at_rest(now: dt.datetime, age: dt.timedelta) -> Q:
    """The condition for messages with which nothing goes on, and to which nothing has happened for so long.

    A message that was created long ago may have been sent again yesterday.
    """

    def untouched_since(moment: dt.datetime) -> Q:
        # A draft was completed by redacting it, and is no younger for that.
        condition = Q(created_at__lte=moment) & (
            Q(completed_at=None) | Q(completed_at__lte=moment) | Q(redacted_at__isnull=False)
        )
        for column in ("queued_at", "uncertain_since", "sent_at"):
            condition &= Q(**{column: None}) | Q(**{f"{column}__lte": moment})
        return condition

    def unedited_since(moment: dt.datetime) -> Q:
        events = ViberMessageEvent.objects.for_writing().filter(message=OuterRef("pk"), created_at__gt=moment)
        return untouched_since(moment) & ~Q(Exists(events.filter(text=lifecycle.EDITED)))

    settled = Q(status__in=[Status.DELIVERED, Status.UNDELIVERED]) & untouched_since(now - age)
    editable = Q(status__in=[Status.FAILED, Status.CANCELLED]) & unedited_since(now - age)
    # A draft waits for a person, who may be away for a while.
    draft = Q(status=Status.DRAFT) & unedited_since(now - max(age, TELLS_FOR))
    # No repeat is made on another day, and after seven nobody tells what became of it.
    given_up = Q(status__in=[Status.SENT, Status.UNKNOWN]) & untouched_since(now - max(age, TELLS_FOR))
    return settled | editable | draft | given_up


def _answers_doubt() -> Q:
    """Was it sent again for one of which nobody knows whether it arrived? Without it, that one would be sent again."""
    doubted = OutboundViberMessage.objects.for_writing().unknown().filter(pk=OuterRef("resend_of"))
    return Q(Exists(doubted))


def _at_rest_among(pks: Sequence[int], condition: Q) -> list[int]:
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=pks).filter(condition)
    return sorted(rows.order_by().values_list("pk", flat=True))


def _locked(pks: Sequence[int], condition: Q) -> list[OutboundViberMessage]:
    """Lock those that are at rest still; who has been sent again in the meantime is left."""
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=pks).filter(condition).order_by("pk")
    return list(lock(rows))


def _delete(pks: Sequence[int], condition: Q) -> list[int]:
    rows = OutboundViberMessage.objects.for_writing()

    def write() -> list[int]:
        found = list(lock(rows.filter(pk__in=pks).filter(condition).order_by("pk")).values_list("pk", flat=True))
        # Django deletes the histories by one statement, and the messages without their texts in memory.
        try:
            rows.filter(pk__in=found).only("pk").delete()
        except (ProtectedError, RestrictedError):
            # A table of the site's holds on to some of them: those stay, and keep no other.
            kept = []
            for pk in found:
                try:
                    rows.filter(pk=pk).delete()
                except (ProtectedError, RestrictedError):
                    kept.append(pk)
            logger.warning("%d messages are not deleted, because rows of this site protect them", len(kept))
            found = [pk for pk in found if pk not in kept]
        return found

    return in_transaction(write, using=rows.db)


# -- one person --------------------------------------------------------------------------------------------------------


def export(phone: str) -> dict[str, Any]:
    """Return all that is stored about a phone, which is E.164. See `services.export_messages_of()`."""
    opted_out = ViberOptOut.objects.for_writing().filter(phone=phone).first()
    rows = OutboundViberMessage.objects.for_writing().filter(phone=phone).order_by("pk")
    messages: list[dict[str, Any]] = []
    for chunk in in_chunks(rows.values_list("pk", flat=True)):
        histories: dict[int, list[dict[str, Any]]] = {pk: [] for pk in chunk}
        for event in ViberMessageEvent.objects.for_writing().filter(message__in=chunk).order_by("pk"):
            histories[event.message_id].append(_values_of(event, leave_out=_LEFT_OUT_OF_HISTORY))
        messages += [
            {**_values_of(row, leave_out=_LEFT_OUT_OF_EXPORT), "events": histories[row.id]}
            for row in rows.filter(pk__in=chunk)
        ]
    return {
        "phone": phone,
        "opt_out": None if opted_out is None else _values_of(opted_out, leave_out={"id", "phone", "user"}),
        "messages": messages,
    }


def _values_of(row: Any, *, leave_out: set[str]) -> dict[str, Any]:
    fields = [field for field in row._meta.concrete_fields if field.name not in leave_out]
    return {field.name: _as_json(getattr(row, field.attname), field.name) for field in fields}


def _as_json(value: Any, name: str) -> Any:
    if isinstance(value, dt.datetime):
        return value.isoformat()
    if isinstance(value, Decimal):
        return str(value)
    if name == "content_type" and value is not None:
        try:
            # Ask the manager, because it remembers content types.
            return ".".join(ContentType.objects.get_for_id(value).natural_key())
        except ContentType.DoesNotExist:
            return None
    return value
