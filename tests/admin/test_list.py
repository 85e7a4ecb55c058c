"""The list: what it shows, finds and filters, and what it costs."""

from __future__ import annotations

import datetime as dt
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin import ModelAdmin, site
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation
from django.utils.formats import date_format
from django.utils.http import urlencode

from esms_viber.admin import OutboundViberMessageAdmin, pages
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.services import send_viber_message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST, choose, nobody_asks_for_the_queue, page, told

pytestmark = pytest.mark.django_db


def found(client: Client, **query: str) -> set[int]:
    response = client.get(f"{LIST}?{urlencode(query)}")
    assert response.status_code == 200, response
    return {message.pk for message in response.context["cl"].result_list}


def test_a_row_shows_what_staff_look_for(root: Client, make: Make) -> None:
    when = dt.datetime(2026, 3, 4, 5, 6, tzinfo=dt.UTC)
    make(
        "delivered",
        content="Xin chào\n" + "x" * 100,
        button_label="See",
        button_url="https://shop.example.vn/",
        brandname="SHOP",
        total_price=Decimal("1450.0000"),
        sent_at=when,
        completed_at=when,
    )
    html = root.get(LIST).content.decode()
    for shown in [
        "0901 888 484",
        'class="viber-badge viber-good"',
        "delivered",
        "Xin chào xxx",
        "text and button",
        "SHOP",
        "1,450 đ",
        "03/04/2026 12:06 p.m.",
    ]:
        assert shown in html
    assert "x" * 60 not in html


def test_what_waits_for_a_later_time_shows_it(root: Client, make: Make, clock: Any) -> None:
    soon, past = clock.now() + dt.timedelta(hours=1), clock.now() - dt.timedelta(hours=1)
    make("queued", send_at=past)
    make("delivered", send_at=soon)
    assert "to be sent at" not in root.get(LIST).content.decode()
    make("queued", send_at=soon)
    shown = date_format(timezone.localtime(soon), "SHORT_DATETIME_FORMAT")
    assert root.get(LIST).content.decode().count(f"to be sent at {shown}") == 1


@pytest.mark.parametrize("status", Message.Status.values)
def test_every_state_has_a_badge_with_its_name(root: Client, make: Make, status: str) -> None:
    make(status)
    html = root.get(LIST).content.decode()
    assert f"</span> {Message.Status(status).label}</span>" in html


@pytest.mark.parametrize(
    "text",
    ["0901888484", "0901 888 484", "+84 901.888.484", "84901888484", "901888484", "0084 901", "090", "0901", "901 888"],
)
def test_a_phone_is_found_in_any_spelling_and_by_its_beginning(root: Client, make: Make, text: str) -> None:
    wanted = make()
    make(phone="0912345678")
    assert found(root, q=text) == {wanted.pk}


@pytest.mark.parametrize("text", ["888484", "8484"])
def test_the_end_of_a_phone_finds_nothing(root: Client, make: Make, text: str) -> None:
    """No index could find it; the search says what it has looked for."""
    make()
    assert found(root, q=text) == set()


@pytest.mark.parametrize(
    "text",
    [
        "d8e0f1f0702544",
        "c0ffee",
        "order-17",
        "vip-welcome",
        "giảm giá",
        unicodedata.normalize("NFD", "giảm giá"),
        "Giảm",
        "GIẢM",
        '"giảm giá"',
        "giảm Tết",
    ],
)
def test_ids_and_words_are_found(root: Client, make: Make, text: str) -> None:
    wanted = make(
        "sent", content="Tết: giảm giá", dedupe_key="order-17-paid", sms_id="d8e0f1f07025442", request_id="c0ffee99"
    )
    another = make(phone="0912345678", dedupe_key="vip-welcome")
    assert found(root, q=text) == {another.pk if text == "vip-welcome" else wanted.pk}


@pytest.mark.parametrize("text", ["giảm giá", "GIẢM GIÁ", "Giảm giá"])
def test_words_are_found_whether_in_capitals_or_not(root: Client, make: Make, text: str) -> None:
    wanted = {make(content=f"Tết: {spelled}").pk for spelled in ("giảm giá", "GIẢM GIÁ", "Giảm Giá")}
    make(content="Tết")
    assert found(root, q=text) == wanted


@pytest.mark.parametrize("text", ["iphone", "IPHONE", "iPhone", "đà lạt", "Đà LẠT"])
def test_words_are_found_however_they_are_capitalised(root: Client, make: Make, text: str) -> None:
    wanted = make(content="iPhone ở Đà Lạt")
    make(content="phone")
    assert found(root, q=text) == {wanted.pk}


def test_a_dedupe_key_may_be_any_words(root: Client, make: Make) -> None:
    keyed, in_text = make(dedupe_key="welcome back"), make(content="You are welcome back")
    for query in ("welcome", "welcome back"):
        assert found(root, q=query) == {keyed.pk, in_text.pk}
    assert found(root, q='"welcome back"') == {in_text.pk}
    html = root.get(LIST, {"q": "welcome"}).content.decode()
    assert "Searched in the texts, and for dedupe keys that begin so." in html


@pytest.mark.parametrize("text", ["thanh", "THANH", "thaNH", "thanh long"])
def test_a_word_is_not_found_by_its_end(root: Client, make: Make, text: str) -> None:
    wanted = {make(content=f"Mùa {spelled}").pk for spelled in ("thanh long", "THANH LONG", "Thanh Long")}
    make(content="nhanh chong")
    assert found(root, q=text) == wanted


def test_the_boxes_of_the_rows_are_those_of_django(make: Make) -> None:
    messages = [make(), make("sent", phone="0912345678")]
    model_admin = site.get_model_admin(Message)
    for language in ("en", "vi"):
        with translation.override(language):
            for message in messages:
                box = ModelAdmin.action_checkbox(model_admin, message)
                assert model_admin.action_checkbox(message) == box


def test_a_number_is_searched_for_in_texts_only_where_somebody_wants_that(root: Client, make: Make) -> None:
    in_text, in_phone = make(phone="0912345678", content="Call 0901888484, SALE50"), make(content="x")
    response = root.get(f"{LIST}?q=0901888484&status__exact=draft")
    assert [message.pk for message in response.context["cl"].result_list] == [in_phone.pk]
    html = response.content.decode()
    assert "Searched for what begins so: phones, SMSIDs, RequestIds and dedupe keys." in html
    assert f'href="{QUOTED}">Search in the texts</a>' in html
    for query in ('"0901888484"', '"SALE50"'):
        assert found(root, q=query) == {in_text.pk}
    assert "Searched in the texts." in root.get(LIST, {"q": '"SALE50"'}).content.decode()
    assert "Searched" not in root.get(LIST).content.decode()


QUOTED = "?q=%220901888484%22&amp;status__exact=draft"


@pytest.mark.parametrize("text", ['"', "''", '"a', "\\", "%", "_", "a%b", "\ud800", "-", "/", "x" * 5000])
def test_any_search_is_answered(root: Client, make: Make, text: str) -> None:
    make(content="Hello")
    assert root.get(LIST, {"q": text.encode("utf-8", "replace").decode()}).status_code == 200


# -- more than is counted ----------------------------------------------------------------------------------------------


@pytest.fixture
def few_counted(monkeypatch: pytest.MonkeyPatch, make: Make) -> list[int]:
    """Twelve messages, of which three make a page, and six are counted."""
    monkeypatch.setattr(pages, "MOST_COUNTED", 6)
    monkeypatch.setattr(OutboundViberMessageAdmin, "list_per_page", 3)
    return [make(campaign="tet").pk for _n in range(12)][::-1]


def shown(client: Client, query: str) -> list[int]:
    response = client.get(f"{LIST}{query}")
    assert response.status_code == 200, response
    return [message.pk for message in response.context["cl"].result_list]


@pytest.mark.parametrize(
    "query", ["?", "?campaign=tet&", "?status__exact=draft&", "?created_at__gte=2020-01-01+00:00:00%2B07:00&"]
)
def test_every_page_that_exists_is_shown(root: Client, few_counted: list[int], query: str) -> None:
    for number in range(1, 5):
        assert shown(root, f"{query}p={number}") == few_counted[3 * number - 3 : 3 * number]
    assert shown(root, f"{query}o=5") == few_counted[::-1][:3]
    for number in (5, 99):
        assert root.get(f"{LIST}{query}p={number}").headers["Location"] == f"{LIST}?e=1"


@pytest.mark.parametrize("page", ["0", "-1", "x", "²", "9" * 30, "9" * 5000])
def test_what_is_no_page_is_answered_as_django_does(root: Client, few_counted: list[int], page: str) -> None:
    response = root.get(LIST, {"p": page})
    assert response.status_code == 302 or [m.pk for m in response.context["cl"].result_list] == few_counted[:3]


@pytest.mark.parametrize("separated", [False, True])
def test_a_total_that_is_cut_off_says_so_wherever_it_stands(
    root: Client, few_counted: list[int], settings: Any, separated: bool
) -> None:
    settings.USE_THOUSAND_SEPARATOR = separated
    html = " ".join(root.get(f"{LIST}?q=hello").content.decode().split())
    assert "more than 6 Viber messages" in html
    assert "more than 6 results" in html
    assert "Select all more than 6 Viber messages" in html
    assert "All are selected, more than 6" in html
    assert "The list has more than 6 messages." in html
    assert "7 Viber" not in html
    later = " ".join(root.get(f"{LIST}?p=4").content.decode().split())
    assert "12 Viber messages" in later
    assert "more than" not in later


def test_the_other_end_of_a_list_that_is_cut_off_is_one_click_away(root: Client, few_counted: list[int]) -> None:
    html = root.get(f"{LIST}?campaign=tet").content.decode()
    assert '<a href="?campaign=tet&amp;o=5">Show the oldest first</a>' in html
    html = root.get(f"{LIST}?campaign=tet&o=5").content.decode()
    assert '<a href="?campaign=tet">Show the newest first</a>' in html
    assert "Show the oldest" not in root.get(f"{LIST}?q=0901888485").content.decode()


def test_all_of_a_list_that_is_cut_off_can_be_selected(root: Client, few_counted: list[int]) -> None:
    response = choose(root, "cancel_selected", few_counted[0], url=f"{LIST}?campaign=tet", select_across="1")
    assert "12 messages were cancelled." in told(response)


def test_a_grouped_total(root: Client, settings: Any) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    assert [str(pages.Total(n, is_cut=cut)) for n, cut in [(9999, False), (10_001, True)]] == [
        "9,999",
        "more than 10,000",
    ]
    with translation.override("vi"):
        assert str(pages.Total(9999)) == "9.999"
    settings.USE_THOUSAND_SEPARATOR = False
    assert str(pages.Total(9999)) == "9999"


# -- filters -----------------------------------------------------------------------------------------------------------


def test_filters(root: Client, make: Make) -> None:
    draft, sent = make(campaign="tet"), make("sent", sent_to_sandbox=True)
    Message.objects.filter(pk=draft.pk).update(created_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert found(root, status__exact="sent") == {sent.pk}
    assert found(root, campaign="tet") == {draft.pk}
    assert found(root, campaign="") == {draft.pk, sent.pk}
    assert found(root, sent_to_sandbox__exact="1") == {sent.pk}
    assert found(root, created_at__gte="2021-01-01 00:00:00+07:00") == {sent.pk}
    assert found(root, q="0901888484", status__exact="sent") == {sent.pk}
    assert found(root, sent_to_sandbox__exact="0") == {draft.pk}


def test_the_campaign_filter_offers_the_latest_and_a_field_for_others(root: Client, make: Make) -> None:
    make(campaign="long-ago")
    Message.objects.bulk_create(Message(phone="0901888484", content="x", campaign=f"c{n % 12}") for n in range(1000))
    response = root.get(f"{LIST}?status__exact=draft&campaign=long-ago")
    html = response.content.decode()
    assert "?campaign=c11&amp;status__exact=draft" in html
    assert "?campaign=c4&amp;" not in html
    assert '<input type="hidden" name="status__exact" value="draft">' in html
    assert '<input type="text" name="campaign" value="long-ago"' in html
    assert response.context["cl"].result_count == 1


def test_only_indexed_columns_sort(root: Client, make: Make) -> None:
    make()
    html = root.get(LIST).content.decode()
    assert "sortable column-phone_column" in html
    assert "sortable column-price_column" not in html


def queries(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


def test_the_list_costs_the_same_whatever_its_length(root: Client, make: Make) -> None:
    counts = []
    for rows in (5, 45):
        Message.objects.bulk_create(Message(phone="0901888484", content="x", campaign=f"{n}") for n in range(rows))
        counts.append(queries(root, f"{LIST}?q=0901"))
    # Eleven of them ask how the queue stands, and four look for the number.
    assert counts[0] == counts[1] <= 24


def test_the_page_costs_the_same_whatever_its_history(root: Client, make: Make, django_user_model: Any) -> None:
    users = [django_user_model.objects.create(username=f"{n}") for n in range(5)]
    parent = make("delivered")
    message = make("delivered", resend_of=parent)
    counts = []
    for rows in (5, 45):
        for n in range(rows):
            message.events.create(kind="callback", user=users[n % 5])
            make("sent", resend_of=message)
        counts.append(queries(root, page(message.pk)))
    assert counts[0] == counts[1] <= 8


@pytest.mark.parametrize(
    "query",
    ["", "?o=1", "?status__exact=sent", "?campaign=tet", "?sent_to_sandbox__exact=1", "?q=0901", "?q=giảm", "?p=9"],
)
def test_nothing_is_counted_and_nothing_read_twice(root: Client, make: Make, query: str) -> None:
    """The primary keys tell the total and the page; two more statements read the campaigns and the newest number."""
    make("sent", campaign="tet", content="giảm", sent_to_sandbox=True)
    # How the queue stands is asked for as well, by statements of its own.
    with CaptureQueriesContext(connection) as captured, nobody_asks_for_the_queue():
        root.get(f"{LIST}{query}")
    statements = [statement["sql"] for statement in captured if "outboundvibermessage" in statement["sql"]]
    # Each of the four columns of numbers is asked by itself, and words may begin a dedupe key.
    assert len(statements) == 4 + {"?q=0901": 4, "?q=giảm": 1}.get(query, 0)
    assert not any("COUNT(" in sql or "DISTINCT" in sql for sql in statements)


def test_who_may_only_look_sees_no_action(log_in: LogIn, make: Make) -> None:
    make()
    html = log_in("view").get(LIST).content.decode()
    assert "0901 888 484" in html
    assert "send_selected" not in html
    assert 'name="action"' not in html


@pytest.mark.django_db(transaction=True)
def test_the_pages_work_on_a_site_without_time_zones(root: Client, settings) -> None:
    settings.USE_TZ = False
    message = send_viber_message("0901888484", "Xin chào")
    for address in (LIST, f"{LIST}{message.pk}/change/"):
        assert root.get(address).status_code == 200
    assert message.status == "sent"
