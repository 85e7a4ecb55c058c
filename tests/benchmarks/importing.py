"""How long Django takes to set up with the app, against the same site without it.

It is the milliseconds of CPU that the app adds, as the median of new interpreters, with and without in turn.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

from . import harness

ROOT = Path(__file__).parents[2]

SITE = """
import django
from django.conf import settings

settings.configure(
    INSTALLED_APPS={apps!r},
    SECRET_KEY="benchmark",
    ROOT_URLCONF="urls",
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}},
    TEMPLATES=[],
)
django.setup()
"""
OTHERS = [f"django.contrib.{name}" for name in ("admin", "auth", "contenttypes", "sessions", "messages", "staticfiles")]


def run(rounds: int = 5) -> list[harness.Result]:
    """A new interpreter takes a quarter of a second, and others use the machine: so three of each for a round."""
    with tempfile.TemporaryDirectory() as folder:
        # Byte code is kept, as on every site, and in a folder of its own.
        environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONPYCACHEPREFIX": folder}
        environ.pop("PYTHONDONTWRITEBYTECODE", None)

        def milliseconds(*more: str) -> float:
            before = _cpu_of_children()
            subprocess.run([sys.executable, "-c", SITE.format(apps=[*OTHERS, *more])], env=environ, check=True)
            return 1000 * (_cpu_of_children() - before)

        milliseconds("esms_viber")
        pairs = [(milliseconds("esms_viber"), milliseconds()) for _ in range(3 * rounds)]
    added = [with_app - without for with_app, without in pairs]
    without = median(without for _with_app, without in pairs)
    return [harness.summary("django.setup(), added by the app", added, floor=without)]


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
