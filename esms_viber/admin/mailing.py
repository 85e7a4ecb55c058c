"""*Send to many*: the form, the review of what would happen, and the way into the queue."""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from django.contrib import messages as notices
from django.contrib.admin.helpers import AdminForm
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import balance, mailings
from ..amounts import dong, grouped
from ..models import OutboundViberMessage
from ..phones import spaced_phone
from ..prices import estimate
from ..recipients import Recipient, Recipients, UnreadableList
from ..transactions import write_alias
from . import display, queue
from .answers import user_of
from .base import MessageAdminBase
from .figures import campaign_url
from .mailing_form import MailingForm
from .page import CHECK
from .preview import Bubble, bubble, checked, own_brand
from .routes import render, route, url_of

EDIT, BALANCE, STORE, CONFIRM = "_edit", "_balance", "_store", "_confirm"

AT_ONCE = 500
"""Lines that the script sends in one request."""

_LINES_SHOWN = 200

_FIELDSETS: Any = (
    (None, {"fields": ("campaign",)}),
    (gettext_lazy("To whom"), {"fields": ("phones", "file")}),
    (gettext_lazy("Message"), {"fields": ("kind", "content", "image_url", "button_label", "button_url")}),
    (gettext_lazy("Sending"), {"fields": ("brandname", "send_at", "expires_at", "sandbox")}),
)


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [route(model_admin, "send-to-many/", send_to_many, permission="send")]


def send_to_many(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_add_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return _write(model_admin, request, MailingForm(model_admin, request))
    if CHECK in request.POST:
        return checked(MailingForm(model_admin, request, request.POST, typing=True))
    data = _for_editing(request.POST) if EDIT in request.POST else request.POST
    form = MailingForm(model_admin, request, data, request.FILES)
    if STORE in request.POST:
        return _store_some(request, form)
    if not form.is_valid() or EDIT in request.POST:
        return _write(model_admin, request, form)
    if CONFIRM in request.POST:
        return _send(model_admin, request, form)
    if form.blame_text():
        return _write(model_admin, request, form)
    return _review(model_admin, request, form)


# -- writing -----------------------------------------------------------------------------------------------------------


def _for_editing(data: Any) -> Any:
    """Pasted phones go back to where they were pasted, so that a wrong one can be mended."""
    data = data.copy()
    with contextlib.suppress(UnreadableList):
        kept = Recipients.from_json(data.get("rows", ""))
        if not kept.columns:
            data["phones"], data["rows"] = "\n".join(person.phone for person in kept.people), ""
    return data


def _write(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    kept = getattr(form, "recipients", None)
    kept = kept if kept and kept.columns else None
    mailing = getattr(form, "mailing", mailings.Mailing(campaign=""))
    return render(
        model_admin,
        request,
        "mailing_form",
        title=_("Send to many"),
        viber_queue=queue.obstacles(),
        form=form,
        adminform=AdminForm(cast(Any, form), list(_FIELDSETS), {}, model_admin=model_admin),
        media=model_admin.media + form.media,
        kept=kept,
        kept_rows=kept.as_json() if kept else "",
        bubble=bubble(mailing.message("", {}), request),
        own_brand=own_brand(),
    )


# -- reviewing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    line: int
    phone: str
    bubble: Bubble


def _review(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    found = form.review
    longest = max((message for _person, message in found.ready), key=lambda m: len(m.content), default=None)
    campaign = urlencode({"campaign": form.mailing.campaign})
    return render(
        model_admin,
        request,
        "mailing_review",
        title=_("Send to many: is this right?"),
        viber_queue=queue.obstacles(),
        form=form,
        mailing=form.mailing,
        ready=len(found.ready),
        ready_text=grouped(len(found.ready)),
        refused=_listed([(person, " ".join(error.messages)) for person, error in found.refused]),
        repeated=_listed([(person, "") for person in found.repeated]),
        known=_listed([(person, "") for person in found.known]),
        known_url=f"{url_of(model_admin, 'changelist')}?{campaign}",
        samples=[_sample(person, message, request) for person, message in _three(found, longest)],
        longest=len(longest.content) if longest else 0,
        cost=_cost(form),
        balance=_balance(model_admin, request),
        starts_at=display.moment(form.mailing.send_at),
        hidden=[bound.as_hidden() for bound in form if bound.name not in {"phones", "file", "rows"}],
        rows=form.recipients.as_json(),
        at_once=AT_ONCE,
    )


def _listed(lines: list[tuple[Recipient, str]]) -> dict[str, Any]:
    more = max(0, len(lines) - _LINES_SHOWN)
    return {"count": len(lines), "text": grouped(len(lines)), "shown": lines[:_LINES_SHOWN], "more": more}


def _three(found: mailings.Review, longest: OutboundViberMessage | None) -> list[Any]:
    """The first, the longest and the last, in their order; fewer where these are the same."""
    last = len(found.ready) - 1
    return [pair for n, pair in enumerate(found.ready) if n in {0, last} or pair[1] is longest]


def _sample(person: Recipient, message: OutboundViberMessage, request: HttpRequest) -> Sample:
    return Sample(person.line, spaced_phone(message.phone), bubble(message, request))


def _cost(form: MailingForm) -> str:
    """Empty where no price is known."""
    if form.mailing.is_rehearsal:
        return dong(Decimal(0))
    amount = estimate(Counter(message.kind for _person, message in form.review.ready if message.kind))
    return "" if amount is None else dong(amount)


def _balance(model_admin: MessageAdminBase, request: HttpRequest) -> str:
    """Empty where it is not known, and nobody has asked for it."""
    try:
        found = balance.ask() if BALANCE in request.POST else balance.remembered()
    except balance.BalanceUnavailable as error:
        model_admin.message_user(request, str(error), notices.ERROR)
        return ""
    return dong(found.amount) if found else ""


# -- queueing ----------------------------------------------------------------------------------------------------------


def _store_some(request: HttpRequest, form: MailingForm) -> JsonResponse:
    """A part of the list, sent by the script; the last part comes as `CONFIRM`, and hands all of them over."""
    if not form.is_valid():
        sentences = [str(sentence) for sentences in form.errors.values() for sentence in sentences]
        return JsonResponse({"error": " ".join(sentences)}, status=400)
    mailings.store(form.mailing, form.recipients, user=user_of(request))
    return JsonResponse({})


def _send(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    campaign = form.mailing.campaign
    mailings.store(form.mailing, form.recipients, user=user_of(request))
    mailings.hand_over(campaign)
    stored = OutboundViberMessage.objects.using(write_alias()).filter(campaign=campaign).count()
    sentence = ngettext(
        "The campaign “%(campaign)s” has one message now.",
        "The campaign “%(campaign)s” has %(count)s messages now.",
        stored,
    ) % {"campaign": campaign, "count": grouped(stored)}
    model_admin.message_user(request, sentence, notices.SUCCESS)
    if not model_admin.has_view_permission(request):
        return HttpResponseRedirect(request.path)
    return HttpResponseRedirect(campaign_url(model_admin, campaign))
