"""urllib3's connections, changed in five ways.

The keys are added to a request only as its bytes go out, an answer has one deadline from first byte to last, a
connection that idled too long is not used again, and a call that was held up before it started is not made. Looking up
the name counts as connecting.
"""

from __future__ import annotations

import http.client
import io
import re
import socket
import threading
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic
from typing import Any, ClassVar

import requests.adapters
import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.util.connection import allowed_gai_family

from ..conf import bare
from .credentials import NOTHING, Secret

# A server closes idle connections, and a request on one that it is just closing is lost without an answer.
MAX_IDLE_SECONDS = 30
# A process may be suspended between the decision to call and the call itself, and resume on another day.
START_WITHIN_SECONDS = 60
# Seconds by which an answer may come after its deadline.
_ACCURACY = 0.05
MAX_BODY_BYTES = 64 * 1024
"""For the answer about one message."""
_KNOWN_TYPES = ("application/json", "application/xml", "text/html", "text/json", "text/plain", "text/xml")
_KNOWN_ENCODINGS = ("identity", "gzip", "x-gzip", "deflate")


class Call:
    """One request on its way: the keys to add to its bytes, whether they have left, and how long to wait."""

    __slots__ = (
        "_body",
        "_end",
        "_path",
        "_public",
        "_query",
        "deadline",
        "left",
        "most_bytes",
        "patience",
        "start_before",
        "timeout",
    )

    def __init__(
        self,
        timeout: tuple[float, float],
        end: float | None = None,
        *,
        public: str = "",
        query: Secret = NOTHING,
        body: Secret = NOTHING,
        path: Secret = NOTHING,
        most_bytes: int = MAX_BODY_BYTES,
    ) -> None:
        """Give the seconds to connect and to answer, and the moment by which all of it must be over.

        `path` is added to the end of the request's own, and `most_bytes` bounds the answer's body.
        """
        self._public, self._query, self._body, self._path = public, query, body, path
        self.most_bytes = most_bytes
        now = monotonic()
        self._end = float("inf") if end is None else end
        left = max(self._end - now, 0.001)  # urllib3 refuses a time-out of 0
        self.timeout = min(timeout[0], left), min(timeout[1], left)
        self.deadline = now + self.timeout[0]
        self.start_before = min(now + START_WITHIN_SECONDS, self._end)
        self.left = False
        self.patience = self.timeout[1]
        """The seconds that the answer was given."""

    def mark_left(self) -> None:
        """Note that the request has left, before its first byte does: an interruption must not look like "not sent"."""
        self.left = True
        now = monotonic()
        self.deadline = min(now + self.timeout[1], self._end)
        self.patience = round(self.deadline - now, 1) or self.patience

    def complete(self, head: bytes) -> bytes:
        """Return the request as the server is to see it. The caller must not bind the result to a name."""
        line, version, rest = head.partition(b" HTTP/1.")
        mark, joint = b"?" if self._query else b"", b"&" if self._public else b""
        return b"".join(
            (
                line,
                self._path.reveal(),
                mark,
                self._public.encode(),
                joint,
                self._query.reveal(),
                version,
                rest,
                self._body.reveal(),
            )
        )


current_call: ContextVar[Call | None] = ContextVar("esms_viber_call", default=None)


def _hand_over(sock: socket.socket, head: bytes, call: Call) -> BaseException | None:
    # The error is returned instead of raised, because the frames below hold the complete request in their locals.
    try:
        call.mark_left()
        sock.sendall(call.complete(head))
    except BaseException as error:  # noqa: BLE001 (not swallowed: raised by the caller)
        return bare(error)
    return None


class _Deadline(io.RawIOBase):
    """The answer's bytes under one deadline, because a socket's own time-out begins again with every byte."""

    def __init__(self, raw: io.RawIOBase, sock: socket.socket, call: Call) -> None:
        self._raw, self._sock, self._call = raw, sock, call
        self._timeout = call.timeout[1]
        """The socket's, as urllib3 has set it just now."""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        remaining = self._call.deadline - monotonic()
        if remaining <= 0:
            raise TimeoutError("deadline passed")
        # It is not set anew for nothing, because that lets all other threads go first.
        if self._timeout > remaining + _ACCURACY:
            self._timeout = remaining
            self._sock.settimeout(remaining)
        return self._raw.readinto(buffer)

    def close(self) -> None:
        # This releases the socket, which stays open under a closed connection until its answer is read.
        self._raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    """An answer under the call's deadline that keeps nothing in which a server could repeat a key.

    Instrumentation copies the headers of `requests` and urllib3 into spans and breadcrumbs.
    """

    def __init__(self, sock: socket.socket, debuglevel: int = 0, method: str | None = None, url: str | None = None):
        # The debug level is 0, because http.client would print the headers, in which a server may repeat the URL.
        super().__init__(sock, 0, method=method, url=url)
        call = current_call.get()
        if call is not None:
            raw: Any = self.fp.detach()
            self.fp = io.BufferedReader(_Deadline(raw, sock, call))

    def begin(self) -> None:
        error = self._begin()
        if error is not None:
            raise error

    def _begin(self) -> BaseException | None:
        # The error is returned instead of raised, because the frames below hold the lines read, and some errors quote
        # them.
        try:
            super().begin()
            self.headers = self.msg = self._needed_headers()
            self.reason = ""
        except ConnectionError as error:
            return bare(error)
        except http.client.HTTPException:
            return http.client.HTTPException("not an HTTP answer")
        except BaseException as error:  # noqa: BLE001 (not swallowed: raised by the caller)
            return bare(error)
        return None

    def _needed_headers(self) -> http.client.HTTPMessage:
        """Return only the headers that reading the body needs, in words of our own and with a length of few digits."""
        call, kept = current_call.get(), http.client.HTTPMessage()
        most = MAX_BODY_BYTES if call is None else call.most_bytes
        media_type = self.headers.get("Content-Type", "").partition(";")[0].strip().lower()
        if media_type in _KNOWN_TYPES:
            kept["Content-Type"] = media_type
        if self.chunked:
            kept["Transfer-Encoding"] = "chunked"
        else:
            # The header is read again here, because http.client takes a repeated length ("42, 42") for none.
            lengths = set(re.split(r"\s*,\s*", self.headers.get("Content-Length", "").strip()))
            if self.length is not None:
                lengths = {str(self.length)}
            if len(lengths) > 1:
                raise http.client.HTTPException
            if (length := lengths.pop()).isdecimal():
                # A byte more than the limit is enough to notice a body that is too long, or cut.
                kept["Content-Length"] = str(min(int(length), most + 1))
        if encoding := self.headers.get("Content-Encoding", "").strip().lower():
            kept["Content-Encoding"] = encoding if encoding in _KNOWN_ENCODINGS else "unknown"
        return kept


def _look_up(host: str, port: int, seconds: float) -> list[str]:
    """Return the addresses of a host. Raises `TimeoutError`, because the system's own look-up may take minutes."""
    found: list[Any] = []

    def ask() -> None:
        try:
            found.append(socket.getaddrinfo(host, port, allowed_gai_family(), socket.SOCK_STREAM))
        except Exception as error:  # noqa: BLE001 (not swallowed: raised by the caller)
            found.append(error)

    # Nothing can interrupt a look-up. A daemon does not keep the process from ending.
    thread = threading.Thread(target=ask, name="esms_viber look-up", daemon=True)
    thread.start()
    thread.join(seconds)
    if not found:
        raise TimeoutError("the look-up of the name took too long")
    if isinstance(found[0], Exception):
        raise found[0]
    return list(dict.fromkeys(address[0] for *_kind, address in found[0]))


class _Sending:
    """Send a request with the keys added to its bytes alone; a mixin for both kinds of connection."""

    sock: Any
    port: int
    timeout: Any
    _dns_host: str
    response_class: ClassVar[type[http.client.HTTPResponse]] = _Response
    connect: Callable[[], None]
    idle_since = 0.0

    def _new_conn(self) -> socket.socket:
        """Connect to the first address of the host that takes the connection, as urllib3 does, but in time.

        urllib3 connects to `_dns_host`. The name is put back, because the certificate is verified against it.
        """
        call = current_call.get()
        name = self._dns_host
        if call is None:
            return super()._new_conn()  # type: ignore[misc,no-any-return]  # a mixin: urllib3's own
        addresses = _look_up(name, self.port, call.deadline - monotonic())
        try:
            for address in addresses:
                self._dns_host = address
                # Each address has its own time, because the first may be one that swallows packets.
                self.timeout = max(min(call.timeout[0], call.start_before - monotonic()), 0.001)
                try:
                    return super()._new_conn()  # type: ignore[misc,no-any-return]  # as above
                except urllib3.exceptions.HTTPError:
                    if address == addresses[-1]:
                        raise
        finally:
            self._dns_host = name
        raise OSError("the name has no address")

    def send(self, data: Any) -> None:
        call = current_call.get()
        if call is None or not isinstance(data, bytes) or not data.startswith((b"GET ", b"POST ")):
            super().send(data)  # type: ignore[misc]  # a mixin: http.client's own, for a proxy's CONNECT
            return
        if call.left:
            raise http.client.CannotSendRequest("one request per call")
        if self.sock is None:
            self.connect()
        if monotonic() > call.start_before:
            raise TimeoutError("too late to start")
        error = _hand_over(self.sock, data, call)
        if error is not None:
            raise error


class _Connection(_Sending, HTTPConnection):
    pass


class _TLSConnection(_Sending, HTTPSConnection):
    pass


class _Fresh:
    """Close a connection that idled too long, instead of using it again; a mixin for both kinds of pool."""

    def _get_conn(self, timeout: float | None = None) -> Any:
        conn = super()._get_conn(timeout)  # type: ignore[misc]  # a mixin of urllib3's pools
        if not conn.is_closed and monotonic() - conn.idle_since > MAX_IDLE_SECONDS:
            conn.close()
        return conn

    def _put_conn(self, conn: Any) -> None:
        if conn is not None:
            conn.idle_since = monotonic()
        super()._put_conn(conn)  # type: ignore[misc]  # a mixin of urllib3's pools


class _Pool(_Fresh, HTTPConnectionPool):
    ConnectionCls = _Connection


class _TLSPool(_Fresh, HTTPSConnectionPool):
    ConnectionCls = _TLSConnection


_POOLS: dict[str, type[HTTPConnectionPool]] = {"http": _Pool, "https": _TLSPool}


class Adapter(requests.adapters.HTTPAdapter):
    """requests' adapter, with the pools above for direct and for proxied calls."""

    _pool: Any = None

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> Any:
        # All calls go to one address in one way, and finding its pool takes as long as reading the answer.
        pool = self._pool
        if pool is None:
            pool = self._pool = super().get_connection_with_tls_context(*args, **kwargs)
        return pool

    def close(self) -> None:
        self._pool = None
        super().close()

    def proxy_manager_for(self, proxy: Any, **kwargs: Any) -> urllib3.PoolManager:
        manager: urllib3.PoolManager = super().proxy_manager_for(proxy, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager
