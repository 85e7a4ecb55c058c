"""Figures as tables of numbers, for screen readers too, beside bars that only repeat the numbers."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal
from itertools import accumulate

from django.utils.formats import date_format
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ..formatting import grouped
from ..models import Status
from ..statistics import COUNTED, Day, Figures, Tally, start_of
from . import display
from .listing import DELIVERY_TIMES, Listing

_WIDTH = 1000
"""The width of the longest bar, in units of its SVG."""


@dataclass(frozen=True, slots=True)
class Number:
    """A figure in the table below a chart."""

    text: str
    url: str = ""
    """The address that lists the messages it counts."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of a bar."""

    kind: str
    x: int
    width: int


@dataclass(frozen=True, slots=True)
class Row:
    """A bar, and its figures."""

    name: str
    bar: list[Part]
    numbers: list[Number]


@dataclass(frozen=True, slots=True)
class Column:
    """The figures of one kind."""

    name: str
    kind: str = ""
    """The `Part.kind` that shows this column in each bar; empty where none does."""
    sign: str = ""


@dataclass(frozen=True, slots=True)
class Plot:
    """A bar chart with its table."""

    id: str
    caption: str
    remark: str
    of: str
    """The heading above the names of the rows."""
    columns: list[Column]
    rows: list[Row]
    total: Row | None = None


def plots_of(figures: Figures, listing: Listing) -> list[Plot]:
    """Plot the figures. `listing` has the filters that all their links share."""
    plots = [_by_day(figures, listing), _by_reason(figures, listing), _by_delivery_time(figures, listing)]
    return [plot for plot in plots if plot.rows]


def linked(count: int, listing: Listing) -> Number:
    """Link a count to its messages, unless it is zero."""
    return Number(grouped(count), str(listing) if count else "")


def percent(share: Decimal) -> str:
    return _("%(number)s%%") % {"number": grouped(share * 100, 1)}


def _bar(parts: Iterable[tuple[str, int]], longest: int) -> list[Part]:
    parts = [*parts]
    ends = [round(end * _WIDTH / longest) for end in accumulate(count for _kind, count in parts)]
    starts = [0, *ends]
    return [Part(kind, x, end - x) for (kind, _count), x, end in zip(parts, starts, ends, strict=False) if end > x]


def bar_of(tally: Tally) -> list[Part]:
    """Draw how many are in each state."""
    return _bar(((status, tally.counts[status]) for status in COUNTED), tally.asked_for or 1)


def _by_day(figures: Figures, listing: Listing) -> Plot:
    statuses = [status for status in COUNTED if figures.total.counts[status]]
    longest = max((day.tally.asked_for for day in figures.days), default=0)
    oldest = min((day.date for day in figures.days if day.date), default=None)

    def row(name: str, tally: Tally, shown: Listing, bar: list[Part]) -> Row:
        numbers = [linked(tally.asked_for, shown.of_statuses())]
        numbers += [linked(tally.counts[status], shown.of_status(status)) for status in statuses]
        return Row(name, bar, numbers)

    def day_row(day: Day) -> Row:
        bar = _bar(((status, day.tally.counts[status]) for status in statuses), longest)
        if day.date:
            name = date_format(day.date, "SHORT_DATE_FORMAT")
            shown = listing.created(start_of(day.date), start_of(day.date + dt.timedelta(days=1)))
        else:
            name, shown = _("Earlier"), listing.created(None, start_of(oldest) if oldest else None)
        return row(name, day.tally, shown, bar)

    return Plot(
        id="viber-days",
        caption=_("Messages by day and state"),
        remark=_("Days without messages are left out."),
        of=_("Day"),
        columns=[
            Column(_("All")),
            *(Column(capfirst(str(status.label)), status.value, display.sign(status)) for status in statuses),
        ],
        rows=[day_row(day) for day in figures.days],
        total=row(_("Total"), figures.total, listing, []),
    )


def _by_reason(figures: Figures, listing: Listing) -> Plot:
    longest = max((count for *_reason, count in figures.failures), default=0)

    def row(status: str, code: str, count: int) -> Row:
        shown = listing.of_status(status)
        if status == Status.FAILED:
            shown = shown.narrowed(code_result__exact=code)
        if status == Status.UNDELIVERED:
            name = _("eSMS reports that it was not delivered; most often the number has no Viber.")
        else:
            name = display.meaning(code) or _("It expired before it could be sent.")
        return Row(name, _bar([(status, count)], longest), [linked(count, shown)])

    return Plot(
        id="viber-failures",
        caption=_("Failures by reason"),
        remark="",
        of=_("Reason"),
        columns=[Column(_("Messages"))],
        rows=[row(*failure) for failure in figures.failures],
    )


def _by_delivery_time(figures: Figures, listing: Listing) -> Plot:
    longest, total = max(figures.deliveries), sum(figures.deliveries)

    def row(number: int, count: int) -> Row:
        numbers = [linked(count, listing.delivered_in(number)), Number(percent(Decimal(count) / total))]
        return Row(capfirst(str(DELIVERY_TIMES[number])), _bar([(Status.DELIVERED, count)], longest), numbers)

    return Plot(
        id="viber-deliveries",
        caption=_("Time to delivery"),
        remark=_("From eSMS's answer to its report that the message was delivered, where both are known."),
        of=_("Time taken"),
        columns=[Column(_("Delivered")), Column(_("Share"))],
        rows=[row(*one) for one in enumerate(figures.deliveries)] if total else [],
    )
