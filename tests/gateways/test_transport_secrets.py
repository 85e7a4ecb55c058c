"""No key in logs, output, results or traceback locals, whatever happens to a call."""

from __future__ import annotations

import contextlib
import copy
import http.client
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

import pytest
from urllib3.connectionpool import HTTPConnectionPool

from esms_viber.gateways.base import Reach
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.keys import Keys, Secret
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

CALLS: dict[str, Callable[[EsmsGateway], object]] = {
    "send": lambda gateway: gateway.send(make_message()),
    "status": lambda gateway: gateway.fetch_status("sms-1"),
    "balance": lambda gateway: gateway.fetch_balance(),
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
        # The content type is kept as it came; what is told of it is another test's matter.
        headers = {name: value for name, value in response.headers.items() if name != "Content-Type"}
        shown.append(repr((headers, response.reason, response.geturl())))
        return response

    monkeypatch.setattr(HTTPConnectionPool, "urlopen", watched)
    fake_gateway.answer(answer)
    with impatient(gateway) if answer == ANSWERS["hang"] else contextlib.nullcontext():
        gateway.send(make_message())
    assert "SendMultipleMessage_V4_get" in shown[0]
    assert traces_in("".join(shown)) == []
    assert leaked == []


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
    assert gateway.send(make_message()).reach is Reach.NO_ANSWER
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
