"""A template is written with samples beside it, tried on one's own phone, and chosen for a message."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import LIST

TEMPLATES = "/admin/esms_viber/vibertemplate/"

TEXT = "[data-part=text]"
NAMES = "[data-part=values] input"


def write(page: Any, name: str) -> None:
    page.goto(f"{TEMPLATES}add/")
    page.fill("[name=name]", name)
    page.check("[name=kind][value=text_button]")
    page.fill("[name=content]", "Chào {customer}, đơn {order}. {Customer} ơi! { } {}")
    page.fill("[name=button_label]", "Xem {order}")
    page.fill("[name=button_url]", "https://shop.example.vn/{order}?q={customer}")


def names(page: Any) -> list[str]:
    return [str(name) for name in page.locator(NAMES).evaluate_all("all => all.map((input) => input.name)")]


@pytest.mark.parametrize("width", [1280, 390])
def test_samples_stand_in_the_preview_while_they_are_typed(visit: Any, width: int) -> None:
    page = visit("admin", viewport={"width": width, "height": 844})
    write(page, f"live-{width}")
    assert page.inner_text(TEXT) == "Chào customer, đơn order. customer ơi! { } {}"
    assert names(page) == ["value-customer", "value-order"]

    page.fill("[name=value-customer]", "Lan & Co")
    page.fill("[name=value-order]", "1/7")
    assert page.inner_text(TEXT) == "Chào Lan & Co, đơn 1/7. Lan & Co ơi! { } {}"
    assert page.inner_text("[data-part=button]") == "Xem 1/7"
    link = page.get_attribute("[data-part=button]", "href")
    assert link == "https://shop.example.vn/1%2F7?q=Lan%20%26%20Co"

    # A name that comes back has its sample again, and parts that the kind does not have bring no names.
    page.fill("[name=content]", "Chào {shop}")
    assert names(page) == ["value-shop", "value-order", "value-customer"]
    page.check("[name=kind][value=text]")
    assert names(page) == ["value-shop"]
    page.check("[name=kind][value=text_button]")
    assert page.input_value("[name=value-customer]") == "Lan & Co"
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width


def test_what_is_wrong_is_told_while_it_is_typed(visit: Any) -> None:
    page = visit("admin")
    write(page, "wrong")
    page.fill("[name=button_url]", "shop/{order}")
    page.locator(".field-button_url .errorlist").wait_for()
    assert page.locator("[name=button_url]").get_attribute("aria-invalid") == "true"
    page.fill("[name=button_url]", "{order}")
    page.locator(".field-button_url .errorlist").wait_for(state="detached")


def test_enter_in_ones_own_phone_sends_the_rehearsal_and_keeps_all(visit: Any) -> None:
    page = visit("admin")
    write(page, "tried")
    page.fill("[name=value-customer]", "Lan")
    page.fill("[name=rehearsal_phone]", "0977 123 999")
    page.press("[name=rehearsal_phone]", "Enter")
    page.locator(".messagelist .success a").wait_for()
    assert page.input_value("[name=content]").startswith("Chào {customer}")
    assert page.input_value("[name=value-customer]") == "Lan"
    page.goto(LIST)
    assert "0977 123 999" in page.locator("#result_list tbody tr").first.inner_text()
    assert "Chào Lan, đơn order." in page.locator("#result_list tbody tr").first.inner_text()


@pytest.mark.parametrize("scripts", [True, False])
def test_a_message_is_made_of_a_template(visit: Any, scripts: bool) -> None:
    page = visit("admin", java_script_enabled=scripts)
    page.goto(f"{LIST}add/")
    page.fill("[name=phone]", "0977 123 998")
    page.fill("[name=dedupe_key]", f"made-{int(scripts)}")
    page.select_option("[name=_template]", "order-shipped")
    page.click(".viber-from-template button")
    page.locator("[name=value-order]").wait_for()
    assert page.input_value("[name=phone]") == "0977 123 998"
    assert page.input_value("[name=dedupe_key]") == f"made-{int(scripts)}"
    for name, value in {"order": "17", "customer": "Lan", "link": "https://shop.example.vn/17"}.items():
        page.fill(f"[name=value-{name}]", value)
    page.fill("[name=value-image]", "https://shop.example.vn/17.png")
    if scripts:
        assert page.inner_text(TEXT).startswith("Đơn #17 đang trên đường đến Lan")
    page.click("[name=_save]")
    page.wait_for_url(f"**{LIST}")
    row = page.locator("#result_list tbody tr").first.inner_text()
    assert "0977 123 998" in row
    assert "Đơn #17 đang trên đường đến Lan" in row


@pytest.mark.parametrize(("path", "done"), [("add/", "**add/"), ("viber-send-to-many/", "**viber-send-to-many/")])
def test_enter_does_not_fill_in_the_form(visit: Any, path: str, done: str) -> None:
    """Though *Fill in the form* is the first button that one sees."""
    page = visit("admin")
    page.goto(f"{LIST}{path}")
    page.select_option("[name=_template]", "order-shipped")
    page.fill("[name=campaign]", "tet")
    page.press("[name=campaign]", "Enter")
    page.locator(".errornote").wait_for()
    page.wait_for_url(done)
    assert not page.input_value("[name=content]")


@pytest.mark.parametrize("scripts", [True, False])
def test_a_new_name_in_braces_takes_a_second_button(visit: Any, scripts: bool) -> None:
    name = f"asked-{int(scripts)}"
    page = visit("admin", java_script_enabled=scripts)
    page.goto(f"{TEMPLATES}add/")
    page.fill("[name=name]", name)
    if scripts:
        page.check("[name=kind][value=text]")
    page.fill("[name=content]", "Chào")
    page.click("[name=_continue]")
    page.wait_for_url("**/change/")
    page.fill("[name=content]", "Chào {shop}")
    page.click("[name=_save]")
    page.click("[name=_confirm_names]")
    page.wait_for_url(f"**{TEMPLATES}")
    page.locator("#result_list tbody").get_by_role("link", name=name).click()
    assert page.input_value("[name=content]") == "Chào {shop}"
