"""The pages of the list, at a cost that grows with the number of the page, and not with the table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, Self

from django.conf import settings
from django.contrib.admin.views.main import ORDER_VAR, PAGE_VAR, SEARCH_VAR, ChangeList
from django.core.paginator import Page, Paginator
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.translation import gettext as _

from ..formatting import MOST_COUNTED, grouped, tell_count
from ..models import OutboundViberMessage

_PAGES_AHEAD = 5

_LAST_PAGE = 10**9
"""Databases take no number of any length for an OFFSET."""


def asked_for(request: HttpRequest) -> int:
    """Return the page that the list is asked for, as Django's own reads it."""
    try:
        page = int(request.GET.get(PAGE_VAR, 1))
    except ValueError:
        return 1
    return min(max(page, 1), _LAST_PAGE)


class Total(int):
    """A number of messages, or the number beyond which nobody has counted, in words that Django's templates show."""

    is_cut: bool

    def __new__(cls, number: int, *, is_cut: bool = False) -> Self:
        total = super().__new__(cls, number)
        total.is_cut = is_cut
        return total

    def __str__(self) -> str:
        if self.is_cut:
            return tell_count(int(self), most=int(self) - 1)
        return grouped(int(self)) if settings.USE_THOUSAND_SEPARATOR else int.__repr__(self)


class BoundedPaginator(Paginator):  # type: ignore[type-arg] # not subscriptable when the code runs
    """Pages that are found by one list of primary keys, which comes from an index alone and tells the total too."""

    object_list: QuerySet[OutboundViberMessage]

    def __init__(self, *args: Any, page: int = 1, **kwargs: Any) -> None:
        """`page`: the page that will be asked for; the total of the others may be cut off."""
        super().__init__(*args, **kwargs)
        start = (page - 1) * self.per_page
        is_deep = start + self.per_page > MOST_COUNTED
        self._start = start if is_deep else 0
        self._most = (_PAGES_AHEAD * self.per_page if is_deep else MOST_COUNTED) + 1

    @cached_property
    def _pks(self) -> list[Any]:
        return list(self.object_list.values_list("pk", flat=True)[self._start : self._start + self._most])

    @cached_property
    def count(self) -> Total:
        return Total(self._start + len(self._pks), is_cut=len(self._pks) == self._most)

    def page(self, number: Any) -> Any:
        number = self.validate_number(number)
        start = (number - 1) * self.per_page - self._start
        if start < 0:
            return super().page(number)
        return Page(self._rows(self._pks[start : start + self.per_page]), number, self)

    def every_row(self) -> QuerySet[OutboundViberMessage]:
        """Return what is on all the pages, where these are few."""
        return self._rows(self._pks)

    def _rows(self, pks: Sequence[Any]) -> QuerySet[OutboundViberMessage]:
        return self.object_list.filter(pk__in=pks)

    def get_elided_page_range(self, number: Any = 1, **kwargs: Any) -> Iterator[Any]:
        yield from super().get_elided_page_range(number, **kwargs)
        if self.count.is_cut:
            yield self.ELLIPSIS


class MessageList(ChangeList):
    """Django's list, which reads no row twice and sorts along the index of its filter."""

    def get_ordering(self, request: HttpRequest, queryset: QuerySet[Any]) -> list[Any]:
        ordering: list[Any] = list(super().get_ordering(request, queryset))
        if ordering in (["pk"], ["-pk"]):
            # PostgreSQL takes the messages of a campaign, or of a day, to be spread over the whole table, and would
            # look for them from its end. Sorted by the filter's own column they are found by its index.
            sign = ordering[0].removesuffix("pk")
            if self.params.get("campaign"):
                return [f"{sign}campaign", *ordering]
            if any(name.startswith("created_at__") for name in self.params):
                return [f"{sign}created_at", *ordering]
        return ordering

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        paginator: Any = self.paginator
        if isinstance(paginator, BoundedPaginator) and ((self.show_all and self.can_show_all) or not self.multi_page):
            self.result_list = paginator.every_row()

    def other_end(self) -> tuple[str, str] | None:
        """Return the address of the list sorted the other way round, and its name, where the pages do not reach it."""
        if not getattr(self.result_count, "is_cut", False) or "times_column" not in self.list_display:
            return None
        column = str(list(self.list_display).index("times_column"))
        if self.params.get(ORDER_VAR) == column:
            return self.get_query_string(remove=[ORDER_VAR]), _("Show the newest first")
        return self.get_query_string({ORDER_VAR: column}), _("Show the oldest first")

    def in_texts(self) -> str:
        """Return the address of the search for the same words in the texts."""
        return self.get_query_string({SEARCH_VAR: f'"{self.query}"'})
