"""How long `prune_viber_messages` keeps anybody waiting, and how much memory it takes, in a shop of half a year."""

from __future__ import annotations

import datetime as dt
import time
from collections.abc import Callable
from typing import Any

from . import harness
from .filling import fill, old_shop


def run(rows: int = 1_000_000) -> list[harness.Result]:
    fill(old_shop(rows))
    results = []
    for how in ("redact_after", "delete_after"):
        [(transactions, seconds, grown)] = harness.together(1, prune, how)
        results.append(harness.summary(f"a transaction, {how} of {rows:,}", transactions, seconds=seconds))
        results.append(harness.summary(f"memory beyond the first 10,000, {how} of {rows:,}", [grown], "mib"))
    return results


def prune(how: str) -> tuple[list[float], float, float]:
    """Prune; return the milliseconds of each transaction, the seconds in all, and the memory that it grew by."""
    from esms_viber import privacy

    transactions: list[float] = []
    peaks: list[float] = []
    in_transaction = privacy.in_transaction
    looked_at = 0

    def timed(write: Callable[[], Any], **kwargs: Any) -> Any:
        started = time.perf_counter()
        try:
            return in_transaction(write, **kwargs)
        finally:
            transactions.append(1000 * (time.perf_counter() - started))

    def progress(count: int) -> None:
        nonlocal looked_at
        looked_at += count
        if looked_at >= 10_000 and not peaks:
            peaks.append(harness.peak_mib())

    privacy.in_transaction = timed
    started = time.perf_counter()
    privacy.prune(**{how: dt.timedelta(days=30)}, on_progress=progress)
    seconds, peak = time.perf_counter() - started, harness.peak_mib()
    return transactions, seconds, peak - (peaks or [peak])[0]
