"""One text for many phones: review each line of a list, and queue a message for each good one."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from django.conf import settings
from django.core.exceptions import ValidationError
from django.utils import timezone
from django.utils.crypto import salted_hmac
from django.utils.translation import gettext as _

from .. import creation
from ..conf import readable_settings
from ..database import in_chunks, in_transaction
from ..dispatch import dispatch_on_commit, is_inline
from ..models import OutboundViberMessage, Purpose, Status, ViberOptOut
from ..models.choices import KIND_FIELDS
from ..models.opt_out import forbids
from ..models.placeholders import comparable, fill_parts, placeholders_in, visible
from .recipients import Recipient, Recipients

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


_SALT = "esms_viber.mailing"


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
    purpose: str = Purpose.PROMOTIONAL
    sandbox: bool = False
    send_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None

    @property
    def is_sandbox(self) -> bool:
        return self.sandbox or readable_settings().SANDBOX

    def is_sandbox_for(self, phone: str) -> bool:
        return self.is_sandbox or readable_settings().leaves_out(phone)

    def dedupe_keys(self, phone: str) -> list[str]:
        """Make the key for a phone of the campaign, followed by those under `SECRET_KEY_FALLBACKS`.

        It is a keyed digest, because the few phones that there are could be found from a bare one by trying all.
        """
        kind = "sandbox" if self.is_sandbox_for(phone) else "campaign"
        secrets = [settings.SECRET_KEY, *settings.SECRET_KEY_FALLBACKS]
        named = f"{self.campaign}:{phone}"
        return [
            f"{kind}:{salted_hmac(_SALT, named, secret=secret, algorithm='sha256').hexdigest()}" for secret in secrets
        ]

    @property
    def placeholders(self) -> list[str]:
        """The names in braces, as written, each once."""
        return placeholders_in((self.content, self.image_url, self.button_label, self.button_url))

    def message(self, phone: str, values: Mapping[str, str]) -> OutboundViberMessage:
        """Write the message to one phone; names that `values` does not hold stay in it as they are."""
        found = {comparable(name): value for name, value in values.items()}
        return OutboundViberMessage(
            phone=phone,
            **fill_parts({name: getattr(self, name) for name in KIND_FIELDS}, found),
            brandname=self.brandname,
            sandbox=self.sandbox,
            campaign=self.campaign,
            purpose=self.purpose,
            send_at=self.send_at,
            expires_at=self.expires_at,
        )

    def unknown_columns(self, columns: Iterable[str]) -> list[str]:
        """Return the names in braces that no column has."""
        known = set(map(comparable, columns))
        return [name for name in self.placeholders if comparable(name) not in known]


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
    opted_out: list[Recipient] = field(default_factory=list)
    """The phone gets no message of this purpose any more."""


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
    # has given another phone or campaign since. What went to the sandbox counts for the sandbox only.
    rows = OutboundViberMessage.objects.for_writing().order_by()
    of_campaign = rows.filter(campaign=mailing.campaign)
    known: set[str] = set()
    for chunk in in_chunks([message.phone for _person, message in found.ready]):
        written = of_campaign.filter(phone__in=chunk).values_list("phone", "sent_to_sandbox")
        known.update(phone for phone, in_sandbox in written if in_sandbox == mailing.is_sandbox_for(phone))
        keys = {key: phone for phone in chunk for key in mailing.dedupe_keys(phone)}
        taken = rows.filter(dedupe_key__in=keys).values_list("dedupe_key", flat=True)
        known.update(keys[key] for key in taken if key in keys)
    found.known = [person for person, message in found.ready if message.phone in known]
    found.ready = [(person, message) for person, message in found.ready if message.phone not in known]
    scopes = ViberOptOut.objects.among(message.phone for _person, message in found.ready)
    out = {phone for phone, scope in scopes.items() if forbids(scope, mailing.purpose)}
    found.opted_out = [person for person, message in found.ready if message.phone in out]
    found.ready = [(person, message) for person, message in found.ready if message.phone not in out]
    return found


def store(mailing: Mailing, found: Review, *, user: AbstractBaseUser) -> int:
    """Queue the messages that a review found ready, and return how many are new; the inline dispatcher sends none yet.

    Nothing is stored twice, even if two people do this at once or one does it again, because each message has a dedupe
    key of campaign and phone. What was cancelled because its phone has opted out since the review is not counted.
    """
    # Keep one order, so that two people with the same list wait for each other instead of meeting in a deadlock.
    messages = sorted((message for _person, message in found.ready), key=lambda message: message.phone)
    for message in messages:
        message.dedupe_key = mailing.dedupe_keys(message.phone)[0]

    def write() -> int:
        stored = creation.queue(messages, user=user, hold_inline=True)
        pairs = zip(stored, messages, strict=True)
        return sum(row is message and row.status == Status.QUEUED for row, message in pairs)

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
