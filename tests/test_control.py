"""Control: who gets what, when, and where to; opt-outs, pauses, purposes, hours, expiry and `ONLY_TO`."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import threading
import time
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.core.exceptions import ValidationError
from django.db import OperationalError, close_old_connections, connection, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber import creation
from esms_viber.checks.settings import check_settings
from esms_viber.delivery import claims, worker
from esms_viber.dispatch import inline
from esms_viber.exceptions import MessageNotEditable
from esms_viber.gateways.memory import outbox
from esms_viber.models import (
    OutboundViberMessage,
    Purpose,
    Status,
    ViberMessageEvent,
    ViberOptOut,
    ViberPause,
)
from esms_viber.monitoring import get_queue_status
from esms_viber.services import (
    aqueue_viber_message,
    asend_viber_message,
    deliver_due_messages,
    deliver_messages,
    opt_out,
    pause_sending,
    queue_stored_message,
    queue_viber_message,
    queue_viber_messages,
    resend_viber_messages,
    resume_sending,
    send_viber_message,
    withdraw_opt_out,
)
from esms_viber.signals import pre_send, status_changed
from tests.clock import VIETNAM, Clock
from tests.factories import PHONE, TEXT, row, show_status, stored, unsaved
from tests.fake_gateway import accepted, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

E164 = "+84901888484"
LIST = "/admin/esms_viber/outboundvibermessage/"
PROMOTIONAL, TRANSACTIONAL = Purpose.PROMOTIONAL, Purpose.TRANSACTIONAL


@pytest.fixture(autouse=True)
def _queue_only(queue_only: None) -> None:
    """Sending begins when a test says so."""


def change(settings: Any, **keys: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, **keys}


def at(clock: Clock, hour: int, minute: int = 0) -> dt.datetime:
    """Set the clock to this time of the present day in Vietnam."""
    when = dt.datetime.now(VIETNAM).replace(hour=hour, minute=minute, second=0, microsecond=0)
    clock.set(when)
    return when


# -- opt-outs ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("store", [queue_viber_message, send_viber_message])
@pytest.mark.parametrize(
    ("scope", "purpose", "is_sent"),
    [
        ("promotional", "promotional", False),
        ("promotional", "transactional", True),
        ("everything", "promotional", False),
        ("everything", "transactional", False),
    ],
)
def test_who_has_opted_out_gets_no_message_and_no_order_fails_for_it(store, scope, purpose, is_sent) -> None:
    opt_out("0901 888 484", scope=scope)
    message = store(PHONE, TEXT, purpose=purpose, dedupe_key="order-17")
    deliver_due_messages()
    assert (stored(message).status == Status.SENT) is is_sent
    assert len(outbox) == is_sent
    if not is_sent:
        assert message.status == stored(message).status == Status.CANCELLED
        assert stored(message).error_message == "Not sent: this phone has opted out."
        assert [event.kind for event in message.events.all()] == ["requested", "note"]
        # The key is kept: the same order does not try again.
        assert store(PHONE, TEXT, purpose=purpose, dedupe_key="order-17") == message


def test_an_opt_out_is_asked_again_when_its_message_is_claimed() -> None:
    message = queue_viber_message(PHONE, TEXT, purpose=PROMOTIONAL)
    other = queue_viber_message("0912345678", TEXT, purpose=PROMOTIONAL)
    opt_out(PHONE, scope="promotional")
    summary = deliver_due_messages()
    assert (summary.sent, summary.failed) == (1, 1)
    assert stored(message).status == Status.CANCELLED
    assert stored(other).status == Status.SENT
    assert [sent.phone for sent in outbox] == ["+84912345678"]


def test_an_unknown_message_to_who_has_opted_out_is_not_repeated_and_stays() -> None:
    now = timezone.now()
    message = row(Status.UNKNOWN, request_id="r", uncertain_since=now, next_attempt_at=now, attempts=1)
    opt_out(PHONE, scope="everything")
    deliver_due_messages()
    assert not outbox
    assert (stored(message).status, stored(message).next_attempt_at) == (Status.UNKNOWN, None)


def test_a_receiver_sees_a_message_cancelled_for_an_opt_out() -> None:
    seen = []

    def receiver(message, old_status, new_status, **kwargs) -> None:
        seen.append((message.pk, old_status, new_status))

    status_changed.connect(receiver)
    try:
        message = queue_viber_message(PHONE, TEXT)
        opt_out(PHONE, scope="everything")
        deliver_due_messages()
    finally:
        status_changed.disconnect(receiver)
    assert seen == [(message.pk, Status.QUEUED, Status.CANCELLED)]


def test_in_a_list_only_those_who_opted_out_are_left_out() -> None:
    opt_out("0900000003", scope="promotional")
    messages = queue_viber_messages([unsaved(phone=f"090000000{n}", purpose=PROMOTIONAL) for n in range(5)])
    assert [message.status for message in messages] == ["queued", "queued", "queued", "cancelled", "queued"]
    assert deliver_due_messages().sent == 4


def test_a_rolled_back_order_leaves_no_trace_of_its_cancelled_message() -> None:
    opt_out(PHONE, scope="everything")
    with transaction.atomic():
        queue_viber_message(PHONE, TEXT)
        transaction.set_rollback(True)
    assert not OutboundViberMessage.objects.exists()
    assert not ViberMessageEvent.objects.exists()


def test_a_resend_after_a_withdrawal_sends_what_was_cancelled() -> None:
    opt_out(PHONE, scope="everything")
    message = queue_viber_message(PHONE, TEXT)
    assert resend_viber_messages([message]) == []
    assert withdraw_opt_out("+84 901 888 484") is True
    assert withdraw_opt_out(PHONE) is False
    assert resend_viber_messages([message]) == [message]
    assert deliver_due_messages().sent == 1
    assert stored(message).status == Status.SENT


def test_the_wider_opt_out_wins() -> None:
    opt_out(PHONE, scope="everything", note="by phone")
    assert opt_out(PHONE, scope="promotional").scope == "everything"
    withdraw_opt_out(PHONE)
    opt_out(PHONE, scope="promotional")
    assert opt_out(PHONE, scope="everything", note="all of it").scope == "everything"
    [found] = ViberOptOut.objects.all()
    assert (found.phone, found.scope, found.note) == (E164, "everything", "all of it")


@pytest.mark.parametrize("verb", [lambda phone: opt_out(phone, scope="everything"), withdraw_opt_out])
def test_a_phone_that_cannot_be_read_is_told_and_not_passed_over(verb) -> None:
    with pytest.raises(ValidationError):
        verb("0123")


def test_a_scope_that_there_is_not_is_told() -> None:
    with pytest.raises(ValidationError):
        opt_out(PHONE, scope="all")
    assert not ViberOptOut.objects.exists()


def test_a_draft_saved_to_be_sent_at_once_is_cancelled_for_an_opt_out(settings) -> None:
    change(settings, SEND_ON_SAVE=True)
    opt_out(PHONE, scope="everything")
    message = OutboundViberMessage.objects.create(phone=PHONE, content=TEXT)
    assert stored(message).status == Status.CANCELLED
    deliver_due_messages()
    assert not outbox


def test_saving_and_sending_what_failed_to_who_has_opted_out_sends_nothing(admin_client) -> None:
    message = row(Status.FAILED, code_result="99", error_message="blocked")
    opt_out(PHONE, scope="everything")
    assert queue_stored_message(message) is False
    assert stored(message).status == Status.FAILED
    form = {"kind": "text", "phone": PHONE, "content": "Chào", "purpose": "transactional", "_send": "1"}
    page = admin_client.post(f"{LIST}{message.pk}/change/", form, follow=True)
    assert page.status_code == 200
    assert "this phone has opted out" in page.content.decode()
    assert stored(message).status == Status.FAILED


@pytest.mark.parametrize("asked", [0, 2, 3])
@pytest.mark.parametrize("late", [1, 3])
@pytest.mark.parametrize(
    ("change_mind", "becomes"),
    [
        (lambda message: opt_out(message.phone, scope="promotional"), "cancelled"),
        (lambda message: pause_sending(message.campaign), "queued"),
    ],
)
def test_who_opts_out_or_is_paused_while_the_site_is_asked_about_others_gets_nothing(
    settings, monkeypatch, change_mind, becomes, asked, late
) -> None:
    """Whether the site has been asked about that message before or not."""
    change(settings, CONCURRENCY=4)
    monkeypatch.setattr(worker, "LOOKING", 0.05)
    messages = queue_viber_messages(
        [unsaved(phone=f"090000000{n}", purpose=PROMOTIONAL, campaign=f"c{n}") for n in range(4)]
    )

    def take_time(message, **kwargs) -> None:
        if message == messages[asked]:
            change_mind(messages[late])
            time.sleep(0.1)  # longer than LOOKING, after which the worker looks again

    pre_send.connect(take_time)
    try:
        deliver_due_messages()
    finally:
        pre_send.disconnect(take_time)
    assert [stored(message).status for message in messages if message != messages[late]] == ["sent"] * 3
    assert stored(messages[late]).status == becomes
    assert len(outbox) == 3


def test_an_insert_that_is_repeated_cancels_again(monkeypatch) -> None:
    opt_out(PHONE, scope="everything")
    insert, failures = creation.insert, [OperationalError(1213, "Deadlock found")]

    def fail_once(*args, **kwargs):
        stored_rows = insert(*args, **kwargs)
        if failures:
            raise failures.pop()
        return stored_rows

    monkeypatch.setattr(creation, "insert", fail_once)
    message = queue_viber_message(PHONE, TEXT)
    assert not failures
    assert message.status == stored(message).status == Status.CANCELLED
    assert OutboundViberMessage.objects.count() == 1


# -- pauses ------------------------------------------------------------------------------------------------------------


def test_pausing_is_one_row_and_keeps_times_and_deadlines(clock: Clock) -> None:
    expires_at = timezone.now() + dt.timedelta(hours=1)
    messages = queue_viber_messages([unsaved(phone=f"09{n:08d}", expires_at=expires_at) for n in range(300)])
    before = list(OutboundViberMessage.objects.order_by("pk").values())
    with CaptureQueriesContext(connection) as captured:
        pause_sending(note="stock is wrong")
    assert not any("outboundvibermessage" in query["sql"] for query in captured)
    assert deliver_due_messages().sent == 0
    assert list(OutboundViberMessage.objects.order_by("pk").values()) == before
    assert pause_sending().note == "stock is wrong"
    assert resume_sending() is True
    assert resume_sending() is False
    assert deliver_due_messages().sent == len(messages) == len(outbox)


@pytest.mark.parametrize("name", ["  ", "\n", "a\0", "a\ud800", "x" * 101])
def test_a_name_that_no_campaign_can_have_is_refused(name: str) -> None:
    """White space from a variable that was meant to name one pauses and resumes no others."""
    pause_sending()
    for verb in (pause_sending, resume_sending):
        with pytest.raises(ValidationError) as refused:
            verb(name)
        assert list(refused.value.message_dict) == ["campaign"]
    assert ViberPause.objects.get().campaign == ""


@pytest.mark.parametrize("note", ["a\0", "a\ud800", "x" * 201])
def test_a_note_that_cannot_be_stored_is_refused(note: str) -> None:
    for verb in (lambda: pause_sending(note=note), lambda: opt_out(PHONE, scope="everything", note=note)):
        with pytest.raises(ValidationError) as refused:
            verb()
        assert list(refused.value.message_dict) == ["note"]
    assert not ViberPause.objects.exists()
    assert not ViberOptOut.objects.exists()


def test_a_paused_campaign_waits_and_the_others_go_out() -> None:
    paused = queue_viber_message(PHONE, TEXT, campaign="tet-2027")
    other = queue_viber_message(PHONE, TEXT, campaign="orders")
    bare = queue_viber_message(PHONE, TEXT)
    pause_sending("tet-2027")
    assert deliver_due_messages().sent == 2
    assert (stored(paused).status, stored(other).status, stored(bare).status) == ("queued", "sent", "sent")
    assert deliver_messages([paused.pk]).sent == 0
    resume_sending("tet-2027")
    assert deliver_messages([paused.pk]).sent == 1


def test_resuming_dispatches_what_is_due(settings) -> None:
    given: list[int] = []
    pause_sending("tet-2027")
    due = queue_viber_messages([unsaved(campaign="tet-2027") for _ in range(3)])
    queue_viber_message(PHONE, TEXT, campaign="tet-2027", send_at=timezone.now() + dt.timedelta(hours=1))
    queue_viber_message(PHONE, TEXT, campaign="other")
    change(settings, DISPATCHER=given.extend)
    with transaction.atomic():
        resume_sending("tet-2027")
        assert given == []
    assert sorted(given) == [message.pk for message in due]
    given.clear()
    pause_sending()
    resume_sending()
    assert len(given) == 4


def test_a_message_sent_while_paused_waits_with_the_reason(settings) -> None:
    pause_sending()
    message = send_viber_message(PHONE, TEXT)
    assert (message.status, message.error_message) == ("queued", "Not sent yet: sending is paused.")
    message.raise_for_status()
    change(settings, DISPATCHER="esms_viber.dispatch.inline")
    queued = queue_viber_message(PHONE, TEXT)
    assert not outbox
    resume_sending()
    assert {stored(message).status, stored(queued).status} == {"sent"}
    assert stored(message).error_message == ""


def test_a_pause_ends_a_run_that_goes_on_and_what_is_on_the_wire_is_finished(esms, settings) -> None:
    change(settings, CONCURRENCY=2)
    release = threading.Event()

    def slow(_request):
        release.wait(20)
        return accepted()

    esms.answer_all(slow)
    queue_viber_messages([unsaved(phone=f"09{n:08d}", campaign="tet") for n in range(30)])

    def run() -> None:
        try:
            deliver_due_messages()
        finally:
            close_old_connections()

    sender = threading.Thread(target=run)
    sender.start()
    wait_until(lambda: len(esms.requests) == 2)
    pause_sending("tet")
    # The worker looks every second, and gives back what it has claimed and not begun.
    wait_until(lambda: OutboundViberMessage.objects.sending().count() <= 4)
    release.set()
    sender.join(30)
    assert not sender.is_alive()
    assert len(esms.requests) <= 4
    sent = OutboundViberMessage.objects.sent().count()
    assert sent == len(esms.requests)
    assert OutboundViberMessage.objects.queued().count() == 30 - sent
    assert not OutboundViberMessage.objects.queued().exclude(uncertain_since=None).exists()


def test_a_pause_is_told_and_is_no_fault() -> None:
    queue_viber_message(PHONE, TEXT, campaign="tet-2027")
    OutboundViberMessage.objects.update(next_attempt_at=timezone.now() - dt.timedelta(hours=1))
    assert show_status()[0] == 2  # nobody sends
    pause_sending("tet-2027")
    code, text = show_status()
    assert code == 0
    assert "One campaign is paused: tet-2027." in text
    pause_sending()
    code, text = show_status()
    assert code == 0
    assert "Sending is paused: nothing goes out until somebody resumes it." in text
    told = json.loads(show_status("json")[1])
    assert (told["paused"], told["paused_campaigns"]) == (True, ["tet-2027"])


def test_a_paused_message_expires_when_it_is_looked_at_again(clock: Clock) -> None:
    message = queue_viber_message(PHONE, TEXT, expires_at=timezone.now() + dt.timedelta(hours=1))
    pause_sending()
    clock.advance(hours=2)
    deliver_due_messages()
    assert stored(message).status == Status.QUEUED
    resume_sending()
    deliver_due_messages()
    assert stored(message).status == Status.FAILED
    assert not outbox


def test_a_pause_holds_repeats_too() -> None:
    now = timezone.now()
    message = row(Status.UNKNOWN, request_id="r", uncertain_since=now, next_attempt_at=now, attempts=1, campaign="x")
    pause_sending("x")
    deliver_due_messages()
    assert not outbox
    assert stored(message).next_attempt_at is not None


def test_a_pause_that_comes_while_a_message_is_stored_is_heeded(monkeypatch) -> None:
    insert = creation.insert

    def pause_first(*args, **kwargs):
        stored_rows = insert(*args, **kwargs)
        ViberPause.objects.create(campaign="")
        return stored_rows

    monkeypatch.setattr(creation, "insert", pause_first)
    message = send_viber_message(PHONE, TEXT)
    assert (message.status, message.error_message) == ("queued", "Not sent yet: sending is paused.")
    assert not outbox
    resume_sending()
    assert deliver_due_messages().sent == 1


def test_a_pause_costs_no_more_where_very_many_campaigns_wait() -> None:
    queue_viber_messages([unsaved(campaign=f"c{number:03d}") for number in range(150)])
    pause_sending("another")
    for work, most in ((lambda: claims.claim(1), 250), (get_queue_status, 250)):
        with CaptureQueriesContext(connection) as captured:
            work()
        assert len(captured) <= most
    # Each look goes on where the one before has stopped, so that all of them go out.
    deliver_due_messages()
    assert OutboundViberMessage.objects.sent().count() == 149


# -- purposes ----------------------------------------------------------------------------------------------------------


def test_transactional_messages_go_out_first(settings) -> None:
    change(settings, CONCURRENCY=1)
    queue_viber_messages([unsaved(phone=f"09{n:08d}", purpose=PROMOTIONAL) for n in range(40)])
    queue_viber_messages([unsaved(phone=f"08{n + 60000000:08d}") for n in range(5)])
    deliver_due_messages()
    assert len(outbox) == 45
    assert {message.phone[:4] for message in outbox[:5]} == {"+848"}


def test_an_otp_is_on_the_wire_within_two_batches_of_a_run_over_many(esms, settings) -> None:
    change(settings, CONCURRENCY=4)
    queue_viber_messages([unsaved(phone=f"09{n:08d}", purpose=PROMOTIONAL) for n in range(2000)])
    queued_at = []

    def answer(request):
        # An order is paid while the greetings go out.
        if len(esms.requests) == 100 and not queued_at:
            queued_at.append(len(esms.requests))
            urgent.set()
        return accepted()

    urgent = threading.Event()
    esms.answer_all(answer)

    def pay() -> None:
        try:
            urgent.wait(60)
            queue_viber_message(PHONE, "OTP 1234")
        finally:
            close_old_connections()

    customer = threading.Thread(target=pay)
    customer.start()
    deliver_due_messages()
    customer.join(30)
    texts = [request["Content"] for request in esms.requests]
    # Two batches of 8 x CONCURRENCY, and what went out while it was being stored.
    assert texts.index("OTP 1234") < 100 + 10 * 32
    assert len(texts) == 2001


def test_the_task_of_a_promotional_batch_sends_an_otp_first() -> None:
    promotional = queue_viber_messages([unsaved(phone=f"09{n:08d}", purpose=PROMOTIONAL) for n in range(50)])
    otp = queue_viber_message(PHONE, "OTP 1234")
    deliver_messages([message.pk for message in promotional])
    assert outbox[0].content == "OTP 1234"
    assert stored(otp).status == Status.SENT
    assert len(outbox) == 51


def test_urgent_messages_of_others_count_against_the_limit_of_the_inline_dispatcher(settings) -> None:
    promotional = queue_viber_messages([unsaved(phone=f"09{n:08d}", purpose=PROMOTIONAL) for n in range(9)])
    queue_viber_messages([unsaved(content=f"OTP {n}") for n in range(2)])
    change(settings, INLINE_LIMIT=3)
    inline([message.pk for message in promotional])
    assert sorted(message.content[:3] for message in outbox) == ["OTP", "OTP", TEXT[:3]]


# -- hours -------------------------------------------------------------------------------------------------------------


def test_promotional_messages_wait_for_their_hours_and_go_by_themselves(settings, clock: Clock) -> None:
    change(settings, PROMOTIONAL_HOURS=("08:00", "21:00"))
    at(clock, 21, 0)
    promotional = queue_viber_message(PHONE, TEXT, purpose=PROMOTIONAL)
    order = queue_viber_message(PHONE, TEXT)
    assert deliver_due_messages().sent == 1
    assert stored(order).status == Status.SENT
    status = get_queue_status()
    assert status.promotional_from is not None
    assert status.promotional_from.astimezone(VIETNAM).strftime("%H:%M") == "08:00"
    assert status.promotional_from > timezone.now()
    assert not status.stalled
    assert "Promotional messages wait for their hours" in show_status()[1]
    clock.advance(hours=11, minutes=1)
    assert deliver_due_messages().sent == 1
    assert stored(promotional).status == Status.SENT
    assert get_queue_status().promotional_from is None


@pytest.mark.parametrize(("hour", "minute", "is_open"), [(7, 59, False), (8, 0, True), (20, 59, True), (21, 0, False)])
def test_the_hours_begin_and_end_to_the_minute_in_vietnam(settings, clock: Clock, hour, minute, is_open) -> None:
    change(settings, PROMOTIONAL_HOURS=["08:00", "21:00"])
    at(clock, hour, minute)
    message = send_viber_message(PHONE, TEXT, purpose=PROMOTIONAL)
    assert (message.status == Status.SENT) is is_open
    if not is_open:
        assert message.error_message == "Not sent yet: promotional messages wait for their hours."
        message.raise_for_status()


def test_a_repeat_of_a_promotional_message_waits_for_the_hours_and_then_for_a_person(settings, clock: Clock) -> None:
    change(settings, PROMOTIONAL_HOURS=("08:00", "21:00"))
    now = at(clock, 20, 59)
    message = row(
        Status.UNKNOWN, request_id="r", uncertain_since=now, next_attempt_at=now, attempts=1, purpose=PROMOTIONAL
    )
    clock.advance(minutes=5)
    deliver_due_messages()
    assert stored(message).next_attempt_at is not None
    clock.advance(hours=12)
    deliver_due_messages()
    assert stored(message).next_attempt_at is None
    assert not outbox


# -- expiry ------------------------------------------------------------------------------------------------------------


def test_what_is_sent_at_the_end_of_time_never_expires(settings) -> None:
    change(settings, EXPIRES_AFTER=dt.timedelta(days=400))
    message = queue_viber_message(PHONE, TEXT, send_at=dt.datetime(9999, 12, 1, tzinfo=dt.UTC))
    assert stored(message).expires_at is None


def test_messages_expire_after_the_time_of_the_setting(settings, clock: Clock) -> None:
    change(settings, EXPIRES_AFTER=dt.timedelta(hours=6))
    later = timezone.now() + dt.timedelta(days=1)
    message = queue_viber_message(PHONE, TEXT)
    scheduled = queue_viber_message(PHONE, TEXT, send_at=later)
    own = queue_viber_message(PHONE, TEXT, expires_at=later)
    assert message.expires_at == stored(message).expires_at == message.queued_at + dt.timedelta(hours=6)
    assert stored(scheduled).expires_at == later + dt.timedelta(hours=6)
    assert stored(own).expires_at == later
    clock.advance(hours=7)
    deliver_due_messages()
    assert [stored(each).status for each in (message, scheduled, own)] == ["failed", "queued", "sent"]
    resend_viber_messages([stored(message)])
    again = stored(message)
    assert again.expires_at == again.queued_at + dt.timedelta(hours=6)
    assert deliver_due_messages().sent == 1


# -- the sandbox -------------------------------------------------------------------------------------------------------


def test_only_some_phones_get_real_messages_from_a_staging_site(settings) -> None:
    change(settings, ONLY_TO=["0901 888 484"])
    mine, theirs = queue_viber_message(PHONE, TEXT), queue_viber_message("0912345678", TEXT)
    deliver_due_messages()
    assert {sent.phone: sent.sandbox for sent in outbox} == {E164: False, "+84912345678": True}
    assert (stored(mine).sent_to_sandbox, stored(theirs).sent_to_sandbox) == (False, True)
    assert (stored(mine).sandbox, stored(theirs).sandbox) == (False, False)


def test_a_repeat_goes_where_the_first_call_went(settings) -> None:
    change(settings, SANDBOX=True)
    now = timezone.now()
    message = row(Status.UNKNOWN, request_id="r", uncertain_since=now, next_attempt_at=now, attempts=1)
    deliver_due_messages()
    assert [sent.sandbox for sent in outbox] == [False]
    assert stored(message).sent_to_sandbox is False


@pytest.mark.parametrize(
    "keys",
    [
        {"ONLY_TO": "0901888484"},
        {"ONLY_TO": ["0123"]},
        {"ONLY_TO": [901888484]},
        {"EXPIRES_AFTER": 3600},
        {"EXPIRES_AFTER": dt.timedelta(0)},
        {"PROMOTIONAL_HOURS": ("21:00", "08:00")},
        {"PROMOTIONAL_HOURS": ("8:00", "21:00")},
        {"PROMOTIONAL_HOURS": "08:00-21:00"},
        {"PROMOTIONAL_HOURS": (8, 21)},
        {"REDACT_AFTER_DAYS": 0},
        {"DELETE_AFTER_DAYS": 1.5},
    ],
)
def test_settings_that_cannot_be_read_are_named_by_the_checks(settings, keys) -> None:
    change(settings, **keys)
    [found] = [error for error in check_settings() if error.id == "esms_viber.E003"]
    assert next(iter(keys)) in found.msg


# -- metadata ----------------------------------------------------------------------------------------------------------


def test_metadata_is_kept_shown_to_receivers_and_never_sent(esms) -> None:
    esms.answer_all(accepted())
    seen = []

    def receiver(message, **kwargs) -> None:
        seen.append(message.metadata)

    data = {"order": 17, "tags": ["vip", "đơn"], "nested": {"a": None}}
    status_changed.connect(receiver)
    pre_send.connect(receiver)
    try:
        message = queue_viber_message(PHONE, TEXT, metadata=data)
        data["order"] = 18
        deliver_due_messages()
    finally:
        status_changed.disconnect(receiver)
        pre_send.disconnect(receiver)
    assert stored(message).metadata == {"order": 17, "tags": ["vip", "đơn"], "nested": {"a": None}}
    assert len(seen) >= 2
    assert {each["order"] for each in seen} == {17}
    assert "17" not in [value for name, value in esms.last.params if name != "RequestId"]


@pytest.mark.parametrize(
    "data", [["a"], "text", {"a": object()}, {"a": float("nan")}, {"a": "x\x00"}, {"a": "x" * 4096}]
)
def test_metadata_that_is_no_small_json_object_is_refused(data) -> None:
    with pytest.raises(ValidationError) as caught:
        queue_viber_message(PHONE, TEXT, metadata=data)
    assert list(caught.value.message_dict) == ["metadata"]


def test_metadata_changed_in_place_is_noticed() -> None:
    message = row(Status.DRAFT)
    message.metadata["order"] = 1
    message.save()
    assert stored(message).metadata == {"order": 1}
    handed_over = row(Status.SENT, metadata={"a": 1})
    handed_over.metadata["a"] = 2
    with pytest.raises(MessageNotEditable):
        handed_over.save()


# -- async -------------------------------------------------------------------------------------------------------------


def test_async_code_queues_in_the_transaction_of_its_thread() -> None:
    with transaction.atomic():
        async_to_sync(aqueue_viber_message)(PHONE, TEXT)
        assert OutboundViberMessage.objects.count() == 1
        transaction.set_rollback(True)
    assert not OutboundViberMessage.objects.exists()
    message = async_to_sync(aqueue_viber_message)(PHONE, TEXT, campaign="x")
    assert stored(message).campaign == "x"


def test_async_code_sends_without_waiting_in_the_thread_of_the_database(esms) -> None:
    esms.answer_all(accepted())

    async def both() -> list[OutboundViberMessage]:
        return list(await asyncio.gather(*(asend_viber_message(PHONE, f"{TEXT} {n}") for n in range(2))))

    if connection.vendor == "sqlite":
        messages = [async_to_sync(asend_viber_message)(PHONE, TEXT)]
    else:
        messages = async_to_sync(both)()
    assert {message.status for message in messages} == {Status.SENT}
    with transaction.atomic(), pytest.raises(TransactionManagementError, match="aqueue_viber_message"):
        async_to_sync(asend_viber_message)(PHONE, TEXT)
