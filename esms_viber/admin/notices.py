"""Tell staff on the next page what became of their messages."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast
from urllib.parse import urlencode

from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.translation import gettext as _
from django.utils.translation import ngettext, ngettext_lazy

from .. import formatting
from ..database import in_chunks
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..models.choices import HELD
from . import display
from .base import MessageAdminBase
from .filters import DoneFilter
from .routes import campaign_url, url_of

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


logger = logging.getLogger("esms_viber")

FROM_PAGE = "from_page"
"""The parameter that the buttons on a message's own page post, so that the answer leads back there."""

LAST_SHOWN = "viber_last_shown"
"""The field in which a page posts the highest number that a message had when it was shown."""

FROM_CAMPAIGN = "from_campaign"
"""The parameter that the buttons on a campaign's page post, beside the list's filter for it."""


def user_of(request: HttpRequest) -> AbstractBaseUser:
    """Return the user, who is never anonymous, because the admin lets nobody in without a login."""
    return cast("AbstractBaseUser", request.user)


def rows_of(pks: list[int]) -> QuerySet[OutboundViberMessage]:
    rows: QuerySet[OutboundViberMessage] = OutboundViberMessage.objects.for_writing().filter(pk__in=pks)
    return rows.order_by("pk")


def all_rows(pks: list[int]) -> Iterable[OutboundViberMessage]:
    return (message for chunk in in_chunks(pks) for message in rows_of(chunk))


class Notice(NamedTuple):
    """A sentence about some messages."""

    level: int
    text: str
    pks: Sequence[int] = ()
    """The messages; none: there is no list of them."""
    was_done: bool = True
    """Did the action do something to them, so that their history tells of it?"""


def begin() -> int:
    """Return the mark from which on `tell()` finds what an action did: take it before the action begins."""
    return _last_event()


def tell(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    pks: list[int],
    told: Iterable[Notice],
    *,
    since: int | None = None,
) -> None:
    """Show the sentences on the next page, each with a link to the list of its messages. `since`: see `begin()`."""
    may_view = model_admin.has_view_permission(request)
    if len(pks) == 1 and (message := rows_of(pks).first()) and may_view:
        told = about(message, model_admin.page_url(message.id), told)
    elif may_view:
        told = list(told)
        until = _last_event() if any(len(notice.pks) > MOST_IN_ADDRESS for notice in told) else 0
        told = [_with_list(model_admin, notice, since, until) for notice in told]
    for notice in told:
        model_admin.message_user(request, notice.text, notice.level)


MOST_IN_ADDRESS = 100
"""Messages that the address of a list names one by one, because servers take no address of any length."""


def _with_list(model_admin: MessageAdminBase, notice: Notice, since: int | None, until: int) -> Notice:
    """Add the link to the list of the messages that the sentence is about."""
    pks, label = sorted(notice.pks, reverse=True), _("Show")
    if not pks:
        return notice
    if len(pks) > MOST_IN_ADDRESS and notice.was_done and since is not None:
        # Where they are many, the history finds them: the action has left a line with each.
        address: dict[str, str] = {DoneFilter.parameter_name: f"{since}-{until}"}
        statuses = set(OutboundViberMessage.objects.for_writing().filter(pk=pks[0]).values_list("status", flat=True))
        if status := next(iter(statuses), ""):
            address["status__exact"] = status
    else:
        address = {"id__in": ",".join(map(str, pks[:MOST_IN_ADDRESS]))}
        if len(pks) > MOST_IN_ADDRESS:
            label = _("Show the first %(count)s") % {"count": formatting.grouped(MOST_IN_ADDRESS)}
    url = f"{url_of(model_admin, 'changelist')}?{urlencode(address, safe=',')}"
    return notice._replace(text=format_html('{} <a href="{}">{}</a>', notice.text, url, label))


def _last_event() -> int:
    events = ViberMessageEvent.objects.for_writing().order_by("-pk")
    return events.values_list("pk", flat=True).first() or 0


def refuse_so_many(model_admin: MessageAdminBase, request: HttpRequest, most: int) -> None:
    sentence = _(
        "Nothing was done: this can be done with at most %(most)s messages at once, and you selected more. Narrow the "
        "list with its filters, for example to one campaign, one state or one day, and select all of that."
    )
    model_admin.message_user(request, sentence % {"most": formatting.grouped(most)}, levels.ERROR)


def report_configuration(model_admin: MessageAdminBase, request: HttpRequest, error: ImproperlyConfigured) -> None:
    logger.error("the connection to eSMS is not set up: %s", error)
    model_admin.message_user(request, not_set_up(error), levels.ERROR)


def not_set_up(error: ImproperlyConfigured) -> str:
    return _("The connection to eSMS is not set up. Tell the people who run this site: %(error)s") % {"error": error}


def back(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> HttpResponse:
    return HttpResponseRedirect(back_url(model_admin, request, pks))


def back_url(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> str:
    if FROM_PAGE in request.POST and len(pks) == 1:
        return model_admin.page_url(pks[0])
    if FROM_CAMPAIGN in request.POST and (name := request.GET.get("campaign")):
        return campaign_url(model_admin, name)
    return request.get_full_path()


def report(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    pks: list[int],
    besides: Iterable[Notice] = (),
    *,
    since: int | None = None,
) -> None:
    tell(model_admin, request, pks, [*outcomes(all_rows(pks)), *besides], since=since)


_REASONS = 5
"""Reasons told apart for one status; the others are counted together."""

_HEADS = {
    Status.DELIVERED: (
        levels.SUCCESS,
        ngettext_lazy("The message was delivered.", "%(count)d messages were delivered.", "count"),
    ),
    Status.SENT: (
        levels.SUCCESS,
        ngettext_lazy("eSMS took the message.", "eSMS took %(count)d messages.", "count"),
    ),
    Status.QUEUED: (
        levels.WARNING,
        ngettext_lazy("The message waits in the queue.", "%(count)d messages wait in the queue.", "count"),
    ),
    Status.SENDING: (
        levels.INFO,
        ngettext_lazy("The message is being sent.", "%(count)d messages are being sent.", "count"),
    ),
    Status.UNKNOWN: (
        levels.WARNING,
        ngettext_lazy(
            "The message may have been sent, or not.", "%(count)d messages may have been sent, or not.", "count"
        ),
    ),
    Status.UNDELIVERED: (
        levels.ERROR,
        ngettext_lazy("The message was not delivered.", "%(count)d messages were not delivered.", "count"),
    ),
    Status.FAILED: (
        levels.ERROR,
        ngettext_lazy("The message failed.", "%(count)d messages failed.", "count"),
    ),
    Status.CANCELLED: (
        levels.WARNING,
        ngettext_lazy("The message was cancelled.", "%(count)s messages were cancelled.", "count"),
    ),
    Status.DRAFT: (
        levels.INFO,
        ngettext_lazy("The message is a draft.", "%(count)d messages are drafts.", "count"),
    ),
}


def outcomes(messages: Iterable[OutboundViberMessage]) -> Iterator[Notice]:
    """Tell where the messages stand now, the good news first."""
    messages = list(messages)
    display.note_holds(messages)
    found: defaultdict[Status, defaultdict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for message in messages:
        found[Status(message.status)][reason(message)].append(message.id)
    for status, (level, head) in _HEADS.items():
        for why, pks in _most(found[status]):
            yield Notice(level, f"{head % {'count': len(pks)}} {why}".strip(), pks)


def _most(reasons: Mapping[str, list[int]]) -> Iterator[tuple[str, list[int]]]:
    """Give the most frequent reasons with their messages, and then the other messages together."""
    ranked = sorted(((why, pks) for why, pks in reasons.items() if pks), key=lambda each: len(each[1]), reverse=True)
    yield from ranked[:_REASONS]
    if others := [pk for _why, pks in ranked[_REASONS:] for pk in pks]:
        yield _("There are several reasons."), others


def reason(message: OutboundViberMessage) -> str:
    """Tell of one message what its status alone does not tell."""
    match message.status:
        case Status.SENT if message.sent_to_sandbox:
            return _("It went to the sandbox: eSMS checked it, and neither delivers nor charges it.")
        case Status.SENT:
            return _("Whether it was delivered is reported later.")
        case Status.QUEUED if message.code_result or display.hold_of(message):
            return " ".join(display.explain(message))
        case Status.QUEUED if message.error_message and message.attempts and message.error_message not in HELD:
            return _(
                "eSMS could not be reached, so nothing was sent. It is tried again whenever waiting messages are sent."
            )
        case Status.QUEUED if message.error_message and message.error_message not in HELD:
            return display.stored(message.error_message)
        case Status.QUEUED if message.send_at and message.send_at > timezone.now():
            return _("It is sent at %(time)s.") % {"time": formatting.moment(message.send_at)}
        case Status.QUEUED:
            return _("It is sent as soon as waiting messages are sent.")
        case Status.UNKNOWN if message.next_attempt_at and not display.hold_of(message):
            return _("eSMS will be asked again in a way that cannot send twice. Do not send it again yet.")
        case Status.DELIVERED | Status.SENDING | Status.DRAFT:
            return ""
        case _:
            sentences = [*display.explain(message)]
            said = display.said_by_esms(message)
            if said and message.status == Status.FAILED:
                sentences.append(_("eSMS says: “%(text)s”") % {"text": said[:200]})
            return " ".join(filter(None, sentences))


def left_out(skipped: Mapping[str, list[int]]) -> Iterator[Notice]:
    """Tell how many were selected and not acted upon, with the reasons."""
    for why, pks in _most(skipped):
        n = len(pks)
        head = ngettext("One message was left out.", "%(count)d messages were left out.", n) % {"count": n}
        yield Notice(levels.WARNING, f"{head} {why}", pks, was_done=False)


def about(message: OutboundViberMessage, url: str, told: Iterable[Notice]) -> Iterator[Notice]:
    """Begin each sentence with a link to the message that it is about."""
    for notice in told:
        linked = format_html('<a href="{}">{}</a>: {}', url, display.phone(message), notice.text)
        yield notice._replace(text=linked)
