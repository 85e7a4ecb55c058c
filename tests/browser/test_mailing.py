"""A person with a list of customers: from the file to a campaign that is through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.browser.conftest import LIST, log_in, told

MANY = f"{LIST}viber-send-to-many/"
GOOD = 1000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """1,000 good lines, two bad ones and a repeated phone, as Excel saves them in Vietnam."""
    lines = [f"0968{n:06d};Khách {n};KM{n:04d}" for n in range(GOOD)]
    lines[500:500] = ["028 3822 1234;Máy bàn;KM", "0977 000 001;;KM", "+84 968 000 000;Khách 0;KM0000"]
    path = tmp_path / "khach.csv"
    path.write_text("\ufeffSố điện thoại;tên;mã\r\n" + "\r\n".join(lines) + "\r\n")
    return path


def _write(page: Any, file: Path, campaign: str) -> None:
    page.goto(LIST)
    page.get_by_role("link", name="Send to many").click()
    page.fill("[name=campaign]", campaign)
    page.set_input_files("[name=file]", file)
    page.check("[name=kind][value=text_button]")
    page.fill("[name=content]", "Chào {tên}, mã của bạn: {mã} 🎉")
    page.fill("[name=button_label]", "Dùng mã {mã}")
    page.fill("[name=button_url]", "https://shop.example.vn/km/{mã}")
    page.get_by_role("button", name="Next: look it over").click()
    page.get_by_text("Nothing is stored or sent yet.").wait_for()
    page.wait_for_load_state()


def test_a_file_with_bad_lines_is_looked_over_sent_and_watched(visit: Any, file: Path) -> None:
    page = visit("admin")
    _write(page, file, "tet-file")
    shown = page.locator("#content").inner_text()
    for expected in [
        "1,000 messages are ready",
        "2 entries cannot be used",
        "This is a landline",
        "The column “tên” is empty.",
        "One entry repeats a phone",
    ]:
        assert expected in shown
    assert page.locator(".viber-phone").count() == 3
    assert "Chào Khách 0, mã của bạn: KM0000 🎉" in page.locator(".viber-phone").first.inner_text()
    page.get_by_role("button", name="Ask eSMS").click()
    assert "đ" in page.locator(".viber-facts").inner_text()

    # The bar is to be seen moving: what comes after the first part is held up until it was.
    posts: list[Any] = []
    is_seen = False

    def hold(route: Any) -> None:
        posts.append(route)
        if is_seen or len(posts) == 1:
            route.continue_()

    page.route("**/viber-send-to-many/", hold)
    page.get_by_role("button", name="Yes, send 1,000 messages").click(no_wait_after=True)
    page.locator(".viber-progress progress").wait_for()
    page.wait_for_function("() => document.querySelector('.viber-progress progress')?.value > 0")
    is_seen = True
    for post in posts[1:]:
        post.continue_()
    page.wait_for_url("**/viber-campaign/?name=tet-file")
    assert "1,000 messages of the campaign" in told(page)

    # Nobody reloads the page: the demo's sender works through the queue, and the figures follow.
    done = page.locator("progress").first
    before = float(done.get_attribute("value"))
    page.wait_for_function(
        "before => Number(document.querySelector('progress').value) > before", arg=before, timeout=60_000
    )
    page.wait_for_function(
        "() => { const bar = document.querySelector('progress'); return bar.value === bar.max; }", timeout=120_000
    )

    page.goto("/phone/0968000999/")
    page.get_by_text("Chào Khách 999, mã của bạn: KM0999 🎉").wait_for()
    assert page.get_by_role("link", name="Dùng mã KM0999").get_attribute("href") == "https://shop.example.vn/km/KM0999"

    _write(page, file, "tet-file")
    assert "1,000 phones have a message of this campaign already" in page.locator("#content").inner_text()
    assert page.get_by_role("button", name="Yes, send").count() == 0


def test_a_broken_connection_and_a_login_that_has_ended_are_told_and_gone_on_from(
    visit: Any, file: Path, faults: list[str]
) -> None:
    page = visit("admin")
    _write(page, file, "tet-broken")
    broken = []

    def break_once(route: Any) -> None:
        if broken:
            route.continue_()
        else:
            broken.append(1)
            route.abort()

    page.route("**/viber-send-to-many/", break_once)
    send = page.get_by_role("button", name="Yes, send 1,000 messages")
    with page.expect_console_message(lambda message: "ERR_FAILED" in message.text):
        send.click(no_wait_after=True)
    page.get_by_text("0 of 1,003 entries are stored; what is stored is sent in any case. The connection").wait_for()
    assert not page.get_by_text("Nothing is stored or sent yet.").is_visible()
    [_noted_by_the_browser_itself] = faults
    faults.clear()

    page.context.clear_cookies()
    go_on = page.get_by_role("button", name="Go on")
    go_on.click(no_wait_after=True)
    page.get_by_text("You are not logged in any more.").wait_for()
    faults.clear()
    log_in(page.context.new_page(), "admin")
    go_on.click(no_wait_after=True)
    page.wait_for_url("**/viber-campaign/?name=tet-broken")
    assert "1,000 messages of the campaign" in told(page)


def test_without_scripts_pasted_phones_are_sent_as_well(visit: Any) -> None:
    page = visit("admin", java_script_enabled=False)
    page.goto(MANY)
    page.fill("[name=campaign]", "plain")
    page.fill("[name=phones]", "0977 111 222, 0977.111.223; 12345")
    page.fill("[name=content]", "Chào bạn")
    page.get_by_role("button", name="Next: look it over").click()
    page.get_by_role("button", name="Yes, send 2 messages").click()
    assert "2 messages of the campaign" in told(page)


def test_going_back_keeps_the_file(visit: Any, file: Path) -> None:
    page = visit("admin")
    _write(page, file, "tet-back")
    page.get_by_role("button", name="No, change something").click()
    assert "1003 lines of the file are kept." in page.locator(".viber-kept").inner_text().replace(",", "")
    assert page.locator("[name=content]").input_value() == "Chào {tên}, mã của bạn: {mã} 🎉"
    assert page.locator("[name=kind][value=text_button]").is_checked()
    page.fill("[name=content]", "Chào {tên}!")
    page.get_by_role("button", name="Next: look it over").click()
    assert "Chào Khách 0!" in page.locator(".viber-phone").first.inner_text()
