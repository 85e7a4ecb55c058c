"""What an action came to can be opened as a list of these messages, however many they are."""

from __future__ import annotations

import datetime as dt
import html
import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.http import HttpResponse
from django.test import Client
from django.utils import timezone

from esms_viber.admin import filters, notices
from esms_viber.gateways.base import CallOutcome, SendResult, SentEntry, StatusResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent
from esms_viber.reports.sent_list import AMBIGUOUS
from esms_viber.signals import status_changed
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST, choose, confirm, told

pytestmark = pytest.mark.django_db(transaction=True)


def links(response: HttpResponse) -> dict[str, str]:
    """The address that goes with each sentence."""
    found = {}
    for message in response.context["messages"]:
        if match := re.fullmatch('(.+?) <a href="([^"]+)">(Show[^<]*)</a>', str(message)):
            found[html.unescape(match[1])] = html.unescape(match[2])
    return found


def shown(client: Client, url: str) -> set[int]:
    response = client.get(url)
    assert response.status_code == 200
    return {message.pk for message in response.context["cl"].result_list}


def test_each_outcome_of_sending_has_its_list(root: Client, make: Make) -> None:
    drafts = [make().pk for _ in range(4)]
    blocked = SendResult(outcome=CallOutcome.ANSWERED, code="99")
    MemoryGateway.answers.extend([blocked, SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id="1"), blocked])
    response = confirm(root, choose(root, "send_selected", *drafts))
    found = links(response)
    assert len(found) == 2
    by_beginning = {sentence.split()[0]: shown(root, url) for sentence, url in found.items()}
    assert by_beginning["eSMS"] == set(Message.objects.filter(status="sent").values_list("pk", flat=True))
    assert by_beginning["2"] == set(Message.objects.filter(status="failed").values_list("pk", flat=True))


def test_cancelling_settling_and_asking(root: Client, make: Make) -> None:
    make("delivered")
    queued, sent = [make("queued").pk for _ in range(2)], make("sent", sms_id="s", sent_at=timezone.now()).pk
    found = links(choose(root, "cancel_selected", *queued, sent))
    assert [shown(root, url) for url in found.values()] == [set(queued), {sent}]

    unknown = [make("unknown", uncertain_since=timezone.now(), request_id="r").pk for _ in range(2)]
    found = links(choose(root, "settle_selected", *unknown, sent))
    assert [shown(root, url) for url in found.values()] == [set(unknown), {sent}]

    MemoryGateway.statuses.append(StatusResult(outcome=CallOutcome.ANSWERED, code="105"))
    response = choose(root, "refresh_selected", sent, queued[0])
    assert [shown(root, url) for url in links(response).values()] == [{sent}, {sent}, {queued[0]}]


def test_one_message_is_linked_itself(root: Client, make: Make) -> None:
    message = make("queued")
    response = choose(root, "cancel_selected", message.pk)
    assert links(response) == {}
    assert f"{message.pk}/change/" in told(response)


def test_the_address_stays_short_for_thousands(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notices, "MOST_IN_ADDRESS", 3)
    other = make("queued").pk
    queued = [make("queued").pk for _ in range(5)]
    skipped = [make("delivered").pk for _ in range(5)]
    # What others do meanwhile is not among it.
    response = choose(root, "cancel_selected", *queued, *skipped)
    found = links(response)
    done, left = found.values()
    assert re.search(r"\?done=\d+-\d+&status__exact=cancelled$", done)
    assert shown(root, done) == set(queued)
    assert ">Show the first 3</a>" in told(response)
    assert shown(root, left) == set(sorted(skipped, reverse=True)[:3])
    choose(root, "cancel_selected", other)
    assert shown(root, done) == set(queued)


def test_a_hundred_are_named_in_the_address(root: Client, make: Make) -> None:
    queued = [make("queued").pk for _ in range(100)]
    ((_sentence, url),) = links(choose(root, "cancel_selected", *queued)).items()
    assert len(url) < 2000
    assert shown(root, url) == set(queued)


def test_only_ones_own_actions_are_found(root: Client, log_in: LogIn, make: Make) -> None:
    message = make()
    mine = ViberMessageEvent.objects.create(message=message, kind="note", user=User.objects.get(username="root"))
    url = f"{LIST}?done={mine.pk - 1}-{mine.pk}"
    assert shown(root, url) == {message.pk}
    assert shown(log_in("view"), url) == set()
    assert shown(root, f"{LIST}?done={mine.pk}-{mine.pk + 5}") == set()


@pytest.mark.parametrize("text", ["x", "5", "1-2-3", "-1-2", "9" * 19 + "-1"])
def test_an_address_that_makes_no_sense_filters_nothing(root: Client, make: Make, text: str) -> None:
    message = make()
    assert shown(root, f"{LIST}?done={text}") == {message.pk}


def test_no_address_has_the_whole_history_read(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filters, "_MOST_EVENTS", 2)
    user = User.objects.get(username="root")
    messages = [make() for _ in range(5)]
    events = [ViberMessageEvent.objects.create(message=message, kind="note", user=user) for message in messages]
    assert shown(root, f"{LIST}?done={events[0].pk - 1}-{10**18 - 1}") == {message.pk for message in messages[:2]}


def test_the_filter_is_shown_only_where_it_is_set(root: Client, make: Make) -> None:
    make()
    assert "what was done" not in root.get(LIST).content.decode()
    assert "what was done" in root.get(f"{LIST}?done=0-1").content.decode()


def test_who_may_not_view_gets_no_links(log_in: LogIn, make: Make) -> None:
    response = choose(log_in("send", "view"), "cancel_selected", make("queued").pk, make("queued").pk)
    assert len(links(response)) == 1


def test_candidates_are_shown_on_the_message_page(root: Client, make: Make) -> None:
    message = make("unknown", uncertain_since=timezone.now())
    listed = [
        {"time": "2027-01-31T16:58:01+00:00", "sms_id": "sms-<b>", **ENTRIES["a"][0]},
        {"time": "2027-01-31T16:59:01+00:00", "sms_id": "sms-2", **ENTRIES["b"][0]},
        {"time": "never", "sms_id": "sms-3", **ENTRIES["b"][0]},
        "x",
    ]
    ViberMessageEvent.objects.create(message=message, kind="note", text=AMBIGUOUS, data={"candidates": listed})
    page = html.unescape(root.get(f"{LIST}{message.pk}/change/").content.decode())
    assert AMBIGUOUS in page
    assert "SMSID <code>sms-<b></code> · delivered" in page
    assert "SMSID <code>sms-2</code> · sent" in page
    assert "sms-3" not in page
    assert "Look them up on eSMS's portal by their SMSIDs" in page


def doubtful(make: Make, **columns: Any) -> Message:
    """A message with two entries in eSMS's list that may be it."""
    message = make("unknown", **({"request_id": "r", "uncertain_since": timezone.now()} | columns))
    when = timezone.now().isoformat()
    listed = [{"time": when, "sms_id": sms_id, **told} for sms_id, (told, _status) in ENTRIES.items()]
    note = {"kind": "note", "text": AMBIGUOUS, "request_id": message.request_id, "data": {"candidates": listed}}
    ViberMessageEvent.objects.create(message=message, **note)
    return message


ENTRIES = {
    "a": ({"send_status": 5, "delivered": True, "price": "499"}, "delivered"),
    "b": ({"send_status": None, "delivered": None, "price": None}, "sent"),
    "c": ({"send_status": 4, "delivered": None, "price": "0"}, "undelivered"),
}
"""By SMSID: what the list tells, and the status that it gives a message."""
RECOGNISE = f"{LIST}viber-recognise/"


@pytest.mark.parametrize(("sms_id", "status"), [(sms_id, status) for sms_id, (_told, status) in ENTRIES.items()])
def test_a_person_says_which_candidate_the_message_is(root: Client, make: Make, sms_id: str, status: str) -> None:
    message = doubtful(make)
    page = root.get(f"{LIST}{message.pk}/change/").content.decode()
    assert page.count("This is the message") == 3
    told = []

    def note(sender: Any, message: Message, new_status: str, event: ViberMessageEvent, **kwargs: Any) -> None:
        told.append((message.pk, new_status, event.user.username if event.user else ""))

    status_changed.connect(note)
    try:
        response = root.post(RECOGNISE, {"message": message.pk, "sms_id": sms_id}, follow=True)
    finally:
        status_changed.disconnect(note)
    message.refresh_from_db()
    price = ENTRIES[sms_id][0]["price"]
    assert (message.status, message.sms_id) == (status, sms_id)
    assert message.total_price == (None if price is None else Decimal(str(price)))
    again = root.post(RECOGNISE, {"message": message.pk, "sms_id": sms_id}, follow=True)
    assert "Nothing was changed" not in again.content.decode()
    assert ViberMessageEvent.objects.filter(message=message, kind="poll").count() == 1
    assert told == [(message.pk, status, "root")]
    shown = html.unescape(response.content.decode())
    assert "Recognised by a person in eSMS's list of what was sent." in shown
    assert "This is the message" not in shown


def test_what_is_no_candidate_any_more_changes_nothing(root: Client, make: Make) -> None:
    message = doubtful(make)
    make("sent", sms_id="b")
    settled = doubtful(make, sms_id="known", request_id="s")
    another = doubtful(make, request_id="t")
    Message.objects.filter(pk=another.pk).update(request_id="u")
    repeated = doubtful(make, request_id="v", next_attempt_at=timezone.now())
    for pk, sms_id in (
        (message.pk, "b"),
        (message.pk, "z"),
        (message.pk, ""),
        (settled.pk, "a"),
        (another.pk, "a"),
        (repeated.pk, "a"),
    ):
        response = root.post(RECOGNISE, {"message": pk, "sms_id": sms_id}, follow=True)
        assert "Nothing was changed" in response.content.decode()
        assert pk == message.pk or "This is the message" not in response.content.decode()
    assert set(Message.objects.filter(status="unknown").values_list("sms_id", flat=True)) == {"", "known"}
    assert Message.objects.filter(status="unknown").count() == 4


def test_who_may_not_send_or_view_recognises_nothing(log_in: LogIn, make: Make) -> None:
    message = doubtful(make)
    viewer, sender = log_in("view"), log_in("send")
    assert "This is the message" not in viewer.get(f"{LIST}{message.pk}/change/").content.decode()
    data = {"message": message.pk, "sms_id": "a"}
    assert viewer.post(RECOGNISE, data).status_code == 403
    assert sender.post(RECOGNISE, data).status_code == 404
    sender_who_sees = log_in("send", "view")
    assert sender_who_sees.post(RECOGNISE, {"message": "x", "sms_id": "a"}).status_code == 404
    assert sender_who_sees.get(RECOGNISE).status_code == 302
    message.refresh_from_db()
    assert message.status == "unknown"


def test_asking_tells_what_the_list_of_what_was_sent_leaves_open(root: Client, make: Make) -> None:
    since = timezone.now() - dt.timedelta(hours=2)
    known = {"request_id": "r", "uncertain_since": since}
    missing, doubtful, found = (make("unknown", phone=f"090188848{n}", **known) for n in range(3))
    for sms_id, message in (("a", doubtful), ("b", doubtful), ("c", found)):
        MemoryGateway.sent.append(SentEntry(sms_id=sms_id, phone=message.phone, content="Hello", sent_at=since))
    sentences = links(choose(root, "refresh_selected", missing.pk, doubtful.pk, found.pk))
    by_end = {sentence.split(".")[-2].split()[-1]: shown(root, url) for sentence, url in sentences.items()}
    assert by_end["it"] == {missing.pk}, "eSMS's list of what was sent does not show it."
    assert by_end["tell"] == {doubtful.pk}, "only a person can tell."
    assert by_end["later"] == {found.pk}
    found.refresh_from_db()
    assert (found.status, found.sms_id) == ("sent", "c")
    assert "b" in root.get(f"{LIST}{doubtful.pk}/change/").content.decode()
