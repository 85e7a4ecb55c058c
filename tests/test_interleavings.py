"""Answers, reports, repeats, people and dying senders in any order: what must hold all the same.

A step is something that happens; a `Send` may hold steps that happen while its call is on the wire, the fall of night
and a second sender among them. Each test runs a random list of steps on a real database, in real transactions.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import pytest
from django.db import connections
from django.test import Client
from django.utils import timezone
from hypothesis import HealthCheck, event, example, given, settings
from hypothesis import strategies as st

from esms_viber.gateways.base import CallOutcome, SendResult
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.models import OutboundViberMessage, ViberGatewayState, ViberMessageEvent
from esms_viber.services import cancel_viber_messages, deliver_messages, queue_viber_message, resend_viber_messages
from esms_viber.signals import status_changed

pytestmark = pytest.mark.django_db(transaction=True)

VIETNAM = dt.timezone(dt.timedelta(hours=7))

MOVES = {
    "draft": {"queued", "cancelled"},
    "queued": {"sending", "cancelled", "failed"},
    "sending": {"sent", "failed", "unknown", "cancelled", "queued", "delivered", "undelivered"},
    "unknown": {"sending", "sent", "delivered", "undelivered"},
    "sent": {"delivered", "undelivered"},
    "failed": {"queued", "delivered", "undelivered"},
    "cancelled": {"queued"},
    "delivered": set(),
    "undelivered": set(),
}

# -- the steps ---------------------------------------------------------------------------------------------------------

TAKEN = ["100"]
REFUSED = ["99", "146", "108"]
ACCOUNT = ["101", "103", "104"]
ODD = ["105", "199", "777"]
LOST = ["time-out", "HTML", "no code"]
ANSWERS = [*TAKEN, "124", *REFUSED, *ACCOUNT, *ODD, *LOST, "not connected"]

REPORTS = {
    "waiting": {"SendStatus": "1"},
    "to be sent": {"SendStatus": "2"},
    "on its way": {"SendStatus": "7"},
    "delivered": {"SendStatus": "5", "SendSuccess": "1", "SendFailed": "0"},
    "undelivered": {"SendStatus": "5", "SendSuccess": "0", "SendFailed": "1"},
    "refused": {"SendStatus": "4"},
    "undecided": {"SendStatus": "5"},
    "composed": {"SendStatus": "0"},
    "nonsense": {"SendStatus": "delivered"},
}
ON_THE_WAY = {"waiting", "to be sent", "on its way"}
FINAL = {"delivered": "delivered", "undelivered": "undelivered", "refused": "undelivered"}


@dataclass(frozen=True)
class Send:
    """A sender looks for this message; if it is due, eSMS is called, and `during` happens before the answer."""

    row: int = 0
    answer: str = "100"
    taken: bool = True
    """Does eSMS take the message, where the answer does not tell?"""
    during: tuple[object, ...] = ()


@dataclass(frozen=True)
class Report:
    row: int = 0
    name: str = "delivered"
    age: int = 0
    """0: on the current RequestId; 1: on the one before."""


@dataclass(frozen=True)
class Resend:
    row: int = 0


@dataclass(frozen=True)
class Cancel:
    row: int = 0


@dataclass(frozen=True)
class Later:
    """Twenty minutes: waits are over, claims have lapsed."""


@dataclass(frozen=True)
class NextDay:
    """eSMS has forgotten yesterday's RequestIds."""


rows = st.sampled_from([0, 0, 0, 1, 2])
outside = [
    st.builds(Report, rows, st.sampled_from(sorted(REPORTS)), st.integers(0, 1)),
    st.builds(Resend, rows),
    st.builds(Cancel, rows),
    st.just(Later()),
    st.just(NextDay()),
]


def sends(during):
    return st.builds(Send, rows, st.sampled_from(ANSWERS) | st.sampled_from(LOST), st.booleans(), during)


inner_sends = sends(st.just(()))
# Twice: most of what is interesting happens around calls.
inner_steps = st.lists(st.one_of(inner_sends, *outside), max_size=3).map(tuple)
steps = st.lists(st.one_of(sends(inner_steps), sends(inner_steps), inner_sends, *outside), min_size=1, max_size=10)

# -- the world in which they happen ------------------------------------------------------------------------------------


class Gateway(MemoryGateway):
    """Hands each call to the world of the running example."""

    world = None

    def send(self, message):
        try:
            return self.world.on_the_wire(message)
        except BaseException as error:
            # A sender takes whatever its gateway raises for a missing answer.
            self.world.errors.append(error)
            raise
        finally:
            connections.close_all()


def result_of(answer):
    match answer:
        case "time-out" | "HTML":
            return SendResult(outcome=CallOutcome.NO_ANSWER, text=answer)
        case "not connected":
            return SendResult(outcome=CallOutcome.NOT_CONNECTED, text=answer)
        case "no code":
            return SendResult(outcome=CallOutcome.ANSWERED_WITHOUT_CODE, text=answer)
        case code:
            return SendResult(outcome=CallOutcome.ANSWERED, code=code, sms_id="sms-1" if code == "100" else "")


class World:
    """Carries the steps out against the real thing, and watches what is promised in every state."""

    def __init__(self):
        self.offset = timezone_now().astimezone(VIETNAM).replace(hour=9, minute=0) - timezone_now()
        self.messages = [queue_viber_message("0901888484", "Hello")]
        self.request_ids = [[self.messages[0].request_id]]
        self.paths = {}
        self.scripts = []
        self.calls = []
        self.trustworthy = set()
        """RequestIds of which an answer to its own call said that eSMS has taken them."""
        self.moves = []
        self.errors = []

    def now(self):
        return timezone_now() + self.offset

    def run(self, steps):
        for step in steps:
            getattr(self, type(step).__name__.lower())(step)
            if self.errors:
                raise self.errors[0]
            self.check()

    def index(self, step):
        return step.row % len(self.messages)

    def row(self, index):
        return OutboundViberMessage.objects.get(pk=self.messages[index].pk)

    def send(self, step):
        self.scripts.append(step)
        forget_breakers()
        deliver_messages([self.messages[self.index(step)].pk])
        self.scripts.pop()

    def on_the_wire(self, outgoing):
        step = self.scripts[-1]
        self.called(outgoing)
        self.run(step.during)
        forget_breakers()
        return self.answered(outgoing, step)

    def called(self, outgoing):
        assert outgoing.request_id not in self.trustworthy, "sent again though a trustworthy 100 had come"
        self.calls.append(outgoing.request_id)
        self.paths[outgoing.request_id] = urlsplit(outgoing.callback_url).path
        row = OutboundViberMessage.objects.get(request_id=outgoing.request_id)
        assert row.status == "sending"
        assert row.uncertain_since is not None, "committed before the call"
        known = self.request_ids[[message.pk for message in self.messages].index(row.pk)]
        if row.request_id != known[-1]:
            known.append(row.request_id)

    def answered(self, outgoing, step):
        if step.answer == "100":
            self.trustworthy.add(outgoing.request_id)
        return result_of(step.answer)

    def path(self, index, age):
        """Where eSMS reports to; None where it was never told of such an attempt."""
        request_ids = self.request_ids[index]
        return self.paths.get(request_ids[-1 - age]) if age < len(request_ids) else None

    def report(self, step):
        if path := self.path(self.index(step), step.age):
            response = Client().get(path, REPORTS[step.name])
            assert response.status_code == (400 if step.name == "nonsense" else 200)

    def resend(self, step):
        index = self.index(step)
        for row in resend_viber_messages([self.messages[index]]):
            if row.pk != self.messages[index].pk:
                self.messages.append(row)
                self.request_ids.append([row.request_id])
            else:
                assert row.request_id not in self.request_ids[index]
                self.request_ids[index].append(row.request_id)

    def cancel(self, step):
        cancel_viber_messages([self.messages[self.index(step)]])

    def later(self, step):
        if self.now().astimezone(VIETNAM).hour < 22:
            self.offset += dt.timedelta(minutes=20)

    def nextday(self, step):
        self.offset += dt.timedelta(days=1)

    def moved(self, message, old_status, new_status, **kwargs):
        self.moves.append((message.pk, str(old_status), str(new_status)))

    def check(self):
        """After every step, also while a call is on the wire."""
        last = {}
        for pk, old, new in self.moves:
            assert new in MOVES[old], (old, new)
            assert last.get(pk, old) == old, "a move starts where the one before ended"
            last[pk] = new
        for message in OutboundViberMessage.objects.all():
            assert message.status == last.get(message.pk, "queued"), "moved without a word"


timezone_now = timezone.now


def forget_breakers():
    """These examples are about rows; one call after the other must not open a circuit breaker."""
    ViberGatewayState.objects.all().delete()


def run(world_class, steps, monkeypatch_context):
    """One example, in a world of its own."""
    with monkeypatch_context() as patch:
        MemoryGateway.reset()
        ViberMessageEvent.objects.all().delete()
        OutboundViberMessage.objects.all().delete()
        world = world_class()
        patch.setattr(Gateway, "world", world)
        patch.setattr(timezone, "now", world.now)
        # The first message was queued by the wall clock, which may be ahead of the world's.
        OutboundViberMessage.objects.update(next_attempt_at=world.now())
        status_changed.connect(world.moved)
        try:
            world.run(steps)
            world.end()
        finally:
            status_changed.disconnect(world.moved)


@pytest.fixture
def live(settings, monkeypatch):
    """Runs a list of steps in a world."""
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": f"{__name__}.Gateway",
        "DISPATCHER": "esms_viber.dispatch.queue_only",
        "MAX_ATTEMPTS": 1000,
    }
    return lambda world_class, steps: run(world_class, steps, monkeypatch.context)


some_examples = settings(
    max_examples=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)

# -- 1. an eSMS that may say anything: every row ends where the model says ---------------------------------------------


@dataclass
class ModelRow:
    """What the rules make of one message, kept by hand."""

    status: str = "queued"
    request: int = 0
    """Counts the RequestIds."""
    refused: bool = False
    """The RequestId has ended with a refusal; the next claim draws a new one."""
    day: int | None = None
    """Since when a call may have been taken; None: surely none was."""
    repeats: bool = True
    due: bool = True
    claim: object = None
    lapsed: bool = False
    parent: int | None = None
    requests_of_people: set[int] = field(default_factory=set)


class ModelWorld(World):
    """Foretells the status of every row after every step."""

    def __init__(self):
        super().__init__()
        self.model = [ModelRow()]
        self.day = 0

    def send(self, step):
        self._take_over()
        row = self.model[self.index(step)]
        claim = object()
        first = row.day is None
        if row.status == "unknown" and row.day != self.day:
            row.repeats = False
        called = row.due and (row.status == "queued" or (row.status == "unknown" and row.repeats))
        calls_before = len(self.calls)
        if called:
            row.status, row.claim, row.lapsed = "sending", claim, False
            if row.refused:
                row.request, row.refused = row.request + 1, False
            row.day = self.day if first else row.day
        request = row.request
        super().send(step)
        assert (len(self.calls) > calls_before) is called, "called when it was not due, or not called when it was"
        if called:
            self._record(row, claim, first, request, step.answer)

    def _take_over(self):
        for row in self.model:
            if row.status == "sending" and row.lapsed:
                row.status, row.claim = "unknown", None
                row.due = row.repeats = row.day == self.day

    def _record(self, row, claim, first, request, answer):
        if row.claim is not claim:
            if row.status == "unknown" and row.request == request and answer in {"100"} | ({"124"} - {"124" * first}):
                row.status = "sent"
            return
        row.claim = None
        if answer == "100" or (answer == "124" and not first):
            row.status = "sent"
        elif first and (answer == "124" or answer in REFUSED):
            row.status, row.day = "failed", None
        elif first and (answer in ACCOUNT or answer == "not connected"):
            row.status, row.day, row.due, row.refused = "queued", None, False, answer in ACCOUNT
        else:
            row.status, row.due = "unknown", False
            row.repeats = row.day == self.day and (answer in LOST or answer in ACCOUNT or answer == "not connected")

    def report(self, step):
        super().report(step)
        index = self.index(step)
        row = self.model[index]
        if step.age or self.path(index, 0) is None:
            return
        if step.name in ON_THE_WAY and row.status in {"sending", "unknown"}:
            row.status, row.claim = "sent", None
        if step.name in FINAL and row.status in {"sending", "unknown", "sent", "failed"}:
            row.status, row.claim = FINAL[step.name], None

    def resend(self, step):
        index = self.index(step)
        row = self.model[index]
        busy = any(
            other.parent == index and other.status in {"queued", "sending", "unknown", "sent"} for other in self.model
        )
        if row.status in {"failed", "cancelled"} and not busy:
            self.model[index] = ModelRow(request=row.request + 1, parent=row.parent)
            # Whoever still holds an old attempt must find the row changed.
            row.claim = None
        elif row.status in {"sent", "delivered", "undelivered", "unknown"} and not busy:
            row.repeats = False
            self.model.append(ModelRow(parent=index))
        super().resend(step)

    def cancel(self, step):
        row = self.model[self.index(step)]
        if row.status == "queued":
            row.status = "cancelled"
        row.repeats = False if row.status == "unknown" else row.repeats
        super().cancel(step)

    def later(self, step):
        super().later(step)
        self._time_passes()

    def nextday(self, step):
        super().nextday(step)
        self.day += 1
        self._time_passes()

    def _time_passes(self):
        for row in self.model:
            row.due = row.lapsed = True

    def check(self):
        super().check()
        for index, row in enumerate(self.model):
            real = self.row(index)
            assert real.status == row.status
            assert self.request_ids[index].index(real.request_id) == len(self.request_ids[index]) - 1
            assert len(self.request_ids[index]) == row.request + 1
            if row.status in {"queued", "failed", "cancelled"}:
                assert real.uncertain_since is None
                assert real.request_id not in self.trustworthy
            if row.status == "unknown" and not row.repeats:
                # What a drain would only find out when it comes to it counts as well.
                assert real.next_attempt_at is None or row.day != self.day

    def end(self):
        event(f"ended {', '.join(sorted({row.status for row in self.model}))}")
        event(f"{len(self.model)} rows, {len(self.calls)} calls")


@some_examples
@given(steps)
@example([Send(answer="time-out", during=(Report(name="delivered"),))])
@example([Send(answer="146", during=(Report(name="on its way"),)), Report(name="delivered")])
@example([Send(answer="time-out"), Later(), Send(answer="124"), Report(name="undelivered"), Report(name="delivered")])
@example([Send(answer="time-out"), Later(), Send(answer="146"), Later(), Send(answer="100")])
@example([Send(answer="time-out"), Later(), Send(answer="103"), Later(), Send(answer="100")])
@example([Send(answer="HTML"), Later(), Send(answer="not connected"), Later(), Send(answer="no code"), Later(), Send()])
@example([Send(answer="103"), Later(), Send(answer="100"), Report(name="delivered", age=1), Report(name="delivered")])
@example([Send(answer="100", during=(Later(), Send(answer="time-out")))])
@example([Send(answer="146", during=(Later(), Send(answer="100"), Report(), Resend()))])
@example([Send(answer="time-out"), NextDay(), Send(answer="100"), Resend(), Send(row=1), Resend()])
@example([Send(answer="time-out"), Resend(), Later(), Send(), Send(row=1)])
@example([Send(answer="time-out"), Cancel(), Later(), Send(), Report(name="waiting")])
@example([Send(answer="146"), Resend(), Report(age=1), Send(answer="100"), Report(name="refused", age=1)])
def test_every_row_is_where_the_rules_put_it(live, steps):
    live(ModelWorld, steps)


# -- 2. an eSMS that keeps its word: each row is taken at most once ----------------------------------------------------


class HonestWorld(World):
    """eSMS takes a RequestId once a day, refuses only what it does not take, and reports only on what it took."""

    def __init__(self):
        super().__init__()
        self.known_today = set()
        self.taken = []
        self.ended = {}

    def answered(self, outgoing, step):
        answer = step.answer
        if answer == "124":
            answer = "100"
        if answer not in LOST and answer != "not connected" and outgoing.request_id in self.known_today:
            return result_of("124")
        takes = answer == "100" or (answer in [*LOST, *ODD] and step.taken)
        if takes and outgoing.request_id not in self.known_today:
            self.known_today.add(outgoing.request_id)
            self.taken.append(outgoing.request_id)
        if answer == "100":
            self.trustworthy.add(outgoing.request_id)
        return result_of(answer)

    def nextday(self, step):
        super().nextday(step)
        self.known_today.clear()

    def report(self, step):
        index = self.index(step)
        request_ids = self.request_ids[index]
        if step.age >= len(request_ids) or request_ids[-1 - step.age] not in self.taken:
            return
        if step.name in FINAL:
            request_id = request_ids[-1 - step.age]
            name = self.ended.setdefault(request_id, step.name)
            super().report(Report(step.row, name, step.age))
        else:
            super().report(step)

    def check(self):
        super().check()
        assert len(set(self.taken)) == len(self.taken), "one RequestId was taken twice"
        for index, request_ids in enumerate(self.request_ids):
            taken = [request_id for request_id in request_ids if request_id in self.taken]
            assert len(taken) <= 1, "one message was taken twice"
            status = self.row(index).status
            if status in {"queued", "failed", "cancelled"}:
                assert not taken, f"taken, but {status}"
            if status in {"sent", "delivered", "undelivered"}:
                assert taken, f"{status}, but never taken"
            if status in {"delivered", "undelivered"}:
                assert status == FINAL[self.ended[taken[0]]]

    def end(self):
        """Then everything works again, and people touch nothing: what can still go out goes out, once."""
        for index in range(len(self.messages)):
            if self.row(index).status in {"queued", "unknown"}:
                self.run([Later(), Send(row=index), Send(row=index)])
        statuses = {self.row(index).status for index in range(len(self.messages))}
        assert not statuses & {"queued", "sending"}
        event(f"ended {', '.join(sorted(statuses))}")
        for index, request_ids in enumerate(self.request_ids):
            if self.row(index).status == "unknown":
                self.run([Report(index, "waiting")])
                assert (self.row(index).status == "sent") is (request_ids[-1] in self.taken)


@settings(some_examples, max_examples=40)
@given(steps)
@example([Send(answer="time-out", taken=True), NextDay(), Send(answer="100")])
@example([Send(answer="time-out", taken=True, during=(NextDay(), Send(answer="100")))])
@example([Send(answer="time-out", taken=True), Later(), Send(answer="HTML"), Later(), Send(answer="146")])
@example([Send(answer="not connected"), Later(), Send(answer="time-out"), Later(), Send(answer="not connected")])
@example([Send(answer="199", taken=True), Cancel(), Resend(), Send(row=1), Report(), Report(row=1, name="refused")])
@example([Send(answer="146", during=(Later(), Send(answer="100"), Resend(), Send(row=1)))])
def test_an_esms_that_keeps_its_word_takes_each_message_at_most_once(live, steps):
    live(HonestWorld, steps)


# -- 3. final is final -------------------------------------------------------------------------------------------------


@settings(some_examples, max_examples=20)
@given(
    final=st.sampled_from(sorted(FINAL)),
    during=st.booleans(),
    rest=st.lists(
        st.one_of(st.builds(Report, st.just(0), st.sampled_from(sorted(REPORTS)), st.integers(0, 1)), *outside[2:]),
        max_size=5,
    ),
)
def test_nothing_changes_a_message_after_its_final_report(live, final, during, rest):
    class FinalWorld(World):
        def end(self):
            before = OutboundViberMessage.objects.filter(pk=self.messages[0].pk).values().get()
            assert before["status"] == FINAL[final]
            self.run([*rest, Send(answer="146"), Later(), Send(answer="time-out")])
            after = OutboundViberMessage.objects.filter(pk=self.messages[0].pk).values().get()
            assert after == before
            assert len(self.calls) == 1

    report = Report(name=final)
    live(FinalWorld, [Send(during=(report,))] if during else [Send(), report])
