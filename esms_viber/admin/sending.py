"""Sending: what is asked before, and what is done and told once it is confirmed."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from django.contrib import messages as notices
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from .. import services
from ..amounts import dong
from ..conf import get_settings
from ..models import OutboundViberMessage
from ..prices import estimate
from ..readiness import require_setup
from ..resending import plan_resend
from ..transactions import in_transaction, lock
from . import display, queue, reporting
from .answers import FROM_PAGE, back_url, report, report_configuration, rows_of, tell, user_of
from .base import MessageAdminBase
from .review import STILL_REPEATED, Listing, Mark, Review, arrived, in_chunks, is_repeated, review

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

CONFIRMED = "confirmed"
"""Posted by the confirmation page: the mark of what was seen on it."""

SPARE = "spare_arrived"
"""Posted by its second button: leave out what has arrived."""

_OVERTAKEN = gettext_lazy("Something happened to it after you were asked: look at it before you send it.")


def ask_for_confirmation(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> HttpResponse:
    mark = Mark.now()
    found = review(pks)
    across = request.POST.get("select_across") == "1"
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "title": _("Send Viber messages?"),
        "opts": model_admin.opts,
        "sendable": len(found.sendable),
        "first": _shown(model_admin, found.first),
        "again": _shown(model_admin, found.again),
        "arrived": _shown(model_admin, found.arrived),
        "not_arrived": len(found.sendable) - found.arrived.count,
        "spare_name": SPARE,
        "doubtful": _shown(model_admin, found.doubtful),
        "skipped": _shown(model_admin, found.skipped),
        "viber_queue": queue.obstacles(),
        "cost": _cost(found),
        "cost_spared": _cost_without_arrived(found),
        "mark_name": CONFIRMED,
        "mark": mark,
        "action_name": "send_selected",
        "checkbox_name": ACTION_CHECKBOX_NAME,
        # Thousands of ids would pass the limit of fields in a form: the filters in the address stand for them.
        "select_across": across,
        "posted_pks": pks[:1] if across else found.sendable,
        "from_page": FROM_PAGE in request.POST,
        "from_page_name": FROM_PAGE,
        "back": back_url(model_admin, request, pks),
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/esms_viber/outboundvibermessage/send_confirmation.html", context)


def _cost(found: Review) -> str:
    """In a sentence; empty where nothing is sent."""
    if not found.sendable:
        return ""
    if not found.charged or get_settings().SANDBOX:
        return _("It costs nothing: it goes to the sandbox.")
    amount = estimate(found.charged)
    if amount is None:
        return _("What it costs is not known: eSMS has not reported the price of such a message yet.")
    return _("It may cost about %(amount)s, going by the latest prices.") % {"amount": dong(amount)}


def _cost_without_arrived(found: Review) -> str:
    if not found.charged_though_arrived or get_settings().SANDBOX:
        return ""
    amount = estimate(found.charged - found.charged_though_arrived)
    return "" if amount is None else _("Without what has arrived, about %(amount)s.") % {"amount": dong(amount)}


def _shown(model_admin: MessageAdminBase, listing: Listing) -> dict[str, Any]:
    lines = [(display.line(message, model_admin.page_url(message.id)), remark) for message, remark in listing.shown]
    return {"count": listing.count, "lines": lines, "more": listing.count - len(lines)}


def send(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int], mark: Mark) -> None:
    user, spare = user_of(request), SPARE in request.POST
    queued, skipped = in_transaction(lambda: _send(sorted(pks), mark, user, spare=spare), repeatable=False)
    # The commit has handed them to the dispatcher, and the inline one has sent them by now.
    report(model_admin, request, queued, reporting.left_out(skipped))


def _send(pks: list[int], mark: Mark, user: AbstractBaseUser, *, spare: bool) -> tuple[list[int], Counter[str]]:
    """Which were queued, and how many were not for which reason; all of them or, after an error, none."""
    queued: list[int] = []
    skipped: Counter[str] = Counter()
    for chunk in in_chunks(pks):
        rows = list(lock(rows_of(chunk)))
        changed = mark.changed_since(chunk)
        spared = arrived(rows) - changed if spare else set()
        seen = [row for row in rows if row.id not in changed | spared and not is_repeated(row)]
        sent = services.resend_viber_messages(seen, user=user)
        queued += [row.id for row in sent]
        skipped.update(_why_skipped(seen, sent))
        skipped.update(str(_OVERTAKEN) for _pk in changed)
        skipped.update(_("It has arrived already.") for _pk in spared)
        skipped.update(str(STILL_REPEATED) for row in rows if row.id not in changed and is_repeated(row))
    return queued, skipped


def _why_skipped(selected: list[OutboundViberMessage], sent: list[OutboundViberMessage]) -> list[str]:
    acted_on = {row.id for row in sent} | {row.resend_of_id for row in sent}
    left = plan_resend(message for message in selected if message.id not in acted_on)
    return [why for _message, why in left.skipped]


def send_saved(model_admin: MessageAdminBase, request: HttpRequest, message: OutboundViberMessage) -> None:
    """*Save and send*, after the message was committed: whatever goes wrong here, it is kept."""
    try:
        require_setup()
        queued = services.queue_stored_message(message, user=user_of(request))
    except ImproperlyConfigured as error:
        report_configuration(model_admin, request, error)
        tell(model_admin, request, [message.id], [(notices.WARNING, _("It is kept, and was not sent."))])
        return
    except ValidationError as error:
        tell(model_admin, request, [message.id], [(notices.ERROR, " ".join([_("It was not sent."), *error.messages]))])
        return
    because = [] if queued else [(notices.WARNING, _("It was sent from elsewhere in the meantime, and not again."))]
    report(model_admin, request, [message.id], because)
