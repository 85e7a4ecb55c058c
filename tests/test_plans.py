"""What the database reads for a page: by an index, at 100,000 messages of half a year."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber.delivery import claims
from esms_viber.delivery.worker import deliver_due_messages
from esms_viber.models import OutboundViberMessage as Message
from esms_viber.monitoring import get_queue_status
from esms_viber.services import pause_sending
from tests.admin.pages import LIST, nobody_asks_for_the_queue

pytestmark = [pytest.mark.django_db, pytest.mark.postgresql]

ROWS = 100_000
TABLES = ("esms_viber_outboundvibermessage", "esms_viber_vibermessageevent")

_FILL = """
INSERT INTO esms_viber_outboundvibermessage (
    phone, content, image_url, button_label, button_url, brandname, sandbox, sent_to_sandbox, rehearsal, purpose,
    metadata, redacted_kind, campaign, dedupe_key, object_id, status,
    request_id, sms_id, code_result, error_message, total_price, attempts, next_attempt_at, claim_id, created_at,
    queued_at, sent_at, completed_at, delivery_seconds
)
SELECT
    '+849' || lpad((n::bigint * 7919 %% 100000000)::text, 8, '0'), repeat('Xin chào quý khách ', 8), '', '', '', 'SHOP',
    n %% 97 = 0, n %% 97 = 0, false, CASE WHEN n %% 3 = 0 THEN 'promotional' ELSE 'transactional' END, '{}', '',
    CASE WHEN n BETWEEN 1 AND 20000 THEN 'old' ELSE 'c' || (n / 3000) END, 'order-' || n, '', status,
    md5(n::text), 'd8' || md5('s' || n), '100', '', 470, 1,
    CASE WHEN status = 'queued' THEN now() + interval '1 day' END, '', moment, moment, moment, moment,
    CASE WHEN status = 'delivered' THEN CASE WHEN n %% 500 = 0 THEN 4000 WHEN n %% 9 = 0 THEN 300 ELSE 6 END END
FROM (
    SELECT n, now() - (%s - n) * interval '155 seconds' AS moment, (ARRAY[
        'delivered', 'delivered', 'delivered', 'delivered', 'delivered', 'delivered', 'undelivered', 'failed', 'queued',
        'delivered'
    ])[1 + n %% 10] AS status
    FROM generate_series(1, %s) n
) rows
"""


@pytest.fixture(scope="module")
def filled(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    """The table filled and analysed once, and emptied again after this file."""
    if connection.vendor != "postgresql":
        yield
        return
    with django_db_blocker.unblock():
        with connection.cursor() as cursor:
            cursor.execute(_FILL, [ROWS, ROWS])
            cursor.execute(
                "INSERT INTO esms_viber_vibermessageevent (message_id, kind, created_at, request_id, code, "
                "text, data, applied) SELECT id, 'attempt', created_at, request_id, '100', '', '{}', false "
                "FROM esms_viber_outboundvibermessage"
            )
            for table in TABLES:
                cursor.execute(f"VACUUM ANALYZE {table}")
        yield
        with connection.cursor() as cursor:
            cursor.execute(f"TRUNCATE {', '.join(TABLES)} CASCADE")


@pytest.fixture
def root(filled: None) -> Client:
    client = Client()
    client.force_login(User.objects.create_superuser("root"))
    return client


def plans(client: Client, url: str) -> list[str]:
    # How the queue stands is asked for by statements of its own.
    with CaptureQueriesContext(connection) as captured, nobody_asks_for_the_queue():
        assert client.get(f"{LIST}{url}").status_code == 200
    found = []
    with connection.cursor() as cursor:
        for sql in (query["sql"] for query in captured):
            if any(table in sql for table in TABLES):
                cursor.execute(f"EXPLAIN {sql}".replace("%", "%%"), [])
                found.append("\n".join(line for [line] in cursor.fetchall()))
    return found


@pytest.mark.parametrize(
    "url",
    [
        "",
        "?p=500",
        "?p=990",
        "?o=5",
        "?o=1",
        "?campaign=old",
        "?campaign=old&sent_to_sandbox__exact=0&rehearsal__exact=0&status__exact=delivered",
        "?campaign=nobody",
        "?status__exact=delivered",
        "?status__exact=queued&p=40",
        "?status__exact=unknown",
        "?sent_to_sandbox__exact=1",
        "?sent_to_sandbox__exact=0&rehearsal__exact=0",
        *(f"?delivered_in={number}&sent_to_sandbox__exact=0&rehearsal__exact=0" for number in range(5)),
        "?delivered_in=4",
        "?attention=undecided",
        "?attention=unconfirmed",
        "?created_at__gte=2020-01-01+00:00:00%2B07:00&created_at__lt=2020-01-02+00:00:00%2B07:00",
        "?q=0901888484",
        "?q=%2B84+901.888",
        "?q=0901",
        "?q=d8e0f1f07025442",
        "?q=order-17",
        "?q=c4ca4238a0b923820dcc509a6f75849b&status__exact=sent",
        "viber-campaign/?name=c20",
        "viber-overview/?days=7",
    ],
)
def test_no_page_reads_a_whole_table(root: Client, url: str) -> None:
    found = plans(root, url)
    assert found
    assert [plan for plan in found if re.search(r"Seq Scan on esms_viber_(outbound|vibermessageevent)", plan)] == []


def test_words_are_looked_for_in_one_reading(root: Client) -> None:
    scans = [plan for plan in plans(root, "?q=kim+cương") if "Seq Scan on esms_viber_outbound" in plan]
    assert len(scans) <= 1


def test_an_index_of_trigrams_serves_the_search_in_texts(root: Client) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_available_extensions WHERE name = 'pg_trgm'")
        if cursor.fetchone() is None:
            pytest.skip("PostgreSQL has no pg_trgm here")
        cursor.execute("CREATE EXTENSION IF NOT EXISTS pg_trgm")
        cursor.execute("CREATE INDEX trigrams ON esms_viber_outboundvibermessage USING gin (content gin_trgm_ops)")
    Message.objects.create(phone="0901888484", content="Nhẫn kim cương")
    assert any("trigrams" in plan for plan in plans(root, "?q=kim+cương"))


# The last ones, because what they write and roll back leaves dead rows behind, which change the plans of others.


@pytest.fixture
def half_is_queued(filled: None) -> None:
    Message.objects.filter(pk__in=list(Message.objects.values_list("pk", flat=True)[:50_000])).update(
        status="queued", next_attempt_at=timezone.now()
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE esms_viber_outboundvibermessage")


def plans_of(statements: CaptureQueriesContext, kind: str = "SELECT") -> list[str]:
    found = []
    with connection.cursor() as cursor:
        for sql in (query["sql"] for query in statements):
            if sql.startswith(kind) and "outboundvibermessage" in sql:
                cursor.execute(f"EXPLAIN {sql}".replace("%", "%%"), [])
                found.append("\n".join(line for [line] in cursor.fetchall()))
    return found


def test_the_lanes_of_what_waits_are_found_by_jumping(half_is_queued: None) -> None:
    with CaptureQueriesContext(connection) as captured:
        lanes = list(Message.objects.queued().filter(purpose="promotional").lanes(but_not=["nobody"]))
    assert len(lanes) > 10
    for plan in plans_of(captured):
        assert "esms_viber_lane" in plan, plan
        assert "Sort" not in plan, plan


@pytest.mark.parametrize("paused", [(), ("c9",), ("c9", "old")])
def test_a_claim_walks_along_an_index_whatever_is_paused(half_is_queued: None, paused: tuple[str, ...]) -> None:
    for name in paused:
        pause_sending(name)
    with CaptureQueriesContext(connection) as captured:
        found = claims.claim(128)
    assert len(found.ready) == 128
    assert not {message.campaign for message in found.ready} & {*paused}
    index = "esms_viber_lane" if paused else "esms_viber_queue"
    looked = [plan for plan in plans_of(captured) if "LockRows" in plan]
    assert looked
    for plan in looked:
        assert index in plan, plan
        assert "Sort" not in plan, plan


def test_what_is_recorded_is_found_by_its_key_however_many_are_being_sent(half_is_queued: None) -> None:
    """Statistics of a moment at which none was being sent make the index of statuses look better than the key."""
    due = Message.objects.queued().filter(next_attempt_at__lte=timezone.now())
    claimed = due.filter(pk__in=list(due.values_list("pk", flat=True)[:20_000]))
    claimed.update(status="sending", claim_id="another's", lease_until=timezone.now() + dt.timedelta(minutes=2))
    with CaptureQueriesContext(connection) as captured:
        assert deliver_due_messages(limit=64).sent == 64
    updates = plans_of(captured, "UPDATE")
    assert len(updates) >= 4, "a claim, a begin, and the answers twice"
    for plan in updates:
        assert "outboundvibermessage_pkey" in plan, plan


@pytest.mark.parametrize("paused", [(), ("c9",)])
def test_the_look_at_the_queue_reads_no_table(half_is_queued: None, paused: tuple[str, ...]) -> None:
    for name in paused:
        pause_sending(name)
    with CaptureQueriesContext(connection) as captured:
        get_queue_status()
    # Where half of all rows are queued, a reading that stops at 10,001 of them need not go along an index.
    scans = [plan for plan in plans_of(captured) if "Seq Scan on esms_viber_outbound" in plan]
    assert [plan for plan in scans if "Limit" not in plan] == []
