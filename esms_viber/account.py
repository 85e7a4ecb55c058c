"""Money: the account's balance, asked of eSMS, and likely prices, taken from our own latest messages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal

from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Avg
from django.utils import timezone
from django.utils.translation import gettext as _

from .codes import Verdict, describe
from .conf import ViberSettings, get_settings
from .exceptions import EsmsViberError, log_failure
from .formatting import stored
from .gateways.base import BalanceResult, CallOutcome
from .gateways.console import ConsoleGateway
from .gateways.loading import get_gateway
from .gateways.memory import MemoryGateway
from .models import OutboundViberMessage
from .models.choices import Kind, kind_condition

_KEY = "esms_viber.balance"
_REMEMBERED_FOR = 5 * 60


@dataclass(frozen=True, slots=True)
class Balance:
    """What was left in the account at some moment."""

    amount: Decimal
    """VND."""
    at: dt.datetime
    """When eSMS told it."""


class BalanceUnavailable(EsmsViberError):
    """eSMS did not tell the balance; the message is for people, and says why and what to do."""


def remembered() -> Balance | None:
    """Return the balance that eSMS told within the last five minutes."""
    try:
        found: Balance | None = cache.get(_KEY)
    except Exception as error:  # noqa: BLE001 - a cache that is away must not hide how the queue stands
        log_failure(error, "the cache cannot be read")
        return None
    return found


def ask() -> Balance:
    """Ask eSMS now. Raises `BalanceUnavailable`."""
    gateway, problem = None, ""
    try:
        gateway = get_gateway()
    except ImproperlyConfigured as error:
        problem = str(error)
    if isinstance(gateway, ConsoleGateway | MemoryGateway):
        problem = _('ESMS_VIBER["GATEWAY"] is %(name)s, so there is nobody to ask.') % {"name": type(gateway).__name__}
    if gateway is None or problem:
        # Raise after the handler, so that the error has no context whose frames hold the keys.
        raise BalanceUnavailable(problem)
    result = gateway.fetch_balance()
    if result.balance is None:
        raise BalanceUnavailable(_why_unknown(result))
    balance = Balance(result.balance, timezone.now())
    try:
        cache.set(_KEY, balance, _REMEMBERED_FOR)
    except Exception as error:  # noqa: BLE001 - as above
        log_failure(error, "the balance is not remembered")
    return balance


def _why_unknown(result: BalanceResult) -> str:
    if result.code == "100":
        return _("eSMS accepts the keys, but did not tell the balance.")
    if result.code:
        code = describe(result.code)
        named = _("Code %(code)s") % {"code": code.code}
        if code.verdict is not Verdict.ACCOUNT:
            # The remedy of such a code is for a message, not for the account.
            sentence = _("eSMS did not tell the balance: %(reason)s.") % {
                "reason": f"{named}: {code.meaning}".rstrip(".")
            }
            return f"{sentence} {_('Try again later.')}"
        return f"{named}: {code.meaning} {code.remedy}"
    sentence = _("eSMS did not tell the balance: %(reason)s.") % {"reason": stored(result.text).rstrip(".")}
    base_url, default = get_settings().BASE_URL.rstrip("/"), ViberSettings().BASE_URL
    is_another = base_url != default.rstrip("/")
    # A 502 is also what a proxy at a wrong address says.
    is_busy = result.http_status in {429, 500, 503}
    address_is_doubtful = not is_busy and (
        result.http_status is not None or result.outcome is CallOutcome.NOT_CONNECTED
    )
    if not (is_another and address_is_doubtful):
        sentence += " " + _("Try again later.")
    if is_another:
        remark = _(
            'The address asked was %(url)s. If that is not eSMS, correct ESMS_VIBER["BASE_URL"], or leave it out for '
            "the default, %(default)s"
        )
        sentence += " " + remark % {"url": f"{base_url}/GetBalance_json", "default": default}
    return sentence


_LATEST = (2_000, 30_000)
"""Numbers of latest messages to look at for prices; the second is for kinds that have no price among the first."""


def average_prices(kinds: Collection[Kind] = tuple(Kind)) -> dict[Kind, Decimal]:
    """Return, by kind, the average price that eSMS reported of the latest messages; kinds without any are missing."""
    rows = OutboundViberMessage.objects.for_writing()
    latest = rows.order_by("-pk").values_list("pk", flat=True).first() or 0
    found: dict[Kind, Decimal] = {}
    for number in _LATEST:
        if missing := [kind for kind in kinds if kind not in found]:
            priced = rows.filter(pk__gt=latest - number, total_price__gt=0, sandbox=False)
            averages = priced.aggregate(
                **{kind.value: Avg("total_price", filter=kind_condition(kind)) for kind in missing}
            )
            found |= {kind: averages[kind.value] for kind in missing if averages[kind.value] is not None}
    return found


def estimate(counts: Mapping[Kind, int], prices: Mapping[Kind, Decimal] | None = None) -> Decimal | None:
    """Estimate the cost of this number of messages of each kind; None where a kind's price is not known."""
    if prices is None:
        prices = average_prices(counts)
    if not counts or not counts.keys() <= prices.keys():
        return None
    return sum((prices[kind] * count for kind, count in counts.items()), Decimal(0)).quantize(Decimal(1))
