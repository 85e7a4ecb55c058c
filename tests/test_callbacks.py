"""What happens when eSMS, or somebody else, calls a callback URL."""

from __future__ import annotations

import datetime as dt
import logging
from contextlib import contextmanager
from decimal import Decimal
from io import StringIO
from urllib.parse import urlencode, urlsplit
from uuid import UUID, uuid4

import pytest
from django.core.cache import caches
from django.core.management import call_command
from django.core.signing import Signer
from django.db import OperationalError, connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from django.utils.cache import add_never_cache_headers

from esms_viber.exceptions import MessageNotEditable
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.reports import applying, callbacks
from esms_viber.reports.parsing import LEFT_OUT
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    deliver_messages,
    queue_viber_message,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import status_changed
from esms_viber.tokens import make_token, read_token
from tests.factories import columns_of

pytestmark = pytest.mark.django_db

PHONE = "0901888484"
TAKEN = {"SendStatus": "7"}
DELIVERED = {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"}
UNDELIVERED = {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "1"}
TIME_OUT = SendResult(outcome=CallOutcome.NO_ANSWER, text="no answer within 30 s")
NO_TEMPLATE = SendResult(outcome=CallOutcome.ANSWERED, code="146", text="Template not match")


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


def callbacks_of(message):
    return list(message.events.filter(kind="callback"))


def token_of(path):
    return path.rstrip("/").rpartition("/")[2]


# -- what a report does ------------------------------------------------------------------------------------------------


def test_sample_of_the_documentation_makes_the_message_delivered_and_tells_what_it_cost():
    message, path = send(
        SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="849fe08c19294b02857cf91687021a50250")
    )

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
    message, path = send(NO_TEMPLATE)
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


@pytest.mark.parametrize("failed", [{}, {"SendFailed": ""}, {"SendFailed": "null"}, {"SendFailed": "-"}])
def test_missing_count_is_zero(failed):
    message, path = send()
    report(path, {"SendStatus": "5", "SendSuccess": "1"}, **failed)
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


@pytest.mark.parametrize("secret", ["tests", b"\xff bytes", "đ"])
def test_token_is_signed_as_by_djangos_own_signer(settings, secret):
    settings.SECRET_KEY = secret
    token = Signer(sep="~", salt="esms_viber.callback").sign("17.0123456789abcdef")
    assert make_token(17, "0123456789abcdef") == token
    assert read_token(token) == (17, "0123456789abcdef")


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


@pytest.mark.parametrize("request_id", ["0123456789abcdef" * 2, "another", ""])
@pytest.mark.parametrize("of", [None, TIME_OUT, NO_TEMPLATE])
def test_request_id_that_the_message_never_had_is_not_found_and_nothing_is_stored(request_id, of, caplog):
    """Another site, or another schema, with the same SECRET_KEY has a message with the same primary key."""
    message, _path = send(*[of] if of else [])
    before, events = columns_of(message), message.events.count()
    foreign = reverse("esms_viber:callback", args=[make_token(message.pk, request_id)])

    for _ in range(2):
        assert report(foreign, DELIVERED).status_code == 404

    assert (columns_of(message), message.events.count()) == (before, events)
    assert "never had" in caplog.text
    assert not request_id or request_id not in caplog.text


def test_a_draft_had_no_request_id():
    draft = OutboundViberMessage.objects.create(phone=PHONE, content="Later")
    for request_id in ("", uuid4().hex):
        path = reverse("esms_viber:callback", args=[make_token(draft.pk, request_id)])
        assert report(path, DELIVERED).status_code == 404
    assert not draft.events.exists()


def test_callback_stored_under_a_foreign_request_id_before_makes_it_none_of_the_message():
    message, _path = send()
    foreign = uuid4().hex
    message.events.create(kind="callback", request_id=foreign, data={"SendStatus": "7"}, fingerprint="before")
    path = reverse("esms_viber:callback", args=[make_token(message.pk, foreign)])
    assert report(path, DELIVERED).status_code == 404
    assert len(callbacks_of(message)) == 1


def test_request_id_of_a_sender_that_was_killed_is_one_of_the_message(settings, clock):
    """It left no attempt; what took the message over left an event under its RequestId."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    message = queue_viber_message(PHONE, "Hello")
    now = timezone.now()
    OutboundViberMessage.objects.update(status="sending", claim_id="gone", lease_until=now, uncertain_since=now)
    path = reverse("esms_viber:callback", args=[make_token(message.pk, message.request_id)])
    assert report(path, SendStatus="0", n="1").status_code == 200
    assert status_of(message) == "sending"
    clock.advance(minutes=5)
    MemoryGateway.answers.append(TIME_OUT)
    deliver_due_messages()
    OutboundViberMessage.objects.update(request_id="a-later-one")
    assert report(path, TAKEN, n="2").status_code == 200
    assert [event.request_id for event in callbacks_of(message)] == [message.request_id] * 2


def test_report_on_an_earlier_attempt_is_kept_and_moves_nothing():
    message, old_path = send(NO_TEMPLATE)
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


@pytest.mark.parametrize("phone", ["090188****", "xxxx8484", "***", "null", "None", "undefined", "-", "8484", "?"])
def test_phone_that_is_masked_or_cannot_be_read_contradicts_nothing(phone, caplog):
    message, path = send()
    assert report(path, DELIVERED, phonenumber=phone).status_code == 200
    assert status_of(message) == "delivered"
    assert "another phone" not in caplog.text
    assert callbacks_of(message)[0].data["phonenumber"] == phone


@pytest.mark.parametrize(
    "spell",
    [
        str.upper,
        lambda ours: f"  {ours} ",
        lambda ours: str(UUID(ours)),
        lambda ours: f"{{{UUID(ours)}}}".upper(),
        lambda ours: f"{ours[:8]}****",
        lambda ours: "null",
        lambda ours: "(null)",
        lambda ours: "-",
        lambda ours: str(UUID(int=0)),
        lambda ours: ours + "\x00",
        lambda ours: "d" * 200,
    ],
)
def test_request_id_agrees_in_any_spelling_and_contradicts_nothing_where_it_cannot_be_read(spell):
    message, path = send()
    assert report(path, DELIVERED, RequestId=spell(message.request_id)).status_code == 200
    assert status_of(message) == "delivered"


def test_another_smsid_is_kept_in_the_event_with_a_warning(caplog):
    message, path = send(SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="first"))

    assert report(path, DELIVERED, SMSID="second").status_code == 200

    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("delivered", "first")
    assert callbacks_of(message)[0].data["SMSID"] == "second"
    assert [r.levelname for r in caplog.records if "SMSID" in r.getMessage()] == ["WARNING"]


@pytest.mark.parametrize("status", ["queued", "cancelled"])
def test_report_on_a_message_that_was_never_sent_is_an_event_only(status, settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    MemoryGateway.answers.append(SendResult(outcome=CallOutcome.NOT_CONNECTED, text="refused"))
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
        {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "some"},
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


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[
            ("TotalPrice", value)
            for value in ["470,0000", "1,470.0000", "1.470", "null", "470 VND", "-1", "NaN", "1e400", "9" * 300, "\x00"]
        ],
        *[("telcoid", value) for value in ["Viettel", "1.5", "9" * 30, "\x00"]],
        *[("SMSID", value) for value in ["y" * 65, "y" * 100_000, "849fe08c\x00", "849f\nx", "849f****"]],
        *[("phonenumber", value) for value in ["nonsense", "0901888484 ext 5", "+1", "9" * 300]],
        *[("RequestId", value) for value in ["y" * 65, "?"]],
    ],
    ids=lambda text: repr(text[:12]),
)
def test_field_that_decides_nothing_costs_the_verdict_nothing(name, value, caplog):
    message, path = send(TIME_OUT)
    right = {"TotalPrice": "470.0000", "telcoid": "2", "SMSID": "sms-1", "phonenumber": PHONE}

    assert report(path, {**DELIVERED, **right, name: value}).status_code == 200

    message.refresh_from_db()
    found = {"TotalPrice": message.total_price, "telcoid": message.telco_id, "SMSID": message.sms_id}
    expected = {"TotalPrice": Decimal(470), "telcoid": 2, "SMSID": "sms-1"}
    if name in expected:
        expected[name] = "" if name == "SMSID" else None
    assert (message.status, found) == ("delivered", expected)
    (event,) = callbacks_of(message)
    assert event.applied
    if value != "null":
        assert event.text == LEFT_OUT[name]
        (warning,) = [r.getMessage() for r in caplog.records if "left out" in r.getMessage()]
        assert name in warning
        assert value not in warning
    else:
        assert event.text == ""


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


@pytest.mark.parametrize(
    "empty_words",
    [TAKEN, {"SendStatus": "0"}, {"SendStatus": "nonsense"}, {**DELIVERED, "phonenumber": "0901888485"}],
)
def test_at_most_a_hundred_callbacks_that_moved_nothing_are_kept_and_the_one_that_moves_is_applied(empty_words):
    message, path = send()
    for n in range(103):
        report(path, empty_words, n=str(n))
    assert len(callbacks_of(message)) == 100

    assert report(path, DELIVERED).status_code == 200
    assert status_of(message) == "delivered"
    assert [event.applied for event in callbacks_of(message)] == [False] * 100 + [True]
    report(path, UNDELIVERED)
    assert len(callbacks_of(message)) == 101


def test_callbacks_that_moved_the_status_do_not_count_among_the_hundred():
    message, path = send(TIME_OUT)
    report(path, TAKEN)
    report(path, DELIVERED)
    for n in range(103):
        report(path, TAKEN, n=str(n))
    assert [event.applied for event in callbacks_of(message)] == [True, True] + [False] * 100


def test_one_too_many_changes_nothing_else_either():
    message, path = send()
    for n in range(100):
        report(path, TAKEN, n=str(n))
    before = columns_of(message)
    assert report(path, TAKEN, TotalPrice="999", SMSID="another").status_code == 200
    assert columns_of(message) == before


@contextmanager
def statements():
    """The first words of what is sent to the database, but for the transactions' own."""
    found = []
    with CaptureQueriesContext(connection) as captured:
        yield found
    words = [query["sql"].split()[0].upper() for query in captured.captured_queries]
    found += [word for word in words if word in {"SELECT", "UPDATE", "INSERT", "DELETE"}]


@pytest.mark.parametrize("before", [0, 60])
def test_statements_of_a_callback_are_few_and_do_not_grow_with_the_history(before):
    message, path = send()
    for n in range(before):
        report(path, TAKEN, n=str(n))
    with statements() as first:
        report(path, TAKEN, SMSID="another")
    # The second SELECT counts the callbacks that moved nothing.
    assert first == ["SELECT", "SELECT", "UPDATE", "INSERT"]
    with statements() as nonsense:
        assert report(path, SendStatus="x").status_code == 400
    assert nonsense == ["SELECT", "SELECT", "UPDATE", "INSERT"]  # the UPDATE only holds the row against redaction
    with statements() as final:
        report(path, DELIVERED)
    assert final == ["SELECT", "UPDATE", "INSERT"]
    for parameters in (DELIVERED, {**TAKEN, "SMSID": "another"}, {"SendStatus": "x"}):
        with statements() as known:
            assert report(path, parameters).status_code == (400 if parameters["SendStatus"] == "x" else 200)
        assert known == ["SELECT"]
    with statements() as foreign:
        report(reverse("esms_viber:callback", args=[make_token(message.pk, uuid4().hex)]), DELIVERED)
    assert foreign == ["SELECT", "SELECT"]
    assert status_of(message) == "delivered"


@pytest.mark.parametrize("status", ["sending", "unknown", "failed", "sent"])
@pytest.mark.parametrize("parameters", [DELIVERED, UNDELIVERED, {**TAKEN, "SMSID": "another"}])
def test_no_column_is_missing_in_what_one_select_reads(status, parameters):
    message, path = send()
    now = timezone.now()
    empty = {"sms_id": "", "sent_at": None, "next_query_at": None, "send_status": None}
    columns = {"status": status, "claim_id": uuid4().hex, "held_up_since": now, "uncertain_since": now, **empty}
    OutboundViberMessage.objects.filter(pk=message.pk).update(**columns)
    with CaptureQueriesContext(connection) as captured:
        assert report(path, parameters).status_code == 200
    table = connection.ops.quote_name(OutboundViberMessage._meta.db_table)
    assert sum(query["sql"].startswith("SELECT") and table in query["sql"] for query in captured) == 1
    assert len(callbacks_of(message)) == 1


@pytest.mark.django_db(transaction=True)
def test_statements_of_a_callback_with_those_of_its_transaction():
    message, path = send(NO_TEMPLATE)
    old_path = path
    resend_viber_messages([message])
    deliver_messages([message.pk])
    path = last_path()

    def words_of(path, parameters):
        with CaptureQueriesContext(connection) as captured:
            report(path, parameters)
        return [query["sql"].split()[0].upper() for query in captured.captured_queries]

    assert words_of(path.replace("~", "~x"), DELIVERED) == []
    assert words_of(_changed(path, len(path) - 20), DELIVERED) == []
    for earlier in (old_path, path):
        words = words_of(earlier, {"SendStatus": "0"})
        assert words == ["SELECT", "SELECT", "BEGIN", "UPDATE", "INSERT", "COMMIT"]
        assert words_of(earlier, {"SendStatus": "0"}) == ["SELECT"]
    assert words_of(path, DELIVERED) == ["SELECT", "BEGIN", "UPDATE", "INSERT", "COMMIT"]
    assert words_of(path, DELIVERED) == ["SELECT"]
    assert status_of(message) == "delivered"


def test_database_that_returns_no_primary_keys_stores_callbacks_as_well(monkeypatch):
    message, path = send()
    name = "can_return_rows_from_bulk_insert"
    monkeypatch.setattr(type(connection.features), name, False)
    monkeypatch.delitem(vars(connection.features), name, raising=False)  # where Django has kept it
    for parameters in (TAKEN, DELIVERED, DELIVERED):
        assert report(path, parameters).status_code == 200
    assert [event.applied for event in callbacks_of(message)] == [False, True]
    assert status_of(message) == "delivered"


def test_repeat_of_a_report_on_the_way_begins_no_transaction():
    _message, path = send()
    report(path, TAKEN)
    with CaptureQueriesContext(connection) as captured:
        report(path, TAKEN)
    assert len(captured) == 1


@pytest.mark.django_db(transaction=True)
def test_receiver_is_given_the_message_and_the_event_whole():
    message, path = send(campaign="tet-2027", dedupe_key="order-17")
    told = []

    def receiver(message, event, **kwargs):
        told.append((message, event))

    status_changed.connect(receiver)
    try:
        report(path, DELIVERED, TotalPrice="470.0000")
    finally:
        status_changed.disconnect(receiver)
    ((given, event),) = told
    with CaptureQueriesContext(connection) as captured:
        found = {field.attname: getattr(given, field.attname) for field in given._meta.concrete_fields}
        noted = {field.attname: getattr(event, field.attname) for field in event._meta.concrete_fields}
    assert len(captured) == 0
    assert (given.get_deferred_fields(), event.get_deferred_fields()) == (set(), set())
    assert found == columns_of(message)
    assert noted == ViberMessageEvent.objects.filter(kind="callback").values().get()
    given.content = "Thank you"
    with pytest.raises(MessageNotEditable):
        given.save()


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


def test_no_cache_keeps_the_answer(settings):
    _message, path = send()
    for answer in (report(path, DELIVERED), report(path.replace("~", "~x")), Client().post(path)):
        plain = HttpResponse()
        add_never_cache_headers(plain)
        assert answer["Cache-Control"] == plain["Cache-Control"]
        # No date is in the past, says RFC 9111.
        assert answer["Expires"] == "0"


@pytest.mark.parametrize("parameters", [DELIVERED, {"SendStatus": "x"}])
def test_the_sites_own_cache_keeps_no_answer(settings, parameters):
    update, fetch = "django.middleware.cache.UpdateCacheMiddleware", "django.middleware.cache.FetchFromCacheMiddleware"
    settings.MIDDLEWARE = [update, *settings.MIDDLEWARE, fetch]
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.locmem.LocMemCache", "LOCATION": "callbacks"}}
    _message, path = send()
    assert report(path, parameters).status_code == report(path, parameters).status_code
    with statements() as known:
        report(path, parameters)
    assert known == ["SELECT"]
    assert not caches["default"]._cache


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
    monkeypatch.setattr(applying, "apply_report", _fail)
    return report(path, DELIVERED)


def _not_stored(path, monkeypatch):
    monkeypatch.setattr(callbacks, "insert_one", _fail)
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
        broken.setattr(applying, "apply_report", _fail)
        assert report(path, DELIVERED).status_code == 500
    (event,) = callbacks_of(message)
    assert (event.applied, status_of(message)) == (False, "sent")
    assert "OperationalError" in caplog.text
    assert "the disk is full" not in caplog.text, "an error of the database may quote the whole row"

    assert report(path, DELIVERED).status_code == 200
    (event,) = callbacks_of(message)
    assert (event.applied, status_of(message)) == (True, "delivered")


@pytest.mark.django_db(transaction=True)
def test_event_survives_the_rollback_of_what_was_applied(monkeypatch):
    message, path = send()

    def write_then_fail(message, report, event, **kwargs):
        OutboundViberMessage.objects.filter(pk=message.pk).update(telco_id=99)
        raise ValueError("a mistake of ours")

    with monkeypatch.context() as broken:
        broken.setattr(applying, "apply_report", write_then_fail)
        assert report(path, DELIVERED).status_code == 500
    (event,) = callbacks_of(message)
    assert not event.applied
    assert columns_of(message)["telco_id"] is None


def test_final_report_that_could_not_be_applied_is_kept_though_a_hundred_are(monkeypatch):
    message, path = send()
    for n in range(100):
        report(path, TAKEN, n=str(n))
    with monkeypatch.context() as broken:
        broken.setattr(applying, "apply_report", _fail)
        assert report(path, DELIVERED).status_code == 500
    assert report(path, DELIVERED).status_code == 200
    assert status_of(message) == "delivered"


def test_report_on_the_way_whose_applying_failed_adds_what_the_row_lacks_when_it_is_repeated(monkeypatch):
    message, path = send(SendResult(outcome=CallOutcome.ANSWERED, code="100"))
    with monkeypatch.context() as broken:
        broken.setattr(applying, "apply_report", _fail)
        assert report(path, TAKEN, SMSID="sms-1").status_code == 500
    assert report(path, TAKEN, SMSID="sms-1").status_code == 200
    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("sent", "sms-1")


def test_callback_is_not_kept_without_its_message_having_had_the_request_id(monkeypatch):
    message, _path = send()
    path = reverse("esms_viber:callback", args=[make_token(message.pk, uuid4().hex)])
    monkeypatch.setattr(callbacks, "_receive", _fail)
    assert report(path, DELIVERED).status_code == 500
    assert not callbacks_of(message)


@pytest.mark.parametrize(("meanwhile", "ends"), [("delivered", "delivered"), ("unknown", "undelivered")])
def test_what_has_moved_on_since_it_was_read_is_read_again(monkeypatch, meanwhile, ends):
    message, path = send(TIME_OUT)
    OutboundViberMessage.objects.update(status="sent")
    status_after = applying.status_after

    def then_somebody_else(*args):
        monkeypatch.setattr(applying, "status_after", status_after)
        try:
            return status_after(*args)
        finally:
            OutboundViberMessage.objects.update(status=meanwhile)

    monkeypatch.setattr(applying, "status_after", then_somebody_else)
    assert report(path, UNDELIVERED).status_code == 200
    assert status_of(message) == ends
    (event,) = callbacks_of(message)
    assert event.applied is (ends == "undelivered")


def test_what_moves_on_each_time_is_read_a_few_times_and_kept(monkeypatch):
    message, path = send()
    tries = []

    def moved_on(*args, **kwargs):
        tries.append(args)
        raise applying.MovedOn

    monkeypatch.setattr(applying, "apply_report", moved_on)
    assert report(path, DELIVERED).status_code == 500
    assert 2 <= len(tries) <= 10
    assert len(callbacks_of(message)) == 1


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
    monkeypatch.setattr(applying, "apply_report", _fail)
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
    assert "status_changed receiver failed: ValueError" in caplog.text
    assert "the shop is closed" not in caplog.text


# -- applied later -----------------------------------------------------------------------------------------------------


def refresh() -> str:
    out = StringIO()
    call_command("refresh_viber_messages", stdout=out)
    return out.getvalue()


def could_not_be_applied(monkeypatch, path, parameters=DELIVERED):
    with monkeypatch.context() as broken:
        broken.setattr(applying, "apply_report", _fail)
        assert report(path, parameters).status_code == 500


@pytest.mark.django_db(transaction=True)
def test_a_report_whose_applying_failed_is_applied_by_the_command(monkeypatch, clock):
    message, path = send()
    could_not_be_applied(monkeypatch, path)
    assert "applied" not in refresh(), "eSMS may repeat it at once"
    clock.advance(minutes=2)
    assert refresh().startswith("One stored report was applied.\n")
    (event,) = callbacks_of(message)
    assert (event.applied, event.apply_again_at, status_of(message)) == (True, None, "delivered")
    assert "applied" not in refresh()
    assert report(path, DELIVERED).status_code == 200
    assert len(callbacks_of(message)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_stored_report_with_more_than_is_kept_is_applied_too(monkeypatch, clock):
    message, path = send()
    could_not_be_applied(monkeypatch, path, {**DELIVERED, "padding": "x" * 500, **{f"p{n}": "1" for n in range(60)}})
    clock.advance(minutes=2)
    refresh()
    (event,) = callbacks_of(message)
    assert (event.applied, status_of(message)) == (True, "delivered")


@pytest.mark.django_db(transaction=True)
def test_a_report_that_was_repeated_meanwhile_is_not_counted_again(monkeypatch, clock):
    message, path = send()
    could_not_be_applied(monkeypatch, path)
    assert report(path, DELIVERED).status_code == 200
    clock.advance(minutes=2)
    assert "applied" not in refresh()
    (event,) = callbacks_of(message)
    assert (event.applied, event.apply_again_at) == (True, None)


@pytest.mark.django_db(transaction=True)
def test_a_stored_report_that_moves_nothing_is_tried_once(monkeypatch, clock):
    message, path = send()
    could_not_be_applied(monkeypatch, path, UNDELIVERED)
    assert report(path, DELIVERED).status_code == 200
    clock.advance(minutes=2)
    assert "applied" not in refresh()
    assert status_of(message) == "delivered"
    assert {event.apply_again_at for event in callbacks_of(message)} == {None}


@pytest.mark.django_db(transaction=True)
def test_a_report_that_fails_again_is_tried_hourly_for_seven_days(monkeypatch, clock, caplog):
    message, path = send()
    could_not_be_applied(monkeypatch, path)
    clock.advance(minutes=2)
    with monkeypatch.context() as broken:
        broken.setattr(applying, "apply_report", _fail)
        refresh()
        assert "stored report for message" in caplog.text
        (event,) = callbacks_of(message)
        assert dt.timedelta(minutes=59) < event.apply_again_at - timezone.now() <= dt.timedelta(hours=1)
        clock.advance(days=7)
        refresh()
        (event,) = callbacks_of(message)
        assert event.apply_again_at is None
    assert status_of(message) == "sent"


@pytest.mark.django_db(transaction=True)
def test_stored_reports_are_read_in_slices_by_an_index(monkeypatch, clock):
    sent = [send() for _number in range(5)]
    for _message, path in sent:
        could_not_be_applied(monkeypatch, path)
    monkeypatch.setattr(callbacks, "_SLICE", 2)
    monkeypatch.setattr(callbacks, "_MOST_APPLIED", 4)
    clock.advance(minutes=2)
    assert callbacks.apply_stored_reports() == 4
    assert callbacks.apply_stored_reports() == 1
    assert callbacks.apply_stored_reports() == 0
    index = next(each for each in ViberMessageEvent._meta.indexes if each.name == "esms_viber_apply_again")
    assert index.fields == ["apply_again_at", "id"]
