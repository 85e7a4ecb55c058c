"""People who have opted out: the list, one, many pasted at once, and what a message's page tells of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from unittest import mock

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.models import Permission, User
from django.db import IntegrityError, connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext

from esms_viber import services
from esms_viber.admin import ViberOptOutAdmin, pages
from esms_viber.gateways.memory import outbox
from esms_viber.mailing.recipients import MOST_RECIPIENTS
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberOptOut
from esms_viber.services import opt_out, withdraw_opt_out
from tests.admin.conftest import Make
from tests.admin.pages import ADD, FORM, choose, page, told
from tests.admin.test_mailing import MANY, press, review

pytestmark = pytest.mark.django_db(transaction=True)

MESSAGES = "/admin/esms_viber/outboundvibermessage/"
LIST = "/admin/esms_viber/viberoptout/"
PASTE = f"{LIST}viber-paste/"
PHONE, STORED = "0901 888 484", "+84901888484"


def text_of(response: HttpResponse) -> str:
    return " ".join(response.content.decode().split())


def add(client: Client, phone: str = PHONE, scope: str = "promotional", note: str = "", **data: str) -> HttpResponse:
    given = {"phone": phone, "scope": scope, "note": note, "_save": "1"} | data
    return client.post(f"{LIST}add/", given, follow=True)


def paste(client: Client, pasted: str, scope: str = "promotional", note: str = "") -> HttpResponse:
    return client.post(PASTE, {"pasted": pasted, "scope": scope, "note": note}, follow=True)


def rows() -> list[tuple[Any, ...]]:
    return list(ViberOptOut.objects.order_by("phone").values_list("phone", "scope", "note"))


def shown_phones(response: HttpResponse) -> list[str]:
    return [found.phone for found in response.context["cl"].result_list]


@pytest.fixture
def staff(db: None) -> Any:
    """A client of a staff member with these permissions on opt-outs, and with those that are spelt out."""

    def staff(*permissions: str) -> Client:
        user = User.objects.create_user("-".join(permissions) or "nobody", is_staff=True)
        names = [name if "_" in name else f"{name}_viberoptout" for name in permissions]
        user.user_permissions.set(Permission.objects.filter(codename__in=names))
        assert user.user_permissions.count() == len(permissions)
        client = Client()
        client.force_login(user)
        return client

    return staff


# -- the list ----------------------------------------------------------------------------------------------------------


def test_the_list_shows_who_has_opted_out_of_what_and_who_entered_it(root: Client) -> None:
    add(root, note="by Zalo")
    shown = text_of(root.get(LIST))
    for expected in [PHONE, "promotional messages", "by Zalo", "root"]:
        assert expected in shown
    assert ViberOptOut.objects.get().user == User.objects.get(username="root")


@pytest.mark.parametrize("spelling", ["0901888484", "+84 901 888 484", "84901888484", "0901.888", "901888", "+84901"])
def test_a_phone_is_found_in_any_spelling(root: Client, spelling: str) -> None:
    opt_out(PHONE, scope="promotional"), opt_out("0912345678", scope="everything")
    assert shown_phones(root.get(LIST, {"q": spelling})) == [STORED]


@pytest.mark.parametrize("text", ["Lan", "0938", "%", "09", "0901888484 0912345678"])
def test_what_is_no_phone_or_nobodys_finds_nothing(root: Client, text: str) -> None:
    opt_out(PHONE, scope="promotional", note="Lan")
    response = root.get(LIST, {"q": text})
    assert response.status_code == 200
    assert shown_phones(response) == []


def test_the_list_is_filtered_by_scope(root: Client) -> None:
    opt_out(PHONE, scope="promotional"), opt_out("0912345678", scope="everything")
    assert shown_phones(root.get(LIST, {"scope__exact": "everything"})) == ["+84912345678"]


def test_the_list_takes_the_same_few_statements_however_long_it_is(root: Client) -> None:
    def statements() -> int:
        with CaptureQueriesContext(connection) as captured:
            assert root.get(LIST).status_code == 200
        return len(captured)

    add(root)
    statements()
    before = statements()
    user = User.objects.get(username="root")
    ViberOptOut.objects.opt_out_all([f"+849{n:08d}" for n in range(50)], scope="promotional", user=user)
    assert statements() == before <= 6


def test_no_page_counts_the_whole_table(root: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "MOST_COUNTED", 6)
    monkeypatch.setattr(ViberOptOutAdmin, "list_per_page", 3)
    ViberOptOut.objects.opt_out_all([f"+849{n:08d}" for n in range(12)], scope="promotional")
    assert "more than 6 opt-outs" in text_of(root.get(LIST))
    assert shown_phones(root.get(LIST, {"p": "4"})) == ["+84900000002", "+84900000001", "+84900000000"]


# -- one ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelling", ["0901888484", "+84 901 888 484", "84901888484", "0901.888.484"])
def test_one_is_added_in_any_spelling(root: Client, spelling: str) -> None:
    response = add(root, spelling, "everything", "by phone")
    assert rows() == [(STORED, "everything", "by phone")]
    assert told(response) == "0901 888 484 gets no messages any more."
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.object_id) == (ADDITION, str(ViberOptOut.objects.get().pk))
    assert entry.object_repr == "+8490***484 · all messages"


@pytest.mark.parametrize("text", ["", "12", "028 3822 1234", "abc", "+1 202 555 0100"])
def test_what_is_no_phone_is_refused_with_the_reason(root: Client, text: str) -> None:
    response = add(root, text)
    assert response.context["adminform"].form.errors.keys() == {"phone"}
    assert rows() == []


def test_adding_a_phone_again_widens_its_opt_out_and_says_so(root: Client) -> None:
    add(root, note="by Zalo")
    response = add(root, "+84901888484", "everything")
    assert rows() == [(STORED, "everything", "by Zalo")]
    assert "0901 888 484 had opted out of promotional messages, and gets no message at all any more." in told(response)
    assert response.redirect_chain[-1][0] == f"{LIST}{ViberOptOut.objects.get().pk}/change/"
    assert list(LogEntry.objects.order_by("pk").values_list("action_flag", flat=True)) == [ADDITION, CHANGE]


@pytest.mark.parametrize("scope", ["promotional", "everything"])
def test_adding_a_phone_that_has_opted_out_as_widely_changes_nothing_and_says_so(root: Client, scope: str) -> None:
    opt_out(PHONE, scope="everything", note="first")
    response = add(root, scope=scope, note="second")
    assert rows() == [(STORED, "everything", "first")]
    assert "0901 888 484 has opted out already, as you see here. Nothing was changed." in told(response)
    assert not LogEntry.objects.exists()


def test_a_phone_that_another_request_adds_at_the_same_moment_is_no_error(root: Client) -> None:
    real, tries = services.opt_out, []

    def overtaken(*args: Any, **kwargs: Any) -> Any:
        tries.append(args)
        if len(tries) == 1:
            # As on MariaDB, where the transaction cannot see the row that its insert has met.
            raise IntegrityError
        return real(*args, **kwargs)

    with mock.patch.object(services, "opt_out", overtaken):
        response = add(root)
    assert response.status_code == 200
    assert [phone for phone, _scope, _note in rows()] == [STORED]


def test_scope_and_note_of_one_are_changed_and_its_phone_is_not(root: Client) -> None:
    found = opt_out(PHONE, scope="everything")
    url = f"{LIST}{found.pk}/change/"
    shown = root.get(url)
    assert set(shown.context["adminform"].form.fields) == {"scope", "note"}
    assert PHONE in text_of(shown)
    root.post(url, {"phone": "0912345678", "scope": "promotional", "note": "changed her mind", "_save": "1"})
    assert rows() == [(STORED, "promotional", "changed her mind")]


def test_deleting_one_withdraws_it(root: Client, make: Make) -> None:
    found = opt_out(PHONE, scope="everything")
    root.post(f"{LIST}{found.pk}/delete/", {"post": "yes"})
    assert rows() == []
    entry = LogEntry.objects.get()
    assert (entry.action_flag, entry.object_repr) == (DELETION, "+8490***484 · all messages")
    message = make("draft")
    root.post(page(message.pk), FORM | {"kind": "text", "_send": "1"})
    assert len(outbox) == 1


def test_several_are_deleted_from_the_list(root: Client) -> None:
    pks = [opt_out(phone, scope="promotional").pk for phone in (PHONE, "0912345678")]
    choose(root, "delete_selected", *pks, url=LIST)
    assert len(rows()) == 2
    choose(root, "delete_selected", *pks, url=LIST, post="yes")
    assert rows() == []


# -- many pasted at once -----------------------------------------------------------------------------------------------


def test_many_are_pasted_in_any_spelling(root: Client) -> None:
    opt_out("0912345678", scope="promotional", note="first")
    response = paste(root, "0901 888 484, +84 912 345 678\n84938123456;0901888484", "everything", "a list of 2026")
    assert rows() == [
        (STORED, "everything", "a list of 2026"),
        ("+84912345678", "everything", "a list of 2026"),
        ("+84938123456", "everything", "a list of 2026"),
    ]
    assert told(response) == "2 phones were added. One phone had opted out already."
    assert response.redirect_chain[-1][0] == LIST
    assert {found.user for found in ViberOptOut.objects.exclude(phone="0912345678")} == {User.objects.get()}


def test_pasting_narrows_nothing_and_keeps_a_note_without_another(root: Client) -> None:
    opt_out(PHONE, scope="everything", note="first"), opt_out("0912345678", scope="promotional", note="second")
    paste(root, f"{PHONE}\n0912345678", "promotional", "third")
    assert rows() == [(STORED, "everything", "first"), ("+84912345678", "promotional", "second")]
    paste(root, f"{PHONE}\n0912345678", "everything")
    assert rows() == [(STORED, "everything", "first"), ("+84912345678", "everything", "second")]


def test_lines_that_are_no_phone_are_told_and_the_text_is_kept(root: Client) -> None:
    pasted = "0901 888 484\nLan\n028 3822 1234\n<b>12</b>"
    response = paste(root, pasted)
    shown = text_of(response)
    assert rows() == [(STORED, "promotional", "")]
    assert "One phone was added." in told(response)
    assert "3 entries cannot be used" in shown
    assert [(person.line, person.phone) for person, _why in response.context["refused"]["shown"]] == [
        (2, "Lan"), (3, "028 3822 1234"), (4, "<b>12</b>"),
    ]  # fmt: skip
    assert "This is a landline" in shown
    assert response.context["form"]["pasted"].value() == pasted
    assert "<b>12" not in shown


@pytest.mark.parametrize("pasted", ["", " \n", "—", "0901888484, 901888485"])
def test_a_text_that_cannot_be_read_stores_nothing_and_is_kept(root: Client, pasted: str) -> None:
    response = paste(root, pasted)
    assert response.context["form"].errors.keys() == {"pasted"}
    assert response.context["form"]["pasted"].value() == pasted
    assert rows() == []


def test_too_many_are_refused(root: Client) -> None:
    response = paste(root, "\n".join(f"09{n:08d}" for n in range(MOST_RECIPIENTS + 1)))
    assert "at most 10000" in str(response.context["form"].errors)
    assert rows() == []


def test_an_unknown_scope_and_too_long_a_note_are_refused(root: Client) -> None:
    response = paste(root, PHONE, "nothing", "x" * 201)
    assert response.context["form"].errors.keys() == {"scope", "note"}
    assert rows() == []


def test_a_thousand_pasted_take_few_statements(root: Client) -> None:
    pasted = "\n".join(f"09{n:08d}" for n in range(1000))
    root.get(PASTE)
    for scope, most in (("promotional", 12), ("everything", 10)):
        with CaptureQueriesContext(connection) as captured:
            response = paste(root, pasted, scope)
        ours = [query["sql"] for query in captured if "esms_viber_viberoptout" in query["sql"]]
        changing = [sql for sql in ours if not sql.startswith("SELECT") or "IN (" in sql]
        assert len(changing) <= most, changing
        assert "1,000 phones" in told(response)
    assert ViberOptOut.objects.filter(scope="everything").count() == 1000


def test_two_who_paste_the_same_list_at_once_lose_nothing() -> None:
    """The other's rows come between what this one reads and what it stores."""
    real = ViberOptOut.objects.all().bulk_create

    def overtaken(new: Iterable[ViberOptOut], **options: Any) -> Any:
        ViberOptOut(phone=PHONE, scope="promotional").save()
        return real(new, **options)

    with mock.patch.object(type(ViberOptOut.objects.all()), "bulk_create", lambda _rows, new, **o: overtaken(new, **o)):
        ViberOptOut.objects.opt_out_all([STORED], scope="everything")
    assert rows() == [(STORED, "everything", "")]


# -- permissions -------------------------------------------------------------------------------------------------------


def test_without_a_permission_there_is_nothing(staff: Any) -> None:
    client, found = staff("view_outboundvibermessage"), opt_out(PHONE, scope="promotional")
    for url in (LIST, f"{LIST}add/", PASTE, f"{LIST}{found.pk}/change/", f"{LIST}{found.pk}/delete/"):
        assert client.get(url).status_code == 403
    for data in ({"pasted": "0912345678", "scope": "promotional"}, {}):
        assert client.post(PASTE, data).status_code == 403
    assert len(rows()) == 1


def test_who_may_view_changes_nothing(staff: Any) -> None:
    client, found = staff("view"), opt_out(PHONE, scope="promotional")
    assert PASTE not in client.get(LIST).content.decode()
    assert PHONE in text_of(client.get(f"{LIST}{found.pk}/change/"))
    assert client.get(PASTE).status_code == add(client).status_code == 403
    client.post(f"{LIST}{found.pk}/change/", {"scope": "everything", "note": ""})
    client.post(f"{LIST}{found.pk}/delete/", {"post": "yes"})
    assert rows() == [(STORED, "promotional", "")]


def test_who_may_add_need_not_view(staff: Any) -> None:
    client = staff("add")
    assert paste(client, PHONE).redirect_chain[-1][0] == PASTE
    assert add(client).status_code == 200
    assert rows() == [(STORED, "promotional", "")]


def test_nobody_pastes_without_a_login_or_a_token() -> None:
    assert "/login/" in Client().post(PASTE, {"pasted": PHONE, "scope": "promotional"}).url
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("root"))
    assert client.post(PASTE, {"pasted": PHONE, "scope": "promotional"}).status_code == 403
    assert rows() == []


# -- a message to somebody who has opted out ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("draft", "This message would be cancelled instead of sent."),
        ("queued", "This message is cancelled when its turn comes."),
        ("cancelled", "This message cannot be sent, or sent again, as long as this phone has opted out."),
        ("unknown", "This message cannot be sent, or sent again, as long as this phone has opted out."),
        ("delivered", "This message cannot be sent, or sent again, as long as this phone has opted out."),
    ],
)
def test_a_messages_page_tells_that_its_phone_has_opted_out(
    root: Client, make: Make, status: str, meaning: str
) -> None:
    message = make(status)
    assert "has opted out" not in text_of(root.get(page(message.pk)))
    found = opt_out(PHONE, scope="everything", note="by <i>Zalo</i>")
    shown = text_of(root.get(page(message.pk)))
    assert "This phone has opted out of all messages (since " in shown
    assert "<q>by &lt;i&gt;Zalo&lt;/i&gt;</q>" in shown
    assert meaning in shown
    assert f'href="{LIST}{found.pk}/change/"' in shown


def test_what_a_narrower_opt_out_lets_pass_is_told_so(root: Client, make: Make) -> None:
    opt_out(PHONE, scope="promotional")
    assert "This message is transactional, and may be sent all the same." in text_of(root.get(page(make().pk)))
    advert = make(purpose="promotional")
    assert "This message would be cancelled instead of sent." in text_of(root.get(page(advert.pk)))


def test_who_may_not_look_at_opt_outs_is_told_who_can(staff: Any, make: Make) -> None:
    opt_out(PHONE, scope="everything")
    shown = text_of(staff("view_outboundvibermessage").get(page(make().pk)))
    assert "People who may change opt-outs can withdraw it." in shown
    assert LIST not in shown


def test_the_list_tells_which_messages_were_cancelled_for_an_opt_out(root: Client, make: Make) -> None:
    make("cancelled", error_message="The order was cancelled")
    opt_out(PHONE, scope="everything")
    assert "has opted out" not in text_of(root.get(MESSAGES))
    services.queue_viber_message(PHONE, "Chào")
    assert text_of(root.get(MESSAGES)).count("has opted out") == 1


def test_sending_to_who_has_opted_out_says_why_it_was_not_sent_and_what_to_do(root: Client) -> None:
    opt_out(PHONE, scope="everything")
    response = root.post(ADD, FORM | {"kind": "text", "_send": "1"}, follow=True)
    message = Message.objects.get()
    assert message.status == "cancelled"
    assert "The message was cancelled. Not sent: this phone has opted out. To send it after all" in told(response)
    assert f'href="{page(message.pk)}"' in told(response)
    remedy = "To send it after all, if this person wants that: delete the opt-out, then send this message again."
    assert remedy in text_of(root.get(page(message.pk)))
    assert outbox == []


@pytest.mark.parametrize("reason", ["", "Not sent: this phone has opted out."])
def test_sending_a_cancelled_one_again_is_told_the_same(root: Client, make: Make, reason: str) -> None:
    message = make("cancelled", error_message=reason)
    opt_out(PHONE, scope="everything")
    response = root.post(page(message.pk), FORM | {"kind": "text", "_send": "1"}, follow=True)
    message.refresh_from_db()
    assert message.status == "cancelled"
    assert "ot sent: this phone has opted out." in told(response)
    assert "elsewhere" not in told(response)
    withdraw_opt_out(PHONE)
    root.post(page(message.pk), FORM | {"kind": "text", "_send": "1"})
    assert len(outbox) == 1


def test_the_question_before_sending_tells_of_them_among_what_cannot_be_sent(root: Client, make: Make) -> None:
    opt_out(PHONE, scope="everything")
    question = text_of(choose(root, "send_selected", make("failed").pk, make("cancelled").pk))
    assert "Nothing can be sent of what you selected." in question
    assert "2 messages cannot be sent" in question
    assert question.count("This phone has opted out.") == 2


# -- writing to somebody who has opted out -----------------------------------------------------------------------------


def test_who_writes_is_warned_and_may_keep_the_draft(root: Client) -> None:
    checked = {**FORM, "kind": "text", "_check": "1"}
    assert root.post(ADD, checked).json()["opted_out"] == ""
    opt_out(PHONE, scope="everything")
    answer = root.post(ADD, checked).json()
    assert answer["opted_out"].startswith("This phone has opted out of all messages: the message would be cancelled")
    assert answer["errors"] == {}
    root.post(ADD, FORM | {"kind": "text", "_save": "1"})
    assert Message.objects.get().status == "draft"


def test_who_has_opted_out_of_promotional_messages_is_written_to_with_care(root: Client, make: Make) -> None:
    opt_out(PHONE, scope="promotional")
    checked = {**FORM, "kind": "text", "_check": "1"}
    assert "send it only what this person waits for" in root.post(ADD, checked).json()["opted_out"]
    advert, promotional = page(make(purpose="promotional").pk), checked | {"purpose": "promotional"}
    assert (
        "of promotional messages: the message would be cancelled" in root.post(advert, promotional).json()["opted_out"]
    )


def test_a_form_that_was_refused_warns_without_a_script(root: Client) -> None:
    opt_out(PHONE, scope="everything")
    shown = text_of(root.post(ADD, FORM | {"kind": "text", "content": "", "_save": "1"}))
    assert "This phone has opted out of all messages" in shown


# -- send to many ------------------------------------------------------------------------------------------------------


def test_lines_of_who_has_opted_out_are_shown_apart_and_not_stored(root: Client) -> None:
    opt_out(PHONE, scope="promotional")
    shown = review(root)
    assert "One phone has opted out" in text_of(shown)
    assert [person.phone for person, _why in shown.context["opted_out"]["shown"]] == ["0901888484"]
    assert "Yes, send one message" in text_of(shown)
    done = press(root, shown, "_confirm")
    assert "One message of the campaign “tet” was stored to be sent." in told(done)
    assert [(sent.phone, Message.objects.get().purpose) for sent in outbox] == [("+84912345678", "promotional")]


def test_transactional_ones_reach_who_has_opted_out_of_promotional_ones_only(root: Client) -> None:
    opt_out(PHONE, scope="promotional"), opt_out("0912345678", scope="everything")
    shown = review(root, purpose="transactional")
    assert "<dd>transactional</dd>" in text_of(shown)
    assert shown.context["ready"] == shown.context["opted_out"]["count"] == 1
    press(root, shown, "_confirm")
    assert [(sent.phone, Message.objects.get().purpose) for sent in outbox] == [(STORED, "transactional")]


def test_the_form_offers_both_purposes_and_begins_with_promotional(root: Client) -> None:
    form = root.get(MANY).context["form"]
    assert form["purpose"].value() == "promotional"
    assert [value for value, _label in form.fields["purpose"].choices] == ["transactional", "promotional"]
    assert review(root, purpose="urgent").context["form"].errors.keys() == {"purpose"}


def test_who_opts_out_between_review_and_store_gets_nothing_and_is_not_counted(root: Client) -> None:
    shown = review(root)
    opt_out(PHONE, scope="promotional")
    assert "One message of the campaign “tet” was stored" in told(press(root, shown, "_confirm"))
    assert len(outbox) == 1


def test_a_review_asks_once_for_each_chunk_of_phones(root: Client) -> None:
    phones = "\n".join(f"09{n:08d}" for n in range(1000))
    with CaptureQueriesContext(connection) as captured:
        review(root, phones=phones)
    assert len([query for query in captured if "esms_viber_viberoptout" in query["sql"]]) == 2
