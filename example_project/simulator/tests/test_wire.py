from __future__ import annotations

from urllib.parse import quote

from ..state import gateway
from .client import BUTTON, IMAGE, SEND, TEXT, GatewayTestCase, encode, without


class OddityTests(GatewayTestCase):
    def find(self, query: str) -> list[str]:
        gateway.reset()
        self.client.get(f"{SEND}?{query}")
        return gateway.oddities

    def test_nothing_odd_in_a_documented_call(self) -> None:
        extra = {
            "Content": "Đơn hàng của bạn:\r\n100% cà phê + phin %20",
            "RequestId": "r1",
            "Sandbox": "0",
            "CallbackUrl": "https://shop.example.vn/callback/token%20x/",
        }
        self.assertEqual(self.find(encode(TEXT | BUTTON | IMAGE | extra)), [])

    def test_each_oddity_is_named(self) -> None:
        rest = encode(without(TEXT, "Content"))
        odd = {
            f"{rest}&Content=Xin+ch%C3%A0o": "Content has '+' for a space; %20 is what the documented samples use",
            f"{rest}&Content={quote(quote('Xin chào'))}": "Content looks percent-encoded twice",
            f"{rest}&Content=a%0Ab": "Content has a line break that is not CR LF",
            f"{rest}&Content=%E0": "Content is not UTF-8",
            rest + "&Content=" + quote("a\u0300"): "Content is not in Unicode's composed form (NFC)",
            f"{rest}&Content={'x' * 1001}": "Content is longer than Viber's 1000 characters",
            f"{rest}&Content=a&Content=b": "Content is given 2 times",
            encode(TEXT | {"Phone": "84901888484"}): "Phone is not in the form of the samples, 0901888484",
            encode(TEXT | {"OttUrl": "x"}): "OttUrl is spelt OTTUrl in this call",
            encode(TEXT | {"IsUnicode": "1"}): "IsUnicode is not a parameter of the Viber call",
            encode(TEXT | {"RequestId": ""}): "RequestId is empty; an absent parameter is left out",
            encode(TEXT | {"Sandbox": "true"}): "Sandbox is neither 0 nor 1",
            encode(TEXT | {"CallbackUrl": "https://x.vn/?a=b"}): (
                "CallbackUrl has a query or fragment; how parameters are appended then is not documented"
            ),
            encode(TEXT | {"CallbackUrl": quote("https://x.vn/", safe="")}): "CallbackUrl is percent-encoded twice",
            encode(TEXT) + "&CallbackUrl=https://x.vn/": (
                "CallbackUrl is a URL inside a URL and not fully percent-encoded"
            ),
            encode(TEXT | BUTTON | {"OTTLabel": "x" * 31}): "OTTLabel is longer than Viber's 30 characters",
            encode(TEXT | BUTTON | {"OTTImgUrl": "http://x.vn/a.png"}): "OTTImgUrl is not an https URL",
            "Content=" + "x" * 2048: "the query string is too long",
        }
        for query, oddity in odd.items():
            with self.subTest(oddity):
                self.assertIn(oddity, self.find(query))
