"""What a row tells of its message, in the list and beside the site's own objects."""

from __future__ import annotations

from django.contrib import admin
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy as _

from ..models import OutboundViberMessage
from . import display


class MessageColumns:
    @admin.display(description=_("phone"), ordering="phone")
    def phone_column(self, message: OutboundViberMessage) -> str:
        return display.phone(message)

    @admin.display(description=_("status"))
    def status_column(self, message: OutboundViberMessage) -> SafeString:
        return display.status_badge(message)

    @admin.display(description=_("text"))
    def text_column(self, message: OutboundViberMessage) -> str:
        return display.excerpt(message)

    @admin.display(description=_("kind"))
    def kind_column(self, message: OutboundViberMessage) -> str | None:
        return display.kind(message)

    @admin.display(description=_("price"))
    def price_column(self, message: OutboundViberMessage) -> str | None:
        return display.price(message.total_price)

    @admin.display(description=_("times"), ordering="created_at")
    def times_column(self, message: OutboundViberMessage) -> SafeString:
        return display.times(message)
