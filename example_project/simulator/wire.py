"""Reads the query string of a GET as it stood on the wire, and remarks on what is not as documented."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

SEND_PARAMETERS = (
    "SmsType",
    "Phone",
    "Content",
    "ApiKey",
    "SecretKey",
    "Brandname",
    "OTTUrl",
    "OTTImgUrl",
    "OTTLabel",
    "RequestId",
    "CallbackUrl",
    "Sandbox",
)
URL_PARAMETERS = ("OTTUrl", "OTTImgUrl", "CallbackUrl")
MAX_CONTENT_LENGTH = 1000
MAX_LABEL_LENGTH = 30
LOCAL_PHONE = re.compile(r"0\d{9}")
ENCODED_TWICE = re.compile(r"(?=.*%)(?:[\w.~!*'()-]|%[0-9A-F]{2})+", re.ASCII | re.IGNORECASE)
URL_ENCODED_TWICE = re.compile(r"https?%3A", re.IGNORECASE)
LONE_LINE_BREAK = re.compile(r"(?<!\r)\n|\r(?!\n)")

TOO_LONG = _("{name} is longer than Viber's {most} characters")

Oddity = tuple["_StrOrPromise", dict[str, object]]
"""A sentence about the parameter `{name}`, and what else it says."""


@dataclass(frozen=True, slots=True)
class Parameter:
    name: str
    raw: str

    @property
    def value(self) -> str:
        return unquote_plus(self.raw, errors="replace")


def read_query(query: str) -> list[Parameter]:
    pairs = (part.partition("=") for part in query.split("&") if part)
    return [Parameter(unquote_plus(name), raw) for name, _equals, raw in pairs]


def as_dict(parameters: list[Parameter]) -> dict[str, str]:
    """First value by exact name: whether eSMS would match another spelling is not documented."""
    found: dict[str, str] = {}
    for parameter in parameters:
        found.setdefault(parameter.name, parameter.value)
    return found


def find_oddities(parameters: list[Parameter]) -> list[_StrOrPromise]:
    """Sentences about a send call that eSMS may or may not forgive. They name parameters, never values."""
    names = [parameter.name for parameter in parameters]
    oddities = [
        format_lazy(_("{name} is given {count} times"), name=name, count=names.count(name))
        for name in sorted(set(names))
        if names.count(name) > 1
    ]
    for parameter in parameters:
        oddities += [
            format_lazy(sentence, name=parameter.name, **values) for sentence, values in _find_in_parameter(parameter)
        ]
    return oddities


def _find_in_parameter(parameter: Parameter) -> Iterator[Oddity]:
    name, raw, value = parameter.name, parameter.raw, parameter.value
    if name not in SEND_PARAMETERS:
        yield _describe_unknown_name(name)
        return
    if not value:
        yield _("{name} is empty; an absent parameter is left out"), {}
    if "+" in raw:
        yield _("{name} has '+' for a space; %20 is what the documented samples use"), {}
    if "�" in value:
        yield _("{name} is not UTF-8"), {}
    if not unicodedata.is_normalized("NFC", value):
        yield _("{name} is not in Unicode's composed form (NFC)"), {}
    yield from _find_in_url(raw, value) if name in URL_PARAMETERS else _find_in_text(value)
    yield from _find_by_name(name, value)


def _describe_unknown_name(name: str) -> Oddity:
    for known in SEND_PARAMETERS:
        if name.lower() == known.lower():
            return _("{name} is spelt {known} in this call"), {"known": known}
    return _("{name} is not a parameter of the Viber call"), {}


def _find_in_url(raw: str, value: str) -> Iterator[Oddity]:
    if URL_ENCODED_TWICE.match(value):
        yield _("{name} is percent-encoded twice"), {}
    elif ":" in raw or "/" in raw:
        yield _("{name} is a URL inside a URL and not fully percent-encoded"), {}


def _find_in_text(value: str) -> Iterator[Oddity]:
    if ENCODED_TWICE.fullmatch(value):
        yield _("{name} looks percent-encoded twice"), {}


def _find_by_name(name: str, value: str) -> Iterator[Oddity]:
    if name == "Content":
        if LONE_LINE_BREAK.search(value):
            yield _("{name} has a line break that is not CR LF"), {}
        if len(value.replace("\r\n", "\n")) > MAX_CONTENT_LENGTH:
            yield TOO_LONG, {"most": MAX_CONTENT_LENGTH}
    elif name == "OTTLabel" and len(value) > MAX_LABEL_LENGTH:
        yield TOO_LONG, {"most": MAX_LABEL_LENGTH}
    elif name == "Phone" and not LOCAL_PHONE.fullmatch(value):
        yield _("{name} is not in the form of the samples, 0901888484"), {}
    elif name == "OTTImgUrl" and not value.startswith("https://"):
        yield _("{name} is not an https URL"), {}
    elif name == "CallbackUrl" and ("?" in value or "#" in value):
        yield _("{name} has a query or fragment; how parameters are appended then is not documented"), {}
    elif name == "Sandbox" and value not in ("0", "1"):
        yield _("{name} is neither 0 nor 1"), {}
