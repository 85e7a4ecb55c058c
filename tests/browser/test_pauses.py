"""A person who pauses a campaign, resumes it, and stops another one for good."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import LIST

MANY, PAUSE, RESUME = f"{LIST}viber-send-to-many/", f"{LIST}viber-pause/", f"{LIST}viber-resume/"


def _pause(page: Any, campaign: str) -> None:
    page.goto(f"{LIST}viber-campaign/?name={campaign}")
    page.fill(f"[action='{PAUSE}'] [name=note]", "Giá sai <b>!")
    page.click(f"[action='{PAUSE}'] button")
    page.locator(f"[action='{RESUME}']").wait_for()
    assert "Giá sai <b>!" in page.inner_text("#viber-pause q")


def _send_to(page: Any, campaign: str, count: int) -> None:
    page.goto(MANY)
    page.fill("[name=campaign]", campaign)
    page.fill("[name=phones]", "\n".join(f"0967{number:06d}" for number in range(count)))
    page.fill("[name=content]", "Chào bạn")
    page.click(".submit-row .default")
    page.click("[name=_confirm]", no_wait_after=True)
    page.wait_for_url(f"**/viber-campaign/?name={campaign}")


def test_a_campaign_is_paused_waits_and_goes_on(visit: Any) -> None:
    page = visit("admin")
    _pause(page, "pausing")
    _send_to(page, "pausing", 3)
    assert page.locator(".viber-through[data-seconds]").count() == 0
    bar = page.locator(".viber-through progress")
    assert (bar.get_attribute("value"), bar.get_attribute("max")) == ("0", "3")

    page.goto(f"{LIST}?campaign=pausing")
    assert page.locator("#result_list tbody .field-status_column .viber-remark").count() == 3
    # The banner leads to where it is resumed.
    page.click(".viber-notices a[href$='name=pausing']")
    page.click(f"[action='{RESUME}'] button")
    page.locator(f"[action='{PAUSE}']").wait_for()
    page.wait_for_function(
        "() => { const bar = document.querySelector('.viber-through progress'); return bar.value === 3; }"
    )


def test_everything_is_paused_and_resumed_on_the_overview(visit: Any) -> None:
    page = visit("admin")
    page.goto(f"{LIST}viber-overview/")
    page.click(f"[action='{PAUSE}'] button")
    page.goto(f"{LIST}add/")
    page.click(".viber-notices a[href$='#viber-pause']")
    page.click(f"[action='{RESUME}'] button")
    page.locator(f"[action='{PAUSE}']").wait_for()
    assert page.locator(".viber-notices a[href$='#viber-pause']").count() == 0


def test_a_campaign_is_stopped_for_good_with_a_bar_that_moves(visit: Any, faults: list[str]) -> None:
    page = visit("admin")
    _pause(page, "stopping")
    _send_to(page, "stopping", 1200)
    page.click("#viber-do-stop")
    page.locator("[name=_go_on]").wait_for()

    # The first part is lost on its way.
    widths: list[int] = []

    def answer(route: Any) -> None:
        if "application/json" not in route.request.headers["accept"]:
            route.continue_()
        elif not widths:
            widths.append(0)
            route.abort()
        else:
            response = route.fetch()
            widths.append(response.json()["width"])
            route.fulfill(response=response)

    page.route(f"**{LIST}?campaign=*", answer)
    go_on = page.locator("[name=_go_on]:enabled")
    with page.expect_console_message(lambda message: "ERR_FAILED" in message.text):
        go_on.click(no_wait_after=True)
    go_on.wait_for()
    assert page.locator("#viber-work progress").is_visible()
    assert page.inner_text("#viber-work [role=status]")
    faults.clear()
    go_on.click(no_wait_after=True)
    page.wait_for_url("**/viber-campaign/?name=stopping")
    assert widths == sorted(widths)
    assert widths[-1] == 1000
    assert page.locator(".viber-through .viber-bar .viber-fill-cancelled").count() == 1
    assert page.locator(".viber-through progress").count() == 0
    assert page.locator("#viber-do-cancelled").count() == 1
    assert page.locator("#viber-do-stop").count() == 0


def test_without_scripts_it_is_stopped_too(visit: Any) -> None:
    page = visit("admin")
    _pause(page, "plainly")
    _send_to(page, "plainly", 3)
    plain = visit("admin", java_script_enabled=False)
    plain.goto(f"{LIST}viber-campaign/?name=plainly")
    plain.click("#viber-do-stop")
    plain.click("[name=_go_on]")
    assert plain.locator(".viber-through .viber-bar .viber-fill-cancelled").count() == 1
