from __future__ import annotations

import json
from typing import Any

from django.test import Client, override_settings

from ..reports import schedule_report
from ..state import gateway
from .client import ACCOUNT, BALANCE, KEYS, STATUS, GatewayTestCase, encode


class StatusTests(GatewayTestCase):
    def ask(self, sms_id: str, **keys: str) -> dict[str, Any]:
        return self.client.get(f"{STATUS}?{encode({'RefId': sms_id, **KEYS, **keys})}").json()

    @override_settings(SIMULATOR=ACCOUNT | {"REPORT_SECONDS": 60})
    def test_waiting_then_finished(self) -> None:
        sms_id = self.send()["SMSID"]
        self.assertEqual(self.ask(sms_id)["SendStatus"], 2)
        gateway.finish(gateway.messages[0])
        self.assertEqual(
            self.ask(sms_id),
            {
                "CodeResponse": "100",
                "SMSID": sms_id,
                "SendFailed": 0,
                "SendStatus": 5,
                "SendSuccess": 1,
                "TotalPrice": 470.0,
                "TotalReceiver": 1,
                "TotalSent": 1,
            },
        )

    @override_settings(SIMULATOR=ACCOUNT | {"REPORT_SECONDS": 60})
    def test_a_phone_without_viber(self) -> None:
        sms_id = self.send(Phone="0900000000")["SMSID"]
        gateway.finish(gateway.messages[0])
        answer = self.ask(sms_id)
        self.assertEqual((answer["SendStatus"], answer["SendSuccess"], answer["SendFailed"]), (5, 0, 1))
        self.assertEqual(gateway.balance, 1_000_000)

    @override_settings(SIMULATOR=ACCOUNT | {"INDEXING_SECONDS": 60})
    def test_not_found_right_after_sending(self) -> None:
        self.assertEqual(self.ask(self.send()["SMSID"])["CodeResponse"], "105")

    def test_not_found(self) -> None:
        self.assertEqual(self.ask("nothing")["CodeResponse"], "105")
        self.assertEqual(self.ask(self.send(Sandbox="1")["SMSID"])["CodeResponse"], "105")

    def test_wrong_keys(self) -> None:
        self.assertEqual(self.ask("x", ApiKey="other"), {"CodeResponse": "101", "SMSID": "x"})

    def test_finishing_twice_counts_once(self) -> None:
        self.send(Phone="0900000000")
        (message,) = gateway.messages
        gateway.finish(message)
        gateway.finish(message)
        self.assertEqual(gateway.balance, 1_000_000)
        self.assertFalse(gateway.hand_over(message))

    def test_a_message_without_callback_url_is_reported_to_nobody(self) -> None:
        self.send()
        schedule_report(gateway.messages[0])
        self.assertFalse([entry for entry in gateway.entries if entry.what.startswith("callback")])


class BalanceTests(GatewayTestCase):
    def ask(self, body: object) -> dict[str, Any]:
        client = Client(enforce_csrf_checks=True)
        return client.post(BALANCE, json.dumps(body), content_type="application/json").json()

    def test_balance(self) -> None:
        self.send()
        self.assertEqual(self.ask(KEYS), {"Balance": 999_530, "CodeResponse": "100", "UserID": 9999})

    def test_wrong_keys(self) -> None:
        wrong = {"Balance": 0, "CodeResponse": "101", "ErrorMessage": "Authorize Failed"}
        for body in (KEYS | {"ApiKey": "other"}, {}, [], None):
            with self.subTest(body=body):
                self.assertEqual(self.ask(body), wrong)
        self.assertEqual(self.client.post(BALANCE, b"{", content_type="application/json").json(), wrong)
