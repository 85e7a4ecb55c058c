"""Send without end: what becomes due, until somebody ends it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from django.db import Error as DatabaseTrouble
from django.db import close_old_connections

from ..exceptions import log_failure
from . import worker

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds until a database that is away is tried again."""


def watch(*, should_stop: Callable[[], bool], on_progress: Callable[[int], object]) -> worker.DeliverySummary:
    """Send what becomes due until told to stop; returns the sum of all runs.

    Trouble with eSMS or with the database does not end it. A circuit breaker says when eSMS is called again; the
    database is tried again after a pause.
    """
    total, pause = worker.DeliverySummary(), FIRST_PAUSE
    while not should_stop():
        close_old_connections()
        run = worker.DeliverySummary()
        try:
            run = worker.Worker(should_stop=should_stop, on_progress=on_progress).run()
            pause = FIRST_PAUSE
        except DatabaseTrouble as error:
            log_failure(error, "the database failed; what was on its way is taken over in two minutes")
            _rest(pause, should_stop)
            pause = min(pause * 2, LONGEST_PAUSE)
        # Messages are added up; what is left, and whether there is trouble, is as the last run says.
        total = replace(
            run,
            sent=total.sent + run.sent,
            failed=total.failed + run.failed,
            unknown=total.unknown + run.unknown,
            requeued=total.requeued + run.requeued,
        )
        _rest(worker.LOOKING, should_stop)
    return total


def _rest(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        time.sleep(0.2)
