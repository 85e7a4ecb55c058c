"""What eSMS reports of a message that it took, by a callback or in answer to a status query."""

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
# In Vietnam 1.470 is 1470, to a computer it is 1.47.
_AMBIGUOUS_PRICE = re.compile(r"[1-9][0-9]{0,2}\.[0-9]{3}")
# PostgreSQL stores no NUL and no lone surrogate; other control characters could forge lines in a log.
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_NO_VALUE = re.compile(r"(?:null|none|nil|undefined|unknown|n/?a)?", re.IGNORECASE)
# As .NET's empty GUID.
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
"""What the history says of a field that decides nothing; by its name in eSMS's documentation."""

_FIELDS = (
    "smsid",
    "requestid",
    "phonenumber",
    "sendstatus",
    "sendsuccess",
    "sendfailed",
    "totalprice",
    "telcoid",
)
_IDENTIFIERS = _FIELDS[:3]


class ReportVerdict(enum.Enum):
    """What a report says of a message with one receiver."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    TAKEN = "taken"
    """eSMS has the message, and its result is still to come."""
    UNDECIDED = "undecided"
    """Proves nothing."""


class MalformedReport(ValueError):
    """The value that decides cannot be what its parameter's name says. The value is not repeated."""


_TAKEN_STATUSES = {1, 2, 7}
_REFUSED = 4
_FINISHED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """One report; what eSMS left out, left empty or masked is "", 0 or None."""

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
        """Status 5 means only "finished": the counts tell how."""
        if self.send_status == _FINISHED:
            return self._verdict_of_counts()
        if self.send_status == _REFUSED:
            return ReportVerdict.UNDELIVERED
        return ReportVerdict.TAKEN if self.send_status in _TAKEN_STATUSES else ReportVerdict.UNDECIDED

    def _verdict_of_counts(self) -> ReportVerdict:
        if self.failed:
            return ReportVerdict.UNDELIVERED
        return ReportVerdict.DELIVERED if self.succeeded else ReportVerdict.UNDECIDED

    @property
    def notes(self) -> Iterator[str]:
        """What was left out, in sentences to be stored."""
        return (LEFT_OUT[name] for name in self.left_out)

    def names_another_request(self, request_id: str) -> bool:
        return _differ(self.request_id, request_id)

    def names_another_sms_id(self, sms_id: str) -> bool:
        return _differ(self.sms_id, sms_id)

    def names_another_phone(self, phone: str) -> bool:
        ours = _phone_in(phone)
        return bool(self.phone and ours) and self.phone != ours


def parse_report(parameters: Mapping[str, str]) -> DeliveryReport:
    """Read a callback's parameters or a status answer's fields; names in any case, unknown ones ignored.

    Of several spellings of one name the alphabetically first that is not empty counts: the order on the wire
    does not matter. Only `SendStatus` and, where it says "finished", the counts decide: raises `MalformedReport` where
    these cannot be read. Any other field that cannot be read is left out.
    """
    return _Reader(parameters).read()


def bounded(parameters: Mapping[str, str]) -> dict[str, str]:
    """What is kept of a callback: nothing that a database refuses, the report's own fields before others."""
    kept: dict[str, str] = {}
    for key in sorted(parameters, key=_rank):
        kept.setdefault(_storable(key, MAX_KEY_LENGTH), _storable(parameters[key], MAX_VALUE_LENGTH))
        if len(kept) == MAX_KEYS:
            break
    return kept


def _rank(key: str) -> tuple[bool, str, str]:
    return key.lower() not in _FIELDS, key.lower(), key


def _storable(text: str, length: int) -> str:
    return _UNSTORABLE.sub(_REPLACEMENT, text[:length])


class _Reader:
    """One report's fields by their names in small letters, and the names of those that cannot be read."""

    def __init__(self, parameters: Mapping[str, str]) -> None:
        self._found: dict[str, str] = {}
        self._left_out: list[str] = []
        for name in sorted(parameters, key=_rank):
            text = parameters[name].strip()
            if name.lower() in _FIELDS and not _says_nothing(name.lower(), text):
                self._found.setdefault(name.lower(), text)

    def read(self) -> DeliveryReport:
        send_status = _integer(self._found.get("sendstatus", ""))
        if send_status is None and "sendstatus" in self._found:
            raise MalformedReport("SendStatus must be an integer of at most 32 bits")
        return DeliveryReport(
            send_status=send_status,
            succeeded=self._count("SendSuccess", decides=send_status == _FINISHED),
            failed=self._count("SendFailed", decides=send_status == _FINISHED),
            total_price=self._side_field("TotalPrice", _price),
            telco_id=self._side_field("telcoid", _integer),
            sms_id=self._side_field("SMSID", _sms_id) or "",
            request_id=self._side_field_or_masked("RequestId", _printable),
            phone=self._side_field_or_masked("phonenumber", _phone_in),
            left_out=tuple(self._left_out),
        )

    def _side_field(self, name: str, read: Callable[[str], Value | None]) -> Value | None:
        text = self._found.get(name.lower())
        value = None if text is None else read(text)
        if text is not None and value is None:
            self._left_out.append(name)
        return value

    def _side_field_or_masked(self, name: str, read: Callable[[str], str | None]) -> str:
        text = self._found.get(name.lower(), "")
        if _MASKED.search(text) or _MASKED_BY_LETTERS.search(text):
            return ""
        return self._side_field(name, read) or ""

    def _count(self, name: str, *, decides: bool) -> int:
        number = self._side_field(name, _integer_of_receivers)
        if decides and name in self._left_out:
            raise MalformedReport(f"{name} must be a number of receivers")
        return number or 0


def _says_nothing(name: str, text: str) -> bool:
    """As programs write that they have no value."""
    if name in _IDENTIFIERS and _ZEROS.fullmatch(text):
        return True
    return _NO_VALUE.fullmatch(text.strip("\"'<>()[]{}-_ ")) is not None


def _integer(text: str) -> int | None:
    match = _INTEGER.fullmatch(text)
    return number if match and abs(number := int(match[1])) <= _LARGEST_INTEGER else None


def _integer_of_receivers(text: str) -> int | None:
    number = _integer(text)
    return None if number is None or number < 0 else number


def _price(text: str) -> Decimal | None:
    """None for what can be read in two ways, too."""
    if not _PRICE.fullmatch(text) or _AMBIGUOUS_PRICE.fullmatch(text) or (price := Decimal(text)) >= _PRICE_LIMIT:
        return None
    rounded = price.quantize(_PRICE_STEP, rounding=ROUND_HALF_UP, context=_PRICE_CONTEXT)
    return rounded if rounded < _PRICE_LIMIT else None


def _printable(text: str) -> str | None:
    if len(text) > _MAX_ID_LENGTH or _UNSTORABLE.search(text) or _REPLACEMENT in text or not _bare(text):
        return None
    return text


def _sms_id(text: str) -> str | None:
    return None if _MASKED.search(text) else _printable(text)


def _phone_in(text: str) -> str | None:
    try:
        return normalize_phone(text)
    except InvalidPhone:
        return None


def _differ(reported: str, ours: str) -> bool:
    """Whether a report names another identifier; capitals, dashes, braces and spaces make none."""
    return bool(reported) and _bare(reported) != _bare(ours)


def _bare(identifier: str) -> str:
    return "".join(filter(str.isalnum, unquote(identifier))).casefold()
