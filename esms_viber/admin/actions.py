"""Actions on messages: send, cancel, settle, ask eSMS. The list and a message's own page run the same code."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import services
from ..database import in_chunks
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..monitoring import require_setup
from ..reports.polling import can_ask
from . import display, notices
from .base import MOST_AT_ONCE, MessageAdminBase
from .confirmation import CONFIRMED, Mark, ask_for_confirmation, selected_pks, send
from .notices import all_rows, back, refuse_so_many, report_configuration, rows_of, tell, user_of

Action = TypeVar("Action", bound=Callable[..., Any])

MOST_ASKED = 200
"""Status queries that one request makes."""

MOST_CANCELLED = 50_000
"""Enough for several of the largest mailings, so that one begun by mistake can be stopped at once."""


def _action(description: Any) -> Callable[[Action], Action]:
    """Describe an action as `admin.action()` does, but without the `location` that django-simpleui fails at."""

    def mark(function: Any) -> Any:
        function.short_description, function.allowed_permissions = description, ["send"]
        return function

    return mark


@_action(gettext_lazy("Send or resend selected Viber messages"))
def send_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    """Ask for a confirmation first; send once it is given."""
    mark = Mark.parse(request.POST.get(CONFIRMED, ""))
    pks = selected_pks(queryset)
    try:
        require_setup()
        if len(pks) > MOST_AT_ONCE:
            refuse_so_many(model_admin, request, MOST_AT_ONCE)
        elif mark is None:
            return ask_for_confirmation(model_admin, request, pks)
        else:
            send(model_admin, request, pks, mark)
    except ImproperlyConfigured as error:
        report_configuration(model_admin, request, error)
    return back(model_admin, request, pks)


@_action(gettext_lazy("Cancel selected Viber messages"))
def cancel_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    pks = selected_pks(queryset, most=MOST_CANCELLED)
    if len(pks) > MOST_CANCELLED:
        refuse_so_many(model_admin, request, MOST_CANCELLED)
        return back(model_admin, request, pks)
    cancelled = doubtful = 0
    skipped: Counter[str] = Counter()
    for chunk in in_chunks(pks):
        changed = {m.id: m for m in services.cancel_viber_messages(rows_of(chunk), user=user_of(request))}
        in_doubt = sum(message.status == Status.UNKNOWN for message in changed.values())
        cancelled, doubtful = cancelled + len(changed) - in_doubt, doubtful + in_doubt
        skipped.update(_why_not_cancelled(message) for message in rows_of([pk for pk in chunk if pk not in changed]))
    told: list[notices.Notice] = []
    if cancelled:
        sentence = ngettext("The message was cancelled.", "%(count)d messages were cancelled.", cancelled)
        told.append((levels.SUCCESS, sentence % {"count": cancelled}))
    if doubtful:
        sentence = ngettext(
            "The message is not repeated any more, but may have been sent already.",
            "%(count)d messages are not repeated any more, but may have been sent already.",
            doubtful,
        )
        told.append((levels.WARNING, sentence % {"count": doubtful}))
    tell(model_admin, request, pks, [*told, *notices.left_out(skipped)])
    return back(model_admin, request, pks)


@_action(gettext_lazy("Mark selected Viber messages as looked up: they need not be sent again"))
def settle_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    pks = selected_pks(queryset)
    if len(pks) > MOST_AT_ONCE:
        refuse_so_many(model_admin, request, MOST_AT_ONCE)
        return back(model_admin, request, pks)
    settled = len(services.settle_viber_messages(all_rows(pks), user=user_of(request)))
    told: list[notices.Notice] = []
    if settled:
        sentence = ngettext(
            "It is noted that the message need not be sent again.",
            "It is noted that %(count)d messages need not be sent again.",
            settled,
        )
        told.append((levels.SUCCESS, sentence % {"count": settled}))
    if skipped := len(pks) - settled:
        told += notices.left_out(Counter({_("There is nothing to decide about it."): skipped}))
    tell(model_admin, request, pks, told)
    return back(model_admin, request, pks)


@_action(gettext_lazy("Ask eSMS for the status of selected Viber messages"))
def refresh_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    pks = selected_pks(queryset)
    messages = list(all_rows(pks)) if len(pks) <= MOST_AT_ONCE else []
    askable = [message for message in messages if can_ask(message)]
    if len(pks) > MOST_AT_ONCE or len(askable) > MOST_ASKED:
        refuse_so_many(model_admin, request, MOST_ASKED)
        return back(model_admin, request, pks)
    mark = Mark.now()
    try:
        answered = services.refresh_viber_messages(askable, user=user_of(request))
    except ImproperlyConfigured as error:
        report_configuration(model_admin, request, error)
        return back(model_admin, request, pks)
    told = list(notices.outcomes(answered))
    polls = ViberMessageEvent.objects.for_writing().filter(
        message__in=[message.id for message in answered], kind=ViberMessageEvent.Kind.POLL, pk__gt=mark.last_event
    )
    refusals = Counter(display.meaning(poll.code) or display.stored(poll.text) for poll in polls.exclude(code="100"))
    for why, n in refusals.items():
        head = ngettext("eSMS did not tell of the message.", "eSMS did not tell of %(count)d messages.", n)
        told.append((levels.ERROR, f"{head % {'count': n}} {why}".strip()))
    told += notices.left_out(Counter(_why_not_asked(m) for m in messages if not can_ask(m)))
    # Some may be left, because polling stops where eSMS refuses the account or does not answer.
    unasked = {message.id for message in askable} - {message.id for message in answered}
    told += notices.left_out(
        Counter(_("eSMS was not asked about it, because it refuses the account or does not answer.") for _pk in unasked)
    )
    tell(model_admin, request, pks, told)
    return back(model_admin, request, pks)


ACTIONS = {
    "send_selected": send_selected,
    "cancel_selected": cancel_selected,
    "refresh_selected": refresh_selected,
    "settle_selected": settle_selected,
}


def _why_not_cancelled(message: OutboundViberMessage) -> str:
    if message.status == Status.UNKNOWN:
        return _("It may have been sent, and nothing repeats it.")
    return _("It is %(status)s: only what was not sent yet can be cancelled.") % {
        "status": message.get_status_display()
    }


def _why_not_asked(message: OutboundViberMessage) -> str:
    if message.sandbox:
        return _("It went to the sandbox, and eSMS keeps no record of sandbox messages.")
    if message.is_final or message.status in {Status.DRAFT, Status.QUEUED}:
        return _("It is %(status)s: there is nothing to ask.") % {"status": message.get_status_display()}
    return _("It has no SMSID, by which eSMS would find it: look it up on the eSMS portal.")
