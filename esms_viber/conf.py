"""The `ESMS_VIBER` setting: one table of defaults, read each time it is used."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured


@dataclass(frozen=True, slots=True)
class ViberSettings:
    """Every key of `ESMS_VIBER` with its default. The account's keys stay out of `repr()`."""

    API_KEY: str = field(default="", repr=False)
    SECRET_KEY: str = field(default="", repr=False)
    BRANDNAME: str = ""
    SANDBOX: bool = False
    CALLBACK_ORIGIN: str | None = None
    """Scheme and host under which eSMS reaches this site; None: no callback is asked for."""
    GATEWAY: str = "esms_viber.gateways.esms.EsmsGateway"
    DISPATCHER: str | Callable[[list[int]], object] = "esms_viber.dispatch.inline"
    BASE_URL: str = "https://rest.esms.vn/MainService.svc/json/"
    TIMEOUT: tuple[float, float] = (5, 30)
    """Seconds to connect; seconds from the request leaving to the last byte of its answer."""
    CONCURRENCY: int = 16
    INLINE_LIMIT: int = 50
    MAX_ATTEMPTS: int = 5
    MAX_PER_SECOND: float | None = None
    MAX_CONTENT_LENGTH: int = 1000
    """Code points; a line break counts one."""
    MAX_LABEL_LENGTH: int = 30
    MAX_QUERY_LENGTH: int = 2048
    SEND_ON_SAVE: bool = False


NAMES = tuple(f.name for f in fields(ViberSettings))


BASE_URL = re.compile(r"https?://[^\s?#@/]+(/[^\s?#]*)?")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pair_of_seconds(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) == 2 and all(map(_is_positive_number, value))


_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "API_KEY": (_is_text, "a string"),
    "SECRET_KEY": (_is_text, "a string"),
    "BRANDNAME": (_is_text, "a string"),
    "SANDBOX": (_is_flag, "True or False"),
    "CALLBACK_ORIGIN": (
        lambda v: v is None or _is_text(v),
        'a string such as "https://shop.example.vn", or None',
    ),
    "GATEWAY": (_is_text, "the dotted path of a gateway class"),
    "DISPATCHER": (lambda v: _is_text(v) or callable(v), "a dotted path or a callable"),
    "BASE_URL": (
        lambda v: _is_text(v) and BASE_URL.fullmatch(v) is not None,
        "an http(s) URL without user, query and fragment",
    ),
    "TIMEOUT": (_is_pair_of_seconds, "two positive numbers of seconds, (connect, read)"),
    "CONCURRENCY": (_is_positive_integer, "a positive integer"),
    "INLINE_LIMIT": (_is_positive_integer, "a positive integer"),
    "MAX_ATTEMPTS": (_is_positive_integer, "a positive integer"),
    "MAX_PER_SECOND": (lambda v: v is None or _is_positive_number(v), "a positive number, or None"),
    "MAX_CONTENT_LENGTH": (_is_positive_integer, "a positive integer"),
    "MAX_LABEL_LENGTH": (_is_positive_integer, "a positive integer"),
    "MAX_QUERY_LENGTH": (_is_positive_integer, "a positive integer"),
    "SEND_ON_SAVE": (_is_flag, "True or False"),
}


def find_problems(raw: Mapping[str, Any]) -> dict[str, str]:
    """Known keys whose value is of a wrong type, with what is wanted instead. Values are not repeated."""
    return {name: wanted for name, (fits, wanted) in _RULES.items() if name in raw and not fits(raw[name])}


def get_settings() -> ViberSettings:
    """The settings as they are now. Unknown keys are left to the system checks.

    Raises `ImproperlyConfigured`, naming the setting, for a value of a wrong type.
    """
    # Raised from a frame that never held the dict: pages and trackers of errors show local variables.
    if sentence := _first_problem():
        raise ImproperlyConfigured(sentence)
    return _read()


def _first_problem() -> str:
    raw = getattr(settings, "ESMS_VIBER", {})
    if not isinstance(raw, Mapping):
        return "The setting ESMS_VIBER must be a dict."
    return next((f'ESMS_VIBER["{name}"] must be {wanted}.' for name, wanted in find_problems(raw).items()), "")


def _read() -> ViberSettings:
    raw = getattr(settings, "ESMS_VIBER", {})
    return ViberSettings(**{name: raw[name] for name in NAMES if name in raw})
