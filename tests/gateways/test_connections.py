"""Connections: reused, shared by threads, never stale, through proxies, over TLS, and after a fork."""

from __future__ import annotations

import json
import ssl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from esms_viber.gateways import connections
from esms_viber.gateways.base import CallOutcome
from esms_viber.gateways.esms import EsmsGateway
from tests.fake_gateway import (
    PATIENCE,
    Close,
    FakeGateway,
    Hang,
    StartTLS,
    Wait,
    accepted,
    http_answer,
    json_answer,
    wait_until,
)
from tests.gateways.samples import SOON, impatient, make_gateway, make_message, traces_in


class Clock:
    def __init__(self) -> None:
        self.ahead = 0.0
        self._real = connections.monotonic

    def __call__(self) -> float:
        return self._real() + self.ahead


@pytest.fixture
def idle_clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(connections, "monotonic", found)
    return found


def test_a_connection_is_reused(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    for _ in range(5):
        assert gateway.send(make_message()).code == "100"
    gateway.fetch_status("s")
    gateway.fetch_balance()
    assert (len(fake_gateway.requests), fake_gateway.connections) == (7, 1)


def test_a_connection_is_reused_after_an_answer_without_use(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer_all(http_answer(b"<html>", status=500))
    for _ in range(3):
        gateway.send(make_message())
    assert fake_gateway.connections == 1


def test_threads_share_the_pool(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer_all(lambda request: [Wait(0.05), *accepted(request["RequestId"])])
    ids = [str(i) for i in range(40)]
    with ThreadPoolExecutor(4) as threads:
        results = list(threads.map(lambda i: gateway.send(make_message(request_id=i)), ids))
    assert [result.sms_id for result in results] == ids
    assert len(fake_gateway.requests) == 40
    assert fake_gateway.connections <= 4


def test_more_threads_than_the_pool_keeps(fake_gateway: FakeGateway) -> None:
    gateway = make_gateway(fake_gateway.url, pool_size=1)
    fake_gateway.answer_all([Wait(0.05), *accepted()])
    with ThreadPoolExecutor(6) as threads:
        results = list(threads.map(lambda _: gateway.send(make_message()), range(6)))
    assert {result.code for result in results} == {"100"}
    gateway.close()


@pytest.mark.parametrize(("idle", "expected"), [(29, 1), (31, 2)])
def test_a_connection_that_idled_is_not_reused(
    gateway: EsmsGateway, fake_gateway: FakeGateway, idle_clock: Clock, idle: float, expected: int
) -> None:
    gateway.send(make_message())
    idle_clock.ahead = idle
    assert gateway.send(make_message()).outcome is CallOutcome.ANSWERED
    assert fake_gateway.connections == expected


def test_a_connection_closed_by_the_server_is_not_reused(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer([*accepted(), Close()])
    gateway.send(make_message())
    wait_until(lambda: not fake_gateway.open_connections)
    assert gateway.send(make_message()).outcome is CallOutcome.ANSWERED
    assert fake_gateway.connections == 2


@pytest.mark.usefixtures("trusted")
def test_tls(tls_server: FakeGateway) -> None:
    gateway = make_gateway(tls_server.url)
    assert [gateway.send(make_message()).code for _ in range(2)] == ["100", "100"]
    assert tls_server.connections == 1
    tls_server.answer([b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{", Hang()])
    with impatient(gateway):
        assert gateway.send(make_message()).text == f"No answer in time · {SOON} s"
    gateway.close()


def test_a_forwarding_proxy(fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://user:word@127.0.0.1:{fake_gateway.port}")
    gateway = make_gateway("http://rest.esms.example/json/")
    assert [gateway.send(make_message()).code for _ in range(2)] == ["100", "100"]
    assert fake_gateway.last.target.startswith("http://rest.esms.example/json/SendMultipleMessage_V4_get?SmsType=23&")
    assert fake_gateway.last["RequestId"] == "r-1"
    assert "proxy-authorization" in fake_gateway.last.headers
    assert fake_gateway.connections == 1
    gateway.close()


@pytest.mark.usefixtures("trusted")
def test_a_tunnel_through_a_proxy(
    fake_gateway: FakeGateway, tls_context: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch, idle_clock: Clock
) -> None:
    opened = [b"HTTP/1.1 200 Connection established\r\n\r\n", StartTLS(tls_context)]
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{fake_gateway.port}")
    fake_gateway.answer(opened, accepted("a"), accepted("b"), opened, accepted("c"))
    gateway = make_gateway("https://127.0.0.1:444/json/")
    assert [gateway.send(make_message()).sms_id for _ in range(2)] == ["a", "b"]
    idle_clock.ahead = 31
    assert gateway.send(make_message()).sms_id == "c"
    assert [request.method for request in fake_gateway.requests] == ["CONNECT", "GET", "GET", "CONNECT", "GET"]
    assert fake_gateway.requests[0].target == "127.0.0.1:444"
    assert traces_in(fake_gateway.requests[0].raw.decode()) == []
    gateway.close()


@pytest.mark.parametrize(
    "answer",
    [http_answer(b"", status=407), [Close()], [b"HTTP/1.1 200 OK\r\n", Hang()]],
    ids=["refuses", "closes", "hangs"],
)
def test_a_proxy_that_opens_no_tunnel(
    fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch, answer: list[bytes]
) -> None:
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{fake_gateway.port}")
    fake_gateway.answer(answer)
    gateway = make_gateway("https://127.0.0.1:444/json/", timeout=(SOON, PATIENCE))
    assert gateway.send(make_message()).outcome is CallOutcome.NOT_CONNECTED
    wait_until(lambda: [request.method for request in fake_gateway.requests] == ["CONNECT"])
    gateway.close()


def test_a_proxy_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    gateway = make_gateway("http://rest.esms.example/json/")
    result = gateway.send(make_message())
    assert (result.outcome, result.text) == (CallOutcome.NOT_CONNECTED, "Could not connect through the proxy")


def test_a_proxy_can_be_excepted(fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    gateway = make_gateway(fake_gateway.url)
    assert gateway.send(make_message()).code == "100"
    gateway.close()


FORKING = """
import os, sys
from django.conf import settings
settings.configure(ESMS_VIBER={"API_KEY": "a", "SECRET_KEY": "s", "BRANDNAME": "b", "BASE_URL": sys.argv[1]})
from esms_viber.gateways.loading import get_gateway
from esms_viber.gateways.base import OutgoingMessage

def send(request_id):
    gateway = get_gateway()
    assert gateway is get_gateway()
    result = gateway.send(OutgoingMessage(phone="+84901888484", request_id=request_id, brandname="b", content="c"))
    assert result.code == "100", result
    return id(gateway)

parent = send("parent")
child = os.fork()
if not child:
    assert send("child") != parent
    assert send("child again") != parent
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
assert send("parent again") == parent
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork on Windows")
def test_a_forked_process_has_connections_of_its_own(fake_gateway: FakeGateway) -> None:
    command = [sys.executable, "-W", "error", "-X", "dev", "-c", FORKING, fake_gateway.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert (done.returncode, done.stderr) == (0, "")
    used = {request["RequestId"]: request.connection for request in fake_gateway.requests}
    assert used["parent"] == used["parent again"] != used["child"] == used["child again"]


def test_an_answer_of_the_largest_size_is_read(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    data = {"CodeResult": "100", "x": ""}
    data["x"] = "a" * (64 * 1024 - len(json.dumps(data)))
    fake_gateway.answer(json_answer(data))
    assert gateway.send(make_message()).code == "100"


def test_a_call_that_was_held_up_before_it_started_is_not_made(
    gateway: EsmsGateway, fake_gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by SIGSTOP: when the process goes on, the day may be another, and the RequestId new again."""
    gateway.send(make_message())
    monkeypatch.setattr(connections, "START_WITHIN_SECONDS", -1)
    result = gateway.send(make_message())
    assert (result.outcome, result.text) == (CallOutcome.NOT_CONNECTED, "Could not connect: time-out")
    assert len(fake_gateway.requests) == 1
