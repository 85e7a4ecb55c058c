"""*Send me this first*: one real message to a phone of one's own, wherever messages are written."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connections
from django.http import HttpResponse
from django.test import Client

from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberTemplate
from esms_viber.services import opt_out, pause_sending
from esms_viber.statistics import counted
from tests.admin.conftest import LogIn
from tests.admin.pages import ADD, FORM, LIST, page, told
from tests.admin.test_mailing import FORM as MAILING
from tests.admin.test_mailing import MANY
from tests.admin.test_templates import NEW, TEMPLATES, WRITTEN, client_with

pytestmark = pytest.mark.django_db(transaction=True)

PHONE = "+84977123456"
REHEARSE = {"_rehearse": "form", "rehearsal_phone": "0977 123 456", "rehearsal_id": "a1"}
TERMS = {
    "phone": "",
    "campaign": "tet",
    "dedupe_key": "order-1",
    "send_at_0": "2100-01-02",
    "send_at_1": "08:00:00",
    "expires_at_0": "2100-02-02",
    "expires_at_1": "08:00:00",
    "brandname": "Other",
    "purpose": "promotional",
}


def rehearse(client: Client, address: str = ADD, **data: Any) -> HttpResponse:
    return client.post(address, FORM | REHEARSE | data)


def field(response: HttpResponse, name: str) -> Any:
    return response.context["adminform"].form[name].value()


# -- the add page ------------------------------------------------------------------------------------------------------


def test_one_real_message_goes_out_at_once_and_the_form_stays(root: Client) -> None:
    response = rehearse(root, **TERMS)
    message = Message.objects.get()
    assert [(sent.phone, sent.content, sent.brandname) for sent in outbox] == [(PHONE, "Hello", "Other")]
    assert (message.status, message.rehearsal, message.purpose) == ("sent", True, "promotional")
    assert (message.campaign, message.dedupe_key, message.send_at, message.expires_at) == ("", None, None, None)
    assert "eSMS took the message." in told(response)
    assert page(message.pk) in told(response)
    assert response.context["adminform"].form.errors == {}
    assert {name: field(response, name) for name in ("campaign", "dedupe_key", "phone")} == {
        "campaign": "tet",
        "dedupe_key": "order-1",
        "phone": "",
    }
    assert "2100-01-02" in response.content.decode()


def test_it_counts_in_no_figures_and_is_told_as_such(root: Client) -> None:
    rehearse(root)
    message = Message.objects.get()
    assert not counted(Message.objects.all()).exists()
    for address in (LIST, page(message.pk)):
        assert '<span class="viber-remark">rehearsal</span>' in root.get(address).content.decode()
    assert [event.kind for event in message.events.all()] == ["requested", "note", "attempt"]
    assert {str(event.user) for event in message.events.exclude(kind="attempt")} == {"root"}


def test_the_phone_is_remembered_for_each_person(root: Client, log_in: LogIn) -> None:
    field = 'name="rehearsal_phone" id="id_rehearsal_phone" value="{}"'
    rehearse(root, rehearsal_phone="+84 977.123.456")
    for address in (ADD, NEW, MANY):
        assert field.format("0977 123 456") in root.get(address).content.decode()
    other = log_in("add", "view", "send")
    assert field.format("") in other.get(ADD).content.decode()


@pytest.mark.parametrize("phone", ["", "12", "028 3822 1234", "<b>"])
def test_a_phone_that_is_none_sends_nothing(root: Client, phone: str) -> None:
    response = rehearse(root, rehearsal_phone=phone)
    assert "It was not sent." in told(response)
    assert not Message.objects.exists()
    assert field(response, "content") == "Hello"


def test_what_is_wrong_with_the_text_is_told_on_its_field(root: Client) -> None:
    response = rehearse(root, kind="text_button", button_label="See")
    assert set(response.context["adminform"].form.errors) == {"button_url"}
    assert not Message.objects.exists()


def test_the_same_post_again_sends_nothing_and_a_new_page_does(root: Client) -> None:
    first = rehearse(root)
    again = rehearse(root)
    assert len(outbox) == Message.objects.count() == 1
    assert "the message was sent once" in told(again)
    assert page(Message.objects.get().pk) in told(again)
    rehearse(root, rehearsal_id=first.context["viber_rehearsal"].id)
    assert len(outbox) == 2


def test_a_double_click_sends_once(root: Client) -> None:
    def click(_n: int) -> int:
        try:
            return rehearse(root).status_code
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(click, range(4))) == {200}
    assert len(outbox) == Message.objects.count() == 1


@pytest.mark.parametrize("dispatcher", ["queue_only", "inline"])
def test_it_goes_out_now_whoever_sends_the_others(root: Client, settings: Any, dispatcher: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": f"esms_viber.dispatch.{dispatcher}"}
    rehearse(root)
    assert Message.objects.get().status == "sent"


def test_it_obeys_a_pause_and_says_so(root: Client) -> None:
    pause_sending()
    assert "sending is paused" in told(rehearse(root))
    assert (Message.objects.get().status, outbox) == ("queued", [])


def test_it_obeys_the_hours_and_says_so(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "PROMOTIONAL_HOURS": ("00:00", "00:01")}
    assert "promotional messages wait for their hours" in told(rehearse(root, purpose="promotional"))
    assert (Message.objects.get().status, outbox) == ("queued", [])


def test_it_obeys_an_opt_out_and_says_so(root: Client) -> None:
    opt_out(PHONE, scope="everything")
    assert "this phone has opted out" in told(rehearse(root))
    assert (Message.objects.get().status, outbox) == ("cancelled", [])


def test_a_sandbox_is_told(root: Client) -> None:
    assert "neither delivers nor charges" in told(rehearse(root, sandbox="on"))
    assert outbox[0].sandbox


def test_a_setting_that_is_missing_is_told(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "nowhere.Gateway"}
    assert "The connection to eSMS is not set up." in told(rehearse(root))
    assert not Message.objects.exists()


def test_who_may_not_send_rehearses_nothing(log_in: LogIn) -> None:
    client = log_in("add", "change", "view")
    assert 'name="_rehearse"' not in client.get(ADD).content.decode()
    for address in (ADD, MANY):
        assert rehearse(client, address).status_code == 403
    sender = log_in("send", "view")
    for address in (ADD, MANY):
        assert rehearse(sender, address).status_code == 403
    assert not Message.objects.exists()


def test_get_rehearses_nothing(root: Client) -> None:
    root.get(ADD, FORM | REHEARSE)
    assert not Message.objects.exists()


def test_a_draft_is_rehearsed_as_it_stands_in_the_form_and_stays_as_it_is(root: Client) -> None:
    root.post(ADD, FORM | {"_save": "1"})
    draft = Message.objects.get()
    response = rehearse(root, page(draft.pk), content="Changed")
    assert [sent.content for sent in outbox] == ["Changed"]
    assert field(response, "content") == "Changed"
    draft.refresh_from_db()
    assert (draft.status, draft.content) == ("draft", "Hello")


# -- templates ---------------------------------------------------------------------------------------------------------


def test_a_template_is_rehearsed_with_its_samples(root: Client) -> None:
    response = root.post(NEW, WRITTEN | REHEARSE | {"name": "", "value-tên": "Lan"})
    [sent] = outbox
    assert (sent.content, sent.button_url) == ("Chào Lan, đơn order", "https://shop.example.vn/order")
    assert response.context["adminform"].form.errors == {}
    assert 'name="value-tên" value="Lan"' in response.content.decode()
    assert field(response, "content") == WRITTEN["content"]
    assert not ViberTemplate.objects.exists()


def test_a_stored_template_stays_as_it_is(root: Client) -> None:
    template = ViberTemplate.objects.create(name="a", content="Hi")
    response = root.post(
        f"{TEMPLATES}{template.pk}/change/", WRITTEN | REHEARSE | {"content": "Changed", "purpose": "promotional"}
    )
    assert "eSMS took the message." in told(response)
    template.refresh_from_db()
    assert (template.content, Message.objects.get().content) == ("Hi", "Changed")
    assert Message.objects.get().purpose == "promotional"


def test_a_template_is_rehearsed_by_who_may_add_and_send_messages() -> None:
    writer = client_with("add_vibertemplate", "view_outboundvibermessage")
    assert 'name="_rehearse"' not in writer.get(NEW).content.decode()
    assert writer.post(NEW, WRITTEN | REHEARSE).status_code == 403
    for one in ("send", "add"):
        half = client_with("add_vibertemplate", f"{one}_outboundvibermessage")
        assert 'name="_rehearse"' not in half.get(NEW).content.decode()
        assert half.post(NEW, WRITTEN | REHEARSE).status_code == 403
    sender = client_with("add_vibertemplate", "add_outboundvibermessage", "send_outboundvibermessage")
    sent = sender.post(NEW, WRITTEN | REHEARSE)
    assert "eSMS took the message." in told(sent)
    assert "/change/" not in told(sent)  # because this person may not see messages


def test_a_message_of_a_template_is_rehearsed_with_its_values(root: Client) -> None:
    ViberTemplate.objects.create(name="a", content="Hi {tên}")
    data = {"content": "Hi {tên}", "_from_template": "1"}
    missing = rehearse(root, **data)
    assert missing.context["adminform"].form.errors == {"content": ["Give a value for: tên."]}
    response = rehearse(root, **data, **{"value-tên": "Lan"})
    assert [sent.content for sent in outbox] == ["Hi Lan"]
    assert field(response, "content") == "Hi {tên}"


# -- Send to many ------------------------------------------------------------------------------------------------------


def table() -> dict[str, Any]:
    text = "phone,tên\n12,Nobody\n0901888484,Lan\n0912345678,Minh\n"
    return {"phones": "", "content": "Chào {tên}", "file": SimpleUploadedFile("list.csv", text.encode())}


def test_a_mailing_is_rehearsed_with_the_first_good_line(root: Client) -> None:
    response = root.post(MANY, MAILING | REHEARSE | table())
    message = Message.objects.get()
    assert [(sent.phone, sent.content) for sent in outbox] == [(PHONE, "Chào Lan")]
    assert (message.campaign, message.dedupe_key, message.rehearsal) == ("", None, True)
    assert message.purpose == "promotional"
    assert "eSMS took the message." in told(response)
    assert len(response.context["kept"].people) == 3
    assert response.context["form"]["content"].value() == "Chào {tên}"


def test_a_review_is_rehearsed_and_shown_again(root: Client) -> None:
    response = root.post(MANY, MAILING | REHEARSE | table() | {"_rehearse": "review"})
    assert response.context["ready"] == 2
    assert "eSMS took the message." in told(response)
    assert [sent.content for sent in outbox] == ["Chào Lan"]
    assert not Message.objects.filter(campaign="tet").exists()


def test_a_mailing_without_a_list_or_a_name_is_rehearsed_if_no_column_is_needed(root: Client) -> None:
    nothing = {"phones": "", "campaign": "", "send_at_0": "2020-01-01", "send_at_1": "08:00"}
    response = root.post(MANY, MAILING | REHEARSE | nothing)
    assert [sent.content for sent in outbox] == ["Hi"]
    assert response.context["form"].errors == {}
    needy = root.post(MANY, MAILING | REHEARSE | nothing | {"content": "Hi {tên}", "rehearsal_id": "b"})
    assert "phones" in needy.context["form"].errors
    assert len(outbox) == 1


def test_a_mailing_is_rehearsed_once_by_a_double_click(root: Client) -> None:
    for _click in range(2):
        response = root.post(MANY, MAILING | REHEARSE)
    assert len(outbox) == 1
    assert "the message was sent once" in told(response)


# -- ONLY_TO -----------------------------------------------------------------------------------------------------------


def test_only_to_is_told_where_messages_are_written(root: Client, settings: Any) -> None:
    assert "ONLY_TO" not in root.get(ADD).content.decode()
    assert "ONLY_TO" not in root.post(MANY, MAILING).content.decode()
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "ONLY_TO": ["0901888484"]}
    assert "ONLY_TO" in root.get(ADD).content.decode()
    assert "One of these goes to the sandbox" in root.post(MANY, MAILING).content.decode()
    assert "ONLY_TO" not in root.post(MANY, MAILING | {"sandbox": "on"}).content.decode()
    assert "ONLY_TO" not in root.post(MANY, MAILING | {"phones": "0901888484"}).content.decode()
