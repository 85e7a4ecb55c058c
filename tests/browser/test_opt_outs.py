"""Somebody enters who wants no more messages, in Vietnamese: buttons and fields are known by their names."""

from __future__ import annotations

from typing import Any

from tests.browser.conftest import LIST, told

OPT_OUTS = "/admin/esms_viber/viberoptout/"


def test_who_has_opted_out_gets_nothing_until_it_is_withdrawn(visit: Any) -> None:
    page = visit("admin", locale="vi-VN")
    page.goto(OPT_OUTS)
    page.click(f"a[href='{OPT_OUTS}viber-paste/']")
    page.fill("[name=pasted]", "0968 555 001\n028 3822 1234")
    page.select_option("[name=scope]", "everything")
    page.click("[type=submit].default")
    assert page.locator(".viber-refused tbody tr").count() == 1
    page.fill("[name=pasted]", "0968 555 001\n+84 968 555 002")
    page.click("[type=submit].default")
    page.wait_for_url(f"**{OPT_OUTS}")
    assert "0968 555 001" in page.locator("#result_list").inner_text()

    # A draft may be written, with a warning below the phone.
    page.goto(f"{LIST}add/")
    page.check("[name=kind][value=text]")
    page.fill("[name=phone]", "0968 555 001")
    page.fill("[name=content]", "Chào bạn")
    page.locator("#id_phone_note.viber-over").wait_for()
    page.click("[name=_send]")
    assert "0968 555 001" in told(page)
    page.locator(".messagelist:not(.viber-notices) a").first.click()
    page.locator(".viber-risk a").click()

    # From the message to the opt-out, which is deleted; then the message goes out after all.
    page.wait_for_url(f"**{OPT_OUTS}*/change/**")
    assert page.locator("[name=phone]").count() == 0
    page.click(".deletelink")
    page.click("#content [type=submit]")
    page.wait_for_url(f"**{OPT_OUTS}**")
    page.goto(f"{LIST}?q=0968555001")
    page.locator("#result_list tbody th a").first.click()
    assert page.locator(".viber-risk").count() == 0
    page.click("[name=_send]")
    page.goto("/phone/0968555001/")
    page.get_by_text("Chào bạn").wait_for()
