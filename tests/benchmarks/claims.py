"""How long a claim of 128 takes out of very many that became due at one time, and how fast they are drained."""

from __future__ import annotations

import time

from . import harness
from .filling import campaign, fill

CLAIM, SENDERS, DRAINED = 128, 4, 3_000


def run(rows: int = 1_000_000, rounds: int = 5) -> list[harness.Result]:
    from esms_viber.models import OutboundViberMessage

    drained = min(DRAINED, rows // 20)
    with harness.gateway(CONCURRENCY=32):
        empty = []
        for number in range(rounds + 1):
            fill(campaign(drained))
            rate = drain(drained)
            if number:  # The first one only warms up.
                empty.append(rate)
        OutboundViberMessage.objects.all().delete()
        fill(campaign(rows))
        results = [harness.summary(f"claim of {CLAIM}, one sender", claim_times(10 * rounds, warm_up=2))]
        each = harness.together(SENDERS, claim_times, 4 * rounds, 1)
        results.append(harness.summary(f"claim of {CLAIM}, {SENDERS} senders", [t for times in each for t in times]))
        full = [drain(drained) for _ in range(rounds)]
    results.append(harness.ratio(f"drain of {drained:,} of {rows:,} queued, against as many alone", full, empty))
    return results


def claim_times(count: int, warm_up: int) -> list[float]:
    """The milliseconds of so many claims, the last of which may have found fewer; `warm_up`: so many before them."""
    from esms_viber.delivery.claims import claim

    times = []
    for _ in range(warm_up + count):
        started = time.perf_counter()
        found = claim(CLAIM)
        times.append(1000 * (time.perf_counter() - started))
        if len(found.ready) < CLAIM:
            break
    return times[warm_up:] or times


def drain(count: int) -> float:
    """Messages a second."""
    from esms_viber.services import deliver_due_messages

    started = time.perf_counter()
    sent = deliver_due_messages(limit=count).sent
    return sent / (time.perf_counter() - started)
