"""The list of messages; what it inherits is the page of one."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib import messages as notices
from django.core.exceptions import PermissionDenied
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.functional import SimpleLazyObject
from django.utils.translation import gettext as _

from ..exceptions import MessageNotEditable
from ..models import OutboundViberMessage
from ..phones import phone_search_digits
from ..transactions import non_atomic_requests
from ..validation import normalize_text
from . import figures, mailing, queue
from .actions import ACTIONS
from .base import waiting_its_turn
from .columns import MessageColumns
from .export import export
from .filters import AttentionFilter, CampaignFilter
from .listing import DeliveryTimeFilter
from .page import MessagePage
from .routes import FOLDER, framed, route

_VIEWS_THAT_CALL_ESMS = ("_changelist", "_add", "_change")


@admin.register(OutboundViberMessage)
class OutboundViberMessageAdmin(MessageColumns, MessagePage):
    # Named, though Django would find it: mixins extend what is named here, and Django's own where nothing is.
    change_list_template = f"{FOLDER}/change_list.html"
    actions = list(ACTIONS.values())
    list_display = (
        "phone_column",
        "status_column",
        "text_column",
        "price_column",
        "times_column",
        "kind_column",
        "brandname",
    )
    list_filter = ("status", AttentionFilter, CampaignFilter, DeliveryTimeFilter, "sandbox", "created_at")
    search_fields = ("content", "sms_id__startswith", "request_id__startswith", "dedupe_key")
    # Counting, and sorting by what has no index, takes minutes at a million rows.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER
    sortable_by = ("phone_column", "times_column")

    def get_urls(self) -> list[URLPattern]:
        urls: list[Any] = [
            *figures.urls(self),
            *mailing.urls(self),
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
        found, may_have_duplicates = super().get_search_results(request, queryset, normalize_text(search_term))
        if digits := phone_search_digits(search_term):
            found |= queryset.filter(phone__contains=digits)
        return found, may_have_duplicates

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        actions = set(request.POST.getlist("action"))
        if ACTIONS.keys() & actions and not self.has_send_permission(request):
            raise PermissionDenied
        # Not looked at before the page is made: most posts lead to another one.
        context = {
            "viber_queue": SimpleLazyObject(queue.look),
            "viber_send_to_many": self.has_send_permission(request) and self.has_add_permission(request),
            **(extra_context or {}),
        }
        # Not where one of ours may be meant, as with a second bar of actions: no transaction is open around a call.
        if actions == {"delete_selected"}:
            response = self._delete_selected(request, context)
        else:
            response = super().changelist_view(request, context)
        is_list = "cl" in (getattr(response, "context_data", None) or {})  # and not what an action asks first
        return framed(response, "list_frame") if is_list else response

    def _delete_selected(self, request: HttpRequest, context: dict[str, Any]) -> HttpResponse:
        try:
            # In one transaction with what Django logs as deleted.
            with waiting_its_turn(request):
                return super().changelist_view(request, context)
        except MessageNotEditable:
            sentence = _("Nothing was deleted: something was handed over for sending in the meantime.")
            self.message_user(request, sentence, notices.ERROR)
            return HttpResponseRedirect(request.get_full_path())
