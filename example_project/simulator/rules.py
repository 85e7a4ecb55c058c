"""Which send calls are refused, with which documented code. Rules that need memory are in `state`."""

from __future__ import annotations

import re
from collections.abc import Mapping

from .conf import Config

VIBER = "23"
"""The type of a Viber message, in calls and in lists."""
MOBILE = re.compile(r"(?:0|84)([35789]\d{8})")
MAX_REQUEST_ID_LENGTH = 50
KINDS = {
    frozenset({"Content"}): "text",
    frozenset({"OTTImgUrl"}): "image",
    frozenset({"Content", "OTTUrl", "OTTLabel"}): "text + button",
    frozenset({"Content", "OTTImgUrl", "OTTUrl", "OTTLabel"}): "text + image + button",
}
CONTENT_PARAMETERS = frozenset().union(*KINDS)
TELCOS = {
    1: "32 33 34 35 36 37 38 39 86 96 97 98",
    2: "70 76 77 78 79 89 90 93",
    3: "81 82 83 84 85 88 91 94",
    4: "52 56 58 92",
    5: "59 99",
    6: "87",
    7: "55",
}
TELCO_BY_PREFIX = {"0" + prefix: telco for telco, prefixes in TELCOS.items() for prefix in prefixes.split()}

Answer = dict[str, object]

INVALID_REQUEST: Answer = {"error": "Invalid request"}
"""Documented, but not for what: that it answers a forbidden mix or an over-long RequestId is chosen here."""


def refusal(code: int, message: str) -> Answer:
    return {"CodeResult": str(code), "CountRegenerate": 0, "ErrorMessage": message}


def local_phone(phone: str) -> str | None:
    """The phone as eSMS writes it, 0901888484; None if it is no Vietnamese mobile number."""
    match = MOBILE.fullmatch(phone)
    return f"0{match[1]}" if match else None


def telco_of(phone: str) -> int:
    return TELCO_BY_PREFIX.get(phone[:3], 9)


def find_kind(values: Mapping[str, str]) -> str | None:
    return KINDS.get(frozenset(name for name in CONTENT_PARAMETERS if values.get(name)))


def has_right_keys(values: Mapping[str, object], config: Config) -> bool:
    return (values.get("ApiKey"), values.get("SecretKey")) == (config.API_KEY, config.SECRET_KEY)


def find_refusal(values: Mapping[str, str], config: Config) -> Answer | None:
    """The first rule that the call breaks, told as eSMS tells it; None if it breaks none."""
    if not has_right_keys(values, config):
        return refusal(101, "Authorize Failed")
    return _refuse_type(values) or _refuse_phone(values, config) or _refuse_rest(values, config)


def _refuse_type(values: Mapping[str, str]) -> Answer | None:
    match values.get("SmsType", ""):
        case kind if kind == VIBER:
            return None
        case "":
            return refusal(300, "SmsType is required")
        case _:
            return refusal(118, "SmsType is not supported")


def _refuse_phone(values: Mapping[str, str], config: Config) -> Answer | None:
    phone = local_phone(values.get("Phone", ""))
    if phone is None:
        return refusal(108, "Phone number is not valid")
    if phone in config.BLOCKED_PHONES:
        return refusal(99, "Phone number is blocked")
    return None


def _refuse_rest(values: Mapping[str, str], config: Config) -> Answer | None:
    if values.get("Brandname") not in config.BRANDNAMES:
        return refusal(104, "Brand name code is not exist")
    if find_kind(values) is None or len(values.get("RequestId", "")) > MAX_REQUEST_ID_LENGTH:
        return INVALID_REQUEST
    return None
