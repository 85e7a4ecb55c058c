"""Pausing and resuming: everything on the overview, one campaign on its page."""

from __future__ import annotations

from typing import Any

from django.contrib.messages import constants as levels
from django.core.exceptions import ValidationError
from django.db.models import Q
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import services
from ..conf import get_settings
from ..delivery.claims import due_pks
from ..dispatch import is_inline
from ..formatting import MOST_COUNTED, moment, tell_count
from ..models import OutboundViberMessage, Status, ViberMessageEvent, ViberPause
from ..models.pause import campaign_named
from . import notices
from .base import MessageAdminBase
from .notices import Notice, rows_of, user_of
from .routes import campaign_url, press_again, route, url_of


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [
        route(model_admin, "pause/", pause, permission="send"),
        route(model_admin, "resume/", resume, permission="send"),
    ]


def find(campaign: str = "") -> ViberPause | None:
    """Return the pause of a campaign, or of everything."""
    found: ViberPause | None = ViberPause.objects.for_writing().filter(campaign=campaign).first()
    return found


def since(paused: ViberPause) -> str:
    """Tell since when it is paused, and by whom."""
    told = {"time": moment(paused.created_at), "user": paused.user}
    if paused.user is None:
        return _("Paused since %(time)s.") % told
    return _("Paused since %(time)s, by %(user)s.") % told


def pause(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return press_again(model_admin, request)
    campaign = ""
    try:
        campaign = campaign_named(request.POST.get("campaign", ""))
        was_paused = find(campaign) is not None
        paused = services.pause_sending(campaign, note=request.POST.get("note", "").strip(), user=user_of(request))
    except ValidationError as error:
        model_admin.message_user(request, " ".join([_("It could not be paused."), *error.messages]), levels.ERROR)
        return _back(model_admin, campaign)
    if was_paused:
        model_admin.message_user(request, " ".join([_("It was paused already."), since(paused)]), levels.INFO)
        return _back(model_admin, campaign)
    log: Any = model_admin  # whose log takes any model, though the stubs know ours alone
    log.log_addition(request, paused, paused.note or [{"added": {}}])
    told = _("The campaign is paused.") if campaign else _("Sending is paused.")
    besides = _("What is on the wire is finished; all else waits where it is until somebody resumes it.")
    model_admin.message_user(request, f"{told} {besides}", levels.SUCCESS)
    return _back(model_admin, campaign)


def resume(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return press_again(model_admin, request)
    try:
        campaign = campaign_named(request.POST.get("campaign", ""))
    except ValidationError:
        raise Http404 from None
    paused = find(campaign)
    last_event = notices.begin()
    if not services.resume_sending(campaign, user=user_of(request)) or paused is None:
        model_admin.message_user(request, _("It was not paused any more."), levels.INFO)
        return _back(model_admin, campaign)
    log: Any = model_admin  # as above, and any iterable will do
    log.log_deletions(request, [paused])
    notices.tell(model_admin, request, [], _resumed(campaign, last_event), since=last_event)
    return _back(model_admin, campaign)


def end_unless_needed(model_admin: MessageAdminBase, request: HttpRequest, campaign: str) -> None:
    """End the pause of a campaign that was stopped for good, because it would be told for ever.

    It stays where something of the campaign waits, because that came after it was stopped, or was being sent then.
    """
    rows = OutboundViberMessage.objects.for_writing().filter(campaign=campaign)
    waiting = Q(status__in=[Status.QUEUED, Status.SENDING]) | Q(status=Status.UNKNOWN, next_attempt_at__isnull=False)
    paused = find(campaign)
    if paused is None or rows.filter(waiting).exists():
        return
    if services.resume_sending(campaign, user=user_of(request)):
        log: Any = model_admin  # as above
        log.log_deletions(request, [paused])


def _resumed(campaign: str, last_event: int) -> list[Notice]:
    """Tell what went out with the commit, and what a sender sends."""
    told = [Notice(levels.SUCCESS, _("The campaign goes on.") if campaign else _("Sending goes on."))]
    if campaign and find():
        return [*told, Notice(levels.WARNING, _("Nothing goes out yet, because sending as a whole is paused."))]
    if is_inline():
        calls = ViberMessageEvent.objects.for_writing().filter(kind=ViberMessageEvent.Kind.ATTEMPT, pk__gt=last_event)
        called = rows_of(list(calls.order_by("pk").values_list("message", flat=True)[: get_settings().INLINE_LIMIT]))
        told += notices.outcomes(called.filter(campaign=campaign) if campaign else called)
        due = len(due_pks(campaign, most=MOST_COUNTED + 1))
        sentence = ngettext(
            "One more is due. It goes out when waiting messages are sent next.",
            "%(count)s more are due. They go out when waiting messages are sent next.",
            due,
        )
    else:
        due = len(due_pks(campaign, most=MOST_COUNTED + 1))
        sentence = ngettext(
            "One message is due, and is sent in the background.",
            "%(count)s messages are due, and are sent in the background.",
            due,
        )
    return [*told, Notice(levels.INFO, sentence % {"count": tell_count(due)})] if due else told


def _back(model_admin: MessageAdminBase, campaign: str) -> HttpResponseRedirect:
    return HttpResponseRedirect(
        campaign_url(model_admin, campaign) if campaign else url_of(model_admin, "viber_overview")
    )
