"""The account: its balance and brand names, asked of eSMS, and likely prices, taken from our own latest messages."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from django.core.exceptions import ImproperlyConfigured
from django.db import DatabaseError
from django.db.models import Avg, Count, Q
from django.utils import timezone
from django.utils.translation import gettext as _

from .codes import Verdict, describe
from .conf import ViberSettings, get_settings
from .exceptions import EsmsViberError, log_failure
from .formatting import stored
from .gateways.base import BalanceResult, BaseGateway, CallOutcome
from .gateways.console import ConsoleGateway
from .gateways.loading import get_gateway
from .gateways.memory import MemoryGateway
from .models import OutboundViberMessage, ViberGatewayState
from .models.choices import Kind, kind_condition


@dataclass(frozen=True, slots=True)
class Balance:
    """What was left in the account at some moment."""

    amount: Decimal
    """VND."""
    at: dt.datetime
    """When eSMS told it."""


class BalanceUnavailable(EsmsViberError):
    """eSMS did not tell the balance; the message is for people, and says why and what to do."""


class BrandnamesUnavailable(EsmsViberError):
    """eSMS did not tell the brand names; the message is for people, and says why."""


def remembered_brandnames() -> list[str]:
    """Return the brand names active for Viber that eSMS told last; empty where nobody has asked."""
    told = ViberGatewayState.objects.for_writing().of_account().values_list("brandnames", flat=True).first()
    return [name for name in told if isinstance(name, str)] if isinstance(told, list) else []


def ask() -> Balance:
    """Ask eSMS for the balance now. Raises `BalanceUnavailable`."""
    result = _gateway().fetch_balance()
    if result.balance is None:
        raise BalanceUnavailable(_why_unknown(result))
    balance = Balance(result.balance, timezone.now())
    _remember(balance=balance.amount.quantize(_SMALLEST), balance_at=balance.at)
    return balance


def ask_brandnames() -> Sequence[str]:
    """Ask eSMS which brand names are active for Viber now. Raises `BalanceUnavailable` or `BrandnamesUnavailable`."""
    result = _gateway().fetch_brandnames()
    if result.brandnames is None:
        told = describe(result.code).meaning if result.code not in {"", "100"} else stored(result.text)
        code = f"{result.code}: " if result.code not in {"", "100"} else ""
        reason = f"{code}{told}".rstrip(".") or _("the answer lists none")
        raise BrandnamesUnavailable(_("eSMS did not tell the brand names: %(reason)s.") % {"reason": reason})
    _remember(brandnames=list(result.brandnames))
    return result.brandnames


_SMALLEST = Decimal("0.0001")


def _remember(**told: object) -> None:
    try:
        ViberGatewayState.objects.note_of_account(**told)
    except DatabaseError as error:  # the command tells what eSMS said before the tables are made, too
        log_failure(error, "what eSMS told of the account is not remembered")


def _gateway() -> BaseGateway:
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
    return gateway


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


_LATEST = 2_000
"""Delivered messages to look at for prices; eSMS charges nothing for others."""


def average_prices(kinds: Collection[Kind] = tuple(Kind)) -> dict[Kind, Decimal]:
    """Return, by kind, the average price that eSMS reported of the latest messages; kinds without any are missing."""
    latest = OutboundViberMessage.objects.for_writing().delivered().order_by("-pk")[:_LATEST]
    is_priced = Q(total_price__gt=0, sent_to_sandbox=False)
    averages = latest.aggregate(
        **{kind.value: Avg("total_price", filter=is_priced & kind_condition(kind)) for kind in kinds}
    )
    return {kind: averages[kind.value] for kind in kinds if averages[kind.value] is not None}


_SAMPLE = 500


def estimate(counts: Mapping[Kind, int], prices: Mapping[Kind, Decimal] | None = None) -> Decimal | None:
    """Estimate the cost of this number of messages of each kind; None where a kind's price is not known."""
    if prices is None:
        prices = average_prices(counts)
    if not counts or not counts.keys() <= prices.keys():
        return None
    return sum((prices[kind] * count for kind, count in counts.items()), Decimal(0)).quantize(Decimal(1))


def cost_of_queue(queued: int) -> Decimal | None:
    """Estimate the cost of so many queued messages by a part of them; None where a price is not known."""
    some = OutboundViberMessage.objects.for_writing().queued().order_by()[:_SAMPLE]
    is_real = Q(sent_to_sandbox=False)
    counted = some.aggregate(
        all=Count("pk"), **{kind.value: Count("pk", filter=is_real & kind_condition(kind)) for kind in Kind}
    )
    counts = {kind: counted[kind.value] for kind in Kind if counted[kind.value]}
    cost = estimate(counts) if counts else Decimal(0)
    return cost and (cost * max(queued, counted["all"]) / counted["all"]).quantize(Decimal(1))
