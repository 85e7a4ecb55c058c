"""What happens when eSMS, or somebody else, calls a callback URL."""

from __future__ import annotations

import datetime as dt
import logging
from decimal import Decimal
from urllib.parse import urlencode, urlsplit

import pytest
from django.core.signing import Signer
from django.db import OperationalError, connection
from django.test import Client
from django.urls import reverse

from esms_viber import recording
from esms_viber.gateways.base import Reach, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.services import (
    cancel_viber_messages,
    deliver_messages,
    queue_viber_message,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import status_changed

pytestmark = pytest.mark.django_db

PHONE = "0901888484"
TAKEN = {"SendStatus": "7"}
DELIVERED = {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}
UNDELIVERED = {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "1"}
TIME_OUT = SendResult(reach=Reach.NO_ANSWER, text="no answer within 30 s")
NO_BRAND = SendResult(reach=Reach.ANSWERED, code="104", text="Brandname code is not exist")


@pytest.fixture(autouse=True)
def _fresh_gateway():
    MemoryGateway.reset()
    yield
    MemoryGateway.reset()


@pytest.fixture
def moves():
    """Every `status_changed`: old status, new status, and whether a transaction was open."""
    seen = []

    def receiver(message, old_status, new_status, event, **kwargs):
        seen.append((old_status, new_status, event and event.kind, connection.in_atomic_block))

    status_changed.connect(receiver)
    yield seen
    status_changed.disconnect(receiver)


def send(*answers, **fields):
    """A message that was sent and answered so, and the path that eSMS was told to report to."""
    MemoryGateway.answers.extend(answers)
    message = send_viber_message(PHONE, "Your order is on its way", **fields)
    return message, last_path()


def last_path():
    return urlsplit(outbox[-1].callback_url).path


def report(path, parameters=None, **more):
    return Client(raise_request_exception=False).get(path, {**(parameters or {}), **more})


def status_of(message):
    return OutboundViberMessage.objects.get(pk=message.pk).status


def columns_of(message):
    return OutboundViberMessage.objects.filter(pk=message.pk).values().get()


def callbacks_of(message):
    return list(message.events.filter(kind="callback"))


def token_of(path):
    return path.rstrip("/").rpartition("/")[2]


# -- what a report does ------------------------------------------------------------------------------------------------


def test_sample_of_the_documentation_makes_the_message_delivered_and_tells_what_it_cost():
    message, path = send(SendResult(reach=Reach.ANSWERED, code="100", sms_id="849fe08c19294b02857cf91687021a50250"))

    response = Client().get(
        path + "?SMSID=849fe08c19294b02857cf91687021a50250&SendFailed=0&SendStatus=5&SendSuccess=1"
        "&TotalPrice=470.0000&TotalReceiver=1&TotalSent=1&RequestId=&TypeId=23&telcoid=2&phonenumber=0901888484"
    )

    assert (response.status_code, len(response.content) < 20) == (200, True)
    message.refresh_from_db()
    assert message.status == "delivered"
    assert (message.total_price, message.telco_id, message.send_status) == (Decimal("470.0000"), 2, 5)
    assert message.completed_at is not None
    (event,) = callbacks_of(message)
    assert event.applied
    assert event.request_id == message.request_id
    assert event.data["TotalPrice"] == "470.0000"


@pytest.mark.parametrize("status", ["1", "2", "7"])
@pytest.mark.parametrize(("final", "end"), [(DELIVERED, "delivered"), (UNDELIVERED, "undelivered")])
def test_reports_on_the_way_leave_it_sent_until_the_final_one(status, final, end):
    message, path = send()

    assert report(path, SendStatus=status).status_code == 200
    assert status_of(message) == "sent"
    assert report(path, final).status_code == 200
    assert status_of(message) == end
    assert [event.applied for event in callbacks_of(message)] == [False, True]


@pytest.mark.parametrize("status", ["1", "2", "7"])
def test_report_on_the_way_proves_that_an_unknown_message_was_taken(status):
    message, path = send(TIME_OUT)
    assert message.status == "unknown"

    report(path, SendStatus=status, SMSID="sms-1")

    message.refresh_from_db()
    assert (message.status, message.sms_id, message.next_attempt_at) == ("sent", "sms-1", None)
    assert message.sent_at is not None


def test_refused_by_viber_is_undelivered():
    message, path = send()
    report(path, SendStatus="4")
    assert status_of(message) == "undelivered"


@pytest.mark.parametrize("final", [DELIVERED, UNDELIVERED])
@pytest.mark.parametrize("later", [DELIVERED, UNDELIVERED, TAKEN, {"SendStatus": "4"}, {"SendStatus": "1"}])
def test_first_final_report_stays_whatever_comes_later(final, later):
    message, path = send()
    report(path, final, TotalPrice="470")
    before = columns_of(message)

    assert report(path, later, TotalPrice="999", telcoid="9", SMSID="other").status_code == 200

    assert columns_of(message) == before
    assert len(callbacks_of(message)) == 2


@pytest.mark.parametrize(("final", "end"), [(DELIVERED, "delivered"), (UNDELIVERED, "undelivered")])
def test_final_report_corrects_a_refusal(final, end):
    message, path = send(NO_BRAND)
    assert message.status == "failed"
    report(path, final)
    assert status_of(message) == end


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"SendStatus": ""},
        {"SendStatus": "0"},
        {"SendStatus": "3"},
        {"SendStatus": "6"},
        {"SendStatus": "-1"},
        {"SendStatus": "5"},
        {"SendStatus": "5", "SendSuccess": "", "SendFailed": ""},
        {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "0"},
        {"SendSuccess": "1", "SendFailed": "0"},
    ],
)
@pytest.mark.parametrize("answer", [None, TIME_OUT])
def test_report_that_decides_nothing_is_an_event_only(parameters, answer):
    message, path = send(*[answer] if answer else [])
    before = columns_of(message)

    assert report(path, parameters).status_code == 200

    assert columns_of(message) == before
    (event,) = callbacks_of(message)
    assert not event.applied


def test_one_failure_among_the_counts_is_not_a_success():
    message, path = send()
    report(path, SendStatus="5", SendSuccess="1", SendFailed="1")
    assert status_of(message) == "undelivered"


@pytest.mark.parametrize("counts", [{"SendSuccess": "1"}, {"SendSuccess": "1", "SendFailed": ""}])
def test_missing_count_is_zero(counts):
    message, path = send()
    report(path, {"SendStatus": "5"}, **counts)
    assert status_of(message) == "delivered"


def test_what_was_reported_without_an_answer_counts_from_its_first_call(clock):
    message, path = send(TIME_OUT)
    called_at = OutboundViberMessage.objects.get().uncertain_since
    clock.advance(hours=3)
    report(path, DELIVERED)
    message.refresh_from_db()
    assert message.sent_at == called_at
    assert message.completed_at - message.sent_at >= dt.timedelta(hours=3)


def test_names_count_in_any_case_and_unknown_ones_are_kept():
    message, path = send(TIME_OUT)
    report(
        path,
        {
            "smsid": "sms-1",
            "SENDSTATUS": "5",
            "sendsuccess": "1",
            "Totalprice": "1234.5678",
            "TelcoID": "1",
            "new": "x",
        },
    )
    message.refresh_from_db()
    assert (message.status, message.sms_id, message.total_price, message.telco_id) == (
        "delivered",
        "sms-1",
        Decimal("1234.5678"),
        1,
    )
    assert callbacks_of(message)[0].data["new"] == "x"


def test_sandbox_message_rests_at_sent_and_takes_a_report_if_one_comes():
    message, path = send(sandbox=True)
    assert status_of(message) == "sent"
    assert report(path, DELIVERED).status_code == 200
    assert status_of(message) == "delivered"


# -- who may report ----------------------------------------------------------------------------------------------------


def _changed(text, position):
    other = "A" if text[position] != "A" else "B"
    return text[:position] + other + text[position + 1 :]


def _in_the_middle_of_the_request_id(token):
    return _changed(token, token.index(".") + 10)


def _in_the_middle_of_the_signature(token):
    return _changed(token, (token.index("~") + len(token)) // 2)


def _for_another_row(token):
    return f"{int(token.partition('.')[0]) + 1}.{token.partition('.')[2]}"


def _with_another_salt(token):
    return Signer(sep="~", salt="somebody.else").sign(token.rpartition("~")[0])


def _without_signature(token):
    return token.rpartition("~")[0]


def _with_another_key(token):
    return Signer(key="guessed", sep="~", salt="esms_viber.callback").sign(token.rpartition("~")[0])


@pytest.mark.parametrize(
    "tamper",
    [
        _in_the_middle_of_the_request_id,
        _in_the_middle_of_the_signature,
        _for_another_row,
        _with_another_salt,
        _with_another_key,
        _without_signature,
        lambda token: "x",
        lambda token: token + "\x00",
        lambda token: "~",
        lambda token: "đ" * 3000,
    ],
)
@pytest.mark.parametrize("method", ["get", "post", "head"])
def test_without_a_valid_token_nothing_is_stored_and_nothing_moves(tamper, method):
    message, path = send()
    other, _ = send()
    url = reverse("esms_viber:callback", args=[tamper(token_of(path))])

    response = getattr(Client(), method)(f"{url}?{urlencode(DELIVERED)}")

    assert response.status_code == 404
    assert not ViberMessageEvent.objects.filter(kind="callback").exists()
    assert (status_of(message), status_of(other)) == ("sent", "sent")


def test_token_outlives_a_rotated_secret_key_as_long_as_the_old_one_is_a_fallback(settings):
    message, path = send()
    settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = "new", ["tests"]
    assert report(path, TAKEN).status_code == 200

    settings.SECRET_KEY_FALLBACKS = []
    assert report(path, DELIVERED).status_code == 404
    assert status_of(message) == "sent"


def test_token_is_short_and_survives_a_url_inside_a_url_unchanged():
    _message, path = send()
    token = token_of(path)
    assert len(token) < 100
    assert urlencode({"t": token}) == f"t={token}"


def test_deleted_message_is_not_found_and_nothing_is_stored():
    message, path = send()
    message.delete()
    assert report(path, DELIVERED).status_code == 404
    assert not ViberMessageEvent.objects.exists()


def test_report_on_an_earlier_attempt_is_kept_and_moves_nothing():
    message, old_path = send(NO_BRAND)
    resend_viber_messages([message])
    assert report(old_path, DELIVERED).status_code == 200
    assert status_of(message) == "queued"
    deliver_messages([message.pk])
    assert report(old_path, UNDELIVERED).status_code == 200
    assert status_of(message) == "sent"

    message.refresh_from_db()
    old, older = callbacks_of(message)
    assert message.request_id not in {old.request_id, older.request_id}
    assert (old.applied, older.applied) == (False, False)

    report(last_path(), DELIVERED)
    assert status_of(message) == "delivered"


@pytest.mark.parametrize("contradiction", [{"RequestId": "another"}, {"phonenumber": "0901888485"}])
def test_report_that_contradicts_its_token_is_kept_with_a_warning_and_moves_nothing(contradiction, caplog):
    message, path = send()
    before = columns_of(message)

    assert report(path, DELIVERED, **contradiction).status_code == 200

    assert columns_of(message) == before
    assert not callbacks_of(message)[0].applied
    assert [r.levelname for r in caplog.records if r.name.startswith("esms_viber") and "callback" in r.msg] == [
        "WARNING"
    ]


@pytest.mark.parametrize("phone", ["0901888484", "84901888484", "+84901888484", "0901 888 484", ""])
def test_phone_agrees_in_any_spelling(phone):
    message, path = send()
    report(path, DELIVERED, phonenumber=phone, RequestId=message.request_id)
    assert status_of(message) == "delivered"


def test_another_smsid_is_kept_in_the_event_with_a_warning(caplog):
    message, path = send(SendResult(reach=Reach.ANSWERED, code="100", sms_id="first"))

    assert report(path, DELIVERED, SMSID="second").status_code == 200

    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("delivered", "first")
    assert callbacks_of(message)[0].data["SMSID"] == "second"
    assert [r.levelname for r in caplog.records if "SMSID" in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("status", ["queued", "cancelled"])
def test_report_on_a_message_that_was_never_sent_is_an_event_only(status, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    MemoryGateway.answers.append(SendResult(reach=Reach.NOT_CONNECTED, text="refused"))
    message = queue_viber_message(PHONE, "Hello")
    deliver_messages([message.pk])
    path = last_path()
    if status == "cancelled":
        cancel_viber_messages([message])

    assert report(path, DELIVERED).status_code == 200

    assert status_of(message) == status
    assert len(callbacks_of(message)) == 1


# -- what is inside ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "nonsense",
    [
        {"SendStatus": "delivered"},
        {"SendStatus": "5.5", "SendSuccess": "1"},
        {"SendStatus": "９"},
        {"SendStatus": "9" * 30},
        {"SendStatus": "5\x00", "SendSuccess": "1"},
        {"SendStatus": "5", "SendSuccess": "-1"},
        {"SendStatus": "5", "SendSuccess": "many"},
        {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "null"},
        {"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "NaN"},
        {"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "Infinity"},
        {"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "1e99"},
        {"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "-470"},
        {"SendStatus": "5", "SendSuccess": "1", "telcoid": "Viettel"},
        {"SendStatus": "5", "SendSuccess": "1", "SMSID": "x" * 65},
        {"SendStatus": "5", "SendSuccess": "1", "SMSID": "x" * 100_000},
        {"SendStatus": "x" * 100_000},
    ],
    ids=lambda parameters: urlencode(parameters)[:60],
)
def test_nonsense_is_refused_and_kept(nonsense):
    message, path = send()
    before = columns_of(message)

    assert [report(path, nonsense).status_code for _ in range(2)] == [400, 400]

    assert columns_of(message) == before
    (event,) = callbacks_of(message)
    assert not event.applied
    assert report(path, DELIVERED).status_code == 200
    assert status_of(message) == "delivered"


def test_smsid_with_a_control_character_is_nonsense_and_is_not_recorded_in_another_spelling():
    message, path = send(TIME_OUT)
    assert report(path, DELIVERED, SMSID="849fe08c\x00").status_code == 400
    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("unknown", "")
    assert len(callbacks_of(message)) == 1


@pytest.mark.parametrize("field", ["RequestId", "phonenumber"])
def test_identifier_with_a_control_character_agrees_with_nothing(field):
    message, path = send(TIME_OUT)
    right = {"RequestId": message.request_id, "phonenumber": PHONE}[field]
    assert report(path, DELIVERED, **{field: right + "\x00"}).status_code in {200, 400}
    assert status_of(message) == "unknown"
    assert len(callbacks_of(message)) == 1


def test_whatever_comes_beside_the_report_is_kept_within_bounds():
    message, path = send()
    extra = {
        "nul\x00": "a\x00b",
        "emoji": "🚚" * 300,
        "long": "x" * 100_000,
        "k" * 5000: "y",
        "line": "a\r\nb",
        "": "z",
    }

    assert report(path, {**extra, **DELIVERED}).status_code == 200

    assert status_of(message) == "delivered"
    data = callbacks_of(message)[0].data
    assert all(len(name) <= 64 and len(value) <= 200 for name, value in data.items())
    assert not any("\x00" in text or "\n" in text for pair in data.items() for text in pair)
    assert data["emoji"].startswith("🚚")
    assert data["SendStatus"] == "5"


def test_bytes_that_are_no_utf_8_do_not_harm():
    message, path = send()
    response = Client().get(path + "?SendStatus=5&SendSuccess=1&note=%ff%fe%ed%a0%80")
    assert response.status_code == 200
    assert status_of(message) == "delivered"


def test_many_parameters_do_not_hide_the_report():
    message, path = send()
    assert report(path, {**{f"a{n}": "x" for n in range(900)}, **DELIVERED}).status_code == 200
    assert status_of(message) == "delivered"
    assert len(callbacks_of(message)[0].data) < 100


def test_too_many_parameters_are_nonsense_and_leave_an_event():
    message, path = send()
    assert report(path, {**DELIVERED, **{f"a{n}": "x" for n in range(2000)}}).status_code == 400
    assert status_of(message) == "sent"
    assert len(callbacks_of(message)) == 1


def test_repeated_callback_is_stored_once_in_whatever_order_and_case_it_comes():
    message, path = send()
    for query in (
        "SendStatus=5&SendSuccess=1&SMSID=a",
        "SendStatus=5&SendSuccess=1&SMSID=a",
        "SMSID=a&SendSuccess=1&SendStatus=5",
        "smsid=a&sendsuccess=1&SENDSTATUS=5",
    ):
        assert Client().get(f"{path}?{query}").status_code == 200
    assert len(callbacks_of(message)) == 1
    report(path, SendStatus="5", SendSuccess="1", SMSID="A")
    assert len(callbacks_of(message)) == 2


def test_at_most_a_hundred_callbacks_are_kept_and_none_is_believed_without_being_kept():
    message, path = send()
    answers = {report(path, TAKEN, n=str(n)).status_code for n in range(103)}
    assert answers == {200}
    assert report(path, DELIVERED).status_code == 200
    assert message.events.filter(kind="callback").count() == 100
    assert status_of(message) == "sent"


def test_number_of_queries_does_not_grow_with_the_history(django_assert_max_num_queries):
    message, path = send()
    with django_assert_max_num_queries(16) as first:
        report(path, TAKEN, n="first")
        needed = len(first)
    for n in range(60):
        report(path, TAKEN, n=str(n))
    with django_assert_max_num_queries(needed):
        report(path, TAKEN, n="last")
    with django_assert_max_num_queries(16):
        report(path, DELIVERED)
    assert status_of(message) == "delivered"


# -- how it is asked ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["post", "head", "put", "patch", "delete", "options", "trace"])
@pytest.mark.parametrize("csrf", [False, True])
def test_only_get_is_taken(method, csrf):
    message, path = send()
    response = getattr(Client(enforce_csrf_checks=csrf), method)(f"{path}?{urlencode(DELIVERED)}")
    assert (response.status_code, response["Allow"]) == (405, "GET")
    assert not callbacks_of(message)
    assert status_of(message) == "sent"


@pytest.mark.parametrize("append_slash", [False, True])
@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("secure", [False, True])
@pytest.mark.parametrize("host", ["testserver", "127.0.0.1"])
def test_callback_is_answered_without_redirect_or_login(settings, append_slash, slash, secure, host):
    settings.APPEND_SLASH = append_slash
    assert "django.contrib.auth.middleware.LoginRequiredMiddleware" in settings.MIDDLEWARE
    message, path = send()
    client = Client(enforce_csrf_checks=True, headers={"host": host})

    response = client.get(path.rstrip("/") + slash, DELIVERED, secure=secure)

    assert response.status_code == 200
    assert status_of(message) == "delivered"


@pytest.mark.parametrize("method", ["post", "head"])
def test_other_methods_are_not_redirected_either(method):
    _message, path = send()
    assert getattr(Client(enforce_csrf_checks=True), method)(path.rstrip("/")).status_code == 405


def test_no_cache_keeps_the_answer():
    _message, path = send()
    assert "no-store" in report(path, DELIVERED)["Cache-Control"]


# -- the token stays out of the log ------------------------------------------------------------------------------------


def everything_logged(caplog):
    return caplog.text + "".join(str(vars(record)) for record in caplog.records)


def _taken(path, monkeypatch):
    return report(path, DELIVERED)


def _nonsense(path, monkeypatch):
    return report(path, SendStatus="x")


def _wrong_method(path, monkeypatch):
    return Client().post(path)


def _too_many(path, monkeypatch):
    return report(path, {f"a{n}": "x" for n in range(2000)})


def _deleted(path, monkeypatch):
    OutboundViberMessage.objects.all().delete()
    return report(path, DELIVERED)


def _not_applied(path, monkeypatch):
    monkeypatch.setattr(recording, "apply_report", _fail)
    return report(path, DELIVERED)


def _not_stored(path, monkeypatch):
    monkeypatch.setattr(ViberMessageEvent, "save", _fail)
    return report(path, DELIVERED)


def _fail(*args, **kwargs):
    raise OperationalError("the disk is full")


@pytest.mark.parametrize(
    ("ask", "answer"),
    [
        (_taken, 200),
        (_nonsense, 400),
        (_too_many, 400),
        (_deleted, 404),
        (_wrong_method, 405),
        (_not_applied, 500),
        (_not_stored, 500),
    ],
)
def test_valid_token_is_never_logged(ask, answer, caplog, monkeypatch):
    _message, path = send()
    caplog.clear()
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.DEBUG, logger="django.request")

    assert ask(path, monkeypatch).status_code == answer

    assert token_of(path) not in everything_logged(caplog)
    assert path not in everything_logged(caplog)


# -- written down first, believed afterwards ---------------------------------------------------------------------------


def test_event_survives_when_applying_fails_and_the_repeat_applies_it(monkeypatch, caplog):
    message, path = send()
    with monkeypatch.context() as broken:
        broken.setattr(recording, "apply_report", _fail)
        assert report(path, DELIVERED).status_code == 500
    (event,) = callbacks_of(message)
    assert (event.applied, status_of(message)) == (False, "sent")
    assert "the disk is full" in caplog.text

    assert report(path, DELIVERED).status_code == 200
    (event,) = callbacks_of(message)
    assert (event.applied, status_of(message)) == (True, "delivered")


@pytest.mark.django_db(transaction=True)
def test_event_is_written_before_it_is_applied_and_survives_the_rollback_of_that(monkeypatch):
    message, path = send()
    seen = []

    def write_then_fail(message, report, event):
        seen.append(ViberMessageEvent.objects.filter(pk=event.pk).exists())
        OutboundViberMessage.objects.filter(pk=message.pk).update(telco_id=99)
        raise OperationalError("the connection broke")

    monkeypatch.setattr(recording, "apply_report", write_then_fail)
    assert report(path, DELIVERED).status_code == 500
    assert seen == [True]
    assert len(callbacks_of(message)) == 1
    assert columns_of(message)["telco_id"] is None


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("atomic_requests", [False, True])
def test_status_changed_comes_once_and_after_the_commit(moves, monkeypatch, atomic_requests):
    message, path = send()
    moves.clear()
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", atomic_requests)

    for parameters in (TAKEN, DELIVERED, DELIVERED, UNDELIVERED):
        assert report(path, parameters).status_code == 200

    assert moves == [("sent", "delivered", "callback", False)]
    assert status_of(message) == "delivered"


@pytest.mark.django_db(transaction=True)
def test_event_survives_a_failure_under_atomic_requests(monkeypatch):
    message, path = send()
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    monkeypatch.setattr(recording, "apply_report", _fail)
    assert report(path, DELIVERED).status_code == 500
    assert len(callbacks_of(message)) == 1


@pytest.mark.django_db(transaction=True)
def test_receiver_that_fails_does_not_undo_a_report(caplog):
    message, path = send()

    def receiver(**kwargs):
        raise ValueError("the shop is closed")

    status_changed.connect(receiver)
    try:
        assert report(path, DELIVERED).status_code == 200
    finally:
        status_changed.disconnect(receiver)
    assert status_of(message) == "delivered"
    assert "the shop is closed" in caplog.text
