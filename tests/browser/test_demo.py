"""A person at the demo: a message written in the admin shows on the phone and turns delivered."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
ROOT = Path(__file__).parents[2]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed"),
]

PHONE = "0977 123 456"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> Iterator[str]:
    """The demo as the README starts it; its address."""
    folder = tmp_path_factory.mktemp("demo")
    port = _free_port()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("DJANGO_", "ESMS_"))},
        "DATABASE_URL": f"sqlite:///{folder / 'db.sqlite3'}",
        "PYTHONUNBUFFERED": "1",
        "PYTHONPATH": str(ROOT),
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


@pytest.fixture
def page(demo):
    """A browser page, English, that notes what it should not do: errors on the console, requests to other hosts."""
    with playwright.sync_playwright() as engine:
        browser = engine.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        )
        context = browser.new_context(locale="en-GB", base_url=demo)
        faults: list[str] = []
        context.on("console", lambda message: _note_error(message, faults))
        context.on("weberror", lambda error: faults.append(str(error.error)))
        context.on("request", lambda request: faults.append(request.url) if _is_foreign(request.url, demo) else None)
        yield context.new_page()
        browser.close()
    assert faults == []


def _note_error(message, faults: list[str]) -> None:
    if message.type == "error":
        faults.append(f"{message.text} ({message.location.get('url')})")


def _is_foreign(url: str, demo: str) -> bool:
    return urlsplit(url).scheme in {"http", "https"} and urlsplit(url).netloc != urlsplit(demo).netloc


def _log_in(page, name: str) -> None:
    page.goto("/admin/login/?next=/admin/esms_viber/outboundvibermessage/")
    page.fill("[name=username]", name)
    page.fill("[name=password]", "demo")
    page.click("[type=submit]")


def _wait_for_status(page, status: str) -> None:
    """Reload the list, as the shop staff would, until its first row says so."""
    for _ in range(60):
        page.goto("/admin/esms_viber/outboundvibermessage/")
        if status in page.locator("#result_list tbody tr").first.inner_text().lower():
            return
        page.wait_for_timeout(250)
    pytest.fail(page.locator("#result_list tbody tr").first.inner_text())


def test_a_message_written_in_the_admin_arrives_on_the_phone(page):
    _log_in(page, "admin")
    # The phone lies beside, and is not touched again.
    page.goto("/admin/esms_viber/outboundvibermessage/add/")
    page.fill("[name=phone]", PHONE)
    page.fill("[name=content]", "Chào chị Lan,\nđơn hàng đã sẵn sàng 🎉")
    page.fill("[name=button_label]", "Xem đơn")
    page.fill("[name=button_url]", "https://shop.example.vn/orders/17?a=1&b=2")
    page.click("[name=_send]")

    assert "eSMS took" in page.locator(".messagelist").inner_text()
    _wait_for_status(page, "delivered")

    page.goto("/phone/0977123456/")
    bubble = page.get_by_text("đơn hàng đã sẵn sàng 🎉")
    bubble.wait_for()
    assert page.get_by_role("link", name="Xem đơn").get_attribute("href") == "https://shop.example.vn/orders/17?a=1&b=2"


def test_the_phone_shows_new_messages_by_itself(page):
    _log_in(page, "admin")
    page.goto("/phone/0977123456/")
    phone = page
    admin = page.context.new_page()
    admin.goto("/admin/esms_viber/outboundvibermessage/add/")
    admin.fill("[name=phone]", PHONE)
    admin.fill("[name=content]", "Một tin nữa <b>không đậm</b>")
    admin.click("[name=_send]")
    phone.get_by_text("Một tin nữa <b>không đậm</b>").wait_for(timeout=10_000)


def test_resending_asks_first_and_sends_a_new_message(page):
    _log_in(page, "admin")
    page.locator("#result_list tbody tr input[type=checkbox]").first.check()
    page.select_option("select[name=action]", "send_selected")
    page.click("button[name=index], .actions button[type=submit]")
    assert "sent again" in page.locator("#content").inner_text()
    page.click("[type=submit].default")
    assert page.locator(".messagelist").inner_text()
    _wait_for_status(page, "delivered")


def test_staff_without_the_permission_see_and_cannot_send(page):
    _log_in(page, "staff")
    page.locator("#result_list tbody tr").first.wait_for()
    assert page.locator("select[name=action] option[value=send_selected]").count() == 0
    assert page.request.get("/admin/esms_viber/outboundvibermessage/add/").status == 403
