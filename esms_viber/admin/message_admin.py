"""The messages in Django's admin: the list, and the page of one."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from django.contrib import admin
from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.admin.options import IS_POPUP_VAR
from django.contrib.admin.utils import quote, unquote
from django.contrib.messages import constants as levels
from django.core.exceptions import PermissionDenied
from django.db import IntegrityError, models
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import NoReverseMatch, URLPattern, reverse
from django.utils.functional import SimpleLazyObject
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext, gettext_lazy, gettext_noop
from django.utils.translation import gettext as _

from .. import lifecycle
from ..codes import NETWORKS
from ..database import non_atomic_requests
from ..exceptions import MessageNotEditable, log_failure
from ..formatting import moment
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..models.choices import KIND_FIELDS, WAITING
from ..models.validators import normalize_text
from ..reports.polling import can_ask
from ..resend import needing_decision
from . import candidates, display, pauses, privacy, queue_status, search, statistics, template_admin
from .actions import ACTIONS
from .base import MessageAdminBase, in_one_transaction
from .confirmation import is_repeated, send_saved
from .consent import consent, warning
from .export import export
from .filling import FROM_TEMPLATE, example, typed_values, value_inputs
from .filters import AttentionFilter, CampaignFilter, DoneFilter, SandboxFilter
from .form_fields import Room, room
from .forms import REHEARSE, MessageForm, fingerprint
from .listing import DeliveryTimeFilter, MessageColumns
from .notices import FROM_PAGE, LAST_SHOWN, Notice, report, tell
from .pages import BoundedPaginator, MessageList, asked_for
from .preview import CHECK, bubble, checked, own_brand
from .rehearsal import WritingAdmin, may_rehearse, offer, only_to_sentence, rehearse
from .routes import FOLDER, campaign_url, framed, route
from .timeline import MOST_SHOWN, history, resends_of

_VIEWS_THAT_CALL_ESMS = ("_changelist", "_add", "_change")
SEND = "_send"
FORM_ID = "_form_id"

_CHECKBOX = '<input type="checkbox" name="{}" value="{}" class="action-select" aria-label="{}">'
_SELECT = "Select this object for an action - {}"  # a sentence of Django's, from its catalogue

_WRITTEN: tuple[str, ...] = ("kind", "phone", "content", "image_url", "button_label", "button_url")
_TERMS: tuple[str, ...] = ("purpose", "brandname", "campaign", "send_at", "expires_at", "dedupe_key", "sandbox")
_LOOKED_AT = {
    "kind": "kind_field",
    "phone": "phone_field",
    "campaign": "campaign_field",
    "send_at": "send_at_field",
    "expires_at": "expires_at_field",
}
"""The column that replaces a form field where the message can only be viewed."""

_HAPPENED = (
    "status_field",
    "reason_field",
    "remedy_field",
    "said_field",
    "price_field",
    "related_field",
    "next_attempt_at_field",
    "sent_at_field",
    "completed_at_field",
    "redacted_at_field",
)
_DETAILS = ("created_at_field", "queued_at_field", "attempts", "sms_id", "request_id", "network_field")


def _moment_field(name: str) -> Callable[..., str | None]:
    """Make the column that shows a moment as the lists do; Django would show it in another format."""

    @admin.display(description=OutboundViberMessage._meta.get_field(name).verbose_name)  # type: ignore[union-attr] # it is a column
    def field(_admin: Any, message: OutboundViberMessage) -> str | None:
        return moment(getattr(message, name))

    return field


@admin.register(OutboundViberMessage)
class OutboundViberMessageAdmin(MessageColumns, WritingAdmin, MessageAdminBase):
    # Named although Django would find them, because mixins extend the template named here, or else Django's own.
    change_list_template = f"{FOLDER}/change_list.html"
    change_form_template = f"{FOLDER}/change_form.html"
    form = MessageForm
    actions = list(ACTIONS.values())
    list_filter = (
        "status",
        AttentionFilter,
        CampaignFilter,
        DeliveryTimeFilter,
        DoneFilter,
        ("sent_to_sandbox", SandboxFilter),
        "created_at",
    )
    # Named for the search box; `search` finds in them what the text looks like.
    search_fields = ("phone", "content", "sms_id", "request_id", "dedupe_key")
    # The whole table would be counted beside every search.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    class Media:
        css = {"all": ["esms_viber/admin.css", "esms_viber/phone.css"]}
        js = ["esms_viber/writing.js"]

    # -- the list ------------------------------------------------------------------------------------------------------

    def get_urls(self) -> list[URLPattern]:
        # Imported with the URLs, because reading lists of people takes a sixth of the app's time to load.
        from . import mailing

        urls: list[Any] = [
            *statistics.urls(self),
            *mailing.urls(self),
            *privacy.urls(self),
            *pauses.urls(self),
            *candidates.urls(self),
            route(self, "export/", export, permission="view"),
            *super().get_urls(),
        ]
        for url in urls:
            if (url.name or "").endswith(_VIEWS_THAT_CALL_ESMS):
                url.callback = non_atomic_requests(url.callback)
        return urls

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage], search_term: str
    ) -> tuple[QuerySet[OutboundViberMessage], bool]:
        if self._searches_other_fields(request):
            return super().get_search_results(request, queryset, normalize_text(search_term))
        return search.find(queryset, search_term), False

    def _searches_other_fields(self, request: HttpRequest) -> bool:
        return self.get_search_fields(request) != OutboundViberMessageAdmin.search_fields

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[MessageList]:
        return MessageList

    def get_paginator(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        return BoundedPaginator(*args, page=asked_for(request), **kwargs)

    def action_checkbox(self, obj: OutboundViberMessage) -> SafeString:
        # As Django writes it, but Django renders two templates for each row, which take a tenth of the page's time.
        return format_html(_CHECKBOX, ACTION_CHECKBOX_NAME, str(obj.pk), format_html(gettext(_SELECT), str(obj)))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        actions = set(request.POST.getlist("action"))
        for name in ACTIONS.keys() & actions:
            for permission in ACTIONS[name].allowed_permissions:
                if not getattr(self, f"has_{permission}_permission")(request):
                    raise PermissionDenied
        # Look at the queue lazily, because most posts lead to another page and never show it.
        context = {
            "viber_queue": SimpleLazyObject(queue_status.look),
            "viber_send_to_many": self.has_send_permission(request) and self.has_add_permission(request),
            **(extra_context or {}),
        }
        if actions == {"delete_selected"}:
            # Delete in one transaction with Django's log of it, but only if neither of the two action bars names an
            # action of ours, because no transaction may enclose a call to eSMS.
            try:
                with in_one_transaction(request):
                    response = super().changelist_view(request, context)
            except MessageNotEditable:
                sentence = _("Nothing was deleted: something was handed over for sending in the meantime.")
                self.message_user(request, sentence, levels.ERROR)
                return HttpResponseRedirect(request.get_full_path())
        else:
            response = super().changelist_view(request, context)
        shown = getattr(response, "context_data", None) or {}
        if "cl" not in shown:  # because an action may ask on its own page
            return response
        display.note_holds(shown["cl"].result_list)
        newest = OutboundViberMessage.objects.for_writing().order_by("-pk").values_list("pk", flat=True)
        shown["last_shown_name"], shown["last_shown"] = LAST_SHOWN, newest.first() or 0
        if getattr(shown["cl"].result_count, "is_cut", False):
            shown["selection_note_all"] = _("All are selected, %(count)s") % {"count": shown["cl"].result_count}
        if shown["cl"].query and not self._searches_other_fields(request):
            shown["viber_searched"] = search.kind_of(shown["cl"].query)
        shown["viber_person"] = privacy.person(self, request, shown["cl"].query)
        return framed(response, "list_frame")

    # -- the page of one message ---------------------------------------------------------------------------------------

    def changeform_view(
        self,
        request: HttpRequest,
        object_id: str | None = None,
        form_url: str = "",
        extra_context: dict[str, Any] | None = None,
    ) -> Any:
        if SEND in request.POST and not self.has_send_permission(request):
            raise PermissionDenied
        if template_admin.FILL in request.POST:
            request.POST = template_admin.filled_in(self, request)  # type: ignore[assignment] # Django has a setter
        if CHECK in request.POST:
            form = self.written(request, object_id)
            return checked(form, [form.instance])
        if REHEARSE in request.POST:
            form = self.written(request, object_id)
            if not form.errors:
                rehearse(self, request, form.instance, terms=form.instance)
        try:
            response = self._changeform_in_turn(request, object_id, form_url, extra_context)
        except MessageNotEditable:
            return self._refuse_edit(request)
        except PermissionDenied:
            # Tell it in a sentence if the message was handed over since its page was shown: Django only refuses.
            if request.method == "POST" and object_id is not None and self.has_change_permission(request):
                message = self.get_object(request, unquote(object_id))
                if message is not None and not message.is_editable:
                    return self._refuse_edit(request)
            raise
        except IntegrityError:
            rolled_back = vars(request).pop("_esms_viber_message", None)
            if rolled_back and (first := _stored_by_first_post(request, rolled_back)):
                return self._answer_second_post(request, first)
            # Check the form again, because another request has just taken the dedupe key: now the form says so.
            response = self._changeform_in_turn(request, object_id, form_url, extra_context)
        # The form may also refuse a second post, because the first one has stored the dedupe key.
        adminform = (getattr(response, "context_data", None) or {}).get("adminform")
        form = adminform.form if adminform else None
        if form and "dedupe_key" in form.errors and (first := _stored_by_first_post(request, form.instance)):
            return self._answer_second_post(request, first)
        # Send only here, because the transaction has been committed: a rollback would not bring the message back.
        saved: OutboundViberMessage | None = getattr(request, "_esms_viber_message", None)
        if SEND in request.POST and saved:
            send_saved(self, request, saved)
        return response

    def _changeform_in_turn(self, request: HttpRequest, *args: Any) -> Any:
        with in_one_transaction(request):
            return super().changeform_view(request, *args)

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            with in_one_transaction(request):
                return super().delete_view(request, object_id, extra_context)
        except MessageNotEditable:
            sentence = _("It was not deleted: it was handed over for sending in the meantime.")
            self.message_user(request, sentence, levels.ERROR)
            return HttpResponseRedirect(self.page_url(int(unquote(object_id))))

    def get_object(self, *args: Any, **kwargs: Any) -> OutboundViberMessage | None:
        message = super().get_object(*args, **kwargs)
        display.note_holds([message] if message else [])
        return message

    # -- saving --------------------------------------------------------------------------------------------------------

    def save_model(self, request: HttpRequest, obj: OutboundViberMessage, form: Any, change: bool) -> None:
        request._esms_viber_message = obj  # type: ignore[attr-defined] # read by changeform_view()
        obj.keep_draft = True
        super().save_model(request, obj, form, change)
        if not change:
            # A fingerprint is unique, so the second post of a double click fails here and is rolled back.
            written = gettext_noop("Written in the admin.")
            lifecycle.note([obj], written, user=request.user, fingerprint=_fingerprint(request, obj))
        elif {*form.changed_data} - {"kind"}:  # because the kind is no column, and follows from the others
            lifecycle.note([obj], lifecycle.EDITED, user=request.user)

    def response_add(
        self, request: HttpRequest, obj: OutboundViberMessage, post_url_continue: str | None = None
    ) -> HttpResponse:
        if {IS_POPUP_VAR, "_continue", "_addanother"} & request.POST.keys():
            return super().response_add(request, obj, post_url_continue)
        if SEND not in request.POST:
            told = [Notice(levels.SUCCESS, _("It is saved as a draft, and nothing was sent."))]
            tell(self, request, [obj.id], told)
        return self.response_post_save_add(request, obj)

    def response_change(self, request: HttpRequest, obj: OutboundViberMessage) -> HttpResponse:
        if SEND in request.POST and IS_POPUP_VAR not in request.POST:
            return self.response_post_save_change(request, obj)
        return super().response_change(request, obj)

    # -- checking while it is written ----------------------------------------------------------------------------------

    def get_form(
        self, request: HttpRequest, obj: OutboundViberMessage | None = None, change: bool = False, **kwargs: Any
    ) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (template_admin.FilledIn, form), {}) if template_admin.FILL in request.POST else form

    # -- refusing ------------------------------------------------------------------------------------------------------

    def _refuse_edit(self, request: HttpRequest) -> HttpResponse:
        sentence = _("Nothing was changed: the message has been handed over for sending. Here is how it stands now.")
        self.message_user(request, sentence, levels.ERROR)
        return HttpResponseRedirect(request.get_full_path())

    def _answer_second_post(self, request: HttpRequest, first: OutboundViberMessage) -> HttpResponse:
        """Answer the second post of a double click with the message that the first post has stored."""
        told = [Notice(levels.INFO, _("The form arrived twice; the message was stored once."))]
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
        form = context["adminform"].form
        written: OutboundViberMessage = form.instance  # which holds what was typed, even if the form was refused
        if "content" in form.fields:
            form.fields["content"].widget.room = room([written])
        if obj is None and "phone" in form.fields and (told := warning(written)):
            form.fields["phone"].widget.room = Room(told, is_over=True)
        may_save = self.has_add_permission(request) if obj is None else self.has_change_permission(request, obj)
        # *Save and send* stands apart and names the form by its id, because a proxy or child has Django's submit row.
        form_apart = f"{self.opts.model_name}_form" if may_save and self.model is not OutboundViberMessage else ""
        own_form = f"{self.opts.model_name}_form"
        context |= {
            "viber_queue": queue_status.obstacles() if obj is None or obj.status in WAITING else None,
            "bubble": bubble(written, request),
            "own_brand": own_brand(),
            "show_save_and_add_another": False,
            "show_send": self.has_send_permission(request),
            "viber_form_apart": form_apart,
            "save_label": _("Save as draft") if obj is None or obj.status == Status.DRAFT else _("Save"),
            "form_id_name": FORM_ID,
            "form_id": uuid.uuid4().hex,
            "from_page_name": FROM_PAGE,
        }
        if may_save:
            context["viber_form"] = own_form
        if may_save and may_rehearse(self, request):
            context["viber_rehearsal"] = offer(request, form=own_form)
        if obj is None:
            choice = template_admin.choice(self, request)
            texts = [form[name].value() or "" for name in KIND_FIELDS]
            context |= {
                "show_save_and_continue": False,
                "viber_only_to": only_to_sentence(),
                **choice,
                "viber_values": value_inputs(texts, request.POST) if FROM_TEMPLATE in request.POST else None,
                "viber_values_remark": _("They are filled in where their names stand in braces."),
                "viber_from_template": FROM_TEMPLATE,
            }
            if template_admin.FILL in request.POST and choice["viber_template"] is not None:
                context["bubble"] = bubble(example(choice["viber_template"], typed_values(request.POST)), request)
        else:
            context["viber_buttons"] = self._buttons(request, obj)
            context["viber_person"] = privacy.person(self, request, obj.phone)
            context["viber_consent"] = consent(obj, self.admin_site, request)
            context["viber_history"] = history(self, obj)
            context["viber_history_most"] = MOST_SHOWN
        response = super().render_change_form(request, context, add, change, form_url, obj)
        return framed(response, "message_frame")

    def _buttons(self, request: HttpRequest, message: OutboundViberMessage) -> list[dict[str, str]]:
        """Return the buttons for what may be done with the message now, apart from editing it."""
        buttons = self._buttons_for_sending(message, request) if self.has_send_permission(request) else []
        if message.redacted_at is None and self.has_redact_permission(request):
            buttons.append(("redact_selected", _("Redact…")))
        return [{"action": action, "label": label} for action, label in buttons]

    def _buttons_for_sending(self, message: OutboundViberMessage, request: HttpRequest) -> list[tuple[str, str]]:
        buttons = []
        status, is_redacted = message.status, message.redacted_at is not None
        # Offer *Save and send* alone where the message can be changed, because that sends what has been typed.
        is_sent_by_form = self.has_change_permission(request, message)
        is_on_its_way = status in {Status.QUEUED, Status.SENDING} or is_repeated(message)
        if not (is_on_its_way or is_sent_by_form or is_redacted):
            buttons.append(("send_selected", _("Send…") if message.is_editable else _("Send again…")))
        if is_repeated(message):
            buttons.append(("cancel_selected", _("Stop repeating")))
        elif status in {Status.DRAFT, Status.QUEUED}:
            buttons.append(("cancel_selected", _("Cancel this message")))
        if can_ask(message):
            buttons.append(("refresh_selected", _("Ask eSMS for the status")))
        if status in {Status.UNKNOWN, Status.SENT} and needing_decision([message.id]):
            buttons.append(("settle_selected", _("Looked up: need not be sent again")))
        return buttons

    # -- its fields ----------------------------------------------------------------------------------------------------

    send_at_field, expires_at_field = _moment_field("send_at"), _moment_field("expires_at")
    created_at_field, queued_at_field = _moment_field("created_at"), _moment_field("queued_at")
    sent_at_field, completed_at_field = _moment_field("sent_at"), _moment_field("completed_at")
    next_attempt_at_field, redacted_at_field = _moment_field("next_attempt_at"), _moment_field("redacted_at")

    def get_fieldsets(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        left_out = self.get_exclude(request, obj)
        written, terms = _WRITTEN, tuple(name for name in _TERMS if name not in left_out)
        if obj is not None and not self.has_change_permission(request, obj):
            written, terms = (_filled(obj, tuple(_LOOKED_AT.get(n, n) for n in names)) for names in (written, terms))
        elif obj is not None and obj.status != Status.DRAFT:
            # Leave out both times, because sending a failed or cancelled message again clears them.
            terms = tuple(name for name in terms if name not in {"send_at", "expires_at"})
        fieldsets = [(None, {"fields": written}), (gettext_lazy("Sending"), {"fields": terms})]
        if obj is None:
            return fieldsets
        happened = (gettext_lazy("What happened"), {"fields": _filled(obj, _HAPPENED)})
        details = (gettext_lazy("Details"), {"fields": _filled(obj, _DETAILS), "classes": ("collapse",)})
        if obj.status == Status.DRAFT:
            return [*fieldsets, happened, details]
        return [happened, *fieldsets, details]

    def get_readonly_fields(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        shown = [name for name in self.readonly_fields if name not in _WRITTEN]
        return (*shown, *(_HAPPENED + _DETAILS if obj else ()))

    def get_exclude(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        """Let a site exclude any of the terms, but none of the parts that the message is made of."""
        return [name for name in super().get_exclude(request, obj) or () if name not in _WRITTEN]

    @admin.display(description=gettext_lazy("kind"))
    def kind_field(self, message: OutboundViberMessage) -> str | None:
        return display.kind(message)

    @admin.display(description=gettext_lazy("phone"))
    def phone_field(self, message: OutboundViberMessage) -> str:
        return display.phone(message)

    @admin.display(description=gettext_lazy("status"))
    def status_field(self, message: OutboundViberMessage) -> SafeString:
        return display.status_badge(message)

    @admin.display(description=gettext_lazy("why"))
    def reason_field(self, message: OutboundViberMessage) -> str:
        return display.explain(message)[0]

    @admin.display(description=gettext_lazy("what to do"))
    def remedy_field(self, message: OutboundViberMessage) -> str:
        if message.status == Status.UNKNOWN and resends_of(message):
            return gettext("Nothing: it was sent again already, as its timeline tells.")
        itself = OutboundViberMessage.objects.for_writing().filter(pk=message.id)
        if message.status in {Status.UNKNOWN, Status.SENT} and itself.looked_up().exists():
            return gettext("Nothing: somebody has looked it up, as its timeline tells.")
        if _had_its_time(message):
            return gettext(
                "To send it again, save and send it. It goes out at once, because its old time does not count any more."
            )
        return display.explain(message)[1]

    @admin.display(description=gettext_lazy("answer of eSMS"))
    def said_field(self, message: OutboundViberMessage) -> str:
        return display.said_by_esms(message)

    @admin.display(description=gettext_lazy("price"))
    def price_field(self, message: OutboundViberMessage) -> str | None:
        return display.price(message.total_price)

    @admin.display(description=gettext_lazy("network"))
    def network_field(self, message: OutboundViberMessage) -> str:
        return NETWORKS.get(message.telco_id or 0, str(message.telco_id))

    @admin.display(description=gettext_lazy("belongs to"))
    def related_field(self, message: OutboundViberMessage) -> str:
        title = f"{message.content_type or ''} {message.object_id}".strip()
        try:
            related: models.Model | None = message.related_object
            if related is None:  # because it, or its model, is gone
                return title
            title = str(related)
        except Exception as error:  # noqa: BLE001 - the site's own code: the page must open all the same
            log_failure(error, "the object that message %s belongs to could not be read", message.id)
            return title
        try:
            name = f"admin:{related._meta.app_label}_{related._meta.model_name}_change"
            url = reverse(name, args=[quote(related.pk)], current_app=self.admin_site.name)
        except NoReverseMatch:
            return title
        return format_html('<a href="{}">{}</a>', url, title)

    @admin.display(description=gettext_lazy("campaign"))
    def campaign_field(self, message: OutboundViberMessage) -> SafeString:
        return format_html('<a href="{}">{}</a>', campaign_url(self, message.campaign), message.campaign)


def _fingerprint(request: HttpRequest, message: OutboundViberMessage) -> str | None:
    form_id = request.POST.get(FORM_ID)
    return fingerprint(form_id, message) if form_id else None


def _stored_by_first_post(request: HttpRequest, message: OutboundViberMessage) -> OutboundViberMessage | None:
    """Find what an earlier post of the same form with the same content has stored: a double click posts it twice."""
    mark = _fingerprint(request, message)
    if mark is None:
        return None
    event = ViberMessageEvent.objects.for_writing().filter(fingerprint=mark).select_related("message").first()
    return event.message if event else None


def _filled(message: OutboundViberMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _has_something(message, name))


def _has_something(message: OutboundViberMessage, name: str) -> bool:
    """Tell whether a field has anything to show, without a query."""
    match name:
        case "status_field":
            return True
        case "kind_field":
            return message.kind is not None or message.redacted_at is None
        case "reason_field":
            return bool(display.explain(message)[0])
        case "remedy_field":
            return bool(display.explain(message)[1]) or _had_its_time(message)
        case "said_field":
            return bool(display.said_by_esms(message))
        case "price_field":
            return message.total_price is not None
        case "related_field":
            return message.content_type_id is not None
        case "network_field":
            return message.telco_id is not None
        case _:
            return getattr(message, name.removesuffix("_field")) not in {None, "", 0}


def _had_its_time(message: OutboundViberMessage) -> bool:
    """Tell whether it was cancelled while it waited for its time, which is cleared if it is sent again."""
    return message.status == Status.CANCELLED and message.send_at is not None
