"""The demo as the README starts it, and a browser that notes what a page should not do."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.clock import python_path
from tests.fake_gateway import wait_until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]
LIST = "/admin/esms_viber/outboundvibermessage/"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The demo's address, on a port that it has found itself: another demo may take one that was free a moment ago."""
    folder = tmp_path_factory.mktemp("demo")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ESMS_", "LC_"))},
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": python_path(ROOT),
        "LANG": "C.UTF-8",
    }
    process = subprocess.Popen(
        [sys.executable, "example_project/manage.py", "demo", "--port", "0"],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    hung = threading.Timer(180, process.kill)
    hung.start()
    said = []
    for line in process.stdout:
        said.append(line)
        if "Ctrl-C" in line:
            break
    hung.cancel()
    # A pipe that nobody reads fills up, and then holds up the demo.
    reader = threading.Thread(target=process.stdout.read)
    reader.start()
    try:
        assert process.poll() is None, "".join(said)
        [address] = {found for line in said for found in re.findall(r"http://127\.0\.0\.1:\d+", line)}
        yield address
    finally:
        process.terminate()
        process.wait(60)
        reader.join()
        process.stdout.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Not for longer than a file: while it is there, an event loop runs, in which Django refuses to use a database."""
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


@pytest.fixture(scope="module")
def cookies(chromium: Any, demo: str) -> Callable[[str], Any]:
    """What the browser of somebody who has logged in keeps."""

    @cache
    def cookies(name: str) -> Any:
        with chromium.new_context(base_url=demo) as context:
            log_in(context.new_page(), name)
            return context.storage_state()

    return cookies


@pytest.fixture
def visit(chromium: Any, demo: str, cookies: Callable[[str], Any], faults: list[str]) -> Iterator[Callable[..., Any]]:
    """Pages of people with a browser of their own: `visit("admin", locale="vi-VN", color_scheme="dark")`."""
    contexts = []

    def visit(name: str, **options: Any) -> Any:
        context = chromium.new_context(
            **{"locale": "en-GB", "base_url": demo, "storage_state": cookies(name)} | options
        )
        contexts.append(context)
        context.set_default_timeout(60_000)
        context.on("console", lambda message: _note_error(message, faults))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on("request", lambda request: faults.append(request.url) if _is_foreign(request.url, demo) else None)
        return context.new_page()

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
    """Look at the list until its first row says so, and stay there."""

    def is_reached() -> bool:
        page.goto(LIST)
        return status in page.locator("#result_list tbody tr").first.inner_text().lower()

    wait_until(is_reached)
