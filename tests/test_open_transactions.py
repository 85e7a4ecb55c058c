"""No transaction is open around a call: it would hold locks for as long as eSMS likes, and could be rolled back after.

Both are hooked: what `requests` is asked to do, and where the transactions of every thread begin and end.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field

import pytest
import requests.adapters
from django.db import connections, transaction
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.transaction import Atomic

from esms_viber.models import OutboundViberMessage
from esms_viber.services import (
    deliver_due_messages,
    deliver_messages,
    queue_viber_message,
    queue_viber_messages,
    refresh_viber_messages,
    send_viber_message,
)
from esms_viber.signals import pre_send, status_changed
from tests.fake_gateway import Wait, accepted, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"


@dataclass
class Watch:
    calls: list[tuple[float, float]] = field(default_factory=list)
    transactions: list[tuple[float, float]] = field(default_factory=list)
    open_in_the_calling_thread: list[str] = field(default_factory=list)

    @property
    def overlapping(self) -> list[tuple[float, float]]:
        """Transactions that were open at any time while a call was on the wire."""
        return [(a, b) for a, b in self.transactions for start, end in self.calls if a < end and start < b]

    @property
    def around_a_call(self) -> list[tuple[float, float]]:
        """Transactions that were open all the time from before a call until after it."""
        return [(a, b) for a, b in self.transactions for start, end in self.calls if a <= start and end <= b]


@pytest.fixture
def watch(monkeypatch) -> Watch:
    seen, begun = Watch(), threading.local()
    enter, send = Atomic.__enter__, requests.adapters.HTTPAdapter.send

    def entering(atomic):
        if not transaction.get_connection(atomic.using).in_atomic_block:
            begun.at = time.monotonic()
        return enter(atomic)

    def ending(end):
        def ended(connection):
            try:
                return end(connection)
            finally:
                seen.transactions.append((begun.at, time.monotonic()))

        return ended

    def sending(adapter, *args, **kwargs):
        seen.open_in_the_calling_thread += [
            conn.alias for conn in connections.all(initialized_only=True) if conn.in_atomic_block
        ]
        start = time.monotonic()
        try:
            return send(adapter, *args, **kwargs)
        finally:
            seen.calls.append((start, time.monotonic()))

    monkeypatch.setattr(Atomic, "__enter__", entering)
    # Not `Atomic.__exit__`, which runs what waits for the commit as well.
    monkeypatch.setattr(BaseDatabaseWrapper, "commit", ending(BaseDatabaseWrapper.commit))
    monkeypatch.setattr(BaseDatabaseWrapper, "rollback", ending(BaseDatabaseWrapper.rollback))
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", sending)
    return seen


def test_the_hooks_see_what_they_are_to_see(esms, watch):
    with transaction.atomic():
        requests.get(esms.url, timeout=5)
    assert watch.overlapping
    assert watch.around_a_call
    assert watch.open_in_the_calling_thread == ["default"]


def test_no_transaction_is_open_while_one_message_is_sent(esms, watch):
    esms.answer_all([Wait(0.2), *accepted()])
    send_viber_message(PHONE, TEXT)
    with transaction.atomic():
        queue_viber_message(PHONE, TEXT)
    assert len(watch.calls) == 2
    assert watch.transactions
    assert watch.overlapping == []
    assert watch.open_in_the_calling_thread == []


def test_no_transaction_is_open_while_esms_is_asked(esms, watch):
    message = send_viber_message(PHONE, TEXT)
    watch.calls.clear()
    esms.answer([Wait(0.2), *json_answer({"CodeResponse": "100", "SMSID": message.sms_id, "SendStatus": 2})])
    refresh_viber_messages([message])
    assert len(watch.calls) == 1
    assert watch.overlapping == []


@pytest.mark.parametrize("by_name", [True, False])
def test_no_transaction_is_open_around_any_call_of_a_drain(esms, watch, settings, by_name):
    """The next are claimed, and answers recorded, while other calls are on the wire, in transactions of their own."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    esms.answer_all([Wait(0.2), *accepted()])
    messages = queue_viber_messages([OutboundViberMessage(phone=PHONE, content=str(n)) for n in range(40)])
    seen_open = []

    def look(**kwargs):
        seen_open.append(connections["default"].in_atomic_block)

    pre_send.connect(look)
    status_changed.connect(look)
    try:
        summary = deliver_messages([message.pk for message in messages]) if by_name else deliver_due_messages()
    finally:
        pre_send.disconnect(look)
        status_changed.disconnect(look)
    assert summary.sent == len(watch.calls) == 40
    assert watch.around_a_call == []
    assert watch.open_in_the_calling_thread == []
    assert set(seen_open) == {False}
