"""Redacting messages, and everything of one phone: exported as a file, or erased."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.messages import constants as levels
from django.core.exceptions import PermissionDenied
from django.http import (
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseRedirect,
    JsonResponse,
)
from django.urls import URLPattern
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import privacy, services
from ..formatting import grouped, tell_count
from ..models import OutboundViberMessage, Status
from ..phones import InvalidPhone, normalize_phone, spaced_phone
from .base import MOST_AT_ONCE, MessageAdminBase
from .confirmation import CONFIRMED, Mark, is_repeated
from .notices import FROM_PAGE, Notice, all_rows, back_url, left_out, tell, user_of
from .routes import press_again, render, route, url_of

PHONE = "phone"
"""The field in which a phone is posted: it must stand in no address, because web servers log these."""


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [
        # Whoever may only look at messages should not take away a file of all that is known of a person.
        route(model_admin, "export-person/", export_person, permission="redact"),
        route(model_admin, "erase-person/", erase_person, permission="redact"),
    ]


# -- selected messages -------------------------------------------------------------------------------------------------


def ask_before_redacting(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> HttpResponse:
    counts = Counter[str]()
    redactable = list[int]()
    for message in all_rows(pks):
        if message.redacted_at is not None:
            counts["redacted"] += 1
            continue
        redactable.append(message.id)
        counts[message.status] += 1
        counts["repeated"] += is_repeated(message)
    across = request.POST.get("select_across") == "1"
    fields: list[tuple[str, Any]] = [("action", "redact_selected"), (CONFIRMED, Mark.now())]
    # The filters in the address select them again, because thousands of ids exceed the limit of form fields.
    fields += [(ACTION_CHECKBOX_NAME, str(pk)) for pk in (pks[:1] if across else redactable)]
    fields += [("select_across", "1")] if across else []
    fields += [(FROM_PAGE, "1")] if FROM_PAGE in request.POST else []
    count = len(redactable)
    yes = ngettext("Yes, redact one message", "Yes, redact %(count)s messages", count) % {"count": grouped(count)}
    return render(
        model_admin,
        request,
        "redact_confirmation",
        title=_("Redact Viber messages?"),
        count=count,
        effects=list(_effects(counts)),
        fields=fields,
        yes=yes,
        back=back_url(model_admin, request, pks),
    )


def _effects(counts: Counter[str]) -> Iterator[str]:
    """Tell what else becomes of the messages."""
    if waiting := counts[Status.DRAFT] + counts[Status.QUEUED]:
        sentence = ngettext(
            "One of them was not sent yet, and is cancelled.",
            "%(count)s of them were not sent yet, and are cancelled.",
            waiting,
        )
        yield sentence % {"count": grouped(waiting)}
    if sending := counts[Status.SENDING]:
        sentence = ngettext(
            "One of them is being sent: the call may not be stopped any more.",
            "%(count)s of them are being sent: the calls may not be stopped any more.",
            sending,
        )
        yield sentence % {"count": grouped(sending)}
    if repeated := counts["repeated"]:
        sentence = ngettext(
            "One of them may have been sent, and is not repeated any more.",
            "%(count)s of them may have been sent, and are not repeated any more.",
            repeated,
        )
        yield sentence % {"count": grouped(repeated)}
    if redacted := counts["redacted"]:
        sentence = ngettext("One more was redacted before.", "%(count)s more were redacted before.", redacted)
        yield sentence % {"count": grouped(redacted)}


def redact(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> None:
    done = privacy.redact(pks, user=user_of(request))
    told = [Notice(level, text, done) for level, text in _told(len(done))] if done else []
    if skipped := sorted({*pks} - {*done}):
        told += left_out({_("It was redacted before."): skipped})
    tell(model_admin, request, pks, told)


def _told(done: int) -> Iterator[tuple[int, str]]:
    sentence = ngettext("The message was redacted.", "%(count)s messages were redacted.", done)
    yield levels.SUCCESS, sentence % {"count": grouped(done)}


def refuse_so_many(model_admin: MessageAdminBase, request: HttpRequest) -> None:
    sentence = _(
        "Nothing was done: at most %(most)s messages can be redacted here at once, and you selected more. For a whole "
        "campaign ask the people who run this site for: "
    )
    command = "manage.py prune_viber_messages --redact-after 0 --campaign …"
    model_admin.message_user(request, f"{sentence % {'most': grouped(MOST_AT_ONCE)}}{command}", levels.ERROR)


# -- one person --------------------------------------------------------------------------------------------------------


def person(model_admin: MessageAdminBase, request: HttpRequest, text: str) -> str:
    """Return the phone, whole and in any spelling, with which this person of the staff may do what stands here."""
    return _read(text) if text and model_admin.has_redact_permission(request) else ""


def _read(text: str) -> str:
    try:
        return normalize_phone(text)
    except InvalidPhone:
        return ""


def _posted(model_admin: MessageAdminBase, request: HttpRequest) -> str:
    """Return the phone that was posted by somebody who may view messages as well; empty if it cannot be read."""
    if not model_admin.has_view_permission(request):
        raise PermissionDenied
    return _read(request.POST.get(PHONE, ""))


def export_person(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    """Send all that is stored of a phone as a JSON file."""
    if request.method != "POST":
        return press_again(model_admin, request)
    if not (phone := _posted(model_admin, request)):
        return _refuse(model_admin, request)
    response = JsonResponse(services.export_messages_of(phone), json_dumps_params={"ensure_ascii": False, "indent": 2})
    today = timezone.localdate() if timezone.is_aware(timezone.now()) else timezone.now().date()
    response["Content-Disposition"] = f'attachment; filename="viber-person-{today.isoformat()}.json"'
    return response


def erase_person(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    """Ask for a confirmation first; erase once it is given."""
    if request.method != "POST":
        return press_again(model_admin, request)
    if not (phone := _posted(model_admin, request)):
        return _refuse(model_admin, request)
    to_list = url_of(model_admin, "changelist")
    if CONFIRMED in request.POST:
        done = services.erase_messages_of(phone, user=user_of(request))
        nothing = [(levels.INFO, _("Nothing was stored of this phone."))]
        for level, text in list(_told(done)) if done else nothing:
            model_admin.message_user(request, text, level)
        return HttpResponseRedirect(to_list)
    rows = OutboundViberMessage.objects.for_writing().filter(phone=phone)
    count = rows.bounded_count()
    sentence = ngettext("One message is stored of this phone.", "%(count)s messages are stored of this phone.", count)
    return render(
        model_admin,
        request,
        "redact_confirmation",
        title=_("Erase everything of %(phone)s?") % {"phone": spaced_phone(phone)},
        count=count,
        effects=[sentence % {"count": tell_count(count)}, _("What was not sent yet is cancelled.")] if count else [],
        person=phone,
        fields=[(PHONE, phone), (CONFIRMED, "1")],
        yes=_("Yes, erase everything"),
        back=to_list,
    )


def _refuse(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponse:
    model_admin.message_user(request, _("This phone cannot be read, so nothing was done."), levels.ERROR)
    return HttpResponseRedirect(url_of(model_admin, "changelist"))
