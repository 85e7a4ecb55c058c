"""The Vietnamese catalogue: complete, compiled from what stands beside it, with every placeholder in place."""

from __future__ import annotations

import ast
import datetime as dt
import logging
import re
from collections.abc import Callable, Iterator
from gettext import GNUTranslations
from pathlib import Path
from typing import Any

import pytest
from django.conf.urls.i18n import i18n_patterns
from django.core.checks import CheckMessage, run_checks
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import load_command_class
from django.core.management.base import BaseCommand
from django.test import Client, override_settings
from django.urls import include, path
from django.utils import timezone, translation
from django.utils.translation import gettext, trans_real
from django.utils.translation.template import templatize

from esms_viber import creation, monitoring
from esms_viber.admin import display
from esms_viber.checks import sending
from esms_viber.codes import CODES
from esms_viber.conf import get_settings
from esms_viber.exceptions import GatewayUnreachable
from esms_viber.formatting import dong
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send

APP = Path(__file__).parents[1] / "esms_viber"
FOLDER = APP / "locale" / "vi" / "LC_MESSAGES"
VIETNAMESE = re.compile("[à-ỹ]")
PHONE, TEXT = "0901888484", "Xin chào"


@pytest.fixture(scope="module")
def catalogue() -> dict:
    with (FOLDER / "django.mo").open("rb") as compiled:
        return GNUTranslations(compiled)._catalog


def test_nothing_is_fuzzy_or_left_out():
    source = (FOLDER / "django.po").read_text()
    assert "fuzzy" not in source
    assert not re.search(r'^msgstr(\[0\])? ""\n\n', source, re.M)


def test_every_placeholder_is_kept(catalogue):
    for original, translated in catalogue.items():
        original = original[0] if isinstance(original, tuple) else original
        if original:
            names = set(re.findall(r"%\((\w+)\)|\{(\w+)\}", original))
            # A singular need not say the number that the one form of Vietnamese has to.
            assert names <= set(re.findall(r"%\((\w+)\)|\{(\w+)\}", translated)), original


@pytest.mark.parametrize("code", CODES)
def test_codes_are_told_in_vietnamese(code):
    english = str(CODES[code].meaning), str(CODES[code].remedy)
    with translation.override("vi"):
        vietnamese = str(CODES[code].meaning), str(CODES[code].remedy)
    assert all(here != there for here, there in zip(english, vietnamese, strict=True) if here)


def test_states_and_errors_are_told_in_vietnamese():
    with translation.override("vi"):
        assert Status.DELIVERED.label == "đã nhận"
        with pytest.raises(ValidationError) as refused:
            creation.validate(OutboundViberMessage(phone="0901888484", content="x", button_label="y"))
        assert refused.value.messages == ["Nút bấm cần có liên kết. Hãy nhập liên kết, hoặc xóa nhãn nút."]


def test_amounts_are_written_as_in_the_language():
    from decimal import Decimal

    assert dong(Decimal("1234567.0000")) == "1,234,567 đ"
    with translation.override("vi"):
        assert dong(Decimal("1234567.0000")) == "1.234.567 đ"
        assert dong(Decimal("470.5000")) == "470,50 đ"


# -- what the source holds ---------------------------------------------------------------------------------------------


def marked_in_python(source: str) -> Iterator[str]:
    """The first string of every call of gettext's, under whatever name it was imported."""
    for call in ast.walk(ast.parse(source)):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name):
            is_gettext = call.func.id == "_" or "gettext" in call.func.id
            if is_gettext and call.args and isinstance(call.args[0], ast.Constant):
                yield call.args[0].value


def marked_in_template(source: str) -> Iterator[str]:
    for marked in re.findall(r"""\bn?gettext\(u?('(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")""", templatize(source)):
        yield ast.literal_eval(marked)


FILES = [*APP.rglob("*.py"), *APP.rglob("*.html")]


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(APP)))
def test_every_marked_string_is_in_the_catalogue(file: Path):
    marked = marked_in_python if file.suffix == ".py" else marked_in_template
    catalogue = trans_real.translation("vi")._catalog
    assert [text for text in marked(file.read_text()) if text not in catalogue and (text, 0) not in catalogue] == []


# -- checks and commands -----------------------------------------------------------------------------------------------


class UrlsPerLanguage:
    urlpatterns = i18n_patterns(path("esms-viber/", include("esms_viber.urls")))


class UrlsLeftOut:
    urlpatterns: list[Any] = []


class UrlsTaken:
    urlpatterns = [path("<path:rest>", lambda request, rest: None), path("esms-viber/", include("esms_viber.urls"))]


ESMS = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}
# Each finds something; together they find everything.
SETTINGS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"SANBOX": True, "zzzzzz": 1, "TIMEOUT": 5, "API_KEY": 5, "DISPATCHER": 5, "SANDBOX": 5, "BASE_URL": "x"}, {}),
    ({"GATEWAY": 5, "CONCURRENCY": 0, "MAX_PER_SECOND": 0, "CALLBACK_ORIGIN": 5}, {}),
    ({"GATEWAY": "builtins.int", "DISPATCHER": "os.sep", "CALLBACK_ORIGIN": "ftp://x", "SANDBOX": True}, {}),
    ({"GATEWAY": "esms_viber.nothing", "DISPATCHER": "esms_viber.nothing", "CALLBACK_ORIGIN": None}, {}),
    ({**ESMS, "API_KEY": "", "BASE_URL": "http://rest.esms.vn/", "CALLBACK_ORIGIN": "http://localhost"}, {}),
    ({"CALLBACK_ORIGIN": "http://other.example.vn"}, {"SECURE_SSL_REDIRECT": True}),
    ({}, {"SECURE_SSL_REDIRECT": True}),
    ({}, {"ROOT_URLCONF": UrlsLeftOut}),
    ({}, {"ROOT_URLCONF": UrlsPerLanguage}),
    ({}, {"ROOT_URLCONF": UrlsTaken}),
    ({}, {"FORCE_SCRIPT_NAME": "/shop", "PREPEND_WWW": True}),
    ({**ESMS, "BASE_URL": "http://localhost/"}, {}),
    ({"MAX_QUERY_LENGTH": 10, "CALLBACK_ORIGIN": "https://shop.example.vn/esms-viber"}, {}),
    ({"PROMOTIONAL_HOURS": ("08:00", "21:00")}, {}),
]
CODE_ALONE = {"E004", "E005", "W002", "W004", "W008", "W011", "W014", "W015", "W016"}
"""Checks whose hint is a line of settings, in the same words everywhere."""


def findings(settings, language: str) -> list[CheckMessage]:
    found = []
    for viber, others in SETTINGS:
        raw = {**settings.ESMS_VIBER, **viber}
        with override_settings(LANGUAGE_CODE=language, ESMS_VIBER=raw, **others):
            found += run_checks(tags=["esms_viber"], include_deployment_checks=True)
    with override_settings(LANGUAGE_CODE=language, ESMS_VIBER=5):
        found += run_checks(tags=["esms_viber"])
    return found


class ImmediateBackend:
    def check(self) -> list[Any]:
        return []


class DummyBackend(ImmediateBackend):
    pass


@pytest.fixture
def tasks(settings, monkeypatch) -> Callable[[type | None], None]:
    """Tasks with a backend of this kind; None: they cannot be had."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.django_tasks"}

    class Task:
        def __init__(self, backend: type) -> None:
            self.get_backend = backend

    def use(backend: type | None) -> None:
        found = (None, LookupError("no backend")) if backend is None else (Task(backend), None)
        monkeypatch.setattr(monitoring, "find_task", lambda: found)
        monkeypatch.setattr(sending, "find_task", lambda: found)

    return use


@pytest.mark.parametrize("backend", [None, ImmediateBackend, DummyBackend])
def test_what_is_wrong_with_tasks_is_told_in_vietnamese(tasks, backend):
    tasks(backend)
    with override_settings(LANGUAGE_CODE="vi"):
        found = run_checks(tags=["esms_viber"], include_deployment_checks=True)
    (message,) = (message for message in found if message.id in {"esms_viber.E009", "esms_viber.W009"})
    assert VIETNAMESE.search(message.msg)
    assert VIETNAMESE.search(str(message.hint))


def test_the_checks_speak_the_language_of_the_site(settings):
    english, vietnamese = findings(settings, "en"), findings(settings, "vi")
    assert [message.id for message in english] == [message.id for message in vietnamese]
    for here, there in zip(english, vietnamese, strict=True):
        assert not VIETNAMESE.search(f"{here.msg} {here.hint}")
        assert VIETNAMESE.search(there.msg), there
        assert VIETNAMESE.search(str(there.hint)) or str(there.id).removeprefix("esms_viber.") in CODE_ALONE, there


def test_no_check_is_forgotten_above(settings):
    there = {
        id_ for file in (APP / "checks").glob("*.py") for id_ in re.findall(r"esms_viber\.[EWI]\d+", file.read_text())
    }
    # Told by tests of their own, because they depend on packages and on the database.
    elsewhere = {"esms_viber.E009", "esms_viber.W009", "esms_viber.W015"}
    assert {message.id for message in findings(settings, "en")} - elsewhere == there - elsewhere


COMMANDS = sorted(file.stem for file in (APP / "management" / "commands").glob("[a-z]*.py"))


def helps(command: str) -> list[str]:
    """What `--help` says of the command itself, and of its own options."""
    django_s = {action.dest for action in BaseCommand().create_parser("manage.py", command)._actions}
    parser = load_command_class("esms_viber", command).create_parser("manage.py", command)
    return [parser.description, *(action.help for action in parser._actions if action.dest not in django_s)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_help_of_the_commands_is_in_the_language_of_the_site(command: str):
    english = helps(command)
    with override_settings(LANGUAGE_CODE="vi"):
        vietnamese = helps(command)
    assert not any(VIETNAMESE.search(text) for text in english)
    assert all(VIETNAMESE.search(text) for text in vietnamese)


def test_what_is_wrong_with_the_settings_is_raised_in_the_language_of_the_reader(settings):
    settings.ESMS_VIBER = {"TIMEOUT": 5}
    with pytest.raises(ImproperlyConfigured, match="It must be two positive numbers"):
        get_settings()
    with translation.override("vi"), pytest.raises(ImproperlyConfigured, match="phải gồm hai số giây dương"):
        get_settings()


# -- what is stored is in English, whoever wrote it, and read in the reader's language ---------------------------------


def not_connected() -> OutboundViberMessage:
    MemoryGateway.answers.append(
        SendResult(outcome=CallOutcome.NOT_CONNECTED, text="Could not connect: name not found")
    )
    return send_viber_message(PHONE, TEXT)


def expired() -> OutboundViberMessage:
    now = timezone.now()
    message = queue_only(send_at=now + dt.timedelta(minutes=1), expires_at=now + dt.timedelta(minutes=2))
    OutboundViberMessage.objects.filter(pk=message.pk).update(next_attempt_at=now, expires_at=now)
    deliver_due_messages()
    return message


def queue_only(**times: dt.datetime) -> OutboundViberMessage:
    return queue_viber_message(PHONE, TEXT, **times)


def cancelled() -> OutboundViberMessage:
    message = queue_only(send_at=timezone.now() + dt.timedelta(days=1))
    cancel_viber_messages([message])
    return message


def taken_over() -> OutboundViberMessage:
    now = timezone.now()
    message = queue_only(send_at=now + dt.timedelta(days=1))
    abandoned = {"status": Status.SENDING, "claim_id": "gone", "lease_until": now, "uncertain_since": now}
    OutboundViberMessage.objects.filter(pk=message.pk).update(**abandoned, next_attempt_at=None)
    deliver_due_messages(limit=1)
    return message


STORED = {
    not_connected: "Could not connect: name not found",
    expired: "It expired before it could be sent.",
    cancelled: "Cancelled.",
    taken_over: "The process that was sending it has stopped; another took it over.",
}


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("writer", ["en", "vi"])
@pytest.mark.parametrize(("happen", "sentence"), STORED.items(), ids=lambda value: getattr(value, "__name__", ""))
def test_a_stored_sentence_is_read_in_the_language_of_the_reader(admin_client: Client, writer, happen, sentence):
    with translation.override(writer):
        message = happen()
    assert sentence in message.events.values_list("text", flat=True)
    for reader in ("en", "vi"):
        with translation.override(reader):
            assert gettext(sentence) != sentence or reader == "en"
            assert gettext(sentence) in page_of(admin_client, message)


def page_of(client: Client, message: OutboundViberMessage) -> str:
    return client.get(f"/admin/esms_viber/outboundvibermessage/{message.pk}/change/").content.decode()


@pytest.mark.django_db(transaction=True)
def test_what_a_site_vetoes_with_is_shown_as_it_is(admin_client: Client):
    def receiver(**kwargs: object) -> None:
        raise CancelSend("Khách đã từ chối.")

    pre_send.connect(receiver)
    try:
        message = send_viber_message(PHONE, TEXT)
    finally:
        pre_send.disconnect(receiver)
    for reader in ("en", "vi"):
        with translation.override(reader):
            assert "Khách đã từ chối." in page_of(admin_client, message)


def test_details_stay_beside_a_translated_sentence():
    assert display.stored("Cancelled. · HTTP 502 · text/html") == "Cancelled. · HTTP 502 · text/html"
    with translation.override("vi"):
        assert display.stored("Cancelled. · HTTP 502 · text/html") == "Đã hủy. · HTTP 502 · text/html"
        assert display.stored("Sai brandname ·  · x") == "Sai brandname ·  · x"
        assert display.stored("") == ""


@pytest.mark.django_db(transaction=True)
def test_an_error_that_is_raised_speaks_the_language_of_who_asks():
    message = not_connected()
    with translation.override("vi"), pytest.raises(GatewayUnreachable, match="không tìm thấy tên máy chủ"):
        message.raise_for_status()


@pytest.mark.django_db(transaction=True)
def test_the_log_is_in_english_whoever_resends(caplog):
    message = queue_only(send_at=timezone.now() + dt.timedelta(days=1))
    with translation.override("vi"), caplog.at_level(logging.INFO, "esms_viber"):
        resend_viber_messages([message])
    assert caplog.messages == [f"message {message.pk} is not sent again: It is in the queue already."]
