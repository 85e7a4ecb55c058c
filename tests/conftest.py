from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import hypothesis
import pytest
from django.db import connection, transaction
from django.utils import timezone

from esms_viber.transactions import begin_with_write

if TYPE_CHECKING:
    from tests.fake_gateway import FakeGateway

pytest_plugins = ["tests.fake_gateway", "esms_viber.pytest_plugin"]

# Whether a test passes must not depend on how busy the machine is.
hypothesis.settings.register_profile(
    "any machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("any machine")

VIETNAM = ZoneInfo("Asia/Ho_Chi_Minh")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="fail where a test is skipped: everything is there")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped and item.config.getoption("--no-skips"):
        report.outcome = "failed"
        report.longrepr = f"skipped, though everything it needs should be here: {report.longrepr}"
    return report


class Clock:
    """The app's clock: ticks as the real one does, from a time of the test's choice."""

    def __init__(self, real_now: Callable[[], dt.datetime]) -> None:
        self._real_now = real_now
        self._shift = dt.timedelta()

    def now(self) -> dt.datetime:
        return self._real_now() + self._shift

    def set(self, when: dt.datetime) -> None:
        self._shift = when - self._real_now()

    def advance(self, **delta: float) -> None:
        self._shift += dt.timedelta(**delta)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Noon in Vietnam, so that no test depends on the hour it runs at: repeats end with the Vietnam day."""
    clock = Clock(timezone.now)
    clock.set(dt.datetime.now(VIETNAM).replace(hour=12))
    monkeypatch.setattr(timezone, "now", clock.now)
    return clock


@pytest.fixture
def esms(fake_gateway: FakeGateway, settings) -> FakeGateway:
    """The app set up to talk to the fake gateway over its socket, with the gateway that sites use."""
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": fake_gateway.url,
        "TIMEOUT": (0.5, 0.4),
    }
    return fake_gateway


@pytest.fixture
def another_writer() -> Callable[[], AbstractContextManager[None]]:
    """A context in which, at its beginning, another connection holds what SQLite gives to one writer at a time."""

    @contextmanager
    def another_writer() -> Iterator[None]:
        is_writing = threading.Event()

        def write() -> None:
            try:
                with transaction.atomic():
                    begin_with_write("default")
                    is_writing.set()
                    time.sleep(0.5)
            finally:
                connection.close()

        thread = threading.Thread(target=write)
        thread.start()
        assert is_writing.wait(10)
        try:
            yield
        finally:
            thread.join()

    return another_writer
