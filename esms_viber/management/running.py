"""Signals and progress for commands that run for long."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType, MappingProxyType
from typing import Any, Self

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import CommandError
from django.utils.translation import gettext as _

from ..codes import describe
from ..formatting import grouped, tell_count

SECONDS_BETWEEN_COUNTS = 10


@contextmanager
def running(
    say: Callable[[str], object], total: int | None, verbosity: int, *, ending: str = "", is_exact: bool = False
) -> Iterator[tuple[StopSignals, Progress]]:
    """Give the run its `StopSignals` and its `Progress`; `total` is None for a run without end.

    `ending`: what is said to the first Ctrl-C instead of a sentence about calls; `is_exact`: the total is no bounded
    count.
    """
    with (
        StopSignals(say, verbosity=verbosity, ending=ending) as should_stop,
        Progress(total, say, verbosity=verbosity, is_exact=is_exact) as progress,
    ):
        yield should_stop, progress


@contextmanager
def telling_misconfiguration() -> Iterator[None]:
    """Turn `ImproperlyConfigured` into `CommandError`, so that its sentence is shown instead of a traceback."""
    try:
        yield
    except ImproperlyConfigured as error:
        raise CommandError(str(error)) from error


def tell_trouble(account_code: str, *, outage: bool, refused_brands: Mapping[str, str] = MappingProxyType({})) -> None:
    """Raise `CommandError`, for which the process exits with 1, if eSMS refuses the account or does not answer."""
    told = []
    if account_code:
        told.append(_in_words(account_code))
    if outage:
        told.append(_("eSMS does not answer. What is left waits; run this again later."))
    for brandname, code in refused_brands.items():
        sentence = _("Messages under the brand name “%(brand)s” wait.") % {"brand": brandname}
        told.append(f"{sentence} {_in_words(code)}")
    if told:
        raise CommandError("\n".join(told))


def _in_words(code: str) -> str:
    found = describe(code)
    sentence = _("Code %(code)s: %(meaning)s %(remedy)s")
    return sentence % {"code": found.code, "meaning": found.meaning, "remedy": found.remedy}


class StopSignals:
    """Should the run end? Ctrl-C and SIGTERM ask for it, and a second one of them ends the process at once."""

    def __init__(self, say: Callable[[str], object], *, verbosity: int, ending: str = "") -> None:
        self._say, self._ending = say, ending
        self._asked, self._told = False, verbosity == 0
        self._before: dict[int, Any] = {}

    def __call__(self) -> bool:
        if self._asked and not self._told:
            self._told = True
            # The handler does not say this, because it may have interrupted the writing of another line.
            calls = _("Stopping as soon as the calls on the wire have ended. Press Ctrl-C again to end at once.")
            self._say(self._ending or calls)
        return self._asked

    def __enter__(self) -> Self:
        # Only the main thread may set signal handlers.
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._ask) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._asked = True


class Progress:
    """Show how many are done: a counting line on a terminal, else a line now and then; none with `--verbosity 0`."""

    def __init__(
        self, total: int | None, say: Callable[[str], object], *, verbosity: int, is_exact: bool = False
    ) -> None:
        self._say, self._total, self._done = say, total, 0
        self._tell = grouped if is_exact else tell_count
        self._quiet = verbosity == 0
        self._said_at = time.monotonic()
        self._counts_in_place = total is not None and not self._quiet and sys.stderr.isatty()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._counts_in_place and self._done:
            sys.stderr.write("\n")

    def __call__(self, count: int) -> None:
        self._done += count
        if not count or self._quiet:
            return
        told = _("%(done)d done") if self._total is None else _("%(done)d of %(total)s done")
        told %= {"done": self._done, "total": self._tell(self._total or 0)}
        if self._counts_in_place:
            sys.stderr.write(f"\r{told}")
            sys.stderr.flush()
        elif time.monotonic() - self._said_at > SECONDS_BETWEEN_COUNTS:
            self._said_at = time.monotonic()
            self._say(told)
