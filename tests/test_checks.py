from __future__ import annotations

import functools
import re
from collections.abc import Iterable
from typing import Any

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.contrib.auth.middleware import LoginRequiredMiddleware
from django.core.checks import CheckMessage, Error, Info, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.db import connections
from django.http import HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.middleware.common import CommonMiddleware
from django.middleware.locale import LocaleMiddleware
from django.test import override_settings
from django.urls import include, path, re_path
from django.views.generic import RedirectView

from esms_viber import monitoring
from esms_viber.checks import sending
from esms_viber.conf import NAMES
from esms_viber.dispatch import get_dispatcher
from esms_viber.gateways.base import BaseGateway
from esms_viber.gateways.console import ConsoleGateway
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.loading import get_gateway
from esms_viber.gateways.memory import MemoryGateway

ESMS = "esms_viber.gateways.esms.EsmsGateway"
KEYS = {"API_KEY": "the-api-key", "SECRET_KEY": "the-secret-key", "BRANDNAME": "SHOP"}


class UrlsLeftOut:
    urlpatterns: list[Any] = []


class UrlsPerLanguage:
    urlpatterns = i18n_patterns(path("esms-viber/", include("esms_viber.urls")))


class UrlsPerLanguageButOne:
    urlpatterns = i18n_patterns(path("esms-viber/", include("esms_viber.urls")), prefix_default_language=False)


def not_a_gateway() -> None: ...


not_callable = "text"


def check(viber: object = None, *, deploy: bool = False, **others: Any) -> list[CheckMessage]:
    """The findings with `ESMS_VIBER` as in the tests' settings, but eSMS's gateway, changed by `viber`."""
    usual = {**settings.ESMS_VIBER, "GATEWAY": ESMS}
    raw = {**usual, **viber} if isinstance(viber, dict) else viber or usual
    with override_settings(ESMS_VIBER=raw, **others):
        found = run_checks(tags=["esms_viber"], include_deployment_checks=deploy)
    # The tests' SQLite is as Django configures it.
    return [message for message in found if message.id != "esms_viber.W015"]


def test_a_sqlite_whose_transactions_may_find_it_locked(settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": ESMS}
    monkeypatch.setattr(connections["default"], "vendor", "sqlite")
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {})
    found = run_checks(tags=["esms_viber"], include_deployment_checks=True)
    assert '"OPTIONS": {"transaction_mode": "IMMEDIATE"}' in str(only(found, "W015").hint)
    assert "W015" not in ids(run_checks(tags=["esms_viber"]))
    monkeypatch.setitem(settings.DATABASES["default"], "OPTIONS", {"transaction_mode": "IMMEDIATE"})
    assert "W015" not in ids(run_checks(tags=["esms_viber"], include_deployment_checks=True))


def ids(found: Iterable[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("esms_viber.") for message in found]


def only(found: list[CheckMessage], id_: str) -> CheckMessage:
    assert ids(found) == [id_]
    assert found[0].hint
    return found[0]


def test_nothing_to_say_of_good_settings() -> None:
    assert check() == []
    assert check(KEYS, deploy=True) == []


@pytest.mark.parametrize("origin", [None, "http://localhost:8000", "http://127.0.0.1:8000", "https://shop.example.vn"])
@pytest.mark.parametrize("gateway", ["console.ConsoleGateway", "memory.MemoryGateway", "esms.EsmsGateway"])
@pytest.mark.parametrize(
    "others",
    [
        {},
        {"SECURE_SSL_REDIRECT": True},
        {"PREPEND_WWW": True},
        {"ALLOWED_HOSTS": []},
        {"FORCE_SCRIPT_NAME": "/shop"},
    ],
)
def test_nothing_about_a_deployment_is_said_elsewhere(origin: str | None, gateway: str, others: dict[str, Any]) -> None:
    conf = {"CALLBACK_ORIGIN": origin, "GATEWAY": f"esms_viber.gateways.{gateway}", "SANDBOX": True}
    assert check({**conf, "BASE_URL": "http://localhost:8001/"}, **others) == []


@pytest.mark.parametrize("raw", [["API_KEY"], "API_KEY", 5])
def test_not_a_dict(raw: object) -> None:
    assert "must be a dict" in only(check(raw, deploy=True), "E001").msg


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("SANBOX", "SANDBOX"), ("api_key", "API_KEY"), ("BRAND_NAME", "BRANDNAME"), ("CALLBACK_URL", "CALLBACK_ORIGIN")],
)
def test_an_unknown_key_is_told_with_the_nearest(name: str, nearest: str) -> None:
    found = only(check({name: "x"}), "E002")
    assert isinstance(found, Error)
    assert repr(name) in found.msg
    assert found.hint == f'Did you mean "{nearest}"?'


@pytest.mark.parametrize("name", ["zzzzzz", 7])
def test_an_unknown_key_like_no_other_is_told_with_all(name: object) -> None:
    assert all(known in str(only(check({name: "x"}), "E002").hint) for known in NAMES)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("API_KEY", 5),
        ("SANDBOX", "False"),
        ("TIMEOUT", 30),
        ("TIMEOUT", (5, 10**9)),
        ("TIMEOUT", (0, 30)),
        ("CONCURRENCY", 0),
        ("CONCURRENCY", 1001),
        ("MAX_PER_SECOND", "fast"),
        ("CALLBACK_ORIGIN", 5),
        ("DISPATCHER", 5),
        ("BASE_URL", "rest.esms.vn"),
        ("BRANDNAME", "x" * 101),
        ("BRANDNAME", "SH\0P"),
        ("BRANDNAME", "SHOP\n"),
        ("BRANDNAME", "\udc80"),
    ],
)
def test_a_wrong_type(name: str, value: object) -> None:
    found = only(check({name: value}, deploy=True), "E003")
    assert name in found.msg
    assert "It must be" in str(found.hint)


def test_every_problem_of_the_dict_is_told_at_once() -> None:
    assert ids(check({"SANBOX": True, "TIMEOUT": 5, "CONCURRENCY": None})) == ["E002", "E003", "E003"]


@pytest.mark.parametrize(
    "gateway",
    [
        "esms_viber.gateways.nothing.Gateway",
        "esms_viber.Nothing",
        "bare",
        "",
        ".relative.path",
        "tests.test_checks.not_a_gateway",
    ],
)
def test_a_gateway_that_is_none(gateway: str) -> None:
    assert "esms_viber.gateways.esms.EsmsGateway" in str(only(check({"GATEWAY": gateway}), "E004").hint)


class OwnGateway(BaseGateway):
    def send(self, message: Any) -> Any: ...
    def fetch_status(self, sms_id: str) -> Any: ...
    def fetch_balance(self) -> Any: ...


class GenerousGateway(OwnGateway):
    def send(self, message: Any, *more: Any, wait: bool = True, **others: Any) -> Any: ...


class OwnEsmsGateway(EsmsGateway): ...


class WithoutMethods(BaseGateway):
    def send(self, message: Any) -> Any: ...


class AsyncSend(OwnGateway):
    async def send(self, message: Any) -> Any: ...  # type: ignore[override]


class AsyncBalance(OwnGateway):
    async def fetch_balance(self) -> Any: ...  # type: ignore[override]


class GeneratorSend(OwnGateway):
    def send(self, message: Any) -> Any:
        yield


class SendTakesNothing(OwnGateway):
    def send(self) -> Any: ...  # type: ignore[override]


class SendTakesTwo(OwnGateway):
    def send(self, message: Any, keys: Any) -> Any: ...  # type: ignore[override]


class SendTakesByName(OwnGateway):
    def send(self, *, message: Any) -> Any: ...  # type: ignore[override]


class SendIsNone(OwnGateway):
    send = None  # type: ignore[assignment]


class StaticSend(OwnGateway):
    @staticmethod
    def send() -> Any: ...  # type: ignore[override]


class LengthTakesNothing(OwnGateway):
    def query_length(self) -> Any: ...  # type: ignore[override]


class NeedsArguments(OwnGateway):
    def __init__(self, account: str) -> None: ...


class FailsToBuild(OwnGateway):
    @classmethod
    def from_settings(cls, conf: Any) -> Any:
        raise LookupError(conf.SECRET_KEY)


class WantsASetting(OwnGateway):
    @classmethod
    def from_settings(cls, conf: Any) -> Any:
        raise ImproperlyConfigured("Set GATEWAY_ACCOUNT.")


class BuildsNothing(OwnGateway):
    @classmethod
    def from_settings(cls, conf: Any) -> Any: ...


UNUSABLE_GATEWAYS = {
    WithoutMethods: "fetch_balance(), fetch_status()",
    AsyncSend: "send(",
    AsyncBalance: "fetch_balance(",
    GeneratorSend: "send(",
    SendTakesNothing: "send(",
    SendTakesTwo: "send(",
    SendTakesByName: "send(",
    SendIsNone: "send(",
    StaticSend: "send(",
    LengthTakesNothing: "query_length(",
    NeedsArguments: "TypeError",
    FailsToBuild: "LookupError",
    WantsASetting: "Set GATEWAY_ACCOUNT.",
    BuildsNothing: "from_settings()",
}


@pytest.mark.parametrize(("gateway", "why"), UNUSABLE_GATEWAYS.items())
def test_a_gateway_that_can_send_nothing(gateway: type, why: str) -> None:
    conf = {**settings.ESMS_VIBER, **KEYS, "GATEWAY": f"{__name__}.{gateway.__name__}"}
    found = only(check(conf), "E004")
    assert isinstance(found, Error)
    assert why in found.msg
    with override_settings(ESMS_VIBER=conf), pytest.raises(ImproperlyConfigured) as refused:
        get_gateway()
    assert str(refused.value) == found.msg
    assert KEYS["SECRET_KEY"] not in f"{found} {refused.value!r} {refused.value.__context__!r}"


@pytest.mark.parametrize("gateway", [OwnGateway, GenerousGateway, OwnEsmsGateway])
def test_a_gateway_of_the_site(gateway: type) -> None:
    assert check({"GATEWAY": f"{__name__}.{gateway.__name__}"}, deploy=True) == []


def test_a_base_url_that_no_gateway_can_be_built_with() -> None:
    found = only(check({"BASE_URL": "http://[/"}), "E004")
    assert "BASE_URL" in found.msg
    assert found.hint == '"BASE_URL": "https://rest.esms.vn/MainService.svc/json/"'
    assert check({"BASE_URL": "http://[/", "GATEWAY": f"{__name__}.OwnGateway"}) == []


class OwnConsole(ConsoleGateway): ...


class OwnMemory(MemoryGateway): ...


STAND_INS = [f"{kind.__module__}.{kind.__name__}" for kind in (ConsoleGateway, MemoryGateway, OwnConsole, OwnMemory)]


@pytest.mark.parametrize("gateway", STAND_INS)
def test_a_stand_in_where_real_messages_are_to_be_sent(gateway: str) -> None:
    found = only(check({"GATEWAY": gateway}, deploy=True), "W012")
    assert "takes every message as sent" in found.msg
    assert ESMS in str(found.hint)
    assert check({"GATEWAY": gateway}, deploy=True, DEBUG=True) == []


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "localhost:8001",
        "LOCALHOST.",
        "a.localhost",
        "localhost.localdomain",
        "127.0.0.1:8000",
        "127.1",
        "0.0.0.0",  # noqa: S104 - nothing is bound
        "[::1]:8000",
        "[::ffff:127.0.0.1]",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_deployment_that_asks_itself(scheme: str, host: str) -> None:
    found = only(check({"BASE_URL": f"{scheme}://{host}/MainService.svc/json/"}, deploy=True), "W013")
    assert "https://rest.esms.vn/MainService.svc/json/" in str(found.hint)


def test_a_gateway_that_asks_nobody_may_have_any_base_url() -> None:
    conf = {"BASE_URL": "http://127.0.0.1:8000/", "GATEWAY": STAND_INS[0]}
    assert ids(check(conf, deploy=True)) == ["W012"]


async def async_dispatcher(pks: list[int]) -> None: ...


async def async_generator(pks: list[int]) -> Any:
    yield


def generator(pks: list[int]) -> Any:
    yield


def takes_nothing() -> None: ...


def takes_two(pks: list[int], queue: str) -> None: ...


def takes_by_name(*, pks: list[int]) -> None: ...


def takes_one(pks: list[int], queue: str = "default") -> None: ...


class Dispatcher:
    def __init__(self, queue: str = "default") -> None: ...

    def __call__(self, pks: list[int]) -> None: ...

    def method(self, pks: list[int]) -> None: ...

    async def async_method(self, pks: list[int]) -> None: ...

    def method_without(self) -> None: ...

    @staticmethod
    def static(pks: list[int]) -> None: ...

    @classmethod
    def of_class(cls, pks: list[int]) -> None: ...


class AsyncDispatcher:
    async def __call__(self, pks: list[int]) -> None: ...


class Sent:
    def __init__(self, pks: list[int]) -> None: ...


class Unrelated: ...


UNUSABLE_DISPATCHERS = [
    async_dispatcher,
    async_generator,
    generator,
    takes_nothing,
    takes_two,
    takes_by_name,
    AsyncDispatcher(),
    Dispatcher,
    Unrelated,
    Dispatcher().async_method,
    Dispatcher().method_without,
    Dispatcher.method,
    functools.partial(async_dispatcher),
    functools.partial(functools.partial(takes_two)),
    functools.partial(takes_one, [1], "default"),
    functools.partial(AsyncDispatcher()),
    sync_to_async(takes_one),
    lambda: None,
]


@pytest.mark.parametrize("dispatcher", UNUSABLE_DISPATCHERS)
def test_a_dispatcher_that_sends_nothing(dispatcher: Any) -> None:
    found = only(check({"DISPATCHER": dispatcher}), "E005")
    assert isinstance(found, Error)
    assert "esms_viber.dispatch.inline" in str(found.hint)
    with override_settings(ESMS_VIBER={"DISPATCHER": dispatcher}), pytest.raises(ImproperlyConfigured) as refused:
        get_dispatcher()
    assert str(refused.value) == found.msg


@pytest.mark.parametrize(
    "dispatcher",
    [
        "esms_viber.dispatch.nothing",
        "bare",
        "",
        ".relative.path",
        "tests.test_checks.not_callable",
        "tests.test_checks.async_dispatcher",
        "tests.test_checks.Dispatcher",
        "tests.broken.dispatch",
    ],
)
def test_a_dispatcher_that_is_none(dispatcher: str) -> None:
    found = only(check({"DISPATCHER": dispatcher}), "E005")
    assert "esms_viber.dispatch.inline" in str(found.hint)
    with override_settings(ESMS_VIBER={"DISPATCHER": dispatcher}), pytest.raises(ImproperlyConfigured) as refused:
        get_dispatcher()
    assert str(refused.value) == found.msg


@pytest.mark.parametrize(
    "dispatcher",
    [
        "esms_viber.dispatch.queue_only",
        "esms_viber.dispatch.inline",
        "tests.test_checks.takes_one",
        print,
        [].append,
        takes_one,
        Dispatcher(),
        Dispatcher().method,
        Dispatcher.static,
        Dispatcher.of_class,
        Sent,
        functools.partial(takes_one, queue="slow"),
        functools.partial(takes_two, queue="slow"),
        async_to_sync(async_dispatcher),
        lambda *pks: None,
    ],
)
def test_a_dispatcher_as_path_or_callable(dispatcher: Any) -> None:
    assert check({"DISPATCHER": dispatcher}) == []
    with override_settings(ESMS_VIBER={"DISPATCHER": dispatcher}):
        assert callable(get_dispatcher())


@pytest.mark.parametrize(
    "conf",
    [
        {"MAX_QUERY_LENGTH": 100},
        {"MAX_QUERY_LENGTH": 300, "BRANDNAME": "Ế" * 50},
        {"MAX_QUERY_LENGTH": 400, "CALLBACK_ORIGIN": f"https://shop.example.vn/{'a' * 100}"},
        {"CALLBACK_ORIGIN": f"https://shop.example.vn/{'a' * 2000}"},
    ],
)
def test_a_limit_within_which_not_even_a_letter_fits(conf: dict[str, Any]) -> None:
    found = only(check(conf), "E011")
    assert isinstance(found, Error)
    assert str(conf.get("MAX_QUERY_LENGTH", 2048)) in found.msg
    assert "2048" in str(found.hint)


def test_a_gateway_without_a_limit_has_none_that_is_too_low() -> None:
    assert check({"MAX_QUERY_LENGTH": 1, "GATEWAY": f"{__name__}.OwnGateway"}) == []


@pytest.mark.parametrize(
    ("backend", "parts"),
    [
        ("django_tasks_db.DatabaseBackend", ["pip install django-tasks-db"]),
        ("django_tasks_rq.RQBackend", ["pip install django-tasks-rq"]),
        (
            "django_tasks.backends.database.DatabaseBackend",
            ["pip install django-tasks-db", '"BACKEND": "django_tasks_db.DatabaseBackend"'],
        ),
        (
            "django.tasks.backends.rq.RQBackend",
            ["pip install django-tasks-rq", '"BACKEND": "django_tasks_rq.RQBackend"'],
        ),
        ("no.such.Backend", ['TASKS needs a backend "default"']),
    ],
)
def test_tasks_without_their_package_name_it(monkeypatch: pytest.MonkeyPatch, backend: str, parts: list[str]) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (None, ModuleNotFoundError("No module")))
    monkeypatch.setattr(
        sending, "find_spec", lambda name: None if name in {"django_tasks_db", "django_tasks_rq"} else 1
    )
    apps = [app for app in settings.INSTALLED_APPS if app != "django_tasks_db"]
    with override_settings():
        settings.INSTALLED_APPS = [*apps, "django_tasks_db.apps.Config", "django_rq"]
        hint = only(
            check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}, TASKS={"default": {"BACKEND": backend}}), "E009"
        ).hint
    assert all(part in str(hint) for part in parts)


def test_tasks_whose_app_is_missing_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (None, RuntimeError("isn't in INSTALLED_APPS")))
    monkeypatch.setattr(sending, "find_spec", lambda name: 1)
    tasks = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}
    with override_settings():
        settings.INSTALLED_APPS = [app for app in settings.INSTALLED_APPS if app != "django_tasks_db"]
        found = only(check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}, TASKS=tasks), "E009")
    assert 'INSTALLED_APPS += ["django_tasks_db"]' in str(found.hint)
    assert "pip" not in str(found.hint)


class UnreadyBackend:
    """A backend as those of packages are, where their app is missing or a queue of theirs is not set up."""

    def __init__(self, found: Any) -> None:
        self.found = found

    def get_backend(self) -> UnreadyBackend:
        return self

    def check(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found


@pytest.mark.parametrize(
    ("found", "named"),
    [
        ([CheckWarning("Slow"), Error("its app is not installed")], "its app is not installed."),
        (KeyError("default"), "KeyError: 'default'."),
    ],
)
def test_tasks_whose_backend_is_not_ready_are_told(monkeypatch: pytest.MonkeyPatch, found: Any, named: str) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (UnreadyBackend(found), None))
    told = only(check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}, TASKS={"default": None}), "E009")
    assert str(told.msg).endswith(named)


@pytest.mark.parametrize("found", [[], [CheckWarning("Slow")]])
def test_tasks_whose_backend_only_warns_are_ready(monkeypatch: pytest.MonkeyPatch, found: Any) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (UnreadyBackend(found), None))
    assert "E009" not in ids(check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}))


@pytest.mark.parametrize("tasks", [None, [], {}, {"default": None}, {"default": {}}])
def test_tasks_of_a_wrong_type_are_told(monkeypatch: pytest.MonkeyPatch, tasks: Any) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (None, TypeError("no backend")))
    monkeypatch.setattr(sending, "find_spec", lambda name: object())
    told = only(check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}, TASKS=tasks), "E009")
    assert "TASKS needs a backend" in str(told.hint)


@pytest.mark.parametrize("version", [(5, 2, 0), (6, 0, 0)])
def test_tasks_of_the_package_that_is_missing_itself(monkeypatch: pytest.MonkeyPatch, version: tuple[int, ...]) -> None:
    monkeypatch.setattr(monitoring, "find_task", lambda: (None, ModuleNotFoundError("No module named 'django_tasks'")))
    monkeypatch.setattr(sending, "find_spec", lambda name: None)
    monkeypatch.setattr("django.VERSION", version)
    tasks = {"default": {"BACKEND": "django_tasks.backends.immediate.ImmediateBackend"}}
    hint = only(check({"DISPATCHER": "esms_viber.dispatch.django_tasks"}, TASKS=tasks), "E009").hint
    package = '"django-esms-viber[tasks]"' if version < (6, 0) else "django-tasks"
    assert f"pip install {package}" in str(hint)


def test_a_project_without_the_setting_is_warned_and_can_migrate() -> None:
    with override_settings(ESMS_VIBER={}):
        found = run_checks(tags=["esms_viber"])
        call_command("check", "--tag", "esms_viber")
    assert isinstance(only(found, "W001"), CheckWarning)
    assert "API_KEY, SECRET_KEY, BRANDNAME" in found[0].msg


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize("value", ["", "  "])
def test_a_missing_account_key_stops_a_deployment(name: str, value: str) -> None:
    found = check({**KEYS, "GATEWAY": ESMS, name: value}, deploy=True)
    assert ids(found) == ["W001", "E006"]
    assert all(f"ESMS_VIBER: {name}." in message.msg for message in found)


def test_the_deployment_check_fails_without_keys() -> None:
    with override_settings(ESMS_VIBER={}), pytest.raises(SystemCheckError, match="E006"):
        call_command("check", "--deploy", "--tag", "esms_viber")


def test_other_gateways_need_no_account() -> None:
    assert check({**dict.fromkeys(KEYS, ""), "GATEWAY": "tests.test_checks.OwnGateway"}, deploy=True) == []


@pytest.mark.parametrize(
    "url", ["http://rest.esms.vn/MainService.svc/json/", "http://simulator:8001/", "http://10.0.0.1/"]
)
def test_an_unencrypted_base_url(url: str) -> None:
    assert "unencrypted" in only(check({"BASE_URL": url}), "W002").msg


@pytest.mark.parametrize(
    "url",
    [
        "https://rest.esms.vn/json/",
        "http://localhost:8001/",
        "http://127.0.0.1:8001/",
        "http://[::1]:8001/",
    ],
)
def test_a_base_url_on_this_machine_or_encrypted(url: str) -> None:
    assert check({"BASE_URL": url}) == []


@pytest.mark.parametrize(
    "origin",
    [
        "shop.example.vn",
        "//shop.example.vn",
        "ftp://shop.example.vn",
        "https://",
        "https:///",
        "https://shop.example.vn//",
        "https://shop.example.vn/shop//",
        "https://shop.example.vn//shop",
        "https://shop.example.vn/./shop",
        "https://shop.example.vn/shop/..",
        "https://shop.example.vn/shop?",
        "https://shop.example.vn/shop?x=1",
        "https://shop.example.vn/shop#x",
        "https://shop.example.vn/cửa-hàng",
        "https://shop.example.vn/100%",
        "https://shop.example.vn/a b",
        "https://shop.example.vn/shop\\",
        "https://shop.example.vn?x=1",
        "https://shop.example.vn#x",
        "https://user:hidden@shop.example.vn",
        "https://shop.example.vn:port",
        "https://shop.example.vn:99999",
        "https://[::1",
        " https://shop.example.vn",
        "https://shop.example.vn\n",
        "https://shop example.vn",
        "https://cửahàng.vn",
    ],
)
def test_an_origin_that_is_none(origin: str) -> None:
    found = only(check({"CALLBACK_ORIGIN": origin}, deploy=True), "E007")
    assert "https://shop.example.vn" in str(found.hint)
    assert "hidden" not in str(found)


@pytest.mark.parametrize(
    "origin",
    [
        "https://shop.example.vn/",
        "https://shop.example.vn:8443",
        "https://SHOP.example.vn",
        "https://shop.example.vn/shop",
        "https://shop.example.vn/shop/",
        "https://shop.example.vn:8443/shop/v1.2/~a",
        "https://shop.example.vn/c%E1%BB%ADa-h%C3%A0ng",
    ],
)
def test_an_origin(origin: str) -> None:
    assert check({"CALLBACK_ORIGIN": origin}, deploy=True) == []


@pytest.mark.parametrize("urlconf", ["no.such.urls", "tests.broken", None])
def test_a_urlconf_that_cannot_be_loaded_breaks_no_check(urlconf: str | None) -> None:
    assert ids(check(ROOT_URLCONF=urlconf)) == ["E008"]
    assert check({"CALLBACK_ORIGIN": None}, ROOT_URLCONF=urlconf) == []


def test_urls_left_out() -> None:
    found = only(check(ROOT_URLCONF=UrlsLeftOut), "E008")
    assert 'path("esms-viber/", include("esms_viber.urls"))' in str(found.hint)
    assert check({"CALLBACK_ORIGIN": None}, ROOT_URLCONF=UrlsLeftOut) == []


@pytest.mark.parametrize("urlconf", [UrlsPerLanguage, UrlsPerLanguageButOne])
@pytest.mark.parametrize("language", ["en", "vi", "fr"])
def test_urls_that_differ_by_language(urlconf: type, language: str) -> None:
    found = check(ROOT_URLCONF=urlconf, LANGUAGE_CODE=language, LANGUAGES=[(language, language)])
    assert "i18n_patterns" in str(only(found, "W003").hint)
    assert check({"CALLBACK_ORIGIN": None}, ROOT_URLCONF=urlconf) == []


def test_a_host_that_django_refuses() -> None:
    found = only(check({"CALLBACK_ORIGIN": "https://other.example.vn:8443"}, deploy=True), "W004")
    assert found.hint == 'ALLOWED_HOSTS = [..., "other.example.vn"]'


@pytest.mark.parametrize("hosts", [["*"], [".example.vn"], ["shop.example.vn"]])
def test_a_host_that_django_allows(hosts: list[str]) -> None:
    assert check(deploy=True, ALLOWED_HOSTS=hosts) == []


def test_hosts_as_django_allows_them_under_debug() -> None:
    local = {"CALLBACK_ORIGIN": "http://localhost:8000"}
    assert ids(check(local, deploy=True, ALLOWED_HOSTS=[], DEBUG=True)) == ["W007"]
    assert ids(check(local, deploy=True, ALLOWED_HOSTS=[], DEBUG=False)) == ["W007", "W004"]
    assert ids(check(deploy=True, ALLOWED_HOSTS=[], DEBUG=True)) == ["W004"]


def test_a_redirect_to_https() -> None:
    found = only(check(deploy=True, SECURE_SSL_REDIRECT=True), "W005")
    assert "SECURE_PROXY_SSL_HEADER" in str(found.hint)
    assert r'SECURE_REDIRECT_EXEMPT = [r"^esms\-viber/callback/"]' in str(found.hint)


@pytest.mark.parametrize(
    "others",
    [
        {"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")},
        {"SECURE_REDIRECT_EXEMPT": [r"^esms\-viber/callback/"]},
        {"MIDDLEWARE": []},
        {"ROOT_URLCONF": UrlsLeftOut},
    ],
)
def test_a_redirect_to_https_that_spares_the_callback(others: dict[str, Any]) -> None:
    assert "W005" not in ids(check(deploy=True, SECURE_SSL_REDIRECT=True, **others))


@pytest.mark.parametrize(
    ("origin", "host", "right"),
    [
        ("http://shop.example.vn", None, '"https://shop.example.vn"'),
        ("http://shop.example.vn/shop/", None, '"https://shop.example.vn/shop"'),
        ("http://shop.example.vn/shop", "www.shop.example.vn", '"https://www.shop.example.vn/shop"'),
    ],
)
def test_an_http_origin_is_redirected_behind_a_proxy_too(origin: str, host: str | None, right: str) -> None:
    found = check(
        {"CALLBACK_ORIGIN": origin},
        deploy=True,
        SECURE_SSL_REDIRECT=True,
        SECURE_SSL_HOST=host,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    )
    assert ids(found) == ["W008", "W005"]
    assert right in str(found[1].hint)


@pytest.mark.parametrize(
    ("origin", "others"),
    [
        ("https://shop.example.vn", {}),
        ("https://shop.example.vn/shop", {}),
        ("https://shop.example.vn/a.b/c", {"FORCE_SCRIPT_NAME": "/a.b/c"}),
    ],
)
def test_the_exemption_that_the_hint_names_is_enough(origin: str, others: dict[str, Any]) -> None:
    conf = {"CALLBACK_ORIGIN": origin}
    found = only(check(conf, deploy=True, SECURE_SSL_REDIRECT=True, **others), "W005")
    exempt = re.findall(r'SECURE_REDIRECT_EXEMPT = \[r"(.*)"\]', str(found.hint))
    assert check(conf, deploy=True, SECURE_SSL_REDIRECT=True, SECURE_REDIRECT_EXEMPT=exempt, **others) == []


class ToTheMainHost(CommonMiddleware):
    """As a site might write its own."""

    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:
        if request.get_host() != "main.example.vn":
            return HttpResponseRedirect(f"https://main.example.vn{request.get_full_path()}")
        return None


class LanguagesForAll(LocaleMiddleware):
    def process_request(self, request: HttpRequest) -> HttpResponseBase | None:  # type: ignore[override]
        return HttpResponseRedirect(f"/vi{request.path_info}")


class NobodyComesIn(LoginRequiredMiddleware):
    def process_view(self, request: HttpRequest, *args: Any) -> HttpResponseBase | None:
        return HttpResponseRedirect("/login/")


class Unbuildable(CommonMiddleware):
    def __init__(self, get_response: Any) -> None:
        raise MiddlewareNotUsed


@pytest.mark.parametrize(
    ("middleware", "others", "origin", "right"),
    [
        (None, {"PREPEND_WWW": True}, "https://shop.example.vn", '"https://www.shop.example.vn"'),
        (None, {"PREPEND_WWW": True}, "https://shop.example.vn:8443/a/", '"https://www.shop.example.vn:8443/a"'),
        (ToTheMainHost, {}, "https://shop.example.vn/shop", '"https://main.example.vn/shop"'),
        (LanguagesForAll, {}, "https://shop.example.vn", "i18n_patterns"),
        (NobodyComesIn, {}, "https://shop.example.vn/shop", "/shop/esms-viber/callback/"),
    ],
)
def test_other_redirects_before_the_callback(middleware: Any, others: Any, origin: str, right: str) -> None:
    if middleware:
        others = {**others, "MIDDLEWARE": [*settings.MIDDLEWARE, f"{__name__}.{middleware.__name__}"]}
    found = only(check({"CALLBACK_ORIGIN": origin}, deploy=True, **others), "W010")
    assert right in str(found.hint)


@pytest.mark.parametrize(
    "others",
    [
        {"PREPEND_WWW": True, "MIDDLEWARE": []},
        {"PREPEND_WWW": True, "ROOT_URLCONF": UrlsLeftOut},
        {"APPEND_SLASH": True},
        {"MIDDLEWARE": ["django.middleware.locale.LocaleMiddleware", *settings.MIDDLEWARE]},
        {"MIDDLEWARE": ["no.such.Middleware", f"{__name__}.Unbuildable", f"{__name__}.not_a_gateway"]},
    ],
)
def test_what_redirects_no_callback(others: dict[str, Any]) -> None:
    assert "W010" not in ids(check(deploy=True, **others))


def test_an_origin_with_the_host_that_django_redirects_to_is_right() -> None:
    hosts = ["www.shop.example.vn"]
    assert (
        check({"CALLBACK_ORIGIN": "https://www.shop.example.vn"}, deploy=True, PREPEND_WWW=True, ALLOWED_HOSTS=hosts)
        == []
    )


def anything(request: HttpRequest, rest: str = "") -> None: ...


class CatchAll:
    urlpatterns = [path("<path:rest>", anything), path("esms-viber/", include("esms_viber.urls"))]


class RedirectBefore:
    urlpatterns = [
        re_path("^esms-viber/(.*)$", RedirectView.as_view(url="https://main.example.vn/")),
        path("esms-viber/", include("esms_viber.urls")),
    ]


class TokenTaken:
    urlpatterns = [path("<str:a>/callback/<str:b>/", anything), path("esms-viber/", include("esms_viber.urls"))]


class CatchAllBehind:
    urlpatterns = [path("esms-viber/", include("esms_viber.urls")), path("<path:rest>", anything)]


class OtherNamespace:
    urlpatterns = [path("a/b/", include("esms_viber.urls", namespace="viber"))]


class OtherLetters:
    urlpatterns = [path("tin nhắn/", include("esms_viber.urls"))]


@pytest.mark.parametrize("urlconf", [CatchAll, RedirectBefore, TokenTaken])
def test_a_line_before_the_include_that_takes_its_requests(urlconf: type) -> None:
    found = only(check(ROOT_URLCONF=urlconf), "E010")
    assert isinstance(found, Error)
    assert 'path("esms-viber/", include("esms_viber.urls"))' in str(found.hint)
    assert check({"CALLBACK_ORIGIN": None}, ROOT_URLCONF=urlconf) == []


@pytest.mark.parametrize("urlconf", [CatchAllBehind, OtherNamespace, OtherLetters])
def test_an_include_that_gets_its_requests(urlconf: type) -> None:
    assert check(ROOT_URLCONF=urlconf, deploy=True) == []


@pytest.mark.parametrize(
    ("name", "origin", "right"),
    [
        ("/shop", "https://shop.example.vn", '"https://shop.example.vn/shop"'),
        ("/shop/", "https://shop.example.vn/", '"https://shop.example.vn/shop"'),
        ("/shop", "https://shop.example.vn/workshop", '"https://shop.example.vn/shop"'),
        ("/cửa-hàng", "https://shop.example.vn", '"https://shop.example.vn/c%E1%BB%ADa-h%C3%A0ng"'),
    ],
)
def test_the_path_of_the_site_is_missing_in_the_origin(name: str, origin: str, right: str) -> None:
    found = only(check({"CALLBACK_ORIGIN": origin}, deploy=True, FORCE_SCRIPT_NAME=name), "W011")
    assert right in str(found.hint)


@pytest.mark.parametrize(
    ("name", "origin"),
    [
        ("/shop", "https://shop.example.vn/shop"),
        ("/shop/", "https://shop.example.vn/shop"),
        ("/shop", "https://shop.example.vn/proxied/shop/"),
        ("/cửa-hàng", "https://shop.example.vn/c%E1%BB%ADa-h%C3%A0ng"),
        ("", "https://shop.example.vn"),
        ("/shop", None),
    ],
)
def test_the_path_of_the_site_stands_in_the_origin(name: str, origin: str | None) -> None:
    assert "W011" not in ids(check({"CALLBACK_ORIGIN": origin}, deploy=True, FORCE_SCRIPT_NAME=name))


@pytest.mark.parametrize(
    ("origin", "right"),
    [
        ("https://shop.example.vn/esms-viber/", '"https://shop.example.vn"'),
        ("https://shop.example.vn/shop/esms-viber", '"https://shop.example.vn/shop"'),
    ],
)
def test_the_path_that_urlpatterns_adds_stands_in_the_origin(origin: str, right: str) -> None:
    assert right in str(only(check({"CALLBACK_ORIGIN": origin}), "W014").hint)


def test_the_sandbox_in_production() -> None:
    assert "delivers nothing" in only(check({"SANDBOX": True}, deploy=True), "W006").msg


@pytest.mark.parametrize("origin", [None, ""])
def test_without_an_origin_results_come_by_polling(origin: str | None) -> None:
    found = only(check({"CALLBACK_ORIGIN": origin}, deploy=True), "I001")
    assert isinstance(found, Info)
    assert "polling" in found.msg


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "127.0.0.1",
        "10.0.0.5",
        "192.168.1.7",
        "[::1]",
        "[fd00::1]",
        "shop",
        "shop.local",
        "shop.test.",
        "127.1",
    ],
)
def test_an_origin_that_the_internet_cannot_reach(host: str) -> None:
    found = check({"CALLBACK_ORIGIN": f"https://{host}"}, deploy=True, ALLOWED_HOSTS=["*"])
    assert "cannot reach" in only(found, "W007").msg


@pytest.mark.parametrize("host", ["8.8.8.8", "[2606:4700::1111]", "shop.vn", "a.b.shop.com.vn."])
def test_an_origin_that_the_internet_can_reach(host: str) -> None:
    assert check({"CALLBACK_ORIGIN": f"https://{host}"}, deploy=True, ALLOWED_HOSTS=["*"]) == []


def test_an_unencrypted_origin() -> None:
    assert ids(check({"CALLBACK_ORIGIN": "http://shop.example.vn"}, deploy=True)) == ["W008"]
    assert check({"CALLBACK_ORIGIN": "http://shop.example.vn"}) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"SANBOX": True, "TIMEOUT": 5, "API_KEY": 5},
        {"GATEWAY": ESMS, "BRANDNAME": "", "BASE_URL": "http://rest.esms.vn/", "DISPATCHER": "x", "SANDBOX": True},
        {"GATEWAY": "bare", "CALLBACK_ORIGIN": "ftp://x"},
    ],
)
def test_no_message_holds_a_key(wrong: dict[str, Any]) -> None:
    found = check({**KEYS, **wrong}, deploy=True)
    assert found
    assert not any(key in str(message) for message in found for key in ("the-api-key", "the-secret-key"))
