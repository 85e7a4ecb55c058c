"""Several senders that are killed, a gateway that fails in every way, reports at any time: what is promised holds."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
from django.core.management import call_command
from django.db import connection
from django.utils import timezone

from esms_viber.models import OutboundViberMessage, ViberMessageEvent, ViberOptOut
from esms_viber.services import (
    erase_messages_of,
    opt_out,
    pause_sending,
    queue_viber_messages,
    resume_sending,
)
from tests.chaos.esms import Esms, Taken
from tests.chaos.sender import LEASE
from tests.factories import states
from tests.test_concurrency import _database_url

pytestmark = pytest.mark.django_db(transaction=True)

SENDERS = 4
READ_SECONDS = 0.5
CAMPAIGNS = 5
PURPOSES = ("transactional", "promotional", "transactional")
CLAIMING = 0.5
"""Seconds after which a claim that had looked at the pauses before is committed, even by a slow sender."""
DEADLINE = 240


class Senders:
    """Processes that send, and what is done to them."""

    def __init__(self, esms: Esms, origin: str, chance: random.Random) -> None:
        self._command = [sys.executable, "-m", "tests.chaos.sender", esms.base_url, origin, str(READ_SECONDS)]
        self._environment = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.settings",
            "TEST_DATABASE_URL": _database_url(),
        }
        self._chance = chance
        self.done_to_them: Counter[str] = Counter()
        self._running = [self._start() for _ in range(SENDERS)]
        self._stopped: list[tuple[float, subprocess.Popen[str]]] = []

    def _start(self) -> subprocess.Popen[str]:
        root = Path(__file__).parents[2]
        return subprocess.Popen(
            self._command, cwd=root, env=self._environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def torment_one(self) -> None:
        """Kill it, end it in good order, or hold it until its leases are over; another takes its place."""
        what = self._chance.choices(["kill", "stop for a while", "terminate"], [6, 2, 2])[0]
        self.done_to_them[what] += 1
        process = self._running.pop(self._chance.randrange(len(self._running)))
        if what == "kill":
            process.kill()
            process.communicate()
        elif what == "terminate":
            process.terminate()
            self._end(process)
        else:
            process.send_signal(signal.SIGSTOP)
            self._stopped.append((time.monotonic() + LEASE * 1.5, process))
        self._running.append(self._start())

    def continue_those_whose_time_has_come(self) -> None:
        for until, process in list(self._stopped):
            if until < time.monotonic():
                self._stopped.remove((until, process))
                process.send_signal(signal.SIGCONT)
                process.terminate()
                self._end(process)

    def _end(self, process: subprocess.Popen[str]) -> None:
        """In good order: exit code 0, nothing on the console."""
        output, deadline = None, time.monotonic() + 120
        while output is None:
            try:
                output, _ = process.communicate(timeout=1)
            except subprocess.TimeoutExpired:
                assert time.monotonic() < deadline, "it does not end"
                # One that was stopped in the middle of a transaction may hold what this one waits for.
                for _until, other in self._stopped:
                    other.send_signal(signal.SIGCONT)
        # Whoever is told to end before Django has started is simply gone.
        assert process.returncode in {0, -signal.SIGTERM}, output
        assert not output or process.returncode, output

    @property
    def some_are_held(self) -> bool:
        return bool(self._stopped)

    def close(self) -> None:
        for process in [*self._running, *(process for _until, process in self._stopped)]:
            process.kill()
            process.communicate()


class Control:
    """In the midst of it all: campaigns paused for a while, people who opt out, and what is old or erased."""

    def __init__(self, esms: Esms, chance: random.Random, number: int) -> None:
        self._esms, self._chance, self._number = esms, chance, number
        pause_sending("c0")
        waiting = self._waiting(campaign="c0")
        self._paused: tuple[float, str, set[str]] | None = time.monotonic() + 2, "c0", waiting
        self.held: list[tuple[str, int]] = [("c0", len(waiting))]
        """Campaigns that were paused, and how many of their messages waited then."""
        promotional = [n for n in range(number) if PURPOSES[n % 3] == "promotional"]
        self._leaving = [f"09{n:08d}" for n in chance.sample(promotional, number // 20)]
        self.erased: list[str] = []
        self.left = set(self._leaving[:10])
        """Phones that had opted out while their message waited, and no worker had claimed it."""
        for phone in self.left:
            opt_out(phone, scope="promotional")

    def act(self) -> None:
        if self._paused is None:
            name = f"c{self._chance.randrange(CAMPAIGNS)}"
            pause_sending(name)
            time.sleep(CLAIMING)
            waiting = self._waiting(campaign=name)
            self.held.append((name, len(waiting)))
            self._paused = time.monotonic() + self._chance.uniform(1, 4), name, waiting
        elif self._paused[0] < time.monotonic():
            self.resume()
        for phone in [self._leaving.pop() for _ in range(min(5, len(self._leaving)))]:
            opt_out(phone, scope="promotional")
        time.sleep(CLAIMING)
        out = list(ViberOptOut.objects.values_list("phone", flat=True))
        self.left |= self._waiting(phone__in=out, purpose="promotional")
        self.erased.append(f"09{self._chance.randrange(self._number):08d}")
        erase_messages_of(self.erased[-1])
        call_command("prune_viber_messages", redact_after=0, campaign="c1", verbosity=0)
        call_command("prune_viber_messages", delete_after=30, verbosity=0)

    def resume(self) -> None:
        if self._paused is not None:
            _until, name, waiting = self._paused
            assert not waiting & self._called_for(), f"{name} was paused before these were claimed"
            resume_sending(name)
            self._paused = None

    def _waiting(self, **found: object) -> set[str]:
        """The phones of messages that eSMS was never called for."""
        rows = OutboundViberMessage.objects.queued().filter(**found)
        return {phone.replace("+84", "0") for phone in rows.values_list("phone", flat=True)} - self._called_for()

    def _called_for(self) -> set[str]:
        return set(self._esms.books.called)


@pytest.mark.parametrize("seed", [int(os.environ.get("CHAOS_SEED", "20261124"))])
def test_nothing_is_lost_and_nothing_is_sent_twice(live_server, clock, settings, seed):
    """To repeat a run, or to have another one: CHAOS_SEED=number."""
    print(f"seed {seed}")
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.queue_only"}
    number = int(os.environ.get("CHAOS_MESSAGES", 600 if connection.vendor == "sqlite" else 3000))
    chance = random.Random(seed)
    messages = queue_in_portions(number)
    esms = Esms(seed, late=READ_SECONDS)
    control = Control(esms, chance, number)
    senders = Senders(esms, live_server.url, chance)
    try:
        torment(esms, senders, control, chance, number)
        wait_until_settled(esms, senders)
        check_control(control, esms)
        print(control.held, len(control.left), control.erased)
        print(dict(esms.books.faults), dict(senders.done_to_them), dict(esms.books.callbacks), dict(states()))
        check(esms, messages)
        ask_about_the_rest(esms, messages, settings, clock)
    finally:
        senders.close()
        esms.close()


def queue_in_portions(number: int) -> list[OutboundViberMessage]:
    long_ago = timezone.now() - dt.timedelta(days=40)
    old = OutboundViberMessage.objects.bulk_create(
        [OutboundViberMessage(phone=f"08{n + 60000000:08d}", content="Old", campaign="old") for n in range(300)]
    )
    times = dict.fromkeys(("created_at", "queued_at", "sent_at", "completed_at"), long_ago)
    OutboundViberMessage.objects.filter(pk__in=[row.pk for row in old]).update(status="delivered", **times)
    return queue_viber_messages(
        [
            OutboundViberMessage(
                phone=f"09{n:08d}", content=f"Order {n}", campaign=f"c{n % CAMPAIGNS}", purpose=PURPOSES[n % 3]
            )
            for n in range(number)
        ]
    )


def torment(esms: Esms, senders: Senders, control: Control, chance: random.Random, number: int) -> None:
    """While most messages are still to be sent; in between faults hit all of them for a while."""
    phases = [(0.6, esms.go_down), (0.6, esms.come_up)]
    for share, fault in ((0.15, "103"), (0.3, "503"), (0.45, "104"), (0.75, "503")):
        phases += [
            (share, partial(setattr, esms, "everybody", fault)),
            (share, partial(setattr, esms, "everybody", "")),
        ]
    phases.sort(key=lambda phase: phase[0])
    deadline = time.monotonic() + DEADLINE
    while len(esms.books.taken) < number * 0.9 and time.monotonic() < deadline:
        time.sleep(chance.uniform(0.4, 1))
        senders.torment_one()
        # One that is held may have rows locked, or the whole of SQLite, and this is who lets it go on.
        if not senders.some_are_held:
            control.act()
        senders.continue_those_whose_time_has_come()
        if phases and len(esms.books.taken) >= number * phases[0][0]:
            phases.pop(0)[1]()
    for _share, phase in phases:
        phase()
    while senders.some_are_held:
        senders.continue_those_whose_time_has_come()
        time.sleep(0.2)
    control.resume()


def wait_until_settled(esms: Esms, senders: Senders) -> None:
    deadline = time.monotonic() + DEADLINE
    rows = OutboundViberMessage.objects
    while (
        senders.some_are_held
        or esms.callbacks_left
        or rows.queued().exists()
        or rows.sending().exists()
        or rows.unknown().filter(next_attempt_at__isnull=False).exists()
    ):
        assert time.monotonic() < deadline, f"not settled: {states()}"
        senders.continue_those_whose_time_has_come()
        time.sleep(0.2)


def check_control(control: Control, esms: Esms) -> None:
    """Nothing was sent that was paused (see `Control.resume()`) or opted out before it was claimed."""
    assert sum(count for _name, count in control.held) > 0
    assert control.left
    assert not control.left & set(esms.books.called)
    out = OutboundViberMessage.objects.filter(phone__in=control.left)
    assert set(out.values_list("status", flat=True)) <= {"cancelled"}
    call_command("prune_viber_messages", redact_after=0, campaign="c1", verbosity=0)
    assert control.erased
    assert not OutboundViberMessage.objects.filter(phone__in=control.erased).exists()
    assert OutboundViberMessage.objects.filter(campaign="c1", phone="").exists()
    assert not OutboundViberMessage.objects.filter(campaign="old").exists()


def check(esms: Esms, messages: list[OutboundViberMessage]) -> None:
    books = esms.books
    assert set(states()) <= {"delivered", "undelivered", "sent", "unknown", "failed", "cancelled"}
    by_phone = Counter((taken.phone, taken.content) for taken in books.taken)
    assert not [key for key, count in by_phone.items() if count > 1], "taken more than once"
    assert len(books.by_request_id) == len(books.taken)
    known = {taken.phone: taken for taken in books.taken}
    rows = OutboundViberMessage.objects.in_bulk([message.pk for message in messages])
    assert len(rows) == len(messages), "nothing is lost"
    for message in messages:
        # A row that was redacted has no phone any more.
        phone = message.phone.replace("+84", "0")
        check_one(rows[message.pk], phone, known.get(phone), books.refused)
    assert set(books.callbacks) == {200}, "every callback was stored"
    kept = ViberMessageEvent.objects.filter(kind="callback", applied=True).count()
    assert kept >= sum(taken.reported for taken in books.taken)


def history(message: OutboundViberMessage) -> list[tuple[object, ...]]:
    return list(message.events.values_list("kind", "request_id", "code", "text", "data", "created_at"))


def ask_about_the_rest(esms: Esms, messages: list[OutboundViberMessage], settings, clock) -> None:
    """Of which eSMS has never reported; those whose SMSID was lost with the answer stay as they are."""
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": esms.base_url,
    }
    clock.advance(minutes=10)
    call_command("refresh_viber_messages", limit=10_000, verbosity=0)
    ends = {taken.phone: taken.end for taken in esms.books.taken}
    phones = {message.pk: message.phone.replace("+84", "0") for message in messages}
    for message in OutboundViberMessage.objects.exclude(sms_id=""):
        assert message.status == ends[phones[message.pk]]


def check_one(message: OutboundViberMessage, phone: str, taken: Taken | None, refused: set[str]) -> None:
    assert (message.claim_id, message.lease_until) == ("", None)
    if taken is not None and taken.reported:
        assert message.status == taken.end, f"{message.pk}: {message.status}, though {taken.end} was reported"
    elif message.status == "sent":
        assert taken is not None, f"{message.pk} is sent, and the gateway never took it: {history(message)}"
    elif message.status == "cancelled":
        assert taken is None, f"{message.pk} is cancelled, and the gateway took it"
        assert message.redacted_at or message.error_message == "Not sent: this phone has opted out."
    elif message.status == "failed":
        assert taken is None, f"{message.pk} failed, and the gateway took it"
        assert phone in refused
    else:
        assert message.status == "unknown"
        assert message.uncertain_since is not None
        lost = {"no_answer", "answered_without_code", "abandoned"}
        assert lost & {event.data.get("outcome") for event in message.events.all()}, "rightly unknown"
