"""Every way in which a call can fail: how it is classed, that it is made once, and that it ends in time."""

from __future__ import annotations

import contextlib
import gzip
import socket
import ssl
import threading
import time
from collections.abc import Iterator

import pytest

from esms_viber.gateways.base import CallOutcome
from esms_viber.gateways.esms import EsmsGateway
from tests.fake_gateway import (
    PATIENCE,
    Answer,
    Close,
    Drip,
    FakeGateway,
    Hang,
    Reset,
    Wait,
    accepted,
    chunked_answer,
    echo,
    gzip_answer,
    http_answer,
    json_answer,
    redirect,
)
from tests.gateways.samples import SOON, impatient, make_gateway, make_message

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
GOOD = {"CodeResult": "100", "SMSID": "s"}
LATE = f"No answer in time · {SOON} s"
CUT = "Connection closed before the answer was complete"
NO_ANSWERS: dict[str, tuple[Answer, str, int | None]] = {
    "hang": ([Hang()], LATE, None),
    "late headers": ([Wait(1), *accepted()], LATE, None),
    "late body": ([HEAD + b"Content-Length: 20\r\n\r\n", Wait(1)], LATE, 200),
    "a start, then silence": ([b"HTTP/1.1 ", Wait(0.36), b"200 OK\r\n", Hang()], LATE, None),
    "dripping headers": ([b"HTTP/1.1 200 OK\r\n", Drip(b"X: " + b"a" * 500, 0.05)], LATE, None),
    "dripping header lines": ([b"HTTP/1.1 200 OK\r\n", Drip(b"X: a\r\n" * 90, 0.01)], LATE, None),
    "dripping body": ([HEAD + b"Content-Length: 500\r\n\r\n", Drip(b" " * 500, 0.05)], LATE, 200),
    "dripping body till close": ([HEAD + b"Connection: close\r\n\r\n", Drip(b" " * 500, 0.05)], LATE, 200),
    "dripping chunks": ([HEAD + b"Transfer-Encoding: chunked\r\n\r\n", Drip(b"1\r\n \r\n" * 90, 0.01)], LATE, 200),
    "endless 100 Continue": ([Drip(b"HTTP/1.1 100 Continue\r\n\r\n" * 40, 0.01)], LATE, None),
    "chunks without an end": (chunked_answer(GOOD, end=b""), LATE, 200),
    "close": ([Close()], CUT, None),
    "reset": ([Reset()], CUT, None),
    "reset in the headers": ([HEAD, Reset()], CUT, None),
    "close in the headers": (
        [HEAD + b"Content-Le", Close()],
        "The answer is not a JSON object · HTTP 200 · application/json",
        200,
    ),
    "reset in the body": ([HEAD + b"Content-Length: 500\r\n\r\n{}", Wait(0.05), Reset()], CUT, 200),
    "shorter than announced": ([HEAD + b'Content-Length: 500\r\n\r\n{"CodeResult": "100"}', Close()], CUT, 200),
    "chunks cut": ([*chunked_answer(GOOD, end=b""), Close()], CUT, 200),
    "gzip cut": (http_answer(gzip.compress(b"{}")[:-9], headers={"Content-Encoding": "gzip"}), CUT, 200),
    "not gzip": (
        http_answer(b"{}", headers={"Content-Encoding": "gzip"}),
        "The answer's compression cannot be read",
        200,
    ),
    "no HTTP": ([b"SSH-2.0-OpenSSH_9.6\r\n"], "The answer is not HTTP that can be read", None),
    "odd status": ([b"HTTP/1.1 abc\r\n\r\n"], "The answer is not HTTP that can be read", None),
    "too large": (
        http_answer(b'{"CodeResult":"100"}' + b" " * 65536),
        "The answer is too large · HTTP 200, > 64 KiB",
        200,
    ),
    "gzip bomb": (gzip_answer({**GOOD, "x": "a" * 5_000_000}), "The answer is too large · HTTP 200, > 64 KiB", 200),
    "HTML": (http_answer(b"<html>", status=500), "The answer is not a JSON object · HTTP 500 · text/html", 500),
    "empty": (http_answer(b""), "The answer is not a JSON object · HTTP 200 · text/html", 200),
    "no content": (http_answer(b"", status=204), "The answer is not a JSON object · HTTP 204 · text/html", 204),
    "a list": (
        json_answer([GOOD]),
        "The answer is not a JSON object · HTTP 200 · application/json",
        200,
    ),
    "no content type": (http_answer(b"no", content_type=""), "The answer is not a JSON object · HTTP 200", 200),
    "redirect": (redirect("http://127.0.0.1:1/"), "A redirect came, and is not followed · HTTP 302", 302),
    "permanent redirect": (redirect("/elsewhere", 308), "A redirect came, and is not followed · HTTP 308", 308),
    "try later": (
        http_answer(b"busy", status=503, headers={"Retry-After": "0"}),
        "The answer is not a JSON object · HTTP 503 · text/html",
        503,
    ),
}


@pytest.mark.parametrize(("answer", "text", "status"), NO_ANSWERS.values(), ids=NO_ANSWERS)
def test_the_request_left_and_no_answer_came(
    gateway: EsmsGateway, fake_gateway: FakeGateway, answer: Answer, text: str, status: int | None
) -> None:
    fake_gateway.answer(accepted("before"), answer, accepted("after"))
    before = gateway.send(make_message())
    with impatient(gateway) if text == LATE else contextlib.nullcontext():
        # Had the deadline begun anew with each byte, what drips would have come to its end.
        result = gateway.send(make_message())
    assert (result.outcome, result.text, result.http_status) == (CallOutcome.NO_ANSWER, text, status)
    assert (result.code, result.sms_id) == ("", "")
    assert len(fake_gateway.requests) == 2
    assert (before.sms_id, gateway.send(make_message()).sms_id) == ("before", "after")


def test_an_error_page_that_repeats_the_url(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(echo)
    result = gateway.send(make_message())
    assert (result.outcome, result.text) == (
        CallOutcome.NO_ANSWER,
        "The answer is not a JSON object · HTTP 500 · text/html",
    )


@pytest.mark.parametrize(
    "answer",
    [
        gzip_answer(GOOD),
        chunked_answer(GOOD),
        [HEAD + b"Connection: close\r\n\r\n" + b'{"CodeResult":100,"SMSID":"s"}', Close()],
        [HEAD, Wait(0.1), b'Content-Length: 32\r\n\r\n{"CodeResult":"100",', Wait(0.1), b'"SMSID":"s"}'],
    ],
    ids=["gzip", "chunked", "till close", "in pieces"],
)
def test_an_answer_in_any_form(gateway: EsmsGateway, fake_gateway: FakeGateway, answer: Answer) -> None:
    fake_gateway.answer(answer)
    result = gateway.send(make_message())
    assert (result.outcome, result.code, result.sms_id) == (CallOutcome.ANSWERED, "100", "s")


def test_the_time_taken_is_noted(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer([Wait(0.1), *accepted()])
    started = time.monotonic()
    result = gateway.send(make_message())
    assert 100 <= result.duration_ms <= (time.monotonic() - started) * 1000 + 1


def _send_to(url: str, *, connect_within: float = PATIENCE) -> tuple[CallOutcome, str]:
    gateway = make_gateway(url, timeout=(connect_within, PATIENCE))
    result = gateway.send(make_message())
    gateway.close()
    assert result.http_status is None
    return result.outcome, result.text


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


@pytest.fixture
def full_listener() -> Iterator[int]:
    """The port of a server that takes no more connections and says nothing."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.socket())
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(server.getsockname())
        time.sleep(0.02)
        yield server.getsockname()[1]


def test_a_name_that_does_not_exist() -> None:
    assert _send_to("http://esms.invalid/") == (CallOutcome.NOT_CONNECTED, "Could not connect: name not found")


def test_a_refused_connection() -> None:
    found = _send_to(f"https://127.0.0.1:{_free_port()}/")
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: connection refused")


def test_a_connection_that_is_not_made_in_time(full_listener: int) -> None:
    found = _send_to(f"http://127.0.0.1:{full_listener}/", connect_within=SOON)
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: time-out")


def test_an_unreachable_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise OSError(101, "Network is unreachable")

    monkeypatch.setattr("urllib3.util.connection.create_connection", unreachable)
    found = _send_to("http://127.0.0.1:9/")
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: network or host unreachable")


def test_tls_to_a_port_without_tls(fake_gateway: FakeGateway) -> None:
    found = _send_to(fake_gateway.url.replace("http:", "https:"), connect_within=SOON)
    assert found[0] is CallOutcome.NOT_CONNECTED
    assert fake_gateway.requests == []


def test_tls_to_a_port_that_answers_in_plain_text(tls_context: ssl.SSLContext) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            conn, _ = server.accept()
            with conn:
                conn.recv(4096)
                conn.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        found = _send_to(f"https://127.0.0.1:{server.getsockname()[1]}/")
        thread.join()
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: TLS handshake failed")


def test_a_tls_handshake_that_hangs() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        found = _send_to(f"https://127.0.0.1:{server.getsockname()[1]}/", connect_within=SOON)
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: time-out")


def test_a_certificate_that_is_not_trusted(tls_server: FakeGateway) -> None:
    found = _send_to(tls_server.url)
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: TLS certificate not accepted")
    assert tls_server.requests == []


@pytest.mark.usefixtures("trusted")
def test_a_certificate_for_another_name(tls_server: FakeGateway) -> None:
    found = _send_to(tls_server.url.replace("127.0.0.1", "localhost"))
    assert found == (CallOutcome.NOT_CONNECTED, "Could not connect: TLS certificate not accepted")


def _time_out() -> None:
    raise TimeoutError("something else")


def test_the_reason_is_not_taken_from_an_error_being_handled() -> None:
    url = f"http://127.0.0.1:{_free_port()}/"
    try:
        _time_out()
    except TimeoutError:
        found = _send_to(url)
    assert found[1] == "Could not connect: connection refused"
