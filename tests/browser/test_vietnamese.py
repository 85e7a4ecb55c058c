"""The whole demo for somebody whose browser asks for Vietnamese: not one English sentence of ours."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from gettext import GNUTranslations
from typing import Any

import pytest

from tests.browser.conftest import LIST, ROOT

CATALOGUES = ("esms_viber", "example_project")
_PLACEHOLDER = re.compile(r"%\(\w+\)[.0-9]*[a-z]|\{\w+\}|%%")

_SAID_BY_ESMS = "Brand name code is not exist"

_EVERYTHING = """() => [
  document.title, document.body.innerText,
  ...[...document.querySelectorAll("body *")].flatMap((element) =>
    ["aria-label", "title", "placeholder", "alt", "value", "data-filter-title", "data-again", "data-login"]
      .map((name) => element.getAttribute(name))),
].filter(Boolean).join("\\n")"""


def _sentences() -> Iterator[str]:
    """What stands between the placeholders of our English strings, where it is several words long."""
    for name in CATALOGUES:
        with (ROOT / name / "locale/vi/LC_MESSAGES/django.mo").open("rb") as compiled:
            catalogue = GNUTranslations(compiled)._catalog
        translations = " ".join(map(str, catalogue.values()))
        for key in catalogue:
            english = key[0] if isinstance(key, tuple) else key
            for part in map(str.strip, _PLACEHOLDER.split(english)):
                if len(re.findall(r"[a-zA-Z’']{2,}", part)) > 1 and part not in translations:
                    yield part


SENTENCES = sorted(set(_sentences()), key=len, reverse=True)


def _english_on(page: Any) -> list[str]:
    page.wait_for_load_state()
    text = " ".join(page.evaluate(_EVERYTHING).split()).replace(_SAID_BY_ESMS, "")
    return [
        sentence for sentence in SENTENCES if re.search(rf"(?<!\w){re.escape(sentence)}(?!\w)", text, re.IGNORECASE)
    ]


def _pages(page: Any) -> Iterator[str]:
    """Go through the demo as a person would, and name where we are each time that there is something to read."""
    for address in ("/", "/phone/", "/phone/0901888484/", "/simulator/", "/admin/", "/admin/shop/order/", LIST):
        page.goto(address)
        yield address
    for status in ("delivered", "undelivered", "failed", "unknown"):
        page.goto(f"{LIST}?status__exact={status}")
        page.locator("#result_list tbody th a").first.click()
        for details in page.locator("details").all():
            details.evaluate("element => element.open = true")
        yield f"a message that is {status}"
    page.goto("/admin/shop/order/")
    page.locator("#result_list tbody th a").first.click()
    yield "an order with its messages"
    for address in ("overview/", "overview/?days=7", "campaign/?name=tet-2027", "campaign/?name=nothing"):
        page.goto(f"{LIST}viber-{address}")
        yield address
    yield from _writing(page)
    yield from _deciding(page)
    yield from _mailing(page)


def _writing(page: Any) -> Iterator[str]:
    page.goto(f"{LIST}add/")
    yield "the add page"
    page.check("[name=kind][value=text_image_button]")
    for name, value in {
        "phone": "02838221234",
        "content": "x" * 1001,
        "image_url": "http://x",
        "button_label": "x",
    }.items():
        page.fill(f"[name={name}]", value)
    page.locator(".errorlist").nth(3).wait_for()
    yield "checks while typing"
    page.click("[name=_save]")
    yield "errors of the form"
    page.check("[name=kind][value=text]")
    page.fill("[name=phone]", "0977 123 456")
    page.get_by_text("0977 123 456 (+84977123456)").wait_for()
    page.fill("[name=content]", "Chào bạn")
    page.fill("[name=campaign]", "thử")
    page.click("[name=_save]")
    yield "a draft is saved"
    page.locator("#result_list tbody th a").first.click()
    yield "the page of a draft"
    page.click("[name=_send]")
    yield "a message is sent"


def _deciding(page: Any) -> Iterator[str]:
    for action in ("send_selected", "cancel_selected", "refresh_selected"):
        page.goto(f"{LIST}?campaign=tet-2027")
        page.locator("#action-toggle").check()
        page.select_option("select[name=action]", action)
        page.click(".actions button[type=submit]")
        yield action
    page.goto(f"{LIST}?status__exact=unknown")
    page.locator("#action-toggle").check()
    page.select_option("select[name=action]", "send_selected")
    page.click(".actions button[type=submit]")
    yield "the question about an unknown message"
    page.click("[type=submit].default")
    yield "the answer"


def _mailing(page: Any) -> Iterator[str]:
    page.goto(f"{LIST}viber-send-to-many/")
    yield "send to many"
    page.click("[type=submit].default")
    yield "send to many, nothing given"
    page.fill("[name=campaign]", "tet-2027")
    page.fill("[name=phones]", "0977 123 456, 0901 888 484; 12345, x, 0977123456, 02838221234, 0120 123 4567")
    page.fill("[name=content]", "Chào {tên}")
    page.click("[type=submit].default")
    yield "send to many, a column that is not there"
    page.fill("[name=content]", "Chào bạn")
    page.click("[type=submit].default")
    yield "the review"
    page.click("[name=_balance]")
    yield "the review with the balance"
    page.click("[name=_confirm]")
    yield "the campaign after it"


def test_every_page_speaks_vietnamese(visit: Callable[..., Any]) -> None:
    page = visit("admin", locale="vi-VN")
    found = {where: english for where in _pages(page) if (english := _english_on(page))}
    assert found == {}


def test_the_same_words_are_found_where_a_browser_asks_for_english(visit: Callable[..., Any]) -> None:
    """Or the test before this one could not fail."""
    page = visit("admin", locale="en-GB")
    page.goto(f"{LIST}viber-overview/")
    assert {"Messages by day and state", "Drafts, rehearsals and sandbox messages are not counted."} <= {
        *_english_on(page)
    }


@pytest.mark.parametrize(("locale", "language"), [("vi-VN", "vi"), ("en-GB", "en"), ("fr-FR", "vi")])
def test_the_demo_comes_up_in_the_language_of_the_browser(
    visit: Callable[..., Any], locale: str, language: str
) -> None:
    page = visit("admin", locale=locale)
    for address in ("/", LIST):
        page.goto(address)
        assert page.locator("html").get_attribute("lang") == language
