"""How fast queued messages leave, against bare pools of 32 threads that make the same GETs in the same run."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from statistics import median
from typing import Any

from . import harness
from .filling import campaign, fill

THREADS = 32


def run(rounds: int = 5, messages: int = 3_000) -> list[harness.Result]:
    results = []
    for milliseconds in (0, 50):
        with harness.gateway(milliseconds, CONCURRENCY=THREADS) as url:
            results += compare(url, f"gateway of {milliseconds} ms", messages, rounds)
    return results


def compare(url: str, name: str, messages: int, rounds: int) -> list[harness.Result]:
    from esms_viber.delivery.payload import outgoing_for
    from esms_viber.gateways.esms import send_query
    from esms_viber.models import OutboundViberMessage
    from esms_viber.services import deliver_due_messages

    ours: list[Measured] = []
    sessions: list[Measured] = []
    pool: list[Measured] = []
    one: list[float] = []
    two: list[float] = []
    idle: list[float | None] = []
    for number in range(rounds + 1):
        fill(campaign(messages))
        rows = OutboundViberMessage.objects.queued().order_by("pk")
        urls = [f"{url}SendMultipleMessage_V4_get?{send_query(outgoing_for(message))}" for message in rows]
        found = [
            measure(lambda: bare_sessions(urls)),  # noqa: B023 - called at once
            measure(lambda: bare_pool(urls)),  # noqa: B023 - called at once
            measure(lambda: deliver_due_messages().sent),
        ]
        if not number:  # The first round only warms up.
            continue
        for figures, figure in zip((sessions, pool, ours), found, strict=True):
            figures.append(figure)
        for processes, figures in ((1, one), (2, two)):
            fill(campaign(messages))
            rate, free = beside(processes)
            figures.append(rate)
        idle.append(free)

    def against(what: str, floor: list[Measured]) -> harness.Result:
        cpu = {"cpu_ms": median(each[1] for each in ours), "floor_cpu_ms": median(each[1] for each in floor)}
        rates = [[rate for rate, _cpu in figures] for figures in (ours, floor)]
        return harness.ratio(f"{name}: a drain, against {what}", rates[0], rates[1], **cpu)

    return [
        against(f"{THREADS} sessions of requests", sessions),
        against(f"a pool of {THREADS} of urllib3", pool),
        harness.ratio(f"{name}: two processes, against one", two, one, idle_cpu_percent=middle(idle)),
    ]


Measured = tuple[float, float]
"""Messages a second, and milliseconds of CPU a message."""


def measure(work: Callable[[], int]) -> Measured:
    started, cpu = time.perf_counter(), time.process_time()
    count = work()
    return count / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / count


def bare_sessions(urls: list[str]) -> int:
    import requests

    local = threading.local()

    def start() -> None:
        local.session = requests.Session()

    def get(url: str) -> int:
        return local.session.get(url, timeout=(5, 30)).status_code

    with ThreadPoolExecutor(THREADS, initializer=start) as threads:
        return list(threads.map(get, urls)).count(200)


def bare_pool(urls: list[str]) -> int:
    import urllib3

    pool = urllib3.PoolManager(maxsize=THREADS)

    def get(url: str) -> int:
        return pool.request("GET", url, retries=False).status

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(get, urls)).count(200)


def beside(processes: int) -> tuple[float, float | None]:
    """Messages a second of so many processes that share a queue, and the part of the CPU that nobody used."""
    found = harness.together(processes, drain)
    begun, ended = min(each[1] for each in found), max(each[2] for each in found)
    return sum(each[0] for each in found) / (ended - begun), middle([each[3] for each in found])


def drain() -> tuple[int, float, float, float | None]:
    """In a process of its own: how many were sent, from when to when, and the part of the CPU that nobody used."""
    from esms_viber.services import deliver_due_messages

    idle, begun = harness.IdleCpu(), time.time()
    sent = deliver_due_messages().sent
    return sent, begun, time.time(), idle.percent


def middle(figures: list[Any]) -> float | None:
    return median(figures) if None not in figures else None
