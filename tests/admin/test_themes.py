"""Admins that other packages have changed: themes with templates of their own, mixins before our class.

None of them is installed here; what they do to an admin is imitated, down to what they leave out.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from django.contrib import admin
from django.http import HttpResponse
from django.test import Client
from django.urls import clear_url_caches, include, path
from django.utils.functional import Promise

from esms_viber.admin import OutboundViberMessageAdmin
from esms_viber.admin.actions import ACTIONS
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import FORM, buttons, form_with, offered

pytestmark = pytest.mark.django_db

LIST = "/shop/esms_viber/outboundvibermessage/"
ADD = f"{LIST}add/"

BASE = "<html><head>{% block extrahead %}{% endblock %}</head><body>{% block content %}{% endblock %}</body></html>"
BARE_LIST = """{% extends "admin/base_site.html" %}{% load admin_list %}
{% block content %}<b>bare list</b>{% result_list cl %}{% endblock %}"""
BARE_FORM = """{% extends "admin/base_site.html" %}{% load admin_modify %}{% block content %}<b>bare form</b>
<form method="post">{% csrf_token %}
{% for set in adminform %}{% for line in set %}{% for field in line %}
{% if field.is_readonly %}{{ field.contents }}{% else %}{{ field.field }}{% endif %}
{% endfor %}{% endfor %}{% endfor %}{% submit_row %}</form>{% endblock %}"""

THEMES: dict[str, dict[str, str]] = {
    "a submit row without Django's block": {
        "admin/submit_line.html": '<div class="row"><button type="submit" name="_save">Save</button></div>'
    },
    "a submit row with a block of another name": {
        "admin/submit_line.html": '<div>{% block buttons %}<button name="_save">Save</button>{% endblock %}</div>'
    },
    "a form without blocks": {"admin/change_form.html": BARE_FORM},
    "a list without blocks": {"admin/change_list.html": BARE_LIST},
    "tools that stand nowhere": {
        "admin/change_list_object_tools.html": "",
        "admin/change_form_object_tools.html": "",
    },
    "everything of its own": {
        "admin/base.html": BASE,
        "admin/base_site.html": '{% extends "admin/base.html" %}',
        "admin/change_list.html": BARE_LIST,
        "admin/change_form.html": BARE_FORM,
        "admin/submit_line.html": '<button name="_save">Save</button>',
    },
}

OTHERS = {
    "others/list.html": '{% extends "admin/change_list.html" %}{% block extrahead %}<b>other list</b>{% endblock %}',
    "others/replaced.html": BARE_LIST,
    "others/around.html": """{% extends other_base|default:"admin/change_list.html" %}{% block object-tools-items %}
{% if has_add_permission %}<li>other tool</li>{{ block.super }}{% endif %}{% endblock %}""",
    "others/form.html": '{% extends "admin/change_form.html" %}{% block extrahead %}<b>other form</b>{% endblock %}',
    "others/extends_ours.html": """{% extends "admin/esms_viber/outboundvibermessage/change_list.html" %}
{% block search %}<b>other list</b>{{ block.super }}{% endblock %}""",
}


class SetsTemplates:
    """As django-object-actions, django-reversion and django-guardian do."""

    change_list_template = "others/list.html"
    change_form_template = "others/form.html"
    object_history_template = "admin/object_history.html"


class Replaces:
    change_list_template = "others/replaced.html"


class GoesAround:
    """As django-import-export and django-admin-sortable2 do: around what the class before it names."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.other_base = self.change_list_template or "admin/change_list.html"
        self.change_list_template = "others/around.html"

    def changelist_view(self, request: Any, extra_context: Any = None) -> Any:
        return super().changelist_view(request, {**(extra_context or {}), "other_base": self.other_base})  # type: ignore[misc]


class TakesAddresses:
    """As django-import-export does with `export/` and `import/`; and the other plain words."""

    def get_urls(self) -> list[Any]:
        taken = ("export", "import", "overview", "campaign", "balance", "send-to-many", "history", "actions")
        return [
            *(
                path(f"{word}/", self.other, name=f"esms_viber_outboundvibermessage_{word.replace('-', '_')}")
                for word in taken
            ),
            *super().get_urls(),  # type: ignore[misc]
        ]

    def other(self, request: Any) -> HttpResponse:
        return HttpResponse("of another package")


class ExtendsOurs:
    change_list_template = "others/extends_ours.html"


MIXINS = [SetsTemplates, Replaces, GoesAround, TakesAddresses, ExtendsOurs]

site = admin.AdminSite()
OWN = [path("esms-viber/", include("esms_viber.urls"))]
urlpatterns: list[Any] = []


@pytest.fixture(autouse=True)
def _site(settings: Any) -> Any:
    settings.ROOT_URLCONF = __name__
    yield
    if site.is_registered(Message):
        site.unregister(Message)


@pytest.fixture
def install(settings: Any, tmp_path: Path) -> Any:
    """An admin with mixins before our class, under a theme's templates."""

    def install(*mixins: type, templates: dict[str, str] | None = None) -> None:
        for name, text in {**OTHERS, **(templates or {})}.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        [engine] = settings.TEMPLATES
        settings.TEMPLATES = [{**engine, "DIRS": [tmp_path]}]
        site.register(Message, type("Admin", (*mixins, OutboundViberMessageAdmin), {}))
        urlpatterns[:] = [path("shop/", site.urls), *OWN]
        clear_url_caches()

    return install


def link(response: HttpResponse, words: str) -> str:
    [found] = re.findall(rf'<a [^>]*href="([^"]+)"[^>]*>\s*{words}\s*</a>', response.content.decode())
    return found


def assert_everything_is_there(client: Client, make: Make) -> None:
    shown = client.get(LIST)
    for words, kind in [("Send to many", "text/html"), ("Overview", "text/html"), ("Export CSV", "text/csv")]:
        assert client.get(link(shown, words)).headers["content-type"].startswith(kind)
    html = shown.content.decode()
    assert html.count("One message may have been sent, or not.") == html.count("Send to many") == 1

    add = client.get(ADD)
    assert {"_save", "_send"} <= buttons(add)
    form = form_with(add, phone="")
    assert {"_save", "_send"} <= form["buttons"].keys()
    assert form["fields"]["_form_id"]
    assert "viber-preview" in add.content.decode()
    for _twice in range(2):
        client.post(ADD, FORM | {"_form_id": form["fields"]["_form_id"][0], "_send": "1"})
    [queued] = Message.objects.filter(status="queued")  # the form counts once

    shown = client.get(f"{LIST}{queued.pk}/change/")
    assert "cancel_selected" in offered(shown)
    assert shown.content.decode().count("viber-timeline") == 1


@pytest.fixture
def waiting(make: Make, clock: Any) -> None:
    """Something that the notices tell of."""
    make("unknown", uncertain_since=clock.now())


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("theme", THEMES)
def test_under_a_theme_everything_is_there(root: Client, make: Make, install: Any, theme: str) -> None:
    install(templates=THEMES[theme])
    assert_everything_is_there(root, make)


@pytest.mark.usefixtures("waiting")
@pytest.mark.parametrize("mixin", MIXINS, ids=lambda mixin: mixin.__name__)
def test_behind_a_mixin_everything_is_there(root: Client, make: Make, install: Any, mixin: type) -> None:
    install(mixin)
    assert_everything_is_there(root, make)


@pytest.mark.usefixtures("waiting")
def test_behind_several_mixins_under_a_theme_as_well(root: Client, make: Make, install: Any) -> None:
    install(TakesAddresses, GoesAround, SetsTemplates, templates=THEMES["everything of its own"])
    assert_everything_is_there(root, make)


@pytest.mark.parametrize(
    ("mixin", "said"),
    [(SetsTemplates, "other list"), (Replaces, "bare list"), (GoesAround, "other tool"), (ExtendsOurs, "other list")],
)
def test_what_a_mixin_or_a_site_shows_is_there_too(root: Client, install: Any, mixin: type, said: str) -> None:
    install(mixin)
    assert said in root.get(LIST).content.decode()


def test_what_goes_around_our_list_goes_around_ours_and_not_djangos(root: Client, install: Any) -> None:
    install(GoesAround)
    assert "A phone in any spelling" in root.get(LIST).content.decode()


def test_addresses_of_others_stay_theirs(root: Client, install: Any) -> None:
    install(TakesAddresses)
    for word in ("export", "import", "overview"):
        assert root.get(f"{LIST}{word}/").content == b"of another package"


def test_who_may_not_add_finds_overview_and_export_all_the_same(log_in: LogIn, install: Any) -> None:
    install(GoesAround)
    shown = log_in("view").get(LIST)
    assert link(shown, "Export CSV")
    assert link(shown, "Overview")
    assert "Send to many" not in shown.content.decode()


def test_a_template_of_the_sites_own_for_the_list_is_shown(root: Client, install: Any) -> None:
    ours = "admin/esms_viber/outboundvibermessage/change_list.html"
    block = "{% block search %}<b>site</b>{{ block.super }}{% endblock %}"
    install(templates={ours: f'{{% extends "{ours}" %}}{block}'})
    html = root.get(LIST).content.decode()
    assert "<b>site</b>" in html
    assert "A phone in any spelling" in html
    assert html.count("Export CSV") == 1


def test_what_an_action_asks_first_stands_alone(root: Client, make: Make, install: Any) -> None:
    install(GoesAround, templates=THEMES["everything of its own"])
    message = make("failed")
    for action in ("send_selected", "delete_selected"):
        response = root.post(LIST, {"action": action, "_selected_action": message.pk})
        assert response.status_code == 200
        assert "Export CSV" not in response.content.decode()


@pytest.mark.parametrize("action", ACTIONS.values())
def test_actions_have_nothing_that_a_theme_cannot_show(action: Any) -> None:
    """Such as django-simpleui, which writes all that an action has as JSON."""
    shown = {name: str(value) if isinstance(value, Promise) else value for name, value in vars(action).items()}
    assert json.loads(json.dumps(shown)).keys() == {"short_description", "allowed_permissions"}
