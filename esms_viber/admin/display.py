"""The look of a message and its parts: the same in the list, on its page and where a person confirms."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString, mark_safe
from django.utils.text import Truncator
from django.utils.translation import gettext as _

from ..codes import describe
from ..formatting import dong, moment
from ..formatting import stored as stored
from ..lifecycle import OPTED_OUT
from ..models import OutboundViberMessage, Status, ViberPause, ViberTemplate, choices
from ..models.pause import Holds
from ..phones import spaced_phone
from ..reports.polling import can_ask

_TONES: dict[str, tuple[str, str]] = {
    Status.DRAFT: ("quiet", "○"),
    Status.QUEUED: ("waiting", "…"),
    Status.SENDING: ("waiting", "→"),
    Status.UNKNOWN: ("doubt", "?"),
    Status.SENT: ("taken", "✓"),
    Status.DELIVERED: ("good", "✓✓"),
    Status.UNDELIVERED: ("bad", "✕"),
    Status.FAILED: ("bad", "!"),
    Status.CANCELLED: ("quiet", "–"),
}


def status_badge(message: OutboundViberMessage) -> SafeString:
    """The status in words, with a sign and a colour of its own."""
    tone, sign = _TONES[message.status]
    badge = format_html(
        '<span class="viber-badge viber-{}"><span aria-hidden="true">{}</span> {}</span>',
        tone,
        sign,
        message.get_status_display(),
    )
    return format_html('{} <span class="viber-remark">{}</span>', badge, _("rehearsal")) if message.rehearsal else badge


@dataclass(frozen=True, slots=True)
class Hold:
    """The reason for which no call is made for a message now."""

    reason: str
    """In stored English, one of `HELD`."""
    until: dt.datetime | None
    """When it ends by itself; None for a pause."""

    def in_words(self) -> str:
        """Name it in a few words, for the list."""
        match self.reason:
            case choices.PAUSED:
                return _("sending is paused")
            case choices.CAMPAIGN_PAUSED:
                return _("campaign is paused")
            case _hours:
                return _("from %(time)s on") % {"time": moment(self.until)}

    def remedy(self) -> str:
        match self.reason:
            case choices.PAUSED:
                return _("Somebody has to resume sending on the overview.")
            case choices.CAMPAIGN_PAUSED:
                return _("Somebody has to resume the campaign on its page.")
            case _hours:
                return _("Wait: the hours begin at %(time)s.") % {"time": moment(self.until)}


def note_holds(messages: Iterable[OutboundViberMessage]) -> None:
    """Note on those that wait what holds them, for `hold_of()` and `explain()`: one query, and only if any waits."""
    waiting = [(message, message.next_attempt_at) for message in messages if message.status in choices.WAITING]
    if not waiting:
        return
    holds, now = ViberPause.objects.holds(), timezone.now()
    for message, when in waiting:
        # What is not to be called for at all is not held, and what is to be called for later may be in its hours then.
        vars(message)["_hold"] = _hold(holds, message, max(now, when)) if when is not None else None


def _hold(holds: Holds, message: OutboundViberMessage, when: dt.datetime) -> Hold | None:
    reason = holds.reason(message, when)
    return Hold(reason, holds.opens_at(when) if reason == choices.OUTSIDE_HOURS else None) if reason else None


def hold_of(message: OutboundViberMessage) -> Hold | None:
    """Return what `note_holds()` has noted."""
    found: Hold | None = vars(message).get("_hold")
    return found


def hold_on(campaign: str, purpose: str, when: dt.datetime | None = None) -> Hold | None:
    """Find what holds messages of a campaign and purpose now or, if that is later, at `when`."""
    message, now = OutboundViberMessage(campaign=campaign, purpose=purpose), timezone.now()
    return _hold(ViberPause.objects.holds(), message, max(when or now, now))


def badge_with_reason(message: OutboundViberMessage) -> SafeString:
    """The badge of the status and, below it, what holds the message, or that its phone has opted out."""
    badge, remark = status_badge(message), ""
    if hold := hold_of(message):
        remark = hold.in_words()
    elif is_opted_out(message):
        remark = _("has opted out")
    return format_html('{}<br><span class="viber-remark">{}</span>', badge, remark) if remark else badge


def is_opted_out(message: OutboundViberMessage) -> bool:
    """Was it cancelled, because its phone had opted out?"""
    return message.status == Status.CANCELLED and message.error_message == OPTED_OUT


def look(status: str) -> tuple[str, str]:
    """The colour's name and the sign of a status's badge."""
    return _TONES[status]


def sign(status: str) -> str:
    """The sign before the status in its badge."""
    return _TONES[status][1]


def phone(message: OutboundViberMessage) -> str:
    return _("redacted") if message.redacted_at is not None else spaced_phone(message.phone)


def excerpt(message: OutboundViberMessage) -> str:
    """The beginning of the text or, without a text, of the image's address."""
    return Truncator(" ".join((message.content or message.image_url).split())).chars(60)


def kind(message: OutboundViberMessage | ViberTemplate) -> str | None:
    found = message.kind
    return str(found.label) if found else None


def price(amount: Decimal | None) -> str | None:
    return None if amount is None else dong(amount)


def times(message: OutboundViberMessage) -> SafeString:
    """The moments at which it was created, sent and completed, so far as it was, and the one that it waits for."""
    waits = message.status == Status.QUEUED and message.send_at is not None and message.send_at > timezone.now()
    named = (
        (_("created at"), message.created_at),
        (_("to be sent at"), message.send_at if waits else None),
        (_("sent at"), message.sent_at),
        (_("completed at"), message.completed_at),
    )
    lines = ((name, moment(when)) for name, when in named if when)
    return format_html_join(mark_safe("<br>"), '<span class="viber-time">{} {}</span>', lines)


def meaning(code: str) -> str:
    """An answer code with its meaning; empty without a code."""
    return f"{code}: {describe(code).meaning}" if code else ""


def explain(message: OutboundViberMessage) -> tuple[str, str]:
    """Tell why the message is where it is, and what a person can do about it. Either may be empty."""
    why, remedy = _explain(message)
    # Nobody can send a redacted one again, nor look it up by its phone.
    return why, "" if message.redacted_at is not None else remedy


def _explain(message: OutboundViberMessage) -> tuple[str, str]:
    if message.status == Status.UNDELIVERED:
        return (
            _("eSMS reports that it was not delivered; most often the number has no Viber."),
            _("Reach this customer in another way."),
        )
    if message.status == Status.UNKNOWN:
        # With a code an answer came, but the code leaves open whether eSMS took the message.
        code = message.code_result
        doubt = _("It may have been sent.") if code else _("It may have been sent: no trustworthy answer came.")
        if hold := hold_of(message):
            remedy = hold.remedy()
        elif message.next_attempt_at:
            remedy = _("Wait: it is repeated by itself, in a way that cannot send it twice.")
        elif can_ask(message):
            remedy = _("Ask eSMS or look on its portal before you send it again: it may have arrived.")
        else:
            remedy = _("Look on eSMS's portal before you send it again: it may have arrived.")
        return f"{doubt} {last_word(message)}".rstrip(), remedy
    if is_opted_out(message):
        return (
            stored(message.error_message),
            _("To send it after all, if this person wants that: delete the opt-out, then send this message again."),
        )
    if message.status == Status.QUEUED and (hold := hold_of(message)):
        return " ".join(filter(None, [stored(hold.reason), meaning(message.code_result)])), hold.remedy()
    if message.status == Status.QUEUED and message.error_message in choices.HELD:
        return "", ""  # because what held it is over
    if message.code_result and message.status not in {Status.DELIVERED, Status.CANCELLED}:
        return meaning(message.code_result), str(describe(message.code_result).remedy)
    return stored(message.error_message), ""


def last_word(message: OutboundViberMessage) -> str:
    """The outcome of the last call, as a code with its meaning or in words."""
    return meaning(message.code_result) or stored(message.error_message)


def said_by_esms(message: OutboundViberMessage) -> str:
    """eSMS's own words, where they are kept beside a code."""
    return stored(message.error_message) if message.code_result else ""


def numbered(message: OutboundViberMessage, url: str) -> SafeString:
    """A message by its number, with its status."""
    return format_html('<a href="{}">№ {}</a> {}', url, str(message.id), status_badge(message))


def line(message: OutboundViberMessage, url: str) -> SafeString:
    """A message among others, in one line."""
    return format_html('<a href="{}">{}</a> {} {}', url, phone(message), status_badge(message), excerpt(message))
