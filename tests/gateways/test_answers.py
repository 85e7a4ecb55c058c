"""Reading answers: tolerant of form, strict about what counts, never raising, never repeating a key."""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
import responses
from hypothesis import given
from hypothesis import strategies as st

from esms_viber.gateways.base import BalanceResult, CallOutcome, SendResult, StatusResult
from esms_viber.gateways.credentials import Keys
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.responses import WITHHELD
from tests.gateways.samples import API_KEY, SECRET_KEY, make_gateway, make_message, traces_in

KEYS = (API_KEY, SECRET_KEY)
HEX_KEY = "4F0A9B7C8D6E5F4A3B2C1D0E9F8A7B"
URL = "https://esms.example/json/"


@cache
def _gateway(api_key: str, secret_key: str) -> EsmsGateway:
    return make_gateway(URL, api_key=api_key, secret_key=secret_key)


@dataclass(frozen=True)
class _Answer:
    """One answer of eSMS, as the gateway reads it for each of its calls."""

    body: bytes | str
    status: int = 200
    content_type: str = "application/json"
    keys: tuple[str, str] = KEYS

    def as_send_result(self) -> SendResult:
        with self._answering("GET", "SendMultipleMessage_V4_get"):
            return _gateway(*self.keys).send(make_message())

    def as_status_result(self) -> StatusResult:
        with self._answering("GET", "GetSendStatus"):
            return _gateway(*self.keys).fetch_status("s")

    def as_balance_result(self) -> BalanceResult:
        with self._answering("POST", "GetBalance_json"):
            return _gateway(*self.keys).fetch_balance()

    def _answering(self, method: str, path: str) -> responses.RequestsMock:
        esms = responses.RequestsMock()
        esms.add(method, URL + path, body=self.body, status=self.status, content_type=self.content_type)
        return esms


def read_send(data: Any, keys: tuple[str, str] = KEYS) -> SendResult:
    return _Answer(json.dumps(data), keys=keys).as_send_result()


def read_status(body: str) -> StatusResult:
    return _Answer(body).as_status_result()


def read_balance(body: str) -> BalanceResult:
    return _Answer(body).as_balance_result()


def test_the_documented_answers() -> None:
    taken = read_send({"CodeResult": "100", "CountRegenerate": 0, "SMSID": "d8e0f1f0702544b2acb456ca9ccfd111250"})
    assert (taken.outcome, taken.code, taken.sms_id) == (
        CallOutcome.ANSWERED,
        "100",
        "d8e0f1f0702544b2acb456ca9ccfd111250",
    )
    bad_keys = read_send({"CodeResult": "101", "CountRegenerate": 0, "ErrorMessage": "Authorize Failed"})
    assert (bad_keys.code, bad_keys.sms_id, bad_keys.text) == ("101", "", "Authorize Failed")
    unreadable = read_send({"error": "Invalid request"})
    assert (unreadable.outcome, unreadable.code, unreadable.text) == (
        CallOutcome.ANSWERED_WITHOUT_CODE,
        "",
        "Invalid request",
    )


@pytest.mark.parametrize(
    ("value", "code"),
    [("100", "100"), (100, "100"), (" 100\n", "100"), ("x" * 16, "x" * 16)]
    + [(value, "") for value in (True, 100.0, None, [], ["100"], {}, "", "  ", "x" * 17, 10**16, "1\x0000", "\ud800")],
)
def test_what_is_a_code(value: Any, code: str) -> None:
    result = read_send({"CodeResult": value})
    assert (result.code, result.outcome is CallOutcome.ANSWERED) == (code, bool(code))


@pytest.mark.parametrize("status", [200, 302, 400, 500])
def test_a_code_counts_whatever_the_status(status: int) -> None:
    result = _Answer('{"CodeResult": "104"}', status=status).as_send_result()
    assert (result.outcome, result.code, result.http_status) == (CallOutcome.ANSWERED, "104", status)


def test_field_names_in_another_case() -> None:
    result = read_send({"coderesult": "104", "smsid": "s", "ERRORMESSAGE": "no"})
    assert (result.code, result.sms_id, result.text) == ("104", "s", "no")


def test_the_documented_name_goes_first() -> None:
    assert read_send({"coderesult": "100", "CodeResult": "104"}).code == "104"


@pytest.mark.parametrize(
    ("value", "sms_id"), [("a-1", "a-1"), (12345, "12345"), ("x" * 64, "x" * 64), (None, ""), (True, ""), (1.5, "")]
)
def test_sms_ids(value: Any, sms_id: str) -> None:
    assert read_send({"CodeResult": "100", "SMSID": value}).sms_id == sms_id


def test_a_long_sms_id_is_left_out_and_said() -> None:
    result = read_send({"CodeResult": "100", "SMSID": "x" * 65})
    assert (result.code, result.sms_id) == ("100", "")
    assert "SMSID was longer than 64 characters" in result.text


def test_an_error_message_is_one_short_clean_line() -> None:
    result = read_send({"CodeResult": "104", "ErrorMessage": "Sai\r\n\x00brand \u202e\ud800" + "tên " * 300})
    assert result.text.startswith("Sai brand tên tên")
    assert len(result.text) <= 500


def test_a_code_less_object_without_words() -> None:
    result = _Answer("{}", status=404).as_send_result()
    assert (result.outcome, result.text) == (CallOutcome.ANSWERED_WITHOUT_CODE, "The answer has no code · HTTP 404")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[1]",
        b'"100"',
        b"100",
        b"null",
        b"\xff\xfe",
        b'{"x":' * 10_000 + b"1" + b"}" * 10_000,
        b"[" * 60_000,
        b'{"CodeResult": "100"} trailing',
    ],
)
def test_what_is_not_a_json_object(body: bytes) -> None:
    result = _Answer(body).as_send_result()
    assert (result.outcome, result.code) == (CallOutcome.NO_ANSWER, "")


@pytest.mark.parametrize(
    "value", [b'"\xe9"', b"NaN", b"-Infinity", b"1e400", b"1e99999999999999999999", b"1" * 5000], ids=lambda v: v[:9]
)
@pytest.mark.parametrize("name", [b"TotalPrice", b"ErrorMessage", b"SMSID", b"x"])
def test_a_field_that_cannot_be_read_costs_no_other(name: bytes, value: bytes) -> None:
    body = b'{"CodeResult": "100", "SendStatus": 5, "SendSuccess": 1, "%s": %s}' % (name, value)
    assert _Answer(body).as_send_result().code == "100"
    status = _Answer(body).as_status_result()
    assert (status.code, status.values["SendStatus"], status.values["SendSuccess"]) == ("100", "5", "1")


def test_a_byte_order_mark_is_tolerated() -> None:
    assert _Answer('\ufeff{"CodeResult":"100"}').as_send_result().code == "100"


def test_a_status_keeps_prices_exact_and_scalars_only() -> None:
    result = read_status(
        '{"CodeResponse":"100","SMSID":"a","SendStatus":5,"TotalPrice":850.0000,"IsX":true,"N":null,"L":[1],"O":{}}'
    )
    assert result.code == "100"
    assert result.values == {
        "CodeResponse": "100",
        "SMSID": "a",
        "SendStatus": "5",
        "TotalPrice": "850.0000",
        "IsX": "true",
        "N": "",
    }


def test_a_status_under_the_other_name() -> None:
    assert read_status('{"CodeResult": 105}').code == "105"


def test_the_values_of_a_status_are_bounded() -> None:
    result = read_status(json.dumps({"CodeResponse": "100", **{f"{i:x<80}": "x" * 999 for i in range(50)}}))
    assert len(result.values) == 40
    assert max(map(len, result.values)) == 64
    assert max(map(len, result.values.values())) == 200


@pytest.mark.parametrize(
    ("body", "balance"),
    [
        ('{"CodeResponse":"100","Balance":36693,"UserID":1}', Decimal(36693)),
        ('{"CodeResponse":"100","Balance":"36693.50"}', Decimal("36693.50")),
        ('{"CodeResponse":"100","Balance":0}', Decimal(0)),
        ('{"CodeResponse":"101","Balance":0,"ErrorMessage":"Authorize Failed"}', None),
        ('{"CodeResponse":"100","Balance":"NaN"}', None),
        ('{"CodeResponse":"100","Balance":"a lot"}', None),
        ('{"CodeResponse":"100","Balance":[1]}', None),
        ('{"CodeResponse":"100","Balance":true}', None),
        ('{"CodeResponse":"100"}', None),
    ],
)
def test_a_balance(body: str, balance: Decimal | None) -> None:
    assert read_balance(body).balance == balance


def _nothing(text: str) -> str:
    return text


ENCODINGS: list[Callable[[str], str]] = [
    _nothing,
    lambda text: quote(text, safe=""),
    lambda text: quote(text, safe="").lower(),
    quote,
    quote_plus,
    lambda text: "".join(f"%{byte:02x}" for byte in text.encode()),
    html.escape,
    lambda text: "".join(f"&#x{ord(c):x};" for c in text),
    lambda text: "".join(f"&#{ord(c)};" for c in text),
    lambda text: json.dumps(text)[1:-1],
    lambda text: "".join(f"\\u{ord(c):04X}" for c in text),
    lambda text: repr(text)[1:-1],
    str.upper,
]
encodings = st.lists(st.sampled_from(ENCODINGS), max_size=3)


@given(key=st.sampled_from([API_KEY, SECRET_KEY]), chosen=encodings, before=st.text("ab =&", max_size=5))
def test_a_key_in_any_encoding_is_withheld(key: str, chosen: list[Callable[[str], str]], before: str) -> None:
    for encode in chosen:
        key = encode(key)
    result = read_send({"CodeResult": "101", "SMSID": key, "ErrorMessage": f"{before}{key} and more"})
    assert (result.code, result.sms_id, result.text) == ("101", "", WITHHELD)
    assert read_send({"CodeResult": key}).code == ""
    status = _Answer(json.dumps({"CodeResponse": "100", "x": key, key: "y"})).as_status_result()
    assert dict(status.values) == {"CodeResponse": "100", "x": ""}


@given(
    key=st.text(
        st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="\\"), min_size=8, max_size=30
    ).filter(lambda key: set(key) != {"+"}),
    chosen=encodings,
)
def test_any_key_in_any_encoding_is_found(key: str, chosen: list[Callable[[str], str]]) -> None:
    text = key
    for encode in chosen:
        text = encode(text)
    assert Keys(key, "another-secret").show_in(text)


@pytest.mark.parametrize("between", ["\u200b", "\x00", "\n", " "])
def test_a_key_cut_up_by_what_is_not_seen_is_withheld(between: str) -> None:
    result = read_send({"CodeResult": "101", "ErrorMessage": between.join(HEX_KEY)}, ("k-1", HEX_KEY))
    assert result.text == WITHHELD


def test_a_deeply_encoded_key_is_found() -> None:
    text = f"?SecretKey={HEX_KEY}&"
    for _ in range(30):
        text = quote(text, safe="")
    assert Keys("another-key", HEX_KEY).show_in(text)


@pytest.mark.parametrize("text", ["…&SecretKey=4F0", "APIKEY%3d4F0", "secretkey%253D", "ApiKey = x"])
def test_a_repeated_query_is_withheld_though_the_key_is_cut(text: str) -> None:
    assert read_send({"CodeResult": "101", "ErrorMessage": text}).text == WITHHELD


def test_a_key_beyond_the_limit_of_the_text_is_looked_for_too() -> None:
    assert read_send({"CodeResult": "101", "ErrorMessage": "x" * 499 + API_KEY}).text == WITHHELD


@pytest.mark.parametrize("text", ["ApiKey or SecretKey is wrong", "Brand name code is not exist", "100% + 5 & <b>"])
def test_ordinary_words_are_kept(text: str) -> None:
    assert read_send({"CodeResult": "101", "ErrorMessage": text}).text == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.sampled_from([API_KEY, quote(SECRET_KEY)]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
names = (
    st.sampled_from(["CodeResult", "CodeResponse", "SMSID", "ErrorMessage", "error", "Balance", API_KEY]) | st.text()
)


@given(data=st.dictionaries(names, json_values, max_size=8), status=st.integers(100, 599), kind=st.text())
def test_any_object_is_read(data: dict[str, Any], status: int, kind: str) -> None:
    _read_every_way(json.dumps(data).encode(), status, kind)


@given(body=st.binary(), status=st.integers(100, 599), kind=st.sampled_from([API_KEY, "text/html"]))
def test_any_bytes_are_read(body: bytes, status: int, kind: str) -> None:
    _read_every_way(body, status, kind)


def _read_every_way(body: bytes, status: int, content_type: str) -> None:
    found = (
        _Answer(body, status, content_type).as_send_result(),
        _Answer(body, status, content_type).as_status_result(),
        _Answer(body, status, content_type).as_balance_result(),
    )
    for result in found:
        assert traces_in(repr(result)) == []
        assert len(result.text) <= 500
        assert result.code == "" or result.outcome is CallOutcome.ANSWERED
        repr(result).encode()
        result.text.encode()
