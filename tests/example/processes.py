"""The example project's `manage.py`, run in processes of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

from tests.clock import python_path

ROOT = Path(__file__).resolve().parents[2]
MANAGE = ROOT / "example_project" / "manage.py"
SECONDS = 120


def make_environment(folder: Path) -> dict[str, str]:
    """An empty database, and nothing of what a developer may have in the environment or in .env."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ESMS_", "DJANGO_"))}
    return kept | {
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": python_path(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "DATABASE_URL": f"sqlite:///{folder / 'demo.sqlite3'}",
        "DEBUG": "True",
        "SITE_ORIGIN": "http://127.0.0.1:8000",
        "ESMS_BASE_URL": "http://127.0.0.1:8000/MainService.svc/json/",
    }


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-W", "error", str(MANAGE), *arguments]


def run(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments),
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=SECONDS,
        check=False,
    )


@contextmanager
def demo_running(environment: dict[str, str]) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The demo on a free port, once it is ready, and what it wrote up to then."""
    with subprocess.Popen(
        command("demo", "--port", "0"),
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        encoding="utf-8",
    ) as process:
        try:
            written = ""
            for line in process.stdout:
                written += line
                if line.startswith("Ctrl-C"):
                    break
            yield process, written
        finally:
            process.kill()


def fetch(url: str) -> str:
    with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
        return response.read().decode()
