"""Through Django Tasks and RQ, of the package django-tasks-rq, on a Redis of the test's own."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.engines.cases import EngineTests, TimeLimitTests
from tests.engines.engine import Engine, need
from tests.fake_gateway import PATIENCE


class RqEngine(Engine):
    worker = ["django", "rqworker", "--job-class", "django_tasks_rq.Job", "--verbosity", "0"]
    # As long as Redis is not told to write them to its disk.
    keeps_tasks = False

    def __init__(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self._port = free.getsockname()[1]
        self.settings = {
            "TASKS": {"default": {"BACKEND": "django_tasks_rq.RQBackend"}},
            "RQ_QUEUES": {"default": {"URL": f"redis://127.0.0.1:{self._port}/0"}},
        }
        self.start_broker()

    def waiting(self) -> int:
        import django_rq

        return django_rq.get_queue().count

    def start_broker(self) -> None:
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self._port), "--save", "", "--appendonly", "no"]
        self._server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + PATIENCE
        while not self._answers():
            assert self._server.poll() is None, "Redis ended by itself"
            assert time.monotonic() < deadline, "Redis did not start in time"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self._port)):
            return True
        return False

    def stop_broker(self) -> None:
        self._server.kill()
        self._server.wait(PATIENCE)


@pytest.fixture
def engine() -> Iterator[RqEngine]:
    need("django_tasks_rq", "django_rq", programs=["redis-server"])
    engine = RqEngine()
    yield engine
    engine.stop_broker()


@pytest.fixture
def short_time_limit(esms: object, settings) -> None:
    settings.RQ_QUEUES = {"default": {**settings.RQ_QUEUES["default"], "DEFAULT_TIMEOUT": 2}}


class TestRq(EngineTests, TimeLimitTests):
    pass
