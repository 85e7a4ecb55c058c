"""The overview, the page of a campaign, and the question for the balance."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.contrib.admin import ModelAdmin
from django.contrib.messages import constants as levels
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern
from django.utils import timezone
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import account, formatting
from ..formatting import dong, grouped
from ..models import OutboundViberMessage, Purpose, Status, ViberPause
from ..models.choices import TAKEN, WAITING
from ..models.querysets import MessageQuerySet
from ..models.validators import normalize_text
from ..statistics import (
    Progress,
    Tally,
    counted,
    days_until,
    get_figures,
    get_overview,
    latest_of_campaign,
    start_of,
    was_stopped,
)
from . import pauses, queue_status
from .base import MessageAdminBase
from .charts import Number, bar_of, linked, percent, plots_of
from .listing import Listing
from .notices import FROM_CAMPAIGN, LAST_SHOWN
from .routes import campaign_url, press_again, render, route, url_of

_PERIODS = (7, 30)
_MOST_DAYS = 31
_MOST_CAMPAIGNS = 20
_SECONDS_WHILE_SENDING, _SECONDS_WHILE_WAITING = 3, 15


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [
        route(model_admin, "overview/", overview, permission="view"),
        route(model_admin, "campaign/", campaign, permission="view"),
        route(model_admin, "balance/", balance, permission="send"),
    ]


def _listing(model_admin: MessageAdminBase) -> Listing:
    return Listing(url_of(model_admin, "changelist"))


def _counted(model_admin: MessageAdminBase, request: HttpRequest) -> MessageQuerySet:
    """Select the messages that this person may see, because a site's own admin may show only some."""
    messages = OutboundViberMessage.objects.all()
    if type(model_admin).get_queryset is not ModelAdmin.get_queryset:
        # Filter by primary keys, because with a join of the site's a message would be counted several times.
        messages = messages.filter(pk__in=model_admin.get_queryset(request).order_by().values("id"))
    return counted(messages)


@dataclass(frozen=True, slots=True)
class Card:
    """A figure at the top of a page."""

    name: str
    number: Number
    remark: str = ""


def _cards(tally: Tally, listing: Listing) -> list[Card]:
    rate, reported = tally.delivery_rate, tally.reported
    known = ngettext("of one that eSMS has reported on", "of %(count)s that eSMS has reported on", reported)
    return [
        Card(_("Asked for"), linked(tally.asked_for, listing.of_statuses())),
        Card(_("Delivered"), linked(tally.delivered, listing.of_status("delivered"))),
        Card(
            _("Delivery rate"),
            Number(_("not known yet") if rate is None else percent(rate)),
            known % {"count": grouped(reported)} if reported else "",
        ),
        Card(_("Cost"), Number(dong(tally.cost)), _("as far as eSMS has reported it")),
    ]


# -- the overview ------------------------------------------------------------------------------------------------------


def overview(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    chosen = [period for period in _PERIODS if str(period) == request.GET.get("days")]
    period = chosen[0] if chosen else _PERIODS[-1]
    days = days_until(timezone.now(), period)
    listing = _listing(model_admin).created(start_of(days[0]))
    figures, tallies = get_overview(_counted(model_admin, request), days, most=_MOST_CAMPAIGNS)
    standing = queue_status.look()
    campaigns = []
    for name, tally in tallies.items():
        of_campaign = listing.of_campaign(name)
        line = {
            "name": name,
            "url": campaign_url(model_admin, name),
            "asked_for": linked(tally.asked_for, of_campaign.of_statuses()),
            "delivered": linked(tally.delivered, of_campaign.of_status("delivered")),
            "rate": "" if tally.delivery_rate is None else percent(tally.delivery_rate),
            "cost": dong(tally.cost),
        }
        campaigns.append(line)
    return render(
        model_admin,
        request,
        "overview",
        title=_("Overview of the last %(days)d days") % {"days": period},
        viber_queue=standing,
        periods=[(number, number == period) for number in _PERIODS],
        cards=_cards(figures.total, listing),
        plots=plots_of(figures, listing),
        campaigns=campaigns,
        most_campaigns=_MOST_CAMPAIGNS,
        balance=_balance(standing),
        may_ask=model_admin.has_send_permission(request),
        **_pause(model_admin, request, pauses.find()),
    )


def _pause(
    model_admin: MessageAdminBase, request: HttpRequest, paused: ViberPause | None, campaign: str = ""
) -> dict[str, Any]:
    return {
        "pause": paused,
        "pause_since": pauses.since(paused) if paused else "",
        "pause_campaign": campaign,
        "may_send": model_admin.has_send_permission(request),
    }


def _balance(standing: queue_status.Queue) -> Card:
    known = standing.balance
    if known is None:
        return Card(_("Balance"), Number(_("not asked yet")))
    return Card(_("Balance"), Number(dong(known.amount)), queue_status.balance_remark(known, standing))


# -- a campaign --------------------------------------------------------------------------------------------------------


def campaign(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    name = normalize_text(request.GET.get("name")).strip()
    if not name or "\x00" in name:
        raise Http404
    everything = _counted(model_admin, request)
    messages = everything.filter(campaign=name)
    listing = _listing(model_admin).of_campaign(name)
    days = days_until(latest_of_campaign(everything, name) or timezone.now(), _MOST_DAYS)
    # Add a day for a message that was numbered before the latest and is dated after it: two servers' clocks may differ.
    figures, progress = get_figures(messages, [*days, days[-1] + dt.timedelta(days=1)])
    asked_for = figures.total.asked_for
    through = asked_for - progress.to_come
    said = ngettext(
        "%(through)s of one message is through.", "%(through)s of %(count)s messages are through.", asked_for
    ) % {"through": grouped(through), "count": grouped(asked_for)}
    waiting = _what_waits(progress, listing)
    holds, now = ViberPause.objects.holds(), timezone.now()
    paused = pauses.find(name) if name in holds.campaigns else None
    is_paused, opens_at = holds.everything or paused is not None, holds.opens_at(now)
    moves = bool(progress.due) and not is_paused
    if is_paused and progress.to_come:
        pause = _("It is paused.") if paused else _("Sending is paused.")
        said = f"{said} {pause}"
        waiting.append((_("What waits goes out once somebody resumes it."), ""))
    elif opens_at is not None and progress.due:
        moves = _has_due(name, Purpose.TRANSACTIONAL, now)
        if _has_due(name, Purpose.PROMOTIONAL, now):
            waiting.append((_("Promotional ones go out from %(time)s on.") % {"time": formatting.moment(opens_at)}, ""))
    cancelled = figures.total.counts[Status.CANCELLED]
    is_stopped = cancelled > 0 and not progress.to_come and was_stopped(everything, name)
    if is_stopped:
        sent = sum(figures.total.counts[status] for status in TAKEN)
        said = _("Stopped: %(sent)s sent, %(cancelled)s cancelled.") % {
            "sent": grouped(sent),
            "cancelled": grouped(cancelled),
        }
    seconds = None  # because nothing is to come soon
    if moves or progress.sending:
        seconds = _SECONDS_WHILE_SENDING
    elif progress.awaited or (progress.to_come and not is_paused):
        seconds = _SECONDS_WHILE_WAITING
    return render(
        model_admin,
        request,
        "campaign_figures" if "fragment" in request.GET else "campaign",
        title=_("Campaign %(name)s") % {"name": name},
        viber_queue=queue_status.obstacles(page_of=name) if progress.to_come else None,
        url=campaign_url(model_admin, name),
        all_url=f"{listing.url}?{urlencode({'campaign': name})}",
        asked_for=asked_for,
        through=through,
        said=said,
        bar=bar_of(figures.total) if is_stopped else None,
        buttons=_buttons(model_admin, request, figures.total, progress, name),
        from_campaign=FROM_CAMPAIGN,
        last_shown_name=LAST_SHOWN,
        last_shown=OutboundViberMessage.objects.for_writing().order_by("-pk").values_list("pk", flat=True).first() or 0,
        waiting=waiting,
        seconds=seconds,
        cards=_cards(figures.total, listing),
        plots=plots_of(figures, listing),
        **_pause(model_admin, request, paused, name),
    )


@dataclass(frozen=True, slots=True)
class Button:
    """An action of the list, on the messages of a campaign in some states; it asks before it does anything."""

    name: str
    action: str
    label: str
    url: str


def _buttons(
    model_admin: MessageAdminBase, request: HttpRequest, total: Tally, progress: Progress, name: str
) -> list[Button]:
    if not model_admin.has_send_permission(request):
        return []
    counts = total.counts
    possible = [
        (progress.queued + progress.repeated, "stop", "cancel_selected", _("Stop for good…"), WAITING),
        (counts[Status.CANCELLED], "cancelled", "send_selected", _("Send what was cancelled…"), [Status.CANCELLED]),
        (counts[Status.FAILED], "failed", "send_selected", _("Send again what failed…"), [Status.FAILED]),
    ]
    listing = Listing(url_of(model_admin, "changelist"), {"campaign": name})
    return [
        Button(what, action, label, str(listing.of_statuses(sorted(statuses))))
        for count, what, action, label, statuses in possible
        if count
    ]


def _has_due(campaign: str, purpose: Purpose, now: dt.datetime) -> bool:
    """Tell whether any message of a purpose is due, along the index in which each campaign has a lane of its own."""
    rows = OutboundViberMessage.objects.for_writing()
    of_purpose = [rows.filter(status=status, purpose=purpose) for status in WAITING]
    lanes = [lane for each in of_purpose for lane in each.lanes(campaigns=[campaign])]
    return any(lane.soonest_first(now).exists() for lane in lanes)


def _what_waits(progress: Progress, listing: Listing) -> list[tuple[str, str]]:
    """Tell in sentences what still waits, each with the address of its list."""
    since = formatting.moment(progress.oldest_due_at)
    queued = ngettext("One waits in the queue", "%(count)s wait in the queue", progress.queued)
    sending = ngettext("One is being sent", "%(count)s are being sent", progress.sending)
    repeated = ngettext(
        "One may have been sent; it is tried again by itself",
        "%(count)s may have been sent; they are tried again by themselves",
        progress.repeated,
    )
    due = ngettext(
        "One of these is due, since %(time)s",
        "%(count)s of these are due, the oldest since %(time)s",
        progress.due,
    )
    starts = _("The next of these go out at %(time)s") % {"time": formatting.moment(progress.starts_at)}
    lines = [
        (queued, progress.queued, str(listing.of_status("queued"))),
        (sending, progress.sending, str(listing.of_status("sending"))),
        (repeated, progress.repeated, str(listing.of_status("unknown").narrowed(next_attempt_at__isnull="0"))),
        (due, progress.due, ""),
    ]
    told = [(line % {"count": grouped(count), "time": since}, url) for line, count, url in lines if count]
    return [*told, (starts, "")] if progress.starts_at else told


# -- the balance -------------------------------------------------------------------------------------------------------


def balance(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return press_again(model_admin, request)
    try:
        answer = account.ask()
        with suppress(account.BrandnamesUnavailable):  # the balance was asked for, and the names are for the forms
            account.ask_brandnames()
    except account.BalanceUnavailable as error:
        model_admin.message_user(request, str(error), levels.ERROR)
    else:
        sentence = _("The balance of the eSMS account is %(balance)s.") % {"balance": dong(answer.amount)}
        model_admin.message_user(request, sentence, levels.SUCCESS)
    return HttpResponseRedirect(url_of(model_admin, "viber_overview"))
