"""What the benchmarks share: a database and a gateway for the run, processes beside each other, and how to tell.

A benchmark is a module with `run()`, which takes any of `rows` and `rounds`, and returns one dict for each measure: its
`name`, one of `UNITS` (a ratio is our speed by that of the floor, so more is better), and `min`, `median` and `max` of
the rounds. `floor` is what the bare work of the same run came to. Other keys are shown as they are.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing.synchronize import Barrier
from pathlib import Path
from statistics import median
from typing import Any

Result = dict[str, Any]
UNITS = {"ratio", "ms", "mib"}

_SPAWN = multiprocessing.get_context("spawn")


# -- database, gateway, processes --------------------------------------------------------------------------------------


def set_up(database: str | dict[str, Any], esms: dict[str, Any] | None = None) -> None:
    """Set Django up on this database alone; nothing is sent by queueing it."""
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    import django
    import environ
    from django.conf import settings

    found = environ.Env.db_url_config(database) if isinstance(database, str) else database
    settings.DATABASES, settings.DATABASE_ROUTERS = {"default": found}, []
    settings.ESMS_VIBER = esms or {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    django.setup()
    logging.disable(logging.WARNING)


@contextmanager
def scratch_database() -> Iterator[None]:
    """Make a database for this run on the server that Django is set up for, and drop it afterwards."""
    from django.db import connection

    name = connection.settings_dict["NAME"]
    with tempfile.TemporaryDirectory() as folder:
        own = f"benchmarks_{os.getpid()}"
        connection.settings_dict["TEST"]["NAME"] = f"{folder}/{own}.sqlite3" if connection.vendor == "sqlite" else own
        connection.creation.create_test_db(verbosity=0, autoclobber=True)
        try:
            yield
        finally:
            connection.creation.destroy_test_db(name, verbosity=0)


def serve(connection: Any, milliseconds: float) -> None:
    """The gateway, in a process of its own: it must not share the sender's interpreter lock."""
    from tests.fake_gateway import FakeGateway, Wait, accepted

    server = FakeGateway()
    server.answer_all([Wait(milliseconds / 1000), *accepted()] if milliseconds else accepted())
    connection.send(server.url)
    with suppress(EOFError):  # at the end of the process that wanted it, however it ended
        connection.recv()


@contextmanager
def settings_of_app(**changed: Any) -> Iterator[None]:
    """Change settings of the app meanwhile; the processes of `together()` have them as well."""
    from django.conf import settings
    from django.test import override_settings

    with override_settings(ESMS_VIBER={**settings.ESMS_VIBER, **changed}):
        yield


@contextmanager
def gateway(milliseconds: float = 0, **more: Any) -> Iterator[str]:
    """Have messages sent to a gateway that takes so long to answer. `more`: settings of the app."""
    parent, child = _SPAWN.Pipe()
    server = _SPAWN.Process(target=serve, args=(child, milliseconds), daemon=True)
    server.start()
    child.close()
    try:
        url = parent.recv()
        with settings_of_app(GATEWAY="esms_viber.gateways.esms.EsmsGateway", BASE_URL=url, **more):
            yield url
    finally:
        server.terminate()
        server.join()


def together(count: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """Do the same work in so many processes of their own, which begin at the same moment; what each returns."""
    from django.conf import settings
    from django.db import connection

    database = {**settings.DATABASES["default"], "NAME": connection.settings_dict["NAME"]}
    start = (_SPAWN.Barrier(count), database, settings.ESMS_VIBER)
    with ProcessPoolExecutor(count, mp_context=_SPAWN, initializer=_start, initargs=start) as processes:
        return [each.result() for each in [processes.submit(_work, work, *args) for _ in range(count)]]


_barrier: Barrier


def _start(barrier: Barrier, database: dict[str, Any], esms: dict[str, Any]) -> None:
    global _barrier
    _barrier = barrier
    set_up(database, esms)


def _work(work: Callable[..., Any], *args: Any) -> Any:
    from django.db import connection

    connection.ensure_connection()
    _barrier.wait(60)
    try:
        return work(*args)
    finally:
        connection.close()


# -- measuring ---------------------------------------------------------------------------------------------------------


def times_of(work: Callable[[], Any], rounds: int) -> list[float]:
    """Milliseconds. The work is done once before, because what loads code and fills caches comes once."""
    work()
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        work()
        times.append(1000 * (time.perf_counter() - started))
    return times


def summary(name: str, figures: list[float], unit: str = "ms", **more: Any) -> Result:
    return {"name": name, unit: median(figures), "floor": None, **_spread(figures), **more}


def ratio(name: str, ours: list[float], floor: list[float], **more: Any) -> Result:
    """Compare rates of work with those of the floor that was measured in turn with it."""
    ratios = [one / other for one, other in zip(ours, floor, strict=True)]
    rates = {"rate": median(ours), "floor": median(floor)}
    return {"name": name, "ratio": median(ratios), **rates, **_spread(ratios), **more}


def peak_mib() -> float:
    """The most memory that this process has held (resident set)."""
    status = Path("/proc/self/status")
    if status.exists():
        # Unlike getrusage(), this leaves out the process that started this one.
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _spread(figures: list[float]) -> dict[str, float]:
    return {"min": min(figures), "median": median(figures), "max": max(figures)}


# -- telling -----------------------------------------------------------------------------------------------------------


def machine() -> dict[str, Any]:
    import django
    from django.db import connection

    version = ".".join(map(str, connection.get_database_version()))
    return {
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "django": django.get_version(),
        "database": f"{connection.display_name} {version}",
    }


class IdleCpu:
    """The part of the machine's CPU time since the beginning that nobody used; None where it cannot be read."""

    def __init__(self) -> None:
        self._begin = self._read()

    @staticmethod
    def _read() -> list[int] | None:
        stat = Path("/proc/stat")
        return [int(n) for n in stat.read_text().split("\n", 1)[0].split()[1:]] if stat.exists() else None

    @property
    def percent(self) -> float | None:
        end = self._read()
        if self._begin is None or end is None:
            return None
        spent = [after - before for before, after in zip(self._begin, end, strict=True)]
        # The fourth is idle, the fifth waits for a disk; the last two are counted among the first.
        return 100 * (spent[3] + spent[4]) / max(sum(spent[:8]), 1)


def show(benchmark: str, machine: dict[str, Any], idle: float | None, results: list[Result]) -> None:
    told = {**machine, "idle CPU": None if idle is None else f"{idle:.0f} %"}
    print(f"\n{benchmark} ({', '.join(f'{key} {value}' for key, value in told.items() if value is not None)})")
    for result in results:
        [unit] = UNITS & result.keys()
        known = {"name", unit, "min", "median", "max"}
        more = [f"{key} {_figure(value)}" for key, value in result.items() if key not in known and value is not None]
        spread = f"{_figure(result['min'])} to {_figure(result['max'])}"
        print(f"{result['name']:60} {_figure(result[unit]):>10} {unit:5} ({'; '.join([spread, *more])})", flush=True)


def _figure(value: Any) -> str:
    return f"{value:,.2f}" if isinstance(value, float) else str(value)
