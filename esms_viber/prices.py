"""What messages are likely to cost, by what the latest ones did. eSMS has no call that tells its prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from django.db.models import Avg

from .models import OutboundViberMessage
from .transactions import write_alias
from .validation import Kind, kind_condition

_LOOKED_AT = 5000


def average_prices() -> dict[Kind, Decimal]:
    """By kind, the average of what eSMS reported of the latest messages; without the kinds of which it has not."""
    rows = OutboundViberMessage.objects.using(write_alias())
    latest = rows.order_by("-pk").values_list("pk", flat=True).first() or 0
    priced = rows.filter(pk__gt=latest - _LOOKED_AT, total_price__gt=0, sandbox=False)
    found = priced.aggregate(**{kind.value: Avg("total_price", filter=kind_condition(kind)) for kind in Kind})
    return {kind: found[kind.value] for kind in Kind if found[kind.value] is not None}


def estimate(counts: Mapping[Kind, int]) -> Decimal | None:
    """What so many messages of each kind may cost together; None where no price of one of them is known."""
    prices = average_prices()
    if not counts or not counts.keys() <= prices.keys():
        return None
    return sum((prices[kind] * count for kind, count in counts.items()), Decimal(0)).quantize(Decimal(1))
