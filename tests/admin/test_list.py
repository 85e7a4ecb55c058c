"""The list: what it shows, finds and filters, and what it costs."""

from __future__ import annotations

import datetime as dt
import unicodedata
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.http import urlencode

from esms_viber.models import OutboundViberMessage as Message
from esms_viber.services import send_viber_message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST, page

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
    ["0901888484", "0901 888 484", "+84 901.888.484", "84901888484", "901888484", "888484", "8884", "0901", "901 888"],
)
def test_a_phone_is_found_in_any_spelling_and_in_part(root: Client, make: Make, text: str) -> None:
    wanted = make()
    make(phone="0912345678")
    assert found(root, q=text) == {wanted.pk}


@pytest.mark.parametrize(
    "text",
    ["d8e0f1f0702544", "c0ffee", "order-17", "giảm giá", unicodedata.normalize("NFD", "giảm giá"), "giảm Tết"],
)
def test_ids_and_words_are_found(root: Client, make: Make, text: str) -> None:
    wanted = make(
        "sent", content="Tết: giảm giá", dedupe_key="order-17-paid", sms_id="d8e0f1f07025442", request_id="c0ffee99"
    )
    make(phone="0912345678")
    assert found(root, q=text) == {wanted.pk}


def test_a_number_in_the_text_is_found_beside_phones(root: Client, make: Make) -> None:
    in_text, in_phone = make(phone="0912345678", content="Call 888484"), make()
    assert found(root, q="888484") == {in_text.pk, in_phone.pk}


def test_filters(root: Client, make: Make) -> None:
    draft, sent = make(campaign="tet"), make("sent", sandbox=True)
    Message.objects.filter(pk=draft.pk).update(created_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    assert found(root, status__exact="sent") == {sent.pk}
    assert found(root, campaign="tet") == {draft.pk}
    assert found(root, campaign="") == {draft.pk, sent.pk}
    assert found(root, sandbox__exact="1") == {sent.pk}
    assert found(root, created_at__gte="2021-01-01 00:00:00+07:00") == {sent.pk}
    assert found(root, q="0901888484", status__exact="sent") == {sent.pk}


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
    # Half of them ask how the queue stands.
    assert counts[0] == counts[1] <= 12


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
    ("query", "times"),
    [("", 1), ("?o=1", 1), ("?status__exact=sent", 0), ("?campaign=tet", 0), ("?q=0901", 0), ("?q=giảm", 0)],
)
def test_the_whole_table_is_counted_for_the_whole_list_only(root: Client, make: Make, query: str, times: int) -> None:
    """Once: its pages need the number. Django's "3 of 1,000,000 in all" would count it beside every search."""
    make("sent", campaign="tet")
    with CaptureQueriesContext(connection) as captured:
        assert root.get(f"{LIST}{query}").status_code == 200
    statements = [statement["sql"] for statement in captured]
    counted = [sql for sql in statements if "COUNT(" in sql]
    assert counted
    assert len([sql for sql in counted if "WHERE" not in sql]) == times
    assert not any("DISTINCT" in sql for sql in statements)


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
