"""The fields on a message's page: what a person writes, and below it what happened."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.utils import quote
from django.db import models
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..codes import NETWORKS
from ..models import OutboundViberMessage, Status
from ..tracebacks import log_failure
from ..transactions import write_alias
from . import display
from .base import MessageAdminBase
from .figures import campaign_url
from .forms import MessageForm
from .history import resends_of

_WRITTEN: tuple[str, ...] = ("kind", "phone", "content", "image_url", "button_label", "button_url")
_TERMS: tuple[str, ...] = ("brandname", "campaign", "send_at", "expires_at", "dedupe_key", "sandbox")
_LOOKED_AT = {"kind": "kind_field", "campaign": "campaign_field"}
"""What stands instead of a field where nothing can be changed."""

_HAPPENED = (
    "status_field",
    "reason_field",
    "remedy_field",
    "said_field",
    "price_field",
    "related_field",
    "next_attempt_at",
    "sent_at",
    "completed_at",
)
_DETAILS = ("created_at", "queued_at", "attempts", "sms_id", "request_id", "network_field")


class MessageFields(MessageAdminBase):
    form = MessageForm

    def get_fieldsets(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        left_out = self.get_exclude(request, obj)
        written, terms = _WRITTEN, tuple(name for name in _TERMS if name not in left_out)
        if obj is not None and not self.has_change_permission(request, obj):
            written, terms = (_filled(obj, tuple(_LOOKED_AT.get(n, n) for n in names)) for names in (written, terms))
        elif obj is not None and obj.status != Status.DRAFT:
            # To send again what failed or was cancelled forgets both times, so there is no use in writing them.
            terms = tuple(name for name in terms if name not in {"send_at", "expires_at"})
        fieldsets = [(None, {"fields": written}), (_("Sending"), {"fields": terms})]
        if obj is None:
            return fieldsets
        happened = (_("What happened"), {"fields": _filled(obj, _HAPPENED)})
        details = (_("Details"), {"fields": _filled(obj, _DETAILS), "classes": ("collapse",)})
        if obj.status == Status.DRAFT:
            return [*fieldsets, happened, details]
        return [happened, *fieldsets, details]

    def get_readonly_fields(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        shown = [name for name in self.readonly_fields if name not in _WRITTEN]
        return (*shown, *(_HAPPENED + _DETAILS if obj else ()))

    def get_exclude(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> Any:
        """A site may leave out or only show any of the terms, but not what the message is made of."""
        return [name for name in super().get_exclude(request, obj) or () if name not in _WRITTEN]

    @admin.display(description=_("kind"))
    def kind_field(self, message: OutboundViberMessage) -> str | None:
        return display.kind(message)

    @admin.display(description=_("status"))
    def status_field(self, message: OutboundViberMessage) -> SafeString:
        return display.status_badge(message)

    @admin.display(description=_("why"))
    def reason_field(self, message: OutboundViberMessage) -> str:
        return display.explain(message)[0]

    @admin.display(description=_("what to do"))
    def remedy_field(self, message: OutboundViberMessage) -> str:
        if message.status == Status.UNKNOWN and resends_of(message):
            return gettext("Nothing: it was sent again already, as its timeline tells.")
        if message.status in {Status.UNKNOWN, Status.SENT} and _is_looked_up(message):
            return gettext("Nothing: somebody has looked it up, as its timeline tells.")
        if _had_its_time(message):
            return gettext("To send it again, save and send it. It then goes out at once: its time is void.")
        return display.explain(message)[1]

    @admin.display(description=_("answer of eSMS"))
    def said_field(self, message: OutboundViberMessage) -> str:
        return display.said_by_esms(message)

    @admin.display(description=_("price"))
    def price_field(self, message: OutboundViberMessage) -> str | None:
        return display.price(message.total_price)

    @admin.display(description=_("network"))
    def network_field(self, message: OutboundViberMessage) -> str:
        return NETWORKS.get(message.telco_id or 0, str(message.telco_id))

    @admin.display(description=_("belongs to"))
    def related_field(self, message: OutboundViberMessage) -> str:
        related, title = _related_object(message)
        if related is None:
            return title
        try:
            name = f"admin:{related._meta.app_label}_{related._meta.model_name}_change"
            url = reverse(name, args=[quote(related.pk)], current_app=self.admin_site.name)
        except NoReverseMatch:
            return title
        return format_html('<a href="{}">{}</a>', url, title)

    @admin.display(description=_("campaign"))
    def campaign_field(self, message: OutboundViberMessage) -> SafeString:
        return format_html('<a href="{}">{}</a>', campaign_url(self, message.campaign), message.campaign)


def _filled(message: OutboundViberMessage, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if _has_something(message, name))


def _has_something(message: OutboundViberMessage, name: str) -> bool:
    """Is there anything to show? Asks the database nothing."""
    match name:
        case "status_field" | "kind_field":
            return True
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
        case "campaign_field":
            return bool(message.campaign)
        case _:
            return getattr(message, name) not in {None, "", 0}


def _is_looked_up(message: OutboundViberMessage) -> bool:
    return OutboundViberMessage.objects.using(write_alias()).filter(pk=message.id).looked_up().exists()


def _had_its_time(message: OutboundViberMessage) -> bool:
    """Was it cancelled while it waited for its time? To send it again forgets that one."""
    return message.status == Status.CANCELLED and message.send_at is not None


def _related_object(message: OutboundViberMessage) -> tuple[models.Model | None, str]:
    """The object and what it calls itself; None where it, or its model, is gone, or cannot be read."""
    title = f"{message.content_type or ''} {message.object_id}".strip()
    try:
        related = message.related_object
        return related, title if related is None else str(related)
    except Exception as error:  # noqa: BLE001 - the site's own code: the page must open all the same
        log_failure(error, "the object that message %s belongs to could not be read", message.id)
        return None, title
