"""*Send to many*: the form, the review of what would happen, and the way into the queue."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, cast

from django.contrib.admin.helpers import AdminForm
from django.contrib.messages import constants as levels
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, JsonResponse
from django.urls import URLPattern
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import account, formatting
from ..account import estimate
from ..conf import readable_settings
from ..formatting import dong, grouped
from ..lifecycle import goes_to_sandbox
from ..mailing import mailing as mailings
from ..mailing.recipients import Recipient, Recipients
from ..models import OutboundViberMessage, Purpose, Status
from ..phones import spaced_phone
from . import display, queue_status, template_admin
from .base import MessageAdminBase
from .forms import REHEARSE
from .mailing_form import MailingForm
from .notices import user_of
from .preview import CHECK, Bubble, bubble, checked, own_brand
from .rehearsal import forgive, offer, rehearse
from .routes import campaign_url, render, route, url_of

EDIT, BALANCE, STORE, CONFIRM = "_edit", "_balance", "_store", "_confirm"

AT_ONCE = 500
"""Lines that the script sends in one request."""

_LINES_SHOWN = 200

_FIELDSETS: Any = (
    (None, {"fields": ("campaign",)}),
    (gettext_lazy("To whom"), {"fields": ("phones", "file")}),
    (gettext_lazy("Message"), {"fields": ("kind", "content", "image_url", "button_label", "button_url")}),
    (gettext_lazy("Sending"), {"fields": ("purpose", "brandname", "send_at", "expires_at", "sandbox")}),
)


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [route(model_admin, "send-to-many/", send_to_many, permission="send")]


def send_to_many(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponse:
    if not model_admin.has_add_permission(request):
        raise PermissionDenied
    if request.method != "POST":
        return _write(model_admin, request, MailingForm(model_admin, request))
    if template_admin.FILL in request.POST:
        data = template_admin.filled_in(model_admin, request)
        if data.get("purpose") != Purpose.PROMOTIONAL:
            # A template is transactional by default, so it does not decide this for a mailing: a person does.
            data["purpose"] = request.POST.get("purpose", Purpose.PROMOTIONAL)
        form = MailingForm(model_admin, request, data, request.FILES)
        for name in form.errors.keys() - {"file"}:  # which has to be chosen again if it cannot be read
            del form.errors[name]
        return _write(model_admin, request, form)
    if CHECK in request.POST:
        form = MailingForm(model_admin, request, request.POST, typing=True)
        form.full_clean()
        return checked(form, form.longest)
    form = MailingForm(model_admin, request, request.POST, request.FILES)
    if STORE in request.POST:
        # The script posts the list part by part, and then `CONFIRM`, which holds nothing new.
        if not form.is_valid():
            sentences = [str(sentence) for sentences in form.errors.values() for sentence in sentences]
            return JsonResponse({"error": " ".join(sentences)}, status=400)
        return JsonResponse({"new": mailings.store(form.mailing, form.review, user=user_of(request))})
    if REHEARSE in request.POST:
        return _rehearse(model_admin, request, form)
    if not form.is_valid() or EDIT in request.POST:
        _tell_what_is_stored(model_admin, request, form)
        return _write(model_admin, request, form)
    if CONFIRM in request.POST:
        return _send(model_admin, request, form)
    if form.blame_text():
        return _write(model_admin, request, form)
    return _review(model_admin, request, form)


def _rehearse(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    """Send the first line's message to a phone of one's own, and show the same page again."""
    is_reviewed = form.is_valid() and request.POST[REHEARSE] == "review"
    without_list = not hasattr(form, "recipients") and form.mailing.placeholders
    if not without_list:
        forgive(form)
    if not form.errors:
        rehearse(model_admin, request, form.first, terms=form.first)
    return (_review if is_reviewed else _write)(model_admin, request, form)


# -- writing -----------------------------------------------------------------------------------------------------------


def _write(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    kept = form.keep_list()
    mailing = getattr(form, "mailing", mailings.Mailing(campaign=""))
    form.show_room()
    return render(
        model_admin,
        request,
        "mailing_form",
        title=_("Send to many"),
        viber_queue=queue_status.obstacles(),
        form=form,
        adminform=AdminForm(cast(Any, form), list(_FIELDSETS), {}, model_admin=model_admin),
        media=model_admin.media + form.media,
        kept=kept,
        kept_text=grouped(len(kept.people)) if kept else "",
        kept_rows=kept.as_json() if kept else "",
        remarks=_remarks(kept) if kept else [],
        bubble=bubble(mailing.message("", {}), request),
        own_brand=own_brand(),
        stored=_stored_before(request),
        viber_rehearsal=offer(request),
        **template_admin.choice(model_admin, request),
    )


def _remarks(recipients: Recipients) -> list[str]:
    """Tell how the list was read, because it may have been meant otherwise."""
    remarks = []
    if recipients.header_line:
        remarks.append(
            _("The names of the columns were found in line %(line)d; what stands above them is left out.")
            % {"line": recipients.header_line}
        )
    if recipients.phone_columns:
        remarks.append(_("The phones of the column “%(name)s” are used.") % {"name": recipients.phone_columns[0]})
    return remarks


# -- reviewing ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One of the messages that a review shows."""

    line: int
    phone: str
    bubble: Bubble


def _review(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    found, standing = form.review, queue_status.obstacles()
    longest = max((message for _person, message in found.ready), key=lambda m: len(m.content), default=None)
    # Show the first, the longest and the last, with one from the middle if the longest is the first or the last.
    last = len(found.ready) - 1
    at = next((n for n, (_person, message) in enumerate(found.ready) if message is longest), 0)
    chosen = {0, at, last} if 0 < at < last else {0, last // 2, last}
    samples = [
        Sample(person.line, spaced_phone(message.phone), bubble(message, request))
        for n, (person, message) in enumerate(found.ready)
        if n in chosen
    ]
    return render(
        model_admin,
        request,
        "mailing_review",
        title=_("Send to many: is this right?"),
        viber_queue=standing,
        form=form,
        mailing=form.mailing,
        purpose=Purpose(form.mailing.purpose).label,
        remarks=_remarks(form.recipients),
        phone_columns=form.recipients.phone_columns,
        ready=len(found.ready),
        ready_text=grouped(len(found.ready)),
        refused=lines([(person, " ".join(error.messages)) for person, error in found.refused]),
        repeated=lines([(person, "") for person in found.repeated]),
        known=lines([(person, "") for person in found.known]),
        opted_out=lines([(person, "") for person in found.opted_out]),
        known_url=_listed(model_admin, form.mailing) if model_admin.has_view_permission(request) else "",
        named_alike=mailings.campaigns_named_alike(form.mailing.campaign),
        samples=samples,
        longest=len(longest.content) if longest else 0,
        money=_money(model_admin, request, form, standing),
        starts_at=formatting.moment(form.mailing.send_at),
        hold=display.hold_on(form.mailing.campaign, form.mailing.purpose, form.mailing.send_at),
        ends_at=formatting.moment(form.mailing.expires_at),
        hidden=[bound.as_hidden() for bound in form if bound.name not in {"phones", "file", "rows", "phone_column"}],
        rows=form.recipients.as_json(),
        at_once=AT_ONCE,
        only_to=_only_to(form),
        viber_rehearsal=offer(request) if found.ready else None,
    )


def _only_to(form: MailingForm) -> str:
    """Tell how many of the messages go to the sandbox, because `ONLY_TO` leaves out their phones."""
    conf = readable_settings()
    left_out = sum(conf.leaves_out(message.phone) for _person, message in form.review.ready)
    if not left_out or form.mailing.is_sandbox:
        return ""
    sentence = ngettext(
        "One of these goes to the sandbox, which neither delivers nor charges it: its phone is not in the setting "
        "ONLY_TO.",
        "%(count)s of these go to the sandbox, which neither delivers nor charges them: their phones are not in the "
        "setting ONLY_TO.",
        left_out,
    )
    return sentence % {"count": grouped(left_out)}


def lines(found: list[tuple[Recipient, str]]) -> dict[str, Any]:
    """Return the first lines of a list, each with a reason that may be empty, and how many there are."""
    more = max(0, len(found) - _LINES_SHOWN)
    return {"count": len(found), "text": grouped(len(found)), "shown": found[:_LINES_SHOWN], "more": more}


@dataclass(frozen=True, slots=True)
class Money:
    """The likely cost and the balance; empty where they are not known."""

    cost: str
    balance: str
    remark: str
    """The age of the balance."""
    suffices: bool


def _money(
    model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm, standing: queue_status.Queue
) -> Money:
    conf = readable_settings()
    charged = Counter(
        message.kind for _person, message in form.review.ready if message.kind and not goes_to_sandbox(message, conf)
    )
    cost = Decimal(0) if form.review.ready and not charged else estimate(charged)
    try:
        known = account.ask() if BALANCE in request.POST else standing.balance
    except account.BalanceUnavailable as error:
        model_admin.message_user(request, str(error), levels.ERROR)
        known = None
    return Money(
        cost="" if cost is None else dong(cost),
        balance=dong(known.amount) if known else "",
        remark=queue_status.balance_remark(known, standing) if known else "",
        suffices=cost is None or known is None or cost <= known.amount,
    )


# -- queueing ----------------------------------------------------------------------------------------------------------


def _send(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> HttpResponse:
    campaign = form.mailing.campaign
    new = mailings.store(form.mailing, form.review, user=user_of(request)) + _stored_before(request)
    mailings.send_inline(campaign)
    if new:
        sentence = ngettext(
            "One message of the campaign “%(campaign)s” was stored to be sent.",
            "%(count)s messages of the campaign “%(campaign)s” were stored to be sent.",
            new,
        ) % {"campaign": campaign, "count": grouped(new)}
        model_admin.message_user(request, sentence, levels.SUCCESS)
        rows = OutboundViberMessage.objects.for_writing().filter(campaign=campaign)
        waiting = rows.queued().filter(next_attempt_at__lte=timezone.now()).count()
    else:
        sentence = _("No message was stored: nobody in the list can get one, or everybody has one already.")
        model_admin.message_user(request, sentence, levels.WARNING)
        waiting = 0
    if waiting:
        sentence = ngettext(
            "One message of the campaign waits in the queue. It goes out when waiting messages are sent next.",
            "%(count)s messages of the campaign wait in the queue. They go out when waiting messages are sent next.",
            waiting,
        ) % {"count": grouped(waiting)}
        if hold := display.hold_on(campaign, form.mailing.purpose):
            sentence = " ".join([_("Nothing goes out yet."), formatting.stored(hold.reason), hold.remedy()])
        model_admin.message_user(request, sentence, levels.WARNING if hold else levels.INFO)
    if not model_admin.has_view_permission(request):
        return HttpResponseRedirect(request.path)
    if form.mailing.is_sandbox:
        # Show the list, because the page of a campaign counts no rehearsals.
        return HttpResponseRedirect(_listed(model_admin, form.mailing))
    return HttpResponseRedirect(campaign_url(model_admin, campaign))


def _stored_before(request: HttpRequest) -> int:
    """Return how many messages the script says it stored before. Trust it with nothing: the number is only shown."""
    counted = request.POST.get("new", "")
    return int(counted) if counted.isdecimal() and len(counted) < 6 else 0


def _tell_what_is_stored(model_admin: MessageAdminBase, request: HttpRequest, form: MailingForm) -> None:
    stored = _stored_before(request)
    if not stored:
        return
    sentence = ngettext(
        "One message of this campaign is already stored, with its old text. To stop it, cancel it while it waits in "
        "the queue.",
        "%(count)s messages of this campaign are already stored, with their old text. To stop them, cancel those "
        "that still wait in the queue.",
        stored,
    ) % {"count": grouped(stored)}
    if model_admin.has_view_permission(request):
        url = _listed(model_admin, form.mailing, status__exact=Status.QUEUED.value)
        sentence = format_html('{} <a href="{}">{}</a>', sentence, url, _("Show what waits"))
    model_admin.message_user(request, sentence, levels.WARNING)


def _listed(model_admin: MessageAdminBase, mailing: mailings.Mailing, **more: str) -> str:
    filters = {"campaign": mailing.campaign, "sent_to_sandbox__exact": str(int(mailing.is_sandbox)), **more}
    return f"{url_of(model_admin, 'changelist')}?{urlencode(filters)}"
