"""One HTTP call: exactly one request, one deadline, a bounded body, and a value instead of an exception."""

from __future__ import annotations

import errno
import http.client
import socket
import ssl
import zlib
from collections.abc import Iterator, Mapping
from time import monotonic

import requests
import urllib3
from requests.models import PreparedRequest, Response
from urllib3.exceptions import ProxyError
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from ..formatting import put_together
from . import replies
from .connections import MAX_BODY_BYTES, Adapter, Call, current_call
from .credentials import NOTHING, Secret
from .replies import Reply

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

    def get_below(self, path: str, secret_path: Secret, deadline: float | None = None) -> Reply:
        """Send GET `path` with the secret part of the path after it."""
        return self._call(self._prepare("GET", path), Call(self._timeout, deadline, path=secret_path))

    def post(
        self, path: str, body: Secret, deadline: float | None = None, *, most_bytes: int = MAX_BODY_BYTES
    ) -> Reply:
        """Send POST with a JSON body."""
        request = self._prepare("POST", path)
        request.headers["Content-Type"] = "application/json"
        request.headers["Content-Length"] = str(len(body))
        return self._call(request, Call(self._timeout, deadline, query=NOTHING, body=body, most_bytes=most_bytes))

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
            body = _read_body(response, call.most_bytes)
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
        return replies.NETWORK_UNREACHABLE if is_unreachable else replies.NOT_CONNECTED
    if status in _REDIRECTS:
        return put_together(replies.REDIRECTED, f"HTTP {status}")
    if any(isinstance(cause, _TIMEOUTS) for cause in chain):
        return put_together(replies.LATE, f"{call.patience:g} s")
    # The wrappers of requests are left out, because each of them is an OSError, whatever it wraps.
    reasons = [cause for cause in chain if not isinstance(cause, requests.RequestException)]
    is_cut = any(isinstance(reason, OSError | http.client.IncompleteRead) for reason in reasons)
    return replies.CUT if is_cut else replies.NOT_HTTP


def _read_body(response: Response, most: int) -> bytes:
    raw: urllib3.HTTPResponse = response.raw
    data = b""
    try:
        # Read until nothing comes, because only then does urllib3 raise for a body shorter than announced.
        while len(data) <= most and (more := raw.read(most + 1 - len(data), decode_content=False)):
            data += more
    finally:
        # This closes no connection whose answer was read to its end, because that one is back in the pool by now.
        raw.close()
    if len(data) <= most and response.headers.get("Content-Encoding", "identity") != "identity":
        decompressor = zlib.decompressobj(_ANY_COMPRESSION_HEADER)
        try:
            data = decompressor.decompress(data, most + 1)
        except zlib.error:
            raise _BadBody(replies.BAD_COMPRESSION) from None
        if not decompressor.eof and len(data) <= most:
            raise _BadBody(replies.CUT)
    if len(data) > most:
        raise _BadBody(put_together(replies.TOO_LARGE, f"HTTP {response.status_code}, > {most // 1024} KiB"))
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
    (ProxyError, replies.PROXY_FAILED),
    (socket.gaierror, replies.NAME_NOT_FOUND),
    (ConnectionRefusedError, replies.REFUSED),
    (ssl.SSLCertVerificationError, replies.CERTIFICATE_NOT_ACCEPTED),
    (ssl.SSLError, replies.TLS_FAILED),
    # This is Python's own `TimeoutError`, because in urllib3 every failed connection counts as a time-out.
    (TimeoutError, replies.CONNECT_TIMEOUT),
    (ConnectionError, replies.CLOSED),
)
