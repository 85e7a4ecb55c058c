"""Tells the customer's site what became of a message: the callback, over real HTTP."""

from __future__ import annotations

import heapq
import itertools
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import urlencode, urlsplit

import requests
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _

from . import rules
from .behaviour import Reporting
from .conf import get_config
from .state import LogEntry, Message, gateway

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

WORKERS = 4


class Agenda:
    """Jobs done later by a few daemon threads, in the order of their times."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._jobs: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._workers: list[threading.Thread] = []

    def add(self, delay: float, job: Callable[[], None]) -> None:
        with self._changed:
            heapq.heappush(self._jobs, (time.monotonic() + delay, next(self._order), job))
            if len(self._workers) < WORKERS:
                worker = threading.Thread(target=self._work, name="esms-callback", daemon=True)
                self._workers.append(worker)
                worker.start()
            self._changed.notify()

    def _work(self) -> None:
        while True:
            self._next_job()()

    def _next_job(self) -> Callable[[], None]:
        with self._changed:
            while True:
                wait = self._jobs[0][0] - time.monotonic() if self._jobs else None
                if wait is not None and wait <= 0:
                    self._changed.notify()
                    return heapq.heappop(self._jobs)[2]
                self._changed.wait(wait)


agenda = Agenda()


def schedule_report(message: Message, reporting: Reporting = Reporting.NORMAL) -> None:
    """Let the message arrive, and report it in the way asked for."""
    delay = get_config().REPORT_SECONDS
    match reporting:
        case Reporting.EARLY:
            _finish_and_report(message)
        case Reporting.NEVER:
            agenda.add(delay, lambda: gateway.finish(message))
        case Reporting.TWICE:
            agenda.add(delay, lambda: _finish_and_report(message))
            agenda.add(delay, lambda: _finish_and_report(message))
        case Reporting.IN_STEPS:
            agenda.add(delay / 2, lambda: _report_in_steps(message, delay / 2))
        case _:
            agenda.add(delay, lambda: _finish_and_report(message))


def _report_in_steps(message: Message, delay: float) -> None:
    if gateway.hand_over(message):
        call_back(message)
    agenda.add(delay, lambda: _finish_and_report(message))


def _finish_and_report(message: Message) -> None:
    gateway.finish(message)
    call_back(message)


def callback_url(message: Message) -> str:
    parameters = {
        "SMSID": message.sms_id,
        "SendFailed": int(message.finished and not message.delivered),
        "SendStatus": message.send_status,
        "SendSuccess": int(message.delivered),
        "TotalPrice": f"{message.price:.4f}",
        "TotalReceiver": 1,
        "TotalSent": int(message.finished),
        "RequestId": message.request_id,
        "TypeId": 23,
        "telcoid": rules.telco_of(message.phone),
        "phonenumber": message.phone,
    }
    return f"{message.callback_url}?{urlencode(parameters)}"


def call_back(message: Message) -> None:
    """One GET, repeated only when it times out. Whatever else the site answers is taken for an answer."""
    if urlsplit(message.callback_url).scheme not in ("http", "https"):
        return
    config = get_config()
    url = callback_url(message)
    for _attempt in range(1 + config.CALLBACK_RETRIES):
        result, timed_out = _get(url, config.CALLBACK_TIMEOUT)
        what = format_lazy(_("callback, SendStatus {status}"), status=message.send_status)
        gateway.log(LogEntry(what, result, message.request_id, message.phone))
        if not timed_out:
            break


def _get(url: str, timeout: float) -> tuple[_StrOrPromise, bool]:
    with requests.Session() as session:
        session.trust_env = False
        try:
            response = session.get(url, timeout=timeout, allow_redirects=False)
        except requests.Timeout:
            return _("no answer in time"), True
        except (requests.RequestException, ValueError) as error:
            return type(error).__name__, False
    return f"HTTP {response.status_code}", False
