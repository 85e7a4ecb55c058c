"""How messages come into the table: validated, with their first event, and once for each dedupe key."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from typing import Any

from django.core.exceptions import ValidationError
from django.db import IntegrityError, models, transaction
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from . import lifecycle
from .models import OutboundViberMessage, ViberMessageEvent
from .rows import insert_each
from .transactions import begin_with_write, write_alias

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
    """Insert the message, or return the one that came first with its dedupe key. The caller's transaction survives."""
    alias = write_alias()
    try:
        # Insert first, look later: the other way round two callers at once would both find nothing.
        with transaction.atomic(using=alias):
            _as_new(message)
            models.Model.save(message, force_insert=True, using=alias)
            message.remember()
            _request(message, user).save(using=alias)
    except IntegrityError:
        first = _first_with_key(message)
        if first is None:
            raise
        return _reuse(first, message)
    return message


def _as_new(message: OutboundViberMessage) -> None:
    """The insert of a try before, which was rolled back, has left its marks."""
    message.pk, message._state.adding = None, True


def _request(message: OutboundViberMessage, user: Any) -> ViberMessageEvent:
    return ViberMessageEvent(
        message=message, kind=ViberMessageEvent.Kind.REQUESTED, request_id=message.request_id, user=user
    )


def _first_with_key(message: OutboundViberMessage) -> OutboundViberMessage | None:
    if message.dedupe_key is None:
        return None
    rows = OutboundViberMessage.objects.using(write_alias()).filter(dedupe_key=message.dedupe_key)
    first: OutboundViberMessage | None = rows.first()
    return first


def _reuse(first: OutboundViberMessage, again: OutboundViberMessage) -> OutboundViberMessage:
    if (first.phone, first.content) != (again.phone, again.content):
        logger.warning("the dedupe key of message %s was given again for another phone or text", first.pk)
        lifecycle.note(first, _KEY_GIVEN_AGAIN)
    return first


def insert_all(messages: Sequence[OutboundViberMessage], *, user: Any) -> list[OutboundViberMessage]:
    """As `insert_or_first()`, in bulk: a row for each message, in their order."""
    alias = write_alias()
    begin_with_write(alias)
    while True:
        known = _known_keys(messages)
        new = _without_known(messages, known)
        try:
            with transaction.atomic(using=alias):
                _bulk_insert(new, user=user, alias=alias)
        except IntegrityError:
            # Another caller came in between with one of the keys; now it can be seen.
            if not _known_keys(new):
                raise
            continue
        known |= {message.dedupe_key: message for message in new if message.dedupe_key}
        return [_stored(message, known) for message in messages]


def _known_keys(messages: Iterable[OutboundViberMessage]) -> dict[str, OutboundViberMessage]:
    keys = [message.dedupe_key for message in messages if message.dedupe_key]
    rows = OutboundViberMessage.objects.using(write_alias())
    known: dict[str, OutboundViberMessage] = {}
    for start in range(0, len(keys), 500):
        known |= {row.dedupe_key or "": row for row in rows.filter(dedupe_key__in=keys[start : start + 500])}
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
