"""How much text fits, and how the form tells it: what is left, and what must go."""

from __future__ import annotations

import io
import re
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.test import Client

from esms_viber import creation
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.pages import ADD, FORM, LIST, form_with

MANY = f"{LIST}viber-send-to-many/"

# An ordinary message of a shop, long enough to be cut where it no longer fits.
VIETNAMESE = (
    "Cà Phê Sớm xin chào chị Lan! Đơn hàng gồm hai gói Robusta Buôn Ma Thuột rang mộc và một phin nhôm của chị đã được "
    "đóng gói cẩn thận, dự kiến giao trong buổi sáng ngày mai. Nếu chị muốn đổi giờ nhận hoặc địa chỉ giao hàng, chị "
    "nhắn lại giúp shop trước tám giờ tối nay nhé. Nhân dịp Tết Nguyên đán, khách hàng thân thiết được giảm mười lăm "
    "phần trăm cho mọi sản phẩm cà phê rang xay, áp dụng đến hết ngày rằm tháng Chạp tại tất cả cửa hàng. Cảm ơn chị "
    "đã luôn tin tưởng và ủng hộ, chúc chị và gia đình một mùa xuân thật nhiều niềm vui. Hẹn gặp lại chị ở quán, nơi "
    "mẻ cà phê mới rang mỗi sáng luôn chờ chị. Shop mở cửa từ sáu giờ rưỡi đến chín giờ tối tất cả các ngày trong tuần."
)
WITH_ALL = {
    "image_url": "https://shop.example.vn/media/tet-2027/hop-qua.jpg",
    "button_label": "Xem quà Tết",
    "button_url": "https://shop.example.vn/qua-tet?utm_source=viber&utm_medium=message&utm_campaign=tet-2027",
}


def fits(text: str, **parts: str) -> bool:
    try:
        creation.validate(Message(phone="0901888484", content=text, **parts))
    except ValidationError as error:
        return "query_length" not in {each.code for each in error.error_dict["content"]}
    return True


def most(**parts: str) -> int:
    """Characters of the Vietnamese text that fit."""
    return next(n for n in range(len(VIETNAMESE), 0, -1) if fits(VIETNAMESE[:n].strip(), **parts))


@pytest.mark.parametrize(
    ("origin", "parts", "characters"),
    [(None, {}, 630), ("https://shop.example.vn", {}, 580), ("https://shop.example.vn", WITH_ALL, 510)],
)
def test_as_much_vietnamese_text_fits_as_the_readme_says(
    settings: Any, origin: str | None, parts: dict[str, str], characters: int
) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CALLBACK_ORIGIN": origin}
    assert characters <= most(**parts) < characters + 10


def number(sentence: str) -> int:
    return int(re.sub(r"\D", "", sentence) or 1)


def check(client: Client, url: str = ADD, **data: str) -> dict[str, Any]:
    response = client.post(url, FORM | {"_check": "1"} | data)
    assert response.status_code == 200
    found: dict[str, Any] = response.json()
    return found


def shown(response: Any) -> str:
    """The counter's sentence as the page has it, without any script."""
    [sentence] = re.findall(r'id="id_content_note">([^<]*)<', response.content.decode())
    return sentence


@pytest.mark.django_db
@pytest.mark.parametrize("parts", [{}, WITH_ALL])
@pytest.mark.parametrize("written", [200, 400])
def test_what_is_left_fits_and_little_more_does(root: Client, parts: dict[str, str], written: int) -> None:
    left = number(check(root, content=VIETNAMESE[:written], **parts)["room"]["sentence"])
    end = most(**parts)
    assert abs(written + left - end) <= 30 + (end - written) // 10


@pytest.mark.django_db
def test_viber_s_own_limit_is_told_where_it_is_the_nearer_one(root: Client) -> None:
    assert check(root, content="x" * 900)["room"] == {"sentence": "about 100 characters left", "is_over": False}
    assert check(root, content="x" * 999)["room"]["sentence"] == "about one character left"
    assert check(root, content="x" * 1003)["room"] == {
        "sentence": "Too long: take out about 3 characters.",
        "is_over": True,
    }


@pytest.mark.django_db
@pytest.mark.parametrize("parts", [{}, WITH_ALL])
@pytest.mark.parametrize("text", [VIETNAMESE, "ệ" * 400, "ệ" * 1200, VIETNAMESE + "a" * 600, "🎉" * 300])
def test_what_must_go_is_said_once_and_is_enough(root: Client, text: str, parts: dict[str, str]) -> None:
    found = check(root, content=text, **parts)
    [sentence] = found["errors"]["content"]
    assert sentence == found["room"]["sentence"]
    assert sentence.startswith("Too long: take out")
    assert found["room"]["is_over"]
    assert check(root, content=text[: -number(sentence)], **parts)["errors"] == {}
    # Not much more than needed.
    assert check(root, content=text[: 30 - number(sentence)], **parts)["errors"]


@pytest.mark.django_db
@pytest.mark.parametrize("name", ["image_url", "button_url"])
def test_links_that_leave_no_room_for_any_text_are_told_as_such(root: Client, name: str) -> None:
    long = dict.fromkeys(("image_url", "button_url"), f"https://shop.example.vn/{'a' * 900}.png")
    parts = WITH_ALL | long | {name: long[name].replace("aaa", "aaaa", 1)}
    errors = check(root, content="Chào", **parts)["errors"]
    assert errors.keys() == {name}
    assert errors[name][0].startswith("Too long: shorten the link by about")


@pytest.mark.django_db
def test_without_a_script_the_page_tells_it_as_well(root: Client) -> None:
    assert number(shown(root.get(ADD))) > 500
    refused = root.post(ADD, FORM | {"content": VIETNAMESE, "_save": "1"})
    [error] = refused.context["adminform"].form.errors["content"]
    assert shown(refused) == error
    assert f'viber-over" id="id_content_note">{error}<' in refused.content.decode()


@pytest.mark.django_db
def test_a_message_that_is_too_long_is_refused_in_code_with_both_numbers_and_what_to_do() -> None:
    with pytest.raises(ValidationError) as caught:
        creation.validate(Message(phone="0901888484", content=VIETNAMESE))
    [error] = caught.value.error_dict["content"]
    assert error.params["length"] > error.params["limit"] == 2048
    assert fits(VIETNAMESE[: -error.params["excess"]])
    assert not fits(VIETNAMESE[: 1 - error.params["excess"]])
    assert f"about {error.params['excess']}." in error.messages[0]


@pytest.mark.django_db
def test_without_an_account_the_usual_limit_counts(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "BRANDNAME": "SHOP"}
    assert "characters left" in check(root, content="Chào")["room"]["sentence"]
    assert root.get(ADD).status_code == 200


# -- many --------------------------------------------------------------------------------------------------------------


def upload(client: Client, text: str, **data: str) -> Any:
    lines = ["phone,name,code", "0901888484,Lan,1", f"0901888485,{'Nguyễn Thị Ánh Tuyết ' * 3},22", "0901888486,An,333"]
    file = io.BytesIO("\n".join(lines).encode())
    file.name = "customers.csv"
    return client.post(MANY, FORM | {"campaign": "tet", "phone": "", "content": text, "file": file, **data})


@pytest.mark.django_db
def test_for_many_the_longest_filled_in_message_counts(root: Client) -> None:
    braces = VIETNAMESE[:300] + "{name} {name} {code}"
    review = upload(root, braces)
    hidden = form_with(review, new="0")["fields"]
    again = root.post(MANY, {**{name: values[0] for name, values in hidden.items()}, "_edit": "1"})
    filled = braces.replace("{name}", ("Nguyễn Thị Ánh Tuyết " * 3).strip()).replace("{code}", "22")
    alone = number(check(root, content=filled)["room"]["sentence"])
    assert number(shown(again)) == alone

    [longest] = re.findall(r'data-longest="([^"]*)"', again.content.decode())
    typing = {"campaign": "tet", "longest": longest.replace("&quot;", '"'), "phone": ""}
    assert number(check(root, MANY, content=braces, **typing)["room"]["sentence"]) == alone
    over = check(root, MANY, content=VIETNAMESE[:480] + "{name} {name} {code}", **typing)
    assert over["room"]["is_over"]
    assert over["errors"]["content"] == [over["room"]["sentence"]]
    assert not check(root, MANY, content=VIETNAMESE[:480] + "{name}", campaign="tet")["room"]["is_over"]


@pytest.mark.django_db
@pytest.mark.parametrize("longest", ["", "x", "[]", '[["name"],[]]', '[["name"],[[1,"0901",2]]]', "null"])
def test_what_does_not_hold_longest_lines_is_no_matter(root: Client, longest: str) -> None:
    assert "left" in check(root, MANY, content="Chào {name}", campaign="tet", longest=longest)["room"]["sentence"]
