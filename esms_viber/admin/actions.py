"""Actions on messages: send, cancel, settle, ask eSMS. The list and a message's own page run the same code."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import services
from ..database import in_chunks
from ..formatting import MOST_COUNTED, grouped, tell_count
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..models.choices import TAKEN
from ..monitoring import require_setup
from ..reports.polling import can_ask
from ..reports.sent_list import AMBIGUOUS, NOT_LISTED
from . import display, notices, pauses, privacy, queue_status, slices
from .base import MOST_AT_ONCE, MessageAdminBase
from .confirmation import (
    CONFIRMED,
    Mark,
    ask_for_confirmation,
    selected_pks,
    selects_across,
    send,
    send_slices,
)
from .notices import (
    FROM_CAMPAIGN,
    LAST_SHOWN,
    Notice,
    all_rows,
    back,
    refuse_so_many,
    report_configuration,
    rows_of,
    tell,
    user_of,
)
from .routes import render
from .slices import WORK, Work

Action = TypeVar("Action", bound=Callable[..., Any])

MOST_ASKED = 200
"""Status queries that one request makes."""

_CANCELLABLE = Q(status__in=[Status.DRAFT, Status.QUEUED, Status.UNKNOWN]) & (
    ~Q(status=Status.UNKNOWN) | Q(next_attempt_at__isnull=False)
)


def _action(description: Any, *, permission: str = "send") -> Callable[[Action], Action]:
    """Describe an action as `admin.action()` does, but without the `location` that django-simpleui fails at."""

    def mark(function: Any) -> Any:
        function.short_description, function.allowed_permissions = description, [permission]
        return function

    return mark


@_action(gettext_lazy("Send or resend selected Viber messages"))
def send_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    """Ask for a confirmation first; send once it is given, many of them in slices."""
    mark = Mark.parse(request.POST.get(CONFIRMED, ""))
    work = Work.parse(request.POST.get(WORK, ""))
    pks = [] if work else selected_pks(queryset)
    are_many = len(pks) > MOST_AT_ONCE
    try:
        require_setup()
        if work is not None:
            return send_slices(model_admin, request, queryset, work)
        if are_many and not selects_across(request):
            refuse_so_many(model_admin, request, MOST_AT_ONCE)
        elif are_many:
            return ask_for_confirmation(model_admin, request, pks[:MOST_AT_ONCE], of_many=_as_shown(request, queryset))
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
    """Cancel a few at once; ask before many are cancelled, in slices, and before a campaign is stopped."""
    work = Work.parse(request.POST.get(WORK, ""))
    if work is not None:
        return _cancel_slices(model_admin, request, queryset, work)
    queryset = _as_shown(request, queryset)
    pks = selected_pks(queryset)
    if selects_across(request) and (FROM_CAMPAIGN in request.POST or len(pks) > MOST_AT_ONCE):
        return _ask_to_cancel(model_admin, request, queryset)
    if len(pks) > MOST_AT_ONCE:
        refuse_so_many(model_admin, request, MOST_AT_ONCE)
        return back(model_admin, request, pks)
    since = notices.begin()
    done: defaultdict[str, list[int]] = defaultdict(list)
    skipped: defaultdict[str, list[int]] = defaultdict(list)
    for chunk in in_chunks(pks):
        for message in _cancel(request, chunk, done):
            skipped[_why_not_cancelled(message)].append(message.id)
    counts = Counter({what: len(found) for what, found in done.items()})
    tell(model_admin, request, pks, [*_cancelled(counts, done), *notices.left_out(skipped)], since=since)
    return back(model_admin, request, pks)


def _ask_to_cancel(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse:
    rows = queryset.using(OutboundViberMessage.objects.write_alias()).filter(_CANCELLABLE).order_by()
    waiting = rows.values("pk")[: MOST_COUNTED + 1].count()
    will_not = ngettext(
        "One message that waits will not be sent.", "%(count)s messages that wait will not be sent.", waiting
    ) % {"count": tell_count(waiting)}
    sentences = [will_not if waiting else _("Nothing is left to cancel: only what was not sent yet can be cancelled.")]
    campaign = request.GET.get("campaign", "") if FROM_CAMPAIGN in request.POST else ""
    if campaign:
        of_campaign = OutboundViberMessage.objects.for_writing().filter(campaign=campaign, status__in=TAKEN)
        taken = of_campaign.bounded_count()
        already = ngettext("One message was sent.", "%(count)s messages were sent.", taken) % {
            "count": tell_count(taken)
        }
        sentences = [already, *sentences, _("To stop it for a while only, pause it instead.")]
    last = OutboundViberMessage.objects.for_writing().order_by("-pk").values_list("pk", flat=True).first() or 0
    return render(
        model_admin,
        request,
        "cancel_confirmation",
        title=_("Stop the campaign %(name)s for good?") % {"name": campaign}
        if campaign
        else _("Cancel Viber messages?"),
        viber_queue=queue_status.obstacles(),
        sentences=sentences,
        waiting=waiting,
        campaign=campaign,
        **slices.context(model_admin, request, Work.begin(request, rows, last=last)),
    )


def _cancel_slices(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage], work: Work
) -> HttpResponse:
    def step(pks: list[int]) -> None:
        done: defaultdict[str, list[int]] = defaultdict(list)
        _cancel(request, pks, done)
        work.done.update({what: len(found) for what, found in done.items()})

    def told() -> list[Notice]:
        nothing = Notice(levels.WARNING, _("Nothing was left to cancel: only what was not sent yet can be cancelled."))
        return _cancelled(work.done, {}) or ([nothing] if work.finished else [])

    response = slices.go_on(
        model_admin,
        request,
        queryset.filter(_CANCELLABLE),
        work,
        title=_("Cancelling"),
        step=step,
        told=told,
    )
    if work.finished and FROM_CAMPAIGN in request.POST and (name := request.GET.get("campaign")):
        pauses.end_unless_needed(model_admin, request, name)
    return response


def _as_shown(request: HttpRequest, queryset: QuerySet[OutboundViberMessage]) -> QuerySet[OutboundViberMessage]:
    """Leave out messages that came after the list was shown: who selects all of it means what was there."""
    last = request.POST.get(LAST_SHOWN, "")
    return queryset.filter(pk__lte=int(last)) if re.fullmatch("[0-9]{1,18}", last) else queryset


def _cancel(request: HttpRequest, pks: list[int], done: defaultdict[str, list[int]]) -> list[OutboundViberMessage]:
    """Cancel the messages in one transaction, note them as done, and return those that cannot be cancelled."""
    changed = {message.id: message for message in services.cancel_viber_messages(rows_of(pks), user=user_of(request))}
    for pk, message in changed.items():
        done["doubtful" if message.status == Status.UNKNOWN else "cancelled"].append(pk)
    return list(rows_of([pk for pk in pks if pk not in changed]))


def _cancelled(counts: Mapping[str, int], pks: Mapping[str, list[int]]) -> list[Notice]:
    """Tell what was done; `pks`: the messages, where they are few enough to be listed."""
    told = []
    if count := counts.get("cancelled", 0):
        sentence = ngettext("The message was cancelled.", "%(count)s messages were cancelled.", count)
        told.append(Notice(levels.SUCCESS, sentence % {"count": grouped(count)}, pks.get("cancelled", ())))
    if count := counts.get("doubtful", 0):
        sentence = ngettext(
            "The message is not repeated any more, but may have been sent already.",
            "%(count)s messages are not repeated any more, but may have been sent already.",
            count,
        )
        told.append(Notice(levels.WARNING, sentence % {"count": grouped(count)}, pks.get("doubtful", ())))
    return told


@_action(gettext_lazy("Mark selected Viber messages as looked up: they need not be sent again"))
def settle_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    pks = selected_pks(queryset)
    if len(pks) > MOST_AT_ONCE:
        refuse_so_many(model_admin, request, MOST_AT_ONCE)
        return back(model_admin, request, pks)
    since = notices.begin()
    settled = [message.id for message in services.settle_viber_messages(all_rows(pks), user=user_of(request))]
    told: list[Notice] = []
    if settled:
        sentence = ngettext(
            "It is noted that the message need not be sent again.",
            "It is noted that %(count)d messages need not be sent again.",
            len(settled),
        )
        told.append(Notice(levels.SUCCESS, sentence % {"count": len(settled)}, settled))
    skipped = sorted(set(pks) - set(settled))
    told += notices.left_out({_("There is nothing to decide about it."): skipped})
    tell(model_admin, request, pks, told, since=since)
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
    refusals: defaultdict[str, list[int]] = defaultdict(list)
    for poll in polls.exclude(code="100"):
        refusals[display.meaning(poll.code) or display.stored(poll.text)].append(poll.message_id)
    notes = ViberMessageEvent.objects.for_writing().filter(
        message__in=[message.id for message in answered], kind=ViberMessageEvent.Kind.NOTE, pk__gt=mark.last_event
    )
    for note in notes.filter(text__in=[AMBIGUOUS, NOT_LISTED]):
        refusals[display.stored(note.text)].append(note.message_id)
    for why, refused in refusals.items():
        head = ngettext("eSMS did not tell of the message.", "eSMS did not tell of %(count)d messages.", len(refused))
        told.append(Notice(levels.ERROR, f"{head % {'count': len(refused)}} {why}".strip(), refused))
    not_asked: defaultdict[str, list[int]] = defaultdict(list)
    for message in messages:
        if not can_ask(message):
            not_asked[_why_not_asked(message)].append(message.id)
    # Some may be left, because asking stops where eSMS gives no answers, and after a while.
    unasked = {message.id for message in askable} - {message.id for message in answered}
    sentence = _("eSMS told nothing about it: it refuses the account or its list, does not answer, or took too long.")
    told += [*notices.left_out(not_asked), *notices.left_out({sentence: sorted(unasked)})]
    tell(model_admin, request, pks, told, since=mark.last_event)
    return back(model_admin, request, pks)


@_action(gettext_lazy("Redact selected Viber messages"), permission="redact")
def redact_selected(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
) -> HttpResponse | None:
    """Ask for a confirmation first; redact once it is given."""
    pks = selected_pks(_as_shown(request, queryset))
    mark = Mark.parse(request.POST.get(CONFIRMED, ""))
    if len(pks) > MOST_AT_ONCE:
        privacy.refuse_so_many(model_admin, request)
    elif mark is None:
        return privacy.ask_before_redacting(model_admin, request, pks)
    else:
        privacy.redact(model_admin, request, [pk for pk in pks if pk <= mark.last_message])
    return back(model_admin, request, pks)


ACTIONS: dict[str, Any] = {
    "send_selected": send_selected,
    "cancel_selected": cancel_selected,
    "refresh_selected": refresh_selected,
    "settle_selected": settle_selected,
    "redact_selected": redact_selected,
}


def _why_not_cancelled(message: OutboundViberMessage) -> str:
    if message.status == Status.UNKNOWN:
        return _("It may have been sent, and nothing repeats it.")
    return _("It is %(status)s: only what was not sent yet can be cancelled.") % {
        "status": message.get_status_display()
    }


def _why_not_asked(message: OutboundViberMessage) -> str:
    if message.sent_to_sandbox:
        return _("It went to the sandbox, and eSMS keeps no record of sandbox messages.")
    if message.is_final or message.status in {Status.DRAFT, Status.QUEUED}:
        return _("It is %(status)s: there is nothing to ask.") % {"status": message.get_status_display()}
    return _("It has no SMSID, by which eSMS would find it: look it up on the eSMS portal.")
