from __future__ import annotations

import ast
import sys
from pathlib import Path

from django.test import Client, override_settings
from django.urls import reverse

from ..behaviour import Answering, Reporting
from ..state import Message, gateway
from .client import ACCOUNT, BUTTON, IMAGE, TEXT, GatewayTestCase, without

PHONE = "0901888484"


class ControlTests(GatewayTestCase):
    url = reverse("simulator:control")

    def test_chooses_the_behaviour(self) -> None:
        data = {"answering": "timeout", "reporting": "twice", "remaining": "2"}
        response = self.client.post(self.url, data)
        self.assertRedirects(response, self.url, fetch_redirect_response=False)
        chosen = gateway.behaviour
        self.assertEqual(
            (chosen.answering, chosen.reporting, chosen.remaining), (Answering.TIMEOUT, Reporting.TWICE, 2)
        )

    def test_until_it_is_changed(self) -> None:
        self.client.post(self.url, {"answering": "html", "reporting": "normal", "remaining": ""})
        self.assertIsNone(gateway.behaviour.remaining)

    def test_refuses_nonsense(self) -> None:
        response = self.client.post(self.url, {"answering": "x", "reporting": "normal"})
        self.assertEqual(response.status_code, 200)
        self.assertTrue(gateway.behaviour.is_normal)

    def test_tops_the_account_up(self) -> None:
        before = gateway.balance
        response = self.client.post(reverse("simulator:top-up"))
        self.assertRedirects(response, self.url, fetch_redirect_response=False)
        self.assertEqual(gateway.balance, before + 1_000_000)
        self.assertEqual(self.client.get(reverse("simulator:top-up")).status_code, 405)

    def test_is_protected_against_other_sites(self) -> None:
        client = Client(enforce_csrf_checks=True)
        response = client.post(self.url, {"answering": "html", "reporting": "normal"})
        self.assertEqual(response.status_code, 403)

    def test_writes_the_balance_as_the_language_does(self) -> None:
        for language, balance in (("vi", "1.000.000 đ"), ("en", "1,000,000 đ")):
            self.assertContains(self.client.get(self.url, headers={"accept-language": language}), balance)

    def test_tells_of_a_call_in_the_language_of_who_looks(self) -> None:
        self.send(RequestId="r1", OttUrl="https://x.vn/")
        response = self.client.get(self.url, headers={"accept-language": "vi"})
        self.assertContains(response, "OttUrl phải viết là OTTUrl trong lệnh này")

    def test_shows_calls_and_oddities(self) -> None:
        self.send(RequestId="r1", OttUrl="https://x.vn/")
        self.assertContains(self.client.get(self.url), "OttUrl is spelt OTTUrl in this call")


class PhoneTests(GatewayTestCase):
    def arrive(self, values: dict[str, str]) -> Message:
        self.send(values)
        message = gateway.messages[-1]
        gateway.finish(message)
        return message

    def test_bubbles(self) -> None:
        self.arrive(TEXT | BUTTON | IMAGE | {"Content": "<b>Xin</b>\r\nchào"})
        response = self.client.get(reverse("simulator:phone", args=[PHONE]))
        self.assertContains(response, "&lt;b&gt;Xin&lt;/b&gt;\nchào")
        self.assertContains(response, f'href="{BUTTON["OTTUrl"]}"')
        self.assertContains(response, f'src="{IMAGE["OTTImgUrl"]}"')

    def test_new_messages_as_json(self) -> None:
        first, second = self.arrive(TEXT), self.arrive(TEXT | {"Content": "a\r\nb"})
        self.arrive(TEXT | {"Phone": "0912345678"})
        url = reverse("simulator:phone-messages", args=[PHONE])
        data = self.client.get(url, {"after": first.arrival}).json()
        self.assertEqual(data["run"], gateway.run)
        self.assertEqual([(m["arrival"], m["text"]) for m in data["messages"]], [(second.arrival, "a\nb")])
        self.assertEqual(len(self.client.get(url, {"after": "x"}).json()["messages"]), 2)

    def test_images_that_this_site_stands_in_for(self) -> None:
        self.arrive(without(TEXT, "Content") | IMAGE)
        with override_settings(SIMULATOR=ACCOUNT | {"LOCAL_IMAGES": {"https://shop.example.vn/static/": "/static/"}}):
            response = self.client.get(reverse("simulator:phone-messages", args=[PHONE]))
        (message,) = response.json()["messages"]
        self.assertEqual((message["image"], message["image_url"]), ("/static/parcel.png", IMAGE["OTTImgUrl"]))

    def test_links_that_are_no_web_addresses_are_left_out(self) -> None:
        self.arrive(TEXT | BUTTON | {"OTTUrl": "javascript:alert(1)", "OTTImgUrl": "javascript:alert(2)"})
        self.assertNotContains(self.client.get(reverse("simulator:phone", args=[PHONE])), 'href="javascript')
        (message,) = self.client.get(reverse("simulator:phone-messages", args=[PHONE])).json()["messages"]
        self.assertEqual((message["button_url"], message["image"]), ("", ""))

    def test_list_of_phones(self) -> None:
        url = reverse("simulator:phones")
        self.assertNotContains(self.client.get(url), PHONE)
        self.arrive(TEXT)
        self.assertContains(self.client.get(url), PHONE)

    def test_no_such_phone(self) -> None:
        self.assertEqual(self.client.get(reverse("simulator:phone", args=["84901888484"])).status_code, 404)


class PolicyTests(GatewayTestCase):
    def test_pages_run_nothing_from_elsewhere_and_nothing_inline(self) -> None:
        self.send()
        gateway.finish(gateway.messages[0])
        for name, args in (("control", []), ("phones", []), ("phone", [PHONE])):
            response = self.client.get(reverse(f"simulator:{name}", args=args))
            with self.subTest(name):
                self.assertIn("default-src 'self'", response["Content-Security-Policy"])
                self.assertNotIn("unsafe", response["Content-Security-Policy"])
                self.assertNotRegex(response.content.decode(), r"<style|<script>| style=| on[a-z]+=\"|//cdn")

    def test_knows_nothing_of_the_app_that_it_checks(self) -> None:
        for path in Path(__file__).parents[1].rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
                for name in names:
                    with self.subTest(path=path.name, name=name):
                        self.assertIn(name.partition(".")[0], {*sys.stdlib_module_names, "django", "requests"})
