"""Redacting in the admin, what is shown of a redacted message, and one person's data: as a file, or erased."""

from __future__ import annotations

import json
import re

import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client

from esms_viber.admin import actions
from esms_viber.models import ViberMessageEvent, ViberOptOut
from esms_viber.privacy import redact
from tests.admin.conftest import LogIn, Make, Message
from tests.admin.pages import ADD, FORM, LIST, choose, form_with, forms, offered, page, told

pytestmark = pytest.mark.django_db

TEXT = "Chào chị Kim"
ERASE, EXPORT = f"{LIST}viber-erase-person/", f"{LIST}viber-export-person/"


def redacted(make: Make, status: str = "delivered", **columns: object) -> Message:
    message = make(status, **{"content": TEXT, "request_id": "request-1", **columns})
    message.events.create(kind="requested", request_id="request-1")
    message.events.create(kind="attempt", request_id="request-1", code="100", data={"outcome": "answered"})
    report = {"SendStatus": "5", "SendSuccess": "1", "phonenumber": "0901888484"}
    message.events.create(kind="callback", request_id="request-1", data=report, applied=True)
    redact([message.pk])
    message.refresh_from_db()
    return message


def yes(client: Client, question, url: str = LIST, **fields: str):
    return client.post(url, form_with(question, **fields)["fields"], follow=True)


# -- what is shown -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["draft", "unknown", "sent", "delivered", "undelivered", "failed", "cancelled"])
def test_redacted_message_is_shown_as_such(root: Client, make: Make, status: str) -> None:
    message = redacted(make, status, campaign="tet", total_price=460)
    listed = root.get(LIST).content.decode()
    assert re.search(r"field-phone_column.*?>redacted<", listed)
    shown = root.get(page(message.pk))
    html = shown.content.decode()
    assert shown.status_code == 200
    assert "Redacted at" in html
    assert "viber-preview" not in html
    assert "eSMS reports: delivered" in html
    assert offered(shown) & {"send_selected", "redact_selected", "cancel_selected"} == set()
    assert "before you send it again" not in html
    for found in (listed, html):
        assert "901888484" not in found.replace(" ", "")
        assert "Kim" not in found


def test_one_cancelled_for_an_opt_out_is_not_said_to_be_sendable(root: Client, make: Make) -> None:
    message = redacted(make, "cancelled", error_message="Not sent: this phone has opted out.")
    html = root.get(page(message.pk)).content.decode()
    assert "Not sent: this phone has opted out." in html
    assert "delete the opt-out" not in html


def test_it_cannot_be_changed(root: Client, make: Make) -> None:
    message = redacted(make, "failed")
    answer = root.post(page(message.pk), {"phone": "0901888484", "content": TEXT, "kind": "text"}, follow=True)
    assert answer.status_code in {200, 403}
    assert Message.objects.get().content == ""


def test_kind_stays(root: Client, make: Make) -> None:
    make("delivered", content="", image_url="https://shop.example.vn/a.png")
    redact([Message.objects.get().pk])
    assert '<td class="field-kind_column">image</td>' in root.get(LIST).content.decode()


def test_it_is_found_by_its_numbers_and_exported(root: Client, make: Make) -> None:
    message = redacted(make, sms_id="sms-17", dedupe_key="order-17")
    for number in ("sms-17", "request-1", "order-17"):
        assert str(message) in root.get(LIST, {"q": number}).content.decode()
    lines = b"".join(root.get(f"{LIST}viber-export/").streaming_content).decode().splitlines()
    assert '"redacted"' in lines[1]
    assert '"text only"' in lines[1]


def test_sending_it_again_leaves_it_out_with_the_reason(root: Client, make: Make) -> None:
    message = redacted(make)
    question = choose(root, "send_selected", message.pk)
    assert "Its text and phone were redacted." in question.content.decode()
    assert "Yes, send" not in question.content.decode()


# -- redacting what is selected ----------------------------------------------------------------------------------------


def test_it_asks_and_says_what_becomes_of_them_before_it_redacts(root: Client, make: Make) -> None:
    messages = [make(status, content=TEXT) for status in ("delivered", "draft", "queued", "sending")]
    before = redacted(make)
    question = choose(root, "redact_selected", *(message.pk for message in messages), before.pk)
    html = question.content.decode()
    for sentence in (
        "This cannot be undone.",
        "2 of them were not sent yet, and are cancelled.",
        "One of them is being sent",
        "One more was redacted before.",
        "Yes, redact 4 messages",
    ):
        assert sentence in html
    assert Message.objects.filter(redacted_at=None).count() == 4
    answer = yes(root, question, action="redact_selected")
    assert "4 messages were redacted." in told(answer)
    assert not Message.objects.filter(redacted_at=None).exists()
    assert {event.user.username for event in ViberMessageEvent.objects.filter(kind="note")} == {"root"}


def test_from_its_own_page_and_back(root: Client, make: Make) -> None:
    message = make("delivered", content=TEXT)
    shown = root.get(page(message.pk))
    question = yes(root, shown, action="redact_selected")
    assert "Yes, redact one message" in question.content.decode()
    answer = yes(root, question, action="redact_selected")
    assert answer.redirect_chain[-1][0] == page(message.pk)
    assert "redacted: The message was redacted." in answer.content.decode().replace("</a>", "")


def test_messages_that_came_after_the_question_are_left(root: Client, make: Make) -> None:
    make("delivered")
    first = Message.objects.get()
    question = choose(root, "redact_selected", first.pk, select_across="1")
    make("delivered", content="Came later")
    yes(root, question, action="redact_selected")
    assert list(Message.objects.filter(redacted_at=None).values_list("content", flat=True)) == ["Came later"]


def test_for_more_it_names_the_command(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(actions, "MOST_AT_ONCE", 1)
    messages = [make("delivered") for _ in range(2)]
    answer = choose(root, "redact_selected", *(message.pk for message in messages))
    assert "manage.py prune_viber_messages --redact-after 0 --campaign" in told(answer)
    assert not Message.objects.exclude(redacted_at=None).exists()


@pytest.mark.parametrize("permissions", [("view",), ("view", "change", "delete"), ("view", "send", "add", "change")])
def test_only_with_the_permission(log_in: LogIn, make: Make, permissions: tuple[str, ...]) -> None:
    message = make("delivered", content=TEXT)
    client = log_in(*permissions)
    assert "redact_selected" not in client.get(LIST).content.decode()
    shown = client.get(page(message.pk)).content.decode()
    assert "redact_selected" not in shown
    assert "of this phone" not in shown
    assert choose(client, "redact_selected", message.pk, confirmed="9-9").status_code == 403
    for url in (ERASE, EXPORT):
        assert client.post(url, {"phone": "0901888484", "confirmed": "1"}).status_code == 403
    assert Message.objects.get().content == TEXT


def test_permission_to_redact_is_none_to_send(log_in: LogIn, make: Make) -> None:
    message = make("delivered", content=TEXT)
    client = log_in("view", "redact")
    shown = client.get(page(message.pk))
    assert offered(shown) == {"redact_selected"}
    assert choose(client, "send_selected", message.pk).status_code == 403
    yes(client, choose(client, "redact_selected", message.pk), action="redact_selected")
    assert Message.objects.get().redacted_at is not None


# -- one person --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["0901 888 484", "+84901888484", "901888484"])
def test_search_for_a_phone_offers_what_may_be_done_with_all_of_it(root: Client, make: Make, query: str) -> None:
    make("delivered")
    assert "Erase everything of this phone" in root.get(LIST, {"q": query}).content.decode()
    for other in ("", "0901", "Kim"):
        assert "of this phone" not in root.get(LIST, {"q": other}).content.decode()


def test_erasing_asks_first(root: Client, make: Make) -> None:
    ViberOptOut.objects.create(phone="0901888484")
    for status in ("delivered", "queued", "failed"):
        make(status, content=TEXT)
    make("delivered", phone="0912345678", content="Another's")
    shown = root.get(page(Message.objects.earliest("pk").pk))
    [form] = [f for f in forms(shown) if f["attrs"].get("action") == ERASE]
    question = root.post(ERASE, form["fields"])
    html = question.content.decode()
    assert "Erase everything of 0901 888 484?" in html
    assert "3 messages are stored of this phone." in html
    assert Message.objects.filter(redacted_at=None).count() == 4
    answer = yes(root, question, ERASE, confirmed="1")
    assert "3 messages were redacted." in told(answer)
    assert [message.content for message in Message.objects.filter(redacted_at=None)] == ["Another's"]
    assert ViberOptOut.objects.exists()


def test_permission_to_redact_needs_that_to_view(log_in: LogIn, make: Make) -> None:
    make("delivered", content=TEXT)
    client = log_in("redact")
    for url in (ERASE, EXPORT):
        assert client.post(url, {"phone": "0901888484", "confirmed": "1"}).status_code == 403
    assert Message.objects.get().content == TEXT


def test_log_of_the_admin_holds_no_phone_and_no_text(root: Client) -> None:
    root.post(ADD, {**FORM, "content": TEXT, "kind": "text"})
    message = Message.objects.get()
    root.post(page(message.pk), {**FORM, "content": f"{TEXT}!", "kind": "text"})
    root.post(f"{LIST}{message.pk}/delete/", {"post": "yes"})
    lines = [str(line) for line in LogEntry.objects.values()]
    assert len(lines) == 3
    for line in lines:
        assert "901888484" not in re.sub(r"[\s.-]", "", line)
        assert "Kim" not in line


def test_export_is_a_file_of_all_that_is_stored(root: Client, make: Make) -> None:
    make("delivered", content=TEXT)
    make("delivered", phone="0912345678")
    answer = root.post(EXPORT, {"phone": "0901 888 484"})
    assert answer["Content-Type"] == "application/json"
    assert answer["Content-Disposition"].startswith('attachment; filename="viber-person-')
    assert "901888484" not in answer["Content-Disposition"]
    found = json.loads(answer.content)
    assert [message["content"] for message in found["messages"]] == [TEXT]
    assert TEXT in answer.content.decode()


@pytest.mark.parametrize("url", [ERASE, EXPORT])
def test_phone_that_cannot_be_read_is_told_and_no_address_holds_one(root: Client, url: str) -> None:
    assert "cannot be read" in told(root.post(url, {"phone": "Kim", "confirmed": "1"}, follow=True))
    assert root.get(url, {"phone": "0901888484"}).status_code == 302
