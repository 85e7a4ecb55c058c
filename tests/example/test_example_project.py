"""The example project, run as a newcomer runs it: by its own `manage.py`, in processes of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest

ROOT = Path(__file__).resolve().parents[2]
MANAGE = ROOT / "example_project" / "manage.py"
HEX = r"[0-9a-f]+"
SECONDS = 120

pytestmark = pytest.mark.skipif(not MANAGE.exists(), reason="the example project is not part of this copy")


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """An empty database, and nothing of what a developer may have in the environment or in .env."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ESMS_", "DJANGO_"))}
    return kept | {
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
        "PYTHONIOENCODING": "utf-8",
        "DATABASE_URL": f"sqlite:///{tmp_path / 'demo.sqlite3'}",
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


def test_its_own_tests(environment: dict[str, str]) -> None:
    result = run(environment, "test", "shop", "simulator", "demo")
    assert result.returncode == 0, result.stderr
    assert int(re.search(r"Ran (\d+) tests", result.stderr)[1]) > 50


def test_its_migrations_are_complete(environment: dict[str, str]) -> None:
    result = run(environment, "makemigrations", "--check", "--dry-run", "shop")
    assert result.returncode == 0, result.stdout + result.stderr


def test_once_shows_the_way_of_a_message(environment: dict[str, str]) -> None:
    for _ in range(2):
        result = run(environment, "demo", "--once")
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        steps = [re.sub(r"^ *[\d:.]+ +", "", line) for line in result.stdout.splitlines()[1:]]
        assert re.fullmatch(r"queued +stored for \+84901888484, .*", steps[0])
        assert re.fullmatch(rf"queued → sending +RequestId {HEX}", steps[1])
        assert re.fullmatch(rf"sending → sent +eSMS answered 100 after \d+ ms, SMSID {HEX}", steps[2])
        assert re.fullmatch(r"sent → delivered +.*SendStatus 5, 470 đ", steps[3])
        assert steps[4:] == ["The message is delivered."]


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


def test_serves_until_ctrl_c(environment: dict[str, str]) -> None:
    with demo_running(environment) as (process, written):
        assert "The message is delivered." in written, written
        assert "admin / demo" in written
        origin = re.search(r"http://127\.0\.0\.1:\d+", written)[0]
        for path in ("/", "/phone/", "/phone/0901888484/", "/simulator/", "/admin/login/", "/static/site/site.css"):
            assert fetch(origin + path)
        (message,) = json.loads(fetch(f"{origin}/phone/0901888484/messages/"))["messages"]
        assert message["text"].startswith("Cà Phê Sớm xin chào")
        assert message["button_url"].startswith(f"{origin}/orders/")
        assert "not a parameter" not in fetch(f"{origin}/simulator/")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stdout.read().strip() == "Stopped."


def test_refuses_a_real_account(environment: dict[str, str]) -> None:
    environment["ESMS_BASE_URL"] = "https://rest.esms.vn/MainService.svc/json/"
    result = run(environment, "demo", "--once")
    assert result.returncode == 1
    assert "ESMS_BASE_URL" in result.stderr
    assert "Traceback" not in result.stderr
