"""What a browser would do with the admin's pages."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from html.parser import HTMLParser
from typing import Any
from unittest import mock

from django.http import HttpResponse
from django.test import Client

from esms_viber.admin import queue_status

LIST = "/admin/esms_viber/outboundvibermessage/"
ADD = f"{LIST}add/"
FORM = {
    "phone": "0901 888 484",
    "content": "Hello",
    "image_url": "",
    "button_label": "",
    "button_url": "",
    "brandname": "",
    "campaign": "",
    "purpose": "transactional",
    "send_at_0": "",
    "send_at_1": "",
    "expires_at_0": "",
    "expires_at_1": "",
    "dedupe_key": "",
}


def page(pk: int) -> str:
    return f"{LIST}{pk}/change/"


class _Forms(HTMLParser):
    """Every form of a page: its attributes, its fields with their values, its buttons."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        if tag == "form":
            self.forms.append({"attrs": given, "fields": {}, "buttons": {}})
        elif tag == "input" and self.forms and "name" in given:
            where = "buttons" if given.get("type") == "submit" else "fields"
            self.forms[-1][where].setdefault(given["name"], []).append(given.get("value", ""))


def forms(response: HttpResponse) -> list[dict[str, Any]]:
    return _Forms(response.content.decode()).forms


def form_with(response: HttpResponse, **fields: str) -> dict[str, Any]:
    """The one form that has these values."""
    [found] = [f for f in forms(response) if all(value in f["fields"].get(name, []) for name, value in fields.items())]
    return found


def buttons(response: HttpResponse) -> set[str]:
    return {name for form in forms(response) for name in form["buttons"]}


def offered(response: HttpResponse) -> set[str]:
    """The actions whose buttons stand on a message's page."""
    return {value for form in forms(response) for value in form["fields"].get("action", [])}


def choose(client: Client, action: str, *pks: int, url: str = LIST, **data: Any) -> HttpResponse:
    """Run an action from the list, as its form posts it."""
    return client.post(url, {"action": action, "_selected_action": pks, "index": "0", **data}, follow=True)


def confirm(client: Client, question: HttpResponse, url: str = LIST) -> HttpResponse:
    """Press *Yes* on the confirmation page."""
    return client.post(url, form_with(question, action="send_selected")["fields"], follow=True)


def told(response: HttpResponse) -> str:
    return " ".join(str(message) for message in response.context["messages"])


@contextmanager
def nobody_asks_for_the_queue() -> Iterator[None]:
    """Pages without the notices above them, whose statements are counted elsewhere."""
    quiet = queue_status.Queue([], [], [], None)
    with mock.patch.multiple(queue_status, look=lambda: quiet, obstacles=lambda page_of="": quiet):
        yield
