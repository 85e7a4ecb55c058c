"""New rows: validated, inserted with their first event, once for each dedupe key. The one way into the table."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, connections, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import lifecycle
from .database import in_chunks, in_transaction, insert_each
from .delivery.payload import QueryLimit
from .dispatch import dispatch_on_commit
from .exceptions import DedupeKeyTaken
from .models import OutboundViberMessage, Status, ViberOptOut
from .models.opt_out import forbids

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

_UNSEEN = (
    "Another transaction has stored a message with this dedupe key, and this one cannot see it. "
    "Repeat the whole transaction."
)
_KEY_GIVEN_AGAIN = gettext_noop("Its dedupe key was given again for another phone or text; that one was not stored.")


class Validator:
    """The check of new messages. Many of one call are checked by one, which judges only once what they share."""

    def __init__(self, *, strict: bool = False) -> None:
        """`strict`: raise `ImproperlyConfigured`, too, where a setting keeps every message from being sent."""
        self._strict = strict
        self._passed: dict[tuple[str, str], str] = {}

    def validate(self, message: OutboundViberMessage) -> None:
        """Normalise it. Raises `ValidationError` if it cannot be sent, also because the gateway could not carry it."""
        message.validate(self._passed)
        self._limit.validate(message)

    @cached_property
    def _limit(self) -> QueryLimit:
        return QueryLimit(strict=self._strict)


def validate(message: OutboundViberMessage, *, strict: bool = False) -> None:
    """Check one message; see `Validator`."""
    Validator(strict=strict).validate(message)


def validate_all(messages: Sequence[OutboundViberMessage]) -> None:
    """Raise one `ValidationError` for all messages that cannot be sent, with their index in the sequence."""
    errors: list[ValidationError] = []
    seen: set[int] = set()
    validator = Validator()
    for index, message in enumerate(messages):
        told = []
        if id(message) in seen:
            told = [_("This is the same object as one before; make one for each message.")]
        elif not message._state.adding:
            told = [_("This message is stored already; use resend_viber_messages().")]
        else:
            try:
                validator.validate(message)
            except ValidationError as error:
                told = error.messages
        seen.add(id(message))
        if told:
            sentence = _("messages[%(index)d]: %(sentence)s")
            errors += [ValidationError(sentence, "message", {"index": index, "sentence": each}) for each in told]
    if errors:
        raise ValidationError(errors)


def queue(
    messages: Sequence[OutboundViberMessage], *, user: AbstractBaseUser | None, hold_inline: bool = False
) -> list[OutboundViberMessage]:
    """Insert validated messages as queued, to be dispatched after the commit. Returns a row for each, in their order.

    `hold_inline`: the inline dispatcher is given them later; see `dispatch_on_commit()`.
    """

    def write() -> list[OutboundViberMessage]:
        # Each time, because a run that was rolled back may have cancelled some for an opt-out.
        lifecycle.enter(messages, Status.QUEUED)
        stored = insert(messages, user=user)
        pairs = zip(stored, messages, strict=True)
        new = [row.id for row, given in pairs if row is given and row.status == Status.QUEUED]
        dispatch_on_commit(new, hold_inline=hold_inline)
        return stored

    return in_transaction(write, using=OutboundViberMessage.objects.write_alias(), repeatable=False)


def insert(messages: Sequence[OutboundViberMessage], *, user: AbstractBaseUser | None) -> list[OutboundViberMessage]:
    """Insert the messages, each with its first event. Returns a row for each, in their order.

    For a dedupe key that was given before, in the sequence or in the table, the first row stands in. The caller's
    transaction survives, unless the database has ended it. Raises `DedupeKeyTaken` where that transaction cannot see
    the row that came first.
    """
    with _naming_what_cannot_be_seen(messages):
        # One message is inserted first and looked up after a failure, because on SQLite a transaction of the caller's
        # must not begin with a read. Of many, those whose key is known are left out before the insert.
        known = _known_keys(messages) if len(messages) > 1 else {}
        while True:
            new = _without_known(messages, known)
            try:
                with transaction.atomic(using=OutboundViberMessage.objects.write_alias()):
                    _insert(new, user)
                break
            except IntegrityError as error:
                # Another caller came in between with one of the keys.
                known |= _known_after(error, new)
                if len(_without_known(new, known)) == len(new):
                    raise
    known |= {message.dedupe_key: message for message in new if message.dedupe_key}
    return [_first_row(message, known) for message in messages]


def _insert(messages: list[OutboundViberMessage], user: AbstractBaseUser | None) -> None:
    for message in messages:
        _forget_insert(message)
    insert_each(messages, using=OutboundViberMessage.objects.write_alias())
    for message in messages:
        message.remember()
    lifecycle.note_requested(messages, user=user)
    _take_out_opted_out(messages)


def _take_out_opted_out(messages: Sequence[OutboundViberMessage]) -> None:
    """Cancel the messages to people who have opted out. No signal tells, because nobody has seen them otherwise.

    Their rows are written first, because on SQLite a transaction of the caller's must not begin with a read.
    """
    scopes = ViberOptOut.objects.among(message.phone for message in messages)
    changes = [lifecycle.take_out(each) for each in messages if forbids(scopes.get(each.phone), each.purpose)]
    lifecycle.write(*changes)
    lifecycle.store_events(change.event for change in changes)
    lifecycle.adopt(changes)


def _forget_insert(message: OutboundViberMessage) -> None:
    """Reset what a rolled-back insert leaves: `pk` and `_state`, in each table that the message has."""
    message._state.adding = True
    message.id = None
    for model in (type(message), *message._meta.get_parent_list()):
        # A key of a child's own stays, because the site may have given it.
        for link in filter(None, model._meta.parents.values()):
            setattr(message, link.attname, None)


# -- dedupe keys -------------------------------------------------------------------------------------------------------


def _known_keys(messages: Iterable[OutboundViberMessage], *, locking: bool = False) -> dict[str, OutboundViberMessage]:
    """Look up the rows that have the dedupe keys of these messages.

    A locking read sees what was committed after this transaction began to read, on MySQL and MariaDB. It asks for a
    shared lock, which the failed insert has taken already, so that two who came too late do not block each other.
    """
    known: dict[str, OutboundViberMessage] = {}
    if not (wanted := [message.dedupe_key for message in messages if message.dedupe_key]):
        return known
    rows = OutboundViberMessage._base_manager.using(OutboundViberMessage.objects.write_alias()).order_by()
    for keys in in_chunks(wanted):
        found: Any = rows.filter(dedupe_key__in=keys)
        if locking:
            sql, values = found.query.get_compiler(rows.db).as_sql()
            found = rows.raw(f"{sql} LOCK IN SHARE MODE", values)
        known |= {row.dedupe_key: row for row in found}
    return known


def _known_after(error: IntegrityError, messages: Sequence[OutboundViberMessage]) -> dict[str, OutboundViberMessage]:
    """Look up the dedupe keys again, now that inserting one has failed.

    Raises `DedupeKeyTaken` where there must be a row that came first, and this transaction cannot see it.
    """
    alias = OutboundViberMessage.objects.write_alias()
    # In a block of its own, so that Django notices if looking fails too: MariaDB has then rolled everything back.
    with transaction.atomic(using=alias):
        known = _known_keys(messages)
        if not known and connections[alias].vendor == "mysql":
            known = _known_keys(messages, locking=True)
    # Each database names the column, or a constraint that is named for it.
    if not known and "dedupe_key" in str(error):
        raise DedupeKeyTaken(_UNSEEN) from error
    return known


@contextmanager
def _naming_what_cannot_be_seen(messages: Iterable[OutboundViberMessage]) -> Iterator[None]:
    """Turn a refusal to serialize the insert of messages with a dedupe key into `DedupeKeyTaken`.

    PostgreSQL calls that a "serialization failure", and MariaDB "record has changed since last read".
    """
    try:
        yield
    except OperationalError as error:
        state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
        is_unserializable = state == "40001" or error.args[:1] == (1020,)
        if is_unserializable and any(message.dedupe_key for message in messages):
            raise DedupeKeyTaken(_UNSEEN) from error
        raise


def _without_known(
    messages: Iterable[OutboundViberMessage], known: dict[str, OutboundViberMessage]
) -> list[OutboundViberMessage]:
    seen = set(known)
    new = []
    for message in messages:
        if message.dedupe_key not in seen:
            new.append(message)
        if message.dedupe_key:
            seen.add(message.dedupe_key)
    return new


def _first_row(message: OutboundViberMessage, known: dict[str, OutboundViberMessage]) -> OutboundViberMessage:
    first = known.get(message.dedupe_key or "", message)
    is_another = (first.phone, first.content) != (message.phone, message.content)
    # Nobody knows any more what a redacted one was.
    if first is not message and first.redacted_at is None and is_another:
        logger.warning("the dedupe key of message %s was given again for another phone or text", first.id)
        lifecycle.note([first], _KEY_GIVEN_AGAIN)
    return first
