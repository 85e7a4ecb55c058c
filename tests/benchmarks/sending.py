"""How fast queued messages leave, against a floor measured in the same run: a bare urllib3 pool making the same GETs.

    python tests/benchmarks/sending.py [messages] [milliseconds that the gateway takes to answer]

Prints messages a second, CPU a message and the ratios. SQLite, in a temporary folder.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

THREADS = 16


def serve(connection: Any, milliseconds: float) -> None:
    """The gateway, in a process of its own: it must not share the sender's interpreter lock."""
    from tests.fake_gateway import FakeGateway, Wait, accepted

    server = FakeGateway()
    server.answer_all([Wait(milliseconds / 1000), *accepted()])
    connection.send(server.url)
    connection.recv()
    server.close()


def measure(work: Callable[[], int]) -> tuple[float, float]:
    """Items a second, and milliseconds of CPU an item."""
    started, cpu = time.perf_counter(), time.process_time()
    count = work()
    return count / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / count


def bare_gets(url: str, queries: list[str]) -> int:
    import urllib3

    pool = urllib3.PoolManager(maxsize=THREADS)

    def get(query: str) -> int:
        return pool.request("GET", f"{url}SendMultipleMessage_V4_get?{query}", retries=False).status

    with ThreadPoolExecutor(THREADS) as threads:
        return list(threads.map(get, queries)).count(200)


def main(count: int, milliseconds: float) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    with tempfile.TemporaryDirectory() as folder:
        settings.DATABASES["default"]["NAME"] = f"{folder}/db.sqlite3"
        django.setup()
        logging.disable(logging.WARNING)
        call_command("migrate", verbosity=0)
        parent, child = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(child, milliseconds))
        server.start()
        try:
            compare(parent.recv(), count)
        finally:
            parent.send("stop")
            server.join()


def compare(url: str, count: int) -> None:
    from django.conf import settings

    from esms_viber.delivery.payload import outgoing_for
    from esms_viber.gateways.esms import send_query
    from esms_viber.models import OutboundViberMessage
    from esms_viber.services import deliver_due_messages, queue_viber_messages

    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": url,
        "DISPATCHER": "esms_viber.dispatch.queue_only",
        "CONCURRENCY": THREADS,
    }
    messages = [OutboundViberMessage(phone="0901888484", content=f"Đơn hàng #{n} đã giao") for n in range(count)]
    rate, cpu = measure(lambda: len(queue_viber_messages(messages)))
    print(f"queue in bulk:   {rate:8.0f} messages/s  {cpu:6.2f} ms CPU each")
    queries = [send_query(outgoing_for(message)) for message in messages]
    floor_rate, floor_cpu = measure(lambda: bare_gets(url, queries))
    print(f"bare GETs:       {floor_rate:8.0f} messages/s  {floor_cpu:6.2f} ms CPU each (floor)")
    rate, cpu = measure(lambda: deliver_due_messages().sent)
    print(f"claim, call, record: {rate:4.0f} messages/s  {cpu:6.2f} ms CPU each")
    print(f"ratio to the floor: {rate / floor_rate:.2f} of its speed, {cpu / floor_cpu:.1f} times its CPU")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(*(arguments or [1000, 50]))
