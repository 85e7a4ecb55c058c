"""Templates: what may be stored, and how code makes messages of them."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction

from esms_viber.models import OutboundViberMessage, ViberTemplate
from esms_viber.services import aqueue_viber_message, opt_out, queue_viber_message, send_viber_message
from esms_viber.testing import outbox
from tests.factories import PHONE, stored

pytestmark = pytest.mark.django_db
committing = pytest.mark.django_db(transaction=True)

LINK = "https://shop.example.vn/orders/{order}"


def template(**fields: Any) -> ViberTemplate:
    made = ViberTemplate(**{"name": "order-paid", "content": "Chào {tên}, đơn {order}"} | fields)
    made.full_clean()
    made.save()
    return made


def errors_of(**fields: Any) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        ViberTemplate(**{"name": "order-paid", "content": "Hi"} | fields).full_clean()
    return caught.value.message_dict


# -- what may be stored ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["", "order paid", "đơn", "a/b", "a\x00b", "x" * 101])
def test_the_name_is_a_slug(name: str) -> None:
    assert "name" in errors_of(name=name)
    with pytest.raises(ValidationError) as caught:
        ViberTemplate(name=name, content="Hi").save()
    assert "name" in caught.value.message_dict


def test_a_name_is_given_once() -> None:
    template()
    assert errors_of() == {"name": ["There is a template of this name already."]}
    with pytest.raises(IntegrityError), transaction.atomic():
        ViberTemplate.objects.create(name="order-paid", content="Hi")


def test_names_differ_by_their_capitals_on_every_database() -> None:
    template()
    other = template(name="Order-Paid", content="Other")
    assert ViberTemplate.objects.named("Order-Paid") == other


@pytest.mark.parametrize("columns", [None, ["name"]])
def test_a_name_that_is_stored_stays(columns: list[str] | None) -> None:
    made = template()
    made.name, made.content = "order-done", "Other"
    with pytest.raises(ValidationError, match="The name of the template “order-paid” cannot be changed"):
        made.save(update_fields=columns)
    made.refresh_from_db()
    assert (made.name, made.content) == ("order-paid", "Chào {tên}, đơn {order}")


def test_an_instance_made_by_hand_does_not_rename_it_either() -> None:
    made = template()
    with pytest.raises(ValidationError, match="cannot be changed"):
        ViberTemplate(pk=made.pk, name="other", content="Hi").save()


def test_texts_are_normalised_as_those_of_a_message() -> None:
    made = ViberTemplate(
        name="a",
        title=" Order\r ",
        content=unicodedata.normalize("NFD", "Đã nhận\r\nđơn"),
        button_label="  Xem ",
        button_url=f" {LINK}\n",
    )
    made.save()
    made.refresh_from_db()
    assert (made.title, made.content) == ("Order", "Đã nhận\nđơn")
    assert (made.button_label, made.button_url) == ("Xem", LINK)


@pytest.mark.parametrize(
    ("parts", "missing"),
    [
        ({"content": ""}, "content"),
        ({"content": "Hi", "button_label": "See"}, "button_url"),
        ({"content": "Hi", "button_url": LINK}, "button_label"),
        ({"content": "", "button_label": "See", "button_url": LINK}, "content"),
        ({"content": "Hi", "image_url": "https://shop.example.vn/a.png"}, "button_label"),
    ],
)
def test_a_wrong_mix_is_told_on_the_part_that_is_missing_as_with_a_message(parts: dict[str, str], missing: str) -> None:
    with pytest.raises(ValidationError) as of_message:
        OutboundViberMessage(phone=PHONE, **parts).full_clean()
    assert errors_of(**parts) == of_message.value.message_dict
    with pytest.raises(ValidationError) as caught:
        ViberTemplate(name="a", **parts).save()
    assert caught.value.message_dict == errors_of(**parts)
    assert set(errors_of(**parts)) == {missing}


@pytest.mark.parametrize(
    "link",
    [
        LINK,
        "{link}",
        "{link}?from=viber",
        "https://{shop}.example.vn/",
        "https://{host}/x",
        "https://a.vn/?q={a}&b={a}",
    ],
)
def test_a_link_with_names_in_braces_is_good_if_values_can_make_it_one(link: str) -> None:
    assert template(button_label="See", button_url=link).button_url == link


@pytest.mark.parametrize("link", ["shop.example.vn/{order}", "ftp://a.vn/{x}", "https://a b.vn/{x}", "see {link}"])
def test_a_link_that_no_value_can_mend_is_refused(link: str) -> None:
    assert set(errors_of(button_label="See", button_url=link)) == {"button_url"}


def test_an_image_has_to_be_https() -> None:
    image = {"content": "", "image_url": "http://shop.example.vn/{code}.png"}
    assert set(errors_of(**image)) == {"image_url"}
    assert template(**image | {"image_url": "https://shop.example.vn/{code}.png"}).kind == "image"


def test_lengths_count_without_the_names_in_braces(settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_CONTENT_LENGTH": 10, "MAX_LABEL_LENGTH": 5}
    with_button = {"button_url": "https://a.vn"}
    assert template(content="0123456789{a long name}", button_label="01{another}234", **with_button).pk
    errors = errors_of(name="b", content="01234567890{a}", button_label="012345", **with_button)
    assert "11 characters" in errors["content"][0]
    assert "6 characters" in errors["button_label"][0]


def test_a_character_that_cannot_be_sent_is_refused() -> None:
    assert "position 4" in errors_of(content="Hi \x01 {x}")["content"][0]


# -- a message of it ---------------------------------------------------------------------------------------------------


@pytest.fixture(params=[queue_viber_message, send_viber_message])
def verb(request: Any, queue_only: None) -> Any:
    return request.param


def test_a_message_is_made_of_a_template_and_its_values(verb: Any) -> None:
    template(
        content="Chào {tên}, {Tên}! {n} đ { } {} } {",
        button_label="Đơn {order}",
        button_url="{link}?to={order}&by={tên}",
        purpose="promotional",
    )
    context = {"tên": "Lan & Co", "n": 260_000, "order": "17/a", "link": "https://a.vn/x", "unused": 1}
    message = verb(PHONE, template="order-paid", context=context)
    row = stored(message)
    assert row.content == "Chào Lan & Co, Lan & Co! 260000 đ { } {} } {"
    assert row.button_label == "Đơn 17/a"
    assert row.button_url == "https://a.vn/x?to=17%2Fa&by=Lan%20%26%20Co"
    assert row.purpose == "promotional"


def test_a_value_is_not_filled_in_itself(verb: Any) -> None:
    template()
    message = verb(PHONE, template="order-paid", context={"tên": "{order}", "order": "{x}"})
    assert message.content == "Chào {order}, đơn {x}"


@pytest.mark.parametrize("context", [None, {}, {"other": 1}, {"tên": None, "order": None}])
def test_every_name_without_a_value_is_named(verb: Any, context: dict[str, Any] | None) -> None:
    template()
    with pytest.raises(ValidationError) as caught:
        verb(PHONE, template="order-paid", context=context)
    assert caught.value.message_dict == {"context": ["The template “order-paid” has no value for: tên, order."]}
    assert not OutboundViberMessage.objects.exists()


def test_an_empty_value_is_a_value(verb: Any) -> None:
    template()
    assert verb(PHONE, template="order-paid", context={"tên": "", "order": 0}).content == "Chào , đơn 0"


@pytest.mark.parametrize("name", ["order-gone", "", "a\x00b", "Order-Paid"])
def test_a_template_that_is_not_there_is_named(verb: Any, name: str) -> None:
    template()
    with pytest.raises(ValidationError) as caught:
        verb(PHONE, template=name)
    assert caught.value.message_dict == {"template": [f"No template is called “{name}”."]}


def test_other_arguments_override_it(verb: Any) -> None:
    template(content="Hi", purpose="promotional")
    message = verb(PHONE, template="order-paid", purpose="transactional", campaign="tet", brandname="Other")
    assert (message.purpose, message.campaign, message.brandname) == ("transactional", "tet", "Other")


@pytest.mark.parametrize("name", ["content", "image_url", "button_label", "button_url"])
def test_texts_of_ones_own_beside_a_template_are_a_mistake(verb: Any, name: str) -> None:
    template(content="Hi")
    with pytest.raises(TypeError, match=f"leave out {name}"):
        verb(PHONE, template="order-paid", **{name: "Hi"})


def test_values_without_a_template_are_a_mistake(verb: Any) -> None:
    with pytest.raises(TypeError, match="context is for a template"):
        verb(PHONE, "Hi", context={})


def test_what_the_values_make_of_it_is_checked_like_any_message(verb: Any) -> None:
    template(button_label="{label}", button_url="{link}")
    values = {"tên": "Lan", "order": 1, "label": "See", "link": "https://a.vn"}
    for name, value, field in [
        ("tên", "x" * 1000, "content"),
        ("label", "x" * 31, "button_label"),
        ("label", " ", "button_label"),
        ("link", "javascript:alert(1)", "button_url"),
    ]:
        with pytest.raises(ValidationError) as caught:
            verb(PHONE, template="order-paid", context={**values, name: value})
        assert set(caught.value.message_dict) == {field}
    assert not OutboundViberMessage.objects.exists()


def test_a_changed_or_deleted_template_changes_no_message_that_was_queued(queue_only: None) -> None:
    made = template()
    message = queue_viber_message(PHONE, template="order-paid", context={"tên": "Lan", "order": 17})
    made.content = "Other"
    made.save()
    assert stored(message).content == "Chào Lan, đơn 17"
    made.delete()
    assert (stored(message).content, stored(message).status) == ("Chào Lan, đơn 17", "queued")


def test_an_opt_out_is_asked_for_the_purpose_of_the_template(verb: Any) -> None:
    opt_out(PHONE, scope="promotional")
    template(content="Hi", purpose="promotional")
    assert verb(PHONE, template="order-paid").status == "cancelled"


@committing
def test_a_transaction_that_begins_with_a_template_waits_its_turn(queue_only: None, another_writer: Any) -> None:
    """On SQLite only a transaction that begins with a write can wait."""
    template(content="Hi")
    with another_writer(), transaction.atomic():
        message = queue_viber_message(PHONE, template="order-paid")
    assert stored(message).content == "Hi"


@committing
def test_it_leaves_as_it_is_stored() -> None:
    template()
    send_viber_message(PHONE, template="order-paid", context={"tên": "Lan", "order": 17})
    assert [sent.content for sent in outbox] == ["Chào Lan, đơn 17"]


@committing
def test_from_async_code(queue_only: None) -> None:
    from asgiref.sync import async_to_sync

    template(content="Hi")
    message = async_to_sync(aqueue_viber_message)(PHONE, template="order-paid")
    assert stored(message).content == "Hi"


def test_a_value_that_cannot_be_sent_within_a_link_is_refused() -> None:
    template = ViberTemplate(name="a", content="Hi", button_label="Go", button_url="https://shop.example.vn/{order}")
    with pytest.raises(ValidationError) as refused:
        template.filled({"order": "1\ud800"})
    assert refused.value.message_dict == {"context": ["A value has a character that cannot be sent."]}


def test_a_value_under_a_name_that_is_no_text_is_missing() -> None:
    with pytest.raises(ValidationError, match="has no value for: 1x"):
        ViberTemplate(name="a", content="Hi {1x}").filled({1: "Lan", None: "x"})
    assert ViberTemplate(name="a", content="Hi {1}").filled({1: "Lan"})["content"] == "Hi Lan"


@pytest.mark.parametrize("title", ["a\0", "a\ud800"])
def test_a_title_that_cannot_be_stored_is_refused(title: str) -> None:
    with pytest.raises(ValidationError) as refused:
        ViberTemplate(name="a", content="Hi", title=title).save()
    assert list(refused.value.message_dict) == ["title"]
