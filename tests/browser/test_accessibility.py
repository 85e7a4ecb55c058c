"""Pages for everybody: screen readers, dark rooms."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import LIST
from tests.browser.test_opt_outs import OPT_OUTS


def _list(page: Any) -> None:
    page.goto(LIST)


def _add(page: Any) -> None:
    page.goto(f"{LIST}add/")
    page.check("[name=kind][value=text_image_button]")
    page.fill("[name=phone]", "028 3822 1234")
    page.fill("[name=content]", "Chào bạn 🎉")
    page.fill("[name=image_url]", "http://shop.example.vn/a.png")
    page.fill("[name=button_label]", "Xem")
    page.get_by_text("This is a landline").wait_for()


def _message(page: Any) -> None:
    page.goto(f"{LIST}?status__exact=unknown")
    page.locator("#result_list tbody th a").first.click()


def _question(page: Any) -> None:
    page.goto(f"{LIST}?campaign=tet-2027")
    page.locator("#action-toggle").check()
    page.select_option("select[name=action]", "send_selected")
    page.click(".actions button[type=submit]")


def _many(page: Any) -> None:
    page.goto(f"{LIST}viber-send-to-many/")


def _review(page: Any) -> None:
    _many(page)
    page.fill("[name=campaign]", "tet-2027")
    page.fill("[name=phones]", "0977 123 456, 0977 123 457, 12345, 0977123456")
    page.fill("[name=content]", "Chào bạn")
    page.get_by_role("button", name="Next: look it over").click()
    page.get_by_text("One entry repeats a phone").wait_for()
    page.locator("details summary").first.click()


def _overview(page: Any) -> None:
    page.goto(f"{LIST}viber-overview/")


def _campaign(page: Any) -> None:
    page.goto(f"{LIST}viber-campaign/?name=tet-2027")


def _history(page: Any) -> None:
    _message(page)
    page.wait_for_url("**/change/**")
    page.goto(page.url.partition("change/")[0] + "history/")


def _delete(page: Any) -> None:
    _message(page)
    page.wait_for_url("**/change/**")
    page.goto(page.url.partition("change/")[0] + "delete/")


def _order(page: Any) -> None:
    page.goto("/admin/shop/order/")
    page.locator("#result_list tbody th a").first.click()


def _template(page: Any) -> None:
    page.goto("/admin/esms_viber/vibertemplate/")
    page.locator("#result_list tbody th a").first.click()
    page.locator("[data-part=values] input").first.wait_for()


def _filled_in(page: Any) -> None:
    page.goto(f"{LIST}add/")
    page.select_option("[name=_template]", "order-shipped")
    page.click("[name=_fill]")
    page.locator("[data-part=values] input").first.wait_for()


def _opt_outs(page: Any) -> None:
    page.goto(OPT_OUTS)


def _opt_out(page: Any) -> None:
    page.goto(OPT_OUTS)
    page.locator("#result_list tbody th a").first.click()


def _pasted(page: Any) -> None:
    page.goto(f"{OPT_OUTS}viber-paste/")
    page.fill("[name=pasted]", "028 3822 1234")
    page.click("[type=submit].default")
    page.get_by_text("This is a landline").wait_for()


def _message_to_opted_out(page: Any) -> None:
    page.goto(f"{LIST}add/")
    page.check("[name=kind][value=text]")
    page.fill("[name=phone]", "0912 345 678")
    page.fill("[name=content]", "Chào chị")
    page.locator("#id_phone_note.viber-over").wait_for()
    page.click("[name=_save]")
    page.locator("#result_list tbody th a").first.click()
    page.locator(".viber-risk").wait_for()


PAGES = [
    _list,
    _add,
    _message,
    _question,
    _many,
    _review,
    _overview,
    _campaign,
    _history,
    _delete,
    _order,
    _template,
    _filled_in,
    _opt_outs,
    _opt_out,
    _pasted,
    _message_to_opted_out,
]
by_name = pytest.mark.parametrize("open_page", PAGES, ids=lambda page: page.__name__.strip("_"))


@by_name
def test_axe_finds_nothing_serious(visit: Any, open_page: Any) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is not installed")
    # axe itself applies styles inline, which the demo's policy forbids.
    page = visit("admin", bypass_csp=True)
    open_page(page)
    for color_scheme in ("light", "dark"):
        page.emulate_media(color_scheme=color_scheme)
        page.evaluate("() => Promise.all(document.getAnimations().map((animation) => animation.finished))")
        serious = {
            violation["id"]: [node["html"] for node in violation["nodes"]]
            for violation in axe.Axe().run(page).response["violations"]
            if violation["impact"] in {"serious", "critical"}
        }
        assert serious == {}, color_scheme
