"""What does not grow with the table: the statements of a claim, of a run, and of the state of the queue."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from esms_viber.delivery import claims
from esms_viber.formatting import MOST_COUNTED, tell_count
from esms_viber.models import OutboundViberMessage, Status, ViberGatewayState
from esms_viber.monitoring import get_queue_status
from esms_viber.services import deliver_due_messages, queue_viber_messages
from tests.factories import show_status, states, unsaved

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def _queue_only(queue_only: None) -> None:
    """Sending begins when a test says so."""


def queue(count: int, **fields: str) -> None:
    queue_viber_messages([unsaved(content=f"Đơn hàng {number}", **fields) for number in range(count)])


def statements(work: Callable[[], object]) -> list[str]:
    with CaptureQueriesContext(connection) as found:
        work()
    return [query["sql"] for query in found.captured_queries]


def hold(brandname: str) -> None:
    now = timezone.now()
    ViberGatewayState.objects.create(brandname=brandname, code="104", opened_at=now, next_probe_at=now + claims.LEASE)


# -- claims ------------------------------------------------------------------------------------------------------------


def test_a_claim_is_as_many_statements_for_many_messages_as_for_one() -> None:
    queue(40)
    one = statements(lambda: claims.claim(1))
    many = statements(lambda: claims.claim(30))
    assert len(one) == len(many) <= 11, many
    assert states() == {"sending": 31, "queued": 9}


def test_a_look_that_finds_nothing_writes_nothing() -> None:
    found = statements(lambda: claims.claim(30))
    if connection.vendor == "sqlite":
        # In a transaction, even a look would keep others from writing.
        assert len(found) == 5
        assert all(sql.startswith("SELECT") for sql in found)
    else:
        assert len(found) == 7, "the pauses, and four looks between BEGIN and COMMIT"


def test_messages_that_are_held_cost_a_claim_nothing() -> None:
    queue(1, brandname="A")
    queue(3, brandname="B")
    few = statements(lambda: claims.claim(1, but_not=["A"]))
    queue(50, brandname="A")
    many = statements(lambda: claims.claim(1, but_not=["A"]))
    assert len(few) == len(many), many
    assert states() == {"sending": 2, "queued": 52}
    assert not OutboundViberMessage.objects.filter(status=Status.SENDING, brandname="A").exists()


def test_brand_names_take_turns_while_one_waits() -> None:
    for brandname, count in {"A": 20, "B": 20, "C": 20, "D": 3}.items():
        queue(count, brandname=brandname)
    found = Counter(message.brandname for message in claims.claim(12, but_not=["A"]).ready)
    assert found.keys() == {"B", "C", "D"}
    assert found["B"] >= 4
    assert found["C"] >= 4
    assert found["D"] == 3, "which leaves its share to those that come later"


def test_repeats_come_before_all_turns() -> None:
    queue(6, brandname="B")
    queue(6, brandname="C")
    now = timezone.now()
    repeated = OutboundViberMessage.objects.filter(brandname="C").order_by("pk")[:4].values_list("pk", flat=True)
    repeats = set(repeated)
    OutboundViberMessage.objects.filter(pk__in=repeats).update(
        status=Status.UNKNOWN, uncertain_since=now, next_attempt_at=now
    )
    assert {message.pk for message in claims.claim(4, but_not=["A"]).ready} == repeats


def test_all_other_brand_names_are_sent_while_one_waits() -> None:
    for brandname in ("A", "B", "", "C"):
        queue(30, brandname=brandname)
    hold("A")
    summary = deliver_due_messages()
    assert (summary.sent, summary.left) == (90, 30)
    assert set(OutboundViberMessage.objects.queued().values_list("brandname", flat=True)) == {"A"}


# -- a run -------------------------------------------------------------------------------------------------------------


def test_a_run_writes_many_messages_at_a_time(settings: object) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 32}  # type: ignore[attr-defined]
    queue(10)
    deliver_due_messages()
    queue(320)
    found = statements(deliver_due_messages)
    assert states() == {"sent": 330}
    # A claim for every 96 messages at least, and a record for every 24: about seven statements each.
    assert len(found) < 320 / 2, len(found)


# -- the state of the queue --------------------------------------------------------------------------------------------


def test_counts_stop_and_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("formatting", "models.querysets", "monitoring"):
        monkeypatch.setattr(f"esms_viber.{module}.MOST_COUNTED", 5)
    queue(9)
    found = get_queue_status()
    assert (found.queued, found.due) == (6, 6)
    code, text = show_status()
    assert code == 0
    assert text.count("more than 5") == 2
    assert deliver_due_messages(limit=1).left == 6


@pytest.mark.parametrize(
    ("number", "told"), [(0, "0"), (MOST_COUNTED, "10,000"), (MOST_COUNTED + 1, "more than 10,000")]
)
def test_a_count_tells_that_there_are_more(number: int, told: str) -> None:
    assert tell_count(number) == told


# -- the probe, and what a site holds up -------------------------------------------------------------------------------


def test_the_probe_is_the_oldest_message_whatever_its_brand_name() -> None:
    for brandname in ("C", "B", "D"):
        queue(2, brandname=brandname)
    assert [message.brandname for message in claims.claim_for_probe(but_not=["A"]).ready] == ["C"]
    assert [message.brandname for message in claims.claim_for_probe(but_not=["A"], another=True).ready] == ["D"]


def test_what_the_site_holds_up_stays_so_when_a_claim_is_given_back() -> None:
    queue(1)
    since = timezone.now()
    OutboundViberMessage.objects.update(held_up_since=since, error_message="Not sent")
    claims.release(claims.claim(1).ready, {})
    assert OutboundViberMessage.objects.held_up().get().held_up_since == since
    claims.release(claims.claim(1).ready, {"error_message": "eSMS does not answer."})
    assert not OutboundViberMessage.objects.held_up().exists()
