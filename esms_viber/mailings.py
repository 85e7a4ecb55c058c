"""One text for many phones: what becomes of each line of a list, and the way of the good ones into the queue."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import timezone
from django.utils.translation import gettext as _

from . import intake, lifecycle
from .conf import get_settings
from .dispatch import dispatch_on_commit
from .models import OutboundViberMessage, Status
from .recipients import Recipient, Recipients
from .transactions import write_alias

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

_PLACEHOLDER = re.compile(r"\{([^{}\n]+)\}")
_CHUNK = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """What is sent to everybody; in its texts `{name}` stands for what the column of that name holds."""

    campaign: str
    """Each phone gets one message of a campaign."""
    content: str = ""
    image_url: str = ""
    button_label: str = ""
    button_url: str = ""
    brandname: str = ""
    sandbox: bool = False
    send_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None

    @property
    def is_rehearsal(self) -> bool:
        return self.sandbox or get_settings().SANDBOX

    def dedupe_key(self, phone: str) -> str:
        """The same for the same phone and campaign."""
        return f"{'rehearsal' if self.is_rehearsal else 'campaign'}:{self.campaign}:{phone}"

    @property
    def placeholders(self) -> list[str]:
        """The names in braces, as they are written, each once."""
        texts = (self.content, self.button_label, self.button_url)
        return list(dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text)))

    def message(self, phone: str, values: Mapping[str, str]) -> OutboundViberMessage:
        """The message to one phone; names that `values` does not hold stay as they are."""
        found = {name.casefold(): value for name, value in values.items()}

        def fill(text: str) -> str:
            return _PLACEHOLDER.sub(lambda match: found.get(_key(match[1]), match[0]), text)

        return OutboundViberMessage(
            phone=phone,
            content=fill(self.content),
            image_url=self.image_url,
            button_label=fill(self.button_label),
            button_url=fill(self.button_url),
            brandname=self.brandname,
            sandbox=self.sandbox,
            campaign=self.campaign,
            send_at=self.send_at,
            expires_at=self.expires_at,
        )

    def unknown_columns(self, columns: Iterable[str]) -> list[str]:
        """Names in braces that no column has."""
        known = {name.casefold() for name in columns}
        return [name for name in self.placeholders if _key(name) not in known]


def _key(name: str) -> str:
    return name.strip().casefold()


@dataclass(slots=True)
class Review:
    """A list by what would be done with its lines."""

    ready: list[tuple[Recipient, OutboundViberMessage]] = field(default_factory=list)
    """With the message that each would get, checked and not stored."""
    refused: list[tuple[Recipient, ValidationError]] = field(default_factory=list)
    repeated: list[Recipient] = field(default_factory=list)
    """The same phone stands in a line before."""
    known: list[Recipient] = field(default_factory=list)
    """The phone has a message of this campaign already."""


def review(mailing: Mailing, recipients: Recipients) -> Review:
    """Read and check everything, and store nothing."""
    found = Review()
    seen: set[str] = set()
    for person in recipients.people:
        message = mailing.message(person.phone, dict(zip(recipients.columns, person.values, strict=True)))
        try:
            _check(mailing, recipients, person, message)
        except ValidationError as error:
            found.refused.append((person, error))
            continue
        if message.phone in seen:
            found.repeated.append(person)
        else:
            found.ready.append((person, message))
        seen.add(message.phone)
    known = _known_phones(mailing, [message.phone for _person, message in found.ready])
    found.known = [person for person, message in found.ready if message.phone in known]
    found.ready = [(person, message) for person, message in found.ready if message.phone not in known]
    return found


def _check(mailing: Mailing, recipients: Recipients, person: Recipient, message: OutboundViberMessage) -> None:
    empty = {name.casefold() for name, value in zip(recipients.columns, person.values, strict=True) if not value}
    for name in mailing.placeholders:
        if _key(name) in empty:
            raise ValidationError(_("The column “%(name)s” is empty."), code="empty", params={"name": name.strip()})
    message.validate_for_sending()


def _known_phones(mailing: Mailing, phones: list[str]) -> set[str]:
    """Those that have a message of the campaign, whatever became of it; what went to the sandbox was a rehearsal."""
    rows = OutboundViberMessage.objects.using(write_alias()).filter(
        campaign=mailing.campaign, sandbox=mailing.is_rehearsal
    )
    chunks = (phones[start : start + _CHUNK] for start in range(0, len(phones), _CHUNK))
    found = (rows.filter(phone__in=some).order_by().values_list("phone", flat=True) for some in chunks)
    return {phone for some in found for phone in some}


def store(mailing: Mailing, recipients: Recipients, *, user: AbstractBaseUser) -> Review:
    """Queue a message for each line that can have one, without handing them to the dispatcher; see `hand_over()`.

    Done again, in part or by two people at once, it stores nothing twice: each message has a dedupe key of campaign
    and phone.
    """
    found = review(mailing, recipients)
    messages = [message for _person, message in found.ready]
    for message in messages:
        message.dedupe_key = mailing.dedupe_key(message.phone)
        lifecycle.enter(message, Status.QUEUED)
    with transaction.atomic(using=write_alias()):
        intake.insert_all(messages, user=user)
    return found


def hand_over(campaign: str) -> None:
    """Give the queued messages of a campaign that are due to the dispatcher, all at once."""
    rows = OutboundViberMessage.objects.using(write_alias()).filter(campaign=campaign, status=Status.QUEUED)
    due = rows.filter(next_attempt_at__lte=timezone.now()).order_by("pk").values_list("pk", flat=True)
    dispatch_on_commit(due, write_alias())
