"""The add page and the form of a message that may still be changed."""

from __future__ import annotations

import datetime as dt
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connection, connections
from django.test import Client
from django.utils import timezone

from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway, outbox
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import ADD, FORM, LIST, buttons, choose, form_with, page, told

pytestmark = pytest.mark.django_db(transaction=True)


def change_form(message: Message, **data: str) -> dict[str, str]:
    return FORM | {"phone": message.phone, "content": message.content} | data


def test_save_as_draft_sends_nothing(root: Client) -> None:
    response = root.post(ADD, FORM | {"_save": "1"}, follow=True)
    message = Message.objects.get()
    assert (message.status, message.phone) == ("draft", "+84901888484")
    assert outbox == []
    [notice] = response.context["messages"]
    assert "It is saved as a draft, and nothing was sent." in str(notice)


@pytest.mark.parametrize("button", ["_save", "_continue", "_addanother", "other"])
def test_no_button_but_send_sends_though_saving_does_elsewhere(root: Client, settings: Any, button: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": True}
    root.post(ADD, FORM | {button: "1"})
    assert Message.objects.get().status == "draft"
    assert outbox == []


def test_save_and_send_tells_the_outcome_after_the_commit(root: Client) -> None:
    response = root.post(ADD, FORM | {"_send": "1"}, follow=True)
    message = Message.objects.get()
    assert message.status == "sent"
    assert [sent.phone for sent in outbox] == ["+84901888484"]
    assert response.redirect_chain[-1][0] == LIST
    assert "eSMS took the message." in told(response)
    assert page(message.pk) in told(response)
    assert [event.kind for event in message.events.all()] == ["note", "requested", "attempt"]
    assert {str(event.user) for event in message.events.exclude(kind="attempt")} == {"root"}


@pytest.mark.parametrize("send_on_save", [True, False])
def test_save_and_send_sends_once(root: Client, settings: Any, send_on_save: bool) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": send_on_save}
    root.post(ADD, FORM | {"_send": "1"})
    assert len(outbox) == 1


def result(**fields: Any) -> SendResult:
    return SendResult(**({"outcome": CallOutcome.ANSWERED} | fields))


@pytest.mark.parametrize(
    ("answer", "status", "sentences"),
    [
        (result(code="100", sms_id="1"), "sent", ["eSMS took the message."]),
        (
            result(code="146", text="Brandname is <b>wrong</b>"),
            "failed",
            [
                "The message failed.",
                "146: The text does not match",
                "Correct the message",
                "eSMS says: “Brandname is &lt;b&gt;wrong&lt;/b&gt;”",
            ],
        ),
        (
            result(code="103"),
            "queued",
            ["The message waits in the queue.", "103: The balance", "Top up the account"],
        ),
        (
            result(outcome=CallOutcome.NOT_CONNECTED, text="Connection refused"),
            "queued",
            ["The message waits in the queue.", "could not be reached, so nothing was sent"],
        ),
        (
            result(outcome=CallOutcome.NO_ANSWER, text="Read timed out"),
            "unknown",
            ["The message may have been sent, or not.", "Do not send it again yet."],
        ),
        (
            result(code="105"),
            "unknown",
            ["The message may have been sent, or not.", "105: eSMS cannot find", "before you send it again"],
        ),
    ],
)
def test_each_outcome_has_its_sentence(root: Client, answer: SendResult, status: str, sentences: list[str]) -> None:
    MemoryGateway.answers.append(answer)
    response = root.post(ADD, FORM | {"_send": "1"}, follow=True)
    assert Message.objects.get().status == status
    for sentence in sentences:
        assert sentence in told(response)


def test_a_sandbox_message_is_told_as_such(root: Client) -> None:
    response = root.post(ADD, FORM | {"_send": "1", "sandbox": "on"}, follow=True)
    assert outbox[0].sandbox
    assert "neither delivers nor charges" in told(response)


def test_what_is_to_be_sent_later_waits(root: Client) -> None:
    later = {"send_at_0": "2100-01-02", "send_at_1": "08:00:00"}
    response = root.post(ADD, FORM | later | {"_send": "1"}, follow=True)
    assert Message.objects.get().status == "queued"
    assert outbox == []
    assert "It is sent at 01/02/2100" in told(response)


def test_every_error_is_shown_and_the_input_kept(root: Client) -> None:
    wrong = {"phone": "12", "image_url": "ftp://x", "button_label": "See <b>", "_send": "1"}
    response = root.post(ADD, FORM | wrong)
    errors = response.context["adminform"].form.errors
    assert set(errors) == {"phone", "image_url", "button_url"}
    html = response.content.decode()
    assert 'value="12"' in html
    assert 'value="See &lt;b&gt;"' in html
    assert Message.objects.count() == 0
    assert outbox == []


def test_a_dedupe_key_given_before_is_an_error_of_the_form(root: Client, make: Make) -> None:
    make(dedupe_key="order-1")
    response = root.post(ADD, FORM | {"dedupe_key": "order-1", "_send": "1"})
    assert "dedupe_key" in response.context["adminform"].form.errors
    assert Message.objects.count() == 1
    assert outbox == []


def test_a_dedupe_key_taken_while_the_form_was_checked_is_one_too(
    root: Client, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(dedupe_key="order-1")
    check = Message.validate_unique
    calls = iter([lambda *args: None])
    monkeypatch.setattr(Message, "validate_unique", lambda self, exclude=None: next(calls, check)(self, exclude))
    response = root.post(ADD, FORM | {"dedupe_key": "order-1", "_send": "1"})
    assert "dedupe_key" in response.context["adminform"].form.errors
    assert Message.objects.count() == 1
    assert outbox == []


def test_without_keys_the_message_is_kept_and_the_setting_named(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "BRANDNAME": "SHOP"}
    response = root.post(ADD, FORM | {"_send": "1"}, follow=True)
    assert Message.objects.get().status == "draft"
    assert "API_KEY" in told(response)
    assert "It is kept, and was not sent." in told(response)


def test_without_keys_the_other_checks_still_hold(root: Client, settings: Any, make: Make) -> None:
    make(dedupe_key="order-1")
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "BRANDNAME": "SHOP"}
    response = root.post(ADD, FORM | {"dedupe_key": "order-1", "_save": "1"})
    assert "dedupe_key" in response.context["adminform"].form.errors


@pytest.mark.parametrize("data", [{"phone": "12"}, {"image_url": "nonsense", "content": ""}, {"content": "x" * 1001}])
def test_without_keys_each_field_is_checked(root: Client, settings: Any, data: dict[str, str]) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "BRANDNAME": "SHOP"}
    response = root.post(ADD, FORM | data | {"_save": "1"})
    [wrong] = {name for name in data if data[name]}
    assert set(response.context["adminform"].form.errors) == {wrong}
    assert set(root.post(ADD, FORM | data | {"_check": "1"}).json()["errors"]) == {wrong}
    assert not Message.objects.exists()


def test_with_a_setting_of_the_wrong_type_every_page_says_so(root: Client, make: Make, settings: Any) -> None:
    message = make("queued", campaign="tet", next_attempt_at=timezone.now())
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": "16"}
    ours = [f"{LIST}viber-{address}" for address in ("send-to-many/", "overview/", "campaign/?name=tet")]
    for url in (LIST, ADD, page(message.pk), *ours):
        assert "CONCURRENCY" in root.get(url).content.decode(), url
    assert "CONCURRENCY" in choose(root, "send_selected", message.pk).content.decode()
    assert root.post(ADD, FORM | {"_check": "1"}).status_code == 200
    assert "CONCURRENCY" in root.post(ADD, FORM | {"_send": "1"}).content.decode()


@pytest.mark.parametrize("button", ["_save", "_send"])
def test_what_is_typed_is_saved_while_another_connection_writes(
    root: Client, make: Make, another_writer: Any, button: str
) -> None:
    message = make()
    with another_writer():
        assert root.post(page(message.pk), change_form(message, content="Typed", **{button: "1"})).status_code == 302
    message.refresh_from_db()
    assert (message.content, message.status) == ("Typed", "sent" if button == "_send" else "draft")


def test_a_message_is_deleted_while_another_connection_writes(root: Client, make: Make, another_writer: Any) -> None:
    message = make()
    with another_writer():
        assert root.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 302
    assert not Message.objects.exists()


def test_a_failing_dispatcher_loses_nothing(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "no.such.dispatcher"}
    response = root.post(ADD, FORM | {"_send": "1"}, follow=True)
    assert Message.objects.get().status == "queued"
    assert "The message waits in the queue." in told(response)


# -- twice -------------------------------------------------------------------------------------------------------------


def test_the_same_form_posted_twice_is_one_message(root: Client) -> None:
    form_id = form_with(root.get(ADD), phone="")["fields"]["_form_id"][0]
    data = FORM | {"_form_id": form_id, "_send": "1"}
    root.post(ADD, data)
    response = root.post(ADD, data, follow=True)
    assert Message.objects.count() == 1
    assert len(outbox) == 1
    assert "stored once" in told(response)


def test_the_same_form_with_a_key_posted_twice_is_told_as_stored_once(root: Client) -> None:
    data = FORM | {"_form_id": "f" * 32, "_send": "1", "dedupe_key": "order-1", "phone": "84 901.888.484"}
    root.post(ADD, data)
    response = root.post(ADD, data, follow=True)
    assert "stored once" in told(response)
    other = root.post(ADD, data | {"content": "Other"})
    assert "dedupe_key" in other.context["adminform"].form.errors
    assert Message.objects.count() == len(outbox) == 1


def test_the_same_form_posted_twice_at_once_is_one_message(root: Client) -> None:
    data = FORM | {"_form_id": "f" * 32, "_send": "1"}

    def post(_: int) -> int:
        client = Client()
        client.cookies = root.cookies
        try:
            return client.post(ADD, data).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(post, range(2)))
    assert Message.objects.count() == 1
    assert len(outbox) == 1


def test_going_back_and_writing_to_somebody_else_is_another_message(root: Client) -> None:
    data = FORM | {"_form_id": "f" * 32, "_send": "1"}
    root.post(ADD, data)
    root.post(ADD, data | {"phone": "0901888485"})
    assert Message.objects.count() == 2
    assert len(outbox) == 2


# -- changing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "failed", "cancelled"])
def test_what_was_not_taken_can_be_changed_and_sent(root: Client, make: Make, status: str) -> None:
    message = make(status, request_id="old")
    assert {"_save", "_send"} <= buttons(root.get(page(message.pk)))
    response = root.post(page(message.pk), change_form(message, content="Better", _send="1"), follow=True)
    message.refresh_from_db()
    assert (message.status, message.content) == ("sent", "Better")
    assert message.request_id != "old"
    assert "eSMS took the message." in told(response)


def test_saving_a_change_sends_nothing(root: Client, make: Make) -> None:
    message = make("failed")
    root.post(page(message.pk), change_form(message, content="Better", _save="1"))
    message.refresh_from_db()
    assert (message.status, message.content) == ("failed", "Better")
    assert outbox == []


def test_who_changed_it_is_in_its_history(root: Client, make: Make) -> None:
    message = make()
    root.post(page(message.pk), change_form(message, _save="1"))
    assert not message.events.exists()
    root.post(page(message.pk), change_form(message, content="Another", _save="1"))
    assert [(event.text, str(event.user)) for event in message.events.all()] == [("Changed in the admin.", "root")]


def test_times_that_sending_again_forgets_are_not_asked_for(root: Client, make: Make) -> None:
    assert 'name="send_at_0"' in root.get(page(make("draft").pk)).content.decode()
    assert 'name="send_at_0"' not in root.get(page(make("failed").pk)).content.decode()


@pytest.mark.parametrize("status", ["queued", "sending", "unknown", "sent", "delivered", "undelivered"])
def test_what_was_handed_over_is_read_only(root: Client, make: Make, status: str) -> None:
    message = make(status)
    shown = root.get(page(message.pk))
    assert shown.status_code == 200
    assert not {"_save", "_send", "_continue"} & buttons(shown)
    response = root.post(page(message.pk), change_form(message, content="Other", _send="1"), follow=True)
    message.refresh_from_db()
    assert (message.status, message.content) == (status, "Hello")
    assert outbox == []
    assert "Nothing was changed" in told(response)


@pytest.mark.parametrize("button", ["_save", "_send"])
def test_a_message_sent_between_check_and_save_stays_as_it_was(
    root: Client, make: Make, monkeypatch: pytest.MonkeyPatch, button: str
) -> None:
    message = make()
    saved = Message.save

    def overtaken(self: Message, *args: Any, **kwargs: Any) -> None:
        Message.objects.filter(pk=self.pk).update(status="sent")
        saved(self, *args, **kwargs)

    monkeypatch.setattr(Message, "save", overtaken)
    response = root.post(page(message.pk), change_form(message, content="Other", **{button: "1"}), follow=True)
    message.refresh_from_db()
    assert (message.status, message.content) == ("draft", "Hello")
    assert outbox == []
    assert "Nothing was changed" in told(response)


def test_a_second_save_and_send_does_not_send_again(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    message = make()
    saved = Message.save

    def overtaken(self: Message, *args: Any, **kwargs: Any) -> None:
        saved(self, *args, **kwargs)
        Message.objects.filter(pk=self.pk).update(status="delivered")

    monkeypatch.setattr(Message, "save", overtaken)
    response = root.post(page(message.pk), change_form(message, _send="1"), follow=True)
    assert outbox == []
    assert "from elsewhere" in told(response)


# -- ATOMIC_REQUESTS ---------------------------------------------------------------------------------------------------


@pytest.fixture
def _atomic_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)


@pytest.mark.usefixtures("_atomic_requests")
def test_under_atomic_requests_the_outcome_is_told_after_the_commit(root: Client, make: Make) -> None:
    assert "eSMS took the message." in told(root.post(ADD, FORM | {"_send": "1"}, follow=True))
    message = make("failed")
    response = root.post(page(message.pk), change_form(message, _send="1"), follow=True)
    assert "eSMS took the message." in told(response)
    assert len(outbox) == 2


def test_who_may_add_but_not_send_sees_save_as_draft_alone(log_in: LogIn) -> None:
    client = log_in("add", "view")
    shown = buttons(client.get(ADD))
    assert "_save" in shown
    assert "_send" not in shown
    client.post(ADD, FORM | {"_save": "1"})
    assert Message.objects.get().status == "draft"
    assert client.post(ADD, FORM | {"_send": "1"}).status_code == 403
    assert Message.objects.count() == 1


def test_who_may_only_add_and_send_is_told_without_a_link(log_in: LogIn) -> None:
    response = log_in("add", "send").post(ADD, FORM | {"_send": "1"}, follow=True)
    assert response.redirect_chain[-1][0] == "/admin/"
    assert "eSMS took the message." in told(response)
    assert "<a" not in told(response)


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ({"send_at_0": "2020-01-01", "send_at_1": "08:00:00"}, "Leave it empty to send now"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "08:00:00"}, "nothing would be sent"),
    ],
)
def test_a_time_that_has_passed_is_refused(root: Client, data: dict[str, str], sentence: str) -> None:
    response = root.post(ADD, FORM | data | {"_send": "1"})
    assert sentence in response.content.decode()
    assert not Message.objects.exists()


def test_now_is_taken_where_the_form_was_open_for_some_minutes(root: Client, clock: Any) -> None:
    now = timezone.localtime(clock.now()) - dt.timedelta(minutes=5)
    root.post(ADD, FORM | {"send_at_0": f"{now:%Y-%m-%d}", "send_at_1": f"{now:%H:%M:%S}", "_send": "1"})
    assert Message.objects.get().status == "sent"


def test_in_vietnamese_the_day_comes_first(root: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "vi"
    root.post(ADD, FORM | {"send_at_0": "05/12/2099", "send_at_1": "08:00", "_send": "1"})
    message = Message.objects.get()
    assert (timezone.localtime(message.send_at).day, timezone.localtime(message.send_at).month) == (5, 12)
    assert message.status == "queued"
