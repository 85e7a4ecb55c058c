"""What goes over the wire, byte for byte."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import esms_viber
from esms_viber.gateways.esms import EsmsGateway, send_query
from tests.fake_gateway import FakeGateway, json_answer
from tests.gateways.samples import API_KEY, SECRET_KEY, make_gateway, make_message

IMAGE = "https://cdn.example.vn/ảnh 1.png?w=800&h=800"
LINK = "https://shop.example.vn/?next=https%3A%2F%2Fx.vn%2F%3Fa%3D1&utm_source=viber#top"
KEYS = "&ApiKey=K%2B%2F%3D%25%26%C3%A9%20x%22%3C9&SecretKey=S3CR%2BT%27%2F%2541%26%C3%A9%20%5Cx%3E"
START = "/MainService.svc/json/SendMultipleMessage_V4_get?SmsType=23&Phone=0901888484"
END = "&Brandname=Shop%20%C3%81o&RequestId=r-1"
CONTENT = "&Content=Ch%C3%A0o%20b%E1%BA%A1n%0D%0Ahai%2B2%3D4%20%F0%9F%8E%89"
IMAGE_SENT = "&OTTImgUrl=https%3A%2F%2Fcdn.example.vn%2F%E1%BA%A3nh%201.png%3Fw%3D800%26h%3D800"
LINK_SENT = (
    "&OTTUrl=https%3A%2F%2Fshop.example.vn%2F%3Fnext%3Dhttps%253A%252F%252Fx.vn%252F%253Fa%253D1"
    "%26utm_source%3Dviber%23top&OTTLabel=Xem%20%C4%91%C6%A1n"
)
TEXT = {"content": "Chào bạn\nhai+2=4 🎉"}
BUTTON = {"button_label": "Xem đơn", "button_url": LINK}


@pytest.mark.parametrize(
    ("fields", "sent"),
    [
        pytest.param(TEXT, CONTENT, id="text"),
        pytest.param({"content": "", "image_url": IMAGE}, IMAGE_SENT, id="image"),
        pytest.param({**TEXT, **BUTTON}, CONTENT + LINK_SENT, id="text and button"),
        pytest.param(
            {**TEXT, **BUTTON, "image_url": IMAGE}, CONTENT + IMAGE_SENT + LINK_SENT, id="text, image and button"
        ),
    ],
)
def test_the_four_kinds(gateway: EsmsGateway, fake_gateway: FakeGateway, fields: dict[str, str], sent: str) -> None:
    gateway.send(make_message(**fields))
    (request,) = fake_gateway.requests
    lines = [
        f"GET {START}{sent}{END}&Sandbox=0{KEYS} HTTP/1.1",
        f"Host: 127.0.0.1:{fake_gateway.port}",
        "Accept-Encoding: identity",
        "Accept: application/json",
        f"User-Agent: django-esms-viber/{esms_viber.__version__}",
    ]
    assert request.raw.decode() == "\r\n".join([*lines, "", ""])


def test_a_server_reads_back_what_was_meant(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    gateway.send(make_message(**TEXT, **BUTTON, image_url=IMAGE, callback_url="https://x.vn/cb/1:a~b/", sandbox=True))
    assert dict(fake_gateway.last.params) == {
        "SmsType": "23",
        "Phone": "0901888484",
        "Content": "Chào bạn\r\nhai+2=4 🎉",
        "OTTImgUrl": IMAGE,
        "OTTUrl": LINK,
        "OTTLabel": "Xem đơn",
        "Brandname": "Shop Áo",
        "RequestId": "r-1",
        "CallbackUrl": "https://x.vn/cb/1:a~b/",
        "Sandbox": "1",
        "ApiKey": API_KEY,
        "SecretKey": SECRET_KEY,
    }


def test_decomposed_text_and_line_breaks_are_normalised(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    gateway.send(make_message(content="Cha\u0300o\r\nba\u0323n\n"))
    assert fake_gateway.last["Content"] == "Chào\r\nbạn\r\n"


def test_query_length_counts_what_is_sent_with_the_keys(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    message = make_message(**TEXT, **BUTTON, image_url=IMAGE, sandbox=True)
    gateway.send(message)
    assert gateway.query_length(message) == len(fake_gateway.last.query)


@given(st.text() | st.text(st.characters(categories=["Cs"])), st.text("a ~%/\n\xa0ệ🎉"))
def test_a_query_is_measured_as_it_is_encoded(content: str, label: str) -> None:
    message = make_message(content=content, button_label=label)
    keys = EsmsGateway.usual_query_length(make_message()) - len(send_query(make_message()))
    assert EsmsGateway.usual_query_length(message) == len(send_query(message)) + keys


def test_a_status_query(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(json_answer({"CodeResponse": "100", "SMSID": "a b", "SendStatus": 5}))
    result = gateway.fetch_status("a b")
    assert fake_gateway.last.target == "/MainService.svc/json/GetSendStatus?RefId=a%20b" + KEYS
    assert (result.code, result.values["SendStatus"]) == ("100", "5")


def test_a_balance_query_sends_the_keys_in_its_body(gateway: EsmsGateway, fake_gateway: FakeGateway) -> None:
    fake_gateway.answer(json_answer({"CodeResponse": "100", "Balance": 36693, "UserID": 1}))
    result = gateway.fetch_balance()
    request = fake_gateway.last
    assert (request.method, request.target) == ("POST", "/MainService.svc/json/GetBalance_json")
    assert json.loads(request.body) == {"ApiKey": API_KEY, "SecretKey": SECRET_KEY}
    assert request.headers["content-type"] == "application/json"
    assert result.balance == 36693


@pytest.mark.parametrize("ending", ["json", "json/", "json//"])
def test_a_base_url_needs_no_final_slash(fake_gateway: FakeGateway, ending: str) -> None:
    gateway = make_gateway(f"http://127.0.0.1:{fake_gateway.port}/MainService.svc/{ending}")
    gateway.send(make_message())
    assert fake_gateway.last.path == "/MainService.svc/json/SendMultipleMessage_V4_get"
    gateway.close()
