"""Read delivery reports, which eSMS sends by a callback or in answer to a status query."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import TypeVar
from urllib.parse import unquote

from django.utils.translation import gettext_noop

from ..phones import InvalidPhone, normalize_phone

Value = TypeVar("Value")

MAX_KEYS = 40
MAX_KEY_LENGTH = 64
MAX_VALUE_LENGTH = 200

_MAX_ID_LENGTH = 64
_LARGEST_INTEGER = 2**31 - 1
_PRICE_STEP = Decimal("0.0001")
_PRICE_LIMIT = Decimal(10) ** 10
_PRICE_CONTEXT = Context(prec=28)

# Status answers carry JSON numbers, so that a count may read 5.0 and a price 0E-8.
_INTEGER = re.compile(r"(-?[0-9]{1,10})(?:\.0{1,10})?")
_PRICE = re.compile(r"[0-9]{1,30}(?:\.[0-9]{0,30})?(?:[eE][+-]?[0-9]{1,2})?")
# People in Vietnam read 1.470 as 1470, computers read it as 1.47.
_AMBIGUOUS_PRICE = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
# PostgreSQL stores no NUL and no lone surrogate; other control characters could forge lines in a log.
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NO_VALUE = re.compile(r"(?:null|none|nil|undefined|unknown|n/?a)?", re.IGNORECASE)
# .NET writes an empty GUID with zeros only.
_ZEROS = re.compile(r"[{(]?[0-]+[)}]?")
_MASKED = re.compile(r"[*•#…]|\.\.\.")
# No RequestId of ours and no phone has a letter x in it.
_MASKED_BY_LETTERS = re.compile(r"xx", re.IGNORECASE)

LEFT_OUT = {
    "TotalPrice": gettext_noop("The price could not be read and is left out."),
    "telcoid": gettext_noop("The network could not be read and is left out."),
    "SMSID": gettext_noop("The SMSID could not be read and is left out."),
    "RequestId": gettext_noop("The RequestId could not be read and is left out."),
    "phonenumber": gettext_noop("The phone could not be read and is left out."),
    "SendSuccess": gettext_noop("The number of successes could not be read and is left out."),
    "SendFailed": gettext_noop("The number of failures could not be read and is left out."),
}
"""The history's sentences about unreadable fields that decide nothing, by their names in eSMS's documentation.

A field is read only if it stands here, because a report must never fail over a missing sentence."""

_FIELDS = {"sendstatus", *(name.lower() for name in LEFT_OUT)}
_IDENTIFIERS = {"smsid", "requestid", "phonenumber"}


class ReportVerdict(enum.Enum):
    """The result that a report gives for a message with one receiver."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    TAKEN = "taken"
    """eSMS has the message, and its result is still to come."""
    UNDECIDED = "undecided"
    """The report proves nothing."""


class MalformedReport(ValueError):
    """A value that decides cannot be what its parameter's name says. The error does not repeat the value."""


_TAKEN_STATUSES = {1, 2, 7}
_REFUSED = 4
_FINISHED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """One report. A field that eSMS left out, left empty or masked is "", 0 or None."""

    sms_id: str = ""
    request_id: str = ""
    phone: str = ""
    """In E.164."""
    send_status: int | None = None
    succeeded: int = 0
    failed: int = 0
    total_price: Decimal | None = None
    telco_id: int | None = None
    left_out: tuple[str, ...] = ()
    """Fields that decide nothing and could not be read, as in `LEFT_OUT`."""

    @property
    def verdict(self) -> ReportVerdict:
        """Decide by the status and, where that only says "finished" (5), by the counts."""
        if self.send_status == _REFUSED or (self.send_status == _FINISHED and self.failed):
            return ReportVerdict.UNDELIVERED
        if self.send_status == _FINISHED and self.succeeded:
            return ReportVerdict.DELIVERED
        return ReportVerdict.TAKEN if self.send_status in _TAKEN_STATUSES else ReportVerdict.UNDECIDED

    @property
    def notes(self) -> Iterator[str]:
        """Sentences, to be stored, about the fields that were left out."""
        return (LEFT_OUT[name] for name in self.left_out)

    def names_another_request(self, request_id: str) -> bool:
        return _differ(self.request_id, request_id)

    def names_another_sms_id(self, sms_id: str) -> bool:
        return _differ(self.sms_id, sms_id)

    def names_another_phone(self, phone: str) -> bool:
        if not self.phone or self.phone == phone:
            return False
        ours = _phone_in(phone)
        return bool(ours) and self.phone != ours


def parse_report(parameters: Mapping[str, str]) -> DeliveryReport:
    """Read a callback's parameters or a status answer's fields; names in any case, unknown ones ignored.

    Where one name comes in several spellings, the alphabetically first that is not empty counts, because the order on
    the wire must not matter. `SendStatus` decides and, where it says "finished", the counts: raises `MalformedReport`
    where these cannot be read. Any other field that cannot be read is left out.
    """
    found = _fields_in(parameters)
    left_out: list[str] = []

    def read(name: str, convert: Callable[[str], Value | None]) -> Value | None:
        text = found.get(name.lower())
        value = None if text is None else convert(text)
        if text is not None and value is None:
            left_out.append(name)
        return value

    send_status = read("SendStatus", _integer)
    if left_out:
        raise MalformedReport("SendStatus must be an integer of at most 32 bits")
    succeeded = read("SendSuccess", lambda text: _integer(text, least=0))
    failed = read("SendFailed", lambda text: _integer(text, least=0))
    if left_out and send_status == _FINISHED:
        raise MalformedReport(f"{left_out[0]} must be a number of receivers")
    return DeliveryReport(
        send_status=send_status,
        succeeded=succeeded or 0,
        failed=failed or 0,
        total_price=read("TotalPrice", _price),
        telco_id=read("telcoid", _integer),
        sms_id=read("SMSID", lambda text: None if _MASKED.search(text) else _printable(text)) or "",
        request_id=read("RequestId", _printable) or "",
        phone=read("phonenumber", _phone_in) or "",
        left_out=tuple(left_out),
    )


def parse_phone(parameters: Mapping[str, str]) -> DeliveryReport:
    """Read no more than the phone, of parameters that make no sense otherwise."""
    return DeliveryReport(phone=_phone_in(_fields_in(parameters).get("phonenumber", "")) or "")


def _fields_in(parameters: Mapping[str, str]) -> dict[str, str]:
    """Find the fields that have a value, by their names in small letters."""
    found: dict[str, str] = {}
    for key, name in sorted((key, name) for name in parameters if (key := name.lower()) in _FIELDS):
        text = parameters[name].strip()
        is_zeros = key in _IDENTIFIERS and _ZEROS.fullmatch(text)
        if not is_zeros and not _NO_VALUE.fullmatch(text.strip("\"'<>()[]{}-_ ")):
            found.setdefault(key, text)
    # A masked RequestId or phone counts as left empty.
    for key in ("requestid", "phonenumber"):
        if _MASKED.search(found.get(key, "")) or _MASKED_BY_LETTERS.search(found.get(key, "")):
            del found[key]
    return found


_KEPT = {"smsid", "sendstatus", "sendsuccess", "sendfailed", "totalprice", "telcoid"}
_KEPT_VALUE = re.compile(r"[0-9A-Za-z.+_{}-]{1,64}")


def without_person(parameters: Mapping[str, str], *, request_id: str, phone: str = "") -> dict[str, str]:
    """Leave of a report what says nothing of a person: SMSID, status, counts, price and network.

    Nothing is left of one that names another RequestId or phone, because without these names it could be taken for one
    about the message.
    """
    try:
        report = parse_report(parameters)
    except MalformedReport:
        return {}
    if report.names_another_request(request_id) or report.names_another_phone(phone):
        return {}
    kept = {name: value for name, value in parameters.items() if name.lower() in _KEPT}
    return {name: value for name, value in kept.items() if _KEPT_VALUE.fullmatch(value)}


def bounded(parameters: Mapping[str, str]) -> dict[str, str]:
    """Cut a callback down to what is stored: text that any database takes, the report's own fields before others."""
    kept: dict[str, str] = {}
    for key in sorted(parameters, key=_rank):
        kept.setdefault(_storable(key, MAX_KEY_LENGTH), _storable(parameters[key], MAX_VALUE_LENGTH))
        if len(kept) == MAX_KEYS:
            break
    return kept


def _rank(key: str) -> tuple[bool, str, str]:
    lower = key.lower()
    return lower not in _FIELDS, lower, key


def _storable(text: str, length: int) -> str:
    cut = text[:length]
    return cut if cut.isprintable() else _UNSTORABLE.sub(_REPLACEMENT, cut)


def _integer(text: str, *, least: int = -_LARGEST_INTEGER) -> int | None:
    match = _INTEGER.fullmatch(text)
    return number if match and least <= (number := int(match[1])) <= _LARGEST_INTEGER else None


def _price(text: str) -> Decimal | None:
    """Read a price; None also for one that can be read in two ways."""
    if not _PRICE.fullmatch(text) or _AMBIGUOUS_PRICE.fullmatch(text) or (price := Decimal(text)) >= _PRICE_LIMIT:
        return None
    rounded = price.quantize(_PRICE_STEP, rounding=ROUND_HALF_UP, context=_PRICE_CONTEXT)
    return rounded if rounded < _PRICE_LIMIT else None


def _printable(text: str) -> str | None:
    if len(text) > _MAX_ID_LENGTH:
        return None
    if not text.isalnum() and (_UNSTORABLE.search(text) or _REPLACEMENT in text or not _bare(text)):
        return None
    return text


def _phone_in(text: str) -> str | None:
    try:
        return normalize_phone(text)
    except InvalidPhone:
        return None


def _differ(reported: str, ours: str) -> bool:
    """Does a report name another identifier than ours? Capitals, dashes, braces and spaces make no difference."""
    return bool(reported) and reported != ours and _bare(reported) != _bare(ours)


def _bare(identifier: str) -> str:
    return "".join(filter(str.isalnum, unquote(identifier))).casefold()
