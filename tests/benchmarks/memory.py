"""Does a drain hold its memory flat? The peak of a sender of its own process, for a short queue and for a long one.

    python tests/benchmarks/memory.py [short] [long]

Prints the peaks in MiB (resident set), and ends with 1 where the long queue (100,000 unless said) takes over 60 MiB
more than the short one (1,000). SQLite in a temporary folder, or a scratch database on the server of TEST_DATABASE_URL.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks import harness
from tests.benchmarks.filling import campaign, fill

MOST_MIB = 60


def run(short: int = 1_000, long: int = 100_000) -> list[harness.Result]:
    with harness.gateway():
        low, high = peak_of(short), peak_of(long)
    name = f"memory of a drain of {long:,}, against one of {short:,}"
    return [harness.summary(name, [high - low], "mib", floor=low, at_most=MOST_MIB)]


def peak_of(count: int) -> float:
    fill(campaign(count))
    [(sent, peak, seconds)] = harness.together(1, drain)
    print(f"{sent:>7} sent, peak {peak:6.1f} MiB, {sent / seconds:6.0f} messages/s", file=sys.stderr, flush=True)
    assert sent == count
    return float(peak)


def drain() -> tuple[int, float, float]:
    """In a process of its own: send all that is due; how many these were, the peak, and the seconds."""
    from esms_viber.services import deliver_due_messages

    started = time.perf_counter()
    sent = deliver_due_messages().sent
    return sent, harness.peak_mib(), time.perf_counter() - started


def main(short: int = 1_000, long: int = 100_000) -> int:
    with tempfile.TemporaryDirectory() as folder:
        harness.set_up(os.environ.get("TEST_DATABASE_URL") or f"sqlite:///{folder}/db.sqlite3")
        with harness.scratch_database():
            [result] = run(short, long)
            harness.show("memory", harness.machine(), None, [result])
    return int(result["mib"] > MOST_MIB)


if __name__ == "__main__":
    sys.exit(main(*(int(argument) for argument in sys.argv[1:])))
