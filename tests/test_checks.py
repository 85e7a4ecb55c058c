from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import CheckMessage, Error, Info, run_checks
from django.core.checks import Warning as CheckWarning
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import override_settings
from django.urls import include, path

from esms_viber.conf import NAMES

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
    """The findings with `ESMS_VIBER` as in the tests' settings, changed by `viber`."""
    raw = {**settings.ESMS_VIBER, **viber} if isinstance(viber, dict) else viber or settings.ESMS_VIBER
    with override_settings(ESMS_VIBER=raw, **others):
        return run_checks(tags=["esms_viber"], include_deployment_checks=deploy)


def ids(found: Iterable[CheckMessage]) -> list[str]:
    return [str(message.id).removeprefix("esms_viber.") for message in found]


def only(found: list[CheckMessage], id_: str) -> CheckMessage:
    assert ids(found) == [id_]
    assert found[0].hint
    return found[0]


def test_nothing_to_say_of_good_settings() -> None:
    assert check() == []
    assert check({"GATEWAY": ESMS, **KEYS}, deploy=True) == []


def test_every_project_on_localhost_is_left_in_peace() -> None:
    assert check({"CALLBACK_ORIGIN": None}) == []
    assert check({"CALLBACK_ORIGIN": "http://localhost:8000"}) == []
    assert check({"CALLBACK_ORIGIN": "http://127.0.0.1:8000", "SANDBOX": True}) == []


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
        ("CONCURRENCY", 0),
        ("MAX_PER_SECOND", "fast"),
        ("CALLBACK_ORIGIN", 5),
        ("DISPATCHER", 5),
        ("BASE_URL", "rest.esms.vn"),
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


@pytest.mark.parametrize("dispatcher", ["esms_viber.dispatch.nothing", "bare", "tests.test_checks.not_callable"])
def test_a_dispatcher_that_is_none(dispatcher: str) -> None:
    assert "esms_viber.dispatch.inline" in str(only(check({"DISPATCHER": dispatcher}), "E005").hint)


@pytest.mark.parametrize("dispatcher", ["esms_viber.dispatch.queue_only", "esms_viber.dispatch.inline", print])
def test_a_dispatcher_as_path_or_callable(dispatcher: object) -> None:
    assert check({"DISPATCHER": dispatcher}) == []


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
    assert check(dict.fromkeys(KEYS, ""), deploy=True) == []


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
        "http://[/",
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
        "https://shop.example.vn/esms-viber/",
        "https://shop.example.vn//",
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
    "origin", ["https://shop.example.vn/", "https://shop.example.vn:8443", "https://SHOP.example.vn"]
)
def test_an_origin(origin: str) -> None:
    assert check({"CALLBACK_ORIGIN": origin}, deploy=True) == []


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
    found = only(check({"CALLBACK_ORIGIN": "https://other.example.vn:8443"}), "W004")
    assert found.hint == 'ALLOWED_HOSTS = [..., "other.example.vn"]'


@pytest.mark.parametrize("hosts", [["*"], [".example.vn"], ["shop.example.vn"]])
def test_a_host_that_django_allows(hosts: list[str]) -> None:
    assert check(ALLOWED_HOSTS=hosts) == []


def test_hosts_as_django_allows_them_under_debug() -> None:
    local = {"CALLBACK_ORIGIN": "http://localhost:8000"}
    assert check(local, ALLOWED_HOSTS=[], DEBUG=True) == []
    assert ids(check(local, ALLOWED_HOSTS=[], DEBUG=False)) == ["W004"]
    assert ids(check(ALLOWED_HOSTS=[], DEBUG=True)) == ["W004"]


def test_a_redirect_to_https() -> None:
    found = only(check(SECURE_SSL_REDIRECT=True), "W005")
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
    assert "W005" not in ids(check(SECURE_SSL_REDIRECT=True, **others))


def test_an_http_origin_is_redirected_behind_a_proxy_too() -> None:
    found = check(
        {"CALLBACK_ORIGIN": "http://shop.example.vn"},
        SECURE_SSL_REDIRECT=True,
        SECURE_PROXY_SSL_HEADER=("HTTP_X_FORWARDED_PROTO", "https"),
    )
    assert "https://shop.example.vn" in str(only(found, "W005").hint)


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
