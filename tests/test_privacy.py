"""Redacting and erasing: what is gone, what stays, and what cannot bring anything back. And what is handed out."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import User
from django.core.exceptions import ValidationError
from django.db import connections, transaction
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from esms_viber import privacy
from esms_viber.delivery import claims
from esms_viber.exceptions import MessageNotEditable
from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.lifecycle import REDACTED
from esms_viber.models import OutboundViberMessage, ViberGatewayState, ViberMessageEvent, ViberOptOut
from esms_viber.reports import applying, callbacks
from esms_viber.services import (
    deliver_due_messages,
    deliver_messages,
    erase_messages_of,
    export_messages_of,
    opt_out,
    queue_stored_message,
    queue_viber_message,
    queue_viber_messages,
    refresh_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.signals import CancelSend, pre_send, status_changed
from esms_viber.tokens import make_token
from tests.factories import row, stored, unsaved
from tests.fake_gateway import PATIENCE

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, OTHER_PHONE = "0901888484", "0912345678"
TEXT = "Chào chị Kim, mã của chị là 739251"
IMAGE, LINK = "https://shop.example.vn/kim.png", "https://shop.example.vn/orders/kim"
DELIVERED = {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0", "TotalPrice": "460", "telcoid": "1"}
WORDS = f"Phone 84901888484 refused: {TEXT}"

FORBIDDEN = re.compile("|".join([r"[\s.()-]*".join("901888484"), "739251", "Kim", "kim"]))


def dump(*models: type) -> str:
    """Every value of the app's tables, but for opt-outs, and of Django's log of the admin."""
    found = [OutboundViberMessage, ViberMessageEvent, ViberGatewayState, LogEntry, *models]
    lines = [f"{model.__name__} {line}" for model in found for line in model._base_manager.values()]
    return "\n".join(lines)


def traces() -> list[str]:
    return [line for line in dump().splitlines() if FORBIDDEN.search(line)]


def everything(status: str = "delivered", **columns: Any) -> OutboundViberMessage:
    """A message that has all that can be known of a person."""
    given = {
        "phone": "+84901888484",
        "content": TEXT,
        "image_url": IMAGE,
        "button_label": "Kim",
        "button_url": LINK,
        "metadata": {"customer": "Kim"},
        "dedupe_key": f"paid-0901 888 484-{OutboundViberMessage.objects.count()}",
        "object_id": "17",
        "error_message": WORDS,
        "request_id": f"request-{OutboundViberMessage.objects.count()}",
    }
    message = row(status, **{**given, **columns})
    message.events.create(kind="requested", request_id=message.request_id)
    message.events.create(
        kind="attempt",
        request_id=message.request_id,
        code="100",
        text=WORDS,
        data={"outcome": "answered", "http_status": 200, "sms_id": "s-1"},
    )
    report = {**DELIVERED, "SMSID": "s-1", "phonenumber": PHONE, "RequestId": message.request_id, "content": TEXT}
    message.events.create(kind="callback", request_id=message.request_id, data=report)
    message.events.create(kind="poll", request_id=message.request_id, code="100", text=WORDS, data=report)
    message.events.create(kind="note", request_id=message.request_id, text="Kim asked for it")
    return stored(message)


def path_of(message: OutboundViberMessage) -> str:
    return reverse("esms_viber:callback", args=[make_token(message.pk, message.request_id)])


def report(message: OutboundViberMessage, **parameters: str) -> int:
    return Client().get(path_of(message), parameters or DELIVERED).status_code


def script(monkeypatch: pytest.MonkeyPatch, answer: Any) -> None:
    monkeypatch.setattr(MemoryGateway, "send", lambda self, message, **_kwargs: answer(message))


def redact(*messages: OutboundViberMessage, **kwargs: Any) -> list[int]:
    return privacy.redact([message.pk for message in messages], **kwargs)


# -- what is gone, and what stays --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["delivered", "undelivered", "failed", "cancelled", "sent"])
def test_nothing_of_the_person_is_left_and_the_numbers_are(status):
    message = everything(status, total_price=460, code_result="100", sms_id="s-1", campaign="tet", telco_id=1)
    before = OutboundViberMessage.objects.filter(pk=message.pk).values().get()
    assert redact(message) == [message.pk]
    assert traces() == []
    after = OutboundViberMessage.objects.filter(pk=message.pk).values().get()
    emptied = {"phone": "", "content": "", "image_url": "", "button_label": "", "button_url": "", "metadata": {}}
    reason = "Its reason was redacted." if status == "cancelled" else ""
    emptied |= {"object_id": "", "error_message": reason, "dedupe_key": None, "redacted_kind": "text_image_button"}
    assert after == {**before, **emptied, "redacted_at": after["redacted_at"]}
    assert after["redacted_at"] is not None


def test_related_object_is_forgotten():
    message = row(related_object=User.objects.create_user("kim"))
    redact(message)
    found = stored(message)
    assert (found.content_type_id, found.object_id, found.related_object) == (None, "", None)


def test_reports_keep_their_numbers_and_calls_their_outcome():
    message = everything(sms_id="s-1")
    redact(message)
    data = {event.kind: event.data for event in message.events.all()}
    assert data["callback"] == data["poll"] == {**DELIVERED, "SMSID": "s-1"}
    assert data["attempt"] == {"outcome": "answered", "http_status": 200, "sms_id": "s-1"}
    assert {event.text for event in message.events.all()} == {""}


def test_report_on_another_message_leaves_no_numbers_that_could_be_taken_for_its_own():
    message = row("sent", request_id="mine")
    for named in ({"RequestId": "another"}, {"phonenumber": OTHER_PHONE}):
        message.events.create(kind="callback", request_id="mine", data={**DELIVERED, **named})
    redact(message)
    assert [event.data for event in message.events.all()] == [{}, {}]


def test_what_is_needed_to_go_on_is_kept():
    message = row("unknown", request_id="r")
    kept = [{"looked_up": True}, {"uncounted": True}, {"outcome": "no_answer", "while_open": True}]
    for data in kept:
        message.events.create(kind="note", data={**data, "name": "Kim"}, request_id="r")
    redact(message)
    assert [event.data for event in message.events.order_by("pk")] == kept


@pytest.mark.parametrize(
    ("key", "kept"),
    [
        ("order-17", True),
        ("paid-0901888484-Kim", False),
        ("+84 901.888.484", False),
        ("paid:84901888484", False),
        (None, True),
    ],
)
def test_dedupe_key_goes_only_if_it_holds_the_number(key, kept):
    message = row("delivered", dedupe_key=key)
    redact(message)
    assert stored(message).dedupe_key == (key if kept else None)


def test_dedupe_key_still_works_afterwards(caplog, queue_only):
    first = queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
    redact(first)
    again = queue_viber_message(PHONE, TEXT, dedupe_key="order-17")
    assert again.pk == first.pk
    assert "was given again" not in caplog.text
    assert traces() == []


def test_reason_that_names_nobody_is_kept():
    opted_out = row("cancelled", error_message="Not sent: this phone has opted out.")
    redact(opted_out)
    assert stored(opted_out).error_message == "Not sent: this phone has opted out."


def test_redacting_twice_changes_nothing():
    message = everything()
    redact(message)
    before = dump()
    assert redact(message) == []
    assert dump() == before


def test_who_redacted_stands_in_the_history():
    user = User.objects.create_user("owner")
    message = everything()
    redact(message, user=user)
    last = message.events.order_by("pk").last()
    assert (last.text, last.user) == (REDACTED, user)


# -- each status -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "queued"])
def test_what_was_not_sent_is_cancelled_first_and_told(status):
    heard = []

    def receiver(message, old_status, new_status, **kwargs) -> None:
        heard.append((old_status, new_status, message.phone, message.content))

    message = everything(status, next_attempt_at=timezone.now() if status == "queued" else None)
    status_changed.connect(receiver)
    try:
        redact(message)
    finally:
        status_changed.disconnect(receiver)
    found = stored(message)
    assert (found.status, found.next_attempt_at, found.error_message) == ("cancelled", None, REDACTED)
    assert heard == [(status, "cancelled", "", "")]
    assert traces() == []


def test_unknown_one_is_not_repeated_and_waits_for_nobody():
    message = everything("unknown", next_attempt_at=timezone.now(), uncertain_since=timezone.now())
    redact(message)
    assert (stored(message).status, stored(message).next_attempt_at) == ("unknown", None)
    assert deliver_due_messages().sent == 0
    assert outbox == []
    assert not OutboundViberMessage.objects.undecided().exists()


@pytest.mark.parametrize("status", ["queued", "unknown"])
def test_redacted_row_is_never_claimed(status):
    message = row("cancelled")
    redact(message)
    now = timezone.now()
    due = {"status": status, "next_attempt_at": now, "uncertain_since": now if status == "unknown" else None}
    OutboundViberMessage.objects.filter(pk=message.pk).update(**due, request_id="r", queued_at=now)
    deliver_due_messages()
    assert outbox == []
    assert stored(message).status == ("cancelled" if status == "queued" else "unknown")
    assert stored(message).next_attempt_at is None


def test_redacted_row_is_not_sent_again():
    message = everything("failed")
    stale = stored(message)
    redact(message)
    assert resend_viber_messages([stale]) == []
    assert not queue_stored_message(stale)
    assert not queue_stored_message(stored(message))
    assert stored(message).status == "failed"
    assert traces() == []


@pytest.mark.parametrize("status", ["draft", "failed", "cancelled"])
def test_nothing_is_brought_back_by_saving(status):
    message = everything(status)
    stale = stored(message)
    redact(message)
    stale.save()  # which changes nothing
    stale.content = f"{TEXT}!"
    with pytest.raises(MessageNotEditable, match="redacted"):
        stale.save()
    fresh = stored(message)
    fresh.phone = PHONE
    with pytest.raises(MessageNotEditable, match="redacted"):
        fresh.save()
    stale.metadata = {"customer": "Kim"}
    OutboundViberMessage.objects.bulk_update([stale], ["content", "phone", "metadata"])
    assert traces() == []


# -- while it is being sent --------------------------------------------------------------------------------------------


ANSWERS = {
    "100": (SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="s-1", text=WORDS), "sent"),
    "refused": (SendResult(outcome=CallOutcome.ANSWERED, code="99", text=WORDS), "failed"),
    "the account": (SendResult(outcome=CallOutcome.ANSWERED, code="103", text=WORDS), "cancelled"),
    "not connected": (SendResult(outcome=CallOutcome.NOT_CONNECTED, text=WORDS), "cancelled"),
    "no answer": (SendResult(outcome=CallOutcome.NO_ANSWER, text=WORDS), "unknown"),
    "odd": (SendResult(outcome=CallOutcome.ANSWERED, code="777", text=WORDS), "unknown"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_redacted_while_its_call_is_on_the_wire(name, monkeypatch):
    answer, status = ANSWERS[name]
    script(monkeypatch, lambda message: (_in_thread(erase_messages_of, PHONE), answer)[1])
    sent = send_viber_message(PHONE, TEXT, metadata={"customer": "Kim"})
    found = stored(sent)
    assert (found.status, found.next_attempt_at) == (status, None)
    assert found.code_result == (answer.code if status in {"sent", "failed", "unknown"} else "")
    assert traces() == []
    attempt = found.events.get(kind="attempt")
    assert (attempt.code, attempt.text) == (answer.code, "")
    deliver_due_messages()
    assert stored(sent).status == status
    assert traces() == []


def _in_thread(work: Any, *args: Any) -> Any:
    """Run it on a connection of its own, as another process would."""

    def run() -> Any:
        try:
            return work(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(run).result(PATIENCE)


@pytest.mark.parametrize("veto", [None, CancelSend(f"Not to {TEXT}"), ValueError(TEXT)])
def test_redacted_after_it_was_claimed_is_not_called_for(veto, queue_only):
    def redacts(message, **_kwargs):
        _in_thread(erase_messages_of, PHONE)
        if veto is not None:
            raise veto

    message = queue_viber_message(PHONE, TEXT)
    pre_send.connect(redacts)
    try:
        deliver_messages([message.pk])
    finally:
        pre_send.disconnect(redacts)
    assert outbox == []
    found = stored(message)
    assert (found.status, found.error_message, found.held_up_since) == ("cancelled", REDACTED, None)
    assert traces() == []


def test_repeat_that_was_redacted_after_it_was_claimed_stays_unknown(queue_only):
    message = queue_viber_message(PHONE, TEXT)
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status="unknown", uncertain_since=timezone.now(), attempts=1, next_attempt_at=timezone.now()
    )
    claimed = claims.claim(10).ready
    assert [each.pk for each in claimed] == [message.pk]
    redact(message)
    claims.release(claimed, {})
    assert (stored(message).status, stored(message).next_attempt_at) == ("unknown", None)


def test_one_that_was_claimed_and_is_given_back_is_cancelled(queue_only):
    message = queue_viber_message(PHONE, TEXT)
    claimed = claims.claim(10).ready
    redact(message)
    assert stored(message).status == "sending"
    changes = claims.release(claimed, {"error_message": "eSMS does not answer."})
    assert [change.to for change in changes] == ["cancelled"]
    assert stored(message).status == "cancelled"
    assert traces() == []


@pytest.mark.parametrize(("uncertain", "status"), [(False, "cancelled"), (True, "unknown")])
def test_one_whose_worker_is_gone_is_not_queued_again(uncertain, status, queue_only, clock):
    message = queue_viber_message(PHONE, TEXT)
    claims.claim(10)
    if uncertain:
        OutboundViberMessage.objects.filter(pk=message.pk).update(uncertain_since=timezone.now(), attempts=1)
    redact(message)
    clock.advance(minutes=3)
    deliver_due_messages()
    assert outbox == []
    assert (stored(message).status, stored(message).next_attempt_at) == (status, None)


# -- reports afterwards ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phone", [PHONE, OTHER_PHONE, "+84901888484", ""])
def test_report_on_a_redacted_message_counts_and_leaves_numbers_alone(phone):
    message = everything("sent", sent_at=timezone.now(), sms_id="s-1")
    redact(message)
    given = {**DELIVERED, "SMSID": "s-1", "phonenumber": phone, "RequestId": message.request_id, "name": "Kim"}
    assert report(message, **given) == 200
    found = stored(message)
    assert (found.status, found.total_price, found.telco_id) == ("delivered", 460, 1)
    event = found.events.filter(kind="callback").latest("pk")
    assert event.applied
    assert event.data == {**DELIVERED, "SMSID": "s-1"}
    assert traces() == []


def test_repeated_report_is_known_after_redaction():
    message = everything("sent", sent_at=timezone.now())
    given = {**DELIVERED, "phonenumber": PHONE}
    report(message, **given)
    redact(message)
    before = dump()
    assert report(message, **given) == 200
    assert dump() == before


def test_report_that_names_another_request_changes_nothing_after_redaction():
    message = everything("sent", sent_at=timezone.now())
    redact(message)
    assert report(message, **DELIVERED, RequestId="another", phonenumber=PHONE) == 200
    assert stored(message).status == "sent"
    assert stored(message).events.filter(kind="callback").latest("pk").data == {}
    assert traces() == []


def test_fingerprint_of_a_report_cannot_be_found_by_trying_all_phones(settings):
    message = everything("sent", sent_at=timezone.now())
    found = []
    for key in ("one", "two"):
        with_key = stored(message)
        path = path_of(with_key)
        settings.SECRET_KEY, settings.SECRET_KEY_FALLBACKS = key, ["tests"]
        Client().get(path, {"SendStatus": "1", "phonenumber": PHONE})
        found.append(message.events.filter(kind="callback").latest("pk").fingerprint)
        settings.SECRET_KEY = "tests"
    assert len({*found, None}) == 3


def test_answer_to_a_query_about_a_redacted_message_leaves_numbers_alone(monkeypatch):
    from esms_viber.gateways.base import StatusResult

    message = everything("sent", sent_at=timezone.now(), sms_id="s-1")
    redact(message)
    values = {**DELIVERED, "SMSID": "s-1", "phonenumber": PHONE, "content": TEXT}
    answer = StatusResult(outcome=CallOutcome.ANSWERED, code="100", values=values, text=WORDS)
    monkeypatch.setattr(MemoryGateway, "fetch_status", lambda self, *args, **kwargs: answer)
    refresh_viber_messages([stored(message)])
    assert stored(message).status == "delivered"
    assert traces() == []


def test_report_about_somebody_else_names_no_phone():
    """It could not be found when that person is to be erased."""
    message = row("sent", phone="+84912345678", content="Hello", request_id="r")
    assert report(message, **DELIVERED, phonenumber=PHONE) == 200
    assert stored(message).status == "sent"
    event = message.events.get()
    assert (event.data, event.text) == (
        {"phonenumber": "+8490***484"},
        "It names another phone, so it changed nothing.",
    )
    assert traces() == []


def test_report_that_makes_no_sense_names_nobody_else_either():
    message = row("sent", phone="+84912345678", content="Hello", request_id="r")
    assert report(message, SendStatus="abc", phonenumber=PHONE) == 400
    assert message.events.get().data == {"phonenumber": "+8490***484"}
    assert traces() == []


# -- one person --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["0901888484", "+84901888484", "84901888484", "0901 888 484", "901888484"])
def test_everything_of_a_person_is_erased_by_any_spelling(spelling):
    mine = [everything(status) for status in ("delivered", "draft", "queued", "unknown", "sending")]
    others = everything(phone="+84912345678", dedupe_key="other", content="Hello")
    opt_out(PHONE, scope="everything")
    before = OutboundViberMessage.objects.filter(pk=others.pk).values().get()
    others.events.all().delete()
    assert erase_messages_of(spelling) == len(mine)
    assert OutboundViberMessage.objects.filter(pk=others.pk).values().get() == before
    OutboundViberMessage.objects.filter(pk=others.pk).delete()
    assert traces() == []
    assert ViberOptOut.objects.get().phone == "+84901888484"
    assert erase_messages_of(spelling) == 0


@pytest.mark.parametrize("phone", ["", "0901", "Kim", "0281234567"])
def test_phone_that_cannot_be_read_erases_and_exports_nothing(phone):
    message = everything()
    for service in (erase_messages_of, export_messages_of):
        with pytest.raises(ValidationError):
            service(phone)
    assert stored(message).content == TEXT


def test_thousands_of_one_phone_are_erased(queue_only):
    queue_viber_messages([unsaved(phone=PHONE, content=f"{TEXT} {number}") for number in range(1203)])
    assert erase_messages_of(PHONE) == 1203
    assert traces() == []


def test_phone_that_was_corrected_is_erased_from_the_history_of_the_message():
    message = everything("failed")
    message.phone, message.content, message.metadata, message.dedupe_key = OTHER_PHONE, "Hello", {}, None
    message.image_url = message.button_label = message.button_url = ""
    message.save()
    assert [line for line in dump().splitlines() if "901888484" in line] == []
    assert message.events.get(kind="attempt").data["outcome"] == "answered"


def test_export_holds_all_that_is_stored_of_one_person():
    message = everything(total_price=460, sent_at=timezone.now())
    everything(phone="+84912345678", dedupe_key="other")
    opt_out(PHONE, scope="promotional", note="by mail")
    found = json.loads(json.dumps(export_messages_of("0901 888 484")))
    assert found["phone"] == "+84901888484"
    assert (found["opt_out"]["scope"], found["opt_out"]["note"]) == ("promotional", "by mail")
    [exported] = found["messages"]
    assert exported["id"] == message.pk
    assert exported["content"] == TEXT
    assert exported["metadata"] == {"customer": "Kim"}
    assert exported["total_price"] == "460.0000"
    assert exported["created_at"] == message.created_at.isoformat()
    assert exported.keys() >= {*OutboundViberMessage.CALLERS_COLUMNS} - {"content_type_id"}
    assert [event["kind"] for event in exported["events"]] == ["requested", "attempt", "callback", "poll", "note"]
    assert exported["events"][2]["data"]["phonenumber"] == PHONE
    assert OTHER_PHONE[1:] not in json.dumps(found)


def test_export_names_the_kind_of_the_related_object():
    user = User.objects.create_user("kim")
    row(related_object=user)
    [exported] = export_messages_of(PHONE)["messages"]
    assert (exported["content_type"], exported["object_id"]) == ("auth.user", str(user.pk))


def test_export_of_somebody_unknown_is_empty():
    assert export_messages_of(OTHER_PHONE) == {"phone": "+84912345678", "opt_out": None, "messages": []}


# -- at the same time --------------------------------------------------------------------------------------------------


def test_nothing_comes_back_while_workers_send_and_reports_arrive(monkeypatch, queue_only):
    """Two senders, reports for what was taken, and a person erased three times meanwhile."""
    queue_viber_messages([unsaved(phone=PHONE, content=TEXT, metadata={"customer": "Kim"}) for _ in range(150)])
    rows = OutboundViberMessage.objects.order_by("pk")
    paths = [path_of(message) for message in rows]
    taken = SendResult(outcome=CallOutcome.ANSWERED, code="100", text=WORDS)
    script(monkeypatch, lambda message: (threading.Event().wait(0.002), taken)[1])

    def reports(numbers: Iterable[int]) -> list[int]:
        client = Client()
        given = [{"SendStatus": "1", "phonenumber": PHONE}, {**DELIVERED, "phonenumber": PHONE, "name": "Kim"}]
        return [client.get(paths[n], parameters).status_code for n in numbers for parameters in given]

    def erase() -> int:
        return sum(erase_messages_of(PHONE) for _ in range(3))

    def guarded(work: Any, *args: Any) -> Any:
        try:
            return work(*args)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(5) as pool:
        futures = [
            pool.submit(guarded, deliver_due_messages),
            pool.submit(guarded, reports, range(0, 150, 2)),
            pool.submit(guarded, erase),
            pool.submit(guarded, reports, range(1, 150, 2)),
            pool.submit(guarded, deliver_due_messages),
        ]
        results = [future.result(120) for future in futures]
    assert results[2] == 150
    assert {*results[1], *results[3]} <= {200, 404}
    assert traces() == []
    assert not rows.filter(status__in=["queued", "sending"]).exists()
    assert rows.filter(redacted_at=None).count() == 0


@pytest.mark.parametrize(
    "parameters",
    [
        {**DELIVERED, "phonenumber": PHONE},
        {"SendStatus": "1", "phonenumber": PHONE},
        {"SendStatus": "0", "phonenumber": PHONE, "name": "Kim"},
        {"SendStatus": "delivered", "phonenumber": PHONE},
    ],
)
def test_redacted_after_a_report_has_read_it(parameters, monkeypatch):
    message = everything("sent", sent_at=timezone.now(), sms_id="s-1", total_price=None)
    find, read = callbacks._find, []

    def then_redacted(*args: Any) -> Any:
        found = find(*args)
        if not read:
            read.append(found)
            _in_thread(erase_messages_of, PHONE)
        return found

    monkeypatch.setattr(callbacks, "_find", then_redacted)
    assert report(message, **parameters) in {200, 400}
    assert traces() == []
    assert stored(message).status == ("delivered" if parameters["SendStatus"] == "5" else "sent")


@pytest.mark.parametrize("parameters", [DELIVERED, {"SendStatus": "0"}, {"SendStatus": "delivered"}])
def test_redacted_while_a_report_is_being_stored(parameters, monkeypatch):
    """The redaction waits for the report, and then redacts it as well."""
    message = everything("sent", sent_at=timezone.now())
    insert, pool, futures = callbacks.insert_one, ThreadPoolExecutor(1), []

    def erase() -> int:
        try:
            return erase_messages_of(PHONE)
        finally:
            connections.close_all()

    def slowly(*args: Any, **kwargs: Any) -> None:
        insert(*args, **kwargs)
        futures.append(pool.submit(erase))
        threading.Event().wait(0.5)
        assert not futures[0].done()

    monkeypatch.setattr(callbacks, "insert_one", slowly)
    report(message, **parameters, phonenumber=PHONE, name="Kim")
    assert futures[0].result(PATIENCE) == 1
    pool.shutdown()
    assert traces() == []


def test_report_that_cannot_be_applied_is_stored_without_the_person(monkeypatch):
    message = everything("sent", sent_at=timezone.now())
    redact(message)

    def fails(*_args: Any, **_kwargs: Any) -> None:
        raise ValueError(TEXT)

    monkeypatch.setattr(applying, "apply_report", fails)
    assert report(message, **DELIVERED, phonenumber=PHONE, name="Kim") == 500
    assert message.events.filter(kind="callback").latest("pk").data == DELIVERED
    assert traces() == []


def test_rolled_back_erasure_leaves_everything():
    message = everything()
    before = dump()
    with transaction.atomic():
        assert erase_messages_of(PHONE) == 1
        transaction.set_rollback(True)
    assert dump() == before
    assert stored(message).content == TEXT
