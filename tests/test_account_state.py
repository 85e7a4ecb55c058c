"""The account's row: balance and sender last seen, told where queues are watched, and left alone by the breaker."""

from __future__ import annotations

import datetime as dt
import json
import re
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import Status, ViberGatewayState
from esms_viber.monitoring import get_queue_status
from esms_viber.services import deliver_due_messages, send_viber_message
from tests.clock import Clock
from tests.factories import PHONE, TEXT, queue, row, show_status

pytestmark = pytest.mark.django_db(transaction=True)

LIST = "/admin/esms_viber/outboundvibermessage/"
TIME_OUT = SendResult(outcome=CallOutcome.NO_ANSWER)


def account(**columns: Any) -> ViberGatewayState:
    if columns:
        ViberGatewayState.objects.note_of_account(**columns)
    return ViberGatewayState.objects.get(brandname="")


def is_now(when: dt.datetime | None) -> bool:
    return when is not None and abs(timezone.now() - when) < dt.timedelta(seconds=5)


def priced(price: int) -> None:
    row(Status.DELIVERED, total_price=price)


# -- the balance, and what the queue will cost -------------------------------------------------------------------------


def test_a_balance_under_what_the_queue_will_cost_is_told(queue_only: None, admin_client: Client) -> None:
    priced(470)
    queue(3)
    account(balance=1409, balance_at=timezone.now())
    status = get_queue_status()
    assert (status.balance, status.cost_of_queue) == (1409, Decimal(1410))
    (remark,) = status.remarks()
    assert "The balance was 1,409 đ at " in remark
    assert "will cost about 1,410 đ" in remark
    assert "Top up" in remark
    assert remark in admin_client.get(LIST).content.decode()
    assert not status.blocked

    account(balance=1410)
    assert get_queue_status().remarks() == []


@pytest.mark.parametrize("columns", [{}, {"balance": 0, "balance_at": "now"}])
def test_without_a_price_or_a_balance_nothing_is_told(queue_only: None, columns: dict[str, Any]) -> None:
    queue(3)
    if columns:
        account(balance=0, balance_at=timezone.now())
    else:
        priced(470)
    status = get_queue_status()
    assert (status.cost_of_queue, status.remarks()) == (None, [])


def test_an_empty_queue_costs_no_query(queue_only: None) -> None:
    priced(470)
    account(balance=0, balance_at=timezone.now())
    with CaptureQueriesContext(connection) as captured:
        assert get_queue_status().cost_of_queue is None
    assert not [query for query in captured if "AVG" in query["sql"].upper()]


def test_sandbox_messages_cost_nothing(queue_only: None) -> None:
    priced(470)
    row(Status.QUEUED, sent_to_sandbox=True, next_attempt_at=timezone.now())
    account(balance=0, balance_at=timezone.now())
    assert get_queue_status().remarks() == []


def test_the_status_tells_balance_and_sender(clock: Clock) -> None:
    _code, text = show_status()
    assert "balance" not in text
    assert "last seen" not in text
    account(balance=Decimal("36693.5"), balance_at=timezone.now(), sender_seen_at=timezone.now())
    code, text = show_status()
    assert code == 0
    assert re.search(r"^balance at .+: 36,693\.50 đ$", text, re.MULTILINE)
    assert "sender last seen at " in text
    told = json.loads(show_status("json")[1])
    assert Decimal(told["balance"]) == Decimal("36693.5")
    assert is_now(dt.datetime.fromisoformat(told["sender_seen_at"]))
    assert told["cost_of_queue"] is None


# -- the sender --------------------------------------------------------------------------------------------------------


def test_a_worker_is_seen_at_most_every_minute(clock: Clock) -> None:
    deliver_due_messages()
    first = account().sender_seen_at
    assert is_now(first)
    clock.advance(seconds=40)
    deliver_due_messages()
    assert account().sender_seen_at == first
    clock.advance(seconds=21)
    deliver_due_messages()
    assert is_now(account().sender_seen_at)


def test_a_clock_that_was_set_back_does_not_hide_the_sender(clock: Clock) -> None:
    account(sender_seen_at=timezone.now() + dt.timedelta(days=1))
    deliver_due_messages()
    assert is_now(account().sender_seen_at)


# -- beside the breaker ------------------------------------------------------------------------------------------------


def test_the_breaker_leaves_what_others_know_alone(clock: Clock) -> None:
    known = {
        "balance": Decimal(1000),
        "balance_at": timezone.now(),
        "brandnames": ["SHOP"],
        "sender_seen_at": timezone.now(),
    }
    account(**known)
    MemoryGateway.answers.append(TIME_OUT)
    send_viber_message(PHONE, TEXT)
    assert account().silent == 1
    assert {name: getattr(account(), name) for name in known} == known
    clock.advance(minutes=3)
    deliver_due_messages()
    assert account().silent == 0
    assert account().balance == 1000


def test_a_row_for_the_balance_alone_is_no_trouble(queue_only: None, clock: Clock) -> None:
    MemoryGateway.answers.append(TIME_OUT)
    send_viber_message(PHONE, TEXT)
    ViberGatewayState.objects.all().delete()
    account(balance=1000, balance_at=timezone.now())
    clock.advance(minutes=5)
    queue(1)
    status = get_queue_status()
    assert not status.outage
    assert status.balance == 1000


def test_deleting_the_row_is_harmless(queue_only: None) -> None:
    account(balance=1000, balance_at=timezone.now())
    ViberGatewayState.objects.all().delete()
    assert get_queue_status().balance is None
    queue(1)
    assert deliver_due_messages().sent == 1
    assert account().sender_seen_at is not None
