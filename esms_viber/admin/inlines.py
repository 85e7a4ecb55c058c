"""The messages of one of the site's own objects, on that object's page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.contenttypes.admin import GenericTabularInline
from django.contrib.contenttypes.forms import BaseGenericInlineFormSet
from django.contrib.contenttypes.models import ContentType
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.translation import gettext_lazy as _

from ..models import OutboundViberMessage
from . import display
from .listing import MessageColumns

if TYPE_CHECKING:
    FormSet = BaseGenericInlineFormSet[OutboundViberMessage, Any]
else:
    FormSet = BaseGenericInlineFormSet


class ShownMessages(FormSet):
    """The latest messages, for viewing only: anything that is posted with the page is ignored."""

    most_shown = 50

    def __init__(self, data: Any = None, files: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)

    def get_queryset(self) -> QuerySet[OutboundViberMessage]:
        if not hasattr(self, "_latest"):
            self._latest = super().get_queryset()[: self.most_shown]
            display.note_holds(self._latest)
        return self._latest

    def is_valid(self) -> bool:
        return True

    def save(self, commit: bool = True) -> list[OutboundViberMessage]:
        self.new_objects, self.changed_objects, self.deleted_objects = [], [], []
        return []

    @property
    def is_full(self) -> bool:
        return self.initial_form_count() == self.most_shown

    @property
    def in_list(self) -> str:
        """The query string by which the list of messages shows all of them."""
        kind = ContentType.objects.get_for_model(self.instance)
        return urlencode({"content_type": kind.pk, "object_id": self.instance.pk})


class ViberMessageInline(MessageColumns, GenericTabularInline):
    """The messages of an object, newest first, for viewing only: for the `inlines` of a site's own ModelAdmin."""

    model = OutboundViberMessage
    formset = ShownMessages  # type: ignore[assignment] # the stubs know the formsets of foreign keys only
    template = "admin/esms_viber/outboundvibermessage/inline.html"
    fields = readonly_fields = ("phone_column", "status_column", "text_column", "price_column", "times_column")
    ordering = ("-pk",)
    extra = 0

    class Media:
        css = {"all": ["esms_viber/admin.css"]}

    @admin.display(description=_("phone"))
    def phone_column(self, message: OutboundViberMessage) -> str:
        """Link the phone to the message, if this admin site has messages."""
        phone = super().phone_column(message)
        if not self.has_registered_model:
            return phone
        name = "admin:esms_viber_outboundvibermessage_change"
        url = reverse(name, args=[message.id], current_app=self.admin_site.name)
        return format_html('<a href="{}">{}</a>', url, phone)

    @admin.display(description=_("price"))
    def price_column(self, message: OutboundViberMessage) -> str:
        return super().price_column(message) or self.get_empty_value_display()

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return False
