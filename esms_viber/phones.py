"""Vietnamese mobile numbers: read in any spelling, stored as E.164, sent in the national form."""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.core.exceptions import ValidationError
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise
    from phonenumbers.phonemetadata import PhoneNumberDesc


# In 2018 every 11-digit mobile number became a 10-digit one; only the prefix changed.
PREFIXES_BEFORE_2018 = {
    "120": "70", "121": "79", "122": "77", "126": "76", "128": "78",
    "123": "83", "124": "84", "125": "85", "127": "81", "129": "82",
    "162": "32", "163": "33", "164": "34", "165": "35",
    "166": "36", "167": "37", "168": "38", "169": "39",
    "186": "56", "188": "58", "199": "59",
}  # fmt: skip

_SIGNIFICANT_DIGITS = 9
_SHORTEST_SEARCH = 3
_E164 = re.compile(r"\+84[0-9]{9}")
_DIGITS = re.compile(r"\+?[0-9]+")
_EXTENSION = re.compile(r"[0-9][\s).]*(?:[,;#*]|x|e?xt|máy lẻ|nhánh)", re.IGNORECASE)
_SHORTENED = re.compile(r"\s*[0-9]+(?:[.,][0-9]+)?\s*E\s*[+-]?[0-9]{1,3}\s*", re.IGNORECASE)
_WITH_COMMA = re.compile(r"\s*[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?\s*|\+?[0-9\s.]*[0-9],[0-9]{1,2}\s*")
_WITH_ZEROS = re.compile(r"\s*(\+?[0-9]{9,13})[.,]0+\s*")
_CURRENCY = re.compile(r"[0-9]\s*(?:đ|vnđ|vnd|đồng|usd|eur)\s*\Z", re.IGNORECASE)
_TEL_URI = re.compile(r"\s*(?:tel|callto|sms|smsto|viber|zalo|whatsapp):", re.IGNORECASE)


class InvalidPhone(ValueError):
    """The text is no Vietnamese mobile number; `message` tells a person what to write instead."""

    def __init__(self, code: str, message: _StrOrPromise) -> None:
        super().__init__(code, message)
        self.code = code
        self.message = message

    def __str__(self) -> str:
        return str(self.message)


def normalize_phone(text: str) -> str:
    """Return the E.164 form of a Vietnamese mobile number in any spelling; raise `InvalidPhone` for other texts."""
    compact = text
    if not _DIGITS.fullmatch(text):
        compact = _without_separators(text)
        if not compact:
            raise InvalidPhone("empty", _("Enter a mobile number, such as 0901888484."))
        if not _DIGITS.fullmatch(compact):
            raise _unreadable(text)
        if not _dots_group(text, compact):
            raise _decimal(text)
    international = "+" + compact[2:] if compact.startswith("00") else compact
    if international.startswith("+84"):
        national = international[3:]
    elif international.startswith("+"):
        raise InvalidPhone("country", _("Only Vietnamese numbers can be reached: enter one that begins with 0 or +84."))
    elif compact.startswith("84") and len(compact) > _SIGNIFICANT_DIGITS:
        national = compact[2:]
    else:
        national = compact
    # A 0 may be there or not: some write it after the country code, as in +84(0)901…, and spreadsheets drop it.
    return "+84" + _require_mobile(national.removeprefix("0"))


def validate_phone(value: str) -> None:
    """Validate a model or form field; raise `ValidationError`, saying what to do."""
    try:
        normalize_phone(str(value or ""))
    except InvalidPhone as error:
        raise ValidationError(error.message, code=error.code) from None


def to_national(phone: str) -> str:
    """Return the form of an E.164 number that goes over the wire: 0901888484."""
    return "0" + phone.removeprefix("+84")


def spaced_phone(phone: str) -> str:
    """Return an E.164 number as people in Vietnam write it: 0901 888 484."""
    national = to_national(phone)
    return f"{national[:4]} {national[4:7]} {national[7:]}".strip()


def mask_phone(phone: str) -> str:
    """Mask an E.164 number for a log; any other text becomes `***`."""
    return f"{phone[:5]}***{phone[-3:]}" if _E164.fullmatch(phone) else "***"


def holds_number(text: str, phone: str) -> bool:
    """Do the digits of this E.164 number stand in the text, however they are grouped, and however the number begins?"""
    digits = phone.removeprefix("+84")
    return bool(digits) and digits in "".join(c for c in text if c.isdigit())


def phone_beginnings(text: str) -> list[str]:
    """Return how stored numbers may begin, given a whole number, or the beginning of one, in any spelling.

    There are two where 84 may be the country's code or the first digits of the number. The list is empty if the text
    does not look like a phone number.
    """
    compact = _without_separators(text)
    if len(compact) < _SHORTEST_SEARCH or not _DIGITS.fullmatch(compact):
        return []
    digits = re.sub(r"^(00|\+)", "", compact)
    is_international = digits != compact
    nationals = []
    if digits.startswith("84"):
        nationals.append(digits[2:].removeprefix("0"))
    if not is_international:
        nationals.append(digits.removeprefix("0"))
    return [f"+84{national}" for national in nationals if 0 < len(national) <= _SIGNIFICANT_DIGITS]


def _without_separators(text: str) -> str:
    # The categories cover no-break spaces, long dashes and direction marks, which numbers copied from a contact list or
    # a web page carry.
    return "".join(c for c in text if not (c in ".()" or c.isspace() or unicodedata.category(c) in {"Pd", "Zs", "Cf"}))


def _dots_group(text: str, compact: str) -> bool:
    """Do the dots only group the digits of a number, as in 0901.888.484, or are there decimals, as in 38221234.0?"""
    # Separators after the last digit are left out, because they end a sentence and not the number.
    up_to_last_digit = text[: text.rindex(compact[-1]) + 1]
    whole, *parts = (_without_separators(part) for part in up_to_last_digit.split("."))
    if not parts:
        return True
    with_84 = compact.startswith("84") and len(compact) >= _SIGNIFICANT_DIGITS + 2
    with_prefix = bool(re.match(r"\+|0[0-9]", whole))
    if len(parts) == 1:
        # No program writes a 0 or + before a decimal number, and no person two digits after the only dot.
        return (with_prefix or (with_84 and whole == "84")) and len(parts[0]) > 2
    # With more dots it is no decimal number, but may have its thousands set apart: 901.888.484.
    return len(parts[-1]) > (1 if with_prefix or with_84 or whole == "0" else 2)


def _decimal(text: str) -> InvalidPhone:
    if found := _WITH_ZEROS.fullmatch(text):
        try:
            phone = to_national(normalize_phone(found[1]))
        except InvalidPhone:
            pass
        else:
            return InvalidPhone(
                "decimal",
                format_lazy(_("A spreadsheet has added decimals to this number: enter {phone}."), phone=phone),
            )
    return InvalidPhone(
        "decimal",
        _("This is a number with decimals: enter the mobile number alone, such as 0901888484."),
    )


def _unreadable(text: str) -> InvalidPhone:
    if _TEL_URI.match(text):
        return InvalidPhone("uri", _("Enter only the number, such as 0901888484, without “tel:”."))
    if any(c.isdigit() and not c.isascii() for c in text) or "\N{FULLWIDTH PLUS SIGN}" in text:
        return InvalidPhone("digits", _("Type the number with the ordinary digits 0 to 9."))
    if _SHORTENED.fullmatch(text):
        return InvalidPhone(
            "shortened",
            _(
                "A spreadsheet has shortened this number, and digits of it may be lost: make the column text there, "
                "write the numbers again, and save."
            ),
        )
    if _WITH_COMMA.fullmatch(text) or _WITH_ZEROS.fullmatch(text):
        return _decimal(text)
    if _CURRENCY.search(text) or any(unicodedata.category(c) == "Sc" for c in text):
        return InvalidPhone("amount", _("This is an amount of money: enter a mobile number, such as 0901888484."))
    if _EXTENSION.search(text):
        return InvalidPhone(
            "extension",
            _("Enter one mobile number alone, without an extension or a second number."),
        )
    if any(c.isalpha() for c in text):
        return InvalidPhone("letters", _("Enter the number in digits only, such as 0901888484."))
    return InvalidPhone("characters", _("Enter one number of digits only, such as 0901888484."))


@functools.cache
def _numbering_plan() -> dict[str, re.Pattern[str]]:
    """The kinds of numbers in Vietnam by the metadata of phonenumbers; the first that matches counts.

    The library's own `number_type()` asks the same patterns in the same order, and takes ten times as long.
    """
    # Imported here, because that takes 15 ms, and many processes of a site read no phone.
    from phonenumbers import PhoneMetadata

    plan: Any = PhoneMetadata.metadata_for_region("VN")
    services = [plan.premium_rate, plan.toll_free, plan.shared_cost, plan.voip, plan.personal_number, plan.pager]
    kinds = {"service": [*services, plan.uan, plan.voicemail], "landline": [plan.fixed_line], "mobile": [plan.mobile]}
    possible = _pattern_of([plan.general_desc])
    return {kind: re.compile(rf"(?=(?:{possible})\Z)(?:{_pattern_of(found)})") for kind, found in kinds.items()}


def _pattern_of(descriptions: Iterable[PhoneNumberDesc | None]) -> str:
    patterns = []
    for found in descriptions:
        if found is not None and found.national_number_pattern:
            # The library compares the number of digits as well.
            lengths = "|".join(f".{{{length}}}" for length in found.possible_length) or ".*"
            patterns.append(rf"(?=(?:{lengths})\Z)(?:{found.national_number_pattern})")
    return "|".join(patterns) or r"(?!)"


def _kind(national: str) -> str:
    return next((kind for kind, numbers in _numbering_plan().items() if numbers.fullmatch(national)), "unknown")


def _require_mobile(national: str) -> str:
    kind = "unknown" if national.startswith("0") else _kind(national)
    new_prefix = PREFIXES_BEFORE_2018.get(national[:3])
    if new_prefix and len(national) == _SIGNIFICANT_DIGITS + 1:
        raise InvalidPhone(
            "before_2018",
            format_lazy(
                _("This 11-digit number was replaced in 2018: enter its 10-digit form, {phone}."),
                phone=f"0{new_prefix}{national[3:]}",
            ),
        )
    if kind == "landline":
        raise InvalidPhone(
            "landline",
            _("This is a landline: enter a mobile number, such as 0901888484."),
        )
    if kind == "service":
        raise InvalidPhone(
            "service",
            _("This is a hotline or service number: enter a mobile number, such as 0901888484."),
        )
    if len(national) < _SIGNIFICANT_DIGITS:
        raise InvalidPhone("too_short", _("Digits are missing: a mobile number has 10 of them, such as 0901888484."))
    if len(national) > _SIGNIFICANT_DIGITS:
        raise InvalidPhone(
            "too_long",
            _("There are too many digits: a mobile number has 10 of them, such as 0901888484."),
        )
    # Numbers with 01… are refused although the library knows some, because since 2018 they are machines, or old numbers
    # that lost a digit.
    if national[0] not in "35789" or kind != "mobile":
        raise InvalidPhone(
            "prefix",
            format_lazy(
                _("No Vietnamese mobile number is known to begin with {prefix}: check the digits."),
                prefix="0" + national[:3],
            ),
        )
    return national
