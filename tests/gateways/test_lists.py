"""The brand names of an account, and eSMS's list of what was sent: how they are asked for, and read."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any
from urllib.parse import unquote

import pytest
from django.utils import timezone

from esms_viber.gateways.base import BaseGateway, CallOutcome, OutgoingMessage, SendResult, SentEntry
from esms_viber.gateways.console import ConsoleGateway
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.memory import MemoryGateway
from tests.fake_gateway import Close, FakeGateway, http_answer, json_answer
from tests.gateways.samples import API_KEY, SECRET_KEY, traces_in

BEGIN = dt.datetime(2027, 1, 31, 16, 58, 1, tzinfo=dt.UTC)
END = BEGIN + dt.timedelta(minutes=7)

NAMES = {
    "CodeResponse": "100",
    "ListBrandName": [
        {"Brandname": "Cà Phê Sớm", "Type": 23},
        {"Brandname": "QC_ONLINE", "Type": 1},
        {"Brandname": "SHOP", "Type": "23"},
        {"Brandname": "CARE", "Type": "2"},
    ],
}
ENTRY = {
    "Campaign": "x",
    "Content": "Xin chào\r\nbạn",
    "Phone": "0901888484",
    "ReferenceId": "849fe08c19294b02857cf91687021a50250",
    "SellPrice": 470.0,
    "SendResult": 1,
    "SendStatus": 5,
    "SentTime": "/Date(1705484048995+0700)/",
    "SmsId": 12345,
    "SmsType": 23,
}


def listed(*entries: Any, total: Any = None, **more: Any) -> list:
    count = {} if total is None else {"CountTotal": total}
    return json_answer({"CodeResult": "100", **count, "SentData": list(entries), **more})


# -- brand names -------------------------------------------------------------------------------------------------------


def test_the_names_that_are_active_for_viber(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(json_answer(NAMES))
    result = gateway.fetch_brandnames()
    assert (result.outcome, result.code, result.text) == (CallOutcome.ANSWERED, "100", "")
    assert result.brandnames == ("Cà Phê Sớm", "SHOP")


def test_the_keys_travel_in_the_path_each_encoded_once(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(json_answer(NAMES))
    gateway.fetch_brandnames()
    request = fake_gateway.last
    assert (request.method, request.query) == ("GET", "")
    beginning, api_key, secret_key = request.target.rsplit("/", 2)
    assert beginning == "/MainService.svc/json/GetListBrandname"
    assert (unquote(api_key), unquote(secret_key)) == (API_KEY, SECRET_KEY)
    assert "GetListBrandname" not in repr(gateway)


@pytest.mark.parametrize(
    ("answer", "outcome", "code"),
    [
        (json_answer({"CodeResult": "101", "ErrorMessage": "Authorize Failed"}), CallOutcome.ANSWERED, "101"),
        (json_answer({"CodeResponse": "100"}), CallOutcome.ANSWERED, "100"),
        (json_answer({"CodeResponse": 100, "ListBrandName": "SHOP"}), CallOutcome.ANSWERED, "100"),
        (http_answer(b"<html>"), CallOutcome.NO_ANSWER, ""),
        ([Close()], CallOutcome.NO_ANSWER, ""),
    ],
)
def test_no_names_are_not_an_empty_list(
    gateway: EsmsGateway, fake_gateway: FakeGateway, answer: list, outcome: CallOutcome, code: str
) -> None:
    fake_gateway.answer(answer)
    result = gateway.fetch_brandnames()
    assert (result.outcome, result.code, result.brandnames) == (outcome, code, None)


def test_names_that_cannot_be_read_are_left_out_and_said(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    odd = [None, "SHOP", {"Type": 23}, {"Brandname": 5, "Type": 23}, {"Brandname": "x" * 101, "Type": 23}]
    odd.append({"Brandname": "", "Type": 23})
    fake_gateway.answer(json_answer({"coderesponse": 100, "listbrandname": [*odd, {"brandname": "SHOP", "type": 23}]}))
    result = gateway.fetch_brandnames()
    assert result.brandnames == ("SHOP",)
    assert result.text == "Part of the list cannot be read and is left out."


def test_a_name_that_repeats_a_key_is_withheld(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(
        lambda request: json_answer(
            {
                "CodeResponse": "100",
                "ListBrandName": [{"Brandname": request.target[-60:], "Type": 23}, {"Brandname": API_KEY, "Type": 23}],
            }
        )
    )
    result = gateway.fetch_brandnames()
    assert result.brandnames == ()
    assert "withheld" in result.text
    assert traces_in(repr(result)) == []


def test_a_path_that_is_repeated_in_part_is_withheld(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(
        lambda request: json_answer({"CodeResult": "99", "ErrorMessage": f"bad: {request.target[:46]}"})
    )
    assert "GetListBrandname" not in gateway.fetch_brandnames().text


# -- the list of what was sent -----------------------------------------------------------------------------------------


def test_the_list_is_asked_for_in_vietnams_time(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(listed())
    gateway.fetch_sent(BEGIN, END, 2)
    request = fake_gateway.last
    assert (request.method, request.target) == ("POST", "/MainService.svc/json/GetSmsSentData_V2")
    assert json.loads(request.body) == {
        "ApiKey": API_KEY,
        "SecretKey": SECRET_KEY,
        "SmsType": "23",
        "From": "2027-01-31 23:58:01",
        "To": "2027-02-01 00:05:01",
        "Page": 2,
        "PageSize": 500,
    }
    assert request.headers["content-type"] == "application/json"


def test_an_entry_as_documented(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(listed(ENTRY, total=1))
    result = gateway.fetch_sent(BEGIN, END, 1)
    assert (result.code, result.total, result.unreadable, result.text) == ("100", 1, (), "")
    assert result.entries == (
        SentEntry(
            sms_id=ENTRY["ReferenceId"],
            phone="+84901888484",
            content="Xin chào\r\nbạn",
            sent_at=dt.datetime(2024, 1, 17, 9, 34, 8, 995000, tzinfo=dt.UTC),
            send_status=5,
            delivered=True,
            price=Decimal(470),
        ),
    )


@pytest.mark.parametrize(
    ("fields", "delivered"),
    [
        ({"SendResult": "1"}, True),
        ({"SendResult": 0}, False),
        ({"SendResult": "0"}, False),
        ({"SendResult": 2}, None),
        ({"SendResult": None}, None),
        ({"SendResult": None, "SentResult": True}, True),
        ({"SendResult": None, "SentResult": False}, False),
        ({"SendResult": None, "sentresult": "true"}, True),
        ({"SendResult": {}}, None),
    ],
)
def test_how_it_ended_in_each_spelling(
    gateway: EsmsGateway, fake_gateway: FakeGateway, fields: dict[str, Any], delivered: bool | None
) -> None:
    fake_gateway.answer(listed(ENTRY | fields))
    (entry,) = gateway.fetch_sent(BEGIN, END, 1).entries or ()
    assert entry.delivered is delivered


@pytest.mark.parametrize(
    ("time", "moment"),
    [
        ("/Date(1705484048995+0700)/", "2024-01-17T09:34:08.995000+00:00"),
        ("/Date(1705484048995)/", "2024-01-17T09:34:08.995000+00:00"),
        ("23/11/2023 17:06:37", "2023-11-23T10:06:37+00:00"),
    ],
)
def test_the_time_in_each_spelling(gateway: EsmsGateway, fake_gateway: FakeGateway, time: str, moment: str) -> None:
    fake_gateway.answer(listed(ENTRY | {"SentTime": time}))
    (entry,) = gateway.fetch_sent(BEGIN, END, 1).entries or ()
    assert entry.sent_at == dt.datetime.fromisoformat(moment)


def test_an_entry_may_lack_what_does_not_identify_it(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    needed = {name: ENTRY[name] for name in ("Phone", "ReferenceId", "SentTime")}
    fake_gateway.answer(listed(needed, {**needed, "SendStatus": "x", "SellPrice": "much", "Content": None}))
    first, second = gateway.fetch_sent(BEGIN, END, 1).entries or ()
    assert first == second
    assert (first.content, first.send_status, first.delivered, first.price) == ("", None, None, None)


@pytest.mark.parametrize(
    ("entry", "phone"),
    [
        (None, ""),
        ("x", ""),
        ({}, ""),
        (ENTRY | {"Phone": "09018884xx"}, ""),
        (ENTRY | {"ReferenceId": ""}, "+84901888484"),
        (ENTRY | {"ReferenceId": None}, "+84901888484"),
        (ENTRY | {"ReferenceId": "x" * 65}, "+84901888484"),
        (ENTRY | {"ReferenceId": API_KEY}, "+84901888484"),
        (ENTRY | {"SentTime": None}, "+84901888484"),
        (ENTRY | {"SentTime": "yesterday"}, "+84901888484"),
        (ENTRY | {"SentTime": "/Date(999999999999999+0700)/"}, "+84901888484"),
        (ENTRY | {"Content": 5}, "+84901888484"),
    ],
)
def test_an_entry_that_cannot_be_read_is_left_out_and_said(
    gateway: EsmsGateway, fake_gateway: FakeGateway, entry: Any, phone: str
) -> None:
    fake_gateway.answer(listed(entry, ENTRY, total="2"))
    result = gateway.fetch_sent(BEGIN, END, 1)
    assert [found.sms_id for found in result.entries or ()] == [ENTRY["ReferenceId"]]
    assert (result.unreadable, result.total) == ((phone,), 2)
    assert "Part of the list cannot be read and is left out." in result.text
    assert traces_in(repr(result)) == []


@pytest.mark.parametrize(
    "answer",
    [
        json_answer({"CodeResult": "101", "ErrorMessage": "Authorize Failed", "SentData": []}),
        json_answer({"CodeResult": "100"}),
        json_answer({"CodeResult": "100", "CountTotal": 3, "SentData": None}),
        json_answer({"CodeResult": "100", "SentData": {}}),
        json_answer({"SentData": []}),
        http_answer(b"<html>", status=500),
        [Close()],
    ],
)
def test_no_list_is_not_an_empty_one(gateway: EsmsGateway, fake_gateway: FakeGateway, answer: list) -> None:
    fake_gateway.answer(answer, json_answer({"CodeResponse": 100, "CountTotal": 0, "SentData": None}))
    assert gateway.fetch_sent(BEGIN, END, 1).entries is None
    assert gateway.fetch_sent(BEGIN, END, 1).entries == ()


def test_a_full_page_of_the_longest_texts_is_read(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    page = [ENTRY | {"Content": "ệ" * 1000, "ReferenceId": str(number)} for number in range(500)]
    fake_gateway.answer(listed(*page))
    assert len(gateway.fetch_sent(BEGIN, END, 1).entries or ()) == 500


def test_a_list_without_end_is_not_read_to_it(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(http_answer(b" " * (4 * 1024 * 1024 + 1)))
    result = gateway.fetch_sent(BEGIN, END, 1)
    assert result.outcome is CallOutcome.NO_ANSWER
    assert result.text == "The answer is too large · HTTP 200, > 4096 KiB"


def test_phone_and_text_are_in_no_repr(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(listed(ENTRY, ENTRY | {"SentTime": ""}))
    shown = repr(gateway.fetch_sent(BEGIN, END, 1))
    assert ENTRY["ReferenceId"] in shown
    assert "901888484" not in shown
    assert "chào" not in shown


# -- other gateways ----------------------------------------------------------------------------------------------------


class OwnGateway(BaseGateway):
    """A site's own, written before there were lists."""

    def send(self, message: OutgoingMessage, *, deadline: float | None = None) -> SendResult:
        raise NotImplementedError

    def fetch_status(self, sms_id: str) -> Any:
        raise NotImplementedError

    def fetch_balance(self) -> Any:
        raise NotImplementedError


@pytest.mark.parametrize("kind", [OwnGateway, ConsoleGateway])
def test_a_gateway_that_cannot_tell_says_so(kind: type[BaseGateway]) -> None:
    names, sent = kind().fetch_brandnames(), kind().fetch_sent(BEGIN, END, 1)
    assert (names.brandnames, names.text) == (None, "This gateway cannot tell.")
    assert (sent.entries, sent.text) == (None, "This gateway cannot tell.")


def test_the_memory_gateway_tells_what_a_test_has_put_there() -> None:
    assert MemoryGateway().fetch_brandnames().brandnames is None
    now = timezone.now()
    entries = [SentEntry(sms_id=str(n), phone="+84901888484", sent_at=now + dt.timedelta(hours=n)) for n in range(3)]
    MemoryGateway.brandnames.append("SHOP")
    MemoryGateway.sent.extend(entries)
    assert MemoryGateway().fetch_brandnames().brandnames == ("SHOP",)
    result = MemoryGateway().fetch_sent(now, now + dt.timedelta(hours=1), 1)
    assert (result.entries, result.total) == (tuple(entries[:2]), 2)
    assert MemoryGateway().fetch_sent(now, now, 2).entries == ()
    MemoryGateway.reset()
    assert MemoryGateway().fetch_sent(now, now, 1).entries == ()
