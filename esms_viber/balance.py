"""What is left on the eSMS account: asked when somebody wants to know, and remembered for a few minutes."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal

from django.core.cache import cache
from django.core.exceptions import ImproperlyConfigured
from django.utils import timezone
from django.utils.translation import gettext as _

from .codes import Verdict, describe
from .conf import ViberSettings, get_settings
from .exceptions import EsmsViberError
from .gateways import get_gateway
from .gateways.base import BalanceResult, BaseGateway, Reach
from .gateways.console import ConsoleGateway
from .gateways.memory import MemoryGateway
from .sentences import stored
from .tracebacks import log_failure

_KEY = "esms_viber.balance"
_REMEMBERED_FOR = 5 * 60


@dataclass(frozen=True, slots=True)
class Balance:
    amount: Decimal
    """VND."""
    at: dt.datetime
    """When eSMS said so."""


class BalanceUnavailable(EsmsViberError):
    """eSMS did not tell the balance: why, and what to do about it, in a sentence for people."""


def remembered() -> Balance | None:
    """What eSMS said within the last five minutes."""
    try:
        found: Balance | None = cache.get(_KEY)
    except Exception as error:  # noqa: BLE001 - a cache that is away must not hide how the queue stands
        log_failure(error, "the cache cannot be read")
        return None
    return found


def ask() -> Balance:
    """Ask eSMS now. Raises `BalanceUnavailable`."""
    result = _fetch(_get_gateway())
    if result.balance is None:
        raise BalanceUnavailable(_what_went_wrong(result))
    balance = Balance(result.balance, timezone.now())
    try:
        cache.set(_KEY, balance, _REMEMBERED_FOR)
    except Exception as error:  # noqa: BLE001 - as above
        log_failure(error, "the balance is not remembered")
    return balance


def _get_gateway() -> BaseGateway:
    try:
        return get_gateway()
    except ImproperlyConfigured as error:
        sentence = str(error)
    raise BalanceUnavailable(sentence)


def _fetch(gateway: BaseGateway) -> BalanceResult:
    if isinstance(gateway, ConsoleGateway | MemoryGateway):
        raise BalanceUnavailable(
            _('ESMS_VIBER["GATEWAY"] is %(name)s, so there is nobody to ask.') % {"name": type(gateway).__name__}
        )
    return gateway.fetch_balance()


def _what_went_wrong(result: BalanceResult) -> str:
    if result.code == "100":
        return _("eSMS accepts the keys, but did not tell the balance.")
    if result.code:
        code = describe(result.code)
        named = _("Code %(code)s") % {"code": code.code}
        if code.verdict is not Verdict.ACCOUNT:
            # Its remedy would be one for a message.
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
    address_is_doubtful = not is_busy and (result.http_status is not None or result.reach is Reach.NOT_CONNECTED)
    if not (is_another and address_is_doubtful):
        sentence += " " + _("Try again later.")
    if is_another:
        remark = _(
            'Asked was %(url)s. Is that eSMS? If not, mend ESMS_VIBER["BASE_URL"], or leave it out for eSMS\'s own, '
            "%(default)s"
        )
        sentence += " " + remark % {"url": f"{base_url}/GetBalance_json", "default": default}
    return sentence
