"""*Send to many*: from the list of people to the queue."""

from __future__ import annotations

import json
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.cache import cache
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberGatewayState
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST, buttons, forms, told
from tests.admin.test_hostile import LINKS, TEXTS, assert_harmless
from tests.fake_gateway import json_answer

pytestmark = pytest.mark.django_db(transaction=True)

MANY = f"{LIST}viber-send-to-many/"
CAMPAIGN = f"{LIST}viber-campaign/?name=tet"
FORM = {
    "campaign": "tet",
    "phones": "0901888484, 0912345678",
    "kind": "text",
    "content": "Hi",
    "image_url": "",
    "button_label": "",
    "button_url": "",
    "brandname": "",
    "send_at_0": "",
    "send_at_1": "",
    "expires_at_0": "",
    "expires_at_1": "",
}
TABLE = "phone,tên\n0901888484,Lan\n0912345678,Minh\n12,An\n0901 888 484,Lan\n"


@pytest.fixture(autouse=True)
def _no_balance_from_before() -> None:
    cache.clear()


def table(text: str = TABLE) -> dict[str, Any]:
    return {"phones": "", "file": SimpleUploadedFile("list.csv", text.encode())}


def review(client: Client, **data: Any) -> HttpResponse:
    return client.post(MANY, FORM | data)


def press(client: Client, response: HttpResponse, button: str, **data: str) -> HttpResponse:
    """As a browser would, with the hidden fields of the review."""
    [form] = [found for found in _forms(response) if "rows" in found]
    return client.post(MANY, form | {button: "1"} | data, follow=True)


def _forms(response: HttpResponse) -> list[dict[str, str]]:
    return [{name: values[0] for name, values in form["fields"].items()} for form in forms(response)]


def test_from_a_file_to_the_queue(root: Client) -> None:
    shown = review(root, content="Chào {tên}", **table())
    assert not Message.objects.exists()
    assert shown.context["ready"] == 2
    html = shown.content.decode()
    assert [sample.bubble.text for sample in shown.context["samples"]] == ["Chào Lan", "Chào Minh"]
    for expected in ["2 messages are ready", "9 characters", "One entry cannot be used", "Digits are missing"]:
        assert expected in html
    assert "One entry repeats a phone" in html

    done = press(root, shown, "_confirm")
    assert sorted((sent.phone, sent.content) for sent in outbox) == [
        ("+84901888484", "Chào Lan"),
        ("+84912345678", "Chào Minh"),
    ]
    assert "2 messages of the campaign “tet” were stored to be sent." in told(done)
    assert done.redirect_chain[-1][0] == CAMPAIGN


def test_the_same_list_again_sends_nothing_and_says_so(root: Client) -> None:
    press(root, review(root), "_confirm")
    again = review(root)
    assert "2 phones have a message of this campaign already" in again.content.decode()
    assert f'href="{LIST}?campaign=tet&amp;sent_to_sandbox__exact=0"' in again.content.decode()
    assert "with the text and brand name that they have. To send these phones a new message" in again.content.decode()
    assert buttons(again) == {"_edit"}
    assert "No message was stored" in told(press(root, again, "_confirm"))
    assert len(outbox) == 2


def test_confirming_twice_sends_once(root: Client) -> None:
    shown = review(root)
    press(root, shown, "_confirm")
    press(root, shown, "_confirm")
    assert len(outbox) == 2


def test_a_time_that_has_passed_is_refused(root: Client) -> None:
    response = review(root, send_at_0="2020-01-01", send_at_1="08:00:00")
    assert "Leave it empty to send now" in response.content.decode()


def test_in_vietnamese_the_day_comes_first(root: Client, settings: Any) -> None:
    settings.LANGUAGE_CODE = "vi"
    for text in ("31-01-2099", "31/01/2099", "2099-01-31"):
        shown = review(root, send_at_0=text, send_at_1="08:30")
        assert shown.context["mailing"].send_at.isoformat() == "2099-01-31T08:30:00+07:00"
    [day] = {review(root, send_at_0=text, send_at_1="0:00").context["mailing"].send_at.day for text in ("05/12/2099",)}
    assert day == 5
    assert "send_at" in review(root, send_at_0="12/31/2099", send_at_1="0:00").context["form"].errors


def test_a_time_is_kept(root: Client) -> None:
    shown = review(root, send_at_0="2099-01-31", send_at_1="08:30:00")
    assert "not before 01/31/2099 8:30 a.m." in shown.content.decode()
    press(root, shown, "_confirm")
    assert outbox == []
    assert set(Message.objects.values_list("status", flat=True)) == {"queued"}
    assert {message.send_at.isoformat() for message in Message.objects.all()} == {"2099-01-31T01:30:00+00:00"}


TWO = "Tên,Phone,Mobile\nLan,0901888484,0912345678\nMinh,0901888485,0912345679\n"


def test_of_two_columns_with_phones_the_review_says_which_one_is_used_and_offers_the_other(root: Client) -> None:
    shown = review(root, content="Chào {tên}", **table(TWO))
    assert "The phones of the column “Phone” are used." in shown.content.decode()
    assert [sample.phone for sample in shown.context["samples"]] == ["0901 888 484", "0901 888 485"]
    offer = 'form="viber-mailing" name="phone_column" value="Mobile"'
    assert offer in shown.content.decode()

    other = press(root, shown, "phone_column", phone_column="Mobile")
    assert "The phones of the column “Mobile” are used." in other.content.decode()
    assert [sample.phone for sample in other.context["samples"]] == ["0912 345 678", "0912 345 679"]
    assert offer not in other.content.decode()
    # It is kept whatever is pressed next, and can be taken back.
    assert "“Mobile” are used." in press(root, other, "_balance").content.decode()
    assert "“Phone” are used." in press(root, other, "phone_column", phone_column="Phone").content.decode()
    press(root, other, "_confirm")
    assert sorted(sent.phone for sent in outbox) == ["+84912345678", "+84912345679"]


def test_the_column_of_the_phones_is_chosen_in_the_form_as_well(root: Client) -> None:
    back = press(root, review(root, **table(TWO)), "_edit")
    html = back.content.decode()
    assert "The phones of the column “Phone” are used." in html
    assert '<option selected value="Phone">Phone</option><option value="Mobile">Mobile</option>' in html
    rows = back.context["kept_rows"]
    shown = review(root, phones="", rows=rows, phone_column="Mobile", content="{Phone}")
    assert "“Mobile” are used." in shown.content.decode()
    wrong = review(root, phones="", rows=rows, phone_column="Mobile", content="")
    assert (
        '<option selected value="Mobile">Mobile</option><option value="Phone">Phone</option>' in wrong.content.decode()
    )


@pytest.mark.parametrize("column", ["Tên", "x", "<b>", ""])
def test_another_column_cannot_be_taken_for_the_phones(root: Client, column: str) -> None:
    shown = review(root, phone_column=column, **table(TWO))
    assert "“Phone” are used." in shown.content.decode()


def test_the_parts_of_a_list_keep_the_column_of_its_phones(root: Client) -> None:
    shown = press(root, review(root, **table(TWO)), "phone_column", phone_column="Mobile")
    [form] = [found for found in _forms(shown) if "rows" in found]
    columns, people, *remarks = json.loads(form["rows"])
    for data in ([columns, people[:1], *remarks], [columns, people[1:]]):
        assert root.post(MANY, form | {"rows": json.dumps(data), "_store": "1"}).json() == {"new": 1}
    assert set(Message.objects.values_list("phone", flat=True)) == {"+84912345678", "+84912345679"}


def test_where_the_names_of_the_columns_were_found_is_said(root: Client) -> None:
    sentence = "The names of the columns were found in line 3; what stands above them is left out."
    shown = review(root, content="Chào {tên}", **table("Danh sách\n\n" + TABLE))
    assert sentence in shown.content.decode()
    assert sentence in press(root, shown, "_edit").content.decode()
    assert "The names of the columns" not in review(root, content="Chào {tên}", **table()).content.decode()


def test_a_file_of_one_column_with_phones_says_nothing_about_columns(root: Client) -> None:
    assert "are used." not in review(root, content="Chào {tên}", **table()).content.decode()


def test_far_too_many_pasted_phones_are_refused_and_kept(root: Client) -> None:
    text = "\n".join(f"0977{n:06d}" for n in range(45_000))
    refused = review(root, phones=text)
    assert "at least 45000 phones; at most 10000" in refused.content.decode()
    assert refused.context["form"]["phones"].value() == text


def test_the_script_stores_in_parts_and_the_last_part_hands_all_over(root: Client) -> None:
    shown = review(root, content="Chào {tên}", **table())
    [form] = [found for found in _forms(shown) if "rows" in found]
    columns, people = json.loads(form["rows"])
    first = root.post(MANY, form | {"rows": json.dumps([columns, people[:1]]), "_store": "1"})
    assert (first.status_code, first.json()) == (200, {"new": 1})
    assert Message.objects.get().status == "queued"
    assert outbox == []
    last = form | {"rows": json.dumps([columns, people[1:]]), "_confirm": "1", "new": "1"}
    done = root.post(MANY, last, follow=True)
    assert len(outbox) == 2
    assert "2 messages of the campaign “tet” were stored to be sent." in told(done)


def test_who_goes_back_after_a_part_learns_that_it_is_sent_and_where_to_stop_it(root: Client, log_in: LogIn) -> None:
    untouched = press(root, review(root), "_edit")
    assert "Nothing is stored or sent yet." in untouched.content.decode()
    assert told(untouched) == ""
    back = press(root, review(root), "_edit", new="1500")
    assert "1,500 messages of this campaign are already stored, with their old text. To stop them" in told(back)
    assert "Nothing is stored or sent yet." not in back.content.decode()
    waiting = f'<a href="{LIST}?campaign=tet&amp;sent_to_sandbox__exact=0&amp;status__exact=queued">Show what waits</a>'
    assert waiting in back.content.decode()
    blind = log_in("add", "send")
    assert "<a" not in told(press(blind, review(blind), "_edit", new="1"))


def test_a_part_with_nothing_good_in_it_stops_nothing(root: Client) -> None:
    bad = root.post(MANY, FORM | {"phones": "12", "_store": "1"})
    assert (bad.status_code, bad.json()) == (200, {"new": 0})


def test_a_part_that_cannot_be_read_is_told(root: Client) -> None:
    bad = root.post(MANY, FORM | {"phones": "", "rows": "x", "_store": "1"})
    assert bad.status_code == 400
    assert "damaged on its way" in bad.json()["error"]


# -- what is wrong is told, and nothing is lost ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "field", "sentence"),
    [
        ({"campaign": " "}, "campaign", "This field is required."),
        ({"phones": ""}, "phones", "Paste phones, or choose a file: up to 10000 at once."),
        ({"phones": " , "}, "phones", "There is no phone in the list."),
        ({"phones": "Lan 0901888484 350.000.000"}, "phones", "Write every phone with its 0"),
        ({"phones": "", "rows": "x"}, "phones", "damaged on its way"),
        ({"content": "{tên}"}, "content", "come without a column “tên”. Give a CSV file"),
        ({"content": "", "kind": ""}, "content", "Write a text, or give an image."),
        ({"content": "x" * 1001}, "content", "1001 characters; at most 1000"),
        ({"kind": "text_button"}, "button_label", "The chosen kind of message needs this part"),
        (
            {"kind": "image", "image_url": "https://x.vn/a.png"},
            "content",
            "The chosen kind of message has no such part",
        ),
        ({"kind": "image", "content": "", "image_url": "http://x.vn/a.png"}, "image_url", "beginning with https://"),
        ({"expires_at_0": "2020-01-01", "expires_at_1": "00:00:00"}, "expires_at", "This time has passed"),
        ({"send_at_0": "x", "send_at_1": "y"}, "send_at", "Enter a valid date."),
        ({"campaign": "x" * 101}, "campaign", "at most 100 characters"),
    ],
)
def test_an_error_stands_beside_its_field(root: Client, data: dict[str, str], field: str, sentence: str) -> None:
    response = review(root, **data)
    assert sentence in " ".join(response.context["form"].errors[field])
    assert sentence in response.content.decode()
    assert not Message.objects.exists()


def test_phones_that_a_spreadsheet_has_shortened_are_told_as_such(root: Client) -> None:
    assert "A spreadsheet has shortened" in review(root, **table("Số ĐT,x\n8.49019E+10,\n")).content.decode()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("name\n", "no phone in the list"),
        ("a,b\n1,2\n", "No column holds the phones"),
        ("phone,ten\n0901888484,Lan\n", "No column is called “tên”. The columns are: ten."),
        ("phone,\u200bHọ\u00a0tên\n0901888484,Lan\n", "No column is called “tên”. The columns are: Họ tên."),
    ],
)
def test_what_is_wrong_with_a_file_is_told(root: Client, text: str, sentence: str) -> None:
    assert sentence in review(root, content="Chào {tên}", **table(text)).content.decode()


def test_phones_and_a_file_are_not_taken_for_one_list(root: Client) -> None:
    response = review(root, **table() | {"phones": "0977123456"})
    assert "There are phones and a file." in response.content.decode()
    assert "0977123456" in response.content.decode()


def test_a_text_whose_letters_and_accents_stand_apart_is_read_like_any_other(root: Client) -> None:
    text = unicodedata.normalize("NFD", "Chào {tên}")
    assert review(root, content=text, **table()).context["ready"] == 2
    assert "come without a column “tên”" in review(root, content=text).content.decode()


def test_a_form_with_missing_fields_breaks_nothing(root: Client) -> None:
    response = root.post(MANY, {"campaign": "tet", "phones": "0901888484", "button_label": "{x}"})
    assert response.context["form"].errors.keys() == {"button_label"}


def test_a_campaign_that_is_named_almost_like_another_is_asked_about(root: Client) -> None:
    press(root, review(root), "_confirm")
    assert "There is a campaign “tet” as well." in review(root, campaign="Tet").content.decode()
    assert "as well" not in review(root, campaign="tet").content.decode()


def test_what_is_left_in_the_queue_is_told(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "INLINE_LIMIT": 1}
    done = press(root, review(root), "_confirm")
    assert "One message of the campaign waits in the queue." in told(done)


def test_a_large_file_is_refused(root: Client) -> None:
    response = review(root, **table("phone\n" + "x" * (2 * 1024 * 1024)))
    assert "larger than 2 MB" in response.content.decode()


def test_a_list_that_would_not_come_back_from_the_review_is_refused(root: Client, settings: Any) -> None:
    settings.DATA_UPLOAD_MAX_MEMORY_SIZE = 201_000
    rows = "".join(f"0977{n:06d},{'x' * 100}\n" for n in range(20))
    assert "too large for one go" in review(root, **table("phone,x\n" + rows)).content.decode()


def test_an_error_in_the_text_does_not_lose_the_file(root: Client) -> None:
    wrong = review(root, content="", **table())
    assert "4 lines of the file are kept." in wrong.content.decode()
    assert "Its columns: tên." in wrong.content.decode()
    right = press(root, wrong, "_review", **FORM | {"phones": "", "content": "Chào {tên}"})
    assert right.context["ready"] == 2


def test_going_back_keeps_what_was_written(root: Client) -> None:
    shown = review(root, phones="0901888484\n12", button_label="Xem", button_url="https://x.vn/", kind="text_button")
    form = press(root, shown, "_edit").context["form"]
    assert form["phones"].value() == "0901888484\n12"
    assert (form["button_label"].value(), form["kind"].value(), form["campaign"].value()) == (
        "Xem",
        "text_button",
        "tet",
    )
    back = press(root, review(root, content="{tên}", **table()), "_edit")
    assert "4 lines of the file are kept." in back.content.decode()


def test_an_error_after_the_review_loses_no_phone(root: Client, clock: Any) -> None:
    shown = review(root, phones="0901888484\n12", send_at_0="2099-01-31", send_at_1="08:30:00")
    again = press(root, shown, "_confirm", send_at_0="2020-01-31")
    assert "Leave it empty to send now" in again.content.decode()
    assert again.context["form"]["phones"].value() == "0901888484\n12"
    assert review(root, phones=again.context["form"]["phones"].value()).context["ready"] == 1


def test_a_file_of_phones_alone_is_given_back_as_phones(root: Client) -> None:
    wrong = review(root, content="", **table("phone\n0901888484\n0912345678\n"))
    assert wrong.context["form"]["phones"].value() == "0901888484\n0912345678"


def test_a_dispatcher_that_cannot_be_found_is_named_before_anything_is_stored(root: Client, settings: Any) -> None:
    shown = review(root)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "no.such.dispatcher"}
    refused = press(root, shown, "_confirm")
    assert "DISPATCHER" in refused.content.decode()
    assert refused.context["form"]["phones"].value() == "0901888484\n0912345678"
    assert "DISPATCHER" in press(root, shown, "_store").json()["error"]
    assert not Message.objects.exists()


def test_without_an_account_the_setting_is_named_and_nothing_stored(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}
    response = review(root)
    assert "API_KEY" in response.content.decode()
    assert "0912345678" in response.content.decode()


# -- money -------------------------------------------------------------------------------------------------------------


def test_the_likely_cost_comes_from_the_latest_prices_of_the_kind(root: Client, make: Make) -> None:
    make("delivered", total_price=Decimal(400))
    make("delivered", total_price=Decimal(500))
    make("delivered", total_price=Decimal(9000), content="", image_url="https://x.vn/a.png")
    make("delivered", total_price=Decimal(8000), sent_to_sandbox=True)
    make("undelivered", total_price=Decimal(0))
    assert review(root).context["money"].cost == "900 đ"


def test_without_a_price_no_cost_is_made_up(root: Client, make: Make) -> None:
    make("delivered", total_price=Decimal(9000), content="", image_url="https://x.vn/a.png")
    assert "unknown: eSMS has not reported the price" in review(root).content.decode()


def test_a_large_mailing_does_not_hide_the_prices_before_it(root: Client, make: Make) -> None:
    priced = make("delivered", total_price=Decimal(470))
    later = make()
    Message.objects.filter(pk=later.pk).update(id=priced.pk + 20_000)
    assert review(root).context["money"].cost == "940 đ"


def test_a_rehearsal_leads_to_its_messages(root: Client) -> None:
    done = press(root, review(root, sandbox="on"), "_confirm")
    assert done.redirect_chain[-1][0] == f"{LIST}?campaign=tet&sent_to_sandbox__exact=1"
    assert "2 messages of the campaign" in told(done)


def test_a_rehearsal_costs_nothing_and_is_told_as_such(root: Client) -> None:
    shown = review(root, sandbox="on")
    assert shown.context["money"].cost == "0 đ"
    assert "This goes to the sandbox" in shown.content.decode()


def test_the_balance_is_asked_for_when_somebody_wants_it(root: Client, esms: Any) -> None:
    esms.answer(json_answer({"CodeResponse": "100", "Balance": 36693}))
    shown = review(root)
    assert esms.requests == []
    asked = press(root, shown, "_balance")
    assert len(esms.requests) == 1
    assert asked.context["money"].balance == "36,693 đ"
    assert asked.context["ready"] == 2
    assert review(root).context["money"].balance == "36,693 đ"
    assert len(esms.requests) == 1


def test_a_balance_that_is_not_enough_is_told(root: Client, make: Make, esms: Any) -> None:
    make("delivered", total_price=Decimal(20_000))
    esms.answer(json_answer({"CodeResponse": "100", "Balance": 39_999}))
    asked = press(root, review(root), "_balance")
    assert "The balance is not enough for all of these" in asked.content.decode()
    assert "The balance is not enough" not in review(root, phones="0901888484").content.decode()


# -- who may -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("permissions", [("view",), ("view", "add"), ("view", "send"), ("view", "change", "delete")])
@pytest.mark.parametrize("method", ["get", "post"])
def test_it_needs_the_permissions_to_add_and_to_send(log_in: LogIn, permissions: Any, method: str) -> None:
    client = log_in(*permissions)
    assert getattr(client, method)(MANY, FORM | {"_confirm": "1"}).status_code == 403
    assert MANY not in client.get(LIST).content.decode()
    assert not Message.objects.exists()


def test_the_list_leads_there_for_those_who_may(log_in: LogIn) -> None:
    client = log_in("view", "add", "send")
    assert f'href="{MANY}"' in client.get(LIST).content.decode()
    assert client.get(MANY).status_code == 200


def test_who_may_not_look_at_messages_comes_back_to_the_form(log_in: LogIn) -> None:
    client = log_in("add", "send")
    done = press(client, review(client), "_confirm")
    assert done.redirect_chain[-1][0] == MANY
    assert "2 messages of the campaign" in told(done)


def test_strangers_log_in_first(client: Client) -> None:
    assert "/login/?next=" in client.get(MANY).headers["Location"]
    assert "/login/?next=" in client.post(MANY, FORM | {"_confirm": "1"}).headers["Location"]


def test_a_post_without_a_token_is_refused(admin_user: User) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    assert client.post(MANY, FORM | {"_confirm": "1"}).status_code == 403


def test_get_stores_nothing(root: Client) -> None:
    root.get(MANY, FORM | {"_confirm": "1"})
    assert not Message.objects.exists()


def test_the_pages_cost_the_same_whatever_is_in_the_table(root: Client, make: Make) -> None:
    def queries(**data: str) -> int:
        with CaptureQueriesContext(connection) as captured:
            review(root, **data)
        return len(captured)

    few = queries(phones="0901888484")
    for n in range(30):
        make("delivered", phone=f"0977{n:06d}", campaign="tet", total_price=Decimal(470))
    many = queries(phones="\n".join(f"0977{n:06d}" for n in range(400)))
    # Most ask whether anything is in the way of the queue. Opt-outs are not asked of who has a message already.
    assert (few, many) == (22, 22)


def test_what_is_in_the_way_is_told_before_a_list_is_sent(root: Client, make: Make, clock: Any) -> None:
    ViberGatewayState.objects.create(code="103", opened_at=clock.now(), next_probe_at=clock.now())
    for response in (root.get(MANY), review(root), root.post(MANY, {})):
        assert "The balance of the eSMS account is too low." in response.content.decode()


@pytest.mark.parametrize("evil", TEXTS)
def test_a_list_of_hostile_texts_is_shown_as_text(root: Client, evil: str) -> None:
    quoted = '"' + evil.replace('"', '""') + '"'
    plain = evil.replace("{", "(").replace("}", ")")
    rows = f"phone,{quoted},name\n0901888484,{quoted},Lan\n{quoted},x,y\n0901888484,{quoted},z\n"
    for data in ({"content": "Hi {name}" + plain}, {"content": plain, "button_label": plain, "button_url": LINKS[1]}):
        given = data | {"brandname": evil, "campaign": plain, "kind": "", **table(rows)}
        shown = review(root, **given)
        assert_harmless(shown)
        assert_harmless(press(root, shown, "_edit"))
    assert_harmless(press(root, review(root, content=plain, campaign=plain, **table(rows)), "_confirm"))
