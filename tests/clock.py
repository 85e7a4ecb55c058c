"""The clock of a test, which whatever the test starts has as well."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path
from zoneinfo import ZoneInfo

from django.utils import timezone

VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")
SHIFT = "TEST_CLOCK_SHIFT"
"""The environment variable by which `tests/child/sitecustomize.py` sets the clock of child processes, in seconds."""

_CHILD = str(Path(__file__).parent / "child")


class Clock:
    """The app's clock: ticks as the real one does, from a time of the test's choice.

    Child processes have the time that the clock showed when they were started, as long as they inherit the environment.
    """

    def __init__(self, real_now: Callable[[], dt.datetime] = timezone.now) -> None:
        self._real_now = real_now
        self._shift = dt.timedelta()

    def now(self) -> dt.datetime:
        return self._real_now() + self._shift

    def set(self, when: dt.datetime) -> None:
        self._move(when - self._real_now())

    def advance(self, **delta: float) -> None:
        self._move(self._shift + dt.timedelta(**delta))

    def _move(self, shift: dt.timedelta) -> None:
        self._shift = shift
        os.environ[SHIFT] = str(shift.total_seconds())


def noon() -> dt.datetime:
    """Noon of this day in Vietnam."""
    return dt.datetime.now(VIETNAM).replace(hour=12, minute=0, second=0, microsecond=0)


def python_path(*folders: Path | str) -> str:
    """`PYTHONPATH` for child processes: what sets their clock, these folders, and what it was before."""
    return os.pathsep.join(filter(None, [_CHILD, *map(str, folders), os.environ.get("PYTHONPATH", "")]))
