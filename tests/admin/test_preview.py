"""What is seen while a message is written: its kind, the phone, and what is wrong with it."""

from __future__ import annotations

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import ADD, FORM, LIST, page

pytestmark = pytest.mark.django_db

MANY = f"{LIST}viber-send-to-many/"
BUTTON = {"button_label": "See", "button_url": "https://shop.example.vn/"}
IMAGE = {"image_url": "https://shop.example.vn/a.png"}


@pytest.mark.parametrize(
    ("kind", "parts"),
    [
        ("text", {}),
        ("text_button", BUTTON),
        ("image", IMAGE | {"content": ""}),
        ("text_image_button", BUTTON | IMAGE),
    ],
)
def test_each_kind_is_saved(root: Client, kind: str, parts: dict[str, str]) -> None:
    root.post(ADD, FORM | parts | {"kind": kind, "_save": "1"})
    message = Message.objects.get()
    assert message.kind == kind
    assert root.get(page(message.pk)).context["adminform"].form["kind"].value() == kind


@pytest.mark.parametrize(
    ("kind", "parts", "wrong"),
    [
        ("text", BUTTON, {"button_label": "has no such part", "button_url": "has no such part"}),
        ("image", IMAGE, {"content": "has no such part"}),
        ("text_button", {}, {"button_label": "needs this part", "button_url": "needs this part"}),
        ("text_image_button", BUTTON, {"image_url": "needs this part"}),
        ("image", {}, {"content": "has no such part", "image_url": "needs this part"}),
        ("text", {"content": ""}, {"content": "needs this part"}),
        (
            "text_button",
            {"content": "", "button_label": "See"},
            {"content": "needs this part", "button_url": "A button needs a link."},
        ),
        ("song", {}, {"kind": "Select a valid choice"}),
    ],
)
def test_the_parts_must_be_those_of_the_chosen_kind(
    root: Client, kind: str, parts: dict[str, str], wrong: dict[str, str]
) -> None:
    response = root.post(ADD, FORM | parts | {"kind": kind, "_save": "1"})
    errors = response.context["adminform"].form.errors
    assert errors.keys() == wrong.keys()
    for name, sentence in wrong.items():
        assert sentence in " ".join(errors[name])
    assert not Message.objects.exists()


def test_parts_that_a_kind_does_not_have_are_emptied_where_they_are_not_posted(root: Client, make: Make) -> None:
    message = make(**BUTTON)
    data = {name: value for name, value in FORM.items() if name not in BUTTON}
    root.post(page(message.pk), data | {"kind": "text", "_save": "1"})
    message.refresh_from_db()
    assert (message.button_label, message.button_url, message.kind) == ("", "", "text")


# -- the phone ---------------------------------------------------------------------------------------------------------


def test_the_phone_shows_the_message_with_the_sites_brand(root: Client, make: Make) -> None:
    message = make("sent", content="Chào\n  Lan", **BUTTON, **IMAGE)
    html = root.get(page(message.pk)).content.decode()
    assert '<bdi data-part="brand">SHOP</bdi>' in html
    assert 'dir="auto">Chào\n  Lan</p>' in html
    assert "<p>https://shop.example.vn/a.png</p>" in html
    assert 'rel="noopener noreferrer" href="https://shop.example.vn/">See</a>' in html


@pytest.mark.parametrize(
    ("url", "source"),
    [
        ("https://shop.example.vn/a.png?x=1&y=2", "/a.png?x=1&amp;y=2"),
        ("https://elsewhere.example/a.png", ""),
        ("https://shop.example.vn:8443/a.png", ""),
        ("https://shop.example.vn//elsewhere.example/a.png", "/elsewhere.example/a.png"),
        ("https://shop.example.vn/\\elsewhere.example/a.png", "/elsewhere.example/a.png"),
        ("https://shop.example.vn@elsewhere.example/a.png", ""),
        ("https://shop.example.vn/admin/logout/", ""),
        ("https://shop.example.vn/admin/logout/?a.png", ""),
    ],
)
def test_a_picture_is_loaded_from_this_host_only(root: Client, make: Make, url: str, source: str) -> None:
    message = make(content="", image_url="https://x.vn/a.png")
    Message.objects.filter(pk=message.pk).update(image_url=url)
    html = root.get(page(message.pk), headers={"host": "shop.example.vn"}).content.decode()
    assert (f'<img src="{source}"' in html) == bool(source)
    assert ("<img" in html) == bool(source)


def test_a_link_that_is_none_of_the_web_is_not_one_on_the_phone(root: Client, make: Make) -> None:
    message = make(**BUTTON)
    Message.objects.filter(pk=message.pk).update(button_url="javascript:alert(1)")
    assert 'href="javascript' not in root.get(page(message.pk)).content.decode()


# -- checks while typing -----------------------------------------------------------------------------------------------


def check(client: Client, url: str = ADD, **data: str) -> dict[str, object]:
    response = client.post(url, FORM | {"_check": "1"} | data)
    assert response.status_code == 200
    return response.json()


def test_what_is_wrong_is_told_in_the_sentences_of_saving(root: Client) -> None:
    wrong = {"phone": "0281 234 5678", "image_url": "http://x.vn/", "button_label": "See", "content": "x" * 1001}
    saved = root.post(ADD, FORM | wrong | {"_save": "1"}).context["adminform"].form.errors
    assert check(root, **wrong)["errors"] == {name: list(sentences) for name, sentences in saved.items()}
    assert saved.keys() == wrong.keys() - {"button_label"} | {"button_url"}


@pytest.mark.parametrize("spelling", ["0901888484", "84 901 888 484", "+84901.888.484", "901888484"])
def test_what_a_phone_becomes_is_told(root: Client, spelling: str) -> None:
    found = check(root, phone=spelling)
    assert (found["errors"], found["phone"]) == ({}, "0901 888 484 (+84901888484)")


def test_checking_stores_and_sends_nothing(root: Client, make: Make) -> None:
    message = make()
    check(root, _send="1")
    check(root, page(message.pk), content="Another", _send="1")
    message.refresh_from_db()
    assert (Message.objects.count(), message.content, message.status) == (1, "Hello", "draft")


def test_a_taken_dedupe_key_is_told_but_not_to_its_own_message(root: Client, make: Make) -> None:
    message = make(dedupe_key="k")
    assert "dedupe_key" in check(root, dedupe_key="k")["errors"]
    assert check(root, page(message.pk), dedupe_key="k")["errors"] == {}


def test_without_an_account_the_other_checks_are_told(root: Client, settings) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}
    assert check(root, button_label="See")["errors"].keys() == {"button_url"}


@pytest.mark.parametrize("permissions", [("view",), ("view", "change"), ("view", "send")])
def test_who_may_not_write_may_not_check(log_in: LogIn, permissions: tuple[str, ...]) -> None:
    assert log_in(*permissions).post(ADD, FORM | {"_check": "1"}).status_code == 403


def test_who_may_not_change_a_message_may_not_check_it(log_in: LogIn, make: Make) -> None:
    draft, sent = make(), make("sent")
    client = log_in("view", "add")
    assert client.post(page(draft.pk), FORM | {"_check": "1"}).status_code == 403
    assert log_in("view", "change").post(page(sent.pk), FORM | {"_check": "1"}).status_code == 403
    assert log_in("view", "change", "add").post(page(10**6), FORM | {"_check": "1"}).status_code == 403


def test_a_check_costs_the_same_whatever_is_in_the_table(root: Client, make: Make) -> None:
    def queries() -> int:
        with CaptureQueriesContext(connection) as captured:
            check(root, dedupe_key="new")
        return len(captured)

    few = queries()
    for n in range(20):
        make(dedupe_key=f"k{n}")
    assert (few, queries()) == (4, 4)


def test_the_text_for_many_is_checked_with_its_braces(root: Client) -> None:
    found = check(root, MANY, phones="", campaign="", content="{tên}", button_label="Xem {mã}", button_url="{link}")
    assert found["errors"] == {"campaign": ["This field is required."]}
    assert check(root, MANY, campaign="c", content="x" * 1001)["errors"].keys() == {"content"}
