"""An eSMS that keeps its word about RequestIds and nothing else: it drops, delays, refuses, and reports at odd times.

What it does to the n-th call about a phone follows from the seed alone, so that a run can be repeated.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import queue
import random
import socket
import threading
import time
import urllib.parse
from collections import Counter
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = {
    "answered": 70,
    "closed before it was read": 6,
    "taken, closed": 6,
    "taken, answered too late": 4,
    "taken, told as HTML": 4,
    "HTTP 500": 4,
    "half an answer": 3,
    "taken, nothing": 2,
    "146": 1,
}
REPORTS = {
    "soon": 40,
    "before the answer": 15,
    "late": 15,
    "twice": 10,
    "in the wrong order": 12,
    "never": 8,
}
LATE = 1.5
TAKEN = {"SendStatus": "7"}
ENDS = {
    "delivered": {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0", "TotalPrice": "470.0000"},
    "undelivered": {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "1", "TotalPrice": "0.0000"},
}


@dataclass
class Taken:
    """A message that this eSMS has taken."""

    phone: str
    content: str
    sms_id: str
    callback_url: str
    end: str
    reports: str
    reported: bool = False
    """Has a final report reached the site?"""


@dataclass
class Books:
    """What is counted at the gateway itself."""

    calls: int = 0
    taken: list[Taken] = field(default_factory=list)
    by_request_id: dict[str, Taken] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    """The phones of all calls, in their order."""
    refused: set[str] = field(default_factory=set)
    """Phones that the gateway refused for good."""
    faults: Counter[str] = field(default_factory=Counter)
    callbacks: Counter[int] = field(default_factory=Counter)
    """Answers of the site to callbacks, by HTTP status."""


class Esms:
    """`base_url` is what the senders are to call."""

    def __init__(self, seed: int, *, late: float) -> None:
        """`late`: seconds after which an answer comes too late for the senders."""
        self.seed, self.late = seed, late
        self.books = Books()
        self.everybody = ""
        """Every message is refused with this code while it is set; with "503" none has an answer that decides."""
        self._lock = threading.Lock()
        self._calls_about: Counter[str] = Counter()
        self._stopped = threading.Event()
        self._down = False
        self._callbacks: queue.PriorityQueue[tuple[float, int, Taken, dict[str, str], int]] = queue.PriorityQueue()
        self._numbers = iter(range(10**9))
        self._server = self._listen(0)
        self._port = self._server.server_port
        self._threads = [threading.Thread(target=self._report, daemon=True) for _ in range(6)]
        for thread in self._threads:
            thread.start()

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}/MainService.svc/json/"

    def go_down(self) -> None:
        """Refuse connections, and drop what comes over those that are open."""
        self._down = True
        self._server.shutdown()
        self._server.server_close()

    def come_up(self) -> None:
        self._server, self._down = self._listen(self._port), False

    def close(self) -> None:
        self._stopped.set()
        if not self._down:
            self.go_down()
        for thread in self._threads:
            thread.join(10)

    @property
    def callbacks_left(self) -> bool:
        return not self._callbacks.empty() or self._reporting > 0

    _reporting = 0

    # -- the calls -----------------------------------------------------------------------------------------------------

    def _listen(self, port: int) -> ThreadingHTTPServer:
        server = _Server(("127.0.0.1", port), type("Handler", (_Handler,), {"esms": self}))
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return server

    def plan(self, phone: str) -> tuple[str, random.Random]:
        """What is to happen to this call, and the chance behind it."""
        with self._lock:
            self.books.calls += 1
            self.books.called.append(phone)
            self._calls_about[phone] += 1
            chance = random.Random(f"{self.seed}/{phone}/{self._calls_about[phone]}")
            fault = chance.choices(list(FAULTS), FAULTS.values())[0]
            self.books.faults[fault] += 1
        return fault, chance

    def answer_to(self, query: dict[str, str], chance: random.Random, *, refuse: bool) -> tuple[dict[str, Any], str]:
        """The truth about a call, and when a report is to come; the books are kept."""
        request_id, phone = query["RequestId"], query["Phone"]
        with self._lock:
            if request_id in self.books.by_request_id:
                return {"CodeResult": "124", "ErrorMessage": "Request exist 1"}, ""
            if self.everybody:
                return {"CodeResult": self.everybody, "ErrorMessage": "Not now"}, ""
            if refuse:
                self.books.refused.add(phone)
                return {"CodeResult": "146", "ErrorMessage": "Template is not match"}, ""
            taken = Taken(
                phone,
                query["Content"],
                f"sms-{next(self._numbers)}",
                query["CallbackUrl"],
                chance.choice(list(ENDS)),
                chance.choices(list(REPORTS), REPORTS.values())[0],
            )
            self.books.taken.append(taken)
            self.books.by_request_id[request_id] = taken
        return {"CodeResult": "100", "CountRegenerate": 0, "SMSID": taken.sms_id}, taken.reports

    def status_of(self, sms_id: str) -> dict[str, Any]:
        with self._lock:
            found = next((taken for taken in self.books.taken if taken.sms_id == sms_id), None)
        if found is None:
            return {"CodeResponse": "105", "SMSID": sms_id}
        return {"CodeResponse": "100", "SMSID": sms_id, **ENDS[found.end]}

    # -- the reports ---------------------------------------------------------------------------------------------------

    def report(self, request_id: str, chance: random.Random) -> None:
        """Plan the callbacks on a message that was just taken."""
        taken = self.books.by_request_id[request_id]
        end = {**ENDS[taken.end], "SMSID": taken.sms_id, "RequestId": request_id}
        soon, late = chance.uniform(0, 0.2), chance.uniform(0.5, 1) * LATE
        match taken.reports:
            case "soon" | "before the answer":
                planned = [(soon, end)]
            case "late":
                planned = [(soon, TAKEN), (late, end)]
            case "twice":
                planned = [(soon, end), (soon, end), (late, end)]
            case "in the wrong order":
                planned = [(soon, end), (late, TAKEN), (late, {"SendStatus": "1"})]
            case _:
                planned = []
        for delay, parameters in planned:
            self._schedule(delay, taken, parameters)

    def report_now(self, request_id: str) -> None:
        """Before the answer to the call itself."""
        taken = self.books.by_request_id[request_id]
        self._deliver(taken, {**ENDS[taken.end], "SMSID": taken.sms_id, "RequestId": request_id}, 0)

    def _schedule(self, delay: float, taken: Taken, parameters: dict[str, str], tries: int = 0) -> None:
        self._callbacks.put((time.monotonic() + delay, next(self._numbers), taken, parameters, tries))

    def _report(self) -> None:
        while not self._stopped.is_set():
            try:
                due, number, *callback = self._callbacks.get(timeout=0.1)
            except queue.Empty:
                continue
            with self._lock:
                self._reporting += 1
            try:
                if due > time.monotonic():
                    self._callbacks.put((due, number, *callback))
                    time.sleep(0.01)
                else:
                    self._deliver(*callback)
            finally:
                with self._lock:
                    self._reporting -= 1

    def _deliver(self, taken: Taken, parameters: dict[str, str], tries: int) -> None:
        url = urllib.parse.urlsplit(taken.callback_url)
        with contextlib.closing(http.client.HTTPConnection(url.netloc, timeout=30)) as site:
            site.request("GET", f"{url.path}?{urllib.parse.urlencode(parameters)}")
            answer = site.getresponse()
            status = answer.status
            answer.read()
        with self._lock:
            self.books.callbacks[status] += 1
            taken.reported |= status == 200 and parameters.get("SendStatus") == "5"
        if status != 200 and tries < 5:
            self._schedule(0.5, taken, parameters, tries + 1)


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    # Those that are held up by what they are told to do would be waited for.
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A sender was killed in the middle of its call."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    esms: Esms

    def do_GET(self) -> None:
        path, _, text = self.path.partition("?")
        query = dict(urllib.parse.parse_qsl(text))
        if self.esms._down:
            self._hang_up()
        elif path.endswith("GetSendStatus"):
            self._answer(self.esms.status_of(query["RefId"]))
        else:
            self._take(query, *self.esms.plan(query["Phone"]))

    def _take(self, query: dict[str, str], fault: str, chance: random.Random) -> None:
        if fault == "closed before it was read":
            self._hang_up()
            return
        if self.esms.everybody == "503":
            self._write(b'{"message": "Service Unavailable"}', 503, "application/json")
            return
        if fault == "HTTP 500":
            self._write(b"<html>Server Error</html>", 500, "text/html")
            return
        answer, reports = self.esms.answer_to(query, chance, refuse=fault == "146")
        if reports == "before the answer":
            self.esms.report_now(query["RequestId"])
        elif reports:
            self.esms.report(query["RequestId"], chance)
        match fault:
            case "taken, closed":
                self._hang_up()
            case "taken, told as HTML":
                self._write(b"<html>Service Unavailable</html>", 200, "text/html")
            case "half an answer":
                self._write(json.dumps(answer).encode(), 200, "application/json", length=500)
                self._hang_up()
            case "taken, answered too late":
                time.sleep(self.esms.late * 1.3)
                self._answer(answer)
            case "taken, nothing":
                self.esms._stopped.wait(self.esms.late * 3)
                self._hang_up()
            case _:
                self._answer(answer)

    def _answer(self, answer: dict[str, Any]) -> None:
        self._write(json.dumps(answer).encode(), 200, "application/json")

    def _write(self, body: bytes, status: int, content_type: str, *, length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(length or len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.wfile.flush()

    def _hang_up(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *args: Any) -> None:
        pass
