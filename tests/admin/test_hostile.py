"""What customers, eSMS and callers of the callback's address may have written is text on every page, never markup."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.test import Client

from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import Make
from tests.admin.pages import LIST, page
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

TEXTS = [
    "<script>alert(1)</script>",
    "\"><img src=x onerror=alert(1)><b title='",
    "'><svg/onload=alert(1)>",
    "</textarea></title></script><iframe src='javascript:alert(1)'></iframe>",
    "{{ 7|add:7 }}{% load static %}%(user)s%s{0}{user}",
    "<!--",
    "&lt;img src=x onerror=alert(1)&gt;",
]
LINKS = [
    "javascript:alert(1)",
    'https://shop.example.vn/"onmouseover="alert(1)',
    "data:text/html,<script>alert(1)</script>",
]
MARK = "alert(1)"


class _Page(HTMLParser):
    """Everything on a page that would run, and all that would lead somewhere."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.running: list[str] = []
        self.text = ""
        self._in_script = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self._in_script = tag == "script"
        leads_to = [
            given[name].strip().lower()
            for name in ("href", "src", "action", "formaction", "xlink:href")
            if name in given
        ]
        if tag in {"iframe", "object", "embed", "base"} or any(name.startswith("on") for name in given):
            self.running.append(f"{tag} {given}")
        if "style" in given or any(address.startswith(("javascript:", "data:")) for address in leads_to):
            self.running.append(f"{tag} {given}")
        wanted = {"script": r"/\w", "img": r"/\w|https://"}.get(tag)
        if wanted and not re.match(wanted, given.get("src", "/static/")):
            self.running.append(f"{tag} {given}")

    def handle_data(self, data: str) -> None:
        if self._in_script and MARK in data:
            self.running.append(data)
        self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._in_script = False

    def handle_comment(self, data: str) -> None:
        if MARK in data:
            self.running.append(data)


def assert_harmless(response: Any, *shown: str) -> None:
    assert response.status_code == 200
    found = _Page(response.content.decode())
    assert found.running == []
    for text in shown:
        assert text in found.text


@pytest.fixture(params=TEXTS)
def evil(request: pytest.FixtureRequest) -> str:
    text: str = request.param
    return text


@pytest.fixture
def message(make: Make, evil: str, request: pytest.FixtureRequest) -> Message:
    """With everything in it that others may have written, past every check of ours."""
    order = Order.objects.create(phone="0901888484", note=evil)
    user = User.objects.create(username=evil)
    before = make("delivered", campaign=evil)
    message = make("unknown", resend_of=before, sms_id=evil[:64], request_id=evil[:50], code_result=evil[:16])
    Message.objects.filter(pk=message.pk).update(
        content=evil,
        image_url=LINKS[1],
        button_label=evil,
        button_url=LINKS[0],
        brandname=evil,
        campaign=evil,
        dedupe_key=evil,
        error_message=evil,
        content_type=ContentType.objects.get_for_model(order),
        object_id=str(order.pk),
    )
    make("sent", resend_of=message)
    values = {evil[:64]: evil, "SendStatus": evil, **{f"link {n}": link for n, link in enumerate(LINKS)}}
    for kind in ("requested", "attempt", "callback", "poll", "note"):
        message.events.create(kind=kind, text=evil, code=evil[:16], user=user, data={**values, "outcome": "answered"})
    for values in ({"SendStatus": "5", "SendSuccess": "1"}, {}):
        message.events.create(kind="callback", data={**values, evil[:64]: evil}, request_id=evil[:50])
    message.refresh_from_db()
    return message


@pytest.mark.parametrize("status", Message.Status.values)
def test_the_page_of_a_message(root: Client, message: Message, evil: str, status: str) -> None:
    Message.objects.filter(pk=message.pk).update(status=status)
    assert_harmless(root.get(page(message.pk)), f"Order with {evil}", f"It was asked for by {evil}.")


def test_the_list(root: Client, message: Message, evil: str) -> None:
    assert_harmless(root.get(LIST), evil[:16])
    assert_harmless(root.get(LIST, {"q": evil, "campaign": evil}))


@pytest.mark.parametrize("status", ["failed", "sent", "unknown", "queued"])
def test_the_question_before_sending_and_what_is_said_after(
    root: Client, message: Message, evil: str, status: str
) -> None:
    Message.objects.filter(pk=message.pk).update(status=status)
    chosen = {"_selected_action": message.pk, "index": "0"}
    assert_harmless(root.post(LIST, {"action": "send_selected", **chosen}))
    assert_harmless(root.post(LIST, {"action": "delete_selected", **chosen}))
    for action in ("cancel_selected", "refresh_selected"):
        assert_harmless(root.post(LIST, {"action": action, **chosen}, follow=True))


def test_a_form_that_is_refused(root: Client, evil: str) -> None:
    names = ("phone", "content", "image_url", "button_label", "button_url", "brandname", "campaign", "dedupe_key")
    assert_harmless(root.post(f"{LIST}add/", dict.fromkeys(names, evil)))


def test_the_messages_of_an_object(root: Client, message: Message, evil: str) -> None:
    assert_harmless(root.get(f"/admin/shop/order/{message.object_id}/change/"), f"Order with {evil}")


def test_the_file_is_no_page(root: Client, message: Message, evil: str) -> None:
    response = root.get(f"{LIST}viber-export/")
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"].startswith("attachment")
    assert response.headers["x-content-type-options"] == "nosniff"
    assert MARK in b"".join(response.streaming_content).decode() or MARK not in evil


def test_the_parser_sees_what_it_is_to_find() -> None:
    for text in TEXTS[:4]:
        assert _Page(f'<p title="{text}">{text}</p>').running
    for link in LINKS:
        assert _Page(f'<a href="{link}">').running
