"""A site's own models derived from a message: children with tables of their own, and a proxy that shows some."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models.signals import post_save

from esms_viber import testing
from esms_viber.exceptions import MessageNotEditable
from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import (
    cancel_viber_messages,
    deliver_messages,
    queue_viber_messages,
    refresh_viber_messages,
    resend_viber_messages,
    settle_viber_messages,
)
from tests.subclasses.models import Birthday, LastReminder, Reminder, Ticket, Voucher

pytestmark = pytest.mark.django_db

MESSAGE = {"phone": "0901888484", "content": "Xin chào"}
MODELS = [OutboundViberMessage, Birthday, Reminder, LastReminder]
CHILDREN = [Reminder, LastReminder]


def handed_over(message: OutboundViberMessage, status: str = "sent") -> Any:
    """The row as a sender leaves it, loaded anew."""
    OutboundViberMessage.objects.filter(pk=message.pk).update(status=status, sms_id="abc")
    return type(message)._base_manager.get(pk=message.pk)


def stored(message: OutboundViberMessage) -> Any:
    return type(message)._base_manager.get(pk=message.pk)


# -- saving ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", CHILDREN)
@pytest.mark.parametrize("status", Status)
def test_a_childs_own_fields_are_saved_in_any_state(model: type[Reminder], status: str) -> None:
    child = handed_over(model.objects.create(**MESSAGE, appointment="Monday"), status)
    child.appointment, child.seen = "Tuesday", True
    child.save()
    assert (stored(child).appointment, stored(child).seen) == ("Tuesday", True)
    assert (stored(child).status, stored(child).sms_id) == (status, "abc")


@pytest.mark.parametrize("model", CHILDREN)
def test_own_and_inherited_fields_are_saved_together_or_not_at_all(model: type[Reminder]) -> None:
    child = model.objects.create(**MESSAGE, appointment="Monday")
    child.appointment, child.content, child.phone = "Tuesday", "Tạm biệt", "0912 345 678"
    child.save()
    found = stored(child)
    assert (found.appointment, found.content, found.phone) == ("Tuesday", "Tạm biệt", "+84912345678")
    child = handed_over(child)
    child.appointment, child.content = "Wednesday", "Xin chào"
    with pytest.raises(MessageNotEditable, match="content"):
        child.save()
    assert (stored(child).appointment, stored(child).content) == ("Tuesday", "Tạm biệt")


def test_every_table_of_a_grandchild_is_saved() -> None:
    child = handed_over(LastReminder.objects.create(**MESSAGE, appointment="Monday", signed_by="Lan"))
    child.appointment, child.signed_by = "Tuesday", "Minh"
    child.save()
    assert (stored(child).appointment, stored(child).signed_by) == ("Tuesday", "Minh")


@pytest.mark.parametrize("model", MODELS)
def test_a_stale_instance_undoes_nothing(model: Any) -> None:
    stale = model(**MESSAGE, campaign="birthday")
    stale.save()
    OutboundViberMessage.objects.filter(pk=stale.pk).update(status="delivered", total_price=300)
    stale.status, stale.total_price = "sent", 1
    stale.save()
    stale.save(force_update=True)
    assert (stored(stale).status, stored(stale).total_price) == ("delivered", 300)


def test_update_fields_are_those_of_every_table() -> None:
    child = Reminder.objects.create(**MESSAGE, appointment="Monday")
    child.appointment, child.seen, child.content, child.campaign = "Tuesday", True, "Tạm biệt", "tet"
    child.save(update_fields=["appointment", "campaign", "status"])
    found = stored(child)
    assert (found.appointment, found.seen, found.content, found.campaign) == ("Tuesday", False, "Xin chào", "tet")
    child.save()
    assert (stored(child).seen, stored(child).content) == (True, "Tạm biệt")
    child.save(update_fields=[])


def test_a_field_that_no_table_has_is_an_error_as_everywhere_in_django() -> None:
    message = OutboundViberMessage.objects.create(**MESSAGE)
    with pytest.raises(ValueError, match="bogus"):
        message.save(update_fields=["bogus"])


def test_a_message_can_become_a_child() -> None:
    parent = handed_over(OutboundViberMessage.objects.create(**MESSAGE), "queued")
    child = Reminder(outboundvibermessage_ptr=parent, appointment="Monday")
    child.__dict__.update(parent.__dict__)
    child.save()
    assert (stored(child).appointment, stored(child).status, stored(child).sms_id) == ("Monday", "queued", "abc")
    # Without the columns that Django would write over those of the message.
    blank = Reminder(outboundvibermessage_ptr=OutboundViberMessage.objects.create(**MESSAGE), appointment="Monday")
    with pytest.raises(ValidationError):
        blank.save()
    blank.phone, blank.content, blank.campaign = "0901888484", "Xin chào", "tet"
    blank.save()
    assert (stored(blank).appointment, stored(blank).campaign) == ("Monday", "tet")
    sent = handed_over(OutboundViberMessage.objects.create(**MESSAGE))
    with pytest.raises(MessageNotEditable):
        Reminder(outboundvibermessage_ptr=sent, phone="0912345678", content="Xin chào").save()
    assert OutboundViberMessage.objects.filter(pk=sent.pk, status="sent", phone="+84901888484").exists()


def test_a_refused_save_leaves_the_callers_transaction_whole() -> None:
    child = handed_over(Reminder.objects.create(**MESSAGE, appointment="Monday"))
    with transaction.atomic():
        child.content = "Tạm biệt"
        with pytest.raises(MessageNotEditable):
            child.save()
        child.refresh_from_db()
        child.appointment = "Tuesday"
        child.save()
    assert stored(child).appointment == "Tuesday"


@pytest.mark.parametrize("model", MODELS)
def test_what_was_rolled_back_is_inserted_by_the_next_save(model: Any) -> None:
    message = model(**MESSAGE, campaign="birthday")
    with transaction.atomic():
        message.save()
        transaction.set_rollback(True)
    message.save()
    assert stored(message).content == "Xin chào"


def test_a_proxy_that_shows_some_messages_saves_any() -> None:
    message = Birthday(**MESSAGE)
    message.save()
    assert not Birthday.objects.exists()
    message.content = "Tạm biệt"
    message.save()
    assert stored(message).content == "Tạm biệt"
    sent = handed_over(message)
    sent.content = "Xin chào"
    with pytest.raises(MessageNotEditable):
        sent.save()


# -- instances of every kind -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [lambda rows: rows.only("seen"), lambda rows: rows.defer("content", "appointment")])
def test_a_partly_loaded_child(load: Callable[[Any], Any]) -> None:
    pk = Reminder.objects.create(**MESSAGE, appointment="Monday").pk
    child = load(Reminder.objects).get(pk=pk)
    child.seen = True
    child.save()
    child = load(Reminder.objects).get(pk=pk)
    child.appointment, child.content = "Tuesday", "Tạm biệt"
    child.save()
    found = stored(child)
    assert (found.seen, found.appointment, found.content) == (True, "Tuesday", "Tạm biệt")
    handed_over(child)
    child = load(Reminder.objects).get(pk=pk)
    child.content = "Xin chào"
    with pytest.raises(MessageNotEditable):
        child.save()


@pytest.mark.parametrize("again", [copy.copy, copy.deepcopy, lambda child: pickle.loads(pickle.dumps(child))])  # noqa: S301 - our own
def test_a_copied_child(again: Callable[[Any], Any]) -> None:
    child = again(Reminder.objects.create(**MESSAGE, appointment="Monday"))
    child.appointment, child.content = "Tuesday", "Tạm biệt"
    child.save()
    assert (stored(child).appointment, stored(child).content) == ("Tuesday", "Tạm biệt")
    OutboundViberMessage.objects.filter(pk=child.pk).update(status="sent")
    child = again(child)
    child.seen = True
    child.save()
    assert stored(child).seen


def test_a_child_reached_from_its_message_and_refreshed() -> None:
    pk = Reminder.objects.create(**MESSAGE, appointment="Monday").pk
    child = OutboundViberMessage.objects.get(pk=pk).reminder
    Reminder.objects.filter(pk=pk).update(appointment="Tuesday", content="Tạm biệt")
    child.refresh_from_db()
    child.seen = True
    child.save()
    found = stored(child)
    assert (found.appointment, found.content, found.seen) == ("Tuesday", "Tạm biệt", True)


# -- what the services are given ---------------------------------------------------------------------------------------


def test_children_proxies_and_messages_are_queued_together() -> None:
    messages = [
        OutboundViberMessage(**MESSAGE),
        Reminder(**MESSAGE, appointment="Monday", dedupe_key="a"),
        Birthday(**MESSAGE),
        LastReminder(**MESSAGE, appointment="Tuesday", signed_by="Lan"),
        Reminder(**MESSAGE, dedupe_key="a"),
    ]
    rows = queue_viber_messages(messages)
    assert rows[:4] == messages[:4]
    assert rows[4] is messages[1]
    assert [row.pk for row in rows[:4]] == sorted(row.pk for row in rows[:4])
    assert Reminder.objects.get(dedupe_key="a").appointment == "Monday"
    assert LastReminder.objects.get().signed_by == "Lan"
    assert {row.status for row in OutboundViberMessage.objects.all()} == {"queued"}
    assert queue_viber_messages([Reminder(**MESSAGE, dedupe_key="a")])[0].pk == messages[1].pk


@pytest.mark.parametrize("model", MODELS)
def test_what_was_queued_in_a_transaction_that_was_rolled_back_can_be_queued_again(model: Any) -> None:
    message = model(**MESSAGE)
    with transaction.atomic():
        queue_viber_messages([message])
        transaction.set_rollback(True)
    other = OutboundViberMessage.objects.create(**MESSAGE, campaign="tet")
    message._state.adding = True
    queue_viber_messages([message])
    assert message.pk != other.pk
    assert stored(message).status == "queued"
    other.refresh_from_db()
    assert (other.status, other.campaign) == ("draft", "tet")


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", MODELS)
def test_every_service_takes_them(model: Any, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    draft, queued = model(**MESSAGE), model(**MESSAGE)
    draft.save()
    queue_viber_messages([queued])
    assert [row.pk for row in resend_viber_messages([draft])] == [draft.pk]
    assert [row.pk for row in cancel_viber_messages([draft])] == [draft.pk]
    assert deliver_messages([queued.pk]).sent == 1
    assert [row.pk for row in refresh_viber_messages([stored(queued)])] == [queued.pk]
    (again,) = resend_viber_messages([queued])
    assert (again.resend_of_id, again.content) == (queued.pk, "Xin chào")
    OutboundViberMessage.objects.filter(pk=draft.pk).update(status="unknown", uncertain_since=draft.created_at)
    assert [row.pk for row in settle_viber_messages([draft])] == [draft.pk]
    assert len(testing.outbox) == 1


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("model", MODELS)
def test_with_send_on_save_a_new_one_is_sent_once(model: Any, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": True}
    message = model(**MESSAGE)
    message.save()
    assert stored(message).status == "sent"
    message.save()
    kept = model(**MESSAGE)
    kept.keep_draft = True
    kept.save()
    assert stored(kept).status == "draft"
    assert len(testing.outbox) == 1


@pytest.mark.parametrize("model", MODELS)
def test_a_save_tells_the_sites_receivers_as_every_save_does(model: Any) -> None:
    seen = []

    def receiver(sender: Any, instance: Any, created: bool, **kwargs: Any) -> None:
        seen.append((sender, created))

    post_save.connect(receiver, sender=model)
    try:
        message = model(**MESSAGE)
        message.save()
        message.content = "Tạm biệt"
        message.save()
        message.save()
    finally:
        post_save.disconnect(receiver, sender=model)
    assert seen == [(model, True), (model, False), (model, False)]


# -- a primary key of its own ------------------------------------------------------------------------------------------


@pytest.fixture
def of_others() -> list[OutboundViberMessage]:
    """Messages whose ids are the next keys of a child's own, and which nobody is to touch."""
    return [OutboundViberMessage.objects.create(phone="0912345678", content=f"{number}") for number in range(4)]


@pytest.mark.parametrize("own", [{}, {"model": Voucher, "code": "TET-2027"}], ids=["number", "text"])
def test_a_key_of_its_own_is_never_taken_for_that_of_a_message(own: dict[str, Any], of_others: list[Any]) -> None:
    own = {"model": Ticket, **own}
    model = own.pop("model")
    draft = model.objects.create(**MESSAGE, **own)
    assert draft.pk != draft.id
    [queued] = resend_viber_messages([draft])
    assert (queued.id, queued.status) == (draft.id, Status.QUEUED)
    assert [row.id for row in cancel_viber_messages([draft])] == [draft.id]
    draft.refresh_from_db()
    assert draft.status == Status.CANCELLED
    assert {row.status for row in OutboundViberMessage.objects.filter(id__in=[m.id for m in of_others])} == {"draft"}


@pytest.mark.django_db(transaction=True)
def test_a_key_of_its_own_is_kept_and_its_message_sent(of_others: list[Any]) -> None:
    given: list[Any] = [Voucher(**MESSAGE, code="TET-2027"), Ticket(**MESSAGE)]
    for message in queue_viber_messages(given):
        assert stored(message).status == Status.SENT
        assert str(message).startswith(f"№ {message.id} ")
        assert testing.play_callback(message).status_code == 200
        assert stored(message).status == Status.DELIVERED
    assert given[0].pk == "TET-2027"
    assert [sent.phone for sent in testing.outbox] == ["+84901888484"] * 2


@pytest.mark.django_db(transaction=True)
def test_a_draft_with_a_key_of_its_own_is_sent_on_save(settings: Any, of_others: list[Any]) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SEND_ON_SAVE": True}
    for draft in (Ticket.objects.create(**MESSAGE), Voucher.objects.create(**MESSAGE, code="A")):
        assert stored(draft).status == Status.SENT
    assert len(testing.outbox) == 2
