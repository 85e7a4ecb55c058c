"""What the tests need to know of a task engine, and its worker processes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.db import connection

from tests.fake_gateway import PATIENCE


class Engine:
    """A task engine, set up as a site has it."""

    settings: dict[str, Any]
    """What the site adds to its settings."""
    dispatcher = "esms_viber.dispatch.django_tasks"
    worker: list[str]
    """The command that runs a worker, after `python -m`."""
    keeps_tasks = True
    """Are the tasks still there when the broker was restarted?"""
    delivers_again = False
    """Does another worker get the task of one that was killed?"""

    def waiting(self) -> int:
        """How many tasks no worker has taken yet."""
        raise NotImplementedError

    def stop_broker(self) -> None:
        raise NotImplementedError

    def start_broker(self) -> None:
        raise NotImplementedError


class Workers:
    """Worker processes of an engine, on the database under test."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, number: int = 1) -> None:
        environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.engines.settings",
            "ENGINE_TEST": json.dumps(self._told()),
        }
        for _ in range(number):
            process = subprocess.Popen(
                [sys.executable, "-m", *self._engine.worker],
                cwd=Path(__file__).parents[2],
                env=environment,
                # By its session the processes are found that it starts itself.
                start_new_session=True,
            )
            self._running.append(process)

    def _told(self) -> dict[str, Any]:
        """Database and settings of the test as they are now, for `tests.engines.settings`."""
        return {
            "database": str(connection.settings_dict["NAME"]),
            "settings": {name: getattr(settings, name) for name in ("ESMS_VIBER", *self._engine.settings)},
        }

    def wait_for(self, condition: Callable[[], bool]) -> None:
        """For what the workers do in their own time."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in time"
            for process in self._running:
                assert process.poll() is None, "a worker ended by itself"
            time.sleep(0.02)

    def tell_to_stop(self) -> None:
        for process in self._running:
            process.terminate()

    def wait_for_their_end(self) -> None:
        for process in self._running:
            process.wait(PATIENCE)
        self._running.clear()

    def kill(self) -> None:
        """As when their host dies: nothing is finished, and no child lives on."""
        for process in self._running:
            for pid in _session(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        self.wait_for_their_end()


def _session(leader: int) -> list[int]:
    """A process and those that it has started; RQ's are in process groups of their own."""
    found = subprocess.run(["pgrep", "-s", str(leader)], stdout=subprocess.PIPE, text=True)  # noqa: S607 - on the PATH
    return [int(line) for line in found.stdout.split()]


def need(*packages: str, programs: Iterable[str] = ()) -> None:
    """Skip the test where a package or a program is missing."""
    missing = [name for name in packages if find_spec(name) is None]
    missing += [name for name in ("pgrep", *programs) if shutil.which(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)}")
