"""Messages in a database of their own, by a router; users, content types and the site's own objects in the first."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.contrib.contenttypes.prefetch import GenericPrefetch
from django.db import connections, models, transaction
from django.db.models import Prefetch
from django.test import Client
from django.utils.functional import SimpleLazyObject

from esms_viber import testing
from esms_viber.mailing.mailing import Mailing, review, store
from esms_viber.mailing.recipients import read_pasted
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent, ViberOptOut
from esms_viber.services import (
    cancel_viber_messages,
    deliver_due_messages,
    deliver_messages,
    queue_viber_message,
    queue_viber_messages,
    refresh_viber_messages,
    resend_viber_messages,
    send_viber_message,
    settle_viber_messages,
)
from tests.admin.pages import ADD, FORM, LIST, choose, confirm, page, told
from tests.shop.models import Order, Parcel, Voucher
from tests.subclasses.models import Birthday, Reminder

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "messages"])

PHONE, TEXT = "0901888484", "Xin chào"
ORDERS = "/admin/shop/order/"
USERS = "/admin/auth/user/"


@pytest.fixture(autouse=True)
def _apart(settings: Any) -> Iterator[None]:
    settings.DATABASE_ROUTERS = ["tests.routers.MessagesApart"]
    ContentType.objects.clear_cache()

    def refuse_our_tables(execute: Any, sql: str, *args: Any) -> Any:
        # They are there, for the tests of one database.
        assert "esms_viber_" not in sql, sql
        return execute(sql, *args)

    with connections["default"].execute_wrapper(refuse_our_tables):
        yield


@pytest.fixture
def user() -> User:
    return User.objects.create_user("lan", is_staff=True, is_superuser=True)


@pytest.fixture
def staff(user: User) -> Client:
    client = Client()
    client.force_login(user)
    return client


@pytest.fixture
def order() -> Order:
    return Order.objects.create(phone=PHONE, note="17")


def test_the_second_database_has_our_tables_alone_and_the_first_the_permissions() -> None:
    names = connections["messages"].introspection.table_names()
    others = {name for name in names if not name.startswith(("esms_viber_", "subclasses_"))}
    assert others <= {"django_migrations", "django_tasks_database_dbtaskresult"}
    assert Permission.objects.filter(codename="send_outboundvibermessage").exists()


def test_from_an_order_to_its_report(order: Order, user: User) -> None:
    # As `request.user` is.
    asked_by: Any = SimpleLazyObject(lambda: user)
    with transaction.atomic():
        message = queue_viber_message(PHONE, TEXT, related_object=order, user=asked_by, dedupe_key="order-17")
        assert queue_viber_message(PHONE, TEXT, dedupe_key="order-17").pk == message.pk
    assert testing.play_callback(message).status_code == 200

    message = Message.objects.get()
    assert (message.status, message._state.db) == ("delivered", "messages")
    assert (message.related_object, message.content_type.model_class()) == (order, Order)
    assert list(Message.objects.for_object(order)) == [message]
    assert [event.kind for event in message.events.all()] == ["requested", "attempt", "callback"]
    assert message.events.first().user == user


def test_every_service(order: Order, user: User) -> None:
    sent = send_viber_message(PHONE, TEXT, related_object=order, user=user)
    assert (sent.status, sent.related_object) == ("sent", order)
    assert [row.pk for row in refresh_viber_messages([sent], user=user)] == [sent.pk]
    testing.answer_next("146")
    failed = send_viber_message(PHONE, TEXT, user=user)
    (again, copy) = sorted(resend_viber_messages([failed, sent], user=user), key=lambda row: row.pk != failed.pk)
    assert (again.pk, copy.resend_of_id, copy.related_object) == (failed.pk, sent.pk, order)
    Message.objects.filter(pk=sent.pk).update(status="unknown", uncertain_since=sent.created_at)
    copy.refresh_from_db()
    drafts = Message.objects.bulk_create([Message(phone=PHONE, content=TEXT, related_object=order) for _ in range(2)])
    assert len(cancel_viber_messages(Message.objects.draft(), user=user)) == len(drafts)
    Message.objects.filter(pk=failed.pk).update(status="unknown", uncertain_since=sent.created_at, next_attempt_at=None)
    assert [row.pk for row in settle_viber_messages([failed], user=user)] == [failed.pk]
    queued = queue_viber_messages([Message(phone=PHONE, content="a"), Reminder(phone=PHONE, content="b")], user=user)
    assert {row.status for row in Message.objects.filter(pk__in=[row.pk for row in queued])} == {"sent"}
    assert deliver_messages([queued[0].pk]).left == deliver_due_messages().left == 0
    events = ViberMessageEvent.objects.filter(kind__in=["requested", "note"])
    assert {event.user for event in events} == {user}


def test_what_save_and_create_do(order: Order, settings: Any) -> None:
    message = Message.objects.create(phone=PHONE, content=TEXT, related_object=order)
    message.content, message.related_object = "Tạm biệt", Parcel.objects.create()
    message.save()
    message = Message.objects.get()
    assert (message.content, message.related_object) == ("Tạm biệt", Parcel.objects.get())
    message.full_clean()
    message.content_type = ContentType.objects.get_for_model(Order)
    message.object_id = order.pk
    message.save()
    assert Message.objects.get(content_type=message.content_type).related_object == order
    message.related_object = None
    message.save()
    assert (Message.objects.get().related_object, Message.objects.get().content_type) == (None, None)
    reminder = Reminder.objects.create(phone=PHONE, content=TEXT, appointment="Monday", related_object=order)
    reminder.seen = True
    reminder.save()
    assert Reminder.objects.get().related_object == order
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": True}
    assert Birthday.objects.using("messages").model(phone=PHONE, content=TEXT).save() is None
    assert Message.objects.sent().count() == 1
    Message.objects.all().delete()
    assert not ViberMessageEvent.objects.exists()


def test_what_a_rollback_of_the_order_takes_back() -> None:
    """Two databases have no transaction in common: what is queued at once stays, what waits for the commit does not."""
    with transaction.atomic():
        queue_viber_message(PHONE, "at once")
        transaction.on_commit(lambda: queue_viber_message(PHONE, "later"))
        transaction.set_rollback(True)
    assert [message.content for message in Message.objects.all()] == ["at once"]


# -- what is related ---------------------------------------------------------------------------------------------------


def objects() -> list[models.Model]:
    return [
        Order.objects.create(phone=PHONE),
        Order.objects.create(phone=PHONE),
        Parcel.objects.create(),
        Voucher.objects.create(code="tết/10"),
    ]


def test_objects_and_users_are_prefetched(user: User, django_assert_num_queries: Any) -> None:
    related = objects()
    for obj in [*related, None]:
        queue_viber_message(PHONE, TEXT, related_object=obj, user=user)
    ContentType.objects.clear_cache()
    [ContentType.objects.get_for_model(obj) for obj in related]
    with (
        django_assert_num_queries(3, using="default"),
        django_assert_num_queries(1, using="messages"),
    ):
        messages = list(Message.objects.order_by("pk").prefetch_related("related_object"))
        assert [message.related_object for message in messages] == [*related, None]
    with (
        django_assert_num_queries(2, using="default"),
        django_assert_num_queries(2, using="messages"),
    ):
        events = ViberMessageEvent.objects.filter(kind="requested")
        assert {event.user for event in events.prefetch_related("user")} == {user}
        assert {event.user for event in events.prefetch_related(Prefetch("user", User.objects.only("username")))} == {
            user
        }
    orders: Any = GenericPrefetch("related_object", [Order.objects.only("note"), Parcel.objects.all()])
    found = Message.objects.order_by("pk").prefetch_related(orders)
    assert [message.related_object for message in found] == [*related, None]
    kinds = Message.objects.order_by("pk").prefetch_related("content_type")
    assert [message.content_type for message in kinds][:4] == [ContentType.objects.get_for_model(o) for o in related]


@pytest.mark.parametrize("object_id", ["", "x", "99", "9" * 30, str(2**63)])
def test_an_object_that_cannot_be_there_reads_as_none(order: Order, object_id: str) -> None:
    message = queue_viber_message(PHONE, TEXT, related_object=order)
    Message.objects.update(object_id=object_id)
    assert Message.objects.get().related_object is None
    assert Message.objects.prefetch_related("related_object").get().related_object is None
    message.refresh_from_db()
    assert message.related_object is None


def test_what_is_assigned_must_be_what_it_is_to_be(order: Order) -> None:
    with pytest.raises(ValueError, match="must be a"):
        Message(content_type=order)
    with pytest.raises(ValueError, match="must be a"):
        ViberMessageEvent(user=order)
    with pytest.raises(ValueError, match="unsaved related object"):
        queue_viber_message(PHONE, TEXT, related_object=Order())


# -- what is gone ------------------------------------------------------------------------------------------------------


def test_a_deleted_user_reads_as_none_and_takes_nothing_along(staff: Client, user: User, order: Order) -> None:
    other = User.objects.create_user("minh")
    for _ in range(2):
        message = send_viber_message(PHONE, TEXT, related_object=order, user=other)
    url = f"{USERS}{other.pk}/delete/"
    assert "Viber" not in staff.get(url).content.decode().partition("<h2>")[2]
    assert staff.post(url, {"post": "yes"}).status_code == 302
    assert not User.objects.filter(username="minh").exists()
    events = ViberMessageEvent.objects.filter(kind="requested")
    assert [event.user for event in events] == [event.user for event in events.prefetch_related("user")] == [None] * 2
    event = events[0]
    assert event.user_id == other.pk
    event.applied = False
    event.save()
    html = staff.get(page(message.pk)).content.decode()
    assert "It was asked for; no user is recorded." in html
    User.objects.all().delete()
    assert Message.objects.count() == 2


def test_a_deleted_content_type_reads_as_none(staff: Client, order: Order) -> None:
    parcel = Parcel.objects.create()
    message = send_viber_message(PHONE, TEXT, related_object=parcel)
    send_viber_message(PHONE, TEXT, related_object=order)
    ContentType.objects.get_for_model(Parcel).delete()
    ContentType.objects.clear_cache()
    rows = Message.objects.order_by("pk")
    assert [row.related_object for row in rows] == [None, order]
    assert [row.related_object for row in rows.prefetch_related("related_object")] == [None, order]
    assert [bool(row.content_type) for row in rows] == [False, True]
    assert staff.get(page(message.pk)).status_code == 200
    exported = list(csv.DictReader(io.StringIO(export(staff))))
    assert [line["Type of related object"] for line in exported] == ["order", ""]
    (copy,) = resend_viber_messages([message])
    assert Message.objects.get(pk=copy.pk).status == "sent"


def export(client: Client) -> str:
    return b"".join(client.get(f"{LIST}viber-export/").streaming_content).decode().removeprefix("\ufeff")  # type: ignore[arg-type]


# -- in the admin ------------------------------------------------------------------------------------------------------


def test_a_message_is_written_sent_and_deleted_in_the_admin(staff: Client, user: User) -> None:
    staff.post(ADD, FORM)
    message = Message.objects.get()
    assert message.status == "draft"
    staff.post(page(message.pk), FORM | {"content": "Tạm biệt"})
    assert Message.objects.get().content == "Tạm biệt"
    staff.post(page(message.pk), FORM | {"content": "Tạm biệt", "_send": "1"})
    assert Message.objects.get().status == "sent"
    assert {event.user for event in message.events.filter(kind__in=["note", "requested"])} == {user}
    html = staff.get(page(message.pk)).content.decode()
    assert "It was asked for by lan." in html
    confirm(staff, choose(staff, "send_selected", message.pk))
    assert Message.objects.count() == 2
    assert "eSMS took the message" in told(choose(staff, "refresh_selected", message.pk))
    assert staff.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 302
    last = Message.objects.get()
    choose(staff, "delete_selected", last.pk, post="yes")
    assert not Message.objects.exists()
    assert LogEntry.objects.filter(user=user).exists()


def test_lists_pages_and_files_tell_of_the_order(staff: Client, order: Order, user: User) -> None:
    message = send_viber_message(PHONE, TEXT, related_object=order, user=user, campaign="tet")
    send_viber_message(PHONE, TEXT)
    kind = ContentType.objects.get_for_model(Order)
    [shown] = staff.get(f"{LIST}?content_type={kind.pk}&object_id={order.pk}").context["cl"].result_list
    assert shown.pk == message.pk
    for url in (
        LIST,
        f"{LIST}?q=0901 888 484",
        f"{LIST}?campaign=tet",
        f"{LIST}viber-overview/",
        f"{LIST}viber-campaign/?name=tet",
    ):
        assert staff.get(url).status_code == 200
    assert "Order with 17" in staff.get(page(message.pk)).content.decode()
    assert [line["Type of related object"] for line in csv.DictReader(io.StringIO(export(staff)))] == ["", "order"]
    [inline] = staff.get(f"{ORDERS}{order.pk}/change/").context["inline_admin_formsets"]
    assert [row.original.pk for row in inline] == [message.pk]
    assert staff.post(f"{ORDERS}{order.pk}/delete/", {"post": "yes"}).status_code == 302
    assert Message.objects.get(pk=message.pk).related_object is None
    assert staff.get(page(message.pk)).status_code == 200


def test_a_mailing_is_stored_once(user: User, settings: Any) -> None:
    mailing, people = Mailing(campaign="tet", content="Hi"), read_pasted("0901888484, 0912345678")
    assert store(mailing, review(mailing, people), user=user) == 2
    assert len(review(mailing, people).known) == 2
    assert {event.user for event in ViberMessageEvent.objects.all()} == {user}


def test_a_mailing_is_sent_from_the_admin(staff: Client) -> None:
    empty = ["image_url", "button_label", "button_url", "brandname", "send_at_0", "send_at_1"]
    form = dict.fromkeys([*empty, "expires_at_0", "expires_at_1"], "")
    form |= {"campaign": "tet", "phones": "0901888484, 0912345678", "kind": "text", "content": "Hi"}
    assert staff.post(f"{LIST}viber-send-to-many/", form | {"_confirm": "1"}, follow=True).status_code == 200
    assert Message.objects.filter(campaign="tet", status="sent").count() == 2


def test_the_admin_of_opt_outs(staff: Client, user: User) -> None:
    url = "/admin/esms_viber/viberoptout/"
    given = {"phone": PHONE, "scope": "promotional", "note": "", "_save": "1"}
    assert "gets no promotional messages any more" in told(staff.post(f"{url}add/", given, follow=True))
    assert "nothing was changed" in told(staff.post(f"{url}add/", given, follow=True)).lower()
    staff.post(f"{url}viber-paste/", {"pasted": f"{PHONE}, 0912345678", "scope": "everything", "note": "a list"})
    found = ViberOptOut.objects.get(phone=PHONE)
    assert (found.scope, found.user, found._state.db) == ("everything", user, "messages")
    assert "lan" in staff.get(url, {"q": "0901"}).content.decode()
    assert staff.post(f"{url}{found.pk}/change/", given | {"note": "x"}).status_code == 302
    assert staff.post(f"{url}{found.pk}/delete/", {"post": "yes"}).status_code == 302
    choose(staff, "delete_selected", ViberOptOut.objects.get().pk, url=url, post="yes")
    assert not ViberOptOut.objects.exists()
    assert LogEntry.objects.count() == 4


def test_a_pause_lies_beside_the_messages_and_its_log_beside_the_users(staff: Client) -> None:
    for verb in ("pause", "resume"):
        response = staff.post(f"{LIST}viber-{verb}/", {"campaign": "tet", "note": "17"}, follow=True)
        assert response.status_code == 200
    assert [(entry.action_flag, entry.object_repr) for entry in LogEntry.objects.order_by("pk")] == [
        (1, "tet"),
        (3, "tet"),
    ]
