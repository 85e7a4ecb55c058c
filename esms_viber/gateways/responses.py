"""Read eSMS's answers without believing anything: bounded, cleaned, and never with a key in them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from django.utils.translation import gettext_noop

from ..formatting import parts, put_together
from .base import BalanceResult, CallOutcome, SendResult, StatusResult
from .credentials import Keys
from .transport import PROBLEMS, REDIRECTED, Reply

SUCCESS = "100"
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
_OWN_SENTENCES = PROBLEMS.union((WITHHELD, _LONG_SMS_ID, _WITHOUT_CODE, _NOT_JSON))


class Answer:
    """The fields of one reply; what had to be left out is said in the text."""

    def __init__(self, reply: Reply, keys: Keys) -> None:
        self._reply, self._keys = reply, keys
        self._fields = _parse(reply.body)
        self._notes: list[str] = []

    def as_send_result(self) -> SendResult:
        """`CodeResult` and `SMSID`; eSMS documents both as strings, public clients have met numbers."""
        outcome, code = self._judge("CodeResult")
        sms_id = self._sms_id()
        return SendResult(
            outcome=outcome,
            code=code,
            sms_id=sms_id,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def as_status_result(self) -> StatusResult:
        """`CodeResponse`, as the eSMS documentation of GetSendStatus has it, or `CodeResult`."""
        outcome, code = self._judge("CodeResponse", "CodeResult")
        values = self._values()
        return StatusResult(
            outcome=outcome,
            code=code,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
            values=values,
        )

    def as_balance_result(self) -> BalanceResult:
        """`Balance` counts with code 100 only."""
        outcome, code = self._judge("CodeResponse", "CodeResult")
        balance = _as_amount(self._get("Balance")) if code == SUCCESS else None
        return BalanceResult(
            outcome=outcome,
            code=code,
            balance=balance,
            text=self._text(outcome),
            http_status=self._reply.status,
            duration_ms=self._reply.duration_ms,
        )

    def _judge(self, *names: str) -> tuple[CallOutcome, str]:
        if self._fields is None:
            return (CallOutcome.NO_ANSWER if self._reply.left else CallOutcome.NOT_CONNECTED), ""
        for name in names:
            if code := self._code(self._get(name)):
                return CallOutcome.ANSWERED, code
        return CallOutcome.ANSWERED_WITHOUT_CODE, ""

    def _get(self, name: str) -> Any:
        """A field by its documented name, else by that name in another case: eSMS's own pages disagree."""
        fields = self._fields or {}
        if name in fields:
            return fields[name]
        return next((value for key, value in fields.items() if key.casefold() == name.casefold()), None)

    def _code(self, value: Any) -> str:
        code = _as_scalar(value).strip() if _is_text_or_integer(value) else ""
        # No key is so short; a key that a test has made up may be.
        code = code if re.fullmatch("[0-9]{1,3}", code) else self._unless_key(code)
        return code if len(code) <= MAX_CODE and code.isprintable() else ""

    def _sms_id(self) -> str:
        value = self._get("SMSID")
        sms_id = _clean(self._unless_key(_as_scalar(value) if _is_text_or_integer(value) else ""))
        if len(sms_id) > MAX_SMS_ID:
            self._notes.append(_LONG_SMS_ID)
            return ""
        return sms_id

    def _values(self) -> dict[str, str]:
        values: dict[str, str] = {}
        for name, value in (self._fields or {}).items():
            if len(values) == MAX_VALUES:
                break
            if isinstance(value, dict | list) or self._unless_key(name) != name:
                continue
            values[_clean(name)[:MAX_NAME]] = _clean(self._unless_key(_as_scalar(value)) or "")[:MAX_VALUE]
        return values

    def _text(self, outcome: CallOutcome) -> str:
        reply = self._reply
        # Without fields it is a sentence of ours, because an error page's body may hold the URL and its keys.
        if self._fields is not None:
            words = self._words()
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

    def _words(self) -> str:
        for name in ("ErrorMessage", "error", "Message"):
            value = self._get(name)
            if isinstance(value, str) and (words := _clean(self._unless_key(value))):
                return words
        return ""

    def _unless_key(self, text: str) -> str:
        if self._keys.show_in(text):
            self._notes.append(WITHHELD)
            return ""
        return text


def own_words(text: str) -> str:
    """Keep this app's own sentences of a result's text, for the log: eSMS's words may repeat the phone or the text."""
    return put_together(*(part for part in parts(text) if part in _OWN_SENTENCES))


def _parse(body: bytes | None) -> Mapping[str, Any] | None:
    """The JSON object in the body, numbers exact; None for anything else.

    A value that Python cannot hold is kept as text, so that no field costs the others.
    """
    text = (body or b"").decode("utf-8-sig", "replace")
    try:
        parsed = json.loads(text, parse_int=_as_integer, parse_float=_as_decimal, parse_constant=str)
    except (ValueError, RecursionError):  # RecursionError: nested too deeply
        return None
    return parsed if isinstance(parsed, dict) else None


def _as_integer(text: str) -> int | str:
    return int(text) if len(text) <= MAX_VALUE else text


def _as_decimal(text: str) -> Decimal | str:
    try:
        return Decimal(text)
    except ArithmeticError:  # an exponent that Decimal cannot hold
        return text


def _is_text_or_integer(value: Any) -> bool:
    return isinstance(value, str | int) and not isinstance(value, bool)


def _as_scalar(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


def _as_amount(value: Any) -> Decimal | None:
    """A number, or a string that is one."""
    text = _as_scalar(value) if not isinstance(value, bool) else ""
    try:
        amount = Decimal(text)
    except ArithmeticError:
        return None
    return amount if amount.is_finite() else None


def _clean(text: str) -> str:
    """One line without control, direction or surrogate characters."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return re.sub(r" +", " ", printable).strip()
