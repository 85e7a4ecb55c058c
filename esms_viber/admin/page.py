"""The page of one message: how it is saved, sent and answered."""

from __future__ import annotations

import uuid
from typing import Any

from django.contrib import messages as notices
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import unquote
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..exceptions import MessageNotEditable
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..polling import can_ask
from ..resending import needing_decision
from ..states import WAITING
from ..transactions import write_alias
from . import queue
from .answers import FROM_PAGE, report, tell
from .base import waiting_its_turn
from .fields import MessageFields
from .forms import fingerprint
from .history import MOST_SHOWN, history
from .preview import bubble, checked, own_brand
from .review import is_repeated
from .room import room
from .routes import FOLDER, framed
from .sending import send_saved

SEND = "_send"
CHECK = "_check"
FORM_ID = "_form_id"


class MessagePage(MessageFields):
    change_form_template = f"{FOLDER}/change_form.html"

    class Media:
        css = {"all": ["esms_viber/admin.css", "esms_viber/phone.css"]}
        js = ["esms_viber/writing.js"]

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if SEND in request.POST and not self.has_send_permission(request):
            raise PermissionDenied
        if CHECK in request.POST:
            return self._check(request, object_id)
        try:
            response = self._changeform_in_turn(request, object_id, form_url, extra_context)
        except MessageNotEditable:
            return self._refuse_edit(request)
        except PermissionDenied:
            if request.method == "POST" and self._is_handed_over(request, object_id):
                return self._refuse_edit(request)
            raise
        except IntegrityError:
            if first := _posted_before(request):
                return self._answer_second_post(request, first)
            # Another request took the dedupe key in between: now the form finds it, and says so.
            response = self._changeform_in_turn(request, object_id, form_url, extra_context)
        if first := _stored_by_a_post_before(request, response):
            return self._answer_second_post(request, first)
        # Not before its transaction has ended: nothing is sent, nor known of it, until the commit.
        if SEND in request.POST and (saved := _saved(request)):
            send_saved(self, request, saved)
        return response

    def _changeform_in_turn(self, request: HttpRequest, *args: Any) -> Any:
        with waiting_its_turn(request):
            return super().changeform_view(request, *args)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            with waiting_its_turn(request):
                return super().delete_view(request, object_id, extra_context)
        except MessageNotEditable:
            sentence = _("It was not deleted: it was handed over for sending in the meantime.")
            self.message_user(request, sentence, notices.ERROR)
            return HttpResponseRedirect(self.page_url(int(unquote(object_id))))

    # -- saving --------------------------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: OutboundViberMessage, form: Any, change: bool) -> None:
        obj.keep_draft = True
        super().save_model(request, obj, form, change)
        if not change:
            written = gettext_noop("Written in the admin.")
            lifecycle.note(obj, written, user=request.user, fingerprint=_fingerprint(request, obj))
        elif {*form.changed_data} - {"kind"}:  # which is no column, and follows from the others
            lifecycle.note(obj, gettext_noop("Changed in the admin."), user=request.user)
        request._esms_viber_saved = obj  # type: ignore[attr-defined] # ours, for this request

    def response_add(
        self, request: HttpRequest, obj: OutboundViberMessage, post_url_continue: str | None = None
    ) -> HttpResponse:
        if {IS_POPUP_VAR, "_continue", "_addanother"} & request.POST.keys():
            return super().response_add(request, obj, post_url_continue)
        if SEND not in request.POST:
            self._say_that_it_is_a_draft(request, obj)
        return self.response_post_save_add(request, obj)

    def response_change(self, request: HttpRequest, obj: OutboundViberMessage) -> HttpResponse:
        if SEND in request.POST and IS_POPUP_VAR not in request.POST:
            return self.response_post_save_change(request, obj)
        return super().response_change(request, obj)

    def _say_that_it_is_a_draft(self, request: HttpRequest, message: OutboundViberMessage) -> None:
        told = [(notices.SUCCESS, _("It is saved as a draft, and nothing was sent."))]
        tell(self, request, [message.id], told)

    # -- checking while it is written ----------------------------------------------------------------------------------

    def _check(self, request: HttpRequest, object_id: str | None) -> HttpResponse:
        """What saving the form would say, without saving it."""
        message = None if object_id is None else self.get_object(request, unquote(object_id))
        if message is None and (object_id is not None or not self.has_add_permission(request)):
            raise PermissionDenied
        if message is not None and not self.has_change_permission(request, message):
            raise PermissionDenied
        form = self.get_form(request, message, change=message is not None)(request.POST, instance=message)
        form.full_clean()
        return checked(form, [form.instance])

    # -- refusing ------------------------------------------------------------------------------------------------------

    def _is_handed_over(self, request: HttpRequest, object_id: str | None) -> bool:
        if object_id is None or not self.has_change_permission(request):
            return False
        message = self.get_object(request, unquote(object_id))
        return message is not None and not message.is_editable

    def _refuse_edit(self, request: HttpRequest) -> HttpResponse:
        sentence = _("Nothing was changed: the message has been handed over for sending. Here is how it stands now.")
        self.message_user(request, sentence, notices.ERROR)
        return HttpResponseRedirect(request.get_full_path())

    def _answer_second_post(self, request: HttpRequest, first: OutboundViberMessage) -> HttpResponse:
        told = [(notices.INFO, _("The form arrived twice; the message was stored once."))]
        report(self, request, [first.id], told)
        return self.response_post_save_add(request, first)

    # -- showing -------------------------------------------------------------------------------------------------------

    def render_change_form(
        self,
        request: HttpRequest,
        context: dict[str, Any],
        add: bool = False,
        change: bool = False,
        form_url: str = "",
        obj: OutboundViberMessage | None = None,
    ) -> Any:
        written = _as_typed(context)
        if "content" in (fields := context["adminform"].form.fields):
            fields["content"].widget.room = room([written])
        context |= {
            "viber_queue": queue.obstacles() if obj is None or obj.status in WAITING else None,
            "bubble": bubble(written, request),
            "own_brand": own_brand(),
            "show_save_and_add_another": False,
            "show_send": self.has_send_permission(request),
            "viber_form_apart": self._form_apart(request, obj),
            "save_label": _("Save as draft") if obj is None or obj.status == Status.DRAFT else _("Save"),
            "form_id_name": FORM_ID,
            "form_id": uuid.uuid4().hex,
            "from_page_name": FROM_PAGE,
        }
        if obj is None:
            context["show_save_and_continue"] = False
        else:
            context["viber_buttons"] = self._buttons(request, obj)
            context["viber_history"] = history(self, obj)
            context["viber_history_most"] = MOST_SHOWN
        response = super().render_change_form(request, context, add, change, form_url, obj)
        return framed(response, "message_frame")

    def _form_apart(self, request: HttpRequest, message: OutboundViberMessage | None) -> str:
        """The form's id in the page, where the site has registered a proxy or child and a draft of it can be saved."""
        may_save = self.has_add_permission(request) if message is None else self.has_change_permission(request, message)
        return f"{self.opts.model_name}_form" if may_save and self.model is not OutboundViberMessage else ""

    def _buttons(self, request: HttpRequest, message: OutboundViberMessage) -> list[dict[str, str]]:
        """What may be done with the message as it is now, beside editing it."""
        if not self.has_send_permission(request):
            return []
        buttons = [
            ("send_selected", self._send_label(request, message)),
            ("cancel_selected", _cancel_label(message)),
            ("refresh_selected", _("Ask eSMS for the status") if can_ask(message) else ""),
            ("settle_selected", _("Looked up: need not be sent again") if _needs_decision(message) else ""),
        ]
        return [{"action": action, "label": label} for action, label in buttons if label]

    def _send_label(self, request: HttpRequest, message: OutboundViberMessage) -> str:
        """Empty where it cannot be sent, or where *Save and send* does it, with what has been typed."""
        if message.status in {Status.QUEUED, Status.SENDING} or is_repeated(message):
            return ""
        if self.has_change_permission(request, message):
            return ""
        return _("Send…") if message.is_editable else _("Send again…")


def _as_typed(context: dict[str, Any]) -> OutboundViberMessage:
    """The message as the form has it, also where it was refused."""
    message: OutboundViberMessage = context["adminform"].form.instance
    return message


def _cancel_label(message: OutboundViberMessage) -> str:
    if message.status == Status.UNKNOWN and message.next_attempt_at:
        return _("Stop repeating")
    return _("Cancel this message") if message.status in {Status.DRAFT, Status.QUEUED} else ""


def _needs_decision(message: OutboundViberMessage) -> bool:
    return message.status in {Status.UNKNOWN, Status.SENT} and bool(needing_decision([message.id]))


def _saved(request: HttpRequest) -> OutboundViberMessage | None:
    return getattr(request, "_esms_viber_saved", None)


def _fingerprint(request: HttpRequest, message: OutboundViberMessage) -> str | None:
    form_id = request.POST.get(FORM_ID)
    request._esms_viber_fingerprint = fingerprint(form_id, message) if form_id else None  # type: ignore[attr-defined] # ours
    return getattr(request, "_esms_viber_fingerprint", None)


def _posted_before(request: HttpRequest) -> OutboundViberMessage | None:
    """The message that came first with the form and the content of this request."""
    mark = getattr(request, "_esms_viber_fingerprint", None)
    return _message_with(mark) if mark else None


def _stored_by_a_post_before(request: HttpRequest, response: HttpResponse) -> OutboundViberMessage | None:
    """As `_posted_before()`, where the form was refused because the message that came first has its dedupe key."""
    adminform = (getattr(response, "context_data", None) or {}).get("adminform")
    form_id = request.POST.get(FORM_ID)
    if not form_id or adminform is None or "dedupe_key" not in adminform.form.errors:
        return None
    return _message_with(fingerprint(form_id, adminform.form.instance))


def _message_with(mark: str) -> OutboundViberMessage | None:
    events = ViberMessageEvent.objects.using(write_alias()).filter(fingerprint=mark)
    event = events.select_related("message").first()
    return event.message if event else None
