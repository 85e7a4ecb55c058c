"""Numbers, money and moments as people read them, and sentences that are stored in English and shown translated."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import get_language, gettext


def moment(when: dt.datetime | None) -> str | None:
    if when is None:
        return None
    return date_format(timezone.localtime(when) if timezone.is_aware(when) else when, "SHORT_DATETIME_FORMAT")


_SWAPPED = str.maketrans(",.", ".,")


def grouped(number: int | Decimal, decimals: int = 0) -> str:
    """1.234.567 in Vietnamese, 1,234,567 elsewhere. Django's own Vietnamese formats group no digits."""
    text = f"{number:,.{decimals}f}"
    return text.translate(_SWAPPED) if (get_language() or "").startswith("vi") else text


MOST_COUNTED = 10_000
"""Counting stops above it, because a number that nobody reads to its last digit is not worth reading a whole table."""


def tell_count(number: int, *, most: int | None = None) -> str:
    """A number that was counted up to `MOST_COUNTED`, or up to another that is given."""
    most = MOST_COUNTED if most is None else most
    if number <= most:
        return grouped(number)
    return gettext("more than %(count)s") % {"count": grouped(most)}


def dong(amount: Decimal) -> str:
    decimals = 0 if amount == amount.to_integral_value() else 2
    return f"{grouped(amount, decimals)} đ"


_BETWEEN = " · "


def put_together(*parts: str) -> str:
    """Join sentences into one text to be stored, in English. Each is translated by itself when it is shown."""
    return _BETWEEN.join(filter(None, parts))


def parts(text: str) -> list[str]:
    """Take a stored text apart again."""
    return text.split(_BETWEEN)


def stored(text: str) -> str:
    """Translate a stored text for its reader, sentence by sentence. What eSMS or the site said stays as it was said."""
    # A word alone is never a sentence of ours, though the catalogue may have it for another reason.
    return _BETWEEN.join(gettext(part) if " " in part or part.endswith(".") else part for part in parts(text))
