"""Send or resend: the question, the answer, and what is told after."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import resolve
from django.utils import timezone

from esms_viber.admin import actions, display
from esms_viber.gateways.base import CallOutcome, SendResult, StatusResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.monitoring import get_queue_status
from tests.admin.conftest import Make
from tests.admin.pages import ADD, LIST, choose, confirm, form_with, offered, page, told

pytestmark = pytest.mark.django_db(transaction=True)


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def test_the_question_says_what_would_happen_and_does_nothing(root: Client, make: Make, clock: Any) -> None:
    make("draft"), make("failed"), make("delivered")
    make("unknown", attempts=3, uncertain_since=clock.now(), error_message="Read timed out")
    queued = make("queued")
    question = choose(root, "send_selected", *Message.objects.values_list("pk", flat=True))
    text = text_of(question)
    assert "2 messages will be sent for the first time" in text
    assert "One message will be sent again, though it has arrived" in text
    assert "One message will be sent again, though it may have arrived" in text
    assert "It was tried 3 times, first at" in text
    assert "Read timed out" in text
    assert "One message cannot be sent" in text
    assert "It is in the queue already." in text
    assert "Yes, send 4 messages" in text
    assert str(queued.pk) not in form_with(question, action="send_selected")["fields"]["_selected_action"]
    assert outbox == []
    assert set(Message.objects.values_list("status", flat=True)) == {
        "draft", "failed", "delivered", "unknown", "queued"
    }  # fmt: skip


def test_yes_sends_them(root: Client, make: Make) -> None:
    first, again = make("failed"), make("delivered", content="Again")
    question = choose(root, "send_selected", first.pk, again.pk)
    response = confirm(root, question)
    assert response.redirect_chain == [(LIST, 302)]
    assert "eSMS took 2 messages." in told(response)
    first.refresh_from_db()
    copy = Message.objects.get(resend_of=again)
    assert (first.status, copy.status) == ("sent", "sent")
    assert {str(event.user) for event in copy.events.filter(kind="requested")} == {"root"}


@pytest.mark.parametrize("status", ["undelivered", "unknown"])
def test_what_became_of_an_earlier_resend_is_told_before_it_is_sent_once_more(
    root: Client, make: Make, status: str
) -> None:
    served, missed, fresh = make(status), make(status), make("undelivered")
    arrived, latest = make("delivered", resend_of=served), make("undelivered", resend_of=missed)
    make("failed", resend_of=served)
    question = choose(root, "send_selected", served.pk, missed.pk, fresh.pk)
    text = text_of(question)
    assert "One message will be sent again, though it has arrived" in text
    assert f"as № {arrived.pk}: delivered." in text
    assert f"as № {latest.pk}: undelivered." in text
    assert text.count("It was sent again before") == 2


def test_what_has_arrived_can_be_left_out(root: Client, make: Make) -> None:
    served, delivered, missed, failed = make("undelivered"), make("delivered"), make("undelivered"), make("failed")
    make("delivered", resend_of=served)
    question = choose(root, "send_selected", served.pk, delivered.pk, missed.pk, failed.pk)
    assert "Leave out what has arrived, and send 2 messages" in text_of(question)
    fields = form_with(question, action="send_selected")["fields"]
    response = root.post(LIST, fields | {"spare_arrived": "1"}, follow=True)
    assert set(Message.objects.filter(status="sent").values_list("pk", "resend_of")) == {
        (failed.pk, None),
        (Message.objects.get(resend_of=missed).pk, missed.pk),
    }
    assert "It has arrived already." in told(response)


def test_a_resend_of_a_resend_that_arrived_counts_for_all_of_them(root: Client, make: Make) -> None:
    first = make("undelivered")
    second = make("undelivered", resend_of=first)
    beside = make("undelivered", resend_of=first)
    arrived = make("delivered", resend_of=second)
    after = make("undelivered", resend_of=arrived)
    question = choose(root, "send_selected", first.pk, second.pk, beside.pk, after.pk)
    text = text_of(question)
    assert "4 messages will be sent again, though they have arrived" in text
    assert text.count(f"as № {arrived.pk}: delivered.") == 3
    assert f"It is a resend itself, after № {arrived.pk} of" in text
    root.post(LIST, form_with(question, action="send_selected")["fields"] | {"spare_arrived": "1"})
    assert outbox == []


def test_what_it_costs_without_what_has_arrived_is_told(root: Client, make: Make) -> None:
    make("delivered", total_price=Decimal(470), completed_at=timezone.now())
    question = choose(root, "send_selected", make("delivered").pk, make("undelivered").pk, make("failed").pk)
    assert "It may cost about 1,410 đ, going by the latest prices. Without what has arrived, about 940 đ." in text_of(
        question
    )


@pytest.mark.parametrize("statuses", [["delivered"], ["undelivered", "failed"]])
def test_where_all_or_none_have_arrived_there_is_one_button(root: Client, make: Make, statuses: list[str]) -> None:
    question = choose(root, "send_selected", *[make(status).pk for status in statuses])
    assert "spare_arrived" not in question.content.decode()


def test_nothing_to_send_has_no_button(root: Client, make: Make) -> None:
    question = choose(root, "send_selected", make("queued").pk)
    assert "Nothing can be sent of what you selected." in text_of(question)
    assert offered(question) == set()


def test_a_message_that_became_wrong_is_left_out_with_the_reason(root: Client, make: Make) -> None:
    message = make("failed")
    Message.objects.filter(pk=message.pk).update(phone="+842838123456")
    question = choose(root, "send_selected", message.pk)
    assert "This is a landline" in text_of(question)


def test_twenty_are_listed_and_the_others_counted(root: Client, make: Make) -> None:
    pks = [make().pk for _ in range(23)]
    question = choose(root, "send_selected", *pks)
    assert "and 3 more" in text_of(question)
    assert question.content.decode().count("viber-badge") == 20


def test_only_those_that_are_shown_get_a_remark(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    told = []
    monkeypatch.setattr(display, "explain", lambda message: (told.append(message), ("so it is", ""))[1])
    question = choose(root, "send_selected", *[make("failed").pk for _ in range(23)])
    assert text_of(question).count("so it is") == len(told) == 20


def test_each_outcome_is_counted(root: Client, make: Make) -> None:
    refused = SendResult(outcome=CallOutcome.ANSWERED, code="146")
    accepted = SendResult(outcome=CallOutcome.ANSWERED, code="100")
    MemoryGateway.answers.extend([refused, refused, accepted, accepted, SendResult(outcome=CallOutcome.NO_ANSWER)])
    question = choose(root, "send_selected", *[make().pk for _ in range(5)])
    sentences = told(confirm(root, question))
    assert "eSMS took 2 messages." in sentences
    assert "2 messages failed. 146: The text does not match" in sentences
    assert "The message may have been sent, or not." in sentences


# -- clicked twice, and overtaken --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "failed", "cancelled", "delivered", "unknown", "sent"])
def test_a_second_click_on_yes_sends_nothing_more(root: Client, make: Make, status: str) -> None:
    message = make(status)
    question = choose(root, "send_selected", message.pk)
    confirm(root, question)
    Message.objects.filter(status="sent").update(status="delivered")
    response = confirm(root, question)
    assert len(outbox) == 1
    assert "Something happened to it" in told(response)


@pytest.mark.parametrize("status", ["draft", "delivered"])
def test_two_clicks_at_once_send_once(root: Client, make: Make, status: str) -> None:
    question = choose(root, "send_selected", make(status).pk)
    data = form_with(question, action="send_selected")["fields"]

    def post(_: int) -> None:
        client = Client()
        client.cookies = root.cookies
        try:
            client.post(LIST, data)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(post, range(4)))
    assert len(outbox) == 1


def test_what_was_delivered_after_the_question_is_not_sent_again(root: Client, make: Make) -> None:
    message = make("unknown")
    question = choose(root, "send_selected", message.pk)
    message.events.create(kind="callback")
    Message.objects.filter(pk=message.pk).update(status="delivered")
    assert "Something happened to it" in told(confirm(root, question))
    assert outbox == []


@pytest.mark.parametrize("mark", ["yes", "", "1", "1-2-3", "9" * 40 + "-1"])
def test_a_confirmation_that_no_page_gave_is_asked_for_again(root: Client, make: Make, mark: str) -> None:
    question = choose(root, "send_selected", make().pk, confirmed=mark)
    assert "will be sent for the first time" in text_of(question)
    assert outbox == []


# -- all N -------------------------------------------------------------------------------------------------------------


def test_all_that_match_the_filter_are_sent_without_posting_their_ids(root: Client, make: Make, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    Message.objects.bulk_create(Message(phone="0901888484", content=f"{n}", campaign="tet") for n in range(1100))
    other = make(campaign="other")
    url = f"{LIST}?campaign=tet"
    first = Message.objects.filter(campaign="tet").first()
    question = choose(root, "send_selected", first.pk, url=url, select_across="1")
    assert "1100 messages will be sent for the first time" in text_of(question)
    assert len(form_with(question, action="send_selected")["fields"]["_selected_action"]) == 1
    response = confirm(root, question, url=url)
    assert response.redirect_chain == [(url, 302)]
    assert "1100 messages wait in the queue." in told(response)
    assert Message.objects.queued().count() == 1100
    other.refresh_from_db()
    assert other.status == "draft"


def test_what_came_into_the_filter_after_the_question_is_not_sent(root: Client, make: Make) -> None:
    first = make()
    question = choose(root, "send_selected", first.pk, select_across="1")
    later = make(content="Not reviewed")
    response = confirm(root, question)
    assert [message.content for message in outbox] == ["Hello"]
    assert "One message was left out." in told(response)
    later.refresh_from_db()
    assert later.status == "draft"


def test_a_second_yes_to_all_sends_nothing_more(root: Client, make: Make) -> None:
    question = choose(root, "send_selected", make().pk, select_across="1")
    confirm(root, question)
    Message.objects.update(status="delivered")
    confirm(root, question)
    assert len(outbox) == 1


def test_what_the_inline_dispatcher_leaves_is_told_as_waiting(root: Client, make: Make, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "INLINE_LIMIT": 1}
    question = choose(root, "send_selected", make().pk, make().pk)
    sentences = told(confirm(root, question))
    assert "eSMS took the message." in sentences
    assert "The message waits in the queue." in sentences


def test_what_cannot_be_sent_any_more_is_told_with_the_reason(root: Client, make: Make) -> None:
    wrong, fine = make("failed"), make("failed")
    question = choose(root, "send_selected", wrong.pk, fine.pk)
    Message.objects.filter(pk=wrong.pk).update(phone="+842838123456")
    sentences = told(confirm(root, question))
    assert len(outbox) == 1
    assert "One message was left out. This is a landline" in sentences


# -- from the page of one message --------------------------------------------------------------------------------------


def test_the_button_on_the_page_asks_and_leads_back(root: Client, make: Make) -> None:
    message = make("delivered")
    data = form_with(root.get(page(message.pk)), action="send_selected")
    assert data["attrs"]["action"] == LIST
    question = root.post(LIST, data["fields"])
    assert f'href="{page(message.pk)}" class="button viber-back"' in question.content.decode()
    response = confirm(root, question)
    assert response.redirect_chain == [(page(message.pk), 302)]
    assert "eSMS took the message." in told(response)
    copy = Message.objects.get(resend_of=message)
    assert page(copy.pk) in told(response)


# -- trouble -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def _atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.mark.usefixtures("_atomic_requests")
def test_under_atomic_requests_the_list_sends_and_tells(root: Client, make: Make) -> None:
    question = choose(root, "send_selected", make("failed").pk)
    assert "eSMS took the message." in told(confirm(root, question))


@pytest.mark.parametrize("url", [LIST, ADD, page(1)])
def test_the_views_that_call_esms_are_non_atomic_on_every_alias(settings: Any, url: str) -> None:
    assert resolve(url).func._non_atomic_requests == set(settings.DATABASES)


def test_without_keys_the_setting_is_named(root: Client, make: Make, settings: Any) -> None:
    message = make()
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "BRANDNAME": "SHOP"}
    assert "API_KEY" in told(choose(root, "send_selected", message.pk))
    message.refresh_from_db()
    assert message.status == "draft"


def test_over_a_socket(root: Client, make: Make, esms: Any) -> None:
    question = choose(root, "send_selected", make().pk)
    assert len(esms.requests) == 0
    confirm(root, question)
    assert len(esms.requests) == 1


# -- cancelling --------------------------------------------------------------------------------------------------------


def test_cancel_tells_what_it_did_and_what_not(root: Client, make: Make, clock: Any) -> None:
    pks = [make("draft").pk, make("queued").pk, make("sent").pk]
    repeating, resting = make("unknown", next_attempt_at=clock.now()), make("unknown")
    response = choose(root, "cancel_selected", *pks, repeating.pk, resting.pk)
    assert [Message.objects.get(pk=pk).status for pk in pks] == ["cancelled", "cancelled", "sent"]
    sentences = told(response)
    assert "2 messages were cancelled." in sentences
    assert "not repeated any more, but may have been sent" in sentences
    assert "It is sent: only what was not sent yet can be cancelled." in sentences
    assert "It may have been sent, and nothing repeats it." in sentences
    repeating.refresh_from_db()
    assert repeating.next_attempt_at is None


def test_what_came_after_the_list_was_shown_is_not_cancelled(root: Client, make: Make) -> None:
    shown = make("queued")
    field = f'<input type="hidden" name="viber_last_shown" value="{shown.pk}" form="changelist-form">'
    assert field in root.get(LIST).content.decode()
    later = make("queued")
    choose(root, "cancel_selected", shown.pk, select_across="1", viber_last_shown=str(shown.pk))
    assert Message.objects.get(pk=shown.pk).status == "cancelled"
    assert Message.objects.get(pk=later.pk).status == "queued"


# -- deciding ----------------------------------------------------------------------------------------------------------


def test_what_was_looked_up_asks_for_no_decision_any_more(root: Client, make: Make, clock: Any) -> None:
    long_ago = clock.now() - dt.timedelta(days=2)
    doubtful = make("unknown", uncertain_since=clock.now(), attempts=1)
    without_id = make("sent", sent_at=long_ago, code_result="124")
    repeated = make("unknown", uncertain_since=clock.now(), next_attempt_at=clock.now())
    called_back = make("unknown", uncertain_since=clock.now())
    called_back.events.create(kind="callback", data={"looked_up": True})
    for message in (doubtful, without_id, called_back):
        assert "settle_selected" in offered(root.get(page(message.pk)))
    for message in (repeated, make("sent", sent_at=clock.now()), make("delivered")):
        assert "settle_selected" not in offered(root.get(page(message.pk)))

    called_back.delete()
    response = choose(root, "settle_selected", doubtful.pk, without_id.pk, repeated.pk)
    assert "It is noted that 2 messages need not be sent again." in told(response)
    assert "There is nothing to decide about it." in told(response)
    status = get_queue_status()
    assert (status.undecided, status.unconfirmed, status.needs_a_person) == (0, 0, False)
    for message in (doubtful, without_id):
        assert "somebody has looked it up" in root.get(page(message.pk)).content.decode()
    html = root.get(page(doubtful.pk)).content.decode()
    assert "settle_selected" not in html
    assert "Looked up: it need not be sent again." in html
    assert [(event.text, str(event.user)) for event in doubtful.events.all()] == [
        ("Looked up: it need not be sent again.", "root")
    ]
    doubtful.refresh_from_db()
    assert doubtful.status == "unknown"
    assert "One message will be sent again, though it may have arrived" in text_of(
        choose(root, "send_selected", doubtful.pk)
    )


def test_a_message_cancelled_before_its_time_tells_that_the_time_is_void(root: Client, make: Make, clock: Any) -> None:
    message = make("cancelled", send_at=clock.now() + dt.timedelta(days=9))
    assert "It goes out at once" in root.get(page(message.pk)).content.decode()
    assert "It goes out at once" not in root.get(page(make("cancelled").pk)).content.decode()


# -- asking ------------------------------------------------------------------------------------------------------------


def answer(**values: str) -> StatusResult:
    return StatusResult(outcome=CallOutcome.ANSWERED, code="100", values=values)


def test_asking_tells_of_each(root: Client, make: Make) -> None:
    for n in range(3):
        make("sent", sms_id=f"{n}")
    make("sent", sms_id="9", sent_to_sandbox=True), make("draft"), make("sent")
    MemoryGateway.statuses.extend(
        [
            answer(SMSID="0", SendStatus="5", SendSuccess="1", TotalPrice="450"),
            StatusResult(outcome=CallOutcome.ANSWERED, code="105"),
            StatusResult(outcome=CallOutcome.NO_ANSWER, text="Read timed out"),
        ]
    )
    response = choose(root, "refresh_selected", *Message.objects.values_list("pk", flat=True))
    assert sorted(Message.objects.filter(sms_id__in="012").values_list("status", flat=True)) == [
        "delivered", "sent", "sent"
    ]  # fmt: skip
    sentences = told(response)
    assert "The message was delivered." in sentences
    assert "eSMS did not tell of the message. 105: eSMS cannot find this message." in sentences
    assert "eSMS did not tell of the message. Read timed out" in sentences
    assert "It went to the sandbox" in sentences
    assert "It is draft: there is nothing to ask." in sentences
    assert "It has no SMSID" in sentences


def test_asking_from_the_lower_bar_of_actions_is_no_deletion(root: Client, make: Make) -> None:
    message = make("sent", sms_id="1")
    both = {"action": ["delete_selected", "refresh_selected"], "index": "1", "_selected_action": message.pk}
    assert root.post(LIST, both).status_code == 302
    assert message.events.filter(kind="poll").exists()


def test_at_most_so_many_are_asked_about(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_ASKED", 1)
    messages = [make("sent", sms_id="1"), make("sent", sms_id="2")]
    response = choose(root, "refresh_selected", *[message.pk for message in messages])
    assert "at most 1 messages at once" in told(response)
    assert all(not message.events.filter(kind="poll") for message in messages)


@pytest.mark.usefixtures("_atomic_requests")
def test_under_atomic_requests_the_list_asks(root: Client, make: Make) -> None:
    message = make("sent", sms_id="1")
    choose(root, "refresh_selected", message.pk)
    assert message.events.filter(kind="poll").exists()


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        ({}, "It may cost about 940 đ, going by the latest prices."),
        ({"content": "", "image_url": "https://x.vn/a.png"}, "The cost is not known"),
        ({"sandbox": True}, "It may cost about 470 đ"),
    ],
)
def test_the_question_says_what_it_may_cost(root: Client, make: Make, columns: dict[str, Any], sentence: str) -> None:
    make("delivered", total_price=Decimal(470))
    question = choose(root, "send_selected", make().pk, make("sent", **columns).pk)
    assert sentence in question.content.decode()


def test_a_rehearsal_is_told_to_cost_nothing(root: Client, make: Make) -> None:
    make("delivered", total_price=Decimal(470))
    question = choose(root, "send_selected", make(sandbox=True).pk)
    assert "It costs nothing: it goes to the sandbox." in question.content.decode()
    nothing = choose(root, "send_selected", make("queued").pk)
    assert "cost" not in nothing.content.decode().lower().split("nothing can be sent")[1].split("</form>")[0]


def test_the_question_costs_the_same_whatever_is_selected(root: Client, make: Make) -> None:
    def queries(pks: list[int]) -> int:
        with CaptureQueriesContext(connection) as captured:
            assert "be sent" in text_of(choose(root, "send_selected", *pks))
        return len(captured)

    every = [make(status).pk for status in Message.Status.values]
    few = queries(every)
    assert few == queries([*every, *(make(status).pk for status in Message.Status.values * 9)]) == 27


def test_what_is_repeated_by_itself_is_not_sent_again_beside_it(root: Client, make: Make, clock: Any) -> None:
    message = make("unknown", next_attempt_at=clock.now(), attempts=1, uncertain_since=clock.now())
    assert "send_selected" not in offered(root.get(page(message.pk)))
    question = choose(root, "send_selected", message.pk)
    assert "Nothing can be sent of what you selected." in question.content.decode()
    assert "It is still repeated by itself" in question.content.decode()
    resting = make("unknown", uncertain_since=clock.now(), attempts=1)
    question = choose(root, "send_selected", resting.pk)
    Message.objects.filter(pk=resting.pk).update(next_attempt_at=clock.now())
    assert "It is still repeated by itself" in told(confirm(root, question))
    assert Message.objects.count() == 2


def test_why_something_failed_is_told_before_it_is_sent_again(root: Client, make: Make) -> None:
    question = choose(root, "send_selected", make("failed", code_result="99").pk)
    assert "99: eSMS blocks this phone number. Do not send to this number again" in text_of(question)


def test_what_was_sent_again_already_does_not_ask_for_it(root: Client, make: Make, clock: Any) -> None:
    message = make("unknown", uncertain_since=clock.now())
    make("delivered", resend_of=message)
    assert "it was sent again already" in root.get(page(message.pk)).content.decode()
