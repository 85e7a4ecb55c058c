"""`prune_viber_messages`: what is old enough, what is left, in which slices, and how it ends."""

from __future__ import annotations

import datetime as dt
import os
import signal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber import privacy, statistics
from esms_viber.account import average_prices
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.services import queue_viber_message
from esms_viber.statistics import counted, days_until, get_figures, get_overview
from tests.clock import Clock
from tests.factories import queue, row, stored

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]


@pytest.fixture
def root(admin_client: Client) -> Client:
    return admin_client


STATUSES = ("draft", "queued", "sending", "unknown", "sent", "delivered", "undelivered", "failed", "cancelled")


def prune(**options: Any) -> str:
    out = StringIO()
    call_command("prune_viber_messages", stdout=out, **options)
    return out.getvalue()


def old(status: str, *, days: float, **columns: Any) -> OutboundViberMessage:
    """A message to which everything has happened so many days ago."""
    then = timezone.now() - dt.timedelta(days=days)
    times = {"created_at": then}
    if status != "draft":
        times["queued_at"] = then
    if status in {"sent", "delivered", "undelivered"}:
        times["sent_at"] = then
    if status in {"delivered", "undelivered", "failed", "cancelled"}:
        times["completed_at"] = then
    if status == "unknown":
        times["uncertain_since"] = then
    message = row(status, **{**times, **columns})
    message.events.create(kind="attempt", text="Xin chào", data={"outcome": "answered"})
    return message


def redacted() -> set[int]:
    return set(OutboundViberMessage.objects.filter(redacted_at__isnull=False).values_list("pk", flat=True))


# -- what is old enough ------------------------------------------------------------------------------------------------


def test_what_is_at_rest_is_redacted_and_what_waits_or_is_being_sent_is_left():
    messages = {status: old(status, days=31) for status in STATUSES}
    assert "7 redacted, 0 deleted" in prune(redact_after=30)
    assert redacted() == {message.pk for status, message in messages.items() if status not in {"queued", "sending"}}
    assert "0 redacted, 0 deleted" in prune(redact_after=30)


def test_what_is_at_rest_is_deleted_with_its_history():
    messages = {status: old(status, days=31) for status in STATUSES}
    assert "0 redacted, 7 deleted" in prune(delete_after=30)
    left = {messages["queued"].pk, messages["sending"].pk}
    assert set(OutboundViberMessage.objects.values_list("pk", flat=True)) == left
    assert set(ViberMessageEvent.objects.values_list("message_id", flat=True)) == left


def test_what_is_younger_is_left():
    for status in STATUSES:
        old(status, days=29)
    assert "0 redacted, 0 deleted" in prune(redact_after=30, delete_after=60)


@pytest.mark.parametrize(("status", "is_left"), [("sent", True), ("unknown", True), ("delivered", False)])
def test_what_esms_still_tells_of_is_left_for_seven_days(status, is_left):
    old(status, days=6.5)
    prune(redact_after=0)
    assert (redacted() == set()) is is_left
    OutboundViberMessage.objects.all().delete()
    old(status, days=7.5)
    prune(redact_after=0)
    assert len(redacted()) == 1


def test_age_is_that_of_the_last_thing_that_happened():
    """Created long ago, and sent again or reported yesterday."""
    yesterday = timezone.now() - dt.timedelta(days=1)
    for column in ("queued_at", "sent_at", "completed_at", "uncertain_since"):
        old("delivered", days=100, **{column: yesterday})
    assert "0 redacted, 0 deleted" in prune(redact_after=30, delete_after=30)


def test_deleted_and_redacted_in_one_run():
    gone, emptied, young = old("delivered", days=400), old("delivered", days=50), old("delivered", days=5)
    assert "1 redacted, 1 deleted" in prune(redact_after=30, delete_after=365)
    assert set(OutboundViberMessage.objects.values_list("pk", flat=True)) == {emptied.pk, young.pk}
    assert redacted() == {emptied.pk}
    assert not ViberMessageEvent.objects.filter(message_id=gone.pk).exists()


@pytest.mark.parametrize("options", [{"redact_after": 30}, {"delete_after": 30}])
@pytest.mark.parametrize("status", ["draft", "failed", "cancelled"])
def test_what_a_person_has_changed_since_is_left(root: Client, status, options):
    """However long ago it was written: somebody means to send it."""
    changed, other = old(status, days=40), old(status, days=40)
    address = f"/admin/esms_viber/outboundvibermessage/{changed.pk}/change/"
    form = {"kind": "text", "phone": changed.phone, "content": "Chào", "purpose": "transactional"}
    assert root.post(address, form).status_code == 302
    before = stored(changed)
    assert before.content == "Chào"
    prune(**options)
    after = stored(changed)
    assert (after.content, after.status, after.redacted_at) == ("Chào", before.status, None)
    assert not OutboundViberMessage.objects.filter(pk=other.pk, redacted_at=None).exists()


def test_draft_is_left_for_seven_days():
    young, aged = old("draft", days=6.5), old("draft", days=7.5)
    assert "1 redacted, 0 deleted" in prune(redact_after=0)
    assert redacted() == {aged.pk}
    assert "0 redacted, 1 deleted" in prune(delete_after=0)
    assert OutboundViberMessage.objects.get() == young


def test_what_was_sent_again_is_deleted_no_sooner_than_the_one_in_doubt():
    """Otherwise a person would be asked about that one again, and send it a second time."""
    doubted = old("unknown", days=3)
    again = old("delivered", days=2, resend_of=doubted)
    for dry_run in (True, False):
        assert "0 deleted" in prune(delete_after=1, dry_run=dry_run).replace("would be ", "")
    assert stored(again).resend_of_id == doubted.pk
    OutboundViberMessage.objects.filter(pk=doubted.pk).update(status="delivered", completed_at=doubted.created_at)
    assert "2 deleted" in prune(delete_after=1)


def test_draft_that_was_redacted_is_deleted_at_the_age_it_had(clock: Clock):
    old("draft", days=40)
    prune(redact_after=30)
    clock.advance(days=61)
    assert "0 redacted, 1 deleted" in prune(delete_after=100)


def test_only_messages_of_the_campaign():
    mine = old("delivered", days=40, campaign="tet-2027")
    old("delivered", days=40, campaign="tet-2028")
    old("delivered", days=40)
    assert "1 redacted, 0 deleted" in prune(redact_after=30, campaign=" tet-2027 ")
    assert redacted() == {mine.pk}
    assert "0 redacted, 0 deleted" in prune(redact_after=0, campaign="nobody's")


@pytest.mark.parametrize("name", ["", "  "])
def test_a_campaign_without_a_name_is_not_all_of_them(name):
    """As from a variable of the shell that is not set."""
    message = old("delivered", days=40)
    with pytest.raises(CommandError, match="--campaign needs a name"):
        prune(redact_after=30, campaign=name)
    assert stored(message).redacted_at is None


def test_deleting_leaves_its_resend_and_frees_its_key():
    first = old("delivered", days=40, dedupe_key="order-17")
    again = old("delivered", days=5, resend_of=first)
    prune(delete_after=30)
    assert stored(again).resend_of_id is None
    assert queue_viber_message("0901888484", "Xin chào", dedupe_key="order-17").pk != first.pk


# -- how long is said --------------------------------------------------------------------------------------------------


def test_settings_say_how_long_where_no_option_does(settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "REDACT_AFTER_DAYS": 30, "DELETE_AFTER_DAYS": 365}
    old("delivered", days=400)
    old("delivered", days=40)
    assert "1 redacted, 1 deleted" in prune()


def test_an_option_stands_instead_of_both_settings(settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "REDACT_AFTER_DAYS": 30, "DELETE_AFTER_DAYS": 365}
    old("delivered", days=400)
    assert "0 redacted, 0 deleted" in prune(redact_after=500)


def test_without_either_it_says_what_to_do():
    with pytest.raises(CommandError, match=r"Set REDACT_AFTER_DAYS or DELETE_AFTER_DAYS .*--redact-after"):
        prune()


@pytest.mark.parametrize("options", [{"redact_after": -1}, {"delete_after": -1}, {"delete_after": 10**9}])
def test_days_that_make_no_sense_are_refused(options):
    with pytest.raises(CommandError, match="must be a number of days"):
        prune(**options)


def test_dry_run_counts_and_changes_nothing():
    old("delivered", days=400)
    old("delivered", days=40)
    before = list(OutboundViberMessage.objects.order_by("pk").values())
    told = prune(redact_after=30, delete_after=365, dry_run=True)
    assert "1 would be redacted, 1 would be deleted" in told
    assert list(OutboundViberMessage.objects.order_by("pk").values()) == before


# -- slices ------------------------------------------------------------------------------------------------------------


def test_slices_are_short_and_no_message_is_looked_at_twice(monkeypatch):
    monkeypatch.setattr(privacy, "SLICE", 10)
    queue(95)
    then = timezone.now() - dt.timedelta(days=40)
    times = {"created_at": then, "queued_at": then, "completed_at": then}
    OutboundViberMessage.objects.update(status="delivered", next_attempt_at=None, **times)
    with CaptureQueriesContext(connection) as queries:
        assert "95 redacted" in prune(redact_after=30)
    statements = [query["sql"] for query in queries]
    assert not any("OFFSET" in sql for sql in statements)
    transactions = [sql for sql in statements if sql.startswith("UPDATE") and "redacted_kind" in sql]
    assert len(transactions) == 10
    # A statement or two more in each transaction would be read; one that reads all from the start could not be.
    walks = [sql for sql in statements if sql.startswith("SELECT") and "LIMIT 10" in sql and "content" not in sql]
    assert len([sql for sql in walks if "event" not in sql]) == 11


def test_ctrl_c_ends_it_after_the_slice(monkeypatch):
    monkeypatch.setattr(privacy, "SLICE", 2)
    for _number in range(6):
        old("delivered", days=40)
    redact_slice = privacy._redact_slice

    def interrupted(*args: Any) -> list[int]:
        done = redact_slice(*args)
        os.kill(os.getpid(), signal.SIGINT)
        return done

    monkeypatch.setattr(privacy, "_redact_slice", interrupted)
    told = prune(redact_after=30)
    assert "Stopping after this slice" in told
    assert "2 redacted, 0 deleted" in told
    assert len(redacted()) == 2


def test_one_that_is_sent_again_meanwhile_is_left(monkeypatch):
    first, second = old("failed", days=40), old("failed", days=40)
    found = privacy._at_rest_among

    def resent(*args: Any) -> list[int]:
        pks = found(*args)
        OutboundViberMessage.objects.filter(pk=first.pk).update(status="queued", queued_at=timezone.now())
        return pks

    monkeypatch.setattr(privacy, "_at_rest_among", resent)
    assert "0 redacted, 1 deleted" in prune(delete_after=30)
    assert not OutboundViberMessage.objects.filter(pk=second.pk).exists()
    OutboundViberMessage.objects.filter(pk=first.pk).update(status="failed", queued_at=None)
    assert "0 redacted, 0 deleted" in prune(redact_after=30)
    assert (stored(first).status, stored(first).content) == ("queued", "Xin chào")


# -- the figures -------------------------------------------------------------------------------------------------------


def figures() -> Any:
    days = days_until(timezone.now(), 60)
    everything = counted(OutboundViberMessage.objects.all())
    campaign = everything.filter(campaign="tet")
    return (
        get_figures(everything, days),
        get_figures(campaign, days),
        get_overview(everything, days, most=20),
        statistics.latest_of_campaign(campaign, "tet"),
        average_prices(),
    )


def test_every_figure_is_the_same_after_redaction(clock: Clock):
    parts = [
        {"content": "Xin chào"},
        {"content": "Xin chào", "button_label": "Xem", "button_url": "https://shop.example.vn/"},
        {"content": "", "image_url": "https://shop.example.vn/a.png"},
    ]
    for number, columns in enumerate(parts):
        for status in STATUSES:
            if status in {"queued", "sending"}:
                continue
            then = timezone.now() - dt.timedelta(days=40 + number)
            price = 400 + 100 * number if status in {"delivered", "undelivered"} else None
            seconds = number * 30 + 5 if status == "delivered" else None
            found = {
                "total_price": price,
                "delivery_seconds": seconds,
                "code_result": "99" if status == "failed" else "",
            }
            columns = {**columns, "campaign": "tet" if number else "", "created_at": then}
            old(status, days=40 + number, **columns, **found)
    old("delivered", days=41, sent_to_sandbox=True)
    old("delivered", days=41, rehearsal=True)
    before = figures()
    assert len(before[-1]) == 3
    prune(redact_after=30)
    assert len(redacted()) == 23
    assert figures() == before
