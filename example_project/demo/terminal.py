"""The terminal: its language, which need not be the one of the site or of a browser, and its Enter key."""

from __future__ import annotations

import os
import sys
import threading

from django.utils import translation


def language() -> str:
    """Vietnamese where the environment asks for it, by the first of its variables that says anything; else English."""
    named = next(filter(None, map(os.environ.get, ("LC_ALL", "LC_MESSAGES", "LANG"))), "")
    return "vi" if named.lower().startswith("vi") else "en"


def in_its_language() -> translation.override:
    """For this thread alone: the pages that the same process serves follow their browsers."""
    return translation.override(language())


class Enter:
    """Was Enter pressed? Read in a thread, because the demo has other things to do meanwhile."""

    def __init__(self) -> None:
        self._pressed = threading.Event()
        threading.Thread(target=self._read, name="demo-enter", daemon=True).start()

    def was_pressed_within(self, seconds: float) -> bool:
        pressed = self._pressed.wait(seconds)
        self._pressed.clear()
        return pressed

    def _read(self) -> None:
        # Read the descriptor itself: a daemon that holds the lock of `sys.stdin` makes Python fail as it ends.
        try:
            while os.read(sys.stdin.fileno(), 1024):
                self._pressed.set()
        except (OSError, ValueError, AttributeError):
            pass  # there is no keyboard
