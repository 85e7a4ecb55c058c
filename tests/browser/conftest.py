"""The demo as the README starts it, and a browser that notes what a page should not do."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clock import python_path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
LIST = "/admin/esms_viber/outboundvibermessage/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo's address."""
    folder = tmp_path_factory.mktemp("demo")
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ESMS_", "LC_"))},
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": python_path(ROOT),
        "LANG": "C.UTF-8",
    }
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(
            [sys.executable, "example_project/manage.py", "demo", "--port", str(port)],
            cwd=ROOT,
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + 60
            while "Ctrl-C" not in (folder / "log").read_text():
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.1)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(20)


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    engine = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed")
    with engine.sync_playwright() as running:
        browser = running.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        yield browser
        browser.close()


@pytest.fixture
def faults() -> Iterator[list[str]]:
    """Errors on the console, and requests to other hosts; a test takes out what it brought about itself."""
    found: list[str] = []
    yield found
    assert found == []


@pytest.fixture
def visit(chromium: Any, demo: str, faults: list[str]) -> Iterator[Callable[..., Any]]:
    """Pages of people with a browser of their own: `visit("admin", locale="vi-VN", color_scheme="dark")`."""
    contexts = []

    def visit(login: str = "", **options: Any) -> Any:
        context = chromium.new_context(**{"locale": "en-GB", "base_url": demo} | options)
        contexts.append(context)
        context.on("console", lambda message: _note_error(message, faults))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on("request", lambda request: faults.append(request.url) if _is_foreign(request.url, demo) else None)
        page = context.new_page()
        if login:
            log_in(page, login)
        return page

    yield visit
    for context in contexts:
        context.close()


def _note_error(message: Any, faults: list[str]) -> None:
    if message.type == "error":
        faults.append(f"{message.text} ({message.location.get('url')})")


def _is_foreign(url: str, demo: str) -> bool:
    return urlsplit(url).scheme in {"http", "https"} and urlsplit(url).netloc != urlsplit(demo).netloc


def log_in(page: Any, name: str) -> None:
    page.goto(f"/admin/login/?next={LIST}")
    page.fill("[name=username]", name)
    page.fill("[name=password]", "demo")
    page.click("[type=submit]")
    page.wait_for_load_state()


def told(page: Any) -> str:
    """What the last action came to; the standing notices about the queue look alike."""
    return page.locator(".messagelist:not(.viber-notices)").inner_text()


def wait_for_status(page: Any, status: str) -> None:
    """Reload the list, as the shop staff would, until its first row says so."""
    first = page.locator("#result_list tbody tr").first
    for _ in range(60):
        page.goto(LIST)
        if status in first.inner_text().lower():
            return
        page.wait_for_timeout(250)
    pytest.fail(first.inner_text())
