from __future__ import annotations

import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import SimpleNamespace
from typing import Any

import hypothesis
import pytest
from django.db import connection
from django.utils import timezone, translation

from esms_viber.database import atomic_for_writing
from tests.clock import SHIFT, Clock, noon, python_path
from tests.fake_gateway import PATIENCE, FakeGateway

pytest_plugins = ["esms_viber.pytest_plugin"]

# Whether a test passes must not depend on how busy the machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail where a test is skipped: everything is there")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file run in one process, because they may share a broker, or a demo."""
    from xdist.scheduler import LoadFileScheduling

    return LoadFileScheduling(config, log)


def _is_of_another_database(item: pytest.Item) -> bool:
    return item.get_closest_marker("postgresql") is not None and connection.vendor != "postgresql"


def pytest_runtest_setup(item: pytest.Item) -> None:
    if _is_of_another_database(item):
        pytest.skip("about PostgreSQL alone")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    # What is about PostgreSQL runs where CI tests that.
    if report.skipped and item.config.getoption("--no-skips") and not _is_of_another_database(item):
        report.outcome = "failed"
        report.longrepr = f"skipped, though everything it needs should be here: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _clock_of_the_session() -> Iterator[None]:
    """Noon for what is started for many tests together, such as the demo; each test's own clock begins from it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", python_path())
        patch.setenv(SHIFT, "0")
        Clock().set(noon())
        yield


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Noon in Vietnam, so that no test depends on the hour it runs at: repeats end with the Vietnam day."""
    monkeypatch.setenv(SHIFT, "0")
    clock = Clock()
    clock.set(noon())
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


@pytest.fixture
def fake_gateway() -> Iterator[FakeGateway]:
    server = FakeGateway()
    yield server
    server.close()


@pytest.fixture
def esms(fake_gateway: FakeGateway, settings) -> FakeGateway:
    """The app set up to talk to the fake gateway over its socket, with the gateway that sites use."""
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": fake_gateway.url,
        "TIMEOUT": (PATIENCE, PATIENCE),
    }
    return fake_gateway


@pytest.fixture(autouse=True)
def _no_language_is_left() -> Iterator[None]:
    """A request through LocaleMiddleware leaves its language active in the thread, and so in the next test."""
    yield
    translation.deactivate()


@pytest.fixture
def queue_only(settings: Any) -> None:
    """Nothing is sent by queueing it."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}


@pytest.fixture
def clock_of_leases(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The test's clock, by which a run also measures when to renew its claims: no time passes but by `advance()`."""
    from esms_viber.delivery import worker

    measured = SimpleNamespace(monotonic=lambda: clock.now().timestamp(), sleep=time.sleep)
    monkeypatch.setattr(worker, "time", measured)
    return clock


@pytest.fixture
def another_writer() -> Callable[[], AbstractContextManager[None]]:
    """A context in which, at its beginning, another connection holds what SQLite gives to one writer at a time."""

    @contextmanager
    def another_writer() -> Iterator[None]:
        is_writing = threading.Event()

        def write() -> None:
            try:
                with atomic_for_writing("default"):
                    is_writing.set()
                    time.sleep(0.5)
            finally:
                connection.close()

        thread = threading.Thread(target=write)
        thread.start()
        assert is_writing.wait(PATIENCE)
        try:
            yield
        finally:
            thread.join()

    return another_writer
