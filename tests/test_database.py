"""Rows that are written together are the same as those that Django writes, on every database and with every driver."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.db import connection

from esms_viber.database import insert_each, update_differing, update_each
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.models import Status, ViberMessageEvent
from tests.factories import queue, unsaved

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("queue_only")]

BERLIN = ZoneInfo("Europe/Berlin")
CLOCKS_GO_BACK = dt.datetime(2027, 10, 31, 2, 30, tzinfo=BERLIN)
TEXTS = ["plain", "100 %", "%(v1)s", "{a,b}", "a\\b", "it's", 'say "no"', "NULL", "dòng\nmới", "x" * 50_000]
VALUES: dict[str, tuple[str, list[Any]]] = {
    "texts": ("content", TEXTS),
    "the same odd text": ("content", ["{%s, \"\\'} %(v0)s"] * 3),
    "numbers and NULL": ("send_status", [1, None, 0]),
    "yes and no": ("sandbox", [True, False, True]),
    "JSON that Python finds equal": ("metadata", [{"a": True}, {"a": 1}, {"a": 1.0}, {"a": None}, {}]),
    "the same JSON": ("metadata", [{"a": [1, "%s"]}] * 2),
    "times": ("send_at", [CLOCKS_GO_BACK, None, CLOCKS_GO_BACK.astimezone(dt.UTC)]),
    "an hour that comes twice": ("send_at", [CLOCKS_GO_BACK, CLOCKS_GO_BACK.replace(fold=1)]),
    "choices": ("purpose", [Message.purpose.field.default, "promotional"]),
}


@pytest.fixture(params=["usual", pytest.param("server-side", marks=pytest.mark.postgresql)], autouse=True)
def binding(request: pytest.FixtureRequest) -> Iterator[None]:
    """Have PostgreSQL's server bind the parameters, as a site may choose."""
    if request.param == "usual":
        yield
        return
    options = connection.settings_dict["OPTIONS"]
    connection.close()
    connection.settings_dict["OPTIONS"] = {**options, "server_side_binding": True}
    yield
    connection.close()
    connection.settings_dict["OPTIONS"] = options


def read(column: str, rows: list[Message]) -> list[Any]:
    found = dict(Message.objects.filter(pk__in=[row.pk for row in rows]).values_list("pk", column))
    return [repr(found[row.pk]) for row in rows]


@pytest.mark.parametrize(("column", "values"), VALUES.values(), ids=VALUES.keys())
def test_what_is_inserted(column: str, values: list[Any]) -> None:
    ours, djangos = ([unsaved(**{column: value}) for value in values] for _ in range(2))
    Message._base_manager.bulk_create(djangos)
    insert_each(ours, using="default")
    assert [row.pk for row in ours] == sorted({row.pk for row in ours})
    assert read(column, ours) == read(column, djangos)


@pytest.mark.parametrize(("column", "values"), VALUES.values(), ids=VALUES.keys())
def test_what_is_written(column: str, values: list[Any]) -> None:
    ours, djangos = queue(len(values)), queue(len(values))
    for row, value in zip(djangos, values, strict=True):
        Message.objects.filter(pk=row.pk).update(**{column: value})
    if column == "metadata":
        update_differing(
            Message, [column], [[value, row.pk] for row, value in zip(ours, values, strict=True)], using="default"
        )
    else:
        changes = [
            ({"pk": row.pk, "status": Status.QUEUED}, {column: value}) for row, value in zip(ours, values, strict=True)
        ]
        assert update_each(Message, changes, using="default") == len(values)
    assert read(column, ours) == read(column, djangos)


def test_a_row_that_is_not_as_expected_is_not_written() -> None:
    rows = queue(3)
    changes = [
        ({"pk": row.pk, "status": status}, {"code_result": "1"}) for row, status in zip(rows, [*"qqq"], strict=True)
    ]
    changes[1][0]["status"] = "queued"
    assert update_each(Message, changes, using="default") == 1
    assert read("code_result", rows) == ["''", "'1'", "''"]


def test_more_rows_than_one_statement_takes() -> None:
    rows = [unsaved(content=f"{n}") for n in range(1_001)]
    insert_each(rows, using="default")
    assert list(Message.objects.order_by("pk").values_list("pk", "content")) == [(row.pk, row.content) for row in rows]


def test_related_objects_are_as_django_has_them() -> None:
    messages, user = queue(2), User(username="late")
    events = [ViberMessageEvent(message=message, kind="note", user=user) for message in messages]
    with pytest.raises(ValueError, match="unsaved related object"):
        insert_each(events, using="default")
    user.save()
    insert_each(events, using="default")
    assert {event.user_id for event in ViberMessageEvent.objects.filter(kind="note")} == {user.pk}

    late = ContentType(app_label="shop", model="late")
    rows = [unsaved(content_type=late), unsaved(content_type=late)]
    late.save()
    insert_each(rows, using="default")
    assert read("content_type_id", rows) == [repr(late.pk)] * 2
