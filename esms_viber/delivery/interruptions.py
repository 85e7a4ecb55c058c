"""Signals whose handlers raise something, as the time limits of task queues do: when they may interrupt a run."""

from __future__ import annotations

import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

_NAMES = ("SIGALRM", "SIGUSR1", "SIGINT", "SIGTERM", "SIGABRT")
"""RQ's time limit, Celery's, Ctrl-C, a supervisor's, gunicorn's. Windows does not have all of them."""


@contextmanager
def held_interruptions() -> Iterator[Callable[[], bool]]:
    """Keep signals from interrupting the block; yields a function that calls the handlers of those that have come.

    That function returns False, so that a run may ask it whether to stop. At the end of the block it is called as well.
    A handler that raises does so wherever the main thread happens to be. In the middle of a COMMIT neither Django nor
    the driver knows afterwards how it ended, and what eSMS has answered would be lost with it.
    """
    came: deque[tuple[int, FrameType | None]] = deque()
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def hold(number: int, frame: FrameType | None) -> None:
        came.append((number, frame))

    def let_through() -> bool:
        while came:
            number, frame = came.popleft()
            handlers[number](number, frame)
        return False

    # Python calls handlers in the main thread alone, and only there may they be set.
    if threading.current_thread() is threading.main_thread():
        for name in _NAMES:
            number = getattr(signal, name, None)
            if number is not None and callable(handler := signal.getsignal(number)):
                handlers[number] = handler
                signal.signal(number, hold)
    try:
        yield let_through
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is hold:
                signal.signal(number, handler)
        let_through()
