"""Pausing, resuming and stopping by people: what the pages show, do and log, and large selections in slices."""

from __future__ import annotations

import copy
import datetime as dt
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.admin.models import ADDITION, DELETION, LogEntry
from django.contrib.auth.models import User
from django.db import connection, connections
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber import services
from esms_viber.admin import slices
from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import ViberPause
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import ADD, FORM, LIST, choose, form_with, forms, offered, page, told
from tests.admin.test_mailing import FORM as MAILING
from tests.factories import queue, unsaved

pytestmark = pytest.mark.django_db(transaction=True)

OVERVIEW, CAMPAIGN = f"{LIST}viber-overview/", f"{LIST}viber-campaign/"
PAUSE, RESUME = f"{LIST}viber-pause/", f"{LIST}viber-resume/"
TET = f"{CAMPAIGN}?name=tet"


@pytest.fixture
def night(settings: Any, clock: Any) -> dt.datetime:
    """Late in the evening in Vietnam, outside the hours of promotional messages."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "PROMOTIONAL_HOURS": ("08:00", "21:00")}
    clock.set(dt.datetime(2027, 1, 5, 16, 0, tzinfo=dt.UTC))
    return clock.now()


def text_of(response: Any) -> str:
    return " ".join(response.content.decode().split())


def form_to(response: Any, action: str) -> dict[str, Any]:
    [found] = [form for form in forms(response) if form["attrs"].get("action") == action]
    return found


def does(response: Any) -> dict[str, dict[str, Any]]:
    """The buttons of a campaign's page, by name."""
    return {form["attrs"]["data-does"]: form for form in forms(response) if "data-does" in form["attrs"]}


def press(client: Client, form: dict[str, Any], **more: str) -> Any:
    return client.post(form["attrs"]["action"], {**form["fields"], **more}, follow=True)


def logged() -> list[tuple[int, str, str, str]]:
    entries = LogEntry.objects.order_by("pk")
    return [(entry.action_flag, str(entry.user), entry.object_repr, entry.change_message) for entry in entries]


# -- pausing and resuming ----------------------------------------------------------------------------------------------


def test_everything_is_paused_and_resumed_on_the_overview(root: Client, queue_only: None) -> None:
    response = press(root, form_to(root.get(OVERVIEW), PAUSE), note="Wrong price")
    assert response.redirect_chain == [(OVERVIEW, 302)]
    assert "Sending is paused." in told(response)
    paused = ViberPause.objects.get()
    assert (paused.campaign, paused.note, str(paused.user)) == ("", "Wrong price", "root")
    text = text_of(response)
    assert "Paused since" in text
    assert "by root." in text
    assert "<q>Wrong price</q>" in text
    assert "Sending is paused: nothing goes out until somebody resumes it." in text
    queue(3)
    services.deliver_due_messages()
    assert outbox == []
    response = press(root, form_to(response, RESUME))
    assert "Sending goes on." in told(response)
    assert "3 messages are due, and are sent in the background." in told(response)
    assert not ViberPause.objects.exists()
    assert logged() == [(ADDITION, "root", "everything", "Wrong price"), (DELETION, "root", "everything", "")]


def test_a_campaign_is_paused_on_its_page_and_the_banner_leads_there(root: Client) -> None:
    response = press(root, form_to(root.get(TET), PAUSE))
    assert response.redirect_chain == [(TET, 302)]
    assert "The campaign is paused." in told(response)
    assert ViberPause.objects.get().campaign == "tet"
    for url in (LIST, OVERVIEW, ADD, f"{LIST}viber-send-to-many/"):
        assert f'One campaign is paused: <a href="{TET}">tet</a>' in text_of(root.get(url))
    assert "The campaign goes on." in told(press(root, form_to(response, RESUME)))
    assert [entry[:3] for entry in logged()] == [(ADDITION, "root", "tet"), (DELETION, "root", "tet")]


def test_the_banner_leads_from_everywhere_to_where_sending_is_resumed(root: Client) -> None:
    services.pause_sending()
    for url in (LIST, ADD):
        assert f'<a href="{OVERVIEW}#viber-pause">' in root.get(url).content.decode()


def test_a_name_that_means_something_in_an_address_leads_to_its_campaign(root: Client) -> None:
    services.pause_sending("a&b/c?d #é")
    services.pause_sending("<b>")
    html = root.get(LIST).content.decode()
    assert f'href="{CAMPAIGN}?name=a%26b%2Fc%3Fd%20%23%C3%A9"' in html
    assert "<b>" not in html


def test_of_many_paused_campaigns_the_first_are_named(root: Client) -> None:
    for number in range(7):
        services.pause_sending(f"c{number}")
    text = text_of(root.get(LIST))
    assert "7 campaigns are paused:" in text
    assert ">c4</a>, …" in text
    assert ">c5<" not in text


def test_a_second_click_changes_nothing_and_is_told(root: Client) -> None:
    form = form_to(root.get(TET), PAUSE)
    press(root, form, note="first")
    assert "It was paused already. Paused since" in told(press(root, form, note="second"))
    assert ViberPause.objects.get().note == "first"
    form = form_to(root.get(TET), RESUME)
    press(root, form)
    assert "It was not paused any more." in told(press(root, form))
    assert len(logged()) == 2


def test_a_note_that_is_too_long_pauses_nothing(root: Client) -> None:
    assert "It could not be paused." in told(press(root, form_to(root.get(TET), PAUSE), note="x" * 201))
    assert not ViberPause.objects.exists()


@pytest.mark.parametrize("url", [PAUSE, RESUME])
def test_only_a_post_of_somebody_who_may_send_counts(log_in: LogIn, url: str) -> None:
    services.pause_sending("tet")
    assert log_in("view", "send").get(url).status_code == 302
    assert log_in("view", "change").post(url, {"campaign": "tet"}).status_code == 403
    strict = Client(enforce_csrf_checks=True)
    strict.force_login(User.objects.get(username="view-send"))
    assert strict.post(url, {"campaign": "tet"}).status_code == 403
    assert [pause.campaign for pause in ViberPause.objects.all()] == ["tet"]


def test_who_may_only_look_sees_the_pause_and_no_button(log_in: LogIn) -> None:
    services.pause_sending("tet", note="Tomorrow")
    response = log_in("view").get(TET)
    assert "<q>Tomorrow</q>" in text_of(response)
    assert {form["attrs"].get("action") for form in forms(response)}.isdisjoint({PAUSE, RESUME})


def test_a_pause_whose_user_is_gone_is_shown(root: Client) -> None:
    gone = User.objects.create_user("gone")
    services.pause_sending("tet", user=gone)
    gone.delete()
    assert "Paused since" in text_of(root.get(TET))
    assert "None" not in form_to(root.get(TET), RESUME)["attrs"]


def test_resuming_sends_what_one_request_may_and_tells_of_the_rest(root: Client, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "INLINE_LIMIT": 2}
    services.pause_sending("tet")
    services.queue_viber_messages([unsaved(campaign="tet", content=f"{n}") for n in range(5)])
    services.queue_viber_message("0901888484", "Another")
    assert len(outbox) == 1
    response = press(root, form_to(root.get(TET), RESUME))
    assert len(outbox) == 3
    assert "eSMS took 2 messages." in told(response)
    assert "3 more are due. They go out when waiting messages are sent next." in told(response)


def test_a_resumed_campaign_waits_where_everything_is_paused(root: Client) -> None:
    services.pause_sending("tet")
    services.pause_sending()
    services.queue_viber_message("0901888484", "Hello", campaign="tet")
    assert "sending as a whole is paused" in told(press(root, form_to(root.get(TET), RESUME)))
    assert outbox == []


# -- what waits says so ------------------------------------------------------------------------------------------------


def test_a_message_that_waits_for_a_pause_says_so_in_the_list_and_on_its_page(root: Client) -> None:
    services.pause_sending("tet")
    message = services.queue_viber_message("0901888484", "Hello", campaign="tet")
    other = services.queue_viber_message("0901888484", "Hello")
    assert '<span class="viber-remark">campaign is paused</span>' in root.get(LIST).content.decode()
    text = text_of(root.get(page(message.pk)))
    assert "Not sent yet: its campaign is paused." in text
    assert "Somebody has to resume the campaign on its page." in text
    assert "paused." not in text_of(root.get(page(other.pk))).split("viber-writing")[1]
    services.pause_sending()
    assert '<span class="viber-remark">sending is paused</span>' in root.get(LIST).content.decode()
    assert "Somebody has to resume sending on the overview." in text_of(root.get(page(message.pk)))


def test_a_reason_that_was_stored_is_not_told_once_it_is_over(root: Client, queue_only: None) -> None:
    services.pause_sending()
    message = services.send_viber_message("0901888484", "Hello")
    assert message.error_message == "Not sent yet: sending is paused."
    services.resume_sending()
    assert "Not sent yet" not in root.get(page(message.pk)).content.decode()


def test_a_repeat_that_is_held_is_not_told_to_come_by_itself(root: Client, make: Make, clock: Any) -> None:
    services.pause_sending()
    message = make("unknown", uncertain_since=clock.now(), next_attempt_at=clock.now())
    text = text_of(root.get(page(message.pk)))
    assert "It may have been sent" in text
    assert "Somebody has to resume sending on the overview." in text
    assert "it is repeated by itself" not in text


def test_the_review_of_a_mailing_tells_when_it_can_go_out(night: dt.datetime, root: Client) -> None:
    def when(**more: str) -> str:
        text = text_of(root.post(f"{LIST}viber-send-to-many/", MAILING | more))
        return text.split("<dt>When</dt><dd>")[1].split("</dd>")[0]

    assert when().startswith("from ")
    assert when(purpose="transactional") == "now"
    services.pause_sending("tet")
    assert when(purpose="transactional") == "campaign is paused"
    services.pause_sending()
    later = timezone.localtime(night + dt.timedelta(days=1))
    told = when(send_at_0=f"{later:%Y-%m-%d}", send_at_1=f"{later:%H:%M:%S}")
    assert told.startswith("not before ")
    assert told.endswith(", sending is paused")


def test_a_promotional_message_tells_when_its_hours_begin(night: dt.datetime, root: Client, make: Make) -> None:
    message = make("queued", purpose="promotional", next_attempt_at=night, campaign="tet")
    make("queued", next_attempt_at=night)
    at_noon = make("queued", purpose="promotional", next_attempt_at=night + dt.timedelta(hours=13))
    html = root.get(LIST).content.decode()
    assert html.count('<span class="viber-remark">from ') == 1
    text = text_of(root.get(page(message.pk)))
    assert "promotional messages wait for their hours." in text
    assert "Wait: the hours begin at" in text
    assert "hours begin" not in text_of(root.get(page(at_noon.pk)))
    response = root.get(TET)
    assert "Promotional ones go out from" in text_of(response)
    assert 'data-seconds="15"' in response.content.decode()
    make("queued", next_attempt_at=night, campaign="tet")
    assert 'data-seconds="3"' in root.get(TET).content.decode()


def test_save_and_send_tells_that_it_waits_and_why(root: Client) -> None:
    services.pause_sending()
    response = root.post(ADD, {**FORM, "_send": "1"}, follow=True)
    assert "The message waits in the queue. Not sent yet: sending is paused." in told(response)
    assert "Somebody has to resume sending on the overview." in told(response)
    assert outbox == []


def test_the_page_of_a_paused_campaign_does_not_claim_to_move(root: Client, make: Make) -> None:
    make("delivered", campaign="tet"), make("queued", campaign="tet", next_attempt_at=timezone.now())
    assert 'data-seconds="3"' in root.get(TET).content.decode()
    services.pause_sending("tet")
    response = root.get(TET)
    assert "data-seconds" not in response.content.decode()
    assert "1 of 2 messages are through. It is paused." in text_of(response)
    assert "What waits goes out once somebody resumes it." in text_of(response)
    make("sending", campaign="tet")
    assert 'data-seconds="3"' in root.get(TET).content.decode()


def test_an_object_of_the_site_shows_it_too(root: Client) -> None:
    from tests.shop.models import Order

    order = Order.objects.create(phone="0901888484", note="17")
    services.pause_sending()
    services.queue_viber_message("0901888484", "Hello", related_object=order)
    assert "sending is paused" in text_of(root.get(f"/admin/shop/order/{order.pk}/change/"))


# -- stopping for good -------------------------------------------------------------------------------------------------


@pytest.fixture
def _small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two messages at a time, and no time for more."""
    monkeypatch.setattr(slices, "CHUNK", 2)
    monkeypatch.setattr(slices, "SECONDS_OF_PART", -1)
    monkeypatch.setattr(slices, "SECONDS_OF_REQUEST", -1)


def work_form(response: Any) -> dict[str, Any]:
    [found] = [form for form in forms(response) if slices.WORK in form["fields"]]
    return found["fields"]


def campaign(make: Make, *, waiting: int = 5) -> list[int]:
    for status in ("delivered", "sent", "undelivered"):
        make(status, campaign="tet")
    make("draft", campaign="tet"), make("queued", campaign="other")
    return [make("queued", campaign="tet", next_attempt_at=timezone.now()).pk for _ in range(waiting)]


def test_stopping_asks_with_the_counts_and_does_nothing_yet(root: Client, make: Make) -> None:
    waiting = campaign(make)
    question = press(root, does(root.get(TET))["stop"])
    text = text_of(question)
    assert "Stop the campaign tet for good?" in text
    assert "3 messages were sent. 5 messages that wait will not be sent." in text
    assert f'href="{TET}" class="button viber-back"' in text
    assert Message.objects.filter(pk__in=waiting, status="queued").count() == 5


@pytest.mark.usefixtures("_small_slices")
def test_without_scripts_each_press_does_some_and_the_page_says_how_it_ended(root: Client, make: Make) -> None:
    waiting, drafts = campaign(make), Message.objects.draft().count()
    action = does(root.get(TET))["stop"]["attrs"]["action"]
    response = press(root, does(root.get(TET))["stop"])
    for done in (2, 4):
        response = root.post(action, work_form(response), follow=True)
        assert f"{done} messages were cancelled." in text_of(response)
    assert 'max="1000" value="8' in response.content.decode()
    response = root.post(action, work_form(response), follow=True)
    assert response.redirect_chain == [(TET, 302)]
    assert told(response) == "5 messages were cancelled."
    assert set(Message.objects.filter(pk__in=waiting).values_list("status", flat=True)) == {"cancelled"}
    assert Message.objects.get(campaign="other").status == "queued"
    assert Message.objects.draft().count() == drafts
    text = text_of(response)
    assert "Stopped: 3 sent, 5 cancelled." in text
    assert '<rect class="viber-fill-cancelled"' in text
    assert set(does(response)) == {"cancelled"}


def test_stopping_a_paused_campaign_ends_its_pause_and_logs_that(root: Client, make: Make) -> None:
    services.pause_sending("tet")
    campaign(make)
    form = does(root.get(TET))["stop"]
    response = root.post(form["attrs"]["action"], work_form(press(root, form)), follow=True)
    assert "5 messages were cancelled." in told(response)
    assert not ViberPause.objects.exists()
    assert LogEntry.objects.get().action_flag == DELETION


@pytest.mark.parametrize("status", ["queued", "sending", "unknown"])
def test_a_campaign_of_which_something_waits_stays_paused_when_it_is_stopped(
    root: Client, make: Make, status: str
) -> None:
    """It came after the question was asked, or was being sent when its turn came."""
    services.pause_sending("tet")
    campaign(make)
    form = does(root.get(TET))["stop"]
    question = press(root, form)
    later = make(status, campaign="tet", next_attempt_at=timezone.now())
    root.post(form["attrs"]["action"], work_form(question))
    assert [pause.campaign for pause in ViberPause.objects.all()] == ["tet"]
    assert not LogEntry.objects.exists()
    services.deliver_due_messages()
    assert not outbox
    assert Message.objects.get(pk=later.pk).status == status


@pytest.mark.parametrize("data", [{"campaign": "a\0"}, {"campaign": "x" * 101}, {"campaign": " "}])
def test_a_name_that_no_campaign_can_have_does_nothing(root: Client, data: dict[str, str]) -> None:
    assert "It could not be paused." in told(root.post(PAUSE, data, follow=True))
    services.pause_sending()
    assert root.post(RESUME, data).status_code == 404
    assert [pause.campaign for pause in ViberPause.objects.all()] == [""]


def test_a_note_that_cannot_be_stored_pauses_nothing(root: Client) -> None:
    assert "It could not be paused." in told(root.post(PAUSE, {"campaign": "tet", "note": "a\0"}, follow=True))
    assert not ViberPause.objects.exists()


@pytest.mark.usefixtures("_small_slices")
def test_the_script_gets_numbers_until_all_is_done(root: Client, make: Make) -> None:
    campaign(make)
    form = does(root.get(TET))["stop"]
    url, fields = form["attrs"]["action"], work_form(press(root, form))
    widths = []
    while True:
        answer = json.loads(root.post(url, {**fields, slices.PART: "1"}).content)
        fields[slices.WORK] = answer["work"]
        widths.append(answer["width"])
        if answer["finished"]:
            break
    assert widths == sorted(widths)
    assert widths[-1] == 1000
    assert answer["said"] == "5 messages were cancelled."
    assert told(root.post(url, fields, follow=True)) == "5 messages were cancelled."


def test_what_comes_after_the_page_was_shown_is_not_stopped(root: Client, make: Make) -> None:
    campaign(make)
    form = does(root.get(TET))["stop"]
    later = make("queued", campaign="tet")
    question = press(root, form)
    assert "5 messages that wait" in text_of(question)
    latest = make("queued", campaign="tet")
    root.post(form["attrs"]["action"], work_form(question))
    assert set(Message.objects.filter(pk__in=[later.pk, latest.pk]).values_list("status", flat=True)) == {"queued"}
    assert Message.objects.cancelled().count() == 5


def test_one_that_was_cancelled_for_its_opt_out_does_not_make_it_a_stopped_campaign(root: Client, make: Make) -> None:
    make("delivered", campaign="tet")
    services.opt_out("0901888484", scope="everything")
    services.queue_viber_message("0901888484", "Hello", campaign="tet")
    assert Message.objects.cancelled().count() == 1
    assert "Stopped" not in text_of(root.get(TET))


def test_buttons_are_those_that_make_sense(root: Client, make: Make, log_in: LogIn) -> None:
    make("delivered", campaign="tet")
    assert does(root.get(TET)) == {}
    make("failed", campaign="tet")
    assert set(does(root.get(TET))) == {"failed"}
    make("cancelled", campaign="tet"), make("queued", campaign="tet")
    assert set(does(root.get(TET))) == {"failed", "cancelled", "stop"}
    assert does(log_in("view").get(TET)) == {}


def test_what_was_cancelled_and_what_failed_is_sent_from_the_page(root: Client, make: Make) -> None:
    make("delivered", campaign="tet"), make("cancelled", campaign="tet"), make("failed", campaign="tet")
    make("cancelled", campaign="other")
    for name in ("cancelled", "failed"):
        form = does(root.get(TET))[name]
        question = press(root, form)
        assert "Yes, send one message" in text_of(question)
        response = root.post(
            form["attrs"]["action"], form_with(question, action="send_selected")["fields"], follow=True
        )
        assert response.redirect_chain == [(TET, 302)]
    assert len(outbox) == 2
    assert set(Message.objects.filter(campaign="tet").values_list("status", flat=True)) == {"delivered", "sent"}


# -- large selections --------------------------------------------------------------------------------------------------


@pytest.fixture
def _three_are_many(monkeypatch: pytest.MonkeyPatch, _small_slices: None) -> None:
    for module in ("actions", "confirmation"):
        monkeypatch.setattr(f"esms_viber.admin.{module}.MOST_AT_ONCE", 3)


def ask_for_all(client: Client, action: str = "send_selected", url: str = LIST) -> Any:
    return choose(client, action, 0, url=url, select_across="1")


def go_on(client: Client, response: Any, url: str = LIST, **more: str) -> Any:
    return client.post(url, {**work_form(response), **more}, follow=True)


@pytest.mark.usefixtures("_three_are_many", "queue_only")
def test_any_number_is_sent_in_slices_after_one_question(root: Client, make: Make) -> None:
    failed = [make("failed", campaign="tet").pk for _ in range(4)]
    delivered = [make("delivered", campaign="tet").pk for _ in range(3)]
    make("failed", campaign="other")
    url = f"{LIST}?campaign=tet"
    response = ask_for_all(root, url=url)
    text = text_of(response)
    assert "7 messages are selected. Here are the newest 3 of them" in text
    assert "3 messages will be sent again, though they have arrived" in text
    assert "_selected_action" in work_form(response)
    later = make("failed", campaign="tet")
    for _ in range(3):
        response = go_on(root, response, url)
    assert slices.WORK in response.content.decode()
    response = go_on(root, response, url)
    assert response.redirect_chain == [(url, 302)]
    assert "7 messages were handed over for sending." in told(response)
    assert set(Message.objects.filter(pk__in=failed).values_list("status", flat=True)) == {"queued"}
    assert sorted(Message.objects.filter(resend_of__isnull=False).values_list("resend_of", flat=True)) == delivered
    later.refresh_from_db()
    assert later.status == "failed"


@pytest.mark.usefixtures("_three_are_many", "queue_only")
def test_a_slice_that_comes_twice_is_done_once(root: Client, make: Make) -> None:
    for _ in range(5):
        make("delivered")
    first = ask_for_all(root)
    fields = work_form(first)
    for _ in range(2):
        go_on(root, first)
    Message.objects.queued().update(status="delivered")
    go_on(root, first)
    assert Message.objects.filter(resend_of__isnull=False).count() == 2
    # Whoever presses twice has two runs from the first slice to the last.
    for _ in range(2):
        response = root.post(LIST, fields, follow=True)
        while slices.WORK in response.content.decode():
            response = go_on(root, response)
    assert Message.objects.filter(resend_of__isnull=False).values("resend_of").distinct().count() == 5
    assert Message.objects.count() == 10


@pytest.mark.usefixtures("_three_are_many", "queue_only")
def test_two_runs_at_once_send_once(root: Client, make: Make) -> None:
    for _ in range(6):
        make("delivered")
    question = ask_for_all(root)

    def run(_: int) -> None:
        client = Client()
        client.cookies = copy.deepcopy(root.cookies)  # each client writes to its own
        try:
            response = go_on(client, question)
            while slices.WORK in response.content.decode():
                response = go_on(client, response)
        finally:
            connections.close_all()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(run, range(3)))
    assert Message.objects.count() == 12
    assert Message.objects.filter(resend_of__isnull=False).values("resend_of").distinct().count() == 6


@pytest.mark.usefixtures("_three_are_many", "queue_only")
def test_what_has_arrived_is_left_out_to_the_end_once_that_was_chosen(root: Client, make: Make) -> None:
    for status in ("delivered", "undelivered", "delivered", "undelivered", "delivered"):
        make(status)
    response = go_on(root, ask_for_all(root), spare_arrived="1")
    while slices.WORK in response.content.decode():
        response = go_on(root, response)
    assert "2 messages were handed over for sending." in told(response)
    assert "3 messages were left out. It has arrived already." in told(response)


@pytest.mark.usefixtures("_three_are_many")
def test_the_inline_dispatcher_sends_in_the_end_what_one_request_may(root: Client, make: Make, settings: Any) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "INLINE_LIMIT": 2}
    for _ in range(5):
        make("failed")
    response = ask_for_all(root)
    response = go_on(root, response)
    assert outbox == []
    while slices.WORK in response.content.decode():
        response = go_on(root, response)
    assert len(outbox) == 2
    assert Message.objects.queued().count() == 3


@pytest.mark.usefixtures("_three_are_many", "queue_only")
def test_a_large_selection_under_a_pause_tells_that_it_waits(root: Client, make: Make) -> None:
    services.pause_sending()
    for _ in range(4):
        make("failed")
    response = ask_for_all(root)
    while slices.WORK in response.content.decode():
        response = go_on(root, response)
    assert "4 messages were handed over for sending. Not sent yet: sending is paused." in told(response)


@pytest.mark.usefixtures("_three_are_many")
def test_many_are_cancelled_in_slices_after_a_question(root: Client, make: Make, clock: Any) -> None:
    for _ in range(5):
        make("queued")
    make("delivered"), make("unknown", next_attempt_at=clock.now())
    response = ask_for_all(root, "cancel_selected")
    assert "6 messages that wait will not be sent." in text_of(response)
    assert Message.objects.queued().count() == 5
    while slices.WORK in response.content.decode():
        response = go_on(root, response)
    assert "5 messages were cancelled." in told(response)
    assert "The message is not repeated any more" in told(response)
    assert "Nothing is left to cancel" in text_of(ask_for_all(root, "cancel_selected"))


@pytest.mark.usefixtures("_three_are_many")
@pytest.mark.parametrize("action", ["send_selected", "cancel_selected"])
def test_many_that_no_filter_describes_are_refused(root: Client, make: Make, action: str) -> None:
    response = choose(root, action, *[make("queued").pk for _ in range(4)])
    assert "at most 3 messages at once" in told(response)
    assert Message.objects.queued().count() == 4


@pytest.mark.usefixtures("_three_are_many")
@pytest.mark.parametrize("action", ["send_selected", "cancel_selected"])
@pytest.mark.parametrize(
    "url",
    [LIST, f"{LIST}?status__exact=queued", f"{LIST}?created_at__gte=2020-01-01+00%3A00%3A00%2B07%3A00", f"{LIST}?o=1"],
)
def test_a_state_that_no_page_gave_is_asked_for_again(root: Client, make: Make, action: str, url: str) -> None:
    for _ in range(4):
        make("queued")
    response = choose(root, action, 0, url=url, select_across="1", viber_work="forged")
    assert slices.WORK in response.content.decode()
    assert Message.objects.queued().count() == 4


@pytest.mark.usefixtures("_three_are_many")
def test_who_may_not_send_does_no_slice(root: Client, make: Make, log_in: LogIn) -> None:
    for _ in range(4):
        make("queued")
    fields = work_form(ask_for_all(root, "cancel_selected"))
    assert log_in("view", "change").post(LIST, fields).status_code == 403
    assert Message.objects.queued().count() == 4


# -- what it costs -----------------------------------------------------------------------------------------------------


def statements(client: Client, url: str, data: dict[str, Any] | None = None) -> int:
    with CaptureQueriesContext(connection) as captured:
        response = client.post(url, data) if data else client.get(url)
    assert response.status_code == 200
    return len(captured)


def test_the_pages_cost_the_same_however_many_wait(root: Client, make: Make) -> None:
    services.pause_sending("tet")
    make("queued", campaign="tet", next_attempt_at=timezone.now())
    urls = [LIST, TET, OVERVIEW, page(Message.objects.get().pk)]
    few = [statements(root, url) for url in urls * 2][len(urls) :]
    for number in range(30):
        make("queued", campaign="tet", next_attempt_at=timezone.now(), phone=f"09018884{number:02}")
    assert [statements(root, url) for url in urls] == few


@pytest.mark.usefixtures("_small_slices")
def test_a_slice_costs_the_same_wherever_it_is(root: Client, make: Make) -> None:
    for _ in range(9):
        make("queued", campaign="tet", next_attempt_at=timezone.now())
    form = does(root.get(TET))["stop"]
    url, fields, counts = form["attrs"]["action"], work_form(press(root, form)), []
    for _ in range(3):
        with CaptureQueriesContext(connection) as captured:
            answer = json.loads(root.post(url, {**fields, slices.PART: "1"}).content)
        fields[slices.WORK] = answer["work"]
        counts.append(len(captured))
    assert len(set(counts)) == 1
    assert not answer["finished"]


def test_a_message_page_offers_the_same_actions_while_it_is_held(root: Client, make: Make) -> None:
    services.pause_sending()
    message = make("queued", next_attempt_at=timezone.now())
    found = offered(root.get(page(message.pk)))
    assert "cancel_selected" in found
    assert "send_selected" not in found
