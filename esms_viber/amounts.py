"""Numbers and sums of money, as people write them."""

from __future__ import annotations

from decimal import Decimal

from django.utils.translation import get_language

_SWAPPED = str.maketrans(",.", ".,")


def grouped(number: int | Decimal, decimals: int = 0) -> str:
    """1.234.567 in Vietnamese, 1,234,567 elsewhere. Django's own Vietnamese formats group no digits."""
    text = f"{number:,.{decimals}f}"
    return text.translate(_SWAPPED) if (get_language() or "").startswith("vi") else text


def dong(amount: Decimal) -> str:
    decimals = 0 if amount == amount.to_integral_value() else 2
    return f"{grouped(amount, decimals)} đ"
