"""Sums of money, as people write them."""

from __future__ import annotations

from decimal import Decimal

from django.utils.translation import get_language

_SWAPPED = str.maketrans(",.", ".,")


def dong(amount: Decimal) -> str:
    """1.234.567 đ in Vietnamese, 1,234,567 đ elsewhere. Django's own Vietnamese formats group no digits."""
    decimals = 0 if amount == amount.to_integral_value() else 2
    text = f"{amount:,.{decimals}f}"
    return f"{text.translate(_SWAPPED) if (get_language() or '').startswith('vi') else text} đ"
