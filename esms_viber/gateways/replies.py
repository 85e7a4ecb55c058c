"""The reply to one HTTP call, and the sentences that say why nothing in it can be trusted. Imports no HTTP library."""

from __future__ import annotations

from dataclasses import dataclass, field

from django.utils.translation import gettext_noop

REDIRECTED = gettext_noop("A redirect came, and is not followed")
LATE = gettext_noop("No answer in time")
CUT = gettext_noop("Connection closed before the answer was complete")
TOO_LARGE = gettext_noop("The answer is too large")
NOT_HTTP = gettext_noop("The answer is not HTTP that can be read")
BAD_COMPRESSION = gettext_noop("The answer's compression cannot be read")
NOT_CONNECTED = gettext_noop("Could not connect")
NETWORK_UNREACHABLE = gettext_noop("Could not connect: network or host unreachable")
PROXY_FAILED = gettext_noop("Could not connect through the proxy")
NAME_NOT_FOUND = gettext_noop("Could not connect: name not found")
REFUSED = gettext_noop("Could not connect: connection refused")
CERTIFICATE_NOT_ACCEPTED = gettext_noop("Could not connect: TLS certificate not accepted")
TLS_FAILED = gettext_noop("Could not connect: TLS handshake failed")
CONNECT_TIMEOUT = gettext_noop("Could not connect: time-out")
CLOSED = gettext_noop("Could not connect: connection closed by the other side")

PROBLEMS = frozenset(
    (
        REDIRECTED,
        LATE,
        CUT,
        TOO_LARGE,
        NOT_HTTP,
        BAD_COMPRESSION,
        NOT_CONNECTED,
        NETWORK_UNREACHABLE,
        PROXY_FAILED,
        NAME_NOT_FOUND,
        REFUSED,
        CERTIFICATE_NOT_ACCEPTED,
        TLS_FAILED,
        CONNECT_TIMEOUT,
        CLOSED,
    )
)
"""The sentences that say why there is no trustworthy body."""


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one call. The body stays out of `repr()`, because an error page may repeat the URL."""

    left: bool
    """Were bytes of the request handed to the connection?"""
    status: int | None = None
    content_type: str = field(default="", repr=False)
    """The media type, if it is a well-known one."""
    body: bytes | None = field(default=None, repr=False)
    """None if there is no trustworthy body; `problem` says why."""
    problem: str = ""
    duration_ms: int = 0
