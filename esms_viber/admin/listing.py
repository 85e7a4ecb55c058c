"""The list of messages: its columns, its filter by time to delivery, and links into it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext_lazy as _

from ..models import OutboundViberMessage
from ..statistics import COUNTED, took
from . import display

DELIVERY_TIMES = (
    _("at most 10 seconds"),
    _("10 seconds to a minute"),
    _("1 to 10 minutes"),
    _("10 minutes to an hour"),
    _("more than an hour"),
)
"""Names for the numbers of `statistics.took()`."""


@dataclass(frozen=True, slots=True)
class Listing:
    """The list of messages, narrowed by `filters`; without any it is narrowed to the messages that figures count."""

    url: str
    filters: dict[str, str] = field(default_factory=lambda: {"sent_to_sandbox__exact": "0", "rehearsal__exact": "0"})

    def __str__(self) -> str:
        return f"{self.url}?{urlencode(self.filters)}"

    def narrowed(self, **filters: str) -> Listing:
        return Listing(self.url, {**self.filters, **filters})

    def of_statuses(self, statuses: Iterable[str] = COUNTED) -> Listing:
        return self.narrowed(status__in=",".join(statuses))

    def of_status(self, status: str) -> Listing:
        return self.narrowed(status__exact=status)

    def created(self, since: dt.datetime | None, until: dt.datetime | None = None) -> Listing:
        bounds = {"created_at__gte": since, "created_at__lt": until}
        return self.narrowed(**{name: str(bound) for name, bound in bounds.items() if bound is not None})

    def of_campaign(self, name: str) -> Listing:
        return self.narrowed(campaign=name)

    def delivered_in(self, number: int) -> Listing:
        return self.narrowed(**{DeliveryTimeFilter.parameter_name: str(number)})


class DeliveryTimeFilter(admin.SimpleListFilter):
    """Delivered messages by the time that it took. The filter is shown only once a link from the figures has set it."""

    title = _("time to delivery")
    parameter_name = "delivered_in"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(str(number), capfirst(name)) for number, name in enumerate(DELIVERY_TIMES)]

    def has_output(self) -> bool:
        return self.value() is not None

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
    ) -> QuerySet[OutboundViberMessage] | None:
        known = {number for number, _name in self.lookup_choices}
        return queryset.filter(took(int(self.value() or 0))) if self.value() in known else None


class MessageColumns:
    """The columns of the list, and of the messages beside a site's own objects."""

    list_display: Any = (
        "phone_column",
        "status_column",
        "text_column",
        "price_column",
        "times_column",
        "kind_column",
        "brandname",
    )
    # Sorting by what has no index takes minutes at a million rows.
    sortable_by: Any = ("phone_column", "times_column")

    @admin.display(description=_("phone"), ordering="phone")
    def phone_column(self, message: OutboundViberMessage) -> str:
        return display.phone(message)

    @admin.display(description=_("status"))
    def status_column(self, message: OutboundViberMessage) -> SafeString:
        return display.badge_with_reason(message)

    @admin.display(description=_("text"))
    def text_column(self, message: OutboundViberMessage) -> str:
        return display.excerpt(message)

    @admin.display(description=_("kind"))
    def kind_column(self, message: OutboundViberMessage) -> str | None:
        return display.kind(message)

    @admin.display(description=_("price"))
    def price_column(self, message: OutboundViberMessage) -> str | None:
        return display.price(message.total_price)

    @admin.display(description=_("times"), ordering="pk")
    def times_column(self, message: OutboundViberMessage) -> SafeString:
        return display.times(message)
