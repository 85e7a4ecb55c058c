"""The address under which eSMS reports: one and the same, whoever makes it, and a callback to it arrives."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import StringIO
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import requests
from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.core.management import call_command
from django.db import connection
from django.http import HttpRequest, HttpResponse
from django.middleware.locale import LocaleMiddleware
from django.test import Client
from django.urls import clear_url_caches, get_script_prefix, include, path, reverse, set_script_prefix, set_urlconf
from django.utils import translation
from django.utils.translation import gettext_lazy

from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage
from esms_viber.services import deliver_due_messages, queue_viber_message, send_viber_message
from esms_viber.testing import play_callback
from esms_viber.tokens import callback_path

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"
LIST = "/admin/esms_viber/outboundvibermessage/"
QUEUE_ONLY = "esms_viber.dispatch.queue_only"


@login_not_required
def order(request: HttpRequest) -> HttpResponse:
    return HttpResponse(str(queue_viber_message(PHONE, TEXT).pk))


class Root:
    urlpatterns = [
        path("admin/", admin.site.urls),
        path("esms-viber/", include("esms_viber.urls")),
        path("order/", order),
    ]


class WithoutTheApp:
    urlpatterns = [path("order/", order)]


class ElsewhereTheApp:
    urlpatterns = [path("tenant/", include("esms_viber.urls")), path("order/", order)]


def tenant(get_response: Callable[[HttpRequest], HttpResponse]) -> Callable[[HttpRequest], HttpResponse]:
    """Sites by host, as django-hosts and the like do it."""

    def middleware(request: HttpRequest) -> HttpResponse:
        urlconfs = {"without.example.vn": WithoutTheApp, "elsewhere.example.vn": ElsewhereTheApp}
        if urlconf := urlconfs.get(request.get_host()):
            request.urlconf = urlconf  # type: ignore[attr-defined] # as Django documents it
        return get_response(request)

    return middleware


@pytest.fixture(autouse=True)
def _sites(settings) -> Iterator[None]:
    settings.ROOT_URLCONF = Root
    settings.MIDDLEWARE = [f"{__name__}.tenant", *settings.MIDDLEWARE]
    settings.ALLOWED_HOSTS = ["*"]
    before = get_script_prefix()
    yield
    set_script_prefix(before)
    set_urlconf(None)


def request_under(script_name: str, host: str = "shop.example.vn", language: str = "") -> None:
    """An order in a request as a web server hands it over."""
    environ = {
        "REQUEST_METHOD": "GET",
        "SCRIPT_NAME": script_name,
        "PATH_INFO": "/order/",
        "SERVER_NAME": host,
        "SERVER_PORT": "80",
        "HTTP_HOST": host,
        "HTTP_ACCEPT_LANGUAGE": language,
        "wsgi.url_scheme": "http",
        "wsgi.input": sys.stdin.buffer,
    }
    statuses: list[str] = []
    response = WSGIHandler()(environ, lambda status, headers: statuses.append(status))
    assert b"".join(response).isdigit()
    response.close()
    assert statuses == ["200 OK"]


def in_thread(work: Callable[[], object]) -> None:
    def run() -> None:
        try:
            work()
        finally:
            connection.close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


def send() -> None:
    send_viber_message(PHONE, TEXT)


def send_with_urlconf(urlconf: type) -> None:
    set_urlconf(urlconf)
    send()


def send_under(prefix: str) -> None:
    set_script_prefix(prefix)
    send()
    assert get_script_prefix() == prefix


def send_in(language: str) -> None:
    with translation.override(language):
        send()
        assert translation.get_language() == language


def send_by_command(settings: Any) -> None:
    dispatcher = settings.ESMS_VIBER.get("DISPATCHER", "esms_viber.dispatch.inline")
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": QUEUE_ONLY}
    request_under("/mounted", "without.example.vn")
    call_command("send_viber_messages", stdout=StringIO())
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": dispatcher}


MAKERS: dict[str, Callable[[], object]] = {
    "plain": send,
    "request": lambda: request_under(""),
    "mounted request": lambda: request_under("/mounted"),
    "request of a site without the app": lambda: request_under("", "without.example.vn"),
    "mounted request of a site with the app elsewhere": lambda: request_under("/mounted", "elsewhere.example.vn"),
    "request in another language": lambda: request_under("", language="vi"),
    "thread": lambda: in_thread(send),
    "thread with an urlconf": lambda: in_thread(lambda: send_with_urlconf(WithoutTheApp)),
    "urlconf without the app": lambda: send_with_urlconf(WithoutTheApp),
    "urlconf with the app elsewhere": lambda: send_with_urlconf(ElsewhereTheApp),
    "script prefix": lambda: send_under("/mounted/"),
    "script prefix with a percent sign": lambda: send_under("/100%/"),
    "another language": lambda: send_in("vi"),
    "no language": lambda: send_in("en-gb"),
}


def addresses(settings: Any) -> dict[str, str]:
    """Without the token, by who made them."""
    found = {}
    for name, make in {**MAKERS, "command": lambda: send_by_command(settings)}.items():
        make()
        found[name] = outbox[-1].callback_url
        set_script_prefix("/")
        set_urlconf(None)
    assert len(outbox) == len(found)
    return {name: re.sub(r"callback/[^/]+/$", "callback/", address) for name, address in found.items()}


@pytest.mark.parametrize(
    ("origin", "address"),
    [
        ("https://shop.example.vn", "https://shop.example.vn/esms-viber/callback/"),
        ("https://shop.example.vn/", "https://shop.example.vn/esms-viber/callback/"),
        ("https://shop.example.vn:8443/a/b", "https://shop.example.vn:8443/a/b/esms-viber/callback/"),
        ("https://shop.example.vn/a/b/", "https://shop.example.vn/a/b/esms-viber/callback/"),
    ],
)
def test_the_address_is_the_same_whoever_makes_it(settings, origin: str, address: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CALLBACK_ORIGIN": origin}
    found = addresses(settings)
    assert found == dict.fromkeys(found, address)


LANGUAGES = [("en", "English"), ("vi", "Vietnamese"), ("fr", "French")]
LOCALE = "django.middleware.locale.LocaleMiddleware"


class OwnLocaleMiddleware(LocaleMiddleware):
    pass


class PerLanguage:
    urlpatterns = [
        path("order/", order),
        *i18n_patterns(path("esms-viber/", include("esms_viber.urls"))),
    ]


class PerLanguageButOne:
    urlpatterns = [
        path("order/", order),
        *i18n_patterns(path("esms-viber/", include("esms_viber.urls")), prefix_default_language=False),
    ]


class Translated:
    urlpatterns = [path("order/", order), path(gettext_lazy("phone"), include("esms_viber.urls"))]


@pytest.mark.parametrize("urlconf", [PerLanguage, PerLanguageButOne, Translated])
@pytest.mark.parametrize("language", ["vi", "en", "en-us", "fr"])
@pytest.mark.parametrize("middleware", [[], [LOCALE], [f"{__name__}.OwnLocaleMiddleware"]])
def test_under_paths_per_language_too_and_it_arrives(settings, urlconf: type, language: str, middleware: list) -> None:
    settings.LANGUAGES, settings.LANGUAGE_CODE, settings.ROOT_URLCONF = LANGUAGES, language, urlconf
    settings.MIDDLEWARE = [*middleware, *settings.MIDDLEWARE]
    found = addresses(settings)
    assert len(set(found.values())) == 1
    url = outbox[-1].callback_url
    response = Client().get(url, {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}, secure=True)
    assert response.status_code == 200
    assert OutboundViberMessage.objects.order_by("-pk")[0].status == "delivered"


def test_a_site_per_tenant_gets_its_reports_under_the_root_urlconf() -> None:
    request_under("", "without.example.vn")
    request_under("", "elsewhere.example.vn")
    for message in OutboundViberMessage.objects.all():
        assert play_callback(message).status_code == 200
    assert set(OutboundViberMessage.objects.values_list("status", flat=True)) == {"delivered"}


@pytest.mark.parametrize("prefix", ["/shop", "/shop/", "/a/b"])
def test_a_callback_is_played_under_force_script_name(settings, prefix: str) -> None:
    settings.FORCE_SCRIPT_NAME = prefix
    set_script_prefix(prefix)  # as django.setup() does
    message = send_viber_message(PHONE, TEXT)
    assert play_callback(message).status_code == 200
    message.refresh_from_db()
    assert message.status == "delivered"


def test_a_child_process_makes_the_same_address() -> None:
    """A command of its own, with the path that it knows of by FORCE_SCRIPT_NAME."""
    script = (
        "import os, django; from django.conf import settings; settings.FORCE_SCRIPT_NAME = '/shop'\n"
        "django.setup()\n"
        "from esms_viber.conf import get_settings; from esms_viber.delivery.payload import callback_url\n"
        "print(callback_url(1, 'a', get_settings()))"
    )
    run = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith("https://shop.example.vn/esms-viber/callback/")


@pytest.mark.parametrize(
    ("conf", "others", "named"),
    [
        ({"CALLBACK_ORIGIN": "shop.example.vn"}, {}, "CALLBACK_ORIGIN"),
        ({"CALLBACK_ORIGIN": "https://shop.example.vn?x"}, {}, "CALLBACK_ORIGIN"),
        ({}, {"ROOT_URLCONF": WithoutTheApp}, "urlconf"),
        ({}, {"ROOT_URLCONF": "tests.broken"}, "LookupError"),
        ({}, {"ROOT_URLCONF": "no.such.urls"}, "ModuleNotFoundError"),
    ],
)
def test_without_an_address_nothing_is_sent(settings, conf: Any, others: Any, named: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, **conf}
    for name, value in others.items():
        setattr(settings, name, value)
    with pytest.raises(ImproperlyConfigured, match=rf"(?i){named}"):
        send_viber_message(PHONE, TEXT)
    assert not OutboundViberMessage.objects.exists()
    assert not outbox


# -- a site mounted under a path by the web server, over a socket ------------------------------------------------------


class Quiet(WSGIRequestHandler):
    def log_message(self, *args: Any) -> None: ...


@contextmanager
def mounted_at(prefix: str) -> Iterator[str]:
    """The site's address, without the path that it is mounted under."""
    site = WSGIHandler()

    def mount(environ: dict[str, Any], start_response: Any) -> Any:
        if not environ["PATH_INFO"].startswith(f"{prefix}/"):
            start_response("404 Not Found", [])
            return [b"not the site"]
        environ["SCRIPT_NAME"], environ["PATH_INFO"] = prefix, environ["PATH_INFO"].removeprefix(prefix)
        return site(environ, start_response)

    with make_server("127.0.0.1", 0, mount, handler_class=Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def browser(django_user_model) -> requests.Session:
    client = Client()
    client.force_login(django_user_model.objects.create_superuser("root"))
    session = requests.Session()
    session.cookies.set("sessionid", client.cookies["sessionid"].value)
    return session


def post(browser: requests.Session, url: str, page: str, **data: Any) -> requests.Response:
    token = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', page)[0]
    return browser.post(url, {"csrfmiddlewaretoken": token, **data}, headers={"Referer": url}, timeout=30)


def test_a_mounted_site_sends_is_told_and_sends_again(settings, browser: requests.Session) -> None:
    with mounted_at("/shop") as host:
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CALLBACK_ORIGIN": f"{host}/shop"}
        pk = requests.get(f"{host}/shop/order/", timeout=30).json()
        assert requests.get(outbox[-1].callback_url, {"SendStatus": "5", "SendSuccess": "1"}, timeout=30).text == "OK"
        assert OutboundViberMessage.objects.get(pk=pk).status == "delivered"

        page = browser.get(f"{host}/shop{LIST}", timeout=30).text
        assert "This page is served under" not in page
        question = post(browser, f"{host}/shop{LIST}", page, action="send_selected", _selected_action=pk)
        fields = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', question.text))
        sent = post(
            browser, f"{host}/shop{LIST}", question.text, **{k: v for k, v in fields.items() if "csrf" not in k}
        )
        assert "eSMS took the message" in sent.text
        assert len(outbox) == 2
        assert requests.get(outbox[-1].callback_url, {"SendStatus": "5", "SendSuccess": "1"}, timeout=30).ok

        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": QUEUE_ONLY}
        requests.get(f"{host}/shop/order/", timeout=30)
        assert deliver_due_messages().sent == 1
        assert requests.get(outbox[-1].callback_url, {"SendStatus": "5", "SendSuccess": "1"}, timeout=30).ok
    assert set(OutboundViberMessage.objects.values_list("status", flat=True)) == {"delivered"}


@pytest.mark.parametrize(
    ("mounted", "origin", "line"),
    [
        ("/shop", "https://shop.example.vn", '"CALLBACK_ORIGIN": "https://shop.example.vn/shop"'),
        ("/shop", "https://shop.example.vn/other/", '"CALLBACK_ORIGIN": "https://shop.example.vn/shop"'),
        ("", "https://shop.example.vn/shop", '"CALLBACK_ORIGIN": "https://shop.example.vn"'),
        ("/shop", "https://shop.example.vn/shop/", ""),
        ("", "https://shop.example.vn/", ""),
        ("/shop", None, ""),
        ("/shop", "nonsense", ""),
    ],
)
@pytest.mark.parametrize("page", ["", "add/", "viber-overview/", "viber-send-to-many/"])
def test_the_admin_tells_of_a_path_that_the_origin_lacks(
    settings, browser: requests.Session, mounted: str, origin: str | None, line: str, page: str
) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CALLBACK_ORIGIN": origin}
    with mounted_at(mounted) as host:
        shown = browser.get(f"{host}{mounted}{LIST}{page}", timeout=30).text.replace("&quot;", '"')
    assert ("This page is served under" in shown) is bool(line)
    assert line in shown


class Elsewhere:
    urlpatterns = [path("viber/", include("esms_viber.urls"))]


def test_the_path_follows_the_urlconf(settings: Any) -> None:
    for urlconf, folder in [(Root, "esms-viber"), (Elsewhere, "viber"), (Root, "esms-viber")]:
        settings.ROOT_URLCONF = urlconf
        for token in ("1.a~b", "2.a~b", "1.đ b~c"):
            expected = reverse("esms_viber:callback", args=[token], urlconf=urlconf)
            assert callback_path(token) == expected
            assert expected.startswith(f"/{folder}/callback/")


def test_the_path_follows_a_urlconf_that_was_changed(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = Root
    before = callback_path("1.a~b")
    monkeypatch.setattr(Root, "urlpatterns", Elsewhere.urlpatterns)
    clear_url_caches()
    assert callback_path("1.a~b") == before.replace("/esms-viber/", "/viber/")
    monkeypatch.undo()
    clear_url_caches()
    assert callback_path("1.a~b") == before
