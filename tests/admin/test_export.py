"""The filtered list as a file for Excel."""

from __future__ import annotations

import asyncio
import csv
import datetime as dt
import io
import math
import tracemalloc
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.contrib import admin
from django.contrib.contenttypes.models import ContentType
from django.db import connection, connections
from django.test import AsyncRequestFactory, Client
from django.test.utils import CaptureQueriesContext
from django.utils import translation
from django.utils.http import urlencode

from esms_viber.admin import OutboundViberMessageAdmin
from esms_viber.admin import export as exporting
from esms_viber.codes import describe
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

EXPORT = f"{LIST}viber-export/"


def text_of(response: Any) -> str:
    assert response.status_code == 200, response
    content = b"".join(response.streaming_content)
    assert content.startswith(b"\xef\xbb\xbf")
    return content[3:].decode()


def rows(client: Client, delimiter: str = ",", **query: str) -> list[dict[str, str]]:
    text = text_of(client.get(f"{EXPORT}?{urlencode(query)}"))
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter))


def numbers(client: Client, **query: str) -> list[int]:
    return [int(row["Number"]) for row in rows(client, **query)]


# -- which rows --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"status__exact": "sent"},
        {"campaign": "tet"},
        {"q": "0912"},
        {"q": "giảm giá"},
        {"created_at__gte": "2021-01-01 00:00:00+07:00"},
        {"sent_to_sandbox__exact": "1"},
        {"attention": "undecided"},
        {"status__exact": "sent", "q": "0901888484", "campaign": "tet"},
        {"o": "1", "all": ""},
    ],
)
def test_the_file_has_what_the_list_shows_newest_first(
    root: Client, make: Make, clock: Any, query: dict[str, str]
) -> None:
    old = make("sent", campaign="tet")
    Message.objects.filter(pk=old.pk).update(created_at=dt.datetime(2020, 1, 1, tzinfo=dt.UTC))
    make("sent", campaign="tet", sent_to_sandbox=True)
    make("sent", phone="0912345678", content="Tết: giảm giá")
    make("unknown", uncertain_since=clock.now())
    listed = root.get(LIST, query).context["cl"].result_list
    found = numbers(root, **query)
    assert found
    assert found == sorted((message.pk for message in listed), reverse=True)


def test_the_link_in_the_list_keeps_the_filters_and_no_page(root: Client, make: Make) -> None:
    for _n in range(3):
        make("sent", campaign="a&b")
    html = root.get(LIST, {"status__exact": "sent", "campaign": "a&b", "p": "1"}).content.decode()
    assert f'<a href="{EXPORT}?campaign=a%26b&amp;status__exact=sent">Export CSV</a>' in html


def test_there_are_all_pages(root: Client, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OutboundViberMessageAdmin, "list_per_page", 2)
    pks = [make().pk for _n in range(5)]
    assert numbers(root, p="2") == pks[::-1]
    assert numbers(root, p="99") == pks[::-1]


@pytest.mark.parametrize("query", ["nonsense=1", "created_at__gte=yesterday", "status__exact__exact=1"])
def test_a_filter_that_is_none_leads_back_to_the_list(root: Client, make: Make, query: str) -> None:
    make()
    assert root.get(f"{EXPORT}?{query}").headers["location"] == f"{LIST}?e=1"


def test_an_empty_list_is_a_head(root: Client) -> None:
    assert text_of(root.get(EXPORT)).count("\r\n") == 1


# -- what is in them ---------------------------------------------------------------------------------------------------


def test_a_row_tells_all_of_a_message(root: Client, make: Make) -> None:
    order = Order.objects.create()
    when = dt.datetime(2026, 11, 24, 7, 5, tzinfo=dt.UTC)
    make(
        "failed",
        content="Xin chào",
        image_url="https://shop.example.vn/a.png",
        button_label="See",
        button_url="https://shop.example.vn/",
        brandname="SHOP",
        campaign="tet",
        dedupe_key="order-17",
        sent_to_sandbox=True,
        metadata={"đơn": 17},
        content_type=ContentType.objects.get_for_model(Order),
        object_id=str(order.pk),
        code_result="104",
        total_price=Decimal("450.5"),
        sms_id="d8e0",
        request_id="c0ffee",
        queued_at=when,
        send_at=when + dt.timedelta(hours=1),
        expires_at=when + dt.timedelta(hours=2),
        sent_at=when + dt.timedelta(hours=12),
    )
    created = dt.datetime(2026, 11, 24, 7, 4, 59, 999999, tzinfo=dt.UTC)
    Message.objects.update(created_at=created)
    [row] = rows(root)
    assert row == {
        "Number": str(Message.objects.get().pk),
        "Phone": "0901 888 484",
        "Status": "failed",
        "Kind": "text, image and button",
        "Text": "Xin chào",
        "Image": "https://shop.example.vn/a.png",
        "Button label": "See",
        "Button link": "https://shop.example.vn/",
        "Brand name": "SHOP",
        "Campaign": "tet",
        "Price (đ)": "450.5",
        "Code": "104",
        "Meaning of the code": str(describe("104").meaning),
        "Created at": "2026-11-24 14:04:59",
        "Queued at": "2026-11-24 14:05:00",
        "Send at": "2026-11-24 15:05:00",
        "Expires at": "2026-11-24 16:05:00",
        "Sent at": "2026-11-25 02:05:00",
        "Completed at": "",
        "SMSID": "d8e0",
        "RequestId": "c0ffee",
        "Dedupe key": "order-17",
        "Sent to the sandbox": "yes",
        "Rehearsal": "no",
        "Purpose": "transactional",
        "Metadata": '{"đơn": 17}',
        "Type of related object": "order",
        "Id of related object": str(order.pk),
    }


@pytest.mark.parametrize("language", ["en", "vi"])
def test_no_two_columns_have_one_name(root: Client, language: str) -> None:
    with translation.override(language):
        head = text_of(root.get(EXPORT)).strip().split(";" if language == "vi" else ",")
    assert len(set(head)) == len(head)


@pytest.mark.parametrize(
    ("price", "english", "vietnamese"),
    [("1450.0000", "1450", "1450"), ("1234567.2500", "1234567.25", "1234567,25"), ("0", "0", "0"), (None, "", "")],
)
def test_a_price_is_a_number_as_the_readers_excel_knows_it(
    root: Client, make: Make, price: str | None, english: str, vietnamese: str, settings: Any
) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    make("delivered", total_price=price)
    assert rows(root)[0]["Price (đ)"] == english
    with translation.override("vi"):
        assert rows(root, ";")[0]["Giá (đ)"] == vietnamese


@pytest.mark.parametrize(("language", "delimiter", "label"), [("en", ",", "delivered"), ("vi", ";", "đã nhận")])
def test_lines_are_split_where_excel_splits_them(
    root: Client, make: Make, settings: Any, language: str, delimiter: str, label: str
) -> None:
    settings.LANGUAGE_CODE = language
    make("delivered")
    with translation.override(language):
        head, line, end = text_of(root.get(EXPORT)).split("\r\n")
    assert head.count(delimiter) == line.count(delimiter) == 27
    assert f'"0901 888 484"{delimiter}"{label}"{delimiter}' in line
    assert end == ""


def test_texts_survive(root: Client, make: Make) -> None:
    text = 'Chào "bạn", đơn hàng;\n\nsố 17\tđã gửi, cảm ơn ạ 🎁'
    make(content=text, button_label="Ắ", button_url="https://shop.example.vn/?a=1;b")
    [row] = rows(root)
    assert row["Text"] == text
    assert row["Button label"] == "Ắ"
    with translation.override("vi"):
        assert rows(root, ";")[0]["Nội dung"] == text


@pytest.mark.parametrize("before", ["", " ", "  \u00a0", '"', "'", '" ', "\u200b", "\ufeff", "\u2003", "\x0b"])
@pytest.mark.parametrize("sign", [*"=+-@\t\r\n", *"＝＋－＠"])
def test_formulas_are_neutralised(root: Client, make: Make, sign: str, before: str) -> None:
    evil = f'{before}{sign}HYPERLINK("https://evil.example";"x")'
    message = make("sent", sms_id=evil, request_id=evil[:50], code_result="1")
    texts = ("content", "image_url", "button_label", "button_url", "brandname", "campaign", "dedupe_key", "object_id")
    Message.objects.filter(pk=message.pk).update(**dict.fromkeys(texts, evil))
    cells = [cell for cell in rows(root)[0].values() if "HYPERLINK" in cell]
    assert len(cells) == len(texts) + 2
    assert {cell[:2] for cell in cells} == {f"'{evil[0]}"}


def test_the_rest_of_a_text_is_no_cell_where_a_spreadsheet_splits_at_other_signs(root: Client, make: Make) -> None:
    make(content="a,=1+1;=2+2")
    for language in ("en", "vi"):
        with translation.override(language):
            assert '"a,=1+1;=2+2"' in text_of(root.get(EXPORT))


@pytest.mark.parametrize("text", ["Giảm 50%", "a=b", "'Tết'", "10-20", "Hi\n=1"])
def test_what_is_no_formula_stays_as_it_is(root: Client, make: Make, text: str) -> None:
    make(content=text)
    assert rows(root)[0]["Text"] == text


# -- how it is sent ----------------------------------------------------------------------------------------------------


def test_it_is_a_file_with_the_day_in_its_name(root: Client, clock: Any) -> None:
    clock.set(dt.datetime(2026, 11, 23, 17, 30, tzinfo=dt.UTC))
    response = root.get(EXPORT)
    assert response.streaming
    assert response.headers["content-type"] == "text/csv; charset=utf-8"
    assert response.headers["content-disposition"] == 'attachment; filename="viber-messages-2026-11-24.csv"'
    assert response.headers["x-content-type-options"] == "nosniff"


def test_only_get(root: Client) -> None:
    assert root.post(EXPORT).status_code == 405


def test_who_may_not_see_messages_gets_no_file(log_in: LogIn, make: Make) -> None:
    make()
    assert log_in().get(EXPORT).status_code == 403
    assert log_in("view").get(EXPORT).status_code == 200


def test_who_is_not_logged_in_is_asked_to(client: Client) -> None:
    assert client.get(EXPORT).headers["location"].startswith("/admin/login/")


def stored(count: int) -> None:
    Message.objects.bulk_create(
        (Message(phone="0901888484", content="x" * 200, campaign=f"{n}") for n in range(count)), batch_size=500
    )


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35])
def test_rows_are_read_in_slices(root: Client, monkeypatch: pytest.MonkeyPatch, count: int) -> None:
    monkeypatch.setattr(exporting, "SLICE", 10)
    order = ContentType.objects.get_for_model(Order)
    stored(count)
    Message.objects.update(content_type=order, object_id="1")
    response = root.get(EXPORT)
    with CaptureQueriesContext(connection) as captured:
        text = text_of(response)
    assert text.count("\r\n") == count + 1
    # A full slice may have been the last one.
    assert len(captured) == math.floor(count / 10) + 1
    assert all("LIMIT 10" in query["sql"] for query in captured)


def test_nothing_is_read_before_somebody_listens(root: Client) -> None:
    stored(5)
    with CaptureQueriesContext(connection) as captured:
        root.get(EXPORT)
    assert not [query for query in captured if '"content"' in query["sql"] or "`content`" in query["sql"]]


@pytest.mark.django_db(transaction=True)
def test_no_transaction_is_open_between_slices(root: Client, monkeypatch: pytest.MonkeyPatch, settings: Any) -> None:
    monkeypatch.setattr(exporting, "SLICE", 2)
    monkeypatch.setitem(connection.settings_dict, "ATOMIC_REQUESTS", True)
    stored(5)
    response = root.get(EXPORT)
    open_ones = [connection.in_atomic_block for _part in response.streaming_content]
    assert open_ones == [False] * 4


def peak(client: Client) -> int:
    response = client.get(EXPORT)
    tracemalloc.start()
    try:
        for _part in response.streaming_content:
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memory_does_not_grow_with_the_number_of_rows(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SLICE", 100)
    stored(300)
    peak(root)
    short = peak(root)
    stored(2700)
    # Ten times the rows; when garbage is collected makes a difference of its own.
    assert peak(root) < 3 * short


@pytest.mark.django_db(transaction=True)
def test_under_asgi_it_is_streamed_too(make: Make, admin_user: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "SLICE", 2)
    stored(5)
    request = AsyncRequestFactory().get(EXPORT)
    request.user = admin_user
    model_admin = OutboundViberMessageAdmin(Message, admin.site)
    response: Any = exporting.export(model_admin, request)
    assert response.is_async

    async def read() -> list[bytes]:
        parts = [part async for part in response]
        await sync_to_async(connections.close_all)()
        return parts

    parts = asyncio.run(read())
    assert len(parts) == 4
    assert b"".join(parts).count(b"\r\n") == 6
