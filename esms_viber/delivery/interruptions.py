"""Signals whose handlers raise something, as the time limits of task queues do: when they may interrupt a run."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], Any]

_NAMES = ("SIGALRM", "SIGUSR1", "SIGINT", "SIGTERM", "SIGABRT")
"""RQ's time limit, Celery's, Ctrl-C, a supervisor's, gunicorn's. Windows does not have all of them."""


class Interruptions:
    """The signals that came while they were held."""

    def __init__(self) -> None:
        self._handlers: dict[int, Handler] = {}
        self._came: dict[int, FrameType | None] = {}
        """Those whose handlers were not called yet."""
        self._noted: set[int] = set()
        """All that came."""
        self._is_in_block, self._is_over = False, False

    @property
    def wait(self) -> bool:
        """Is there one whose handler was not called yet?"""
        return bool(self._came)

    def hold(self, stack: ExitStack) -> None:
        """Take the place of the handlers until the stack is left."""
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is None or not callable(handler := signal.getsignal(number)):
                continue
            self._handlers[number] = handler
            stack.callback(self._give_back, number)
            try:
                signal.signal(number, self._note)
            except ValueError:
                return  # Python calls handlers in the main thread alone, and only there may they be set.
        self._is_in_block = True
        stack.callback(setattr, self, "_is_in_block", False)

    def let_through(self) -> bool:
        """Call the handlers of those that came. Returns False, so that a run may ask this whether to stop."""
        if self._came:
            came, self._came = self._came, {}  # because others may come meanwhile
            with ExitStack() as stack:  # which calls the others where one raises, the last one first
                for number, frame in reversed(came.items()):
                    stack.callback(self._handlers[number], number, frame)
        return False

    def end(self) -> None:
        self._is_over = True
        self.let_through()

    def _note(self, number: int, frame: FrameType | None) -> None:
        # Whoever asks twice does not want to wait. While handlers change places, one that raises would end that.
        if (number in self._noted and self._is_in_block) or self._is_over:
            self._handlers[number](number, frame)
        else:
            self._came[number] = frame
            self._noted.add(number)

    def _give_back(self, number: int) -> None:
        if signal.getsignal(number) == self._note:
            signal.signal(number, self._handlers[number])


@contextmanager
def held_interruptions() -> Iterator[Interruptions]:
    """Keep signals from interrupting the block, until it lets them through or ends, or one comes a second time.

    A handler that raises does so wherever the main thread happens to be. In the middle of a COMMIT neither Django nor
    the driver knows afterwards how it ended, and what eSMS has answered would be lost with it.
    """
    held = Interruptions()
    try:
        with ExitStack() as stack:
            held.hold(stack)
            yield held
    finally:
        held.end()
