"""The page of one message: what happened, its history, and the buttons for its state."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Any

import pytest
from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.test import Client

from esms_viber.admin.base import MessageAdminBase
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import ADD, LIST, buttons, choose, form_with, offered, page, told
from tests.shop.models import Order, Voucher

pytestmark = pytest.mark.django_db


def html_of(client: Client, message: Message) -> str:
    return client.get(page(message.pk)).content.decode()


def test_why_it_failed_and_what_to_do_stand_on_the_page(root: Client, make: Make) -> None:
    html = html_of(root, make("failed", code_result="104", error_message="Wrong brandname", attempts=2))
    assert "104: eSMS does not know this brand name" in html
    assert "Compare the brand name" in html
    assert "Wrong brandname" in html


def test_what_is_known_is_shown(root: Client, make: Make) -> None:
    message = make("delivered", sms_id="d8e0", request_id="c0ffee", total_price=Decimal("450.5"), telco_id=3)
    html = html_of(root, message)
    for shown in ["d8e0", "c0ffee", "450.50 đ", "delivered"]:
        assert shown in html


# -- what it belongs to ------------------------------------------------------------------------------------------------


def test_the_related_object_is_named(root: Client, make: Make) -> None:
    permission = Permission.objects.earliest("pk")
    kind = ContentType.objects.get_for_model(Permission)
    html = html_of(root, make("sent", content_type=kind, object_id=str(permission.pk)))
    assert f'<div class="readonly">{permission}</div>' in html


def test_the_related_object_is_linked_where_the_admin_has_it(root: Client, make: Make, admin_user: Any) -> None:
    kind = ContentType.objects.get_for_model(type(admin_user))
    html = html_of(root, make("sent", content_type=kind, object_id=str(admin_user.pk)))
    assert f'<a href="/admin/auth/user/{admin_user.pk}/change/">admin</a>' in html


@pytest.mark.parametrize("object_id", ["9999", "no number"])
def test_a_related_object_that_is_gone_breaks_nothing(root: Client, make: Make, object_id: str) -> None:
    message = make("sent", content_type=ContentType.objects.get_for_model(Order), object_id=object_id)
    assert object_id in html_of(root, message)


def test_a_related_object_that_cannot_name_itself_breaks_nothing(
    root: Client, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = Order.objects.create(phone="1")
    monkeypatch.setattr(Order, "__str__", lambda self: 1 / 0)
    kind = ContentType.objects.get_for_model(Order)
    assert f"order {order.pk}" in html_of(root, make("sent", content_type=kind, object_id=str(order.pk)))


def test_the_link_to_a_related_object_with_a_key_of_its_own_leads_there(root: Client, make: Make) -> None:
    voucher = Voucher.objects.create(code="GIAM_40")
    html = html_of(root, make("sent", content_type=ContentType.objects.get_for_model(Voucher), object_id=voucher.pk))
    [link] = set(re.findall(r'href="(/admin/shop/voucher/[^"]+/change/)"', html))
    assert root.get(link).status_code == 200


def test_a_related_model_that_is_gone_breaks_nothing(root: Client, make: Make) -> None:
    gone = ContentType.objects.create(app_label="gone", model="thing")
    assert "thing" in html_of(root, make("sent", content_type=gone, object_id="1"))


# -- buttons -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "columns", "actions"),
    [
        ("draft", {}, {"cancel_selected"}),
        ("queued", {}, {"cancel_selected"}),
        ("sending", {}, set()),
        ("sending", {"sms_id": "1"}, {"refresh_selected"}),
        ("unknown", {}, {"send_selected"}),
        ("sent", {"sms_id": "1"}, {"send_selected", "refresh_selected"}),
        ("sent", {"sms_id": "1", "sent_to_sandbox": True}, {"send_selected"}),
        ("delivered", {"sms_id": "1"}, {"send_selected"}),
        ("undelivered", {}, {"send_selected"}),
        ("failed", {}, set()),
        ("cancelled", {}, set()),
    ],
)
def test_buttons_are_those_of_the_state(
    root: Client, make: Make, status: str, columns: dict[str, Any], actions: set[str]
) -> None:
    assert offered(root.get(page(make(status, **columns).pk))) == actions | {"redact_selected"}


def test_repeating_can_be_stopped(root: Client, make: Make, clock: Any) -> None:
    message = make("unknown", next_attempt_at=clock.now())
    response = root.get(page(message.pk))
    assert "Stop repeating" in response.content.decode()
    data = form_with(response, action="cancel_selected")["fields"]
    assert root.post(LIST, data).headers["location"] == page(message.pk)
    message.refresh_from_db()
    assert message.next_attempt_at is None


@pytest.mark.parametrize("status", ["draft", "failed", "cancelled"])
def test_who_may_send_but_not_change_has_a_button_for_it(log_in: LogIn, make: Make, status: str) -> None:
    response = log_in("view", "send").get(page(make(status).pk))
    assert "send_selected" in offered(response)
    assert not {"_save", "_send"} & buttons(response)


# -- permissions -------------------------------------------------------------------------------------------------------

ACTIONS = ["send_selected", "cancel_selected", "refresh_selected"]


@pytest.mark.parametrize("status", ["draft", "queued", "unknown", "sent"])
def test_who_may_only_look_has_no_buttons(log_in: LogIn, make: Make, status: str) -> None:
    response = log_in("view").get(page(make(status, sms_id="1").pk))
    assert response.status_code == 200
    assert offered(response) == set()
    assert not {"_save", "_send"} & buttons(response)


@pytest.mark.parametrize("permissions", [(), ("view",), ("view", "change"), ("add", "view", "change", "delete")])
@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("index", [{"index": "0"}, {}])
def test_without_the_permission_an_action_is_refused(
    log_in: LogIn, make: Make, permissions: tuple[str, ...], action: str, index: dict[str, str]
) -> None:
    message = make(sms_id="1")
    data = {"action": action, "_selected_action": message.pk, "confirmed": "9-9"} | index
    assert log_in(*permissions).post(LIST, data).status_code == 403
    message.refresh_from_db()
    assert message.status == "draft"
    assert not message.events.exists()


def test_who_may_change_but_not_send_cannot_save_and_send(log_in: LogIn, make: Make) -> None:
    client, message = log_in("view", "change"), make()
    assert "_send" not in buttons(client.get(page(message.pk)))
    assert client.post(page(message.pk), {"_send": "1"}).status_code == 403


@pytest.mark.parametrize("permissions", [("view",), ("view", "send")])
def test_who_may_only_look_cannot_change(log_in: LogIn, make: Make, permissions: tuple[str, ...]) -> None:
    message = make()
    client = log_in(*permissions)
    assert client.post(page(message.pk), {"content": "Other", "_save": "1"}).status_code == 403
    assert client.get(ADD).status_code == 403


@pytest.mark.parametrize("action", ACTIONS)
def test_get_never_acts(root: Client, make: Make, action: str) -> None:
    message = make("queued", sms_id="1")
    root.get(LIST, {"action": action, "_selected_action": message.pk, "confirmed": "9-9", "post": "yes"})
    root.get(page(message.pk), {"action": action, "_send": "1"})
    message.refresh_from_db()
    assert message.status == "queued"
    assert not message.events.exists()


def test_a_post_without_a_csrf_token_is_refused(make: Make, admin_user: Any) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(admin_user)
    message = make("queued")
    data = {"action": "cancel_selected", "_selected_action": message.pk}
    assert client.post(LIST, data).status_code == 403
    message.refresh_from_db()
    assert message.status == "queued"


def test_every_form_that_posts_carries_a_token(root: Client, make: Make) -> None:
    html = html_of(root, make("sent", sms_id="1"))
    assert html.count('method="post"') == html.count("csrfmiddlewaretoken")


# -- deleting ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "repeats", "goes"),
    [("draft", 0, 1), ("queued", 0, 0), ("sending", 0, 0), ("unknown", 1, 0), ("unknown", 0, 1), ("delivered", 0, 1)],
)
@pytest.mark.parametrize("how", ["page", "list"])
def test_what_is_on_its_way_is_not_deleted(
    root: Client, make: Make, clock: Any, status: str, repeats: int, goes: int, how: str
) -> None:
    message = make(status, next_attempt_at=clock.now() if repeats else None)
    message.events.create(kind="note")
    if how == "page":
        response = root.post(f"{LIST}{message.pk}/delete/", {"post": "yes"})
    else:
        response = root.post(LIST, {"action": "delete_selected", "_selected_action": message.pk, "post": "yes"})
    assert Message.objects.exists() is not bool(goes)
    if not goes:
        assert "cancel it first" in response.content.decode()


@pytest.mark.parametrize("how", ["page", "list"])
def test_what_is_sent_between_the_look_and_the_deletion_stays(
    root: Client, make: Make, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    overtaken, other = make(), make()
    look = MessageAdminBase.get_deleted_objects

    def overtake(*args: Any) -> Any:
        found = look(*args)
        Message.objects.filter(pk=overtaken.pk).update(status="sending")
        return found

    monkeypatch.setattr(MessageAdminBase, "get_deleted_objects", overtake)
    if how == "page":
        response = root.post(f"{LIST}{overtaken.pk}/delete/", {"post": "yes"}, follow=True)
        assert "It was not deleted" in told(response)
    else:
        response = choose(root, "delete_selected", overtaken.pk, other.pk, post="yes")
        [notice] = response.context["messages"]
        assert "Nothing was deleted" in str(notice)
    assert set(Message.objects.all()) == {overtaken, other}
    assert not LogEntry.objects.exists()


def test_deleting_needs_djangos_permission(log_in: LogIn, make: Make) -> None:
    message = make()
    client = log_in("view", "send")
    assert client.post(f"{LIST}{message.pk}/delete/", {"post": "yes"}).status_code == 403
    client.post(LIST, {"action": "delete_selected", "_selected_action": message.pk, "post": "yes"})
    assert Message.objects.exists()


def test_the_history_has_no_admin_of_its_own() -> None:
    assert not admin.site.is_registered(ViberMessageEvent)


# -- hostile texts -----------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script>\"'><img src=x>"


@pytest.fixture
def evil(make: Make, django_user_model: Any) -> Message:
    user = django_user_model.objects.create(username=EVIL[:150])
    message = make(
        "failed",
        content=EVIL,
        button_label=EVIL,
        button_url="https://shop.example.vn/",
        brandname=EVIL,
        campaign=EVIL,
        dedupe_key=EVIL,
        code_result=EVIL[:16],
        error_message=EVIL,
        sms_id=EVIL,
        request_id=EVIL,
        content_type=ContentType.objects.get_for_model(django_user_model),
        object_id=str(user.pk),
    )
    message.events.create(kind="callback", text=EVIL, code=EVIL[:16], user=user, data={EVIL: EVIL})
    return message


@pytest.mark.parametrize("status", Message.Status.values)
def test_what_others_wrote_is_escaped_everywhere(root: Client, evil: Message, status: str) -> None:
    Message.objects.filter(pk=evil.pk).update(status=status)
    question = root.post(LIST, {"action": "send_selected", "_selected_action": evil.pk})
    pages = [root.get(LIST, {"campaign": EVIL}), root.get(LIST, {"q": EVIL}), root.get(page(evil.pk)), question]
    for action in ("cancel_selected", "refresh_selected"):
        pages += [root.post(LIST, {"action": action, "_selected_action": evil.pk}, follow=True)]
    for response in pages:
        html = response.content.decode()
        assert response.status_code == 200
        assert "<script>alert" not in html
        assert "<img src=x" not in html
        assert "&lt;script&gt;" in html


@pytest.mark.parametrize("status", ["draft", "queued", "unknown", "sent", "failed"])
def test_nothing_of_ours_is_inline(root: Client, make: Make, clock: Any, status: str) -> None:
    message = make(status, sms_id="1", next_attempt_at=clock.now(), uncertain_since=clock.now())
    message.events.create(kind="callback", data={"a": "b"})
    question = root.post(LIST, {"action": "send_selected", "_selected_action": message.pk})
    for response in (root.get(LIST), root.get(ADD), root.get(page(message.pk)), question):
        html = response.content.decode()
        assert "<style" not in html
        assert " style=" not in html
        assert " onclick=" not in html
        assert "<script>" not in html
        assert "esms_viber/admin.css" in html
        assert 'src="http' not in html
        assert 'href="http' not in html
