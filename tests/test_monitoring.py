"""How the queue stands: the function, `send_viber_messages --status`, and what the admin shows above its list."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import replace
from io import StringIO

import pytest
from django.test import Client
from django.utils import timezone, translation

from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.management.commands.send_viber_messages import Command
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.monitoring import get_queue_status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    queue_viber_message,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import pre_send
from tests.factories import show_status as show

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"
TIME_OUT = SendResult(outcome=CallOutcome.NO_ANSWER, text="No answer in time · 30 s")
NOT_CONNECTED = SendResult(outcome=CallOutcome.NOT_CONNECTED, text="Could not connect")
LIST = "/admin/esms_viber/outboundvibermessage/"


def answer(*results: SendResult | str) -> None:
    """A code, or how far the call got."""
    for result in results:
        code = result if isinstance(result, str) else ""
        MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code=code) if code else result)


@pytest.fixture(autouse=True)
def _queue_only(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only", "CONCURRENCY": 4}


def queue(count: int = 1, **fields) -> list[OutboundViberMessage]:
    return [queue_viber_message(PHONE, f"{TEXT} {number}", **fields) for number in range(count)]


def banner(admin_client: Client) -> str:
    return admin_client.get(LIST).content.decode().split('id="changelist"')[0]


def test_an_empty_queue_is_well(admin_client):
    status = get_queue_status()
    assert (status.queued, status.due, status.oldest_due_at, status.sending, status.unknown) == (0, 0, None, 0, 0)
    assert not status.blocked
    assert not status.needs_a_person
    assert show()[0] == 0
    assert "viber-queue" not in banner(admin_client)


def test_depth_and_the_oldest_that_is_due(clock, admin_client):
    oldest, *_ = queue(3)
    queue(2, send_at=timezone.now() + dt.timedelta(hours=1))
    clock.advance(minutes=4)
    status = get_queue_status()
    assert (status.queued, status.due, status.oldest_due_at) == (5, 3, oldest.next_attempt_at)
    assert not status.stalled, "cron comes every minute"
    code, text = show()
    assert code == 0
    assert "5" in text
    assert "4 minutes" in text.replace("\xa0", " ")
    assert "Queued: <strong>5</strong>" in banner(admin_client)
    assert "3 due" in banner(admin_client)


@pytest.mark.parametrize(
    ("age", "english", "vietnamese"),
    [
        ({"seconds": 0}, "(0 minutes)", "(0 phút)"),
        ({"minutes": 1, "seconds": 59}, "(one minute)", "(1 phút)"),
        ({"minutes": 59}, "(59 minutes)", "(59 phút)"),
        ({"minutes": 61}, "(one hour)", "(1 giờ)"),
        ({"hours": 23}, "(23 hours)", "(23 giờ)"),
        ({"hours": 47}, "(one day)", "(1 ngày)"),
        ({"days": 1500}, "(1,500 days)", "(1.500 ngày)"),
    ],
)
def test_how_long_the_oldest_has_been_due_is_told_in_the_language_of_the_reader(clock, age, english, vietnamese):
    queue(1)
    clock.advance(**age)
    assert english in show()[1]
    with translation.override("vi"):
        assert vietnamese in show()[1]


def test_large_numbers_are_grouped():
    many = replace(get_queue_status(), queued=9895, sending=1200, stuck=1100, undecided=1000, unconfirmed=2000)
    many = replace(many, held_up=3000)
    out = StringIO()
    with pytest.raises(SystemExit):
        Command(stdout=out, no_color=True)._show(many, "text")
    text = out.getvalue() + " ".join(many.obstacles())
    for number in ("9,895", "1,200  1,100 of them", "1,000 messages", "2,000 messages", "3,000 messages"):
        assert number in text
    with translation.override("vi"), pytest.raises(SystemExit):
        Command(stdout=out, no_color=True)._show(many, "text")
    assert "9.895" in out.getvalue()


def test_a_queue_that_nobody_sends_is_told(clock, admin_client):
    queue(2)
    clock.advance(minutes=11)
    assert get_queue_status().stalled
    code, text = show()
    assert code == 2
    assert "nobody sends them" in text
    assert "nobody sends them" in banner(admin_client)


def test_a_long_queue_that_moves_is_well(clock):
    queue(3)
    clock.advance(hours=1)
    deliver_due_messages(limit=1)
    assert get_queue_status().due == 2
    assert show()[0] == 0


def test_a_refused_account_is_told_with_what_to_do(admin_client):
    queue(3)
    answer("103", "103", "103")
    deliver_due_messages()
    assert get_queue_status().account_code == "103"
    code, text = show()
    assert code == 2
    assert "103: The balance of the eSMS account is too low. Top up" in text
    assert "The balance of the eSMS account is too low" in banner(admin_client)


@pytest.mark.parametrize("result", [TIME_OUT, NOT_CONNECTED])
def test_an_outage_is_told_until_a_call_is_answered(clock, admin_client, result):
    queue(8)
    answer(*[result] * 8)
    deliver_due_messages()
    assert get_queue_status().outage
    code, text = show()
    assert code == 2
    assert "eSMS does not answer" in text
    assert "eSMS does not answer" in banner(admin_client)

    clock.advance(minutes=5)
    MemoryGateway.reset()
    deliver_due_messages()
    assert not get_queue_status().outage
    assert show()[0] == 0


def test_a_few_lost_answers_are_no_outage():
    for _ in range(3):
        answer(TIME_OUT)
        send_viber_message(PHONE, TEXT)
    assert not get_queue_status().outage


def test_what_may_have_been_sent_wants_a_decision(clock, admin_client):
    answer("199")
    undecided = send_viber_message(PHONE, TEXT)
    answer(TIME_OUT)
    repeated = send_viber_message(PHONE, TEXT)
    status = get_queue_status()
    assert (status.unknown, status.undecided) == (2, 1)
    code, text = show()
    assert code == 1
    assert "may have been sent, or not" in text
    page = banner(admin_client)
    assert "One message may have been sent, or not" in page
    assert "?attention=undecided" in page
    shown = admin_client.get(f"{LIST}?attention=undecided").context["cl"].result_list
    assert [message.pk for message in shown] == [undecided.pk]

    cancel_viber_messages([repeated])
    assert get_queue_status().undecided == 2
    resend_viber_messages([undecided, repeated])
    assert get_queue_status().undecided == 0, "sent again: decided"
    assert get_queue_status().unknown == 2


def test_a_decision_that_nobody_took_is_not_asked_for_for_ever(clock):
    answer("199")
    send_viber_message(PHONE, TEXT)
    clock.advance(days=8)
    assert get_queue_status().undecided == 0


def test_taken_by_124_and_never_heard_of_again(clock, admin_client):
    answer(TIME_OUT)
    message = send_viber_message(PHONE, TEXT)
    clock.advance(minutes=1)
    answer("124")
    deliver_due_messages()
    message.refresh_from_db()
    assert (message.status, message.sms_id) == ("sent", "")
    assert get_queue_status().unconfirmed == 0, "a report may come yet"

    clock.advance(days=1, minutes=1)
    assert get_queue_status().unconfirmed == 1
    code, text = show()
    assert code == 1
    assert "without an SMSID" in text
    assert "?attention=unconfirmed" in banner(admin_client)
    shown = admin_client.get(f"{LIST}?attention=unconfirmed").context["cl"].result_list
    assert [row.pk for row in shown] == [message.pk]

    clock.advance(days=7)
    assert get_queue_status().unconfirmed == 0, "eSMS tells nobody any more"


def test_sandbox_messages_are_never_unconfirmed(clock):
    send_viber_message(PHONE, TEXT, sandbox=True)
    OutboundViberMessage.objects.update(sms_id="")
    clock.advance(days=2)
    assert get_queue_status().unconfirmed == 0


def test_messages_of_a_sender_that_is_gone_are_stuck_until_the_next_takes_them(clock, admin_client):
    (message,) = queue()
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status="sending", claim_id="gone", lease_until=timezone.now() + dt.timedelta(minutes=2)
    )
    assert (get_queue_status().sending, get_queue_status().stuck) == (1, 0)
    clock.advance(minutes=3)
    assert get_queue_status().stuck == 1
    assert "a worker that is gone" in show()[1]
    assert "one of them by a worker that is gone" in banner(admin_client)
    assert deliver_due_messages().sent == 1
    assert get_queue_status().stuck == 0


def test_messages_of_a_dead_sender_that_nobody_takes_over_are_told(clock):
    (message,) = queue()
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status="sending", claim_id="gone", lease_until=timezone.now()
    )
    clock.advance(minutes=11)
    assert get_queue_status().stalled
    assert show()[0] == 2


def test_trouble_is_over_with_the_first_good_answer_though_messages_still_wait(clock):
    queue(3)
    answer("103")
    deliver_due_messages(limit=1)
    assert get_queue_status().account_code == "103"
    clock.advance(seconds=15)
    deliver_due_messages(limit=2)
    assert OutboundViberMessage.objects.queued().exists()
    assert get_queue_status().account_code == ""


def test_an_outage_concerns_nobody_where_nothing_waits(clock):
    answer(TIME_OUT)
    messages = [send_viber_message(PHONE, f"{number}") for number in range(4)]
    clock.advance(seconds=61)
    assert get_queue_status().outage
    cancel_viber_messages(messages)
    assert not get_queue_status().outage


def test_a_receiver_that_lets_nothing_through_is_told(clock, admin_client):
    def fail(**kwargs):
        raise LookupError

    queue(2)
    pre_send.connect(fail)
    try:
        deliver_due_messages()
    finally:
        pre_send.disconnect(fail)
    assert get_queue_status().held_up == 2
    code, text = show()
    assert code == 2
    assert "pre_send" in text
    assert "2 messages wait because this site" in banner(admin_client)


def test_as_json_for_monitoring(clock):
    queue(2)
    clock.advance(minutes=11)
    code, text = show("json")
    told = json.loads(text)
    assert code == 2
    assert (told["queued"], told["due"], told["stalled"], told["blocked"]) == (2, 2, True, True)
    assert dt.datetime.fromisoformat(told["oldest_due_at"]) < timezone.now() - dt.timedelta(minutes=10)


def test_the_blocked_come_before_the_undecided(clock):
    answer("199")
    send_viber_message(PHONE, TEXT)
    queue()
    clock.advance(minutes=11)
    assert show()[0] == 2


def test_it_takes_the_same_few_queries_whatever_the_queue(django_assert_max_num_queries):
    queue(20)
    with django_assert_max_num_queries(14):
        get_queue_status()
    ViberMessageEvent.objects.all().delete()
    with django_assert_max_num_queries(14):
        get_queue_status()


def test_whoever_may_not_see_messages_sees_no_queue(client, django_user_model):
    queue(2)
    client.force_login(django_user_model.objects.create_user("staff", is_staff=True))
    assert client.get(LIST).status_code == 403


def test_what_wants_a_person_is_in_the_log(clock, caplog):
    answer("199")
    first = send_viber_message(PHONE, TEXT)
    answer(TIME_OUT)
    second = send_viber_message(PHONE, TEXT)
    clock.advance(hours=12, minutes=1)
    deliver_due_messages()
    told = [record.getMessage() for record in caplog.records if "somebody has to decide" in record.getMessage()]
    assert len(told) == 2
    assert f"message {first.pk} " in told[0]
    assert f"message {second.pk} " in told[1]
