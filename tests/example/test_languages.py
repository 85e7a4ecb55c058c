"""The demo follows its browser, and its terminal: what it says in one language has nothing of the other in it."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from gettext import GNUTranslations
from pathlib import Path

import pytest
import requests

from .processes import MANAGE, ROOT, demo_running, make_environment, run

FOLDER = MANAGE.parent / "locale" / "vi" / "LC_MESSAGES"
PLACEHOLDER = re.compile(r"%\(\w+\)[ds]|\{\w+\}")
ODD_CALL = "/MainService.svc/json/SendMultipleMessage_V4_get?Phone=84&Foo=1&Content=a+b&RequestId=&Sandbox=x&OTTUrl=a:b"
NO_PHONE = "/phone/84901888484/"

pytestmark = pytest.mark.skipif(not MANAGE.exists(), reason="the example project is not part of this copy")


def _read(folder: Path) -> dict[str, str]:
    with (folder / "django.mo").open("rb") as compiled:
        catalogue = GNUTranslations(compiled)._catalog
    return {key[0] if isinstance(key, tuple) else key: text for key, text in catalogue.items()}


def _parts(text: str) -> list[str]:
    """What of it stands on a page as it is: at least two words, so that no name or number is taken for a sentence."""
    parts = [part.strip() for part in PLACEHOLDER.split(text)]
    return [part for part in parts if re.search(r"[^\W\d]+\W+[^\W\d]+", part)]


def _sentences(language: str) -> set[str]:
    pairs = [pair for pair in _read(FOLDER).items() if _parts(pair[0])]
    return {part for english, vietnamese in pairs for part in _parts(vietnamese if language == "vi" else english)}


@pytest.fixture(scope="module")
def origin(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with demo_running(make_environment(tmp_path_factory.mktemp("demo"))) as (_process, written):
        yield re.search(r"http://127\.0\.0\.1:\d+", written)[0]


def _post(browser: requests.Session, url: str, **values: str) -> str:
    browser.get(url)
    response = browser.post(url, {**values, "csrfmiddlewaretoken": browser.cookies["csrftoken"]})
    response.raise_for_status()
    return response.text


def _pages(origin: str, language: str) -> dict[str, str]:
    with requests.Session() as browser:
        browser.trust_env = False
        browser.headers["Accept-Language"] = language
        browser.get(origin + ODD_CALL)
        home = browser.get(f"{origin}/").text
        order = re.search(r"/orders/[0-9a-f-]+/", home)[0]
        _post(browser, f"{origin}/admin/login/?next=/admin/", username="admin", password="demo")
        admin = ("/admin/", "/admin/shop/order/", "/admin/shop/order/add/")
        paths = (order, "/phone/", "/phone/0901888484/", "/phone/0912345678/", "/simulator/", NO_PHONE, *admin)
        pages = {path: browser.get(origin + path).text for path in paths}
        chosen = {"answering": "normal", "reporting": "never", "remaining": "5"}
        pages["/simulator/ (chosen)"] = _post(browser, f"{origin}/simulator/", **chosen)
    return {path: " ".join(html.unescape(page).split()) for path, page in {"/": home, **pages}.items()}


@pytest.mark.parametrize(("language", "other"), [("vi", "en"), ("en", "vi")])
def test_no_page_has_a_sentence_in_the_other_language(origin, language, other):
    pages = _pages(origin, language)
    strangers = {path: [s for s in _sentences(other) if s in page] for path, page in pages.items()}
    assert {path: found for path, found in strangers.items() if found} == {}
    everything = " ".join(pages.values())
    assert len([sentence for sentence in _sentences(language) if sentence in everything]) > 40
    assert all(f'<html lang="{language}"' in page for path, page in pages.items() if path != NO_PHONE)


def test_the_terminal_is_told_the_story_in_vietnamese(environment):
    result = run(environment | {"LC_ALL": "vi_VN.UTF-8"}, "demo", "--once")
    assert result.returncode == 0, result.stderr
    first, *steps, last = [re.sub(r"^ *[\d:.]+ +", "", line) for line in result.stdout.splitlines()]
    assert first.endswith("Nguyễn Thị Lan đã thanh toán:")
    moves = ["đang chờ gửi", "đang chờ gửi → đang gửi", "đang gửi → đã gửi", "đã gửi → đã nhận"]
    assert [re.split(r" {2,}", step)[0] for step in steps] == moves
    assert last == "Khách đã nhận được tin nhắn."


def test_the_catalogue_is_complete_and_compiled():
    source, catalogue = (FOLDER / "django.po").read_text(), _read(FOLDER)
    assert "fuzzy" not in source
    assert not re.search(r'^msgstr(\[0\])? ""\n\n', source, re.M)
    assert len(re.findall(r"^msgid ", source, re.M)) == len(catalogue)
    told = set(re.findall(r'^msgstr(?:\[0\])? "(.+)"\n\n', source, re.M))
    assert told <= {text.replace('"', '\\"') for text in catalogue.values()}


def test_every_placeholder_is_kept():
    for english, vietnamese in _read(FOLDER).items():
        if english:
            assert sorted(PLACEHOLDER.findall(english)) == sorted(PLACEHOLDER.findall(vietnamese)), english


def test_the_shop_and_the_app_use_the_same_words():
    """The site's own catalogue comes before the app's, and would change its pages."""
    shop, app = _read(FOLDER), _read(ROOT / "esms_viber" / "locale" / "vi" / "LC_MESSAGES")
    shared = shop.keys() & app.keys() - {""}
    assert "phone" in shared
    assert {word: shop[word] for word in shared} == {word: app[word] for word in shared}
