"""How messages come into the table: validated, with their first event, and once for each dedupe key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, OperationalError, connections, models, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import lifecycle
from .exceptions import DedupeKeyTaken
from .models import OutboundViberMessage, ViberMessageEvent
from .rows import insert_each
from .transactions import begin_with_write, write_alias

_UNSEEN = (
    "Another transaction has stored a message with this dedupe key, and this one cannot see it. "
    "Repeat the whole transaction."
)

logger = logging.getLogger("esms_viber")

_KEY_GIVEN_AGAIN = gettext_noop("Its dedupe key was given again for another phone or text; that one was not stored.")


def validate_all(messages: Sequence[OutboundViberMessage]) -> None:
    """Raise one `ValidationError` for all messages that cannot be sent, with their index in the sequence."""
    errors = []
    seen: set[int] = set()
    for index, message in enumerate(messages):
        try:
            _validate_new(message, seen)
        except ValidationError as error:
            errors += [
                ValidationError(
                    _("messages[%(index)d]: %(sentence)s"),
                    code="message",
                    params={"index": index, "sentence": sentence},
                )
                for sentence in error.messages
            ]
    if errors:
        raise ValidationError(errors)


def _validate_new(message: OutboundViberMessage, seen: set[int]) -> None:
    if id(message) in seen:
        raise ValidationError(_("This is the same object as one before; make one for each message."))
    seen.add(id(message))
    if not message._state.adding:
        raise ValidationError(_("This message is stored already; use resend_viber_messages()."))
    message.validate_for_sending()


def insert_or_first(message: OutboundViberMessage, *, user: Any) -> OutboundViberMessage:
    """Insert the message, or return the one that came first with its dedupe key.

    The caller's transaction survives, unless the database has ended it. Raises `DedupeKeyTaken` where that transaction
    cannot see the one that came first.
    """
    alias = write_alias()
    with _naming_what_cannot_be_seen([message]):
        try:
            # Insert first, look later: the other way round two callers at once would both find nothing.
            with transaction.atomic(using=alias):
                _as_new(message)
                models.Model.save(message, force_insert=True, using=alias)
                message.remember()
                _request(message, user).save(using=alias)
        except IntegrityError as error:
            known = _known_after(error, [message])
            if message.dedupe_key not in known:
                raise
            return _reuse(known[message.dedupe_key], message)
    return message


@contextmanager
def _naming_what_cannot_be_seen(messages: Iterable[OutboundViberMessage]) -> Iterator[None]:
    """Turn a refusal to serialize the insert of messages with a dedupe key into `DedupeKeyTaken`.

    Such are PostgreSQL's "serialization failure" and MariaDB's "record has changed since last read".
    """
    try:
        yield
    except OperationalError as error:
        state = getattr(error.__cause__, "sqlstate", None) or getattr(error.__cause__, "pgcode", None)
        is_unserializable = state == "40001" or error.args[:1] == (1020,)
        if is_unserializable and any(message.dedupe_key for message in messages):
            raise DedupeKeyTaken(_UNSEEN) from error
        raise


def _as_new(message: OutboundViberMessage) -> None:
    """Reset what the insert of a try before, which was rolled back, has left, in each table that the message has."""
    message._state.adding = True
    message.id = None
    for model in (type(message), *message._meta.get_parent_list()):
        # A key of a child's own stays: the site may have given it.
        for link in filter(None, model._meta.parents.values()):
            setattr(message, link.attname, None)


def _request(message: OutboundViberMessage, user: Any) -> ViberMessageEvent:
    return ViberMessageEvent(
        message=message, kind=ViberMessageEvent.Kind.REQUESTED, request_id=message.request_id, user=user
    )


def _reuse(first: OutboundViberMessage, again: OutboundViberMessage) -> OutboundViberMessage:
    if (first.phone, first.content) != (again.phone, again.content):
        logger.warning("the dedupe key of message %s was given again for another phone or text", first.id)
        lifecycle.note(first, _KEY_GIVEN_AGAIN)
    return first


def insert_all(messages: Sequence[OutboundViberMessage], *, user: Any) -> list[OutboundViberMessage]:
    """As `insert_or_first()`, in bulk: a row for each message, in their order."""
    alias = write_alias()
    begin_with_write(alias)
    with _naming_what_cannot_be_seen(messages):
        known = _known_keys(messages)
        while True:
            new = _without_known(messages, known)
            try:
                with transaction.atomic(using=alias):
                    _bulk_insert(new, user=user, alias=alias)
                break
            except IntegrityError as error:
                # Another caller came in between with one of the keys.
                known |= _known_after(error, new)
                if len(_without_known(new, known)) == len(new):
                    raise
    known |= {message.dedupe_key: message for message in new if message.dedupe_key}
    return [_stored(message, known) for message in messages]


def _known_after(error: IntegrityError, messages: Sequence[OutboundViberMessage]) -> dict[str, OutboundViberMessage]:
    """The rows that came first with a dedupe key of these messages, now that inserting one has failed.

    Raises `DedupeKeyTaken` where there must be one, and this transaction cannot see it.
    """
    alias = write_alias()
    # Should even looking fail, MariaDB has rolled back the whole transaction; in a block of its own Django notices.
    with transaction.atomic(using=alias):
        known = _known_keys(messages)
        if not known and connections[alias].vendor == "mysql":
            known = _known_keys(messages, locking=True)
    # Each database names the column, or a constraint that is named for it.
    if not known and "dedupe_key" in str(error):
        raise DedupeKeyTaken(_UNSEEN) from error
    return known


def _known_keys(messages: Iterable[OutboundViberMessage], *, locking: bool = False) -> dict[str, OutboundViberMessage]:
    """By dedupe key, what is stored already.

    A locking read sees what was committed after this transaction began to read, on MySQL and MariaDB. It asks for a
    shared lock, which the failed insert has taken already, so that two who came too late do not block each other.
    """
    alias = write_alias()
    keys = [message.dedupe_key for message in messages if message.dedupe_key]
    rows = OutboundViberMessage._base_manager.using(alias).order_by()
    known: dict[str, OutboundViberMessage] = {}
    for start in range(0, len(keys), 500):
        found: Any = rows.filter(dedupe_key__in=keys[start : start + 500])
        if locking:
            sql, values = found.query.get_compiler(alias).as_sql()
            found = rows.raw(f"{sql} LOCK IN SHARE MODE", values)
        known |= {row.dedupe_key: row for row in found}
    return known


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


def _stored(message: OutboundViberMessage, known: dict[str, OutboundViberMessage]) -> OutboundViberMessage:
    first = known.get(message.dedupe_key or "", message)
    return message if first is message else _reuse(first, message)


def _bulk_insert(messages: list[OutboundViberMessage], *, user: Any, alias: str) -> None:
    for message in messages:
        _as_new(message)
    insert_each(messages, using=alias)
    for message in messages:
        message.remember()
    insert_each([_request(message, user) for message in messages], using=alias)
