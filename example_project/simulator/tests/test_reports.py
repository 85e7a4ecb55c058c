"""Callbacks, to a server of the test's own, over real HTTP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import requests
from django.test import LiveServerTestCase, override_settings

from ..behaviour import Answering, Behaviour, Reporting
from ..state import gateway
from .client import ACCOUNT, SEND, TEXT, encode

NAMES = [
    "SMSID",
    "SendFailed",
    "SendStatus",
    "SendSuccess",
    "TotalPrice",
    "TotalReceiver",
    "TotalSent",
    "RequestId",
    "TypeId",
    "telcoid",
    "phonenumber",
]


class Customer(ThreadingHTTPServer):
    """A site that is called back, and writes down how."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), CustomerHandler)
        self.paths: list[str] = []
        self.status = 200
        self.delays: list[float] = []
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/callback/token/"


class CustomerHandler(BaseHTTPRequestHandler):
    server: Customer

    def do_GET(self) -> None:
        self.server.paths.append(self.path)
        time.sleep(self.server.delays.pop(0) if self.server.delays else 0)
        self.send_response(self.server.status)
        self.send_header("Location", "/elsewhere/")
        self.end_headers()

    def log_message(self, *args: object) -> None:
        pass


@override_settings(SIMULATOR=ACCOUNT, LANGUAGE_CODE="en")
class ReportTests(LiveServerTestCase):
    def setUp(self) -> None:
        gateway.reset()
        self.customer = Customer()
        self.addCleanup(self.customer.server_close)
        self.addCleanup(self.customer.shutdown)

    def send(self, timeout: float = 5, **more: str) -> dict[str, Any]:
        values = TEXT | {"RequestId": "r1", "CallbackUrl": self.customer.url} | more
        with requests.Session() as session:
            session.trust_env = False
            return session.get(f"{self.live_server_url}{SEND}?{encode(values)}", timeout=timeout).json()

    def wait_for(self, condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 5
        while not condition():
            self.assertLess(time.monotonic(), deadline, self.customer.paths)
            time.sleep(0.01)

    def callbacks(self, count: int) -> list[dict[str, str]]:
        self.wait_for(lambda: len(self.callback_log()) >= count)
        time.sleep(0.15)
        self.assertEqual(len(self.customer.paths), count)
        return [dict(parse_qsl(urlsplit(path).query, keep_blank_values=True)) for path in self.customer.paths]

    def callback_log(self) -> list[str]:
        return [entry.result for entry in gateway.entries if entry.what.startswith("callback")]

    def test_delivered(self) -> None:
        sms_id = self.send()["SMSID"]
        (parameters,) = self.callbacks(1)
        self.assertEqual(list(parameters), NAMES)
        self.assertEqual(list(parameters.values()), [sms_id, *"051", "470.0000", *"11", "r1", "23", "2", "0901888484"])
        self.assertEqual(urlsplit(self.customer.paths[0]).path, "/callback/token/")
        self.assertEqual([message.sms_id for message in gateway.arrived("0901888484")], [sms_id])

    def test_no_viber_on_the_phone(self) -> None:
        self.send(Phone="0900000000")
        (parameters,) = self.callbacks(1)
        self.assertEqual([parameters[name] for name in NAMES[1:5]], ["1", "5", "0", "0.0000"])
        self.assertEqual(gateway.arrived(), [])

    def test_repeated_on_time_out_only(self) -> None:
        self.customer.delays = [1.5, 1.5]
        with self.settings(SIMULATOR=ACCOUNT | {"CALLBACK_TIMEOUT": 0.7}):
            self.send()
            self.callbacks(3)
        self.assertEqual(sorted(self.callback_log()), ["HTTP 200", "no answer in time", "no answer in time"])

    def test_repeated_five_times_at_most(self) -> None:
        self.customer.delays = [0.5] * 9
        with self.settings(SIMULATOR=ACCOUNT | {"CALLBACK_TIMEOUT": 0.05}):
            self.send()
            self.callbacks(6)

    def test_any_answer_ends_it(self) -> None:
        for status in (302, 404, 500):
            with self.subTest(status=status):
                gateway.reset()
                self.customer.status, self.customer.paths = status, []
                self.send()
                self.callbacks(1)
                self.assertEqual(self.callback_log(), [f"HTTP {status}"])

    def test_sandbox_is_not_reported(self) -> None:
        self.send(Sandbox="1")
        self.send(RequestId="r2")
        (parameters,) = self.callbacks(1)
        self.assertEqual(parameters["RequestId"], "r2")

    def test_twice(self) -> None:
        gateway.behave(Behaviour(reporting=Reporting.TWICE))
        self.send()
        first, second = self.callbacks(2)
        self.assertEqual(first, second)

    def test_in_steps(self) -> None:
        gateway.behave(Behaviour(reporting=Reporting.IN_STEPS))
        self.send()
        self.assertEqual([parameters["SendStatus"] for parameters in self.callbacks(2)], ["7", "5"])

    def test_before_the_answer(self) -> None:
        gateway.behave(Behaviour(reporting=Reporting.EARLY))
        self.send()
        self.assertEqual(len(self.customer.paths), 1)

    def test_never(self) -> None:
        gateway.behave(Behaviour(reporting=Reporting.NEVER))
        self.send()
        self.wait_for(gateway.arrived)
        self.assertEqual(self.customer.paths, [])

    def test_time_out_after_taking(self) -> None:
        gateway.behave(Behaviour(Answering.TIMEOUT, remaining=1))
        with self.assertRaises(requests.Timeout):
            self.send(timeout=0.2)
        self.callbacks(1)
        self.assertEqual(self.send()["CodeResult"], "124")
