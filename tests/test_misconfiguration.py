"""Settings that cannot work: what is queued is kept, told of, and goes out once they are mended."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from io import StringIO
from typing import Any
from unittest.mock import patch

import pytest
from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection, connections, transaction
from django.test import override_settings
from django.urls import path

from esms_viber import monitoring
from esms_viber.gateways.base import BaseGateway
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.mailing.mailing import Mailing, review, send_inline, store
from esms_viber.mailing.recipients import read_pasted
from esms_viber.management.commands.send_viber_messages import Command
from esms_viber.models import OutboundViberMessage
from esms_viber.monitoring import get_queue_status
from esms_viber.services import (
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    refresh_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào, đơn hàng của bạn"
ESMS = "esms_viber.gateways.esms.EsmsGateway"
GONE = object()
LIST = "/admin/esms_viber/outboundvibermessage/"


class UrlsLeftOut:
    urlpatterns = [path("admin/", admin.site.urls)]


class HalfAGateway(BaseGateway):
    def send(self, message: Any) -> Any: ...


class FailingGateway(BaseGateway):
    @classmethod
    def from_settings(cls, conf: Any) -> Any:
        raise LookupError(conf.SECRET_KEY)

    def send(self, message: Any) -> Any: ...
    def fetch_status(self, sms_id: str) -> Any: ...
    def fetch_balance(self) -> Any: ...


async def async_dispatcher(pks: list[int]) -> None: ...


BROKEN: dict[str, tuple[Any, dict[str, Any], str]] = {
    "no keys": ({"GATEWAY": ESMS, "API_KEY": GONE, "SECRET_KEY": GONE}, {}, "API_KEY"),
    "an empty key": ({"GATEWAY": ESMS, "SECRET_KEY": ""}, {}, "SECRET_KEY"),
    "no brand name": ({"GATEWAY": ESMS, "BRANDNAME": GONE}, {}, "BRANDNAME"),
    "a key of a wrong type": ({"API_KEY": None}, {}, "API_KEY"),
    "a brand name of a wrong type": ({"BRANDNAME": 5}, {}, "BRANDNAME"),
    "a brand name that is too long": ({"BRANDNAME": "x" * 101}, {}, "BRANDNAME"),
    "a brand name with a NUL": ({"BRANDNAME": "SH\0P"}, {}, "BRANDNAME"),
    "a sandbox of a wrong type": ({"SANDBOX": "False"}, {}, "SANDBOX"),
    "a time-out of a wrong type": ({"TIMEOUT": 30}, {}, "TIMEOUT"),
    "a concurrency of a wrong type": ({"CONCURRENCY": "16"}, {}, "CONCURRENCY"),
    "a limit of a wrong type": ({"INLINE_LIMIT": 0}, {}, "INLINE_LIMIT"),
    "a length of a wrong type": ({"MAX_CONTENT_LENGTH": "1000"}, {}, "MAX_CONTENT_LENGTH"),
    "a query length of a wrong type": ({"MAX_QUERY_LENGTH": None}, {}, "MAX_QUERY_LENGTH"),
    "a flag of a wrong type": ({"SEND_ON_SAVE": "yes"}, {}, "SEND_ON_SAVE"),
    "a base URL that is none": ({"BASE_URL": "rest.esms.vn"}, {}, "BASE_URL"),
    "a base URL that cannot be used": ({"GATEWAY": ESMS, "BASE_URL": "http://[/"}, {}, "BASE_URL"),
    "no dict": (["API_KEY"], {}, "must be a dict"),
    "None": (None, {}, "must be a dict"),
    "a gateway that is not there": ({"GATEWAY": "no.such.Gateway"}, {}, "GATEWAY"),
    "a gateway of a wrong type": ({"GATEWAY": BaseGateway}, {}, "GATEWAY"),
    "half a gateway": ({"GATEWAY": f"{__name__}.HalfAGateway"}, {}, "GATEWAY"),
    "a gateway that fails": ({"GATEWAY": f"{__name__}.FailingGateway"}, {}, "GATEWAY"),
    "a gateway in a broken module": ({"GATEWAY": "tests.broken.Gateway"}, {}, "GATEWAY"),
    "a relative path": ({"GATEWAY": ".gateways.Gateway"}, {}, "GATEWAY"),
    "a dispatcher that is not there": ({"DISPATCHER": "no.such.dispatcher"}, {}, "DISPATCHER"),
    "a dispatcher in a broken module": ({"DISPATCHER": "tests.broken.dispatch"}, {}, "DISPATCHER"),
    "an empty dispatcher": ({"DISPATCHER": ""}, {}, "DISPATCHER"),
    "a dispatcher of a wrong type": ({"DISPATCHER": 5}, {}, "DISPATCHER"),
    "an async dispatcher": ({"DISPATCHER": async_dispatcher}, {}, "DISPATCHER"),
    "an origin that is none": ({"CALLBACK_ORIGIN": "shop.example.vn"}, {}, "CALLBACK_ORIGIN"),
    "an origin of a wrong type": ({"CALLBACK_ORIGIN": True}, {}, "CALLBACK_ORIGIN"),
    "no URLs": ({}, {"ROOT_URLCONF": UrlsLeftOut}, "CALLBACK_ORIGIN"),
    "no such URLs": ({}, {"ROOT_URLCONF": "no.such.urls"}, "URLconf"),
    "broken URLs": ({}, {"ROOT_URLCONF": "tests.broken"}, "URLconf"),
}
"""`ESMS_VIBER`, or what is wrong in it; other settings; what names the fault."""

ONLY_DISPATCH = {name for name in BROKEN if "dispatcher" in name and "wrong type" not in name}
"""Of these the sender itself knows nothing."""


ANY_LENGTH = {
    "a gateway that is not there",
    "half a gateway",
    "a gateway that fails",
    "a gateway in a broken module",
    "a relative path",
}
"""Nobody knows what these could carry."""


@pytest.fixture(params=BROKEN)
def broken(request, settings) -> Any:
    """Break the settings; gives the name, what names the fault, and how to mend it."""
    conf, others, named = BROKEN[request.param]
    right = settings.ESMS_VIBER
    if isinstance(conf, dict):
        conf = {name: value for name, value in {**right, **conf}.items() if value is not GONE}
    override = override_settings(ESMS_VIBER=conf, **others)
    override.enable()
    enabled = [override]

    def mend() -> None:
        if enabled:
            enabled.pop().disable()

    yield request.param, named, mend
    mend()


def errors(caplog: Any) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]


def queue_several() -> list[OutboundViberMessage]:
    return queue_viber_messages([OutboundViberMessage(phone=f"090188848{n}", content=TEXT) for n in range(3)])


def test_an_order_is_kept_and_its_message_waits_until_it_is_mended(broken: Any, caplog: Any) -> None:
    _name, named, mend = broken
    with transaction.atomic():
        order = Order.objects.create(phone=PHONE)
        message = queue_viber_message(PHONE, TEXT, related_object=order)
    assert Order.objects.exists()
    message.refresh_from_db()
    assert (message.status, message.attempts, message.uncertain_since) == ("queued", 0, None)
    assert not outbox
    (error,) = errors(caplog)
    assert named in error
    told = "".join(record.getMessage() + (record.exc_text or "") for record in caplog.records)
    assert not any(secret in told for secret in ("901888484", TEXT, "test-secret-key", "test-api-key"))
    mend()
    assert deliver_due_messages().sent == 1
    assert [sent.brandname for sent in outbox] == ["SHOP"]
    assert outbox[0].callback_url.startswith("https://shop.example.vn/esms-viber/callback/")


@pytest.mark.parametrize("call", [queue_several, lambda: resend_viber_messages(OutboundViberMessage.objects.all())])
def test_many_are_kept_too_and_told_once(broken: Any, caplog: Any, call: Callable[[], list[Any]]) -> None:
    _name, named, mend = broken
    with override_settings(ESMS_VIBER={"GATEWAY": "esms_viber.gateways.memory.MemoryGateway"}):
        for n in range(3):
            OutboundViberMessage(phone=f"091188848{n}", content=TEXT).save()
    with transaction.atomic():
        assert len(call()) == 3
    (error,) = errors(caplog)
    assert named in error
    assert error.startswith("3 messages")
    mend()
    assert deliver_due_messages().sent == 3


def test_a_mailing_is_kept_too(broken: Any, caplog: Any, admin_user: Any) -> None:
    _name, named, mend = broken
    mailing = Mailing(campaign="tet", content=TEXT)
    found = review(mailing, read_pasted("0901888484\n0912345678"))
    assert len(found.ready) == 2
    with transaction.atomic():
        assert store(mailing, found, user=admin_user) == 2
    assert errors(caplog)
    assert all(named in error for error in errors(caplog))
    assert len(errors(caplog)) == 1
    send_inline("tet")
    assert OutboundViberMessage.objects.queued().count() == 2
    mend()
    assert deliver_due_messages().sent == 2


def test_a_draft_that_is_sent_on_save_is_kept_too(broken: Any, settings: Any, caplog: Any) -> None:
    name, named, mend = broken
    conf = settings.ESMS_VIBER
    raw = {**conf, "SEND_ON_SAVE": conf.get("SEND_ON_SAVE", True)} if isinstance(conf, dict) else conf
    with override_settings(ESMS_VIBER=raw), transaction.atomic():
        message = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    # Where the flag itself cannot be read, its default counts: a draft.
    unread = not isinstance(conf, dict) or name == "a flag of a wrong type"
    message.refresh_from_db()
    assert message.status == ("draft" if unread else "queued")
    (error,) = errors(caplog)
    assert ("SEND_ON_SAVE" if unread else named) in error
    mend()
    assert deliver_due_messages().sent == (0 if unread else 1)


def test_what_cannot_be_sent_is_refused_all_the_same(broken: Any) -> None:
    for phone, content, image_url in (("12", TEXT, ""), (PHONE, "", ""), (PHONE, TEXT, "https://a.vn/b.png")):
        with pytest.raises(ValidationError):
            queue_viber_message(phone, content, image_url=image_url)
    if broken[0] not in ANY_LENGTH:
        with pytest.raises(ValidationError):
            queue_viber_message(PHONE, "ệ" * 500)
    assert not OutboundViberMessage.objects.exists()


def test_sending_now_is_refused_before_anything_is_stored(broken: Any) -> None:
    name, named, _mend = broken
    if name in ONLY_DISPATCH:
        assert send_viber_message(PHONE, TEXT).status == "sent"
        return
    with pytest.raises(ImproperlyConfigured, match=named):
        send_viber_message(PHONE, TEXT)
    assert not OutboundViberMessage.objects.exists()


def show(form: str = "text") -> tuple[int, str]:
    """As from a shell, where a failed check would end a command before it says anything."""
    out = StringIO()
    try:
        with patch.object(connections, "close_all"):
            Command(stdout=out, no_color=True).run_from_argv(["manage.py", "send_viber_messages", f"--status={form}"])
    except SystemExit as end:
        return int(str(end.code)), out.getvalue()
    return 0, out.getvalue()


def test_it_is_told_where_queues_are_watched(broken: Any) -> None:
    _name, named, mend = broken
    queue_viber_message(PHONE, TEXT)
    status = get_queue_status()
    assert named in status.misconfiguration
    assert status.blocked
    assert status.misconfiguration in status.obstacles()[0]
    assert status.queued == 1
    code, text = show()
    assert code == 2
    assert status.misconfiguration in text
    code, text = show("json")
    assert (code, json.loads(text)["misconfiguration"]) == (2, status.misconfiguration)
    mend()
    assert get_queue_status().misconfiguration == ""
    deliver_due_messages()
    assert show()[0] == 0


def test_the_banner_tells_it(broken: Any, admin_client: Any) -> None:
    _name, named, _mend = broken
    if named == "URLconf":
        return  # which has no admin either
    for page in ("", "add/", "viber-overview/", "viber-send-to-many/"):
        shown = admin_client.get(f"{LIST}{page}").content.decode()
        assert "Messages do not go out until this is corrected" in shown, page
        assert named in shown


def test_commands_end_with_a_sentence(broken: Any) -> None:
    name, named, _mend = broken
    queue_viber_message(PHONE, TEXT)
    for command in ("send_viber_messages", "refresh_viber_messages"):
        asks_no_callback = command == "refresh_viber_messages" and named in {"CALLBACK_ORIGIN", "URLconf"}
        if name in ONLY_DISPATCH or (asks_no_callback and "wrong type" not in name):
            continue
        with pytest.raises(CommandError, match=named) as ended:
            call_command(command, stdout=StringIO())
        assert ended.value.returncode == 1
    if name not in ONLY_DISPATCH:
        with pytest.raises(CommandError, match=named):
            call_command("send_viber_messages", watch=True, stdout=StringIO())
    assert OutboundViberMessage.objects.values_list("status", flat=True)[0] in {"queued", "sent"}


def test_asking_for_results_names_the_setting(settings) -> None:
    message = send_viber_message(PHONE, TEXT)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": ESMS, "API_KEY": ""}
    with pytest.raises(ImproperlyConfigured, match="API_KEY"):
        refresh_viber_messages([message])


def test_a_worker_that_has_the_keys_is_given_what_a_web_server_without_them_queues(settings) -> None:
    given: list[list[int]] = []
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": ESMS, "API_KEY": "", "DISPATCHER": given.append}
    message = queue_viber_message(PHONE, TEXT)
    assert given == [[message.pk]]


def test_what_a_foreign_gateway_could_carry_is_not_refused_while_it_fails(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.FailingGateway"}
    assert queue_viber_message(PHONE, "ệ" * 900).status == "queued"


def test_settings_in_order_are_told_of_nowhere(caplog: Any) -> None:
    queue_viber_message(PHONE, TEXT)
    queue_several()
    assert errors(caplog) == []
    assert get_queue_status().misconfiguration == ""
    assert show()[0] == 0


def test_a_setting_that_breaks_between_order_and_commit_is_logged(settings, caplog: Any) -> None:
    with transaction.atomic():
        queue_viber_message(PHONE, TEXT)
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": ESMS, "API_KEY": ""}
    (error,) = errors(caplog)
    assert "1 messages stay queued" in error


def test_it_is_logged_in_english_and_told_in_the_language_of_the_reader(settings, caplog: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": ESMS, "API_KEY": ""}
    settings.LANGUAGE_CODE = "vi"
    queue_viber_message(PHONE, TEXT)
    (error,) = errors(caplog)
    assert "is empty, and nothing can be sent without it" in error


def test_an_order_is_kept_without_a_secret_key(settings, caplog: Any) -> None:
    """As in a worker that was started with half of its environment."""
    settings.SECRET_KEY = ""
    assert queue_viber_message("0901888484", "Xin chào").status == "queued"
    assert "SECRET_KEY" in errors(caplog)[0]
    assert "SECRET_KEY" in get_queue_status().misconfiguration


def test_tasks_that_cannot_be_had_are_told(settings, caplog: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        monitoring, "find_task", lambda: (None, ModuleNotFoundError("No module named 'django_tasks_db'"))
    )
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.django_tasks"}
    with transaction.atomic():
        assert queue_viber_message(PHONE, TEXT).status == "queued"
        transaction.set_rollback(True)
    assert "django_tasks_db" in errors(caplog)[0]
    assert "django_tasks_db" in get_queue_status().misconfiguration


def test_threads_queue_too(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "no.such.Gateway"}
    done: list[str] = []

    def work() -> None:
        try:
            done.append(queue_viber_message(PHONE, TEXT).status)
        finally:
            connection.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == ["queued"] * 3


class FailingLength(MemoryGateway):
    def query_length(self, message: Any) -> int:
        raise ZeroDivisionError


class NoLength(MemoryGateway):
    def query_length(self, message: Any) -> Any:
        return "long"


class LengthIsAProperty(MemoryGateway):
    @property
    def query_length(self) -> Any:  # type: ignore[override]
        raise ZeroDivisionError


@pytest.mark.parametrize("gateway", [FailingLength, NoLength, LengthIsAProperty])
def test_a_gateway_that_cannot_tell_a_length_costs_no_order(gateway: type, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.{gateway.__name__}"}
    with transaction.atomic():
        assert queue_viber_message(PHONE, TEXT).status == "queued"
        assert queue_viber_messages([OutboundViberMessage(phone=PHONE, content=TEXT)])[0].status == "queued"
