"""Read eSMS's answers, and trust nothing in them: values are bounded and cleaned, and a repeated key is withheld."""

from __future__ import annotations

import datetime as dt
import json
import re
import zoneinfo
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext_noop

from ..formatting import parts, put_together
from ..phones import InvalidPhone, normalize_phone
from .base import (
    CANNOT_TELL,
    BalanceResult,
    BrandnamesResult,
    CallOutcome,
    SendResult,
    SentEntry,
    SentResult,
    StatusResult,
)
from .credentials import Keys
from .replies import PROBLEMS, REDIRECTED, Reply

SUCCESS = "100"
VIBER_TYPE = "23"
VIETNAM = zoneinfo.ZoneInfo("Asia/Ho_Chi_Minh")
MAX_CODE = 16
MAX_SMS_ID = 64
MAX_TEXT = 500
MAX_VALUES = 40
MAX_VALUE = 200
MAX_NAME = 64
_MAX_CONTENT_TYPE = 60
WITHHELD = gettext_noop("Part of the answer repeated the account's keys and is withheld.")
_LONG_SMS_ID = gettext_noop("The answer's SMSID was longer than 64 characters and is left out.")
_WITHOUT_CODE = gettext_noop("The answer has no code")
_NOT_JSON = gettext_noop("The answer is not a JSON object")
_LEFT_OUT = gettext_noop("Part of the list cannot be read and is left out.")
_OWN_SENTENCES = PROBLEMS.union((WITHHELD, _LONG_SMS_ID, _WITHOUT_CODE, _NOT_JSON, _LEFT_OUT, CANNOT_TELL))
MAX_BRANDNAME = 100
MAX_BRANDNAMES = 500


class Answer:
    """The fields of one reply. The result's text says what was left out."""

    def __init__(self, reply: Reply, keys: Keys) -> None:
        self._reply, self._keys = reply, keys
        self._fields = _parse(reply.body)
        self._notes: list[str] = []

    def as_send_result(self) -> SendResult:
        """Read `CodeResult` and `SMSID`; eSMS documents both as strings, and public clients have met numbers."""
        outcome, code = self._judge("CodeResult")
        value = self._get("SMSID")
        sms_id = _clean(self._unless_key(_as_scalar(value) if _is_text_or_integer(value) else ""))
        if len(sms_id) > MAX_SMS_ID:
            self._notes.append(_LONG_SMS_ID)
            sms_id = ""
        return SendResult(
            outcome=outcome,
            code=code,
            sms_id=sms_id,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def as_status_result(self) -> StatusResult:
        """Read `CodeResponse`, as eSMS's documentation of GetSendStatus names it, or else `CodeResult`."""
        outcome, code = self._judge("CodeResponse", "CodeResult")
        values: dict[str, str] = {}
        for name, value in (self._fields or {}).items():
            if len(values) == MAX_VALUES:
                break
            if isinstance(value, dict | list) or self._unless_key(name) != name:
                continue
            values[_clean(name)[:MAX_NAME]] = _clean(self._unless_key(_as_scalar(value)))[:MAX_VALUE]
        return StatusResult(
            outcome=outcome,
            code=code,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
            values=values,
        )

    def as_balance_result(self) -> BalanceResult:
        """Read `Balance`, as a number or as a string that is one; it counts with code 100 only."""
        outcome, code = self._judge("CodeResponse", "CodeResult")
        amount = _as_decimal(_as_scalar(self._get("Balance"))) if code == SUCCESS else ""
        return BalanceResult(
            outcome=outcome,
            code=code,
            balance=amount if isinstance(amount, Decimal) and amount.is_finite() else None,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def as_brandnames_result(self) -> BrandnamesResult:
        """Read the names in `ListBrandName` that are of the type 23, given as a number or as a string."""
        # A refusal has the code in `CodeResult`, a good answer in `CodeResponse`.
        outcome, code = self._judge("CodeResponse", "CodeResult")
        found, listed = dict[str, None](), self._get("ListBrandName")
        if code == SUCCESS and isinstance(listed, list):
            for entry in listed:
                given = _get(entry, "Brandname") if isinstance(entry, dict) else None
                name = self._unless_key(given).strip() if isinstance(given, str) else ""
                if not 0 < len(name) <= MAX_BRANDNAME or name != _clean(name) or len(found) == MAX_BRANDNAMES:
                    self._notes.append(_LEFT_OUT)
                elif _as_scalar(_get(entry, "Type")).strip() == VIBER_TYPE:
                    found[name] = None
        is_told = code == SUCCESS and isinstance(listed, list)
        return BrandnamesResult(
            outcome=outcome,
            code=code,
            brandnames=tuple(found) if is_told else None,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def as_sent_result(self) -> SentResult:
        """Read `SentData`; an entry counts if its SMSID (`ReferenceId`), phone and time can be read."""
        outcome, code = self._judge("CodeResult", "CodeResponse")
        listed, total = self._get("SentData"), _as_integer(self._get("CountTotal"))
        # An empty list may be missing, or null, where the count says that it is empty.
        is_told = code == SUCCESS and (isinstance(listed, list) or (listed is None and total == 0))
        entries, unreadable = list[SentEntry](), list[str]()
        for fields in listed or () if is_told else ():
            entry = self._read_entry(fields) if isinstance(fields, dict) else ""
            if isinstance(entry, SentEntry):
                entries.append(entry)
            else:
                unreadable.append(entry)
                self._notes.append(_LEFT_OUT)
        return SentResult(
            outcome=outcome,
            code=code,
            entries=tuple(entries) if is_told else None,
            unreadable=tuple(unreadable),
            total=total,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def _read_entry(self, fields: Mapping[str, Any]) -> SentEntry | str:
        """Return the entry or, where what identifies it cannot be read, its phone."""
        try:
            phone = normalize_phone(_as_scalar(_get(fields, "Phone")).strip())
        except InvalidPhone:
            return ""
        sms_id, when = _get(fields, "ReferenceId"), _as_moment(_get(fields, "SentTime"))
        sms_id = _clean(self._unless_key(_as_scalar(sms_id))) if _is_text_or_integer(sms_id) else ""
        content = _get(fields, "Content")
        if not sms_id or len(sms_id) > MAX_SMS_ID or when is None or not isinstance(content, str | None):
            return phone
        # The older documentation has a `SentResult` that is true or false.
        result = _get(fields, "SendResult")
        result = _as_scalar(_get(fields, "SentResult") if result is None else result).strip().casefold()
        price = _as_decimal(_as_scalar(_get(fields, "SellPrice")))
        return SentEntry(
            sms_id=sms_id,
            phone=phone,
            content=content or "",
            sent_at=when,
            send_status=_as_integer(_get(fields, "SendStatus")),
            delivered={"1": True, "true": True, "0": False, "false": False}.get(result),
            price=price if isinstance(price, Decimal) and price.is_finite() else None,
        )

    def _judge(self, *names: str) -> tuple[CallOutcome, str]:
        if self._fields is None:
            return (CallOutcome.NO_ANSWER if self._reply.left else CallOutcome.NOT_CONNECTED), ""
        for name in names:
            value = self._get(name)
            code = _as_scalar(value).strip() if _is_text_or_integer(value) else ""
            # Up to three digits are not compared with the keys, because a made-up key of a test may be so short.
            code = code if re.fullmatch("[0-9]{1,3}", code) else self._unless_key(code)
            if code and len(code) <= MAX_CODE and code.isprintable():
                return CallOutcome.ANSWERED, code
        return CallOutcome.ANSWERED_WITHOUT_CODE, ""

    def _get(self, name: str) -> Any:
        """Get a field by its documented name, or by that name in another case, because eSMS's own pages disagree."""
        return _get(self._fields or {}, name)

    def _text(self, outcome: CallOutcome) -> str:
        reply, words = self._reply, ""
        # A body without fields is not quoted, because an error page may repeat the URL and its keys.
        if self._fields is not None:
            for name in ("ErrorMessage", "error", "Message"):
                value = self._get(name)
                if isinstance(value, str) and (words := _clean(self._unless_key(value))):
                    break
        elif reply.problem or reply.status is None:
            words = reply.problem
        elif 300 <= reply.status < 400:
            words = put_together(REDIRECTED, f"HTTP {reply.status}")
        else:
            kind = _clean(self._unless_key(reply.content_type))[:_MAX_CONTENT_TYPE]
            words = put_together(_NOT_JSON, f"HTTP {reply.status}", kind)
        if outcome is CallOutcome.ANSWERED_WITHOUT_CODE and not words:
            words = put_together(_WITHOUT_CODE, f"HTTP {reply.status}")
        return put_together(*dict.fromkeys(self._notes), words)[:MAX_TEXT].strip()

    def _unless_key(self, text: str) -> str:
        if self._keys.show_in(text):
            self._notes.append(WITHHELD)
            return ""
        return text


def _get(fields: Mapping[str, Any], name: str) -> Any:
    if name in fields:
        return fields[name]
    return next((value for key, value in fields.items() if key.casefold() == name.casefold()), None)


def own_words(text: str) -> str:
    """Keep only this app's own sentences, for the log, because eSMS's words may repeat the phone or the message."""
    return put_together(*(part for part in parts(text) if part in _OWN_SENTENCES))


def _parse(body: bytes | None) -> Mapping[str, Any] | None:
    """Return the JSON object in the body, with exact numbers; None for anything else.

    A number that Python cannot hold stays text, so that the other fields are not lost with it.
    """
    text = (body or b"").decode("utf-8-sig", "replace")
    try:
        parsed = json.loads(
            text,
            parse_int=lambda digits: int(digits) if len(digits) <= MAX_VALUE else digits,
            parse_float=_as_decimal,
            parse_constant=str,
        )
    except (ValueError, RecursionError):  # a body that is nested too deeply
        return None
    return parsed if isinstance(parsed, dict) else None


def _as_decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except ArithmeticError:  # no number, or an exponent that Decimal cannot hold
        return text


def _as_integer(value: Any) -> int | None:
    text = _as_scalar(value).strip()
    return int(text) if re.fullmatch("-?[0-9]{1,9}", text) else None


def _as_moment(value: Any) -> dt.datetime | None:
    """Read `/Date(1705484048995+0700)/`, which counts from 1970 in UTC, or `23/11/2023 17:06:37` in Vietnam's time."""
    text = _as_scalar(value).strip()
    try:
        if match := re.fullmatch(r"/Date\((-?[0-9]{1,15})(?:[+-][0-9]{4})?\)/", text):
            return dt.datetime.fromtimestamp(int(match[1]) / 1000, dt.UTC)
        return dt.datetime.strptime(text, "%d/%m/%Y %H:%M:%S").replace(tzinfo=VIETNAM)
    except (ValueError, OverflowError, OSError):  # no time, or one that no calendar has
        return None


def _is_text_or_integer(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _as_scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _clean(text: str) -> str:
    """Put the text on one line, without control, direction and surrogate characters."""
    printable = text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r" +", " ", printable).strip()
