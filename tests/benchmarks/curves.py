"""What grows, and how: sending more and more messages, and the same work with more and more rows in the tables."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from . import harness, pages
from .claims import CLAIM, claim_times
from .filling import campaign, fill, old_shop

SENT = (1_000, 10_000, 100_000)


def run(rows: int = 1_000_000, rounds: int = 5) -> list[harness.Result]:
    return [*sending(rows // 10), *growing(rows, rounds)]


def sending(most: int) -> Iterator[harness.Result]:
    """The time and the statements for each message of a drain, whose gateway answers at once."""
    from esms_viber.services import deliver_due_messages

    with harness.gateway(CONCURRENCY=32):
        fill(campaign(100))
        deliver_due_messages()
        for count in (each for each in SENT if each <= most):
            fill(campaign(count))
            with counted_statements() as statements:
                started = time.perf_counter()
                assert deliver_due_messages().sent == count
                times = [1000 * (time.perf_counter() - started) / count]
            yield harness.summary(f"each of {count:,} sent", times, statements=sum(statements) / count)


@contextmanager
def counted_statements() -> Iterator[list[int]]:
    """Count the statements: `executemany()` is one for each set of parameters, as the servers see it."""
    from django.db import connection

    counts: list[int] = []

    def count(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if many:
            params = list(params)
        counts.append(len(params) if many else 1)
        return execute(sql, params, many, context)

    with connection.execute_wrapper(count):
        yield counts


def growing(rows: int, rounds: int) -> Iterator[harness.Result]:
    """The same work at a hundredth, at a tenth and at all of the rows, of which half wait with one due time."""
    from esms_viber.monitoring import get_queue_status

    client, first, there = pages.staff(), {}, 0
    for size in (rows // 100, rows // 10, rows):
        more, there = size - there, size
        fill(old_shop(more // 2), campaign(more - more // 2))
        for name, times in {
            f"claim of {CLAIM}": claim_times(10 * rounds, warm_up=2),
            "look at the queue": harness.times_of(get_queue_status, rounds),
            "list, first page": harness.times_of(lambda: client.get(pages.LIST), rounds),
        }.items():
            result = harness.summary(f"{name}, {size:,} rows", times)
            yield result | {"times_the_smallest": result["ms"] / first.setdefault(name, result["ms"])}
