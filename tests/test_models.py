"""What a message may hold, how it is stored, and what `save()` never does."""

from __future__ import annotations

import datetime as dt
import unicodedata

import pytest
from django.core import serializers
from django.core.exceptions import ValidationError
from django.core.management import call_command
from django.db import IntegrityError, connection, transaction
from django.db.models import Case, Q, Value, When
from django.forms import modelform_factory
from django.test.utils import CaptureQueriesContext
from django.utils import timezone, translation

from esms_viber.creation import validate
from esms_viber.exceptions import EsmsViberError, GatewayRefused, GatewayUnreachable, MessageNotEditable, OutcomeUnknown
from esms_viber.models import OutboundViberMessage, Status, ViberMessageEvent
from esms_viber.services import queue_viber_messages, resend_viber_messages
from tests.factories import columns_of, row, stored, unsaved
from tests.shop.models import Order

pytestmark = pytest.mark.django_db

PHONE = "+84901888484"
IMAGE = "https://shop.example.vn/sale.png"
LINK = "https://shop.example.vn/orders/17"
LABEL = "Xem đơn hàng"
EDITABLE = {Status.DRAFT, Status.FAILED, Status.CANCELLED}

TEXT_ONLY = {"content": "Xin chào"}
TEXT_BUTTON = {"content": "Xin chào", "button_label": LABEL, "button_url": LINK}
IMAGE_ONLY = {"content": "", "image_url": IMAGE}
ALL_FOUR = {**TEXT_BUTTON, "image_url": IMAGE}
KINDS = {"text": TEXT_ONLY, "text_button": TEXT_BUTTON, "image": IMAGE_ONLY, "text_image_button": ALL_FOUR}


def sentences(message: OutboundViberMessage) -> dict[str, list[str]]:
    with pytest.raises(ValidationError) as caught:
        message.full_clean()
    return caught.value.message_dict


def test_states_are_named_in_the_language_of_the_reader() -> None:
    for status in Status:
        assert OutboundViberMessage(status=status).get_status_display() == status.label
        assert OutboundViberMessage(status=str(status)).get_status_display() == status.label
    with translation.override("vi"):
        assert type(unsaved(status="sent").get_status_display()) is str
        assert unsaved(status="sent").get_status_display() == Status.SENT.label != "sent"
    assert unsaved(status="of tomorrow").get_status_display() == "of tomorrow"


# -- the four kinds ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_each_of_the_four_kinds_is_valid_stored_and_found(kind: str) -> None:
    message = unsaved(**KINDS[kind])
    message.full_clean()
    message.save()
    assert message.kind == kind
    assert [m.pk for m in OutboundViberMessage.objects.of_kind(message.kind)] == [message.pk]
    for other in set(KINDS) - {kind}:
        assert not OutboundViberMessage.objects.of_kind(OutboundViberMessage.Kind(other)).exists()


NOT_A_KIND = [
    pytest.param({"content": ""}, "content", "Write a text, or give an image.", id="nothing"),
    pytest.param({"content": " \n"}, "content", "Write a text, or give an image.", id="white space"),
    pytest.param({"button_label": LABEL}, "button_url", "Give the link, or clear the label.", id="label without link"),
    pytest.param({"button_url": LINK}, "button_label", "Give the label, or clear the link.", id="link without label"),
    pytest.param({**TEXT_BUTTON, "content": ""}, "content", "needs a text", id="button without text"),
    pytest.param({**ALL_FOUR, "content": ""}, "content", "needs a text as well", id="image and button without text"),
    pytest.param({"image_url": IMAGE}, "button_label", "drop text or image", id="text and image without button"),
    pytest.param(
        {"content": "", "image_url": IMAGE, "button_label": LABEL}, "button_url", "Give the link", id="image and label"
    ),
    pytest.param(
        {"content": "", "image_url": IMAGE, "button_url": LINK}, "button_label", "Give the label", id="image and link"
    ),
]


@pytest.mark.parametrize(("fields", "field", "advice"), NOT_A_KIND)
def test_a_mix_that_viber_does_not_have_is_refused_with_one_sentence_on_the_field(fields, field, advice) -> None:
    found = sentences(unsaved(**fields))
    assert list(found) == [field]
    (sentence,) = found[field]
    assert advice in sentence


@pytest.mark.parametrize(("fields", "field", "advice"), NOT_A_KIND)
def test_no_draft_holds_it_and_the_database_refuses_it_too(fields, field, advice) -> None:
    for store in (_save, _bulk_create):
        with pytest.raises(ValidationError) as caught:
            store(unsaved(**fields))
        assert list(caught.value.message_dict) == [field]
    message = row()
    blank = dict.fromkeys(("content", "image_url", "button_label", "button_url"), "")
    # Raw columns: nothing but the database looks at them.
    raw = {**blank, "content": "Xin chào", **fields}
    raw["content"] = raw["content"].strip()
    with pytest.raises(IntegrityError), transaction.atomic():
        OutboundViberMessage.objects.filter(pk=message.pk).update(**raw)


# -- lengths, links, phones, times -------------------------------------------------------------------------------------


@pytest.fixture
def wide_query(settings) -> None:
    """Where the characters are counted, and not how long they are on the wire."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_QUERY_LENGTH": 100_000}


@pytest.mark.parametrize(("field", "limit"), [("content", 1000), ("button_label", 30)])
def test_the_longest_text_fits_and_one_more_is_told_in_numbers(wide_query: None, field: str, limit: int) -> None:
    unsaved(**{**TEXT_BUTTON, field: "đ" * limit}).full_clean()
    found = sentences(unsaved(**{**TEXT_BUTTON, field: "đ" * (limit + 3)}))
    assert found == {
        field: [f"This has {limit + 3} characters; at most {limit} can be sent. Shorten it by 3."],
    }


@pytest.mark.parametrize(
    ("field", "setting"), [("content", "MAX_CONTENT_LENGTH"), ("button_label", "MAX_LABEL_LENGTH")]
)
def test_the_limits_are_settings(settings, field: str, setting: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, setting: 8}
    fields = {"content": "Xin chào", "button_label": "Xem", "button_url": LINK}
    unsaved(**{**fields, field: "x" * 8}).full_clean()
    (sentence,) = sentences(unsaved(**{**fields, field: "x" * 9}))[field]
    assert "at most 8 can be sent" in sentence


@pytest.mark.django_db(databases=["default", "messages"])
def test_the_limits_are_not_frozen_into_migrations(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_CONTENT_LENGTH": 77, "MAX_LABEL_LENGTH": 7}
    call_command("makemigrations", "esms_viber", check=True, dry_run=True, verbosity=0)


def test_a_line_break_counts_one_however_it_was_typed(wide_query: None) -> None:
    message = unsaved(content="\r\n" * 499 + "ab")
    message.full_clean()
    assert len(message.content) == 501


def test_what_looks_like_one_letter_counts_one(wide_query: None) -> None:
    unsaved(content=unicodedata.normalize("NFD", "ệ" * 1000)).full_clean()


def test_a_text_that_the_query_string_cannot_carry_is_refused_with_both_numbers(settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}
    validate(unsaved(content="a" * 300))
    # ệ takes nine characters in a query string: 2,700 with nothing around them.
    with pytest.raises(ValidationError) as caught:
        validate(unsaved(content="ệ" * 300))
    (sentence,) = caught.value.message_dict["content"]
    length, limit = (int(word) for word in sentence.replace(";", " ").split() if word.isdigit())
    assert limit == 2048
    assert 2700 < length < 2700 + 600
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_QUERY_LENGTH": length}
    validate(unsaved(content="ệ" * 300))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("image_url", "http://shop.example.vn/sale.png"),
        ("image_url", "ftp://shop.example.vn/sale.png"),
        ("image_url", "shop.example.vn/sale.png"),
        ("image_url", "data:image/png;base64,AAAA"),
        ("button_url", "javascript:alert(1)"),
        ("button_url", "tel:0901888484"),
        ("button_url", "/orders/17"),
    ],
)
def test_a_link_that_viber_cannot_open_is_refused_with_what_to_write(field: str, value: str) -> None:
    (sentence,) = sentences(unsaved(**{**ALL_FOUR, field: value}))[field]
    assert "beginning with https://" in sentence


def test_a_button_may_lead_to_http() -> None:
    unsaved(**{**TEXT_BUTTON, "button_url": "http://shop.example.vn/"}).full_clean()


@pytest.mark.parametrize("phone", ["", "12345", "+14155552671", "02838222222", "01234567890", "19001234", None])
def test_a_phone_that_viber_cannot_reach_is_refused_by_validation_and_by_save(phone: str | None) -> None:
    assert list(sentences(unsaved(phone=phone))) == ["phone"]
    with pytest.raises(ValidationError) as caught:
        unsaved(phone=phone).save()
    assert list(caught.value.message_dict) == ["phone"]
    assert not OutboundViberMessage.objects.exists()


@pytest.mark.parametrize("character", ["\x00", "\x07", "\x1b", "\x7f"])
def test_a_character_that_cannot_be_sent_is_refused_with_its_place(character: str) -> None:
    (sentence,) = sentences(unsaved(content=f"Xin {character}chào"))["content"]
    assert "position 5" in sentence


def test_it_cannot_expire_before_it_may_be_sent() -> None:
    now = timezone.now()
    assert list(sentences(unsaved(send_at=now, expires_at=now))) == ["expires_at"]
    unsaved(send_at=now, expires_at=now + dt.timedelta(seconds=1)).full_clean()


def test_times_that_are_no_times_are_refused_with_a_sentence() -> None:
    found = sentences(unsaved(send_at="tomorrow", expires_at=timezone.now()))
    assert list(found) == ["send_at"]


# -- normalised on the way in ------------------------------------------------------------------------------------------


def _save(message: OutboundViberMessage) -> None:
    message.save()


def _bulk_create(message: OutboundViberMessage) -> None:
    OutboundViberMessage.objects.bulk_create([message])


@pytest.mark.parametrize("store", [_save, _bulk_create])
def test_phone_and_texts_are_normalised_on_the_way_in(store) -> None:
    decomposed = unicodedata.normalize("NFD", "Đặng Thị Huệ\r\nmời bạn\rtới")
    store(unsaved(phone="0901.888 484", content=decomposed, button_label=f" {LABEL} ", button_url=f"{LINK} "))
    message = OutboundViberMessage.objects.get()
    assert message.phone == PHONE
    assert message.content == "Đặng Thị Huệ\nmời bạn\ntới"
    assert unicodedata.is_normalized("NFC", message.content)
    assert (message.button_label, message.button_url) == (LABEL, LINK)


@pytest.mark.parametrize("store", [_save, _bulk_create])
def test_a_time_without_a_zone_is_one_of_the_current_time_zone(store, recwarn) -> None:
    store(unsaved(send_at=dt.datetime(2030, 1, 1, 10, 0)))  # noqa: DTZ001 - the point
    assert OutboundViberMessage.objects.get().send_at == dt.datetime(2030, 1, 1, 3, 0, tzinfo=dt.UTC)
    assert not recwarn.list


# -- what a database would refuse --------------------------------------------------------------------------------------


def _create(message: OutboundViberMessage) -> None:
    columns = {name: message.__dict__[name] for name in message.CALLERS_COLUMNS}
    OutboundViberMessage.objects.create(**columns)


def _get_or_create(message: OutboundViberMessage) -> None:
    columns = {name: message.__dict__[name] for name in message.CALLERS_COLUMNS}
    OutboundViberMessage.objects.get_or_create(pk=0, defaults=columns)


def _queue(message: OutboundViberMessage) -> None:
    queue_viber_messages([message])


def _change(message: OutboundViberMessage) -> None:
    """Of a stored draft every column is set to what the message has."""
    draft = row()
    for name in message.CALLERS_COLUMNS:
        setattr(draft, name, message.__dict__[name])
    try:
        draft.save()
    finally:
        assert stored(draft).content == "Xin chào"
        draft.delete()


def _bulk_update(message: OutboundViberMessage) -> None:
    draft = row()
    for name in message.CALLERS_COLUMNS:
        setattr(draft, name, message.__dict__[name])
    try:
        names = [*message.CALLERS_COLUMNS[:10], "content_type", "object_id", "metadata"]
        OutboundViberMessage.objects.bulk_update([draft], names)
        OutboundViberMessage.objects.bulk_update([draft], ["send_at", "expires_at"])
    finally:
        draft.delete()


LONG_LINK = "https://shop.example.vn/" + "a" * 1000
REFUSED = [
    *[pytest.param(case.values[0], case.values[1], id=f"kind: {case.id}") for case in NOT_A_KIND],
    pytest.param({**ALL_FOUR, "image_url": LONG_LINK}, "image_url", id="long image"),
    pytest.param({**ALL_FOUR, "button_url": LONG_LINK}, "button_url", id="long link"),
    pytest.param({**ALL_FOUR, "button_label": "đ" * 256}, "button_label", id="long label"),
    pytest.param({"brandname": "đ" * 101}, "brandname", id="long brand"),
    pytest.param({"campaign": "đ" * 101}, "campaign", id="long campaign"),
    pytest.param({"dedupe_key": "đ" * 151}, "dedupe_key", id="long key"),
    pytest.param({"object_id": "đ" * 65}, "object_id", id="long id"),
    pytest.param({"content": "Xin\x00chào"}, "content", id="NUL in text"),
    pytest.param({**ALL_FOUR, "image_url": f"{IMAGE}?\x00"}, "image_url", id="NUL in image"),
    pytest.param({**ALL_FOUR, "button_url": f"{LINK}?\x00"}, "button_url", id="NUL in link"),
    pytest.param({**ALL_FOUR, "button_label": "\x00"}, "button_label", id="NUL as label"),
    pytest.param({"campaign": "tet\x00"}, "campaign", id="NUL in campaign"),
    pytest.param({"dedupe_key": "\x00"}, "dedupe_key", id="NUL as key"),
    pytest.param({"object_id": "1\x00"}, "object_id", id="NUL in id"),
    pytest.param({"content": "Xin \ud800"}, "content", id="half a letter in text"),
    pytest.param({"brandname": "\udfff"}, "brandname", id="half a letter in brand"),
    pytest.param({"phone": None}, "phone", id="no phone"),
    pytest.param({"phone": "0901\x00888484"}, "phone", id="NUL in phone"),
    pytest.param({"sandbox": None}, "sandbox", id="sandbox neither yes nor no"),
    pytest.param({"sandbox": "maybe"}, "sandbox", id="sandbox maybe"),
    pytest.param({"send_at": "tomorrow"}, "send_at", id="time in words"),
    pytest.param({"expires_at": 1893456000}, "expires_at", id="time as a number"),
    pytest.param({"send_at": ""}, "send_at", id="empty time"),
    pytest.param({"content_type_id": "order"}, "content_type", id="type in words"),
    pytest.param({"content_type_id": 2**40}, "content_type", id="type too large"),
]


@pytest.mark.parametrize("store", [_save, _bulk_create, _create, _get_or_create, _queue, _change, _bulk_update])
@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_what_a_database_would_refuse_is_told_by_field_before_it_is_asked(fields, field, store) -> None:
    with pytest.raises(ValidationError) as caught:
        store(unsaved(**fields))
    if store is _queue:
        assert caught.value.messages[0].startswith("messages[0]: ")
    else:
        assert list(caught.value.message_dict) == [field]
    # Still usable on PostgreSQL, where an error of the database would have ended it.
    assert not OutboundViberMessage.objects.exists()


@pytest.mark.parametrize(("fields", "field"), REFUSED)
def test_full_clean_and_save_say_the_same(fields, field) -> None:
    assert field in sentences(unsaved(**fields))


def test_everything_is_told_at_once() -> None:
    with pytest.raises(ValidationError) as caught:
        unsaved(phone="12", campaign="x" * 101, sandbox=None).save()
    assert set(caught.value.message_dict) == {"phone", "campaign", "sandbox"}
    assert caught.value.message_dict["campaign"] == ["Ensure this value has at most 100 characters (it has 101)."]


def test_a_draft_may_be_unfinished_in_what_only_sending_asks_for() -> None:
    """Too long a text, a link that leads nowhere: the database takes it, so a draft may wait to be corrected."""
    fields = {"content": "x" * 5000, "image_url": "later", "button_label": "x" * 255, "button_url": "later"}
    message = OutboundViberMessage.objects.create(phone=PHONE, **fields)
    assert {name: getattr(stored(message), name) for name in fields} == fields
    assert {*sentences(message)} >= {"content", "image_url", "button_label", "button_url"}


@pytest.mark.parametrize("store", [_save, _bulk_create, _create])
def test_values_of_another_type_are_stored_as_what_they_mean(store) -> None:
    given = {"content": 17, "brandname": None, "sandbox": "1", "dedupe_key": 17, "object_id": 17}
    store(unsaved(**given, phone=901888484, send_at="2030-01-01T10:00", expires_at="2030-01-01T10:00Z"))
    message = OutboundViberMessage.objects.get()
    assert (message.phone, message.content, message.brandname, message.sandbox) == (PHONE, "17", "", True)
    assert (message.dedupe_key, message.object_id) == ("17", "17")
    assert (message.send_at, message.expires_at) == (
        dt.datetime(2030, 1, 1, 3, tzinfo=dt.UTC),
        dt.datetime(2030, 1, 1, 10, tzinfo=dt.UTC),
    )


def test_a_dedupe_key_given_again_stays_djangos_error() -> None:
    """Only the database can tell, and `get_or_create()` waits for its answer; a form asks beforehand."""
    unsaved(dedupe_key="order-17").save()
    with pytest.raises(IntegrityError), transaction.atomic():
        OutboundViberMessage.objects.create(**TEXT_ONLY, phone=PHONE, dedupe_key="order-17")
    assert list(sentences(unsaved(dedupe_key="order-17"))) == ["dedupe_key"]


def test_a_column_that_is_not_changed_is_not_judged() -> None:
    """A row of an older release, or one whose phone was taken out, can be changed in its other columns."""
    message = row()
    OutboundViberMessage.objects.filter(pk=message.pk).update(phone="", brandname="x" * 90)
    message = stored(message)
    message.campaign = "tet"
    message.save()
    assert (stored(message).phone, stored(message).campaign) == ("", "tet")


# -- a phone in any spelling -------------------------------------------------------------------------------------------

SPELLINGS = ["0901888484", "0901 888 484", "+84 901.888.484", "(+84) 901-888-484", "84901888484", 901888484]


@pytest.mark.parametrize("phone", SPELLINGS)
def test_a_phone_is_found_in_any_spelling(phone) -> None:
    mine, other = row(), row()
    OutboundViberMessage.objects.filter(pk=other.pk).update(phone="0912 345 678")
    assert stored(other).phone == "+84912345678"
    rows = OutboundViberMessage.objects
    ViberMessageEvent.objects.create(message=mine, kind="note")
    for found in (
        rows.filter(phone=phone),
        rows.filter(phone__exact=phone),
        rows.filter(phone__in=[phone, "0977000111"]),
        rows.filter(Q(phone=phone) & ~Q(phone="0912345678")),
        rows.exclude(~Q(phone=phone)),
        rows.exclude(phone__in=["0912 345 678"]),
        rows.filter(phone__in=[Value("+84977000111"), phone]),
        rows.filter(phone__in=(spelling for spelling in [phone])),
        rows.annotate(is_mine=Case(When(phone=phone, then=True), default=False)).filter(is_mine=True),
        rows.filter(phone__in=rows.filter(phone=phone).values("phone")),
        rows.filter(events__in=ViberMessageEvent.objects.filter(message__phone=phone)),
    ):
        assert [message.pk for message in found] == [mine.pk]
    assert rows.get(phone=phone).pk == mine.pk
    assert rows.get_or_create(phone=phone, defaults=TEXT_ONLY) == (mine, False)
    changed, created = rows.update_or_create(phone=phone, defaults={"campaign": "tet"}, create_defaults=TEXT_ONLY)
    assert (changed.pk, created, stored(mine).campaign) == (mine.pk, False, "tet")


@pytest.mark.parametrize(
    "phone", ["", "+8490***484", "abc", "12345", "\x00", "\ud800", "0901888484\x00", None, True, 3.5]
)
def test_what_cannot_be_read_matches_nothing_and_raises_nothing(phone) -> None:
    message = row()
    rows = OutboundViberMessage.objects
    assert not rows.filter(phone=phone).exists()
    assert not rows.filter(phone__in=[phone]).exists()
    assert rows.exclude(phone=phone).get() == message
    assert rows.filter(phone__in=[phone, "0901 888 484"]).get() == message
    with pytest.raises(ValidationError):
        rows.get_or_create(phone=phone, defaults=TEXT_ONLY)


def test_other_lookups_of_a_phone_are_of_plain_text() -> None:
    row()
    rows = OutboundViberMessage.objects
    found = {
        "startswith": "+8490",
        "contains": "1888",
        "endswith": "484",
        "iexact": PHONE,
        "gt": "+8490",
        "regex": "^.84",
    }
    for lookup, value in found.items():
        assert rows.filter(**{f"phone__{lookup}": value}).exists()
    for lookup in ("startswith", "contains", "iexact", "gt", "regex"):
        assert not rows.filter(**{f"phone__{lookup}": "0901888484"}).exists() or lookup == "gt"
    assert rows.filter(phone__lt="0901888484").exists(), "as text + comes before 0"


@pytest.mark.parametrize("phone", ["", "+8490***484"])
def test_an_empty_or_masked_phone_passes_unharmed(phone: str) -> None:
    message = row()
    OutboundViberMessage.objects.filter(pk=message.pk).update(phone=phone)
    assert stored(message).phone == phone
    assert OutboundViberMessage.objects.get(phone=phone) == message


def test_an_instance_has_the_phone_as_it_is_stored() -> None:
    created = OutboundViberMessage.objects.create(phone="0901 888 484", content="Xin chào")
    (in_bulk,) = OutboundViberMessage.objects.bulk_create([unsaved(phone="0901.888.484")])
    changed = row()
    changed.phone = "0912 345 678"
    changed.save()
    assert (created.phone, in_bulk.phone, changed.phone) == (PHONE, PHONE, "+84912345678")
    changed.phone = "0901-888-484"
    OutboundViberMessage.objects.bulk_update([changed], ["phone"])
    assert changed.phone == stored(changed).phone == PHONE


def test_a_migration_knows_a_phone_as_a_key() -> None:
    _name, path, _args, kwargs = OutboundViberMessage._meta.get_field("phone").deconstruct()
    assert (path, kwargs["max_length"]) == ("esms_viber.models.fields.KeyField", 32)


# -- once for each key -------------------------------------------------------------------------------------------------


def test_several_messages_without_a_dedupe_key_do_not_clash() -> None:
    for key in (None, "", None):
        unsaved(dedupe_key=key).save()
    assert OutboundViberMessage.objects.filter(dedupe_key=None).count() == 3


def test_get_or_create_stores_a_normalised_draft_once() -> None:
    defaults = {"phone": "0901888484", "content": "Xin chào"}
    first, created = OutboundViberMessage.objects.get_or_create(dedupe_key="order-17", defaults=defaults)
    again, created_again = OutboundViberMessage.objects.get_or_create(dedupe_key="order-17", defaults=defaults)
    assert (created, created_again) == (True, False)
    assert first.pk == again.pk
    assert stored(first).phone == PHONE
    assert stored(first).status == Status.DRAFT


@pytest.mark.parametrize("status", [status for status in Status if status != Status.DRAFT])
def test_nothing_but_a_draft_is_inserted(status: Status) -> None:
    with pytest.raises(EsmsViberError, match="queue_viber_message"):
        unsaved(status=status).save()
    with pytest.raises(EsmsViberError, match="queue_viber_message"):
        OutboundViberMessage.objects.create(phone=PHONE, content="Xin chào", status=status)
    with pytest.raises(EsmsViberError, match="queue_viber_message"):
        OutboundViberMessage.objects.bulk_create([unsaved(), unsaved(status=status)])
    assert not OutboundViberMessage.objects.exists()


# -- what save() never does --------------------------------------------------------------------------------------------

APPS_COLUMNS = {
    "status": Status.SENT,
    "request_id": "r",
    "sms_id": "s",
    "code_result": "100",
    "error_message": "e",
    "send_status": 1,
    "total_price": 1,
    "telco_id": 1,
    "attempts": 9,
    "next_attempt_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "lease_until": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "claim_id": "c",
    "uncertain_since": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "queued_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "sent_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "completed_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
}


@pytest.mark.parametrize("how", [{}, {"force_update": True}, {"update_fields": list(APPS_COLUMNS)}])
@pytest.mark.parametrize("status", Status)
def test_save_never_writes_the_apps_columns(status: Status, how: dict[str, object]) -> None:
    message = row(status)
    before = columns_of(message)
    for name, value in APPS_COLUMNS.items():
        setattr(message, name, value)
    message.save(**how)
    assert columns_of(message) == before


def test_a_stale_instance_does_not_put_delivered_back() -> None:
    stale = row(Status.SENT, sms_id="abc")
    OutboundViberMessage.objects.filter(pk=stale.pk).update(status=Status.DELIVERED, total_price=300)
    stale.save()
    stale.save(update_fields=["status", "total_price"])
    assert (stored(stale).status, stored(stale).total_price) == (Status.DELIVERED, 300)


CHANGES = {
    "phone": "+84912345678",
    "content": "Tạm biệt",
    "brandname": "OTHER",
    "sandbox": True,
    "campaign": "tet-2027",
    "dedupe_key": "order-17",
    "send_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
    "expires_at": dt.datetime(2030, 1, 1, tzinfo=dt.UTC),
}


@pytest.mark.parametrize("column", CHANGES)
@pytest.mark.parametrize("status", Status)
def test_the_callers_columns_change_only_before_or_after_an_attempt(status: Status, column: str) -> None:
    message = row(status)
    setattr(message, column, CHANGES[column])
    if status in EDITABLE:
        message.save()
        assert getattr(stored(message), column) == CHANGES[column]
    else:
        with pytest.raises(MessageNotEditable, match=column):
            message.save()
        assert getattr(stored(message), column) != CHANGES[column]


def test_the_related_object_is_the_callers_too() -> None:
    order = Order.objects.create(phone=PHONE)
    draft, sent = row(Status.DRAFT), row(Status.SENT)
    draft.related_object = order
    draft.save()
    sent.related_object = order
    with pytest.raises(MessageNotEditable):
        sent.save()
    assert [m.pk for m in OutboundViberMessage.objects.for_object(order)] == [draft.pk]
    assert stored(draft).related_object == order


@pytest.mark.parametrize("status", Status)
def test_saving_without_a_change_raises_in_no_state_and_writes_nothing(status: Status) -> None:
    message = row(status)
    message.phone = "0901 888 484"
    with CaptureQueriesContext(connection) as queries:
        message.save()
    assert not [q for q in queries if q["sql"].startswith("UPDATE")]


def test_only_what_was_changed_is_written() -> None:
    mine = row()
    theirs = stored(mine)
    theirs.campaign = "tet-2027"
    theirs.save()
    mine.content = "Tạm biệt"
    mine.save()
    assert (stored(mine).campaign, stored(mine).content) == ("tet-2027", "Tạm biệt")


def test_what_was_loaded_from_a_replica_is_saved_where_messages_are_written() -> None:
    message = row()
    message._state.db = "replica"
    message.content = "Other"
    message.save()
    assert OutboundViberMessage.objects.get().content == "Other"


def test_the_state_that_counts_is_the_one_in_the_database() -> None:
    message = row(Status.DRAFT)
    OutboundViberMessage.objects.filter(pk=message.pk).update(status=Status.SENDING)
    message.content = "Tạm biệt"
    with pytest.raises(MessageNotEditable, match="sending"):
        message.save()


def test_pretending_another_state_does_not_open_it() -> None:
    message = row(Status.SENT)
    message.status = Status.DRAFT
    message.content = "Tạm biệt"
    with pytest.raises(MessageNotEditable):
        message.save()


def test_update_fields_writes_these_alone_and_the_rest_later() -> None:
    message = row()
    message.content, message.campaign = "Tạm biệt", "tet-2027"
    message.save(update_fields=["campaign"])
    assert (stored(message).content, stored(message).campaign) == ("Xin chào", "tet-2027")
    message.save()
    assert stored(message).content == "Tạm biệt"


def test_update_fields_that_were_not_changed_raise_nothing() -> None:
    message = row(Status.SENT)
    message.content = "Tạm biệt"
    message.save(update_fields=["campaign"])
    message.save(update_fields=[])
    assert stored(message).content == "Xin chào"


def test_after_a_save_the_new_values_are_the_ones_to_differ_from() -> None:
    message = row()
    message.content = "Tạm biệt"
    message.save()
    OutboundViberMessage.objects.filter(pk=message.pk).update(status=Status.SENT)
    message.save()
    message.content = "Xin chào"
    with pytest.raises(MessageNotEditable):
        message.save()


# -- partly loaded instances -------------------------------------------------------------------------------------------


def _only_phone(pk: int) -> OutboundViberMessage:
    return OutboundViberMessage.objects.only("phone").get(pk=pk)


def _without_content(pk: int) -> OutboundViberMessage:
    return OutboundViberMessage.objects.defer("content").get(pk=pk)


@pytest.mark.parametrize("load", [_only_phone, _without_content])
def test_a_change_to_a_partly_loaded_instance_is_saved(load) -> None:
    message = load(row().pk)
    message.phone = "0912 345 678"
    message.save()
    assert stored(message).phone == "+84912345678"


@pytest.mark.parametrize("load", [_only_phone, _without_content])
def test_a_change_to_a_deferred_column_is_saved(load) -> None:
    message = load(row().pk)
    message.content = "Tạm biệt"
    message.save()
    assert stored(message).content == "Tạm biệt"


@pytest.mark.parametrize("load", [_only_phone, _without_content])
def test_a_change_to_a_partly_loaded_instance_is_refused_once_sent(load) -> None:
    message = load(row(Status.SENT).pk)
    message.phone = "0912 345 678"
    with pytest.raises(MessageNotEditable, match="phone"):
        message.save()


@pytest.mark.parametrize("load", [_only_phone, _without_content])
def test_a_partly_loaded_instance_without_a_change_raises_nothing(load) -> None:
    message = load(row(Status.DELIVERED).pk)
    message.save()
    assert stored(message).status == Status.DELIVERED


def test_refreshing_one_column_forgets_no_change_to_another() -> None:
    message = row()
    message.content = "Tạm biệt"
    message.refresh_from_db(fields=["status"])
    message.save()
    assert stored(message).content == "Tạm biệt"


def test_refreshing_one_column_opens_no_way_around_the_refusal() -> None:
    message = row(Status.SENT)
    message.content = "Tạm biệt"
    message.refresh_from_db(fields=["status"])
    with pytest.raises(MessageNotEditable):
        message.save()


def test_refreshing_all_takes_the_row_as_it_is() -> None:
    message = row()
    OutboundViberMessage.objects.filter(pk=message.pk).update(content="Tạm biệt", status=Status.SENT)
    message.refresh_from_db()
    message.save()
    assert (message.content, stored(message).content) == ("Tạm biệt", "Tạm biệt")


# -- instances that the app handed out ---------------------------------------------------------------------------------


def test_the_instance_that_bulk_create_stored_can_be_saved_when_it_has_been_sent() -> None:
    (message,) = OutboundViberMessage.objects.bulk_create([unsaved()])
    if message.pk is None:
        pytest.skip("this database does not tell the keys of bulk inserts")
    OutboundViberMessage.objects.filter(pk=message.pk).update(status=Status.SENT)
    message.save()
    assert stored(message).status == Status.SENT


def test_the_instances_that_the_services_return_can_be_saved() -> None:
    soon = timezone.now() + dt.timedelta(hours=1)
    draft = row(Status.DRAFT)
    failed = row(Status.FAILED, send_at=timezone.now(), expires_at=soon)
    sent = row(Status.SENT)
    returned = resend_viber_messages([draft, failed, sent]) + queue_viber_messages([unsaved()])
    for message in returned:
        message.save()
    assert [stored(message).status for message in returned] == [Status.QUEUED] * 4


def test_a_row_that_came_in_unnormalised_can_be_saved_once_sent() -> None:
    """A fixture, or a row of an older release, may hold another spelling."""
    message = row(Status.SENT)
    OutboundViberMessage.objects.filter(pk=message.pk).update(phone="0901888484", content="một\r\nhai")
    message = stored(message)
    message.save()
    assert stored(message).status == Status.SENT


def test_a_deserialised_row_keeps_its_state() -> None:
    message = row(Status.DELIVERED, sms_id="abc")
    dump = serializers.serialize("json", [message])
    message.delete()
    for found in serializers.deserialize("json", dump):
        found.save()
    restored = OutboundViberMessage.objects.get()
    assert (restored.status, restored.sms_id) == (Status.DELIVERED, "abc")


# -- what a site asks of a row -----------------------------------------------------------------------------------------

RAISED = [
    pytest.param({"status": Status.DRAFT}, None, id="draft"),
    pytest.param({"status": Status.QUEUED}, None, id="fresh queued"),
    pytest.param(
        {"status": Status.QUEUED, "attempts": 1, "error_message": "Connection refused"},
        GatewayUnreachable,
        id="queued after no connection",
    ),
    *(
        pytest.param({"status": Status.QUEUED, "attempts": 1, "code_result": code}, GatewayRefused, id=f"queued {code}")
        for code in ("101", "102", "103", "140")
    ),
    pytest.param({"status": Status.SENDING}, OutcomeUnknown, id="sending"),
    pytest.param({"status": Status.UNKNOWN, "attempts": 1}, OutcomeUnknown, id="unknown"),
    pytest.param({"status": Status.SENT, "code_result": "100", "attempts": 2}, None, id="sent"),
    pytest.param({"status": Status.DELIVERED, "code_result": "100"}, None, id="delivered"),
    pytest.param({"status": Status.UNDELIVERED, "code_result": "100"}, GatewayRefused, id="undelivered"),
    pytest.param({"status": Status.FAILED, "code_result": "104"}, GatewayRefused, id="failed"),
    pytest.param({"status": Status.FAILED, "error_message": "It expired."}, GatewayRefused, id="expired"),
    pytest.param({"status": Status.CANCELLED, "error_message": "opted out"}, GatewayRefused, id="cancelled"),
]


@pytest.mark.parametrize(("columns", "error"), RAISED)
def test_raise_for_status(columns: dict[str, object], error: type[EsmsViberError] | None) -> None:
    message = row(**columns)
    if error is None:
        message.raise_for_status()
        return
    with pytest.raises(EsmsViberError) as caught:
        message.raise_for_status()
    assert type(caught.value) is error
    if isinstance(caught.value, GatewayRefused):
        assert caught.value.code == columns.get("code_result", "")
        assert caught.value.remedy
        assert caught.value.remedy in str(caught.value)


def test_every_state_is_in_the_table_of_raise_for_status() -> None:
    assert {case.values[0]["status"] for case in RAISED} == set(Status)


def test_the_error_of_a_refusal_says_what_to_do() -> None:
    with pytest.raises(GatewayRefused, match="Top up the account") as caught:
        row(Status.QUEUED, code_result="103", attempts=1).raise_for_status()
    assert caught.value.code == "103"
    with pytest.raises(GatewayRefused, match="opted out"):
        row(Status.CANCELLED, error_message="opted out").raise_for_status()


@pytest.mark.parametrize("status", Status)
def test_the_queryset_has_a_method_for_each_state(status: Status) -> None:
    rows = {state: row(state) for state in Status}
    assert [m.pk for m in getattr(OutboundViberMessage.objects, status.value)()] == [rows[status].pk]
    assert rows[status].is_editable is (status in EDITABLE)


def test_due_is_what_waits_and_whose_time_has_come_soonest_first() -> None:
    now = timezone.now()
    minute = dt.timedelta(minutes=1)
    late = row(Status.QUEUED, next_attempt_at=now - minute)
    early = row(Status.UNKNOWN, next_attempt_at=now - 2 * minute)
    row(Status.QUEUED, next_attempt_at=now + minute)
    row(Status.UNKNOWN, next_attempt_at=None)
    row(Status.SENT, next_attempt_at=now - minute)
    row(Status.DRAFT, next_attempt_at=now - minute)
    assert [m.pk for m in OutboundViberMessage.objects.due()] == [early.pk, late.pk]
    assert late.is_due(now)
    assert not row(Status.SENT, next_attempt_at=now - minute).is_due(now)


def test_abandoned_is_what_a_sender_stopped_holding() -> None:
    now = timezone.now()
    gone = row(Status.SENDING, lease_until=now - dt.timedelta(seconds=1))
    row(Status.SENDING, lease_until=now + dt.timedelta(minutes=1))
    row(Status.SENT, lease_until=now - dt.timedelta(seconds=1))
    assert [m.pk for m in OutboundViberMessage.objects.abandoned()] == [gone.pk]


def test_str_tells_messages_apart_and_does_not_show_the_whole_phone() -> None:
    message = row()
    assert str(message) == f"№ {message.pk} · +8490***484 · draft"
    assert str(unsaved(phone=PHONE)) == "+8490***484 · draft"


def test_events_go_with_their_message_and_a_resend_stays() -> None:
    first = row(Status.SENT)
    (again,) = resend_viber_messages([first])
    ViberMessageEvent.objects.create(message=first, kind=ViberMessageEvent.Kind.NOTE)
    first.delete()
    assert stored(again).resend_of_id is None
    assert {event.message_id for event in ViberMessageEvent.objects.all()} == {again.pk}


@pytest.mark.django_db
@pytest.mark.parametrize("fields", [["phone"], ["phone", "button_label"], ["phone", "image_url", "content"]], ids=str)
def test_a_form_without_the_field_that_is_wrong_tells_it_all_the_same(fields):
    """Such as a site's own form for a text alone."""
    form = modelform_factory(OutboundViberMessage, fields=fields)(
        {"phone": PHONE, "button_label": "Open", "image_url": "https://shop.example.vn/a.png", "content": "Hi"}
    )
    assert not form.is_valid()
    assert form.non_field_errors()


def test_the_defaults_of_a_message_are_valid() -> None:
    """All but the phone's: the check of new messages leaves them out."""
    for field in OutboundViberMessage._meta.fields:
        default = field.get_default()
        if field.name != "phone" and not (field.blank and default in field.empty_values):
            field.clean(default, None)
