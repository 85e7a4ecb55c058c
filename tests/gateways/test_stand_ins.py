"""The gateways that send nothing."""

from __future__ import annotations

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import pytest

from esms_viber.conf import ViberSettings
from esms_viber.gateways import memory
from esms_viber.gateways.base import CallOutcome, SendResult, StatusResult
from esms_viber.gateways.console import ConsoleGateway
from esms_viber.gateways.memory import MemoryGateway
from tests.gateways.samples import API_KEY, SECRET_KEY, make_gateway, make_message

CONF = ViberSettings(API_KEY=API_KEY, SECRET_KEY=SECRET_KEY)


def test_the_console_shows_the_message_and_no_key(capsys: pytest.CaptureFixture[str]) -> None:
    result = ConsoleGateway.from_settings(CONF).send(make_message(content="Chào\nbạn 🎉", sandbox=True))
    assert (result.outcome, result.code, result.sms_id[:8]) == (CallOutcome.ANSWERED, "100", "console-")
    assert capsys.readouterr().out == (
        "Viber message\n"
        "  SmsType: 23\n"
        "  Phone: 0901888484\n"
        "  Content: Chào\n"
        "    bạn 🎉\n"
        "  Brandname: Shop Áo\n"
        "  RequestId: r-1\n"
        "  Sandbox: 1\n"
        "  ApiKey: ********\n"
        "  SecretKey: ********\n"
    )


def test_a_console_that_cannot_show_a_character() -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    ConsoleGateway(stream=stream).send(make_message(content="🎉"))
    stream.seek(0)
    assert "Content: \\U0001f389" in stream.read()


def test_the_console_answers_queries() -> None:
    gateway = ConsoleGateway()
    assert gateway.fetch_status("s").values["SendStatus"] == "7"
    assert gateway.fetch_balance().code == "100"


@pytest.mark.parametrize("gateway", [ConsoleGateway(), MemoryGateway()])
def test_what_is_too_long_for_esms_is_too_long_for_a_stand_in(gateway) -> None:
    esms = make_gateway("http://127.0.0.1/", api_key="A" * 30, secret_key="B" * 30)
    assert gateway.query_length(make_message()) == esms.query_length(make_message())


def test_memory_keeps_what_it_is_given() -> None:
    first, second = make_message(request_id="1"), make_message(request_id="2")
    results = [MemoryGateway().send(first), MemoryGateway().send(second)]
    assert memory.outbox == [first, second]
    assert {result.code for result in results} == {"100"}
    assert len({result.sms_id for result in results}) == 2


def test_memory_answers_as_scripted() -> None:
    refusal = SendResult(outcome=CallOutcome.ANSWERED, code="103")
    MemoryGateway.answers.append(refusal)
    assert [MemoryGateway().send(make_message()).code for _ in range(2)] == ["103", "100"]
    report = StatusResult(outcome=CallOutcome.ANSWERED, code="100", values={"SendStatus": "5", "SendSuccess": "1"})
    MemoryGateway.statuses.append(report)
    assert [MemoryGateway().fetch_status("s").values["SendStatus"] for _ in range(2)] == ["5", "7"]
    assert MemoryGateway().fetch_balance().code == "100"


def test_memory_takes_messages_from_threads() -> None:
    with ThreadPoolExecutor(8) as threads:
        ids = set(threads.map(lambda i: MemoryGateway().send(make_message(request_id=str(i))).sms_id, range(100)))
    assert len(memory.outbox) == len(ids) == 100


def test_no_gateway_pickles() -> None:
    for gateway in (MemoryGateway(), ConsoleGateway()):
        with pytest.raises(TypeError, match="does not pickle"):
            pickle.dumps(gateway)
