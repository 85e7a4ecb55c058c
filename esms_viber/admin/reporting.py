"""Sentences that tell what came of an action: one for each outcome, with the number of messages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from django.contrib import messages as notices
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, ngettext_lazy

from ..codes import ACCOUNT_CODES
from ..models import OutboundViberMessage, Status
from . import display

Notice = tuple[int, str]

_REASONS = 5
"""Reasons told apart for one status; the others are counted together."""

_HEADS = {
    Status.DELIVERED: (
        notices.SUCCESS,
        ngettext_lazy("The message was delivered.", "%(count)d messages were delivered.", "count"),
    ),
    Status.SENT: (
        notices.SUCCESS,
        ngettext_lazy("eSMS took the message.", "eSMS took %(count)d messages.", "count"),
    ),
    Status.QUEUED: (
        notices.WARNING,
        ngettext_lazy("The message waits in the queue.", "%(count)d messages wait in the queue.", "count"),
    ),
    Status.SENDING: (
        notices.INFO,
        ngettext_lazy("The message is being sent.", "%(count)d messages are being sent.", "count"),
    ),
    Status.UNKNOWN: (
        notices.WARNING,
        ngettext_lazy(
            "The message may have been sent, or not.", "%(count)d messages may have been sent, or not.", "count"
        ),
    ),
    Status.UNDELIVERED: (
        notices.ERROR,
        ngettext_lazy("The message was not delivered.", "%(count)d messages were not delivered.", "count"),
    ),
    Status.FAILED: (
        notices.ERROR,
        ngettext_lazy("The message failed.", "%(count)d messages failed.", "count"),
    ),
    Status.CANCELLED: (
        notices.WARNING,
        ngettext_lazy("The message was cancelled.", "%(count)d messages were cancelled.", "count"),
    ),
    Status.DRAFT: (
        notices.INFO,
        ngettext_lazy("The message is a draft.", "%(count)d messages are drafts.", "count"),
    ),
}


def outcomes(messages: Iterable[OutboundViberMessage]) -> Iterator[Notice]:
    """Where the messages stand now, the good news first."""
    counted = Counter((Status(message.status), reason(message)) for message in messages)
    for status, (level, head) in _HEADS.items():
        reasons = Counter({why: n for (found, why), n in counted.items() if found == status})
        for why, n in _most(reasons):
            yield level, f"{head % {'count': n}} {why}".strip()


def _most(reasons: Counter[str]) -> Iterator[tuple[str, int]]:
    ranked = reasons.most_common()
    yield from ranked[:_REASONS]
    if others := sum(n for _why, n in ranked[_REASONS:]):
        yield _("There are several reasons."), others


def reason(message: OutboundViberMessage) -> str:
    """What there is to say of one message beside its status."""
    match message.status:
        case Status.SENT if message.sandbox:
            return _("It went to the sandbox: eSMS checked it, and neither delivers nor charges it.")
        case Status.SENT:
            return _("Whether it was delivered is reported later.")
        case Status.QUEUED:
            return _why_queued(message)
        case Status.UNKNOWN if message.next_attempt_at:
            return _("eSMS will be asked again in a way that cannot send twice. Do not send it again yet.")
        case Status.DELIVERED | Status.SENDING | Status.DRAFT:
            return ""
        case _:
            return " ".join(filter(None, [*display.explain(message), _quoted(message)]))


def _quoted(message: OutboundViberMessage) -> str:
    said = display.said_by_esms(message)
    return _("eSMS says: “%(text)s”") % {"text": said[:200]} if said and message.status == Status.FAILED else ""


def _why_queued(message: OutboundViberMessage) -> str:
    if message.code_result in ACCOUNT_CODES:
        return " ".join(display.explain(message))
    if message.error_message and message.attempts:
        return _(
            "eSMS could not be reached, so nothing was sent. It is tried again whenever waiting messages are sent."
        )
    if message.error_message:
        return display.stored(message.error_message)
    if message.send_at and message.send_at > timezone.now():
        return _("It is sent at %(time)s.") % {"time": display.moment(message.send_at)}
    return _("It is sent as soon as waiting messages are sent.")


def left_out(skipped: Counter[str]) -> Iterator[Notice]:
    """What was selected and not acted upon, with the reasons."""
    for why, n in _most(skipped):
        head = ngettext("One message was left out.", "%(count)d messages were left out.", n) % {"count": n}
        yield notices.WARNING, f"{head} {why}"


def about(message: OutboundViberMessage, url: str, told: Iterable[Notice]) -> Iterator[Notice]:
    """The same sentences, each beginning with the one message that it is about, as a link."""
    for level, text in told:
        yield level, format_html('<a href="{}">{}</a>: {}', url, display.phone(message), text)
