"""What the checks take addresses apart with."""

from __future__ import annotations

import ipaddress
from urllib.parse import SplitResult, urlsplit

_LOCAL_TOP_LEVELS = {"example", "internal", "invalid", "lan", "local", "localhost", "test"}


def split(url: str) -> SplitResult | None:
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return None
    return parts


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def is_public(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_global
    except ValueError:
        name, _, top_level = host.rstrip(".").rpartition(".")
        return bool(name) and not top_level.isdigit() and top_level not in _LOCAL_TOP_LEVELS
