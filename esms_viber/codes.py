"""The table of eSMS's answer codes: the meaning, the verdict on a send, and what a person should do."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise


class Verdict(enum.Enum):
    """The meaning of a code for the call that it answers."""

    ACCEPTED = "accepted"
    """eSMS took the message; not a proof of delivery."""
    MESSAGE = "message"
    """eSMS refuses this message for good as it stands. Many in a row with the same code concern all messages."""
    PHONE = "phone"
    """eSMS refuses this phone; it says nothing of other messages."""
    BRAND = "brand"
    """eSMS refuses every message under this brand name, until somebody changes the settings or the registration."""
    ACCOUNT = "account"
    """eSMS refuses every message, until somebody changes the account or the settings."""
    DUPLICATE = "duplicate"
    """The RequestId was used before."""
    UNCERTAIN = "uncertain"
    """The code does not tell whether the message was taken."""


@dataclass(frozen=True, slots=True)
class Code:
    """One answer code, in words for shop staff and operators."""

    code: str
    verdict: Verdict
    meaning: _StrOrPromise
    remedy: _StrOrPromise


_NOT_FOR_VIBER = _("eSMS documents this code for services other than Viber: ask eSMS support what is wrong with it.")
_CHECK_BEFORE_RESENDING = _(
    "Look the message up on the eSMS portal before you send it again: the customer may have it already."
)

_TABLE = (
    Code(
        "99",
        Verdict.PHONE,
        _("eSMS blocks this phone number."),
        _("Do not send to this number again unless eSMS support lifts the block."),
    ),
    Code(
        "100",
        Verdict.ACCEPTED,
        _("eSMS accepted the message."),
        _("Nothing to do: whether it was delivered is reported later."),
    ),
    Code(
        "101",
        Verdict.ACCOUNT,
        _("eSMS does not accept the API key and secret key."),
        _("Compare both keys in the site's settings with those on the eSMS portal."),
    ),
    Code(
        "102",
        Verdict.ACCOUNT,
        _("The eSMS account has no price list."),
        _("Ask eSMS to set up prices for Viber messages on the account."),
    ),
    Code(
        "103",
        Verdict.ACCOUNT,
        _("The balance of the eSMS account is too low."),
        _("Top up the account on the eSMS portal; the waiting messages can go out then."),
    ),
    Code(
        "104",
        Verdict.BRAND,
        _("eSMS does not know this brand name, or it is not active yet."),
        _("Compare the brand name, capital letters too, with the one registered on the eSMS portal."),
    ),
    Code(
        "105",
        Verdict.UNCERTAIN,
        _("eSMS cannot find this message."),
        _("If it was sent a moment ago, ask again later; otherwise look it up on the eSMS portal."),
    ),
    Code("106", Verdict.MESSAGE, _("The recording of a voice call is missing."), _NOT_FOR_VIBER),
    Code("107", Verdict.MESSAGE, _("A request needs at least 30 different numbers."), _NOT_FOR_VIBER),
    Code(
        "108",
        Verdict.PHONE,
        _("eSMS cannot read the phone number."),
        _("Correct the number, then send the message again."),
    ),
    Code("110", Verdict.MESSAGE, _("The data of the request is wrong."), _NOT_FOR_VIBER),
    Code("115", Verdict.MESSAGE, _("The hash of the phone number is not valid."), _NOT_FOR_VIBER),
    Code(
        "118",
        Verdict.ACCOUNT,
        _("eSMS does not support this type of message."),
        _("Ask eSMS whether Viber is enabled for the account and the brand name."),
    ),
    Code(
        "120",
        Verdict.MESSAGE,
        _("There are more phone numbers in one request than eSMS allows."),
        _("Send to fewer numbers in one request."),
    ),
    Code(
        "124",
        Verdict.DUPLICATE,
        _("eSMS has seen this RequestId before."),
        _("Look the message up on the eSMS portal, and send it again only if it is not there."),
    ),
    Code(
        "140",
        Verdict.ACCOUNT,
        _("eSMS does not accept calls from this server's IP address."),
        _("Ask eSMS to add the server's public IP address to the addresses allowed for the account."),
    ),
    Code(
        "146",
        Verdict.MESSAGE,
        _("The text does not match a template registered with eSMS."),
        _("Correct the message, then send it again."),
    ),
    Code("171", Verdict.MESSAGE, _("A code was used, has expired or is for another number."), _NOT_FOR_VIBER),
    Code(
        "177",
        Verdict.MESSAGE,
        _("The mobile network of this number is not registered."),
        _("Ask eSMS to register this mobile network, then send the message again."),
    ),
    Code(
        "199",
        Verdict.UNCERTAIN,
        _("eSMS is still working on the same request."),
        _CHECK_BEFORE_RESENDING,
    ),
    Code("204", Verdict.MESSAGE, _("The Zalo OA id is unknown."), _NOT_FOR_VIBER),
    Code("210", Verdict.MESSAGE, _("The content does not have the form that Zalo wants."), _NOT_FOR_VIBER),
    Code(
        "300",
        Verdict.ACCOUNT,
        _("The type of message is missing."),
        _("Ask the site's developer: the request went out without the message type of Viber."),
    ),
    Code("301", Verdict.MESSAGE, _("The type of service is not supported."), _NOT_FOR_VIBER),
    Code("687", Verdict.MESSAGE, _("There are more than 500 numbers in one request."), _NOT_FOR_VIBER),
    Code("789", Verdict.MESSAGE, _("The template is not set up for this Zalo OA."), _NOT_FOR_VIBER),
    Code("790", Verdict.MESSAGE, _("The Zalo template is wrong."), _NOT_FOR_VIBER),
    Code("791", Verdict.MESSAGE, _("The Zalo OA id or the template id is missing."), _NOT_FOR_VIBER),
    Code(
        "799",
        Verdict.MESSAGE,
        _("The Zalo OA is inactive, wrong or not added to the account."),
        _NOT_FOR_VIBER,
    ),
)

NETWORKS: Mapping[int, str] = MappingProxyType(
    {
        1: "Viettel",
        2: "MobiFone",
        3: "VinaPhone",
        4: "Vietnamobile",
        5: "Gmobile",
        6: "Itel",
        7: "Reddi",
    }
)
"""Mobile networks by `telcoid`, as eSMS documents it for its callbacks; its samples hold other numbers as well."""

CODES: Mapping[str, Code] = MappingProxyType({entry.code: entry for entry in _TABLE})
ACCOUNT_CODES = frozenset(entry.code for entry in _TABLE if entry.verdict is Verdict.ACCOUNT)


def loggable(code: str) -> str:
    """Return the code as it may stand in a log: what eSMS gives for one might be a phone."""
    return code if re.fullmatch(r"[0-9]{1,4}", code) else "-"


def describe(code: str) -> Code:
    """Return the table's entry or, for a code that is not in it, an entry that claims nothing."""
    if known := CODES.get(code):
        return known
    meaning = _("eSMS answered without a code.")
    if code:
        meaning = format_lazy(_("Code {code} is not in eSMS's table of codes."), code=code[:20])
    return Code(code, Verdict.UNCERTAIN, meaning, _CHECK_BEFORE_RESENDING)
