from __future__ import annotations

import json
from datetime import timedelta
from typing import Any
from urllib.parse import quote

from django.test import Client, override_settings

from ..reports import schedule_report
from ..state import gateway, now
from .client import ACCOUNT, BALANCE, BRANDNAMES, KEYS, SENT, STATUS, GatewayTestCase, encode


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

    @override_settings(SIMULATOR=ACCOUNT | {"BALANCE": 1000})
    def test_the_balance_runs_out(self) -> None:
        gateway.reset()
        self.assertEqual([self.send_new()["CodeResult"] for _number in range(3)], ["100", "100", "103"])
        self.assertEqual(self.ask(KEYS)["Balance"], 60)
        self.client.post("/simulator/top-up/")
        self.assertEqual(self.send_new()["CodeResult"], "100")

    def test_it_can_be_made_to_run_out(self) -> None:
        page = self.client.post("/simulator/empty/", follow=True)
        self.assertContains(page, "Two more messages can be paid for.")
        self.assertEqual([self.send_new()["CodeResult"] for _number in range(3)], ["100", "100", "103"])


class BrandnameTests(GatewayTestCase):
    def ask(self, api_key: str, secret_key: str) -> dict[str, Any]:
        return self.client.get(f"{BRANDNAMES}/{quote(api_key, safe='')}/{quote(secret_key, safe='')}").json()

    def test_names_with_their_types(self) -> None:
        names = [{"Brandname": "CARE", "Type": 2}, {"Brandname": "SHOP", "Type": 23}]
        self.assertEqual(self.ask(*KEYS.values()), {"CodeResponse": "100", "ListBrandName": names})

    def test_wrong_keys_are_told_in_another_field(self) -> None:
        self.assertEqual(self.ask("key", "other"), {"CodeResult": "101", "ErrorMessage": "Authorize Failed"})

    def test_keys_are_not_in_the_log(self) -> None:
        self.ask(*KEYS.values())
        self.assertNotIn(KEYS["SecretKey"], repr(gateway.entries))


class SentTests(GatewayTestCase):
    def ask(self, **fields: object) -> dict[str, Any]:
        begin, end = now() - timedelta(minutes=1), now() + timedelta(minutes=1)
        values = {
            "SmsType": "23",
            "From": f"{begin:%Y-%m-%d %H:%M:%S}",
            "To": f"{end:%Y-%m-%d %H:%M:%S}",
            "Page": 1,
            "PageSize": 500,
        }
        client = Client(enforce_csrf_checks=True)
        body = json.dumps({**KEYS, **values, **fields})
        return client.post(SENT, body, content_type="application/json").json()

    @override_settings(SIMULATOR=ACCOUNT | {"REPORT_SECONDS": 60})
    def test_an_entry_is_as_documented_and_has_no_request_id(self) -> None:
        sms_id = self.send_new()["SMSID"]
        (message,) = gateway.messages
        answer = self.ask()
        (entry,) = answer["SentData"]
        self.assertEqual((answer["CodeResult"], answer["CountTotal"]), ("100", 1))
        self.assertEqual(
            entry,
            {
                "Campaign": "",
                "Content": "Xin chào",
                "Phone": "0901888484",
                "ReferenceId": sms_id,
                "SellPrice": 470.0,
                "SendResult": 2,
                "SendStatus": 2,
                "SentTime": f"/Date({round(message.taken_at.timestamp() * 1000)}+0700)/",
                "SmsId": 1,
                "SmsType": 23,
            },
        )
        gateway.finish(message)
        (entry,) = self.ask()["SentData"]
        self.assertEqual((entry["SendStatus"], entry["SendResult"]), (5, 1))

    def test_what_was_not_delivered(self) -> None:
        self.send(Phone="0900000000")
        gateway.finish(gateway.messages[0])
        (entry,) = self.ask()["SentData"]
        self.assertEqual((entry["SendStatus"], entry["SendResult"]), (5, 0))

    def test_pages_newest_first(self) -> None:
        sent = [self.send_new()["SMSID"] for _number in range(5)]
        pages = [self.ask(Page=page, PageSize=2) for page in (1, 2, 3, 4)]
        self.assertEqual([page["CountTotal"] for page in pages], [5] * 4)
        listed = [entry["ReferenceId"] for page in pages for entry in page["SentData"]]
        self.assertEqual(listed, sent[::-1])

    def test_only_what_was_taken_within_the_times(self) -> None:
        self.send()
        self.send(Sandbox="1")
        self.assertEqual(self.ask()["CountTotal"], 1)
        before = now() - timedelta(days=1)
        self.assertEqual(self.ask(From=f"{before:%Y-%m-%d %H:%M:%S}", To=f"{before:%Y-%m-%d %H:%M:%S}")["SentData"], [])

    def test_what_is_out_of_bounds(self) -> None:
        days_ago = f"{now() - timedelta(days=4):%Y-%m-%d %H:%M:%S}"
        for odd in ({"From": days_ago}, {"From": "x"}, {"PageSize": 501}, {"Page": 0}, {"SmsType": "2"}, {"To": None}):
            with self.subTest(odd=odd):
                self.assertEqual(self.ask(**odd)["CodeResult"], "110")

    def test_wrong_keys(self) -> None:
        self.assertEqual(self.ask(ApiKey="other"), {"CodeResult": "101", "ErrorMessage": "Authorize Failed"})
