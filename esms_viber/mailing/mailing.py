"""One text for many phones: review each line of a list, and queue a message for each good one."""

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
    """The message for everybody; in its texts `{name}` stands for the value in the column of that name.

    Names that look alike count as the same, see `recipients.comparable()`.
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
        """Make one key for each phone and campaign: a digest, so that no phone stands where keys are shown."""
        digest = hashlib.sha256(f"{self.campaign}:{phone}".encode()).hexdigest()
        return f"{'rehearsal' if self.is_rehearsal else 'campaign'}:{digest}"

    @property
    def placeholders(self) -> list[str]:
        """The names in braces, as written, each once."""
        texts = (self.content, self.image_url, self.button_label, self.button_url)
        return list(dict.fromkeys(name for text in texts for name in _PLACEHOLDER.findall(text) if visible(name)))

    def message(self, phone: str, values: Mapping[str, str]) -> OutboundViberMessage:
        """Write the message to one phone; names that `values` does not hold stay in it as they are."""
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
        """Return the names in braces that no column has."""
        known = set(map(comparable, columns))
        return [name for name in self.placeholders if comparable(name) not in known]


def _fill(text: str, found: Mapping[str, str]) -> str:
    return _PLACEHOLDER.sub(lambda match: found.get(comparable(match[1]), match[0]), text)


def _fill_link(link: str, found: Mapping[str, str]) -> str:
    """Fill a link: a value at its beginning is a link itself, a value further on is quoted to stay one part of it."""
    start = first[0] if (first := _PLACEHOLDER.match(link)) else ""
    quoted = {name: quote(value, safe="") for name, value in found.items()}
    return _fill(start, found) + _fill(link.removeprefix(start), quoted)


@dataclass(slots=True)
class Review:
    """A list, sorted by what would be done with each line."""

    ready: list[tuple[Recipient, OutboundViberMessage]] = field(default_factory=list)
    """Each recipient comes with its message, checked and not stored."""
    refused: list[tuple[Recipient, ValidationError]] = field(default_factory=list)
    repeated: list[Recipient] = field(default_factory=list)
    """An earlier line has the same phone."""
    known: list[Recipient] = field(default_factory=list)
    """The phone has a message of this campaign already."""


def review(mailing: Mailing, recipients: Recipients) -> Review:
    """Check every line, and store nothing."""
    found = Review()
    placeholders = mailing.placeholders
    seen: set[str] = set()
    validator = creation.Validator()
    for person in recipients.people:
        values = list(zip(recipients.columns, person.values, strict=True))
        empty = {comparable(name) for name, value in values if not value}
        if missing := [visible(name) for name in placeholders if comparable(name) in empty]:
            error = ValidationError(_("The column “%(name)s” is empty."), code="empty", params={"name": missing[0]})
            found.refused.append((person, error))
            continue
        message = mailing.message(person.phone, dict(values))
        try:
            validator.validate(message)
        except ValidationError as error:
            found.refused.append((person, error))
            continue
        if message.phone in seen:
            found.repeated.append(person)
        else:
            found.ready.append((person, message))
        seen.add(message.phone)

    # A phone is known by a message of the campaign, whatever became of it, and by the dedupe key of one that somebody
    # has given another phone or campaign since. Rehearsals in the sandbox count for rehearsals only.
    rows = OutboundViberMessage.objects.for_writing().order_by()
    of_campaign = rows.filter(campaign=mailing.campaign, sandbox=mailing.is_rehearsal)
    known: set[str] = set()
    for chunk in in_chunks([message.phone for _person, message in found.ready]):
        keys = {mailing.dedupe_key(phone): phone for phone in chunk}
        known.update(of_campaign.filter(phone__in=keys.values()).values_list("phone", flat=True))
        taken = rows.filter(dedupe_key__in=keys).values_list("dedupe_key", flat=True)
        known.update(keys[key] for key in taken if key in keys)
    found.known = [person for person, message in found.ready if message.phone in known]
    found.ready = [(person, message) for person, message in found.ready if message.phone not in known]
    return found


def store(mailing: Mailing, found: Review, *, user: AbstractBaseUser) -> int:
    """Queue the messages that a review found ready, and return how many are new; the inline dispatcher sends none yet.

    Nothing is stored twice, even if two people do this at once or one does it again, because each message has a dedupe
    key of campaign and phone.
    """
    # Keep one order, so that two people with the same list wait for each other instead of meeting in a deadlock.
    messages = sorted((message for _person, message in found.ready), key=lambda message: message.phone)
    for message in messages:
        message.dedupe_key = mailing.dedupe_key(message.phone)

    def write() -> int:
        stored = creation.queue(messages, user=user, hold_inline=True)
        return sum(row is message for row, message in zip(stored, messages, strict=True))

    return in_transaction(write, using=OutboundViberMessage.objects.write_alias())


def send_inline(campaign: str) -> None:
    """Have the inline dispatcher send the due messages of a campaign, after the last part of its list is stored.

    Sending with each part would hold up the next one. Every other dispatcher has been given the messages by `store()`.
    """
    if is_inline():
        rows = OutboundViberMessage.objects.for_writing().filter(campaign=campaign, status=Status.QUEUED)
        due = rows.filter(next_attempt_at__lte=timezone.now()).order_by("pk").values_list("pk", flat=True)
        dispatch_on_commit(due)


def campaigns_named_alike(name: str) -> list[str]:
    """Return the other campaigns that differ only in capitals, spaces or unseen characters, most likely by mistake."""
    names = OutboundViberMessage.objects.for_writing().order_by("campaign").values_list("campaign", flat=True)
    return [other for other in names.distinct() if other != name and _plain(other) == _plain(name)]


def _plain(name: str) -> str:
    return re.sub(r"[\s-]+", "", comparable(name))
