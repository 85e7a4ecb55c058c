"""eSMS forgets RequestIds at midnight in Vietnam: what may have been taken before is not repeated after it."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter

import pytest

from esms_viber.models import OutboundViberMessage
from esms_viber.services import deliver_due_messages, queue_viber_message, send_viber_message
from tests.clock import VIETNAM, Clock, noon
from tests.fake_gateway import Close, FakeGateway, accepted, refused

pytestmark = pytest.mark.django_db(transaction=True)

PHONE, TEXT = "0901888484", "Xin chào"


class ForgetfulEsms:
    """Takes each RequestId once on each of its days; the answer to the first call about a message is lost."""

    def __init__(self, server: FakeGateway, clock: Clock, *, ahead: dt.timedelta) -> None:
        self._clock, self._ahead = clock, ahead
        self._seen: set[tuple[dt.date, str]] = set()
        self.taken: Counter[str] = Counter()
        self.calls: list[dt.datetime] = []
        server.answer_all(self._answer)

    @property
    def now(self) -> dt.datetime:
        """By its own clock, which need not be ours."""
        return self._clock.now().astimezone(VIETNAM) + self._ahead

    def _answer(self, request):
        self.calls.append(self.now)
        key = (self.now.date(), request["RequestId"])
        if key in self._seen:
            return refused("124", "Request exist 1")
        self._seen.add(key)
        self.taken[request["Phone"], request["Content"]] += 1
        return [Close()] if len(self.calls) == 1 else accepted()


def at(clock: Clock, hour: int, minute: int) -> None:
    clock.set(noon().replace(hour=hour, minute=minute))


@pytest.mark.parametrize("ahead", [0, 4, -4], ids=["same clock", "gateway 4 min ahead", "gateway 4 min behind"])
@pytest.mark.parametrize("start", [(20, 0), (23, 30), (23, 54), (23, 59)], ids=lambda time: f"{time[0]}:{time[1]:02}")
def test_no_repeat_over_midnight(esms, clock, settings, start, ahead):
    """The repeat itself is lost as well, so that repeats go on as long as they may."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": 1000}
    gateway = ForgetfulEsms(esms, clock, ahead=dt.timedelta(minutes=ahead))
    at(clock, *start)
    message = send_viber_message(PHONE, TEXT)
    assert message.status == "unknown"
    first_day = gateway.calls[0].date()
    esms.answer_all(lambda request: gateway._answer(request) and [Close()])

    while clock.now().astimezone(VIETNAM).hour != 2:
        deliver_due_messages()
        clock.advance(minutes=3)

    assert gateway.taken == {("0901888484", TEXT): 1}
    assert {call.date() for call in gateway.calls} == {first_day}
    message.refresh_from_db()
    assert (message.status, message.next_attempt_at) == ("unknown", None)


def test_a_repeat_before_midnight_is_recognised(esms, clock):
    gateway = ForgetfulEsms(esms, clock, ahead=dt.timedelta())
    at(clock, 23, 30)
    message = send_viber_message(PHONE, TEXT)
    clock.advance(minutes=5)
    assert deliver_due_messages().sent == 1
    message.refresh_from_db()
    assert (message.status, message.code_result) == ("sent", "124")
    assert sum(gateway.taken.values()) == 1


def test_a_repeat_that_was_claimed_before_midnight_and_comes_to_its_turn_after_it_is_not_made(esms, clock, settings):
    """As by a sender that was held up: the decision is taken anew when the call is to start."""
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "CONCURRENCY": 1, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    gateway = ForgetfulEsms(esms, clock, ahead=dt.timedelta())
    at(clock, 23, 40)
    message = send_viber_message(PHONE, TEXT)
    clock.advance(minutes=10)
    ahead_of_it = queue_viber_message("0901888485", "first in the line")
    OutboundViberMessage.objects.filter(pk=ahead_of_it.pk).update(
        status="unknown", uncertain_since=clock.now(), next_attempt_at=clock.now() - dt.timedelta(hours=1)
    )
    night_has_fallen = threading.Event()

    def fall(request):
        if not night_has_fallen.is_set():
            clock.advance(minutes=20)
            night_has_fallen.set()
        return gateway._answer(request)

    esms.answer_all(fall)
    deliver_due_messages()
    assert [request["RequestId"] for request in esms.requests].count(message.request_id) == 1
    message.refresh_from_db()
    assert (message.status, message.next_attempt_at) == ("unknown", None)


def test_a_sender_killed_before_midnight_leaves_what_is_not_repeated_after_it(esms, clock):
    gateway = ForgetfulEsms(esms, clock, ahead=dt.timedelta())
    at(clock, 23, 50)
    message = send_viber_message(PHONE, TEXT)
    OutboundViberMessage.objects.filter(pk=message.pk).update(
        status="sending", claim_id="gone", lease_until=clock.now() + dt.timedelta(minutes=2)
    )
    clock.advance(minutes=15)
    deliver_due_messages()
    assert sum(gateway.taken.values()) == len(gateway.calls) == 1
    message.refresh_from_db()
    assert (message.status, message.next_attempt_at) == ("unknown", None)


def test_what_was_surely_not_taken_is_sent_after_midnight(esms, clock):
    at(clock, 23, 58)
    esms.answer(refused("103"))
    message = send_viber_message(PHONE, TEXT)
    clock.advance(minutes=10)
    assert deliver_due_messages().sent == 1
    message.refresh_from_db()
    assert message.status == "sent"
