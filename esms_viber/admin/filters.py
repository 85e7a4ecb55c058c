"""Filters of the list that stay cheap however many rows there are."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext_lazy as _

from ..models import OutboundViberMessage, ViberMessageEvent

_LOOKED_AT = 1000
_OFFERED = 10


class CampaignFilter(admin.SimpleListFilter):
    """The campaigns of the latest messages to choose from, and a field for the name of any other.

    Listing every campaign would read the whole table each time that the list is shown.
    """

    title = _("campaign")
    parameter_name = "campaign"
    template = "admin/esms_viber/outboundvibermessage/campaign_filter.html"

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        super().__init__(request, *args, **kwargs)
        self.other_parameters = [
            (name, value)
            for name, values in request.GET.lists()
            if name not in {self.parameter_name, "p"}
            for value in values
        ]

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        latest = OutboundViberMessage.objects.order_by("-pk").values_list("campaign", flat=True)[:_LOOKED_AT]
        names = [name for name in dict.fromkeys(latest) if name][:_OFFERED]
        return [(name, name) for name in names]

    def has_output(self) -> bool:
        return True

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
    ) -> QuerySet[OutboundViberMessage]:
        # A range of one name, because PostgreSQL would leave an equal column out of the order of `MessageList`.
        name = self.value()
        return queryset.filter(campaign__gte=name, campaign__lte=name) if name else queryset

    def choices(self, changelist: ChangeList) -> Iterator[Any]:
        yield {
            "selected": not self.value(),
            "query_string": changelist.get_query_string(remove=[self.parameter_name]),
            "display": _("All"),
        }
        for name, title in self.lookup_choices:
            yield {
                "selected": self.value() == name,
                "query_string": changelist.get_query_string({self.parameter_name: name}),
                "display": title,
            }


class SandboxFilter(admin.BooleanFieldListFilter):
    """Django's filter, but what is not sandbox is found by excluding what is.

    That is nearly everything, and SQLite would take an index of it for the best one.
    """

    def queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> QuerySet[Any] | None:
        if self.lookup_val in ("0", "False", False):
            return queryset.exclude(sent_to_sandbox=True)
        return super().queryset(request, queryset)


_DONE = re.compile("([0-9]{1,18})-([0-9]{1,18})")
_MOST_EVENTS = 250_000
"""Lines of the history in which `DoneFilter` looks. An action writes one for each of thousands of messages."""


class DoneFilter(admin.SimpleListFilter):
    """Messages of which the history has a line by this user between two others: what an action did something to.

    The filter is shown only once the sentence about an action has set it.
    """

    title = _("what was done")
    parameter_name = "done"

    def __init__(self, request: HttpRequest, *args: Any, **kwargs: Any) -> None:
        self._user = request.user.pk
        super().__init__(request, *args, **kwargs)

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [(self.value() or "", _("by your last action"))]

    def has_output(self) -> bool:
        return self.value() is not None

    def queryset(
        self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]
    ) -> QuerySet[OutboundViberMessage] | None:
        match = _DONE.fullmatch(self.value() or "")
        if match is None:
            return None
        since, until = int(match[1]), int(match[2])
        until = min(until, since + _MOST_EVENTS)
        lines = ViberMessageEvent.objects.filter(pk__gt=since, pk__lte=until, user=self._user)
        return queryset.filter(pk__in=lines.order_by().values("message"))


class AttentionFilter(admin.SimpleListFilter):
    """Messages that wait until a person finds out, or decides, what becomes of them."""

    title = _("what needs a person")
    parameter_name = "attention"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, Any]]:
        return [("undecided", _("sent or not?")), ("unconfirmed", _("taken, without SMSID or report"))]

    def queryset(self, request: HttpRequest, queryset: Any) -> Any:
        match self.value():
            case "undecided":
                return queryset.undecided()
            case "unconfirmed":
                return queryset.unconfirmed()
            case _:
                return None
