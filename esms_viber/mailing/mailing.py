"""One text for many phones: what becomes of each line of a list, and the way of the good ones into the queue."""

from __future__ import annotations

import datetime as dt
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import quote

from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.translation import gettext as _

from .. import creation
from ..conf import readable_settings
from ..database import in_chunks, in_transaction
from ..dispatch import dispatch_on_commit, is_inline
from ..models import OutboundViberMessage, Status
from .recipients import Recipient, Recipients, comparable, visible

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Mailing:
    """What is sent to everybody; in its texts `{name}` stands for what the column of that name holds.

    Names are the same that look alike, see `recipients.comparable()`.
    """

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
        return self.sandbox or readable_settings().SANDBOX

    def dedupe_key(self, phone: str) -> str:
        """The same for the same phone and campaign; a digest, so that no phone stands where keys are shown."""
        digest = hashlib.sha256(f"{self.campaign}:{phone}".encode()).hexdigest()
        return f"{'rehearsal' if self.is_rehearsal else 'campaign'}:{digest}"

    @property
    def placeholders(self) -> list[str]:
        """The names in braces, as they are written, each once."""
        texts = (self.content, self.image_url, self.button_label, self.button_url)
        return list(dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text) if visible(name)))

    def message(self, phone: str, values: Mapping[str, str]) -> OutboundViberMessage:
        """The message to one phone; names that `values` does not hold stay as they are."""
        found = {comparable(name): value for name, value in values.items()}
        return OutboundViberMessage(
            phone=phone,
            content=_fill(self.content, found),
            image_url=_fill_link(self.image_url, found),
            button_label=_fill(self.button_label, found),
            button_url=_fill_link(self.button_url, found),
            brandname=self.brandname,
            sandbox=self.sandbox,
            campaign=self.campaign,
            send_at=self.send_at,
            expires_at=self.expires_at,
        )

    def unknown_columns(self, columns: Iterable[str]) -> list[str]:
        """Names in braces that no column has."""
        known = set(map(comparable, columns))
        return [name for name in self.placeholders if comparable(name) not in known]


def _fill(text: str, found: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: found.get(comparable(match[1]), match[0]), text)


def _fill_link(link: str, found: Mapping[str, str]) -> str:
    """What begins a link is a link itself; what stands within one stays what it is there, whatever signs it has."""
    start = first[0] if (first := _PLACEHOLDER.match(link)) else ""
    quoted = {name: quote(value, safe="") for name, value in found.items()}
    return _fill(start, found) + _fill(link.removeprefix(start), quoted)


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
    empty = {comparable(name) for name, value in zip(recipients.columns, person.values, strict=True) if not value}
    for name in mailing.placeholders:
        if comparable(name) in empty:
            raise ValidationError(_("The column “%(name)s” is empty."), code="empty", params={"name": visible(name)})
    creation.validate(message)


def _known_phones(mailing: Mailing, phones: list[str]) -> set[str]:
    """Those that have a message of the campaign, or had it before somebody moved it to another phone or campaign.

    Whatever became of it; but what went to the sandbox was a rehearsal.
    """
    rows = OutboundViberMessage.objects.for_writing().order_by()
    of_campaign = rows.filter(campaign=mailing.campaign, sandbox=mailing.is_rehearsal)
    known: set[str] = set()
    for chunk in in_chunks(phones):
        keys = {mailing.dedupe_key(phone): phone for phone in chunk}
        known.update(of_campaign.filter(phone__in=keys.values()).values_list("phone", flat=True))
        taken = rows.filter(dedupe_key__in=keys).values_list("dedupe_key", flat=True)
        known.update(keys[key] for key in taken if key in keys)
    return known


def store(mailing: Mailing, found: Review, *, user: AbstractBaseUser) -> int:
    """Queue what a review found ready, and return how many messages are new; the inline dispatcher sends none yet.

    Done again, in part or by two people at once, it stores nothing twice: each message has a dedupe key of campaign
    and phone.
    """
    # In one order, so that two people with the same list wait for each other instead of meeting in a deadlock.
    messages = sorted((message for _person, message in found.ready), key=lambda message: message.phone)
    for message in messages:
        message.dedupe_key = mailing.dedupe_key(message.phone)

    def write() -> int:
        stored = creation.queue(messages, user=user, hold_inline=True)
        return sum(row is message for row, message in zip(stored, messages, strict=True))

    return in_transaction(write, using=OutboundViberMessage.objects.write_alias())


def send_inline(campaign: str) -> None:
    """Have the inline dispatcher send what is queued and due of a campaign, after the last part of its list is stored.

    With each part it would hold up the next one; every other dispatcher has been given the messages by `store()`.
    """
    if is_inline():
        rows = OutboundViberMessage.objects.for_writing().filter(campaign=campaign, status=Status.QUEUED)
        due = rows.filter(next_attempt_at__lte=timezone.now()).order_by("pk").values_list("pk", flat=True)
        dispatch_on_commit(due)


def campaigns_named_alike(name: str) -> list[str]:
    """Others that differ in capital letters, spaces or what nobody sees alone: by mistake, most likely."""
    names = OutboundViberMessage.objects.for_writing().order_by("campaign").values_list("campaign", flat=True)
    return [other for other in names.distinct() if other != name and _plain(other) == _plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "", comparable(name))
