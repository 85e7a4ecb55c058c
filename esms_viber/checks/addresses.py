"""Take addresses apart, for the checks."""

from __future__ import annotations

import contextlib
import ipaddress
import socket
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
    address = _as_address(host)
    if address is None:
        name = host.rstrip(".").lower()
        return name in {"localhost", "localhost.localdomain"} or name.endswith(".localhost")
    # A connection to 0.0.0.0 goes to this machine, too.
    return address.is_loopback or address.is_unspecified


def is_public(host: str) -> bool:
    address = _as_address(host)
    if address is not None:
        return address.is_global
    name, _, top_level = host.rstrip(".").rpartition(".")
    return bool(name) and not top_level.isdigit() and top_level not in _LOCAL_TOP_LEVELS


def _as_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(host)
        return getattr(address, "ipv4_mapped", None) or address
    with contextlib.suppress(OSError, ValueError):
        # Connecting takes short spellings as well, such as 127.1.
        return ipaddress.IPv4Address(socket.inet_aton(host))
    return None
