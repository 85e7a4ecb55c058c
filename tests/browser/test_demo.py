"""A person at the demo: a message written in the admin shows on the phone and turns delivered."""

from __future__ import annotations

import re
from typing import Any

import pytest

from tests.browser.conftest import LIST, told, wait_for_status

PHONE = "0977 123 456"
ADD = f"{LIST}add/"

BUTTON = {"button_label": "Xem đơn", "button_url": "https://shop.example.vn/orders/17?a=1&b=2"}
KINDS = {
    "text": {"content": "Chào chị Lan,\nđơn hàng đã sẵn sàng 🎉"},
    "text_button": {"content": "Chào anh Minh & chị <b>Hà</b>"} | BUTTON,
    "image": {"image_url": "https://{host}/static/shop/parcel.png"},
    "text_image_button": BUTTON | {"content": "Quà Tết 🎁", "image_url": "https://{host}/static/shop/parcel.png"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_is_written_seen_sent_and_delivered(visit: Any, demo: str, kind: str) -> None:
    page = visit("admin")
    host = demo.removeprefix("http://")
    written = {name: value.format(host=host) for name, value in KINDS[kind].items()}
    page.goto(ADD)
    page.check(f"[name=kind][value={kind}]")
    parts = ("content", "image_url", "button_label", "button_url")
    assert {name for name in parts if page.locator(f"[name={name}]").is_visible()} == written.keys()
    page.fill("[name=phone]", PHONE)
    for name, value in written.items():
        page.fill(f"[name={name}]", value)
        page.locator(f"[name={name}]").blur()
    _expect_on(page.locator(".viber-preview .viber-bubble"), written)

    page.click("[name=_send]")
    assert "eSMS took" in told(page)
    wait_for_status(page, "delivered")

    page.goto("/phone/0977123456/")
    bubble = page.locator("#chat .bubble").last
    if "content" in written:
        assert bubble.locator(".bubble-text").inner_text() == written["content"]
    assert bubble.locator("img").count() == ("image_url" in written)
    if "button_url" in written:
        assert bubble.get_by_role("link", name="Xem đơn").get_attribute("href") == written["button_url"]


def _expect_on(bubble: Any, written: dict[str, str]) -> None:
    """What was written stands on the phone of the preview, and nothing else does."""
    text, picture, button = (bubble.locator(f"[data-part={name}]") for name in ("text", "picture", "button"))
    assert [part.is_visible() for part in (text, picture, button)] == [
        name in written for name in ("content", "image_url", "button_label")
    ]
    if "content" in written:
        assert text.inner_text() == written["content"]
    if "image_url" in written:
        picture.locator("img").wait_for()
        assert picture.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    if "button_label" in written:
        assert (button.inner_text(), button.get_attribute("href")) == (written["button_label"], written["button_url"])


def test_what_another_kind_has_comes_back_with_it_and_is_not_sent(visit: Any) -> None:
    page = visit("admin")
    page.goto(ADD)
    page.check("[name=kind][value=text_button]")
    page.fill("[name=phone]", PHONE)
    page.fill("[name=content]", "Chỉ là chữ")
    page.fill("[name=button_label]", "Xem")
    page.check("[name=kind][value=text]")
    assert not page.locator(".viber-preview [data-part=button]").is_visible()
    page.check("[name=kind][value=text_button]")
    assert page.locator("[name=button_label]").input_value() == "Xem"
    page.check("[name=kind][value=text]")
    page.click("[name=_save]")
    assert "nothing was sent" in told(page)


def test_counters_and_checks_follow_the_typing(visit: Any) -> None:
    page = visit("admin")
    page.goto(ADD)
    page.check("[name=kind][value=text_image_button]")
    page.fill("[name=content]", "Tết 🎉\r\nvui")
    page.fill("[name=button_label]", "x" * 31)
    assert page.locator("#id_button_label_note.viber-over").inner_text() == "31 / 30"

    page.fill("[name=phone]", "+84 977.123.456")
    page.get_by_text("is sent to 0977 123 456 (+84977123456)").wait_for()
    page.fill("[name=phone]", "028 3822 1234")
    page.get_by_text("This is a landline").wait_for()
    assert page.locator("[name=phone]").get_attribute("aria-invalid") == "true"
    page.fill("[name=image_url]", "http://shop.example.vn/a.png")
    page.get_by_text("Give the full address of the image, beginning with https://.").wait_for()
    page.get_by_text("A button needs a link. Give the link, or clear the label.").wait_for()
    page.get_by_text("This has 31 characters; at most 30 can be sent. Shorten it by 1.").wait_for()

    page.fill("[name=phone]", PHONE)
    page.fill("[name=button_label]", "Xem")
    page.fill("[name=button_url]", "https://shop.example.vn/")
    page.fill("[name=image_url]", "https://shop.example.vn/a.png")
    page.locator(".form-row .errorlist").first.wait_for(state="detached")
    assert page.locator("[aria-invalid=true]").count() == 0


def test_the_counter_tells_what_is_left_and_what_must_go(visit: Any) -> None:
    page = visit("admin")
    page.goto(ADD)
    room = page.locator("#id_content_note")
    empty = _number(room)
    text = "Cà Phê Sớm mời bạn ghé cửa hàng. "
    page.fill("[name=content]", text * 10)
    page.wait_for_function(f"() => !document.querySelector('#id_content_note').textContent.includes('{empty}')")
    half = _number(room)
    assert half < empty - 200
    page.check("[name=kind][value=text_button]")
    page.fill("[name=button_label]", "Xem")
    page.fill("[name=button_url]", f"https://shop.example.vn/{'tet/' * 40}")
    page.wait_for_function(f"() => !document.querySelector('#id_content_note').textContent.includes('{half}')")
    assert 0 < _number(room) < half - 20
    page.fill("[name=content]", text * 30)
    over = page.locator("#id_content_note.viber-over")
    over.get_by_text("Too long: take out about").wait_for()
    assert page.locator(".field-content .errorlist").inner_text() == over.inner_text()
    page.fill("[name=content]", (text * 30)[: -_number(over)])
    over.wait_for(state="detached")
    assert page.locator(".field-content .errorlist").count() == 0


def _number(place: Any) -> int:
    return int(re.sub(r"\D", "", place.inner_text()))


def test_the_picture_follows_the_typing_of_its_address(visit: Any, demo: str) -> None:
    page = visit("admin")
    page.goto(ADD)
    page.check("[name=kind][value=image]")
    called: list[str] = []
    page.on("request", lambda request: called.append(request.url) if request.resource_type == "image" else None)
    address = page.locator("[name=image_url]")
    picture = page.locator(".viber-preview [data-part=picture]")
    half = f"{demo.replace('http:', 'https:')}/static/shop/parcel.p"
    address.fill(half)
    picture.locator("p").get_by_text(half).wait_for()
    address.press_sequentially("ng")
    picture.locator("img").wait_for()
    assert address.evaluate("input => input === document.activeElement")
    assert picture.locator("img").evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
    with page.expect_response(lambda response: response.request.method == "POST"):
        page.fill("[name=phone]", PHONE)
    assert called == [f"{demo}/static/shop/parcel.png"]


def test_a_refused_form_is_gone_on_with_at_its_first_error(visit: Any) -> None:
    page = visit("admin")
    page.goto(ADD)
    page.locator("[name=kind][value=text]:focus").wait_for()
    page.check("[name=kind][value=image]")
    page.fill("[name=phone]", PHONE)
    page.fill("[name=image_url]", "http://shop.example.vn/a.png")
    page.click("[name=_save]")
    page.locator("[name=image_url]:focus").wait_for()
    page.keyboard.press("Space")
    assert page.locator("[name=kind][value=image]").is_checked()
    page.fill("[name=phone]", "")
    page.click("[name=_save]")
    page.locator("[name=phone]:focus").wait_for()


def test_without_an_error_the_chosen_kind_has_the_focus_however_late_django_sets_it(visit: Any) -> None:
    page = visit("admin")

    held: list[Any] = []
    page.route("**/admin/js/change_form.js", lambda route: held.append(route))
    page.goto(f"{ADD}?image_url=https://shop.example.vn/a.png", wait_until="domcontentloaded")
    page.locator("[name=kind][value=image]:checked").wait_for()  # our own script is done
    for script in held:
        script.continue_()
    page.locator("[name=kind][value=image]:focus").wait_for()
    page.keyboard.press("Space")
    assert page.locator("[name=image_url]").is_visible()


def test_without_scripts_the_form_works(visit: Any) -> None:
    page = visit("admin", java_script_enabled=False)
    page.goto(ADD)
    page.fill("[name=phone]", PHONE)
    page.fill("[name=content]", "Không có JavaScript")
    page.fill("[name=button_label]", "Xem")
    page.fill("[name=button_url]", "https://shop.example.vn/")
    page.click("[name=_send]")
    assert "eSMS took" in told(page)


def test_the_phone_shows_new_messages_by_itself(visit: Any) -> None:
    phone = visit("admin")
    phone.goto("/phone/0977123456/")
    admin = phone.context.new_page()
    admin.goto(ADD)
    admin.fill("[name=phone]", PHONE)
    admin.fill("[name=content]", "Một tin nữa <b>không đậm</b>")
    admin.click("[name=_send]")
    phone.get_by_text("Một tin nữa <b>không đậm</b>").wait_for(timeout=10_000)


def test_resending_asks_first_and_sends_a_new_message(visit: Any) -> None:
    page = visit("admin")
    page.goto(ADD)
    page.fill("[name=phone]", PHONE)
    page.fill("[name=content]", "Hai lần")
    page.click("[name=_send]")
    wait_for_status(page, "delivered")
    page.locator("#result_list tbody tr input[type=checkbox]").first.check()
    page.select_option("select[name=action]", "send_selected")
    page.click("button[name=index], .actions button[type=submit]")
    asked = page.locator("#content").inner_text()
    assert "One message will be sent again" in asked
    assert "you would pay again" in asked
    assert "It may cost about" in asked
    page.click("[type=submit].default")
    assert told(page)
    wait_for_status(page, "delivered")
    page.locator("#result_list tbody tr a").first.click()
    page.wait_for_load_state()
    assert "Resend of" in page.locator("#content").inner_text()


def test_staff_without_the_permission_see_and_cannot_send(visit: Any) -> None:
    page = visit("staff")
    page.goto(LIST)
    page.locator("#result_list tbody tr").first.wait_for()
    assert page.locator("select[name=action] option[value=send_selected]").count() == 0
    assert page.get_by_role("link", name="Send to many").count() == 0
    assert page.request.get(ADD).status == 403
    assert page.request.get(f"{LIST}viber-send-to-many/").status == 403
    page.locator("#result_list tbody tr a").first.click()
    page.locator(".viber-phone").wait_for()
    assert page.locator("[name=_send], .viber-tool button").count() == 0
