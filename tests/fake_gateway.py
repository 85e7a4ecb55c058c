"""A scripted HTTP server on a loopback port that writes down what it is sent, byte for byte.

    fake_gateway.answer(json_answer({"CodeResult": "100"}))         # the next request, then the default again
    fake_gateway.answer_all(lambda request: json_answer({...}))     # every request without an answer of its own

An answer is a sequence of steps: bytes to write, or one of `Wait`, `Until`, `Drip`, `Hang`, `Reset`, `Close` and
`StartTLS`.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import struct
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True)
class Wait:
    """Do nothing for so many seconds; ends early when the server stops."""

    seconds: float


@dataclass(frozen=True)
class Until:
    """Do nothing until the test sets the event; ends early when the server stops."""

    event: threading.Event


@dataclass(frozen=True)
class Drip:
    """Write one byte, then pause, and so on."""

    data: bytes
    pause: float


@dataclass(frozen=True)
class Hang:
    """Write nothing more until the client hangs up or the server stops."""


@dataclass(frozen=True)
class Reset:
    """Close with a TCP reset."""


@dataclass(frozen=True)
class Close:
    """Close the connection in good order."""


@dataclass(frozen=True)
class StartTLS:
    """Go on under TLS, as behind a proxy's CONNECT."""

    context: ssl.SSLContext


Step = bytes | Wait | Until | Drip | Hang | Reset | Close | StartTLS
Answer = Sequence[Step]


@dataclass(frozen=True)
class Received:
    """One request as it came in at the socket."""

    raw: bytes
    method: str
    target: str
    """As it stands in the request line; through a proxy a whole URL."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Names in lower case."""
    body: bytes = b""
    connection: int = 0
    """Number of the connection that it came on, from 1."""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> str:
        """The raw query string."""
        return self.target.partition("?")[2]

    @property
    def params(self) -> list[tuple[str, str]]:
        """Decoded parameters, in order; `+` is a space, as a server reads it."""
        return parse_qsl(self.query, keep_blank_values=True, strict_parsing=bool(self.query))

    def __getitem__(self, name: str) -> str:
        """The value of a parameter that was sent once."""
        (value,) = [value for key, value in self.params if key == name]
        return value


def http_answer(
    body: bytes = b"", *, status: int = 200, content_type: str = "text/html", headers: Mapping[str, str] | None = None
) -> list[Step]:
    """A complete answer; a header given as "" is left out."""
    fields = {"Content-Type": content_type, "Content-Length": str(len(body)), **(headers or {})}
    lines = [f"HTTP/1.1 {status} Status", *(f"{name}: {value}" for name, value in fields.items() if value)]
    return ["\r\n".join([*lines, "", ""]).encode("latin-1") + body]


def json_answer(data: Any, *, status: int = 200) -> list[Step]:
    return http_answer(json.dumps(data).encode(), status=status, content_type="application/json; charset=utf-8")


def accepted(sms_id: str = "d8e0f1f0702544b2acb456ca9ccfd111250") -> list[Step]:
    """The documented answer to a message that eSMS takes."""
    return json_answer({"CodeResult": "100", "CountRegenerate": 0, "SMSID": sms_id})


def refused(code: str, message: str = "") -> list[Step]:
    return json_answer({"CodeResult": code, "CountRegenerate": 0, "ErrorMessage": message})


def gzip_answer(data: Any) -> list[Step]:
    return http_answer(
        gzip.compress(json.dumps(data).encode()), content_type="application/json", headers={"Content-Encoding": "gzip"}
    )


def chunked_answer(data: Any, *, size: int = 7, end: bytes = b"0\r\n\r\n") -> list[Step]:
    body = json.dumps(data).encode()
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    return [head + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + end]


def redirect(location: str, status: int = 302) -> list[Step]:
    return http_answer(b"moved", status=status, headers={"Location": location})


def echo(request: Received) -> list[Step]:
    """An error page as IIS makes them, with the URL in body, reason and headers."""
    body = f"<html><h1>Server Error</h1>{request.target} {request.body.decode()}</html>".encode()
    target = request.target.encode()
    head = b"HTTP/1.1 500 " + target + b"\r\nContent-Type: text/html\r\nX-Url: " + target
    return [head + b"\r\nContent-Length: %d\r\nbad header " % len(body) + target + b"\r\n\r\n" + body]


class FakeGateway:
    """The server; `url` is what `BASE_URL` is to be."""

    def __init__(self, *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Received] = []
        self.connections = 0
        self._tls = tls
        self._queue: deque[Answer | Callable[[Received], Answer]] = deque()
        self._default: Answer | Callable[[Received], Answer] = accepted()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self._start(self._accept)

    @property
    def port(self) -> int:
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}/MainService.svc/json/"

    @property
    def open_connections(self) -> int:
        with self._lock:
            return len(self._open)

    @property
    def last(self) -> Received:
        return self.requests[-1]

    def answer(self, *answers: Answer | Callable[[Received], Answer]) -> None:
        """Queue answers for the next requests, one each."""
        with self._lock:
            self._queue.extend(answers)

    def answer_all(self, answer: Answer | Callable[[Received], Answer]) -> None:
        """Answer this whenever nothing is queued; at first that is `accepted()`."""
        with self._lock:
            self._default = answer

    def close(self) -> None:
        self._stopped.set()
        with contextlib.suppress(OSError):
            # Wakes the accept() of the other thread, which close() alone does not.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            still_open, threads = list(self._open), list(self._threads)
        for conn in still_open:
            with contextlib.suppress(OSError):
                conn.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join(5)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = threading.Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopped.is_set():
            try:
                conn, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self.connections += 1
                number = self.connections
                self._start(self._serve, conn, number)

    def _serve(self, plain: socket.socket, number: int) -> None:
        with contextlib.suppress(OSError, ValueError), contextlib.closing(plain):
            conn = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            with self._lock:
                self._open.add(conn)
            try:
                while (request := _read_request(conn, number)) is not None:
                    conn = self._play(conn, self._take(request))
            except _HangUp:
                pass
            finally:
                with self._lock:
                    self._open.discard(conn)
                conn.close()

    def _take(self, request: Received) -> Answer:
        with self._lock:
            self.requests.append(request)
            answer = self._queue.popleft() if self._queue else self._default
        return answer(request) if callable(answer) else answer

    def _play(self, conn: socket.socket, answer: Answer) -> socket.socket:
        for step in answer:
            match step:
                case bytes():
                    conn.sendall(step)
                case Wait(seconds):
                    self._stopped.wait(seconds)
                case Until(event):
                    while not (event.wait(0.05) or self._stopped.is_set()):
                        pass
                case Drip(data, pause):
                    self._drip(conn, data, pause)
                case Hang():
                    conn.settimeout(10)
                    while conn.recv(4096):
                        pass
                    raise _HangUp
                case Reset():
                    conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    raise _HangUp
                case Close():
                    raise _HangUp
                case StartTLS(context):
                    conn = context.wrap_socket(conn, server_side=True)
        return conn

    def _drip(self, conn: socket.socket, data: bytes, pause: float) -> None:
        for value in data:
            if self._stopped.wait(pause):
                raise _HangUp
            conn.sendall(bytes([value]))


class _HangUp(Exception):
    pass


def _read_request(conn: socket.socket, number: int) -> Received | None:
    data = b""
    while b"\r\n\r\n" not in data:
        if not (more := conn.recv(65536)):
            return None
        data += more
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    while len(body) < int(headers.get("content-length", 0)):
        body += conn.recv(65536)
    method, target, _version = first.split(" ")
    return Received(head + b"\r\n\r\n" + body, method, target, headers, body, number)


PATIENCE = 60
"""Seconds after which a thing will not happen any more, on a slow and busy machine either."""


def wait_until(condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """For what another thread or process does in its own time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.005)
