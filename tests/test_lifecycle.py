"""Every pair of states, and who may write one."""

from __future__ import annotations

import ast
import itertools
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from django.db import connection
from django.test import Client

import esms_viber
from esms_viber import lifecycle
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.lifecycle import Transition
from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_messages,
    queue_viber_message,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send
from tests.factories import columns_of, row

# Written down a second time: the code's own table would agree with itself.
ALLOWED = {
    "draft": "queued cancelled",
    "queued": "sending cancelled failed",
    "sending": "sent failed unknown cancelled queued delivered undelivered",
    "unknown": "sending sent delivered undelivered",
    "sent": "delivered undelivered",
    "failed": "queued delivered undelivered",
    "cancelled": "queued",
    "delivered": "",
    "undelivered": "",
}
PAIRS = list(itertools.product(Status, Status))


def is_allowed(old: Status, new: Status) -> bool:
    return new.value in ALLOWED[old.value].split()


# -- the table ---------------------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_every_pair_of_states(old: Status, new: Status) -> None:
    message = row(old)
    before = columns_of(message)
    if is_allowed(old, new):
        assert lifecycle.transition(Transition(message, new, {"error_message": "why"})) is True
        assert message.status == new
        assert columns_of(message) == {**before, "status": new, "error_message": "why"}
    else:
        with pytest.raises(ValueError, match=f"from {old.value} to {new.value}"):
            Transition(message, new)
        assert message.status == old
        assert columns_of(message) == before


@pytest.mark.django_db
@pytest.mark.parametrize(("old", "new"), PAIRS)
def test_every_pair_of_states_for_several_rows_at_once(old: Status, new: Status) -> None:
    messages = [row(old), row(old)]
    if is_allowed(old, new):
        lifecycle.transition(*(Transition(message, new) for message in messages))
    else:
        with pytest.raises(ValueError, match=f"from {old.value} to {new.value}"):
            lifecycle.transition(*(Transition(message, new) for message in messages))
    assert {columns_of(message)["status"] for message in messages} == {new if is_allowed(old, new) else old}


@pytest.mark.django_db
def test_one_forbidden_transition_among_several_writes_none() -> None:
    queued, sent = row(Status.QUEUED), row(Status.SENT)
    with pytest.raises(ValueError, match="from sent to sending"):
        lifecycle.transition(*(Transition(message, Status.SENDING) for message in (queued, sent)))
    assert columns_of(queued)["status"] == Status.QUEUED


@pytest.mark.django_db
@pytest.mark.parametrize(("old", "new"), [pair for pair in PAIRS if is_allowed(*pair)])
def test_a_transition_from_a_state_that_has_passed_writes_nothing(old: Status, new: Status) -> None:
    stale = row(old)
    passed = next(status for status in Status if status not in {old, new})
    OutboundViberMessage.objects.filter(pk=stale.pk).update(status=passed)
    before = columns_of(stale)
    assert lifecycle.transition(Transition(stale, new, {"error_message": "late", "sms_id": "abc"})) is False
    assert columns_of(stale) == before
    assert (stale.status, stale.sms_id) == (old, "")


@pytest.mark.django_db
def test_a_transition_under_a_claim_that_is_lost_writes_nothing() -> None:
    message = row(Status.SENDING, claim_id="mine")
    OutboundViberMessage.objects.filter(pk=message.pk).update(claim_id="theirs")
    assert lifecycle.transition(Transition(message, Status.SENT)) is False
    assert columns_of(message)["status"] == Status.SENDING
    message.refresh_from_db()
    assert lifecycle.transition(Transition(message, Status.SENT)) is True
    assert columns_of(message)["claim_id"] == ""


@pytest.mark.django_db
@pytest.mark.parametrize("final", [Status.DELIVERED, Status.UNDELIVERED])
def test_nothing_leads_out_of_a_final_report(final: Status) -> None:
    message = row(final)
    assert cancel_viber_messages([message]) == []
    resend_viber_messages([message])
    deliver_messages([message.pk])
    assert columns_of(message)["status"] == final


# -- the only writer, by the source ------------------------------------------------------------------------------------

PACKAGE = Path(esms_viber.__file__).parent
WRITERS = {"update", "create", "save", "acreate", "aupdate", "update_or_create", "get_or_create", "bulk_update"}
MODELS = {"OutboundViberMessage"}


def writes_of_status(source: str) -> list[int]:
    """Lines that write a message's `status`: attribute, setattr, keyword of a writing call, or its name in a list."""
    return sorted(node.lineno for node in ast.walk(ast.parse(source)) if _writes(node))


def _writes(node: ast.AST) -> bool:
    if isinstance(node, ast.Assign | ast.AugAssign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        # `self.status` of a class of its own is no message's.
        return any(_is_status(t) and not _is_self(t) for target in targets for t in ast.walk(target))
    if isinstance(node, ast.Call):
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in WRITERS | MODELS | {"set_columns", "enter"} and any(k.arg == "status" for k in node.keywords):
            return True
        if name in WRITERS | MODELS | {"setattr", "bulk_create"}:
            return any(_names_status(value) for value in [*node.args, *(k.value for k in node.keywords)])
    return False


def _is_status(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and node.attr == "status" and isinstance(node.ctx, ast.Store)


def _is_self(node: ast.AST) -> bool:
    return isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"


def _names_status(value: ast.AST) -> bool:
    return any(isinstance(n, ast.Constant) and n.value == "status" for n in ast.walk(value))


@pytest.mark.parametrize(
    "line",
    [
        "message.status = 'sent'",
        "message.status, x = 'sent', 1",
        "rows.filter(status='queued').update(status='sent')",
        "rows.update(**{'status': 'sent'})",
        "message.save(update_fields=['status'])",
        "rows.bulk_update(messages, ['status'])",
        "setattr(message, 'status', 'sent')",
        "OutboundViberMessage(status='queued')",
        "OutboundViberMessage.objects.create(status='queued')",
    ],
)
def test_the_search_finds_each_way_to_write_a_status(line: str) -> None:
    assert writes_of_status(line) == [1]


@pytest.mark.parametrize("line", ["rows.filter(status='sent')", "x = message.status", "rows.update(sms_id='1')"])
def test_the_search_does_not_mind_reading(line: str) -> None:
    assert writes_of_status(line) == []


def test_only_one_module_of_the_package_writes_a_status() -> None:
    found = {
        str(path.relative_to(PACKAGE)): lines
        for path in PACKAGE.rglob("*.py")
        if (lines := writes_of_status(path.read_text()))
    }
    assert set(found) == {"lifecycle.py"}, found


# -- the only writer, by the statements that reach the database --------------------------------------------------------


class StatusWrites:
    """Checks each UPDATE of a message's status as it goes to the database."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        flat = re.sub(r'["`]', "", sql)
        changes, _, condition = flat.partition(" WHERE ")
        if re.match(r"UPDATE esms_viber_outboundvibermessage (?:AS old )?SET .*\bstatus = ", changes):
            self.seen += 1
            assert re.search(r"\bstatus( \|\| '')? = ", condition), f"the WHERE names no status: {sql}"
            assert self._comes_from_lifecycle(), f"not written by lifecycle: {sql}"
        return execute(sql, params, many, context)

    def _comes_from_lifecycle(self) -> bool:
        frame = sys._getframe()
        while frame is not None:
            # `database` writes whatever statement it is given.
            if (
                frame.f_code.co_filename.startswith(str(PACKAGE))
                and Path(frame.f_code.co_filename).name != "database.py"
            ):
                return Path(frame.f_code.co_filename).name == "lifecycle.py"
            frame = frame.f_back
        return False


def _veto(sender: object, message: OutboundViberMessage, **kwargs: object) -> None:
    if message.campaign == "vetoed":
        raise CancelSend("opted out")


@pytest.mark.django_db(transaction=True)
def test_every_update_of_a_status_names_the_old_one_and_is_made_by_that_module() -> None:
    watch = StatusWrites()
    pre_send.connect(_veto)
    try:
        with connection.execute_wrapper(watch):
            sent = send_viber_message("0901888484", "Xin chào")
            vetoed = send_viber_message("0901888484", "Xin chào", campaign="vetoed")
            MemoryGateway.answers.append(SendResult(outcome=CallOutcome.ANSWERED, code="146"))
            failed = queue_viber_message("0901888484", "Xin chào")
            draft = OutboundViberMessage.objects.create(phone="0901888484", content="Xin chào")
            cancel_viber_messages([draft])
            resend_viber_messages([draft, failed, sent])
            MemoryGateway.answers.append(SendResult(outcome=CallOutcome.NO_ANSWER))
            unknown = send_viber_message("0901888484", "Xin chào")
            for message in (sent, vetoed, failed, unknown, draft):
                message.save()
            path = outbox[0].callback_url.removeprefix("https://shop.example.vn")
            assert Client().get(path, {"SendStatus": "5", "SendSuccess": "1"}).status_code == 200
    finally:
        pre_send.disconnect(_veto)
    # Five calls with a status after each, four claims, a cancel, two rows queued again, a report; those that come
    # together share a statement.
    assert watch.seen >= 10
    sent.refresh_from_db()
    assert sent.status == Status.DELIVERED
