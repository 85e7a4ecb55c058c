"""No transaction is open around a call: it would hold locks for as long as eSMS likes, and could be rolled back after.

Both are hooked: what `requests` is asked to do, and where the transactions of every thread begin and end.
"""

from __future__ import annotations

import threading
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
from tests.fake_gateway import accepted, json_answer, wait_until

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"


@dataclass
class Watch:
    """Calls and transactions of every thread."""

    calls: int = 0
    on_the_wire: int = 0
    open: set[object] = field(default_factory=set)
    """A thing of its own for each transaction that is open now."""
    overlapping: list[object] = field(default_factory=list)
    """Those that were open at any time while a call was on the wire."""
    open_in_the_calling_thread: list[str] = field(default_factory=list)


@pytest.fixture
def watch(monkeypatch) -> Watch:
    seen, mine, guard = Watch(), threading.local(), threading.Lock()
    enter, send = Atomic.__enter__, requests.adapters.HTTPAdapter.send

    def entering(atomic):
        if not transaction.get_connection(atomic.using).in_atomic_block:
            mine.transaction = object()
            with guard:
                seen.open.add(mine.transaction)
                seen.overlapping += [mine.transaction] * seen.on_the_wire
        return enter(atomic)

    def ending(end):
        def ended(connection):
            try:
                return end(connection)
            finally:
                with guard:
                    seen.open.discard(mine.transaction)

        return ended

    def sending(adapter, *args, **kwargs):
        seen.open_in_the_calling_thread += [
            conn.alias for conn in connections.all(initialized_only=True) if conn.in_atomic_block
        ]
        with guard:
            seen.calls += 1
            seen.on_the_wire += 1
            seen.overlapping += seen.open
        try:
            return send(adapter, *args, **kwargs)
        finally:
            with guard:
                seen.on_the_wire -= 1

    monkeypatch.setattr(Atomic, "__enter__", entering)
    # Not `Atomic.__exit__`, which runs what waits for the commit as well.
    monkeypatch.setattr(BaseDatabaseWrapper, "commit", ending(BaseDatabaseWrapper.commit))
    monkeypatch.setattr(BaseDatabaseWrapper, "rollback", ending(BaseDatabaseWrapper.rollback))
    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", sending)
    return seen


def test_the_hooks_see_what_they_are_to_see(esms, watch):
    with transaction.atomic():
        requests.get(esms.url, timeout=5)
        assert len(watch.open) == 1
    assert watch.overlapping
    assert not watch.open
    assert watch.open_in_the_calling_thread == ["default"]


def test_no_transaction_is_open_while_one_message_is_sent(esms, watch):
    send_viber_message(PHONE, TEXT)
    with transaction.atomic():
        queue_viber_message(PHONE, TEXT)
    assert watch.calls == 2
    assert watch.overlapping == []
    assert watch.open_in_the_calling_thread == []


def test_no_transaction_is_open_while_esms_is_asked(esms, watch):
    message = send_viber_message(PHONE, TEXT)
    watch.calls = 0
    esms.answer(json_answer({"CodeResponse": "100", "SMSID": message.sms_id, "SendStatus": 2}))
    refresh_viber_messages([message])
    assert watch.calls == 1
    assert watch.overlapping == []


@pytest.mark.parametrize("by_name", [True, False])
def test_no_transaction_is_open_around_any_call_of_a_drain(esms, watch, settings, by_name):
    """The next are claimed, and answers recorded, while other calls are on the wire, in transactions of their own."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 4, "DISPATCHER": "esms_viber.dispatch.queue_only"}

    def answer_once_they_have_ended(request):
        open_before = set(watch.open)
        wait_until(lambda: not open_before & watch.open)
        return accepted()

    esms.answer_all(answer_once_they_have_ended)
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
    assert summary.sent == watch.calls == 40
    assert watch.open_in_the_calling_thread == []
    assert set(seen_open) == {False}
