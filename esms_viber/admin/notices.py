"""Tell staff on the next page what became of their messages."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, cast

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
from ..models import OutboundViberMessage, Status
from . import display
from .base import MessageAdminBase

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


logger = logging.getLogger("esms_viber")

FROM_PAGE = "from_page"
"""The parameter that the buttons on a message's own page post, so that the answer leads back there."""


def user_of(request: HttpRequest) -> AbstractBaseUser:
    """Return the user, who is never anonymous, because the admin lets nobody in without a login."""
    return cast("AbstractBaseUser", request.user)


def rows_of(pks: list[int]) -> QuerySet[OutboundViberMessage]:
    rows: QuerySet[OutboundViberMessage] = OutboundViberMessage.objects.for_writing().filter(pk__in=pks)
    return rows.order_by("pk")


def all_rows(pks: list[int]) -> Iterable[OutboundViberMessage]:
    return (message for chunk in in_chunks(pks) for message in rows_of(chunk))


def tell(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int], told: Iterable[Notice]) -> None:
    if len(pks) == 1 and (message := rows_of(pks).first()) and model_admin.has_view_permission(request):
        told = about(message, model_admin.page_url(message.id), told)
    for level, text in told:
        model_admin.message_user(request, text, level)


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
    return request.get_full_path()


def report(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    pks: list[int],
    besides: Iterable[Notice] = (),
) -> None:
    tell(model_admin, request, pks, [*outcomes(all_rows(pks)), *besides])


Notice = tuple[int, str]

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
        ngettext_lazy("The message was cancelled.", "%(count)d messages were cancelled.", "count"),
    ),
    Status.DRAFT: (
        levels.INFO,
        ngettext_lazy("The message is a draft.", "%(count)d messages are drafts.", "count"),
    ),
}


def outcomes(messages: Iterable[OutboundViberMessage]) -> Iterator[Notice]:
    """Tell where the messages stand now, the good news first."""
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
    """Tell of one message what its status alone does not tell."""
    match message.status:
        case Status.SENT if message.sandbox:
            return _("It went to the sandbox: eSMS checked it, and neither delivers nor charges it.")
        case Status.SENT:
            return _("Whether it was delivered is reported later.")
        case Status.QUEUED if message.code_result:
            return " ".join(display.explain(message))
        case Status.QUEUED if message.error_message and message.attempts:
            return _(
                "eSMS could not be reached, so nothing was sent. It is tried again whenever waiting messages are sent."
            )
        case Status.QUEUED if message.error_message:
            return display.stored(message.error_message)
        case Status.QUEUED if message.send_at and message.send_at > timezone.now():
            return _("It is sent at %(time)s.") % {"time": formatting.moment(message.send_at)}
        case Status.QUEUED:
            return _("It is sent as soon as waiting messages are sent.")
        case Status.UNKNOWN if message.next_attempt_at:
            return _("eSMS will be asked again in a way that cannot send twice. Do not send it again yet.")
        case Status.DELIVERED | Status.SENDING | Status.DRAFT:
            return ""
        case _:
            sentences = [*display.explain(message)]
            said = display.said_by_esms(message)
            if said and message.status == Status.FAILED:
                sentences.append(_("eSMS says: “%(text)s”") % {"text": said[:200]})
            return " ".join(filter(None, sentences))


def left_out(skipped: Counter[str]) -> Iterator[Notice]:
    """Tell how many were selected and not acted upon, with the reasons."""
    for why, n in _most(skipped):
        head = ngettext("One message was left out.", "%(count)d messages were left out.", n) % {"count": n}
        yield levels.WARNING, f"{head} {why}"


def about(message: OutboundViberMessage, url: str, told: Iterable[Notice]) -> Iterator[Notice]:
    """Begin each sentence with a link to the message that it is about."""
    for level, text in told:
        yield level, format_html('<a href="{}">{}</a>: {}', url, display.phone(message), text)
