"""No key gets out: everything that can fail is made to fail, and everything that came out is searched."""

from __future__ import annotations

import contextlib
import html
import http.client
import json
import logging
import sys
import traceback
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any
from urllib.parse import quote, quote_plus

import pytest
from django.conf import settings as django_settings
from django.contrib.auth import get_user_model
from django.core import serializers
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import RequestFactory
from django.utils import timezone
from django.views.debug import technical_500_response

from esms_viber.conf import find_problems, get_settings
from esms_viber.gateways import loading
from esms_viber.gateways.loading import get_gateway
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.services import deliver_due_messages, refresh_viber_messages, send_viber_message
from tests.fake_gateway import Received, http_answer, json_answer
from tests.test_outcomes import NO_CONNECTION, OUTCOMES, PHONE, _prepare

pytestmark = pytest.mark.django_db(transaction=True)

API_KEY = "A+p/i=K&e%y é\"'<zẹ>#?"
SECRET_KEY = "S+e/c=r&e%t ü\"'<zụ>#?"


def forms(secret: str) -> set[str]:
    """The spellings in which a key could turn up."""
    encoded = {quote(secret, safe=""), quote_plus(secret), quote(secret)}
    encoded |= {form.lower() for form in encoded} | {quote(form, safe="") for form in encoded}
    return {secret, html.escape(secret), json.dumps(secret)[1:-1], repr(secret)[1:-1], *encoded}


FORBIDDEN = {form for secret in (API_KEY, SECRET_KEY) for form in forms(secret)} | {"SecretKey=", "secretkey="}


def echoing_json(request: Received) -> list:
    """A refusal that quotes the request in its message."""
    return json_answer({"CodeResult": "104", "ErrorMessage": f"bad request {request.target}", "SMSID": API_KEY})


def echoing_code(request: Received) -> list:
    return json_answer({"CodeResult": SECRET_KEY[:12], "SMSID": request.query[-60:], "ErrorMessage": SECRET_KEY})


def echoing_header(request: Received) -> list:
    return http_answer(b"x", headers={"Location": request.target, "Set-Cookie": f"u={request.query}"}, status=302)


FAILURES = {name: answer for name, (answer, _, _) in OUTCOMES.items()} | {
    "message quotes the URL": echoing_json,
    "code and SMSID quote the keys": echoing_code,
    "headers quote the URL": echoing_header,
}


class Haul(logging.Handler):
    """Everything that came out, as text."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.texts += [record.getMessage(), repr(record.args), repr(record.__dict__)]
        if record.exc_info and record.exc_info[1]:
            self.add_exception(record.exc_info[1])

    def add_exception(self, error: BaseException, seen: set[int] | None = None) -> None:
        """Text, frames with their locals, and all that it chains to."""
        seen = set() if seen is None else seen
        if id(error) in seen:
            return
        seen.add(id(error))
        self.texts += [str(error), repr(error), repr(error.args), "".join(traceback.format_exception(error))]
        self.add_frames(error.__traceback__)
        for linked in (error.__cause__, error.__context__):
            if linked is not None:
                self.add_exception(linked, seen)

    def add_frames(self, trace: TracebackType | None) -> None:
        while trace is not None:
            # The test's own frames hold the keys it looks for.
            if __file__ != trace.tb_frame.f_code.co_filename:
                for value in trace.tb_frame.f_locals.values():
                    with contextlib.suppress(Exception):  # half built, where it was interrupted
                        self.texts.append(repr(value))
            trace = trace.tb_next

    def add_rows(self) -> None:
        for model in (OutboundViberMessage, ViberMessageEvent):
            self.texts.append(serializers.serialize("json", model.objects.all()))

    def leaks(self) -> list[str]:
        return [text[:300] for text in self.texts if any(form in text for form in FORBIDDEN)]


@pytest.fixture
def haul(caplog, monkeypatch):
    haul = Haul()
    root = logging.getLogger()
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, "urllib3")
    monkeypatch.setattr(http.client.HTTPConnection, "debuglevel", 1)
    root.addHandler(haul)
    yield haul
    root.removeHandler(haul)


@pytest.fixture
def secret_esms(esms, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "API_KEY": API_KEY, "SECRET_KEY": SECRET_KEY}
    return esms


def _raise_and_keep(message: OutboundViberMessage, haul: Haul) -> None:
    try:
        message.raise_for_status()
    except Exception as error:  # noqa: BLE001 - whatever it raises is searched
        haul.add_exception(error)
        page = technical_500_response(RequestFactory().get("/"), *sys.exc_info())
        haul.texts.append(page.content.decode())


@pytest.mark.parametrize("name", FAILURES)
def test_no_key_comes_out_of_a_failure(secret_esms, settings, client, haul, capfd, name):
    _prepare(secret_esms, settings, FAILURES[name])
    if FAILURES[name] != NO_CONNECTION:
        secret_esms.answer_all(FAILURES[name])

    message = send_viber_message(PHONE, "Xin chào")
    _raise_and_keep(message, haul)
    OutboundViberMessage.objects.update(next_attempt_at=timezone.now())
    haul.texts.append(repr(deliver_due_messages()))
    OutboundViberMessage.objects.update(sms_id="some-id", status="sent")
    refresh_viber_messages(OutboundViberMessage.objects.all())
    haul.add_rows()
    _add_pages(client, message, haul)
    haul.texts += list(capfd.readouterr())

    assert haul.leaks() == []
    if FAILURES[name] != NO_CONNECTION:
        assert secret_esms.requests[0]["SecretKey"] == SECRET_KEY


def _add_pages(client, message: OutboundViberMessage, haul: Haul) -> None:
    client.force_login(get_user_model().objects.create_superuser("root"))
    for page in ("", f"{message.pk}/change/"):
        response = client.get(f"/admin/esms_viber/outboundvibermessage/{page}")
        assert response.status_code == 200
        haul.texts.append(response.content.decode())


def test_the_search_would_find_a_key(haul):
    """The test of the test: each place where a key could hide is really looked at."""
    logging.getLogger("anything").debug("%s", API_KEY)
    assert haul.leaks()
    haul.texts.clear()
    for place in (f"x {quote(SECRET_KEY, safe='').lower()} y", html.escape(API_KEY)):
        haul.texts = [place]
        assert haul.leaks() == [place]
    haul.texts = []
    harmless = KeyError("harmless")
    harmless.__context__ = ValueError(SECRET_KEY)
    haul.add_exception(harmless)
    assert haul.leaks()


def test_a_setting_of_a_wrong_type_shows_no_key(settings, haul):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "API_KEY": API_KEY, "SECRET_KEY": SECRET_KEY, "TIMEOUT": "5"}
    with pytest.raises(ImproperlyConfigured, match="TIMEOUT") as refused:
        get_settings()
    haul.add_exception(refused.value)
    assert haul.leaks() == []


# -- Ctrl-C and time limits --------------------------------------------------------------------------------------------


def _interrupting(number: int, within: tuple[str, ...]) -> Callable[[FrameType, str, Any], Any]:
    """A trace function that interrupts at the n-th step of modules whose names begin so."""
    count = 0

    def trace(frame: FrameType, event: str, arg: Any) -> Any:
        nonlocal count
        if not frame.f_globals.get("__name__", "").startswith(within):
            return None
        count += 1
        if count == number:
            raise KeyboardInterrupt
        return trace

    return trace


def interruptions(call: Callable[[], object], within: tuple[str, ...], step: int = 1) -> Iterator[BaseException]:
    """What `call` raises when it is interrupted at each of its steps in turn."""
    number = 1
    while True:
        # Django keeps a setting where it was read once: the first reading has frames of its own.
        django_settings.__dict__.pop("ESMS_VIBER", None)
        loading._start_anew()
        before = sys.gettrace()
        sys.settrace(_interrupting(number, within))
        try:
            call()
        except KeyboardInterrupt as error:
            sys.settrace(before)
            yield error
        except ImproperlyConfigured:
            return
        else:
            return
        finally:
            sys.settrace(before)
        number += step


NEAR = (
    "esms_viber.conf",
    "esms_viber.gateways",
    "esms_viber.checks",
    "django.conf",
)
FAR = (*NEAR, "requests", "urllib", "json", "http", "re", "dataclasses", "esms_viber")
CALLS: dict[str, tuple[Callable[[], object], tuple[str, ...], int]] = {
    "settings": (get_settings, FAR, 1),
    "problems": (find_problems, FAR, 1),
    "gateway": (get_gateway, NEAR, 1),
    "gateway, and what it calls": (get_gateway, FAR, 11),
    "checks": (lambda: run_checks(tags=["esms_viber"], include_deployment_checks=True), NEAR, 5),
    "send": (lambda: send_viber_message(PHONE, "Xin chào"), NEAR, 7),
}


@pytest.mark.parametrize("changes", [{}, {"TIMEOUT": "5"}, {"BASE_URL": "nowhere"}, {"API_KEY": None}])
@pytest.mark.parametrize(("call", "within", "step"), CALLS.values(), ids=CALLS)
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_no_frame_of_an_interruption_binds_a_key(secret_esms, settings, haul, call, within, step, changes):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, **changes}
    count = 0
    for error in interruptions(call, within, step):
        haul.add_exception(error)
        assert haul.leaks() == [], f"interrupted at step {1 + count * step}"
        haul.texts.clear()
        count += 1
    assert count > 5


def test_the_search_would_find_a_key_in_a_frame(secret_esms, haul):
    def careless() -> None:
        namespace: dict[str, Any] = {"settings": django_settings, "__name__": "careless"}
        exec(compile("def f():\n raw = settings.ESMS_VIBER\n return len(raw)", "careless", "exec"), namespace)  # noqa: S102
        namespace["f"]()

    for error in interruptions(careless, ("careless",)):
        haul.add_exception(error)
    assert haul.leaks()
