"""The timeline of a message: who asked for it, what eSMS answered and reported, and the messages before and after."""

from __future__ import annotations

import datetime as dt
import re
from html import unescape
from typing import Any

import pytest
from django.test import Client

from esms_viber.gateways.base import CallOutcome
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent
from esms_viber.services import deliver_messages, resend_viber_messages, send_viber_message
from esms_viber.testing import answer_next, play_callback
from tests.admin.conftest import Make
from tests.admin.pages import page

pytestmark = pytest.mark.django_db


def html_of(client: Client, message: Message) -> str:
    return client.get(page(message.pk)).content.decode()


def timeline(client: Client, message: Message) -> list[str]:
    """Each entry as it reads, without markup."""
    html = html_of(client, message)
    found = re.search(r'<ol class="viber-timeline">(.*)</ol>', html, re.DOTALL)
    entries = re.split(r"<li>\s*<span class=\"viber-badge", found[1])[1:] if found else []
    return [" ".join(unescape(re.sub(r"<[^>]*>", " ", f"<i {entry}")).split()) for entry in entries]


def told(client: Client, message: Message) -> str:
    """The only entry."""
    [entry] = timeline(client, message)
    return entry


# -- who asked ---------------------------------------------------------------------------------------------------------


def test_who_asked_for_it_is_said(root: Client, make: Make, admin_user: Any) -> None:
    message = make("queued")
    message.events.create(kind="requested", user=admin_user)
    assert "It was asked for by admin." in told(root, message)


def test_where_no_user_is_recorded_nobody_is_named(root: Client, make: Make) -> None:
    message = make("queued")
    message.events.create(kind="requested")
    assert "It was asked for; no user is recorded." in told(root, message)


def test_a_note_names_who_made_it(root: Client, make: Make, admin_user: Any) -> None:
    message = make("cancelled")
    message.events.create(kind="note", text="Cancelled.", user=admin_user)
    assert told(root, message).endswith("Cancelled. by admin")


def test_a_sender_that_is_gone_leaves_doubt(root: Client, make: Make) -> None:
    message = make("unknown")
    message.events.create(kind="note", text="Taken over.", data={"outcome": "abandoned"})
    message.events.create(kind="note", text="Taken over.")
    doubtful, sure = timeline(root, message)
    assert "It may have been sent." in doubtful
    assert "It may have been sent." not in sure


# -- calls -------------------------------------------------------------------------------------------------------------


def attempt(message: Message, outcome: str = "answered", code: str = "", **columns: Any) -> ViberMessageEvent:
    event: ViberMessageEvent = message.events.create(kind="attempt", code=code, data={"outcome": outcome}, **columns)
    return event


def test_a_call_tells_code_meaning_remedy_and_duration(root: Client, make: Make) -> None:
    message = make("queued")
    attempt(message, code="103", text="Not enough balance", duration_ms=123, applied=True)
    entry = told(root, message)
    assert "called, and answered 103: The balance of the eSMS account is too low. Not enough balance Top up" in entry
    assert "moved the status 123 ms Details outcome answered" in entry


def test_what_did_not_move_the_status_does_not_say_so(root: Client, make: Make) -> None:
    message = make("sent")
    attempt(message, code="100")
    assert "moved the status" not in told(root, message)


@pytest.mark.parametrize(
    ("outcome", "code", "sentence", "advice"),
    [
        ("answered", "100", "eSMS was called, and answered 100: eSMS accepted", "whether it was delivered is reported"),
        ("answered", "104", "eSMS was called, and answered 104: ", "Compare the brand name"),
        ("answered", "124", "eSMS was called, and answered 124: ", "send it again only if it is not there."),
        ("answered", "105", "eSMS was called, and answered 105: ", "look it up on the eSMS portal."),
        ("answered", "987", "eSMS was called, and answered 987: Code 987 is not in", "customer may have it already."),
        ("answered_without_code", "", "eSMS was called, and answered without a code.", "It may have been sent."),
        ("no_answer", "", "eSMS was called, and no trustworthy answer came.", "It may have been sent."),
        ("not_connected", "", "eSMS could not be reached.", "This call sent nothing."),
        ("of another version", "", "eSMS was called, and no trustworthy answer came.", "It may have been sent."),
    ],
)
def test_a_first_call_is_told_as_it_ended(
    root: Client, make: Make, outcome: str, code: str, sentence: str, advice: str
) -> None:
    message = make("unknown")
    attempt(message, outcome, code)
    entry = told(root, message)
    assert sentence in entry
    assert advice in entry


@pytest.mark.parametrize(
    ("outcome", "code", "advice"),
    [
        ("answered", "104", "It may have been sent by an earlier call."),
        ("answered", "103", "It may have been sent by an earlier call."),
        ("not_connected", "", "It may have been sent by an earlier call."),
        ("answered", "124", "eSMS has it from an earlier call; this one sent nothing."),
        ("answered", "100", "Nothing to do: whether it was delivered is reported later."),
    ],
)
@pytest.mark.parametrize("before", ["no_answer", "abandoned"])
def test_after_a_doubtful_call_no_remedy_leads_to_a_double(
    root: Client, make: Make, before: str, outcome: str, code: str, advice: str
) -> None:
    message = make("unknown")
    message.events.create(kind="note" if before == "abandoned" else "attempt", data={"outcome": before})
    attempt(message, outcome, code)
    entry = timeline(root, message)[1]
    assert advice in entry
    assert "Compare" not in entry
    assert "Top up" not in entry


@pytest.mark.parametrize("kinds", [("attempt", "callback"), ("callback", "attempt")])
def test_a_report_settles_a_doubtful_call_whichever_came_first(
    root: Client, make: Make, kinds: tuple[str, str]
) -> None:
    message = make("delivered", request_id="a")
    for kind in kinds:
        data = {"outcome": "no_answer"} if kind == "attempt" else {"SendStatus": "5", "SendSuccess": "1"}
        message.events.create(kind=kind, request_id="a", data=data)
    call = timeline(root, message)[kinds.index("attempt")]
    assert "What became of it was reported separately." in call


def test_doubt_ends_with_the_request_id(root: Client, make: Make) -> None:
    message = make("failed", request_id="b")
    attempt(message, "no_answer", request_id="a")
    attempt(message, code="104", request_id="b")
    assert "Compare the brand name" in timeline(root, message)[1]


# -- reports -----------------------------------------------------------------------------------------------------------

DELIVERED = {"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "1450.0000"}


@pytest.mark.parametrize(
    ("values", "report"),
    [
        (DELIVERED, "delivered, 1,450 đ"),
        ({"sendstatus": "5", "sendfailed": "1", "totalprice": "0"}, "undelivered, 0 đ"),
        ({"SendStatus": "4"}, "undelivered"),
        ({"SendStatus": "2"}, "it has the message, and its result is still to come"),
        ({"SendStatus": "5", "SendSuccess": "0"}, "nothing that decides whether it was delivered"),
        ({"SendStatus": "9"}, "nothing that decides whether it was delivered"),
        ({}, "nothing that decides whether it was delivered"),
        ({"SendStatus": "five"}, "something that makes no sense"),
        ({"SendStatus": "5", "SendFailed": "some"}, "something that makes no sense"),
        ({"SendStatus": "5", "SendSuccess": "1", "TotalPrice": "470,0000", "telcoid": "Viettel"}, "delivered"),
        ({"SendStatus": None, "TotalPrice": 7}, "nothing that decides whether it was delivered, 7 đ"),
    ],
)
def test_reports_say_what_esms_said(root: Client, make: Make, values: dict[str, Any], report: str) -> None:
    message = make("delivered")
    message.events.create(kind="callback", data=values)
    message.events.create(kind="poll", code="100", data=values)
    callback, poll = timeline(root, message)
    assert f"eSMS reports: {report}." in callback
    assert f"eSMS was asked for the status, and reports: {report}." in poll


def test_what_a_report_had_to_leave_out_is_told(root: Client, make: Make) -> None:
    message = make("sent", request_id="a", sms_id="1")
    message.events.create(kind="requested", request_id="a")
    play_callback(message, TotalPrice="1.470", telcoid="Viettel")
    entry = timeline(root, message)[1]
    assert "eSMS reports: delivered." in entry
    assert "The price could not be read and is left out." in entry
    assert "The network could not be read and is left out." in entry
    assert "moved the status" in entry


def test_values_that_are_no_object_break_nothing(root: Client, make: Make) -> None:
    message = make("delivered")
    message.events.create(kind="callback", data=["5"])
    assert "nothing that decides" in told(root, message)


@pytest.mark.parametrize(
    ("kind", "request_id", "values", "objection"),
    [
        ("callback", "a", {"RequestId": "b"}, "It names another RequestId, so it changed nothing."),
        ("callback", "b", {"RequestId": "b"}, "It is about an earlier RequestId of this message."),
        ("callback", "a", {"phonenumber": "0912345678"}, "It names another phone, so it changed nothing."),
        ("poll", "a", {"SMSID": "2"}, "It names another SMSID, so it changed nothing."),
        ("callback", "a", {"SMSID": "2"}, ""),
        ("callback", "a", {"phonenumber": "84901888484", "RequestId": "a"}, ""),
        ("callback", "a", {"phonenumber": "090188****", "RequestId": " {A} "}, ""),
        ("callback", "a", {"phonenumber": "null", "RequestId": "(null)"}, ""),
        ("poll", "a", {"SMSID": "null", "RequestId": "b"}, ""),
    ],
)
def test_reports_that_were_not_believed_say_why_and_do_not_look_good(
    root: Client, make: Make, kind: str, request_id: str, values: dict[str, str], objection: str
) -> None:
    message = make("sent", request_id="a", sms_id="1")
    message.events.create(kind=kind, code="100", request_id=request_id, data={**DELIVERED, **values})
    html = html_of(root, message)
    assert objection in html
    assert ('<span class="viber-badge viber-good" aria-hidden="true">' in html) is not bool(objection)


@pytest.mark.parametrize(
    ("code", "text", "shown"),
    [
        ("103", "No money", "the status, and answered 103: The balance of the eSMS account is too low. No money Top"),
        ("104", "", "the status, and answered 104: eSMS does not know this brand name"),
        ("", "Timeout", "the status, and gave no trustworthy answer. Timeout by admin"),
    ],
)
def test_a_status_query_in_vain_says_so(
    root: Client, make: Make, admin_user: Any, code: str, text: str, shown: str
) -> None:
    message = make("sent")
    message.events.create(kind="poll", code=code, text=text, user=admin_user)
    entry = told(root, message)
    assert shown in entry
    # How to send it again better is no answer to a question.
    assert "Compare" not in entry


def test_details_are_what_came_without_what_is_empty(root: Client, make: Make) -> None:
    message = make("delivered")
    message.events.create(kind="callback", data={"SendStatus": "5", "Empty": "", "None": None})
    html = html_of(root, message)
    assert "<dl><dt>SendStatus</dt><dd>5</dd></dl>" in html


# -- times, order, bounds ----------------------------------------------------------------------------------------------


def test_each_entry_has_a_time_that_machines_read(root: Client, make: Make) -> None:
    message = make("queued")
    message.events.create(kind="requested")
    message.events.update(created_at=dt.datetime(2026, 11, 24, 7, 5, 9, tzinfo=dt.UTC))
    assert '<time datetime="2026-11-24T14:05:09+07:00">11/24/2026 14:05:09</time>' in html_of(root, message)


def test_resends_stand_where_they_belong(root: Client, make: Make) -> None:
    first = make("unknown")
    message = make("sent", resend_of=first)
    events = [message.events.create(kind="note", text=f"note {n}.") for n in range(2)]
    resend = make("delivered", resend_of=message)
    between = events[1].created_at
    ViberMessageEvent.objects.filter(pk=events[1].pk).update(created_at=between + dt.timedelta(hours=1))
    entries = timeline(root, message)
    for entry, shown in zip(
        entries,
        [f"Resend of № {first.pk} ? unknown", "note 0.", f"Sent again as № {resend.pk} ✓✓", "note 1."],
        strict=True,
    ):
        assert shown in entry
    html = html_of(root, message)
    for other in (first, resend):
        assert f'<a href="{page(other.pk)}">№ {other.pk}</a>' in html.partition("viber-timeline")[2]


def test_clocks_that_differ_do_not_turn_events_round(root: Client, make: Make) -> None:
    message = make("sent")
    late = message.events.create(kind="note", text="first.")
    message.events.create(kind="note", text="second.")
    ViberMessageEvent.objects.filter(pk=late.pk).update(created_at=late.created_at + dt.timedelta(minutes=1))
    assert ["first." in entry for entry in timeline(root, message)] == [True, False]


@pytest.mark.parametrize(("stored", "shown"), [(3, 3), (200, 200), (205, 200)])
def test_a_long_history_is_cut_and_says_so(root: Client, make: Make, stored: int, shown: int) -> None:
    message = make("delivered")
    ViberMessageEvent.objects.bulk_create(
        ViberMessageEvent(message=message, kind="note", text=f"note {n}.") for n in range(stored)
    )
    entries = timeline(root, message)
    assert len(entries) == shown
    assert f"note {stored - 1}." in entries[-1]
    assert ("The latest 200 events are shown." in html_of(root, message)) is (stored > shown)


def test_what_is_cut_off_may_have_been_taken(root: Client, make: Make) -> None:
    message = make("unknown")
    attempt(message, "no_answer")
    ViberMessageEvent.objects.bulk_create(ViberMessageEvent(message=message, kind="callback") for _n in range(199))
    attempt(message, code="104")
    assert "It may have been sent by an earlier call." in timeline(root, message)[-1]


def test_a_draft_of_which_nothing_is_known_says_so(root: Client, make: Make) -> None:
    assert "Nothing has happened to it yet." in html_of(root, make())


# -- a life ------------------------------------------------------------------------------------------------------------
def test_the_life_of_a_message_reads_as_it_went(root: Client, admin_user: Any) -> None:
    answer_next(outcome=CallOutcome.NO_ANSWER, text="Time-out")
    message = send_viber_message("0901888484", "Hello", user=admin_user)
    Message.objects.update(next_attempt_at=message.created_at)
    answer_next("124")
    deliver_messages([message.pk])
    play_callback(message, TotalPrice="1450")
    message.refresh_from_db()
    [resend] = resend_viber_messages([message], user=admin_user)
    shown = [
        "It was asked for by admin.",
        "no trustworthy answer came. Time-out What became of it was reported separately. moved the status",
        "eSMS was called, and answered 124: eSMS has seen this RequestId before. eSMS has it from an earlier call",
        "eSMS reports: delivered, 1,450 đ. moved the status",
        f"Sent again as № {resend.pk}",
    ]
    entries = timeline(root, message)
    assert len(entries) == len(shown)
    for entry, sentence in zip(entries, shown, strict=True):
        assert sentence in entry
    assert f"Resend of № {message.pk}" in timeline(root, resend)[0]
