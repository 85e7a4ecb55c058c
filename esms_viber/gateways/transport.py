"""One HTTP call: exactly one request, one deadline, a bounded body, and a value instead of an exception."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from time import monotonic

import requests
import urllib3
from django.utils.translation import gettext_noop
from requests.models import PreparedRequest, Response
from urllib3.exceptions import ProxyError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from ..formatting import put_together
from .connections import MAX_BODY_BYTES, Adapter, Call, current_call
from .credentials import NOTHING, Secret

REDIRECTED = gettext_noop("A redirect came, and is not followed")
LATE = gettext_noop("No answer in time")
_CUT = gettext_noop("Connection closed before the answer was complete")
_TOO_LARGE = gettext_noop("The answer is too large")
_NOT_HTTP = gettext_noop("The answer is not HTTP that can be read")
_BAD_COMPRESSION = gettext_noop("The answer's compression cannot be read")
_NOT_CONNECTED = gettext_noop("Could not connect")
_NETWORK_UNREACHABLE = gettext_noop("Could not connect: network or host unreachable")
_ANY_COMPRESSION_HEADER = 32 + zlib.MAX_WBITS
_REDIRECTS = range(300, 400)
_TIMEOUTS = (TimeoutError, Urllib3Timeout, requests.Timeout)
# A call may end in these errors. `Exception` would catch a task queue's time limit as well.
_FAILURES = (
    OSError,
    ValueError,
    http.client.HTTPException,
    urllib3.exceptions.HTTPError,
    requests.RequestException,
)


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


class _BadBody(ValueError):
    """A body that cannot be used. The text is one of this app's own sentences."""


class Transport:
    """Calls to one base URL over one pool of connections; safe to share between threads, not across a fork."""

    def __init__(
        self, base_url: str, *, timeout: tuple[float, float], pool_size: int, headers: Mapping[str, str]
    ) -> None:
        """Raise `ValueError` for an invalid base URL. The environment's proxies and CA bundle are read once, here."""
        self._base_url = base_url.rstrip("/") + "/"
        self._timeout = timeout
        self._headers = dict(headers)
        self._requests: dict[tuple[str, str], PreparedRequest] = {}
        self._adapter = Adapter(pool_connections=1, pool_maxsize=pool_size, max_retries=0)
        url = self._prepare("GET", "").url or ""
        with requests.Session() as session:
            found = session.merge_environment_settings(url, {}, True, None, None)
        self._proxies, self._cert = found["proxies"], found["cert"]
        self._verify = found["verify"] or True

    def get(self, path: str, public: str, query: Secret, deadline: float | None = None) -> Reply:
        """Send GET `path?public&query`; `public` is already encoded and holds no key.

        The call ends by the `deadline`, a moment of `time.monotonic()`, however much time each of its parts has.
        """
        return self._call(self._prepare("GET", path), Call(self._timeout, deadline, public=public, query=query))

    def post(self, path: str, body: Secret, deadline: float | None = None) -> Reply:
        """Send POST with a JSON body."""
        request = self._prepare("POST", path)
        request.headers["Content-Type"] = "application/json"
        request.headers["Content-Length"] = str(len(body))
        return self._call(request, Call(self._timeout, deadline, query=NOTHING, body=body))

    def close(self) -> None:
        """Close idle connections; calls under way go on."""
        self._adapter.close()

    def _prepare(self, method: str, path: str) -> PreparedRequest:
        # Each call gets a copy, because instrumentation adds headers of its own.
        if (method, path) not in self._requests:
            prepared = requests.Request(method, self._base_url + path, headers=self._headers).prepare()
            self._requests[method, path] = prepared
        return self._requests[method, path].copy()

    def _call(self, request: PreparedRequest, call: Call) -> Reply:
        started = monotonic()
        status, content_type, body, problem = None, "", None, ""
        token = current_call.set(call)
        try:
            response = self._adapter.send(
                request, stream=True, timeout=call.timeout, verify=self._verify, cert=self._cert, proxies=self._proxies
            )
            # An answer proves that the request left. No connection marks the call where a test registers answers with
            # `responses`.
            call.left = True
            status, content_type = response.status_code, response.headers.get("Content-Type", "")
            body = _read_body(response)
        except _BadBody as error:
            problem = str(error)
        except _FAILURES as error:
            problem = _explain(error, status, call)
        finally:
            current_call.reset(token)
        duration = round((monotonic() - started) * 1000)
        return Reply(call.left, status, content_type, body, problem, duration)


def _explain(error: Exception, status: int | None, call: Call) -> str:
    chain = list(_causes(error))
    if not call.left:
        for kind, sentence in _CONNECT_FAILURES:
            if any(isinstance(cause, kind) for cause in chain):
                return sentence
        is_unreachable = any(getattr(cause, "errno", None) in _UNREACHABLE for cause in chain)
        return _NETWORK_UNREACHABLE if is_unreachable else _NOT_CONNECTED
    if status in _REDIRECTS:
        return put_together(REDIRECTED, f"HTTP {status}")
    if any(isinstance(cause, _TIMEOUTS) for cause in chain):
        return put_together(LATE, f"{call.patience:g} s")
    # The wrappers of requests are left out, because each of them is an OSError, whatever it wraps.
    reasons = [cause for cause in chain if not isinstance(cause, requests.RequestException)]
    is_cut = any(isinstance(reason, OSError | http.client.IncompleteRead) for reason in reasons)
    return _CUT if is_cut else _NOT_HTTP


def _read_body(response: Response) -> bytes:
    raw: urllib3.HTTPResponse = response.raw
    data = b""
    try:
        # Read until nothing comes, because only then does urllib3 raise for a body shorter than announced.
        while len(data) <= MAX_BODY_BYTES and (more := raw.read(MAX_BODY_BYTES + 1 - len(data), decode_content=False)):
            data += more
    finally:
        # This closes no connection whose answer was read to its end, because that one is back in the pool by now.
        raw.close()
    if len(data) <= MAX_BODY_BYTES and response.headers.get("Content-Encoding", "identity") != "identity":
        decompressor = zlib.decompressobj(_ANY_COMPRESSION_HEADER)
        try:
            data = decompressor.decompress(data, MAX_BODY_BYTES + 1)
        except zlib.error:
            raise _BadBody(_BAD_COMPRESSION) from None
        if not decompressor.eof and len(data) <= MAX_BODY_BYTES:
            raise _BadBody(_CUT)
    if len(data) > MAX_BODY_BYTES:
        raise _BadBody(put_together(_TOO_LARGE, f"HTTP {response.status_code}, > {MAX_BODY_BYTES // 1024} KiB"))
    return data


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and all that it wraps, because requests and urllib3 keep the reason in different places."""
    waiting, seen = [error], set[int]()
    while waiting:
        current = waiting.pop()
        if isinstance(current, BaseException) and id(current) not in seen:
            seen.add(id(current))
            yield current
            # __context__ is left out, because the call may have been made while another error was being handled.
            waiting += [current.__cause__, getattr(current, "reason", None), *current.args]


_UNREACHABLE = {errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL}
_CONNECT_FAILURES: tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...] = (
    (ProxyError, gettext_noop("Could not connect through the proxy")),
    (socket.gaierror, gettext_noop("Could not connect: name not found")),
    (ConnectionRefusedError, gettext_noop("Could not connect: connection refused")),
    (ssl.SSLCertVerificationError, gettext_noop("Could not connect: TLS certificate not accepted")),
    (ssl.SSLError, gettext_noop("Could not connect: TLS handshake failed")),
    # This is Python's own `TimeoutError`, because in urllib3 every failed connection counts as a time-out.
    (TimeoutError, gettext_noop("Could not connect: time-out")),
    (ConnectionError, gettext_noop("Could not connect: connection closed by the other side")),
)
PROBLEMS = frozenset(
    (REDIRECTED, LATE, _CUT, _TOO_LARGE, _NOT_HTTP, _BAD_COMPRESSION, _NOT_CONNECTED, _NETWORK_UNREACHABLE)
).union(sentence for _kind, sentence in _CONNECT_FAILURES)
"""The sentences that say why there is no trustworthy body."""
