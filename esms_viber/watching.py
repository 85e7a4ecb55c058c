"""Sending without end: what `send_viber_messages --watch` does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from django.db import Error as DatabaseTrouble
from django.db import close_old_connections

from .delivery import DeliverySummary, Drain
from .tracebacks import log_failure

FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""Seconds until eSMS is tried again, with a single message, after it refused the account or did not answer."""

_SLICE = 0.2


def watch(*, should_stop: Callable[[], bool], on_progress: Callable[[int], object]) -> DeliverySummary:
    """Send what becomes due until it is told to stop; the sum of it all.

    Trouble with eSMS or with the database does not end it: it is logged, and tried again after a pause.
    """
    total, pause = DeliverySummary(), FIRST_PAUSE
    while not should_stop():
        close_old_connections()
        run = DeliverySummary()
        try:
            run = Drain(endless=True, should_stop=should_stop, on_progress=on_progress).run()
        except DatabaseTrouble as error:
            log_failure(error, "the database failed; what was on its way is taken over in two minutes")
        total = _add(total, run)
        pause = FIRST_PAUSE if run.sent else pause
        _rest(pause, should_stop)
        pause = min(pause * 2, LONGEST_PAUSE)
    return total


def _add(total: DeliverySummary, run: DeliverySummary) -> DeliverySummary:
    """Counts of messages are summed up; what is left, and whether there is trouble, is as the last run says."""
    return replace(
        run,
        sent=total.sent + run.sent,
        failed=total.failed + run.failed,
        unknown=total.unknown + run.unknown,
        requeued=total.requeued + run.requeued,
    )


def _rest(seconds: float, should_stop: Callable[[], bool]) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until and not should_stop():
        time.sleep(_SLICE)
