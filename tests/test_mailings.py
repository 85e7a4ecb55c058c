"""One text for many phones: what each line becomes, and that nobody gets a campaign's message twice."""

from __future__ import annotations

import datetime as dt
import random
import threading

import pytest
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber import testing
from esms_viber.mailing.mailing import Mailing, Review, campaigns_named_alike, review, send_inline
from esms_viber.mailing.mailing import store as store_reviewed
from esms_viber.mailing.recipients import Recipients, read_csv, read_pasted
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberMessageEvent
from esms_viber.services import queue_viber_message
from esms_viber.statistics import days_until, get_overview

pytestmark = pytest.mark.django_db

LIST = "phone,tên,mã\n0901888484,Lan,A1\n0912345678,Minh,B2\n"


@pytest.fixture
def user() -> User:
    return User.objects.create_user("lan")


def store(mailing: Mailing, recipients: Recipients, *, user: User) -> int:
    return store_reviewed(mailing, review(mailing, recipients), user=user)


def texts(found: Review) -> list[str]:
    return [message.content for _person, message in found.ready]


def lines(people: list) -> list[int]:
    return [person.line for person in people]


def reviewed(text: str, rows: str = LIST, **columns: object) -> Review:
    return review(Mailing(campaign="tet", content=text, **columns), read_csv(rows.encode()))


def test_campaigns_that_differ_in_accents_or_capitals_are_two_on_every_database(user: User) -> None:
    people = read_pasted("0901888484")
    names = ["sale bò", "sale bơ", "SALE BÒ", "sale bo"]
    for name in names:
        mailing = Mailing(campaign=name, content="Hi")
        assert not review(mailing, people).known
        assert store(mailing, people, user=user) == 1
        assert len(review(mailing, people).known) == 1
    _figures, campaigns = get_overview(Message.objects.all(), days_until(timezone.now(), 7), most=9)
    assert sorted(campaigns) == sorted(names)
    assert campaigns_named_alike("sale bò") == ["SALE BÒ"]


@pytest.mark.parametrize(
    ("text", "becomes"),
    [
        ("Chào {tên}, mã {mã}.", "Chào Lan, mã A1."),
        ("{TÊN} { tên }", "Lan Lan"),
        ("{tên}{tên}", "LanLan"),
        ("{{tên}}", "{Lan}"),
        ("{Tên\u200b} {\ufefftên} {\u00a0tên } {te\u0302n}", "Lan Lan Lan Lan"),
        ("{tên *} {tên:} {Tên (bắt buộc)}", "Lan Lan Lan"),
        ("{mã\n}{ \n}{\u200b}", "A1{ \n}{\u200b}"),
        ("{} { } 100% {{ }} {% now %} %s {0}", "{} { } 100% {{ }} {% now %} %s {0}"),
        ("{tên", "{tên"),
    ],
)
def test_braces_are_filled_and_everything_else_is_text(text: str, becomes: str) -> None:
    assert texts(reviewed(text))[0] == becomes


@pytest.mark.parametrize(
    "column",
    [
        "họ tên",
        "\u200bHọ tên",
        "Họ\u00a0tên *",
        '"Họ\ntên"',
        "HỌ_TÊN:",
        "Họ tên (bắt buộc)",
        "Ho\u0323 te\u0302n",
    ],
)
@pytest.mark.parametrize("name", ["họ tên", "Họ\u00a0tên", "Họ\ntên", "họ\u2060 tên", "họ_tên", "Họ tên *"])
def test_a_name_in_braces_is_the_column_that_looks_alike(column: str, name: str) -> None:
    found = reviewed(
        f"Chào {{{name}}}",
        f"phone,{column}\n0901888484,Lan\n0912345678,\u200b\n",
        button_label=f"{{{name}}}",
        button_url=f"https://shop.example.vn/{{{name}}}",
    )
    [(_person, message)] = found.ready
    assert (message.content, message.button_label) == ("Chào Lan", "Lan")
    assert message.button_url == "https://shop.example.vn/Lan"
    [(_person, error)] = found.refused
    assert " ".join(error.messages).casefold().startswith("the column “họ")
    assert "is empty." in " ".join(error.messages)
    assert "\u2060" not in str(error)


def test_braces_around_nothing_to_be_seen_are_no_name() -> None:
    mailing = Mailing(campaign="tet", content="{ } {\u200b} {\n} {a}")
    assert mailing.placeholders == ["a"]


def test_what_a_column_holds_is_text_as_well() -> None:
    rows = "phone,a,b\n0901888484,{b} {{ x }} {% y %} <b>%(z)s,hidden\n"
    assert texts(reviewed("{a}", rows)) == ["{b} {{ x }} {% y %} <b>%(z)s"]


def test_label_and_link_are_filled_too() -> None:
    found = reviewed("Hi", button_label="Đơn {mã}", button_url="https://shop.example.vn/{mã}?n={tên}")
    [(_person, message), _other] = found.ready
    assert (message.button_label, message.button_url) == ("Đơn A1", "https://shop.example.vn/A1?n=Lan")


@pytest.mark.parametrize(
    ("link", "value", "becomes"),
    [
        ("https://shop.example.vn/?c={v}&u=1", "A&B#1 ơi", "https://shop.example.vn/?c=A%26B%231%20%C6%A1i&u=1"),
        ("https://shop.example.vn/{v}/{v}", "a/../b", "https://shop.example.vn/a%2F..%2Fb/a%2F..%2Fb"),
        ("{v}", "https://shop.example.vn/x?y=1&z=2", "https://shop.example.vn/x?y=1&z=2"),
        ("{v}/{v}", "https://shop.example.vn", "https://shop.example.vn/https%3A%2F%2Fshop.example.vn"),
    ],
)
def test_a_value_within_a_link_stays_one_value(link: str, value: str, becomes: str) -> None:
    mailing = Mailing(campaign="tet", content="x", button_label="x", button_url=link, image_url=link)
    message = mailing.message("0901888484", {"v": value})
    assert (message.button_url, message.image_url) == (becomes, becomes)


def test_a_value_cannot_lead_to_another_host() -> None:
    rows = "phone,v\n0901888484,@evil.example/\n"
    found = reviewed("x", rows, button_label="x", button_url="https://shop.example.vn{v}")
    assert (len(found.ready), len(found.refused)) == (0, 1)


def test_names_without_a_column_are_told() -> None:
    mailing = Mailing(campaign="tet", content="{tên} {ten} {Giá}", button_label="{ten}")
    assert mailing.unknown_columns(["tên", "Mã"]) == ["ten", "Giá"]


def test_each_bad_line_is_told_with_its_reason() -> None:
    rows = LIST + "12345,An,C\n0977123456,,C\n0977123457,x y,D\n"
    found = reviewed("{tên}", rows, button_label="Xem", button_url="https://shop.example.vn{tên}")
    assert len(found.ready) == 2
    assert [(person.line, error.messages) for person, error in found.refused] == [
        (4, ["Digits are missing: a mobile number has 10 of them, such as 0901888484."]),
        (5, ["The column “tên” is empty."]),
        (6, ["Give the full address of the link, beginning with https://."]),
    ]


def test_no_mark_of_another_program_becomes_a_digit_of_somebody_elses_number() -> None:
    rows = "phone,x\n38221234.0,\n901888484.0,\np:+84912345678,\n9.01888484E8,\n'0977123456,\n"
    found = reviewed("Hi", rows)
    assert [message.phone for _person, message in found.ready] == ["+84901888484", "+84912345678", "+84977123456"]
    assert [(person.line, person.phone) for person, _error in found.refused] == [(2, "38221234.0"), (5, "9.01888484E8")]


def test_a_phone_that_stands_there_twice_counts_once_in_any_spelling() -> None:
    found = review(Mailing(campaign="tet", content="x"), read_pasted("0901888484\n+84 901 888 484\n0901.888.484"))
    assert len(found.ready) == 1
    assert lines(found.repeated) == [2, 3]


@pytest.mark.parametrize("status", Message.Status.values)
def test_a_phone_of_the_campaign_is_not_written_to_again_whatever_became_of_it(status: str, user: User) -> None:
    queue_viber_message("0901888484", "x", campaign="tet")
    Message.objects.update(status=status)
    queue_viber_message("0912345678", "x", campaign="another")
    found = reviewed("Hi")
    assert lines(found.known) == [2]
    assert lines([person for person, _message in found.ready]) == [3]


def test_a_message_that_was_moved_to_another_phone_or_campaign_still_counts(user: User) -> None:
    mailing = Mailing(campaign="tet", content="Hi")
    store(mailing, read_csv(LIST.encode()), user=user)
    Message.objects.filter(phone="+84901888484").update(phone="+84977123456")
    Message.objects.filter(phone="+84912345678").update(campaign="moved")
    assert lines(review(mailing, read_csv(LIST.encode())).known) == [2, 3]
    assert lines(review(mailing, read_pasted("0977123456")).known) == [1]
    # In the campaign that it was moved to it counts, and its old key does not.
    elsewhere = Mailing(campaign="moved", content="Hi")
    assert lines(review(elsewhere, read_pasted("0901888484, 0977123456\n0912345678")).known) == [2]


def test_campaigns_that_differ_in_capitals_spaces_or_hyphens_are_named() -> None:
    for campaign in ("tet-2027", "TET 2027", "tet-2028", ""):
        queue_viber_message("0901888484", "x", campaign=campaign)
    found = campaigns_named_alike("Tet-2027")
    assert found in (["TET 2027", "tet-2027"], ["tet-2027", "TET 2027"])
    assert campaigns_named_alike("tet-2028") == []
    assert campaigns_named_alike("tet\u200b-2028") == ["tet-2028"]


def test_reviewing_stores_nothing() -> None:
    reviewed("Hi")
    assert not Message.objects.exists()


def test_what_is_stored_is_queued_with_who_asked_for_it(user: User) -> None:
    at = timezone.now() + dt.timedelta(hours=3)
    mailing = Mailing(campaign="tet", content="Chào {tên}", brandname="B", send_at=at)
    store(mailing, read_csv(LIST.encode()), user=user)
    first, second = Message.objects.order_by("pk")
    assert (first.phone, first.content, first.campaign, first.brandname) == ("+84901888484", "Chào Lan", "tet", "B")
    assert (first.status, first.next_attempt_at, first.send_at) == ("queued", at, at)
    assert second.content == "Chào Minh"
    assert list(ViberMessageEvent.objects.values_list("kind", "user")) == [("requested", user.pk)] * 2


@pytest.mark.django_db(transaction=True)
def test_the_inline_dispatcher_sends_when_the_whole_list_is_stored(user: User) -> None:
    mailing = Mailing(campaign="tet", content="Hi")
    store(mailing, read_csv(LIST.encode()), user=user)
    queue_later = Mailing(campaign="tet", content="Hi", send_at=timezone.now() + dt.timedelta(hours=1))
    store(queue_later, read_pasted("0977123456"), user=user)
    assert testing.outbox == []
    send_inline("tet")
    assert sorted(sent.phone for sent in testing.outbox) == ["+84901888484", "+84912345678"]
    send_inline("tet")
    assert len(testing.outbox) == 2


def test_the_same_list_again_stores_nothing(user: User) -> None:
    mailing = Mailing(campaign="tet", content="Hi {tên}")
    store(mailing, read_csv(LIST.encode()), user=user)
    more = read_csv((LIST + "0977123456,An,C\n").encode())
    assert lines(review(mailing, more).known) == [2, 3]
    assert store(mailing, more, user=user) == 1
    assert Message.objects.count() == 3


def test_a_rehearsal_in_the_sandbox_takes_nobodys_turn(user: User) -> None:
    people = read_csv(LIST.encode())
    rehearsal = Mailing(campaign="tet", content="Hi", sandbox=True)
    assert store(rehearsal, people, user=user) == 2
    assert store(rehearsal, people, user=user) == 0
    assert store(Mailing(campaign="tet", content="Hi"), people, user=user) == 2


def test_a_site_in_the_sandbox_only_rehearses(user: User, settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SANDBOX": True}
    store(Mailing(campaign="tet", content="Hi"), read_pasted("0901888484"), user=user)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "SANDBOX": False}
    assert store(Mailing(campaign="tet", content="Hi"), read_pasted("0901888484"), user=user) == 1


@pytest.mark.django_db(transaction=True)
def test_two_people_with_the_same_list_at_once(user: User, settings) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    phones = [f"0977{n:06d}" for n in range(700)]
    start = threading.Barrier(4)
    failures: list[Exception] = []
    new: list[int] = []
    mailing = Mailing(campaign="tet", content="Hi")

    def send(seed: int) -> None:
        people = read_pasted("\n".join(random.Random(seed).sample(phones, len(phones))))
        found = review(mailing, people)
        start.wait()
        try:
            new.append(store_reviewed(mailing, found, user=user))
        except Exception as error:  # noqa: BLE001 - told by the assertion
            failures.append(error)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=send, args=[seed]) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert Message.objects.count() == sum(new) == 700


def test_the_review_asks_the_database_three_times_for_500_phones() -> None:
    def queries(count: int) -> int:
        people = read_pasted("\n".join(f"0977{n:06d}" for n in range(count)))
        with CaptureQueriesContext(connection) as captured:
            review(Mailing(campaign="tet", content="Hi"), people)
        return len(captured)

    assert [queries(count) for count in (1, 500, 501, 1500)] == [3, 3, 6, 9]


@pytest.mark.django_db(transaction=True)
def test_every_other_dispatcher_is_given_each_part_at_once(user: User, settings) -> None:
    given: list[list[int]] = []
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": given.append}
    mailing = Mailing(campaign="tet", content="Hi")
    store(mailing, read_pasted("0901888484"), user=user)
    store(mailing, read_pasted("0901888484, 0912345678"), user=user)
    send_inline("tet")
    assert given == [[message.pk] for message in Message.objects.order_by("pk")]
