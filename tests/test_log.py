"""No phone, no text and no dedupe key stands in a line of the log, whatever happens to a message."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth import get_user_model
from django.db import OperationalError, connection, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

import esms_viber
from esms_viber.delivery import watching, worker
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.mailing.mailing import Mailing, review, store
from esms_viber.mailing.recipients import read_pasted
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.reports import callbacks
from esms_viber.reports.polling import refresh_due_messages
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    queue_viber_messages,
    refresh_viber_messages,
    resend_viber_messages,
    send_viber_message,
    settle_viber_messages,
)
from esms_viber.signals import pre_send, status_changed
from esms_viber.testing import play_callback
from esms_viber.tokens import make_token
from tests.fake_gateway import PATIENCE, Hang, http_answer, json_answer, redirect, refused
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, OTHER_PHONE = "0901888484", "0912345678"
KEY = "paid-0901888484-Kim"
TEXT = "Chào chị Kim, mã của chị là 739251"
FORBIDDEN = re.compile(
    "|".join([*(r"[\s.()-]*".join(phone[1:]) for phone in (PHONE, OTHER_PHONE)), "Kim", "739251", "paid-", "Chào"])
)


class Log(logging.Handler):
    """Everything logged by anybody, as a file, a mail and an error tracker would show it."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.lines: list[str] = []
        self.tracked: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))
        error = record.exc_info and record.exc_info[1]
        self.tracked.append(f"{record.args!r} {error!r}")

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[Log]:
    log, root = Log(), logging.getLogger()
    for name in ("", "esms_viber", "urllib3", "django"):
        caplog.set_level(logging.DEBUG, name)
    # Django's own: at this level templates log the whole page.
    caplog.set_level(logging.INFO, "django.template")
    root.addHandler(log)
    yield log
    root.removeHandler(log)
    found = [line for line in log.lines + log.tracked if FORBIDDEN.search(line)]
    assert found == []
    assert log.lines


def send(**fields: Any) -> OutboundViberMessage:
    return send_viber_message(PHONE, TEXT, **fields)


def report(path: str, **parameters: str) -> int:
    return Client(raise_request_exception=False).get(path, parameters).status_code


def path_of(message: OutboundViberMessage) -> str:
    return reverse("esms_viber:callback", args=[make_token(message.pk, message.request_id)])


WORDS = f"{TEXT} to {PHONE} ({KEY})"
ANSWERS: dict[str, Any] = {
    "refused": refused("99", WORDS),
    "account": refused("103", WORDS),
    "in doubt": refused("199", WORDS),
    "a phone for a code": refused(PHONE, WORDS),
    "without a code": json_answer({"error": WORDS}),
    "sent, with words": json_answer({"CodeResult": "100", "SMSID": "sms-1", "Message": WORDS, "ErrorMessage": WORDS}),
    "content type": http_answer(b"<html>", status=502, content_type=f"text/{PHONE}"),
    "reason": [f"HTTP/1.1 500 {WORDS}\r\nX-Phone: {PHONE}\r\nContent-Length: 0\r\n\r\n".encode()],
    "redirect": redirect(f"/{PHONE}"),
    "time-out": [Hang()],
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_a_call_and_its_repeat(esms: Any, log: Log, settings: Any, answer: Any) -> None:
    esms.answer_all(answer)
    if answer == [Hang()]:
        settings.ESMS_VIBER = {**settings.ESMS_VIBER, "TIMEOUT": (PATIENCE, 0.4)}
    message = send(dedupe_key=KEY)
    queue_viber_message(OTHER_PHONE, TEXT)
    OutboundViberMessage.objects.update(next_attempt_at=timezone.now())
    deliver_due_messages()
    assert f"message {message.pk} to +8490***484: " in log.text


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (SendResult(outcome=CallOutcome.NOT_CONNECTED, text="Could not connect: name not found"), "name not found"),
        (
            SendResult(outcome=CallOutcome.NO_ANSWER, text="No answer in time · 30 s", duration_ms=30001),
            "No answer in time",
        ),
        (SendResult(outcome=CallOutcome.ANSWERED, code="104", http_status=200, text=WORDS), "code 104, HTTP 200"),
        (SendResult(outcome=CallOutcome.ANSWERED, code=PHONE, text=f"The answer has no code · {WORDS}"), "has no code"),
    ],
)
def test_what_the_log_says_of_a_call_is_of_use(log: Log, answer: SendResult, told: str) -> None:
    MemoryGateway.answers.append(answer)
    send()
    assert told in log.text
    assert answer.outcome.value in log.text


class RaisingGateway(MemoryGateway):
    def send(self, message: Any) -> SendResult:
        raise ValueError(f"cannot send {message!r} to {PHONE}") from KeyError(PHONE)

    fetch_status = send


def test_a_gateway_that_raises(settings: Any, log: Log) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.RaisingGateway"}
    message = send()
    OutboundViberMessage.objects.update(status="sent", sms_id="sms-1")
    refresh_viber_messages([message])
    assert "RaisingGateway.send raised ValueError" in log.text
    assert f"{__name__}:" in log.text


def test_a_dedupe_key_given_again(queue_only: None, log: Log) -> None:
    message = queue_viber_message(PHONE, TEXT, dedupe_key=KEY)
    send_viber_message(OTHER_PHONE, TEXT, dedupe_key=KEY)
    queue_viber_message(PHONE, f"{TEXT}!", dedupe_key=KEY)
    queue_viber_messages([OutboundViberMessage(phone=OTHER_PHONE, content=TEXT, dedupe_key=KEY) for _ in range(2)])
    assert log.text.count(f"dedupe key of message {message.pk} ") == 4


def test_no_line_of_ours_is_given_an_exception_to_quote() -> None:
    """`log_failure()` tells its type and where it was raised."""
    sources = Path(esms_viber.__file__).parent.rglob("*.py")
    assert [path.name for path in sources if re.search(r"exc_info|\.exception\(", path.read_text())] == []


# -- what eSMS reports -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"phonenumber": OTHER_PHONE},
        {"phonenumber": f"{PHONE} ext 5"},
        {"RequestId": PHONE},
        {"SMSID": PHONE},
        {"SMSID": PHONE * 9},
        {"SendStatus": PHONE},
        {"SendSuccess": PHONE},
        {"SendStatus": TEXT, PHONE: PHONE},
        {"TotalPrice": f"{PHONE} VND", "telcoid": TEXT},
    ],
    ids=repr,
)
def test_callbacks(log: Log, parameters: dict[str, str]) -> None:
    message = send()
    path = path_of(message)
    final = {"SendStatus": "5", "SendSuccess": "1", "phonenumber": PHONE, **parameters}
    for _ in range(2):
        assert report(path, **final) in {200, 400}
    report(reverse("esms_viber:callback", args=[make_token(message.pk, PHONE)]), **final)
    resend_viber_messages([message])
    report(path, **final)


def test_callbacks_that_are_too_many(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(callbacks, "MOST_EVENTS", 2)
    path = path_of(send())
    for number in range(4):
        assert report(path, SendStatus="7", n=f"{PHONE}{number}") == 200
    assert "moved nothing" in log.text


@contextmanager
def refused_by_the_database(kind: str) -> Iterator[str]:
    """The database takes no event of the kind, and says why in its own words; the code that it has for that."""
    table = ViberMessageEvent._meta.db_table
    match connection.vendor:
        case "postgresql":
            begin = [f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK (kind <> '{kind}') NOT VALID"]
            end, code = f"ALTER TABLE {table} DROP CONSTRAINT refused", "23514"
        case "mysql":
            condition = f"IF NEW.kind = '{kind}' THEN SIGNAL SQLSTATE '45000' SET MESSAGE_TEXT = NEW.data; END IF"
            begin = [f"CREATE TRIGGER refused BEFORE INSERT ON {table} FOR EACH ROW {condition}"]
            end, code = "DROP TRIGGER refused", "1644"
        case _:
            words = f"SELECT RAISE(ABORT, '{WORDS}')"
            begin = [f"CREATE TRIGGER refused BEFORE INSERT ON {table} WHEN NEW.kind = '{kind}' BEGIN {words}; END"]
            end, code = "DROP TRIGGER refused", "SQLITE_CONSTRAINT_TRIGGER"
    with connection.cursor() as cursor:
        for statement in begin:
            cursor.execute(statement)
    try:
        yield code
    finally:
        with connection.cursor() as cursor:
            cursor.execute(end)


def test_a_callback_that_the_database_refuses(log: Log) -> None:
    message = send()
    with refused_by_the_database("callback") as code:
        assert report(path_of(message), SendStatus="5", SendSuccess="1", phonenumber=PHONE, note=TEXT) == 500
    assert f"callback for message {message.pk} could not be applied: django.db.utils." in log.text
    assert f"callback for message {message.pk} could not be stored: django.db.utils." in log.text
    assert f"({code})" in log.text
    assert "esms_viber.reports.callbacks:" in log.text
    assert report(path_of(message), SendStatus="5", SendSuccess="1", phonenumber=PHONE, note=TEXT) == 200
    message.refresh_from_db()
    assert message.status == "delivered"


def test_a_result_that_the_database_refuses(log: Log) -> None:
    MemoryGateway.answers.extend([SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id=PHONE, text=WORDS)] * 2)
    with refused_by_the_database("attempt") as code:
        message = queue_viber_message(PHONE, TEXT, dedupe_key=KEY)
        assert send().status == "sending"
    assert f"what came of message {message.pk} cannot be stored" in log.text
    assert f"({code})" in log.text
    OutboundViberMessage.objects.update(lease_until=timezone.now())
    deliver_due_messages()
    assert "took over 2 messages" in log.text
    message.refresh_from_db()
    assert message.status == "sent"


def test_a_report_that_cannot_be_applied(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    message = send()

    def fail(*args: Any, **kwargs: Any) -> None:
        raise LookupError(WORDS)

    monkeypatch.setattr(callbacks.applying, "apply_report", fail)
    assert report(path_of(message), SendStatus="5", SendSuccess="1", phonenumber=PHONE) == 500
    assert "could not be applied: LookupError" in log.text


@pytest.mark.parametrize(
    "answer",
    [
        {"SendStatus": 5, "SendSuccess": 1, "TotalPrice": f"{PHONE} VND", "telcoid": TEXT},
        {"SendStatus": PHONE},
        {"SendStatus": TEXT, "ErrorMessage": WORDS},
        {"SMSID": PHONE, "SendStatus": 5, "SendSuccess": 1},
        {"CodeResponse": "105", "ErrorMessage": WORDS},
        {"CodeResponse": PHONE, "ErrorMessage": WORDS},
        {"ErrorMessage": WORDS, "CodeResponse": ""},
    ],
    ids=repr,
)
def test_status_queries(esms: Any, log: Log, clock: Any, answer: dict[str, Any]) -> None:
    message = send()
    esms.answer_all(json_answer({"CodeResponse": "100", "SMSID": message.sms_id, **answer}))
    clock.advance(minutes=6)
    refresh_due_messages()
    refresh_viber_messages([message])
    assert f"message {message.pk}" in log.text


# -- what people do ----------------------------------------------------------------------------------------------------


def test_resending_cancelling_and_settling(queue_only: None, log: Log) -> None:
    queued = queue_viber_message(PHONE, TEXT, dedupe_key=KEY)
    rows = [queue_viber_message(PHONE, TEXT) for _ in range(4)]
    before_2018, landline, long, sent = (row.pk for row in rows)
    of = OutboundViberMessage.objects
    of.filter(pk=before_2018).update(status="failed", phone="01201888484")
    of.filter(pk=landline).update(status="failed", phone=f"{PHONE}4")
    of.filter(pk=long).update(status="failed", content=TEXT * 90)
    of.filter(pk=sent).update(status="unknown")
    resend_viber_messages(of.all())
    resend_viber_messages(of.all())
    settle_viber_messages(of.all())
    cancel_viber_messages(of.all())
    assert f"message {queued.pk} is not sent again: It is in the queue already." in log.text
    assert f"message {before_2018} is not sent again: it cannot be sent as it stands." in log.text
    assert "1201888484" not in log.text
    assert "0701888484" not in log.text


def test_a_campaign_sent_twice(queue_only: None, log: Log) -> None:
    mailing = Mailing(campaign="tet", content=TEXT)
    user = get_user_model().objects.create_user("staff")
    found = review(mailing, read_pasted(f"{PHONE}\n{OTHER_PHONE}"))
    assert store(mailing, found, user=user) == 2
    for _person, message in found.ready:
        message.content += "!"
    assert store(mailing, found, user=user) == 0
    assert log.text.count("was given again for another phone or text") == 2


def test_a_campaigns_dedupe_key_holds_no_phone_and_keeps_one_message_for_each_phone() -> None:
    mailing = Mailing(campaign="x" * 100)
    keys = {mailing.dedupe_keys("+84901888484")[0], mailing.dedupe_keys("+84912345678")[0]}
    keys |= {Mailing(campaign="y" * 100).dedupe_keys("+84901888484")[0]}
    keys |= {Mailing(campaign="x" * 100, sandbox=True).dedupe_keys("+84901888484")[0]}
    assert len(keys) == 4
    assert mailing.dedupe_keys("+84901888484")[0] in keys
    for key in keys:
        assert not FORBIDDEN.search(key)
        assert len(key) <= 150


# -- what the site's own code does -------------------------------------------------------------------------------------


class ShopError(Exception):
    """With a customer's number in its text, its cause and its notes."""


def fail(*args: Any, **kwargs: Any) -> None:
    try:
        {}[PHONE]
    except KeyError as error:
        failure = ShopError(WORDS, PHONE, 901888484)
        failure.add_note(PHONE)
        raise failure from error


@contextmanager
def connected(signal: Any) -> Iterator[None]:
    signal.connect(fail)
    try:
        yield
    finally:
        signal.disconnect(fail)


@pytest.mark.parametrize(("signal", "told"), [(pre_send, "a pre_send receiver failed; message"), (status_changed, "")])
def test_a_receiver_that_fails(log: Log, signal: Any, told: str) -> None:
    with connected(signal):
        message = send()
        queue_viber_message(OTHER_PHONE, TEXT)
        play_callback(message)
        cancel_viber_messages([message])
    assert told in log.text
    assert f"{__name__}.ShopError" in log.text
    assert f"{__name__}:" in log.text
    assert "KeyError" in log.text


def test_a_dispatcher_that_fails(settings: Any, log: Log) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": fail}
    with transaction.atomic():
        queue_viber_message(PHONE, TEXT)
    assert f"1 messages stay queued: {__name__}.ShopError" in log.text


def test_a_dispatcher_that_is_not_there_is_named(settings: Any, log: Log) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "no.such"}
    queue_viber_message(PHONE, TEXT)
    assert 'ESMS_VIBER["DISPATCHER"] cannot be used' in log.text


def test_a_database_that_fails_while_watching(log: Log, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail_once(*args: Any, **kwargs: Any) -> None:
        stopped.append(True)
        raise OperationalError(WORDS)

    stopped: list[bool] = []
    monkeypatch.setattr(worker.Worker, "run", fail_once)
    watching.watch(should_stop=lambda: bool(stopped), on_progress=lambda count: None)
    assert "the database failed; what was on its way is taken over in two minutes: django.db.utils.Oper" in log.text


def test_an_object_that_cannot_be_shown(log: Log, queue_only: None, monkeypatch: pytest.MonkeyPatch) -> None:
    order = Order.objects.create()
    message = queue_viber_message(PHONE, TEXT, related_object=order)
    monkeypatch.setattr(Order, "__str__", fail)
    client = Client()
    client.force_login(get_user_model().objects.create_superuser("root"))
    page = client.get(reverse("admin:esms_viber_outboundvibermessage_change", args=[message.pk]))
    assert page.status_code == 200
    assert f"the object that message {message.pk} belongs to could not be read: {__name__}.ShopError" in log.text


def test_a_message_deleted_while_it_was_being_sent(settings: Any, log: Log) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"{__name__}.DeletingGateway", "CONCURRENCY": 1}
    send()
    assert "was deleted while it was being sent" in log.text


class DeletingGateway(MemoryGateway):
    def send(self, message: Any) -> SendResult:
        try:
            OutboundViberMessage.objects.all().delete()
        finally:
            connection.close()
        return super().send(message)
