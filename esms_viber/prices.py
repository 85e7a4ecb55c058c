"""What messages are likely to cost, by what the latest ones did. eSMS has no call that tells its prices."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal

from django.db.models import Avg

from .models import OutboundViberMessage
from .transactions import write_alias
from .validation import Kind, kind_condition

_LATEST = (5_000, 100_000)
"""Messages that are looked at: the latest, and where these have no price yet, more of them."""


def average_prices() -> dict[Kind, Decimal]:
    """By kind, the average of what eSMS reported of the latest messages; without the kinds of which it has not."""
    rows = OutboundViberMessage.objects.using(write_alias())
    latest = rows.order_by("-pk").values_list("pk", flat=True).first() or 0
    found: dict[Kind, Decimal] = {}
    for number in _LATEST:
        priced = rows.filter(pk__gt=latest - number, total_price__gt=0, sandbox=False)
        averages = priced.aggregate(**{kind.value: Avg("total_price", filter=kind_condition(kind)) for kind in Kind})
        found = {kind: averages[kind.value] for kind in Kind if averages[kind.value] is not None} | found
    return found


def estimate(counts: Mapping[Kind, int]) -> Decimal | None:
    """What so many messages of each kind may cost together; None where no price of one of them is known."""
    prices = average_prices()
    if not counts or not counts.keys() <= prices.keys():
        return None
    return sum((prices[kind] * count for kind, count in counts.items()), Decimal(0)).quantize(Decimal(1))
