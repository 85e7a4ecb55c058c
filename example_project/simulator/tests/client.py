"""Calls to the simulated gateway as eSMS documents them, for its own tests."""

from __future__ import annotations

import uuid
from typing import Any
from urllib.parse import quote

from django.test import SimpleTestCase, override_settings

from ..state import gateway

SEND = "/MainService.svc/json/SendMultipleMessage_V4_get"
STATUS = "/MainService.svc/json/GetSendStatus"
BALANCE = "/MainService.svc/json/GetBalance_json"
BRANDNAMES = "/MainService.svc/json/GetListBrandname"
SENT = "/MainService.svc/json/GetSmsSentData_V2"
KEYS = {"ApiKey": "key", "SecretKey": "secret&="}
ACCOUNT = {
    "API_KEY": KEYS["ApiKey"],
    "SECRET_KEY": KEYS["SecretKey"],
    "BRANDNAMES": ("SHOP",),
    "REPORT_SECONDS": 0.05,
    "INDEXING_SECONDS": 0,
    "SLOW_SECONDS": 0.1,
    "HOLD_SECONDS": 1.5,
}
TEXT = {"SmsType": "23", "Phone": "0901888484", "Content": "Xin chào", "Brandname": "SHOP", **KEYS}
BUTTON = {"OTTUrl": "https://shop.example.vn/orders/1?a=b", "OTTLabel": "Xem"}
IMAGE = {"OTTImgUrl": "https://shop.example.vn/static/parcel.png"}


def encode(values: dict[str, str]) -> str:
    return "&".join(f"{name}={quote(value, safe='')}" for name, value in values.items())


def without(values: dict[str, str], *names: str) -> dict[str, str]:
    return {name: value for name, value in values.items() if name not in names}


@override_settings(SIMULATOR=ACCOUNT, LANGUAGE_CODE="en")
class GatewayTestCase(SimpleTestCase):
    def setUp(self) -> None:
        gateway.reset()
        self.addCleanup(gateway.reset)

    def send(self, values: dict[str, str] | None = None, **more: str) -> dict[str, Any]:
        response = self.client.get(f"{SEND}?{encode({**(values or TEXT), **more})}")
        self.assertEqual(response.status_code, 200)
        return response.json()

    def send_new(self, **more: str) -> dict[str, Any]:
        return self.send(RequestId=uuid.uuid4().hex, **more)

    def assert_refused(self, answer: dict[str, Any], code: str) -> None:
        self.assertEqual(answer.get("CodeResult"), code)
        self.assertEqual(answer["CountRegenerate"], 0)
        self.assertTrue(answer["ErrorMessage"])
        self.assertNotIn("SMSID", answer)
