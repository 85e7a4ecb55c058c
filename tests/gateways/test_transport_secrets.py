"""No key in logs, output, results or traceback locals, whatever happens to a call."""

from __future__ import annotations

import contextlib
import copy
import datetime as dt
import http.client
import itertools
import logging
import os
import pickle
import reprlib
import signal
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote

import pytest
from django.utils import timezone
from requests.adapters import HTTPAdapter
from urllib3.connectionpool import HTTPConnectionPool

from esms_viber.gateways.base import CallOutcome
from esms_viber.gateways.credentials import Keys, Secret
from esms_viber.gateways.esms import EsmsGateway
from tests.fake_gateway import (
    Answer,
    Close,
    FakeGateway,
    Hang,
    Received,
    Reset,
    accepted,
    echo,
    http_answer,
    redirect,
    refused,
)
from tests.gateways.samples import API_KEY, SECRET_KEY, impatient, make_gateway, make_message, traces_in

YESTERDAY = timezone.now() - dt.timedelta(days=1)
CALLS: dict[str, Callable[[EsmsGateway], object]] = {
    "send": lambda gateway: gateway.send(make_message()),
    "status": lambda gateway: gateway.fetch_status("sms-1"),
    "balance": lambda gateway: gateway.fetch_balance(),
    "brand names": lambda gateway: gateway.fetch_brandnames(),
    "sent": lambda gateway: gateway.fetch_sent(YESTERDAY, YESTERDAY, 1),
}


def _echo_as(code: str) -> Callable[[Received], Any]:
    return lambda request: refused(code, f"bad request {request.target} {request.body.decode()}")


ANSWERS: dict[str, Any] = {
    "good": accepted(),
    "refusal": _echo_as("101"),
    "code": lambda request: refused(request.target[-10:]),
    "error page": echo,
    "redirect": lambda request: redirect(f"http://127.0.0.1:1{request.target}"),
    "content type": lambda request: http_answer(b"x", content_type=request.target),
    "status line": lambda request: [request.raw],
    "close": [Close()],
    "reset": [Reset()],
    "hang": [Hang()],
}


class SoftTimeLimit(Exception):
    pass


def _frames(found: TracebackType | None) -> Iterator[FrameType]:
    while found is not None:
        yield found.tb_frame
        found = found.tb_next


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def leaks(error: BaseException) -> list[str]:
    """What an error tracker would show of the keys: texts, and the locals of every frame but the test's own."""
    found = []
    for one in _chain(error):
        found += traces_in("".join(traceback.format_exception(one)) + repr(one))
        for frame in list(_frames(one.__traceback__))[1:]:
            for name, value in frame.f_locals.items():
                with contextlib.suppress(Exception):
                    found += [f"{frame.f_code.co_qualname}.{name}" for _ in traces_in(repr(value))]
    return found


@pytest.fixture
def everything_logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "urllib3"):
        yield caplog


@pytest.fixture
def http_debug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)


def _logged(caplog: pytest.LogCaptureFixture) -> str:
    formatter = logging.Formatter()
    return "\n".join(f"{formatter.format(record)} {record.__dict__!r}" for record in caplog.records)


@pytest.mark.usefixtures("http_debug")
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_logs_output_and_results(
    gateway: EsmsGateway,
    fake_gateway: FakeGateway,
    everything_logged: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    call: Callable[[EsmsGateway], object],
    answer: Any,
) -> None:
    fake_gateway.answer(answer)
    with impatient(gateway) if answer == ANSWERS["hang"] else contextlib.nullcontext():
        result = call(gateway)
    assert traces_in(fake_gateway.last.raw.decode()), "the test must look for what is really sent"
    assert "127.0.0.1" in _logged(everything_logged), "urllib3's log must be on"
    assert traces_in(_logged(everything_logged)) == []
    assert traces_in("".join(capfd.readouterr())) == []
    assert traces_in(repr(result)) == []


@pytest.mark.parametrize("url", ["http://esms.invalid/", "http://127.0.0.1:1/", "https://127.0.0.1:1/"])
def test_logs_when_there_is_no_connection(
    url: str, everything_logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    result = make_gateway(url).send(make_message())
    assert traces_in(_logged(everything_logged) + "".join(capfd.readouterr()) + repr(result)) == []


def test_a_key_that_is_repeated_is_withheld_and_said(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(_echo_as("101"))
    result = gateway.send(make_message())
    assert (result.code, result.text) == ("101", "Part of the answer repeated the account's keys and is withheld.")


@pytest.mark.parametrize("name", ["sendall", "recv_into", "settimeout"])
@pytest.mark.parametrize("kind", [SoftTimeLimit, KeyboardInterrupt, SystemExit])
def test_an_interruption_at_the_socket(
    gateway: EsmsGateway,
    fake_gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    kind: type[BaseException],
) -> None:
    def interrupted(*args: Any, **kwargs: Any) -> None:
        raise kind

    gateway.send(make_message())
    monkeypatch.setattr(socket.socket, name, interrupted, raising=False)
    with pytest.raises(kind) as caught:
        gateway.send(make_message())
    monkeypatch.undo()
    assert leaks(caught.value) == []
    assert gateway.send(make_message()).code == "100"


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_what_instrumentation_around_urllib3_sees(
    gateway: EsmsGateway, fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    shown: list[str] = []
    leaked: list[str] = []
    urlopen = HTTPConnectionPool.urlopen

    def watched(*args: Any, **kwargs: Any) -> Any:
        shown.append(repr((args, kwargs)))
        try:
            response = urlopen(*args, **kwargs)
        except Exception as error:
            leaked.extend(leaks(error))
            raise
        shown.append(repr((response.headers.items(), response.reason, response.geturl(), response.version_string)))
        return response

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", watched)
    fake_gateway.answer(answer)
    with impatient(gateway) if answer == ANSWERS["hang"] else contextlib.nullcontext():
        gateway.send(make_message())
    assert "SendMultipleMessage_V4_get" in shown[0]
    assert traces_in("".join(shown)) == []
    assert leaked == []


KEYS_AS: list[Callable[[Received], str]] = [
    lambda request: request.query or request.body.decode(),
    lambda request: (request.query or request.body.decode()).lower(),
    lambda request: API_KEY,
    lambda request: quote(SECRET_KEY, safe=""),
    lambda request: quote(quote(API_KEY, safe=""), safe=""),
]
"""How a server may repeat what it was sent."""


def _heads(key: str) -> Iterator[str]:
    """Answers that repeat a key, in each place that a server has for words of its own."""
    for name in ("Content-Type", "Content-Encoding", "Transfer-Encoding", "Content-Length", "Connection", "Location"):
        yield f"HTTP/1.1 200 OK\r\n{name}: {key}\r\n\r\n"
        yield f"HTTP/1.1 200 OK\r\n{key}: x\r\n\r\n"
    for value in (f"text/html; charset={key}", f"application/{key}", f"application/json;{key}", f'x/y; b="{key}"'):
        yield f"HTTP/1.1 200 OK\r\nContent-Type: {value}\r\n\r\n"
    for value in (f"gzip, {key}", f"identity;{key}"):
        yield f"HTTP/1.1 200 OK\r\nContent-Encoding: {value}\r\nContent-Length: 0\r\n\r\n"
    for name in ("Set-Cookie", "Server", "WWW-Authenticate", "Retry-After", "Link", "X-Request-Id", "Trailer"):
        yield f"HTTP/1.1 503 Busy\r\n{name}: a={key}; Path={key}\r\nContent-Length: 0\r\n\r\n"
    yield f"HTTP/1.1 200 {key}\r\nContent-Length: 0\r\n\r\n"
    yield f"HTTP/1.{key} 200 OK\r\nContent-Length: 0\r\n\r\n"
    yield f"HTTP/1.1 100 {key}\r\nX: {key}\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    chunk = f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2;x={key}\r\n{{}}\r\n"
    yield f"{chunk}0\r\nX-Trailer: {key}\r\nSet-Cookie: {key}\r\n\r\n"
    yield f"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/?{key}\r\nRefresh: 0; url={key}\r\n\r\n"
    yield f"HTTP/1.1 200 OK\r\nX: {key}\r\nY: "  # and then no more


def _everything_of(response: Any) -> list[str]:
    """What instrumentation can look at: attributes, their attributes and items, but not what is still to be read."""
    found, waiting, seen = [], [response], set[int]()
    while waiting:
        one = waiting.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        found.append(repr(one))
        if isinstance(one, dict):
            waiting += [*one, *one.values()]
        elif isinstance(one, list | tuple | set):
            waiting += one
        elif type(one).__module__.split(".")[0] in {"requests", "urllib3", "http", "email", "esms_viber"}:
            waiting += vars(one).values() if hasattr(one, "__dict__") else []
            with contextlib.suppress(NotImplementedError, AttributeError):  # pools
                waiting += one.items()
    return found


@pytest.mark.parametrize("hook", [(HTTPAdapter, "send"), (HTTPConnectionPool, "urlopen")], ids=["requests", "urllib3"])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_nothing_that_a_server_says_passes_on_with_a_key_in_it(
    gateway: EsmsGateway,
    fake_gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    hook: tuple[type, str],
    call: Callable[[EsmsGateway], object],
) -> None:
    shown: list[str] = []
    owner, name = hook
    original = getattr(owner, name)

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            response = original(*args, **kwargs)
        except Exception as error:
            shown.extend([repr(error), *leaks(error)])
            raise
        shown.extend(_everything_of(response))
        return response

    monkeypatch.setattr(owner, name, watched)
    for which, number in itertools.product(range(len(KEYS_AS)), range(len(list(_heads(""))))):
        fake_gateway.answer(lambda request, which=which, number=number: [_head(request, which, number), Close()])
        result = call(gateway)
        assert traces_in(repr(result)) == []
        assert shown
        assert traces_in("".join(shown)) == [], f"answer {number}, key as in {which}"
        shown.clear()


def _head(request: Received, which: int, number: int) -> bytes:
    key = KEYS_AS[which](request)
    return list(_heads(key))[number].encode()


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        ("Content-Type: application/json; charset=utf-8", {"Content-Type": "application/json"}),
        ("content-type: TEXT/HTML", {"Content-Type": "text/html"}),
        ("Content-Type: application/problem+json", {}),
        ("Content-Type: nonsense", {}),
        ("Content-Length: 2", {"Content-Length": "2"}),
        ("Content-Length: 2, 2", {"Content-Length": "2"}),
        ("Content-Length: 123456789012345678901234567890", {"Content-Length": str(64 * 1024 + 1)}),
        ("Content-Encoding: GZIP", {"Content-Encoding": "gzip"}),
        ("Content-Encoding: br", {"Content-Encoding": "unknown"}),
        ("Transfer-Encoding: Chunked", {"Transfer-Encoding": "chunked"}),
        ("Server: IIS\r\nDate: today\r\nSet-Cookie: a=b", {}),
    ],
)
def test_what_is_kept_of_the_headers(
    gateway: EsmsGateway,
    fake_gateway: FakeGateway,
    monkeypatch: pytest.MonkeyPatch,
    head: str,
    kept: dict[str, str],
) -> None:
    seen: list[Any] = []
    send = HTTPAdapter.send

    def watched(*args: Any, **kwargs: Any) -> Any:
        seen.append(send(*args, **kwargs))
        return seen[-1]

    monkeypatch.setattr(HTTPAdapter, "send", watched)
    fake_gateway.answer([f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n{{}}".encode(), Close()])
    gateway.send(make_message())
    assert dict(seen[0].headers) == kept


@pytest.mark.parametrize("length", ["500", "500, 500", " 500 ", "+500", "99999999999999999999"])
def test_an_answer_that_is_cut_is_no_answer_however_its_length_is_written(
    gateway: EsmsGateway, fake_gateway: FakeGateway, length: str
) -> None:
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n"
    fake_gateway.answer([head.encode() + b'{"CodeResult": "100"}', Close()])
    assert gateway.send(make_message()).outcome is CallOutcome.NO_ANSWER


def test_what_instrumentation_sees_when_sending_fails(
    gateway: EsmsGateway, fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    leaked: list[str] = []
    urlopen = HTTPConnectionPool.urlopen

    def watched(*args: Any, **kwargs: Any) -> Any:
        try:
            return urlopen(*args, **kwargs)
        except Exception as error:
            leaked.extend(leaks(error))
            raise

    def sendall(self: socket.socket, data: bytes) -> None:
        # Written in Python as a TLS socket's is, with the request among its locals.
        raise TimeoutError(len(data))

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", watched)
    monkeypatch.setattr(socket.socket, "sendall", sendall, raising=False)
    assert gateway.send(make_message()).outcome is CallOutcome.NO_ANSWER
    assert leaked == []


@pytest.mark.skipif(not hasattr(signal, "SIGALRM"), reason="needs the signal of a timer")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_time_limit_passes_through(
    gateway: EsmsGateway, fake_gateway: FakeGateway, call: Callable[[EsmsGateway], object]
) -> None:
    def limit(signum: int, frame: FrameType | None) -> None:
        raise SoftTimeLimit

    def answer(request: Received) -> Answer:
        os.kill(os.getpid(), signal.SIGALRM)
        return [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n", Hang()]

    fake_gateway.answer(answer)
    before = signal.signal(signal.SIGALRM, limit)
    try:
        with pytest.raises(SoftTimeLimit) as caught:
            call(gateway)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert leaks(caught.value) == []


def _interrupt_at(line: int, prefix: str) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that raises at the n-th line run in modules of that name."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if not frame.f_globals.get("__name__", "").startswith(prefix):
            return None
        if event == "line":
            count += 1
            if count == line:
                raise SoftTimeLimit
        return trace

    return trace


def _run_until(line: int, prefix: str, call: Callable[[], object]) -> BaseException | None:
    before = sys.gettrace()
    sys.settrace(_interrupt_at(line, prefix))
    try:
        call()
    except SoftTimeLimit as error:
        return error
    finally:
        sys.settrace(before)
    return None


@pytest.mark.parametrize(
    "prefix", ["esms_viber.gateways", "urllib3", "http.client", "requests", "json", "urllib.parse"]
)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets that urllib3 was just opening
def test_an_interruption_at_any_line(gateway: EsmsGateway, fake_gateway: FakeGateway, prefix: str) -> None:
    fake_gateway.answer_all(_echo_as("104"))
    line, step, interruptions = 1, 1 if prefix.startswith("esms") else 3, 0
    while (error := _run_until(line, prefix, lambda: gateway.send(make_message()))) is not None:
        assert leaks(error) == [], f"interrupted at line {line} of {prefix}"
        line += step
        interruptions += 1
    assert interruptions > 10
    assert gateway.send(make_message()).code == "104"


def test_the_search_finds_what_a_plain_client_shows(fake_gateway: FakeGateway) -> None:
    def plain_client() -> None:
        query = f"ApiKey={API_KEY}"
        raise SoftTimeLimit(len(query))

    with pytest.raises(SoftTimeLimit) as caught:
        plain_client()
    assert leaks(caught.value)


def test_what_holds_a_key_hides_it(gateway: EsmsGateway) -> None:
    held = [gateway, Keys(API_KEY, SECRET_KEY), Secret(API_KEY.encode())]
    for one in held:
        assert traces_in(repr(one) + str(one) + reprlib.repr(one)) == []
        with pytest.raises(TypeError) as caught:
            pickle.dumps(one)
        assert leaks(caught.value) == []
        with pytest.raises(TypeError):
            copy.deepcopy(one)


def test_a_bad_base_url_leaves_no_key_behind() -> None:
    with pytest.raises(ValueError, match="base_url must be") as caught:
        EsmsGateway(api_key=API_KEY, secret_key=SECRET_KEY, base_url="nowhere", timeout=(1, 1), pool_size=1)
    assert leaks(caught.value) == []
