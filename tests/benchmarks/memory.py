"""Does a drain hold its memory flat? The peak of a sender of its own process, for a short queue and for a long one.

    python tests/benchmarks/memory.py [short] [long]

Prints the peaks in MiB (resident set), and ends with 1 where the long queue (100,000 unless said) takes over 60 MiB
more than the short one (1,000). SQLite in a temporary folder, or TEST_DATABASE_URL, whose messages are deleted.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

MOST_MIB = 60


def drain(url: str) -> None:
    """In the child: send all that is due, and tell the peak."""
    _set_up(url)
    from esms_viber.services import deliver_due_messages

    started = time.perf_counter()
    sent = deliver_due_messages().sent
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(sent, peak, time.perf_counter() - started)


def _set_up(url: str) -> None:
    import logging

    import django
    from django.conf import settings

    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": url,
        "DISPATCHER": "esms_viber.dispatch.queue_only",
    }
    django.setup()
    logging.disable(logging.WARNING)


def main(short: int, long: int) -> int:
    from tests.benchmarks.sending import serve

    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("TEST_DATABASE_URL", f"sqlite:///{folder}/db.sqlite3")
        parent, child = multiprocessing.Pipe()
        server = multiprocessing.get_context("spawn").Process(target=serve, args=(child, 0))
        server.start()
        try:
            url = parent.recv()
            _set_up(url)
            peaks = [peak_of(count, url) for count in (short, long)]
        finally:
            parent.send("stop")
            server.join()
    more = peaks[1] - peaks[0]
    print(f"{more:+.1f} MiB for {long / short:.0f} times the messages; ratio {peaks[1] / peaks[0]:.2f}")
    return int(more > MOST_MIB)


def peak_of(count: int, url: str) -> float:
    from django.core.management import call_command

    from esms_viber.models import OutboundViberMessage
    from esms_viber.services import queue_viber_messages

    call_command("migrate", verbosity=0)
    OutboundViberMessage.objects.all().delete()
    for start in range(0, count, 5000):
        numbers = range(start, min(start + 5000, count))
        queue_viber_messages(
            [OutboundViberMessage(phone="0901888484", content=f"Đơn hàng #{n} đã giao") for n in numbers]
        )
    told = subprocess.run([sys.executable, __file__, "drain", url], capture_output=True, text=True, check=True)
    sent, peak, seconds = told.stdout.split()
    print(f"{int(sent):>7} sent, peak {float(peak):6.1f} MiB, {int(sent) / float(seconds):6.0f} messages/s", flush=True)
    assert int(sent) == count
    return float(peak)


if __name__ == "__main__":
    if sys.argv[1:2] == ["drain"]:
        drain(sys.argv[2])
    else:
        numbers = [int(argument) for argument in sys.argv[1:]]
        sys.exit(main(*(numbers or [1_000, 100_000])))
