from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from unittest.mock import patch

from .. import state
from ..behaviour import Answering, Behaviour
from ..state import gateway
from .client import BUTTON, IMAGE, KEYS, SEND, TEXT, GatewayTestCase, encode, without


class AcceptedTests(GatewayTestCase):
    def test_answer_is_as_documented(self) -> None:
        answer = self.send()
        self.assertEqual(set(answer), {"CodeResult", "CountRegenerate", "SMSID"})
        self.assertEqual((answer["CodeResult"], answer["CountRegenerate"]), ("100", 0))
        self.assertRegex(answer["SMSID"], r"^[0-9a-f]{32}\d{7}$")

    def test_the_four_kinds(self) -> None:
        for values in (TEXT, TEXT | BUTTON, TEXT | BUTTON | IMAGE, without(TEXT, "Content") | IMAGE):
            with self.subTest(values=sorted(values)):
                self.assertEqual(self.send(values)["CodeResult"], "100")

    def test_message_is_kept_and_charged(self) -> None:
        self.send(TEXT | BUTTON | IMAGE)
        (message,) = gateway.messages
        self.assertEqual((message.phone, message.content, message.brand), ("0901888484", "Xin chào", "SHOP"))
        self.assertEqual((message.button_url, message.button_label), tuple(BUTTON.values()))
        self.assertEqual(message.image_url, IMAGE["OTTImgUrl"])
        self.assertEqual(gateway.balance, Decimal(1_000_000) - Decimal(470))

    def test_sandbox_is_accepted_and_forgotten(self) -> None:
        self.assertEqual(self.send(Sandbox="1")["CodeResult"], "100")
        self.assertEqual((gateway.messages, gateway.balance), ([], Decimal(1_000_000)))

    def test_keys_are_not_in_the_log(self) -> None:
        self.send()
        self.assertNotIn(KEYS["SecretKey"], repr(gateway.entries))


class RefusedTests(GatewayTestCase):
    def test_codes(self) -> None:
        refused = {
            "101": [TEXT | {"ApiKey": "other"}, TEXT | {"SecretKey": "other"}, without(TEXT, "ApiKey")],
            "300": [without(TEXT, "SmsType")],
            "118": [TEXT | {"SmsType": "2"}],
            "108": [TEXT | {"Phone": phone} for phone in ("", "123", "02838123456", "+84901888484", "09018884840")],
            "99": [TEXT | {"Phone": "0900000099"}],
            "104": [TEXT | {"Brandname": "shop"}, without(TEXT, "Brandname")],
        }
        for code, calls in refused.items():
            for values in calls:
                with self.subTest(code=code, values=values):
                    self.assert_refused(self.send(values), code)
        self.assertEqual(gateway.messages, [])

    def test_documented_messages(self) -> None:
        self.assertEqual(self.send(ApiKey="other")["ErrorMessage"], "Authorize Failed")
        self.assertEqual(self.send(Brandname="NOBODY")["ErrorMessage"], "Brand name code is not exist")

    def test_other_mixes_and_a_long_request_id(self) -> None:
        mixes = (
            without(TEXT, "Content"),
            TEXT | IMAGE,
            TEXT | {"OTTUrl": BUTTON["OTTUrl"]},
            TEXT | {"OTTLabel": BUTTON["OTTLabel"]},
            without(TEXT, "Content") | IMAGE | BUTTON,
            TEXT | {"RequestId": "r" * 51},
        )
        for values in mixes:
            with self.subTest(values=sorted(values)):
                self.assertEqual(self.send(values), {"error": "Invalid request"})

    def test_empty_account(self) -> None:
        gateway.balance = Decimal(469)
        self.assert_refused(self.send(), "103")

    def test_names_are_read_as_written(self) -> None:
        self.assert_refused(self.send(without(TEXT, "Brandname") | {"BrandName": "SHOP"}), "104")

    def test_only_get(self) -> None:
        self.assertEqual(self.client.post(SEND).status_code, 405)

    def test_query_that_is_too_long(self) -> None:
        fits = encode(TEXT)
        fits += "&RequestId=1&Content=" + "x" * (2048 - len(fits) - 21)
        self.assertEqual(self.client.get(f"{SEND}?{fits}").status_code, 200)
        response = self.client.get(f"{SEND}?{fits}x")
        self.assertEqual((response.status_code, response["Content-Type"][:9]), (400, "text/html"))


class RequestIdTests(GatewayTestCase):
    def test_taken_once_a_day(self) -> None:
        self.assertEqual(self.send(RequestId="r1")["CodeResult"], "100")
        answer = self.send(RequestId="r1", Content="another text")
        self.assert_refused(answer, "124")
        self.assertEqual(answer["ErrorMessage"], "Request exist 1")
        self.assertEqual(len(gateway.messages), 1)

    def test_free_again_after_midnight_in_vietnam(self) -> None:
        evening = state.now().replace(hour=23, minute=59)
        with patch.object(state, "now", return_value=evening):
            self.send(RequestId="r1")
        with patch.object(state, "now", return_value=evening + timedelta(minutes=2)):
            self.assertEqual(self.send(RequestId="r1")["CodeResult"], "100")

    def test_not_used_up_by_a_refusal_or_the_sandbox(self) -> None:
        self.send(RequestId="r1", Brandname="NOBODY")
        self.send(RequestId="r1", Sandbox="1")
        self.assertEqual(self.send(RequestId="r1")["CodeResult"], "100")

    def test_messages_without_one_are_all_taken(self) -> None:
        self.send()
        self.assertEqual(self.send()["CodeResult"], "100")


class MisbehaviourTests(GatewayTestCase):
    def test_html_instead_of_an_answer(self) -> None:
        for answering, status, taken in ((Answering.ERROR_500, 500, 0), (Answering.HTML, 200, 1)):
            with self.subTest(answering=answering):
                gateway.reset()
                gateway.behave(Behaviour(answering))
                response = self.client.get(f"{SEND}?{encode(TEXT)}")
                self.assertEqual((response.status_code, response["Content-Type"][:9]), (status, "text/html"))
                self.assertContains(response, "SecretKey=secret%26%3D", status_code=status)
                self.assertEqual(len(gateway.messages), taken)

    def test_no_balance(self) -> None:
        gateway.behave(Behaviour(Answering.NO_BALANCE))
        self.assert_refused(self.send(), "103")

    def test_held_answers_are_for_messages_that_were_taken(self) -> None:
        for answering in (Answering.SLOW, Answering.TIMEOUT):
            with self.subTest(answering=answering):
                gateway.reset()
                gateway.behave(Behaviour(answering))
                with patch("simulator.api.time.sleep") as sleep:
                    self.assertEqual(self.send()["CodeResult"], "100")
                sleep.assert_called_once()
                self.assertEqual(len(gateway.messages), 1)

    def test_for_the_next_calls_only(self) -> None:
        gateway.behave(Behaviour(Answering.NO_BALANCE, remaining=2))
        self.assertEqual([self.send().get("CodeResult") for _ in range(3)], ["103", "103", "100"])
        self.assertTrue(gateway.behaviour.is_normal)
