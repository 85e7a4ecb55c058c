"""What no SMSID can be asked for is looked up in eSMS's list of what was sent, and never guessed."""

from __future__ import annotations

import datetime as dt
import json
import logging
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from esms_viber.lifecycle import VIETNAM
from esms_viber.models import OutboundViberMessage, Status, ViberGatewayState, ViberMessageEvent
from esms_viber.reports import sent_list
from esms_viber.reports.polling import refresh_due_messages
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    refresh_viber_messages,
    resend_viber_messages,
    send_viber_message,
)
from esms_viber.testing import play_callback
from tests.clock import Clock
from tests.factories import PHONE, TEXT, stored
from tests.fake_gateway import PATIENCE, Close, FakeGateway, Received, accepted, http_answer, json_answer

pytestmark = pytest.mark.django_db(transaction=True)

NOT_LISTED = "eSMS's list of what was sent does not show it."


def entry(sms_id: str = "sms-1", *, at: dt.datetime | None = None, **fields: Any) -> dict[str, Any]:
    when = at or timezone.now()
    return {
        "Campaign": "",
        "Content": TEXT,
        "Phone": PHONE,
        "ReferenceId": sms_id,
        "SellPrice": 470.0,
        "SendResult": 2,
        "SendStatus": 7,
        "SentTime": f"/Date({round(when.timestamp() * 1000)}+0700)/",
        "SmsId": 1,
        "SmsType": 23,
        **fields,
    }


class Esms:
    """eSMS with a list of what was sent, which it tells in pages of what was created within the times asked for."""

    def __init__(self, server: FakeGateway) -> None:
        self.server = server
        self.entries: list[Any] = []
        self.page_size = 500
        self.tells_total = True
        self.found: dict[str, Any] = {"SendStatus": 2}
        server.answer_all(self._reply)

    def _reply(self, request: Received) -> list:
        if request.path.endswith("GetSmsSentData_V2"):
            asked = json.loads(request.body)
            begin, end = (
                dt.datetime.strptime(asked[name], "%Y-%m-%d %H:%M:%S").replace(tzinfo=VIETNAM)
                for name in ("From", "To")
            )
            assert dt.timedelta(0) < end - begin <= dt.timedelta(days=3)
            listed = [each for each in self.entries if (when := _when(each)) is None or begin <= when <= end]
            first = (asked["Page"] - 1) * self.page_size
            total = {"CountTotal": len(listed)} if self.tells_total else {}
            return json_answer({"CodeResult": "100", **total, "SentData": listed[first : first + self.page_size]})
        if request.path.endswith("GetSendStatus"):
            return json_answer({"CodeResponse": "100", "SMSID": request["RefId"], **self.found})
        return accepted(f"sms-{request['RequestId']}")

    @property
    def lists(self) -> list[dict[str, Any]]:
        """The lists that were asked for, page by page."""
        return [json.loads(r.body) for r in self.server.requests if r.path.endswith("GetSmsSentData_V2")]

    @property
    def queries(self) -> list[str]:
        return [r["RefId"] for r in self.server.requests if r.path.endswith("GetSendStatus")]


def _when(listed: Any) -> dt.datetime | None:
    """The time of an entry; None for one without a time, which is in every list."""
    text = str(listed and listed["SentTime"])
    return dt.datetime.fromtimestamp(int(text[6:19]) / 1000, dt.UTC) if text.startswith("/Date") else None


@pytest.fixture
def listing(esms: FakeGateway) -> Esms:
    return Esms(esms)


def unknown(listing: Esms, content: str = TEXT, phone: str = PHONE, **fields: Any) -> OutboundViberMessage:
    """A message that may have been sent, and that nobody repeats."""
    # After a call without an answer the next ones would wait for a probe.
    ViberGatewayState.objects.all().delete()
    listing.server.answer([Close()])
    message = send_viber_message(phone, content, **fields)
    cancel_viber_messages([message])
    message.refresh_from_db()
    assert (message.status, message.next_attempt_at) == ("unknown", None)
    return message


def refresh() -> str:
    out = StringIO()
    call_command("refresh_viber_messages", stdout=out)
    return out.getvalue()


def notes(message: OutboundViberMessage) -> list[str]:
    return [event.text for event in message.events.filter(kind="note") if "list" in event.text]


# -- settling ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "status"),
    [
        ({"SendStatus": 5, "SendResult": 1}, "delivered"),
        ({"SendStatus": "5", "SendResult": "1"}, "delivered"),
        ({"SendStatus": 5, "SendResult": None, "SentResult": True}, "delivered"),
        ({"SendStatus": 5, "SendResult": 0}, "undelivered"),
        ({"SendStatus": 4, "SendResult": 0}, "undelivered"),
        ({"SendStatus": 5, "SendResult": 2}, "sent"),
        ({"SendStatus": 7, "SendResult": 0}, "sent"),
        ({"SendStatus": 1}, "sent"),
        ({"SendStatus": 0}, "sent"),
        ({"SendStatus": None, "SendResult": None}, "sent"),
    ],
)
def test_the_one_entry_that_it_can_be_settles_it(
    listing: Esms, clock: Clock, moves: list, fields: dict[str, Any], status: str
) -> None:
    message = unknown(listing)
    listing.entries = [entry("sms-7", **fields), entry("other", Phone="0901888485"), entry("more", Content="other")]
    clock.advance(minutes=6)
    refresh()
    message = stored(message)
    assert (message.status, message.sms_id) == (status, "sms-7")
    event = message.events.last()
    assert (event.kind, event.text, event.applied) == ("poll", "Found in eSMS's list of what was sent.", True)
    assert event.data["SMSID"] == "sms-7"
    assert moves[-1] == (message.pk, "unknown", status)
    assert message.total_price == 470
    assert (message.next_query_at is None) is message.is_final


@pytest.fixture
def moves() -> Any:
    from esms_viber.signals import status_changed

    seen: list[tuple[int, str, str]] = []

    def note(sender: Any, message: Any, old_status: str, new_status: str, event: Any, **kwargs: Any) -> None:
        seen.append((message.pk, old_status, new_status))

    status_changed.connect(note)
    yield seen
    status_changed.disconnect(note)


def test_after_that_it_is_asked_about_by_its_sms_id(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    listing.entries = [entry("sms-7")]
    clock.advance(minutes=6)
    refresh()
    listing.found = {"SendStatus": 5, "SendSuccess": 1, "SendFailed": 0}
    clock.advance(minutes=10)
    refresh()
    assert listing.queries == ["sms-7"]
    assert stored(message).status == "delivered"
    assert len(listing.lists) == 1


def test_a_message_taken_without_sms_id_is_found_too(listing: Esms, clock: Clock) -> None:
    listing.server.answer([Close()], json_answer({"CodeResult": "124"}))
    message = send_viber_message(PHONE, TEXT)
    listing.entries = [entry("sms-7")]
    clock.advance(minutes=1)
    deliver_due_messages()
    assert (stored(message).status, stored(message).sms_id) == ("sent", "")
    clock.advance(minutes=10)
    refresh()
    assert (stored(message).status, stored(message).sms_id) == ("sent", "sms-7")
    clock.advance(minutes=30)
    refresh()
    assert listing.queries == ["sms-7"]


def test_a_person_may_ask_at_once(listing: Esms) -> None:
    message = unknown(listing)
    listing.entries = [entry("sms-7")]
    (found,) = refresh_viber_messages([message])
    assert (found.status, found.sms_id) == ("sent", "sms-7")
    assert stored(message).sms_id == "sms-7"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("Cà phê\nsữa", "Cà phê\r\nsữa"),
        ("Cà phê", unicodedata.normalize("NFD", "Cà phê")),
        ("  Cà phê ", "Cà phê"),
        ("Cà phê", "\r\nCà phê  \r\n"),
    ],
)
def test_texts_are_compared_as_people_read_them(listing: Esms, ours: str, theirs: str) -> None:
    message = unknown(listing, ours)
    listing.entries = [entry(Content=theirs)]
    refresh_viber_messages([message])
    assert stored(message).status == "sent"


@pytest.mark.parametrize("content", ["", None])
def test_an_image_has_no_text(listing: Esms, content: str | None) -> None:
    message = unknown(listing, "", image_url="https://shop.example.vn/a.png")
    listing.entries = [entry("text"), entry("image", Content=content)]
    refresh_viber_messages([message])
    assert stored(message).sms_id == "image"


@pytest.mark.parametrize(("minutes", "is_found"), [(-2.1, False), (-1.9, True), (4.9, True), (5.1, False)])
def test_only_what_was_created_around_its_calls(listing: Esms, clock: Clock, minutes: float, is_found: bool) -> None:
    message = unknown(listing)
    listing.entries = [entry(at=timezone.now() + dt.timedelta(minutes=minutes))]
    clock.advance(minutes=6)
    refresh_viber_messages([message])
    assert (stored(message).status == "sent") is is_found


def test_the_last_repeat_counts(listing: Esms, clock: Clock) -> None:
    listing.server.answer([Close()], [Close()])
    message = send_viber_message(PHONE, TEXT)
    clock.advance(hours=2)
    deliver_due_messages()
    cancel_viber_messages([message])
    listing.entries = [entry(at=timezone.now() + dt.timedelta(minutes=4))]
    clock.advance(minutes=6)
    refresh()
    assert stored(message).sms_id == "sms-1"


def test_a_worker_that_was_killed_leaves_what_the_list_can_settle(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    listing.entries = [entry("sms-7")]
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status=Status.SENDING, claim_id="gone", lease_until=timezone.now(), next_query_at=None
    )
    clock.advance(hours=13)
    deliver_due_messages()
    assert stored(message).status == "unknown", "its day is over"
    clock.advance(minutes=6)
    refresh()
    assert stored(message).sms_id == "sms-7"


# -- what is ambiguous stays with a person -----------------------------------------------------------------------------


def ambiguous(message: OutboundViberMessage) -> list[list[dict[str, Any]]]:
    assert (stored(message).status, stored(message).sms_id) == ("unknown", "")
    events = ViberMessageEvent.objects.filter(message=message.pk, text=sent_list.AMBIGUOUS)
    return [event.data["candidates"] for event in events]


def test_two_entries_are_shown_to_a_person(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    listing.entries = [entry("a", SendStatus=5, SendResult=1), entry("b", SendStatus=5, SendResult=0), entry("c")]
    clock.advance(minutes=6)
    refresh()
    (candidates,) = ambiguous(message)
    assert {each["sms_id"]: (each["send_status"], each["delivered"]) for each in candidates} == {
        "a": (5, True),
        "b": (5, False),
        "c": (7, None),
    }
    assert all(dt.datetime.fromisoformat(each["time"]) < timezone.now() for each in candidates)
    clock.advance(minutes=30)
    refresh()
    assert len(ambiguous(message)) == 1, "told once"
    listing.entries[2]["SendStatus"] = 4
    clock.advance(hours=3)
    refresh()
    assert len(ambiguous(message)) == 2, "told again, because it has changed"


def test_two_people_cannot_give_one_entry_to_two_messages(listing: Esms) -> None:
    twins = unknown(listing), unknown(listing)
    listing.entries = [entry("sms-7"), entry("sms-8")]
    refresh_viber_messages(twins)
    begin = threading.Barrier(2)

    def say(message: OutboundViberMessage) -> bool:
        begin.wait(PATIENCE)
        try:
            return sent_list.recognise(message.pk, "sms-7", user=None)
        finally:
            connection.close()

    with ThreadPoolExecutor(2) as people:
        said = list(people.map(say, twins))
    assert sorted(said) == [False, True]
    assert sorted(stored(message).sms_id for message in twins) == ["", "sms-7"]


def test_at_most_ten_are_shown(listing: Esms) -> None:
    message = unknown(listing)
    listing.entries = [entry(f"sms-{number}") for number in range(30)]
    refresh_viber_messages([message])
    (candidates,) = ambiguous(message)
    assert len(candidates) == 10


def test_an_entry_whose_sms_id_a_message_has_is_no_candidate(listing: Esms) -> None:
    listing.server.answer(accepted("known"))
    send_viber_message(PHONE, TEXT)
    message = unknown(listing)
    listing.entries = [entry("known"), entry("sms-7")]
    refresh_viber_messages([message])
    assert stored(message).sms_id == "sms-7"


def test_two_messages_that_one_entry_can_be_of(listing: Esms) -> None:
    first, second = unknown(listing), unknown(listing)
    listing.entries = [entry("sms-7")]
    refresh_viber_messages([first])
    assert ambiguous(first) == [
        [{"time": sent_time(listing, 0), "sms_id": "sms-7", "send_status": 7, "delivered": None, "price": "470.0"}]
    ]
    refresh_viber_messages([first, second])
    assert len(ambiguous(second)) == 1


def sent_time(listing: Esms, number: int) -> str:
    return str(_when(listing.entries[number]).isoformat())


def test_a_resend_without_sms_id_can_be_it_as_well(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    ViberGatewayState.objects.all().delete()
    listing.server.answer([Close()])
    (again,) = resend_viber_messages([message])
    listing.entries = [entry("sms-7")]
    refresh_viber_messages([message])
    assert len(ambiguous(message)) == 1
    listing.server.answer(accepted("sms-8"))
    clock.advance(minutes=1)
    deliver_due_messages()
    assert stored(again).sms_id == "sms-8"
    listing.entries.append(entry("sms-8"))
    refresh_viber_messages([message])
    assert stored(message).sms_id == "sms-7", "now it is known which of them is the resend"


def test_one_that_was_reported_without_sms_id_can_be_it_as_well(listing: Esms) -> None:
    reported, message = unknown(listing), unknown(listing)
    play_callback(reported, SMSID="")
    assert (stored(reported).status, stored(reported).sms_id) == ("delivered", "")
    listing.entries = [entry("sms-7")]
    refresh_viber_messages([message])
    assert len(ambiguous(message)) == 1


@pytest.mark.parametrize("fields", [None, {"SentTime": "?"}, {"Phone": "09018884xx"}, {"ReferenceId": ""}])
def test_an_entry_that_cannot_be_read_may_be_it(listing: Esms, clock: Clock, fields: dict[str, Any] | None) -> None:
    message = unknown(listing)
    unreadable = fields and entry(**fields)
    listing.entries = [unreadable]
    clock.advance(hours=2)
    refresh()
    assert notes(message) == [], "nothing is said of a list that could not be read whole"
    listing.entries = [unreadable, entry("sms-7", at=timezone.now() - dt.timedelta(hours=2))]
    refresh_viber_messages([message])
    assert len(ambiguous(message)) == 1


def test_one_of_another_phone_that_cannot_be_read_is_none(listing: Esms) -> None:
    message = unknown(listing)
    listing.entries = [entry(Phone="0901888485", ReferenceId=""), entry("sms-7")]
    refresh_viber_messages([message])
    assert stored(message).sms_id == "sms-7"


# -- what the list does not show ---------------------------------------------------------------------------------------


def test_what_the_list_does_not_show_is_told_once_after_an_hour(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    clock.advance(minutes=40)
    refresh()
    assert notes(message) == []
    for _number in range(10):
        clock.advance(hours=12)
        refresh()
    assert notes(message) == [NOT_LISTED]
    assert stored(message).status == "unknown", "still a person resends"
    assert OutboundViberMessage.objects.undecided().get() == message


def test_it_is_looked_for_at_growing_intervals_for_seven_days(listing: Esms, clock: Clock) -> None:
    message, ages = unknown(listing), []
    since = message.uncertain_since
    while (when := stored(message).next_query_at) is not None:
        clock.set(when + dt.timedelta(seconds=1))
        refresh()
        ages.append(timezone.now() - since)
    assert len(listing.lists) == len(ages)
    assert 8 <= len(ages) <= 15
    assert dt.timedelta(minutes=5) < ages[0] < dt.timedelta(minutes=6)
    assert dt.timedelta(days=6) < ages[-1] < dt.timedelta(days=7)
    clock.advance(hours=6)
    assert refresh_viber_messages([message]) == []


def test_an_entry_of_somebody_else_is_not_it(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    listing.entries = [entry(Content="other"), entry(Phone="0901888485")]
    clock.advance(minutes=90)
    refresh()
    assert notes(message) == [NOT_LISTED]


@pytest.mark.parametrize("tells_total", [True, False])
def test_all_pages_are_read(listing: Esms, clock: Clock, tells_total: bool) -> None:
    message = unknown(listing)
    listing.page_size, listing.tells_total = 3, tells_total
    listing.entries = [*(entry(f"sms-{n}", Content=str(n)) for n in range(6)), entry("sms-7")]
    refresh_viber_messages([message])
    assert stored(message).sms_id == "sms-7"
    assert [asked["Page"] for asked in listing.lists] == ([1, 2, 3] if tells_total else [1, 2, 3, 4])
    assert {asked["PageSize"] for asked in listing.lists} == {500}


def test_a_list_that_does_not_go_on_decides_nothing(listing: Esms, clock: Clock) -> None:
    """eSMS says that there are more, and gives the same page again."""
    message = unknown(listing)
    clock.advance(hours=2)
    page = [entry("sms-7", at=timezone.now() - dt.timedelta(hours=2))]
    listing.server.answer_all(lambda request: json_answer({"CodeResult": "100", "CountTotal": 9, "SentData": page}))
    refresh_viber_messages([message])
    assert len(ambiguous(message)) == 1
    page.clear()
    refresh_viber_messages([message])
    assert NOT_LISTED not in notes(message)


def test_a_list_without_end_is_read_up_to_a_limit(listing: Esms, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sent_list, "MOST_PAGES", 3)
    message = unknown(listing)
    listing.page_size = 1
    listing.entries = [entry("sms-7"), *(entry(f"{number}", Content="other") for number in range(9))]
    refresh_viber_messages([message])
    assert len(listing.lists) == 3
    assert len(ambiguous(message)) == 1


@pytest.mark.parametrize(
    "answer",
    [
        [Close()],
        http_answer(b"<html>", status=500),
        json_answer({"CodeResult": "105"}),
        json_answer({"CodeResult": "100"}),
        json_answer({"error": "Invalid request"}),
    ],
)
def test_without_a_list_nothing_is_said_and_it_is_asked_for_again(
    listing: Esms, clock: Clock, caplog: pytest.LogCaptureFixture, answer: list
) -> None:
    message = unknown(listing)
    clock.advance(hours=2)
    listing.server.answer(answer)
    with caplog.at_level(logging.WARNING):
        refresh()
    assert "did not give its list" in caplog.text
    assert PHONE[1:] not in caplog.text
    assert notes(message) == []
    listing.entries = [entry("sms-7", at=timezone.now() - dt.timedelta(hours=2))]
    clock.advance(minutes=6)
    refresh()
    assert stored(message).sms_id == "sms-7"


@pytest.mark.parametrize("answer", [json_answer({"CodeResult": "99"}), http_answer(b"x" * 4_500_000)])
def test_a_time_whose_list_is_not_given_keeps_no_other_from_being_read(
    listing: Esms, clock: Clock, answer: list
) -> None:
    """As one that is too long ago: how far eSMS looks back is not documented."""
    early = unknown(listing)
    clock.advance(days=1)
    late = unknown(listing)
    at = timezone.now()
    clock.advance(minutes=6)
    listing.entries = [entry("sms-7", at=at)]
    listing.server.answer(answer)
    refresh()
    assert len(listing.lists) == 2
    assert (stored(early).sms_id, stored(late).sms_id) == ("", "sms-7")


@pytest.mark.parametrize("answer", [[Close()], http_answer(b"<html>", status=503)])
def test_no_list_is_asked_for_after_one_without_an_answer(listing: Esms, clock: Clock, answer: list) -> None:
    unknown(listing)
    clock.advance(days=1)
    unknown(listing)
    clock.advance(minutes=6)
    listing.server.answer_all(answer)
    refresh()
    assert len(listing.lists) == 1


def test_a_refused_account_ends_it(listing: Esms, clock: Clock) -> None:
    unknown(listing)
    clock.advance(days=1)
    unknown(listing)
    clock.advance(minutes=6)
    listing.server.answer_all(json_answer({"CodeResult": "101"}))
    assert refresh_due_messages().account_code == "101"
    assert len(listing.lists) == 1


# -- how often, and what not -------------------------------------------------------------------------------------------


def test_one_list_serves_all_messages_of_its_time(listing: Esms, clock: Clock) -> None:
    messages = [unknown(listing, phone=f"09018884{number:02d}") for number in range(20)]
    listing.entries = [entry(f"sms-{n}", Phone=f"09018884{n:02d}") for n in range(0, 20, 2)]
    clock.advance(hours=3)
    messages += [unknown(listing, phone="0909999999")]
    clock.advance(minutes=6)
    refresh()
    assert len(listing.lists) == 2
    assert [stored(message).sms_id for message in messages[:20:2]] == [f"sms-{n}" for n in range(0, 20, 2)]
    assert {stored(message).status for message in messages[1::2]} == {"unknown"}


def test_what_was_looked_for_is_not_looked_for_again_at_once(listing: Esms, clock: Clock) -> None:
    unknown(listing)
    clock.advance(minutes=6)
    refresh()
    refresh()
    assert len(listing.lists) == 1


def test_two_processes_do_not_both_read_the_list(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)
    clock.advance(minutes=6)
    seen = []

    def while_the_list_is_read(request: Received) -> list:
        seen.append(OutboundViberMessage.objects.due_for_query().count())
        connection.close()  # because this is the server's thread
        return json_answer({"CodeResult": "100", "CountTotal": 0, "SentData": []})

    listing.server.answer(while_the_list_is_read)
    refresh()
    assert seen == [0]
    assert stored(message).next_query_at is not None


def test_what_is_repeated_or_went_to_the_sandbox_is_not_looked_for(listing: Esms, clock: Clock) -> None:
    listing.server.answer([Close()])
    repeated = send_viber_message(PHONE, TEXT)
    listing.entries = [entry("sms-7")]
    sandbox = unknown(listing, "sandbox", sandbox=True)
    clock.advance(minutes=6)
    assert refresh_viber_messages([repeated, sandbox]) == []
    refresh()
    assert listing.lists == []


def test_one_without_a_phone_is_not_looked_for(listing: Esms, clock: Clock) -> None:
    """A redacted one."""
    message = unknown(listing)
    OutboundViberMessage.objects.filter(pk=message.pk).update(phone="")
    listing.entries = [entry("sms-7")]
    clock.advance(hours=2)
    refresh()
    assert refresh_viber_messages([stored(message)]) == []
    assert notes(message) == []
    assert listing.lists == []


def test_an_unknown_message_with_an_sms_id_is_asked_about_by_it(listing: Esms, clock: Clock) -> None:
    listing.server.answer(json_answer({"CodeResult": "146", "SMSID": "sms-146"}), json_answer({"CodeResult": "888"}))
    listing.server.answer(json_answer({"CodeResult": "888", "SMSID": "sms-888"}))
    listing.found = {"SendStatus": 5, "SendSuccess": 1, "SendFailed": 0}
    sent = [send_viber_message(PHONE, f"{TEXT} {number}") for number in range(3)]
    message = sent[-1]
    assert (message.status, message.sms_id) == ("unknown", "sms-888")
    clock.advance(minutes=6)
    refresh()
    assert "sms-888" in listing.queries
    assert stored(message).status == "delivered"


def test_a_report_that_comes_meanwhile_wins(listing: Esms, clock: Clock) -> None:
    message = unknown(listing)

    def after_a_report(request: Received) -> list:
        play_callback(message, SMSID="sms-of-the-report")
        connection.close()  # as above
        return json_answer({"CodeResult": "100", "CountTotal": 1, "SentData": [entry("sms-7")]})

    listing.server.answer(after_a_report)
    (found,) = refresh_viber_messages([message])
    assert (found.status, found.sms_id) == ("delivered", "sms-of-the-report")
    assert stored(message).sms_id == "sms-of-the-report"


def test_without_time_zones(listing: Esms, clock: Clock, settings: Any) -> None:
    settings.USE_TZ = False
    found, missing = unknown(listing), unknown(listing, phone="0901888485")
    listing.entries = [entry("sms-7")]
    clock.advance(minutes=90)
    refresh()
    assert stored(found).sms_id == "sms-7"
    assert notes(missing) == [NOT_LISTED]
    assert stored(missing).next_query_at > timezone.now()
