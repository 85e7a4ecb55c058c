"""What eSMS reports of a message that it took, by a callback or in answer to a status query."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import ROUND_HALF_UP, Context, Decimal

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
# PostgreSQL stores no NUL and no lone surrogate; other control characters could forge lines in a log.
_UNSTORABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

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


class ReportVerdict(enum.Enum):
    """What a report says of a message with one receiver."""

    DELIVERED = "delivered"
    UNDELIVERED = "undelivered"
    TAKEN = "taken"
    """eSMS has the message, and its result is still to come."""
    UNDECIDED = "undecided"
    """Proves nothing."""


class MalformedReport(ValueError):
    """A value cannot be what its parameter's name says."""


_TAKEN_STATUSES = {1, 2, 7}
_REFUSED = 4
_FINISHED = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryReport:
    """One report; what eSMS left out or left empty is "", 0 or None."""

    sms_id: str = ""
    request_id: str = ""
    phone: str = ""
    """As eSMS spelled it."""
    send_status: int | None = None
    succeeded: int = 0
    failed: int = 0
    total_price: Decimal | None = None
    telco_id: int | None = None

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


def parse_report(parameters: Mapping[str, str]) -> DeliveryReport:
    """Read a callback's parameters or a status answer's fields; names in any case, unknown ones ignored.

    Of several spellings of one name the alphabetically first that is not empty counts: the order on the wire
    does not matter. Raises `MalformedReport`.
    """
    found = _known_values(parameters)
    return DeliveryReport(
        sms_id=_identifier(found, "smsid"),
        request_id=_identifier(found, "requestid"),
        phone=_identifier(found, "phonenumber"),
        send_status=_integer(found, "sendstatus"),
        succeeded=_count(found, "sendsuccess"),
        failed=_count(found, "sendfailed"),
        total_price=_price(found, "totalprice"),
        telco_id=_integer(found, "telcoid"),
    )


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
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text[:length])


@dataclass(frozen=True, slots=True)
class _Value:
    name: str
    """As eSMS spelled it."""
    text: str

    def refuse(self, wanted: str) -> MalformedReport:
        return MalformedReport(f"{self.name} must be {wanted}, not {self.text[:40]!a}")


def _known_values(parameters: Mapping[str, str]) -> dict[str, _Value]:
    found: dict[str, _Value] = {}
    for name in sorted(parameters, key=_rank):
        text = parameters[name].strip()
        if text and name.lower() in _FIELDS:
            found.setdefault(name.lower(), _Value(name, text))
    return found


def _identifier(found: dict[str, _Value], field: str) -> str:
    value = found.get(field)
    if value is None:
        return ""
    if len(value.text) > _MAX_ID_LENGTH or _UNSTORABLE.search(value.text):
        raise value.refuse(f"printable text of at most {_MAX_ID_LENGTH} characters")
    return value.text


def _integer(found: dict[str, _Value], field: str) -> int | None:
    value = found.get(field)
    if value is None:
        return None
    match = _INTEGER.fullmatch(value.text)
    if match is None or abs(number := int(match[1])) > _LARGEST_INTEGER:
        raise value.refuse("an integer of at most 32 bits")
    return number


def _count(found: dict[str, _Value], field: str) -> int:
    number = _integer(found, field) or 0
    if number < 0:
        raise found[field].refuse("zero or more")
    return number


def _price(found: dict[str, _Value], field: str) -> Decimal | None:
    value = found.get(field)
    if value is None:
        return None
    if not _PRICE.fullmatch(value.text) or (price := Decimal(value.text)) >= _PRICE_LIMIT:
        raise value.refuse("an amount of money")
    rounded = price.quantize(_PRICE_STEP, rounding=ROUND_HALF_UP, context=_PRICE_CONTEXT)
    if rounded >= _PRICE_LIMIT:
        raise value.refuse("an amount of money")
    return rounded
