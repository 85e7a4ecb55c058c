"""Actions on messages: send, cancel, settle, ask eSMS. The list and a message's own page run the same code."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import services
from ..database import CHUNK, in_chunks
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

LAST_SHOWN = "viber_last_shown"
"""The field of the list in which it posts the highest number that a message had when the list was shown."""

SECONDS_TO_CANCEL = 15
"""How long one request goes on cancelling, because web servers give up after thirty seconds."""

_CANCELLABLE = Q(status__in=[Status.DRAFT, Status.QUEUED, Status.UNKNOWN]) & (
    ~Q(status=Status.UNKNOWN) | Q(next_attempt_at__isnull=False)
)


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
    queryset = _as_shown(request, queryset)
    pks = selected_pks(queryset)
    if len(pks) <= MOST_AT_ONCE:
        told = _cancel(request, in_chunks(pks), say_why=True)
    else:
        # Many are cancelled without a list of them, so that a campaign sent by mistake can be stopped, however large.
        begun = time.monotonic()
        told = _cancel(request, _cancellable(queryset, until=begun + SECONDS_TO_CANCEL), say_why=False)
        if queryset.using(OutboundViberMessage.objects.write_alias()).filter(_CANCELLABLE).exists():
            told.append((levels.WARNING, _("There are more of them: do the same again to go on.")))
        elif not told:
            told.append((levels.WARNING, _("Nothing was left to cancel: only what was not sent yet can be cancelled.")))
    tell(model_admin, request, pks, told)
    return back(model_admin, request, pks)


def _as_shown(request: HttpRequest, queryset: QuerySet[OutboundViberMessage]) -> QuerySet[OutboundViberMessage]:
    """Leave out messages that came after the list was shown: who selects all of it means what was there."""
    last = request.POST.get(LAST_SHOWN, "")
    return queryset.filter(pk__lte=int(last)) if re.fullmatch("[0-9]{1,18}", last) else queryset


def _cancellable(queryset: QuerySet[OutboundViberMessage], *, until: float) -> Iterator[list[int]]:
    """Find what can be cancelled, a chunk at a time, newest first, until that time."""
    rows = queryset.using(OutboundViberMessage.objects.write_alias()).filter(_CANCELLABLE).order_by("-id")
    chunk = list(rows.values_list("id", flat=True)[:CHUNK])
    while chunk:
        yield chunk
        if time.monotonic() > until:
            return
        chunk = list(rows.filter(id__lt=chunk[-1]).values_list("id", flat=True)[:CHUNK])


def _cancel(request: HttpRequest, chunks: Iterable[list[int]], *, say_why: bool) -> list[notices.Notice]:
    """Cancel each chunk in a transaction of its own."""
    cancelled = doubtful = 0
    skipped: Counter[str] = Counter()
    for chunk in chunks:
        changed = {m.id: m for m in services.cancel_viber_messages(rows_of(chunk), user=user_of(request))}
        in_doubt = sum(message.status == Status.UNKNOWN for message in changed.values())
        cancelled, doubtful = cancelled + len(changed) - in_doubt, doubtful + in_doubt
        if say_why:
            left = rows_of([pk for pk in chunk if pk not in changed])
            skipped.update(_why_not_cancelled(message) for message in left)
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
    return [*told, *notices.left_out(skipped)]


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
