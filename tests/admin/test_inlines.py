"""The messages of a site's own object, on that object's page."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest
from django.contrib.admin.utils import quote
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from esms_viber.admin.inlines import ShownMessages
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import Make
from tests.admin.pages import LIST, forms, page
from tests.shop.models import Order, Parcel, Voucher

pytestmark = pytest.mark.django_db

PREFIX = "esms_viber-outboundvibermessage-content_type-object_id"


def address(obj: models.Model) -> str:
    return reverse(f"admin:shop_{obj._meta.model_name}_change", args=[quote(obj.pk)])


def belonging(obj: models.Model) -> dict[str, Any]:
    return {"content_type": ContentType.objects.get_for_model(obj), "object_id": str(obj.pk)}


def shown(client: Client, obj: models.Model) -> list[int]:
    """The messages in the order of their rows."""
    [inline] = client.get(address(obj)).context["inline_admin_formsets"]
    return [row.original.pk for row in inline]


def own_objects() -> list[models.Model]:
    return [
        Order.objects.create(phone="0901888484"),
        Parcel.objects.create(),
        Voucher.objects.create(code="tết/10"),
    ]


def posted(client: Client, obj: models.Model, **changes: str) -> dict[str, Any]:
    """What a browser posts of the page's own form."""
    [form] = [f for f in forms(client.get(address(obj))) if "_save" in f["buttons"]]
    return {name: values[0] for name, values in form["fields"].items()} | changes | {"_save": "Save"}


@pytest.mark.parametrize("number", range(3))
def test_the_messages_of_an_object_are_shown_newest_first(root: Client, make: Make, number: int) -> None:
    objects = own_objects()
    mine = objects[number]
    older, _others, newer = [make(**belonging(obj)) for obj in (mine, objects[number - 1], mine)]
    assert shown(root, mine) == [newer.pk, older.pk]


def test_a_row_shows_phone_status_text_price_times_and_leads_to_the_message(root: Client, make: Make) -> None:
    order = Order.objects.create(phone="0901888484")
    when = dt.datetime(2026, 3, 4, 5, 6, tzinfo=dt.UTC)
    message = make("delivered", content="Xin chào", total_price=Decimal("1450"), sent_at=when, **belonging(order))
    html = root.get(address(order)).content.decode()
    for part in [
        "0901 888 484",
        'class="viber-badge viber-good"',
        "Xin chào",
        "1,450 đ",
        "03/04/2026 12:06 p.m.",
        f'<a href="{page(message.pk)}">0901 888 484</a>',
        "esms_viber/admin.css",
    ]:
        assert part in html
    assert f'<a href="{address(order)}">Order {order.pk}</a>' in root.get(page(message.pk)).content.decode()


def test_nothing_in_it_can_be_written(root: Client, make: Make) -> None:
    order = Order.objects.create(phone="0901888484")
    make(**belonging(order))
    response = root.get(address(order))
    assert f'id="{PREFIX}-group"' in response.content.decode()
    assert not [name for form in forms(response) for name in form["fields"] if name.startswith(PREFIX)]


@pytest.mark.parametrize("status", Message.Status.values)
def test_saving_the_object_writes_nothing_to_its_messages(root: Client, make: Make, status: str, clock: Any) -> None:
    order = Order.objects.create(phone="0901888484")
    message = make(status, **belonging(order), next_attempt_at=clock.now(), lease_until=clock.now(), claim_id="x")
    before = Message.objects.values().get()
    data = posted(root, order, phone="0912345678")
    with CaptureQueriesContext(connection) as captured:
        assert root.post(address(order), data).headers["location"] == "/admin/shop/order/"
    order.refresh_from_db()
    assert order.phone == "0912345678"
    assert Message.objects.values().get() == before
    assert not [q for q in captured if message._meta.db_table in q["sql"] and not q["sql"].startswith("SELECT")]


def test_what_is_forged_into_the_form_is_not_believed(root: Client, make: Make) -> None:
    order, message = Order.objects.create(phone="0901888484"), make(content="Mine")
    mine = make(content="Mine", **belonging(order))
    before = list(Message.objects.order_by("pk").values())
    forged = {f"{PREFIX}-TOTAL_FORMS": "3", f"{PREFIX}-INITIAL_FORMS": "2", f"{PREFIX}-0-id": str(mine.pk)}
    forged |= {f"{PREFIX}-{n}-content": "Forged" for n in range(3)}
    forged |= {f"{PREFIX}-{n}-DELETE": "on" for n in range(3)} | {f"{PREFIX}-1-id": str(message.pk)}
    forged |= {f"{PREFIX}-{n}-{name}": "0901888484" for n in range(3) for name in ("phone", "phone_column", "status")}
    assert root.post(address(order), posted(root, order, **forged)).status_code == 302
    assert list(Message.objects.order_by("pk").values()) == before


def test_a_message_that_came_or_went_in_the_meantime_does_not_matter(root: Client, make: Make) -> None:
    order = Order.objects.create(phone="0901888484")
    gone = make(**belonging(order))
    data = posted(root, order)
    gone.delete()
    make("delivered", **belonging(order))
    assert root.post(address(order), data).status_code == 302
    assert Message.objects.get().status == "delivered"


def test_a_form_that_is_refused_shows_the_messages_still(root: Client, make: Make) -> None:
    order = Order.objects.create(phone="0901888484")
    make(content="Xin chào", **belonging(order))
    response = root.post(address(order), posted(root, order, phone=""))
    assert response.status_code == 200
    assert "Xin chào" in response.content.decode()
    assert "errornote" in response.content.decode()


def test_an_object_is_added_as_before(root: Client) -> None:
    assert "There are none yet." in root.get("/admin/shop/order/add/").content.decode()
    assert root.post("/admin/shop/order/add/", {"phone": "0901888484"}).status_code == 302
    assert Order.objects.get().phone == "0901888484"


@pytest.mark.parametrize(
    ("permissions", "visible"), [(["change_order"], False), (["change_order", "view_outboundvibermessage"], True)]
)
def test_who_may_not_see_messages_does_not_see_them_here(make: Make, permissions: list[str], visible: bool) -> None:
    user = User.objects.create_user("staff", is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
    client = Client()
    client.force_login(user)
    order = Order.objects.create(phone="0901888484")
    make(content="Xin chào", **belonging(order))
    assert ("Xin chào" in client.get(address(order)).content.decode()) is visible


def queries(client: Client, url: str) -> int:
    client.get(url)
    with CaptureQueriesContext(connection) as captured:
        assert client.get(url).status_code == 200
    return len(captured)


def test_it_costs_one_query_whatever_the_number_of_messages(root: Client, make: Make) -> None:
    order = Order.objects.create(phone="0901888484")
    counts = [queries(root, address(order))]
    for rows in (1, 30, 60):
        Message.objects.bulk_create(Message(phone="0901888484", content="x", **belonging(order)) for _n in range(rows))
        counts.append(queries(root, address(order)))
    # Session, user, order, messages.
    assert counts == [4, 4, 4, 4]


@pytest.mark.parametrize("number", range(3))
def test_of_many_the_latest_are_shown_and_the_list_shows_all(
    root: Client, monkeypatch: pytest.MonkeyPatch, make: Make, number: int
) -> None:
    monkeypatch.setattr(ShownMessages, "most_shown", 2)
    mine = own_objects()[number]
    make()
    all_of_them = [make(**belonging(mine)).pk]
    assert "messages are shown" not in root.get(address(mine)).content.decode()
    all_of_them += [make(**belonging(mine)).pk for _n in range(2)]
    response = root.get(address(mine))
    [inline] = response.context["inline_admin_formsets"]
    assert [row.original.pk for row in inline] == all_of_them[:0:-1]
    assert "The latest 2 messages are shown." in response.content.decode()
    found = root.get(f"{LIST}?{inline.formset.in_list}").context["cl"].result_list
    assert {message.pk for message in found} == set(all_of_them)
