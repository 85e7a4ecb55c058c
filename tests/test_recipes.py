"""docs/recipes.md: its code is taken from the page and run."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.test import Client

from esms_viber.models import ViberOptOut
from esms_viber.services import withdraw_opt_out
from tests import urls

pytestmark = pytest.mark.django_db

RECIPES = (Path(__file__).parents[1] / "docs" / "recipes.md").read_text()
PHONE = "0901 888 484"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", RECIPES, re.S | re.M)


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Any:
    """The three modules of the recipe: the view, the URLs, and what sends."""
    monkeypatch.setitem(sys.modules, "shop", ModuleType("shop"))
    modules = []
    for name, code in zip(("unsubscribe", "urls", "greeting"), _blocks("python"), strict=True):
        module = ModuleType(f"shop.{name}")
        monkeypatch.setitem(sys.modules, module.__name__, module)
        exec(compile(code, "recipes.md", "exec"), vars(module))  # noqa: S102 - our own page
        modules.append(module)
    [html] = _blocks("html")
    loaders = [("django.template.loaders.locmem.Loader", {"shop/unsubscribe.html": html})]
    options = {"loaders": loaders, "context_processors": []}
    settings.TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "OPTIONS": options}]
    root: Any = ModuleType("shop.root")
    root.urlpatterns = [*modules[1].urlpatterns, *urls.urlpatterns]
    monkeypatch.setitem(sys.modules, "shop.root", root)
    settings.ROOT_URLCONF = "shop.root"
    return modules[2]


def test_the_button_of_a_promotional_message_leads_to_a_page_that_opts_out(shop: Any) -> None:
    [message] = shop.greet([PHONE])
    assert (message.purpose, message.campaign) == ("promotional", "tet-2027")
    link = urlsplit(message.button_url)
    assert (link.scheme, link.netloc) == ("https", "shop.example.vn")

    client = Client(enforce_csrf_checks=True)
    for method in (client.get, client.head, client.get):
        assert method(link.path).status_code == 200
        assert not ViberOptOut.objects.exists()
    assert client.post(link.path).status_code == 403
    [token] = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get(link.path).content.decode())
    assert b"no more offers" in client.post(link.path, {"csrfmiddlewaretoken": token}).content
    found = ViberOptOut.objects.get()
    assert (found.phone, found.scope) == ("+84901888484", "promotional")

    [again, other] = shop.greet([PHONE, "0912345678"])
    assert (again.status, other.status) == ("cancelled", "queued")


def test_a_link_that_somebody_has_made_up_opts_nobody_out(shop: Any) -> None:
    [message] = shop.greet([PHONE])
    path = urlsplit(message.button_url).path
    for made_up in (path.replace("484", "485"), path[:-2] + "/", "/unsubscribe/+84901888484/"):
        for method in (Client().get, Client().post):
            assert method(made_up).status_code == 404
    assert withdraw_opt_out(PHONE) is False
