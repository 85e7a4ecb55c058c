"""Claim, call, record: the worker that sends queued messages.

The database is used from the calling thread alone; the threads that call eSMS touch nothing but the network.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Any

from django.db import Error as DatabaseTrouble
from django.utils import timezone

from .. import lifecycle
from ..conf import get_settings
from ..database import AWAY, in_chunks, is_reachable, refuse_open_transaction
from ..exceptions import log_failure
from ..formatting import MOST_COUNTED, put_together
from ..gateways.base import CallOutcome, SendResult
from ..gateways.loading import get_gateway
from ..gateways.replies import LATE
from ..lifecycle import Transition
from ..models import OutboundViberMessage, Purpose, Status, ViberGatewayState, ViberPause
from ..models.pause import MOST_LANES, Holds, due_lanes
from . import breaker, claims
from .calls import GATHERING, Calls, is_doubtful, nested
from .interruptions import Interruptions, held_interruptions
from .payload import Attempt, Probe
from .results import Recorded, record_attempts, take_back_counts

logger = logging.getLogger("esms_viber")

LOOKING = 1.0
"""Seconds between two looks for work where nothing is due, and calls are still on the wire."""

IN_REQUEST = 10.0
"""Seconds in all for whoever waits in a web request, whose server may kill it after 30."""

_CLAIMED_AHEAD = 5
"""Seconds' worth of messages that a worker with a rate limit claims: others may send the rest, people cancel it."""

_PATIENCE = 10.0
"""Seconds for which results are offered to a database that answers, and does not take them."""

_TAKEN_OVER = "it is taken over as uncertain in two minutes"

_MARGIN = 10.0
"""Seconds for a probe beyond the time that its call may take."""


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """How many messages went which way, and whether the account is in trouble."""

    sent: int = 0
    failed: int = 0
    """Refused, expired or vetoed."""
    unknown: int = 0
    requeued: int = 0
    """Surely not taken; they wait for another try."""
    left: int = 0
    """Due, not held by a pause or hours, and not tried. Where any were to be sent, `MOST_COUNTED + 1` means more."""
    account_code: str = ""
    """The code with which eSMS refuses the account itself; empty: it does not."""
    outage: bool = False
    """Does eSMS not answer, so that no more calls were made?"""
    refused_brands: dict[str, str] = field(default_factory=dict)
    """Brand names whose messages wait, with the code with which eSMS refuses them."""


def deliver_messages(pks: Sequence[int]) -> DeliverySummary:
    """Send those of these messages that are due. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return Worker(pks).run()


def deliver_due_messages(limit: int | None = None) -> DeliverySummary:
    """Send what is due, at most `limit` messages. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return Worker(limit=limit).run()


class Worker:
    """One run: claim, call and record until nothing is due, a circuit breaker is open, or it is told to stop."""

    def __init__(
        self,
        pks: Iterable[int] | None = None,
        *,
        limit: int | None = None,
        within: float | None = None,
        states: breaker.States | None = None,
        holds: Holds | None = None,
        should_stop: Callable[[], bool] | None = None,
        on_progress: Callable[[int], object] | None = None,
    ) -> None:
        """`pks`: these messages; None: any. `within`: seconds in all, because a web request waits for it.

        `states`, `holds`: the circuit breakers and the pauses, if they were looked at just now. `should_stop` is asked
        all the time: once it says so nothing more is claimed, what is on the wire is finished and recorded, and the
        rest is released. `on_progress` is told how many more messages are done with.
        """
        self._conf = conf = get_settings()
        self._alias = OutboundViberMessage.objects.write_alias()
        self._pks = None if pks is None else list(pks)
        self._sources = self._all_sources()
        self._remaining = math.inf if limit is None else limit
        self._should_stop, self._on_progress = should_stop, on_progress
        self._in_request = within is not None
        self._deadline = math.inf if within is None else time.monotonic() + within
        self._calls = Calls(
            get_gateway(),
            conf,
            # A call that starts late would have too little time, and its message would be uncertain for nothing.
            start_before=None if within is None else self._deadline - within / 2,
            deadline=None if within is None else self._deadline,
        )
        if holds is not None:
            self._calls.holds = holds
        # Enough that no thread waits for the next claim, few enough that other workers find some.
        self._room = conf.CONCURRENCY * 8
        if conf.MAX_PER_SECOND:
            self._room = min(self._room, math.ceil(conf.MAX_PER_SECOND * _CLAIMED_AHEAD))
        self._together = conf.CONCURRENCY
        """Calls to begin and to record together, while threads make as many others: with more they would run dry."""
        self._promotional: dict[int, bool] = {}
        """By the first key of each source that names keys: is any of it promotional?"""
        self._claimed: dict[int, OutboundViberMessage] = {}
        """By primary key: claimed, and no call begun; in the order of the calls."""
        self._on_the_wire: dict[Future[None], Attempt] = {}
        """Committed as perhaps called. At most twice `CONCURRENCY`, because a killed process leaves them uncertain."""
        self._states: breaker.States = states or {}
        self._looked_at = -math.inf if states is None else time.monotonic()
        self._learned_at = -math.inf
        self._next_probes: dict[str, float] = {}
        self._repeats_first = True
        self._renewed_at = self._next_look = 0.0
        self._counts: Counter[str] = Counter()
        self._interruptions = Interruptions()
        self._kept = 0
        """Messages that were called for and are due again at once; they do not count as left."""

    def _all_sources(self) -> deque[list[int] | None]:
        """Return the sources to claim from, one after the other: any messages, or these in chunks."""
        return deque(in_chunks(self._pks) if self._pks is not None else [None])

    def run(self, claimed: Sequence[OutboundViberMessage] = ()) -> DeliverySummary:
        """Send the messages that were claimed before, and then the others."""
        with ExitStack() as stack:
            stack.enter_context(nested())
            if self._should_stop is None:  # else whoever passes it has handlers that raise nothing
                self._interruptions = stack.enter_context(held_interruptions())
            return self._run(claimed)

    def _run(self, claimed: Sequence[OutboundViberMessage]) -> DeliverySummary:
        self._renewed_at = time.monotonic()
        self._claimed = {message.id: message for message in claimed}
        error: BaseException | None = None
        try:
            if self._sources:
                refuse_open_transaction("Call it after the commit, e.g. by transaction.on_commit().", using=self._alias)
                self._announce(claims.take_over_abandoned())
            while self._start_calls() or self._on_the_wire:
                self._gather()
        except BaseException as raised:
            error = raised
            raise
        finally:
            self._finish(error)
        return self._summary()

    def _start_calls(self) -> bool:
        """Claim and start as many messages as there is room for. Is there, or may there be, more to do?"""
        self._look()
        while not self._stopped() and (account := self._holding(breaker.ACCOUNT)) is not None:
            # Either one call is made as the probe, or the run ends as soon as those on the wire have finished.
            self._repeats_first = False
            if any(each.probe and each.probe.name == breaker.ACCOUNT for each in self._on_the_wire.values()):
                return True
            if not self._on_the_wire:
                if self._probe(account):
                    return True
                self._look(again=True)
            if self._on_the_wire or self._holding(breaker.ACCOUNT) is not None:
                self._calls.stop()
        if self._stopped():
            self._release()
            return False
        for brandname in self._calls.held:
            # What was held a moment ago may have been found to be over meanwhile.
            state = self._holding(brandname)
            if state is not None and len(self._on_the_wire) < 2 * self._together:
                self._probe(state)
        self._claim()
        if not self._on_the_wire:
            self._start(self._ask())
        return bool(self._claimed) or self._has_more()

    # -- the circuit breakers ------------------------------------------------------------------------------------------

    def _look(self, *, again: bool = False) -> None:
        """Look at the circuit breakers and the pauses every second: others may have found out or paused something."""
        if again or time.monotonic() - self._looked_at > LOOKING:
            self._states, self._looked_at = breaker.look_in(), time.monotonic()
            self._heed(ViberPause.objects.holds())
            out, changes = claims.take_out_opted_out(self._claimed.values())
            self._announce(changes)
            self._drop(out)
        self._hold_brands()

    def _heed(self, holds: Holds) -> None:
        """Start no call for what has to wait by now, and give it back."""
        self._calls.holds = holds
        held = [message for message in self._claimed.values() if holds.reason(message)]
        if held:
            self._announce(claims.release(held, {}))
            self._drop(held)

    def _drop(self, messages: Sequence[OutboundViberMessage]) -> None:
        """Forget claimed messages that are not called for after all."""
        dropped = set(map(id, messages))  # because one that a receiver has deleted has no key any more
        self._claimed = {pk: message for pk, message in self._claimed.items() if id(message) not in dropped}
        self._count_done(messages)

    def _hold_brands(self) -> None:
        self._calls.held = frozenset(name for name, state in self._states.items() if name and state.is_open)

    def _held_names(self) -> list[str]:
        """Brand names, as they stand in the rows, whose messages wait."""
        return [each for name in self._calls.held for each in breaker.names_of(name)]

    def _holding(self, brandname: str) -> ViberGatewayState | None:
        return breaker.holding(self._states, brandname, in_request=self._in_request)

    def _probe(self, state: ViberGatewayState) -> bool:
        """Make the one call that shows whether a fault is over, if it is due, and no other process makes it."""
        name, now = state.brandname, time.monotonic()
        if not state.is_probe_due() or self._next_probes.get(name, 0) > now or self._remaining <= 0:
            return False
        self._next_probes[name] = now + LOOKING  # if it comes to nothing
        brandnames = breaker.names_of(name) if name else []
        due = OutboundViberMessage.objects.for_writing().due()
        if not self._claimed and not (due.filter(brandname__in=brandnames) if brandnames else due).exists():
            return False
        seconds = self._deadline - now if self._in_request else sum(self._conf.TIMEOUT)
        probe = breaker.win_probe(name, seconds + _MARGIN)
        if probe is None:
            return False
        is_started, but_not = False, [] if name else self._held_names()
        try:
            # A message may not be called for after all, because it has expired, or because the site refuses it.
            while not is_started and not self._stopped():
                found = claims.claim_for_probe(
                    self._pks,
                    brandnames=brandnames,
                    but_not=but_not,
                    another=state.probes % 4 == 3,
                )
                self._take(found)
                # A message that was claimed before, for a caller that waits for it, will do as well.
                mine = [each for each in self._claimed.values() if not brandnames or each.brandname in brandnames]
                unrecorded = self._unrecorded()
                if messages := [each for each in [*found.ready, *mine] if each.id not in unrecorded][:1]:
                    is_started = self._start(self._ask(messages, probe))
                elif not found.found:
                    if not but_not:
                        break
                    but_not = []  # All that is due waits for its brand name too, and shows as well that eSMS answers.
        finally:
            if not is_started:
                breaker.give_back(probe)
        if is_started:
            self._next_probes[name] = 0.0
        return is_started

    # -- claim ---------------------------------------------------------------------------------------------------------

    def _claim(self) -> None:
        # Wait until half of the room is free, because a claim of many costs no more than a claim of one.
        while (
            not self._stopped()
            and self._has_more()
            and (room := self._room - len(self._claimed) - len(self._on_the_wire)) * 2 > self._room
        ):
            source = self._sources[0]
            if source is not None and self._has_promotional(source):
                # An OTP's own task may stand behind hundreds of others like this one.
                urgent = int(min(room, self._remaining))
                held = self._held_names()
                self._take(claims.claim(urgent, but_not=held, holds=self._calls.holds, urgent_only=True))
                room = self._room - len(self._claimed) - len(self._on_the_wire)
            room, known = int(min(room, self._remaining)), self._calls.holds
            if room <= 0:
                break
            found = claims.claim(
                room, source, but_not=self._held_names(), holds=known, repeats_first=self._repeats_first
            )
            if found.holds != known:
                pass  # some were held since, and there may be others: look again
            elif source is not None and found.found < room:
                self._sources.popleft()
            elif source is None and not found.found:
                # Fewer than asked for would only mean that others had some locked for a moment.
                self._next_look = time.monotonic() + LOOKING
            self._take(found)

    def _has_promotional(self, pks: Sequence[int]) -> bool:
        if pks[0] not in self._promotional:
            due = OutboundViberMessage.objects.for_writing().due()
            self._promotional[pks[0]] = due.filter(pk__in=pks, purpose=Purpose.PROMOTIONAL).exists()
        return self._promotional[pks[0]]

    def _take(self, found: claims.Claimed) -> None:
        # In this order within what is claimed too, because that may be many.
        ordered = sorted([*self._claimed.values(), *found.ready], key=_urgency)
        self._claimed = {message.id: message for message in ordered}
        self._heed(found.holds)
        self._remaining -= len(found.ready)
        self._count_done(found.settled)
        self._announce(found.changes)

    def _has_more(self) -> bool:
        return bool(self._sources) and self._remaining > 0 and time.monotonic() >= self._next_look

    def _stopped(self) -> bool:
        self._interruptions.let_through()
        if self._should_stop is not None and self._should_stop():
            self._calls.stop()
        return self._calls.stopped

    def _release(self) -> None:
        """Give back what was claimed, and is not called for now."""
        released = list(self._claimed.values())
        changes = claims.release(released, self._reason())
        self._drop(released)
        self._announce(changes)

    def _reason(self, brandname: str = breaker.ACCOUNT) -> dict[str, Any]:
        state = self._holding(brandname)
        return breaker.reason(state) if state is not None else {}

    # -- call ----------------------------------------------------------------------------------------------------------

    def _ask(self, messages: Sequence[OutboundViberMessage] | None = None, probe: Probe | None = None) -> list[Attempt]:
        """Ask the site's receivers about claimed messages: these, or as many as may be begun. Returns those that pass.

        Some calls are begun ahead, so that no thread waits for a commit.
        """
        if messages is None:
            if self._holding(breaker.ACCOUNT) is not None:
                return []  # until the probe has shown more
            room = 2 * self._together - sum(not future.done() for future in self._on_the_wire)
            messages = list(itertools.islice(self._claimed.values(), room if room >= self._together else 0))
        passed, unrecorded = [], self._unrecorded()
        for message in messages:
            # A receiver of the site's may take its time, and somebody opts out or pauses meanwhile.
            self._look()
            if self._stopped():
                return []
            if message.id is None:
                self._drop([message])  # A receiver has deleted it.
            if message.id not in self._claimed or message.id in unrecorded:
                continue
            attempt = claims.prepare(message, probe)
            if probe is None and (reason := self._reason(attempt.outgoing.brandname)):
                is_refused, changes = True, claims.release([message], reason)
            else:
                is_refused, changes = claims.refused_by_site(attempt)
            if is_refused:
                self._drop([message])
                self._announce(changes)
            else:
                passed.append(attempt)
            self._hold()
        if passed:
            self._look()
        # What had passed may have been given back since, and a circuit breaker may be open.
        passed = [attempt for attempt in passed if attempt.message.id in self._claimed]
        if probe is not None:
            return passed
        is_open = self._holding(breaker.ACCOUNT) is not None
        return [each for each in passed if not is_open and self._holding(each.outgoing.brandname) is None]

    def _unrecorded(self) -> set[int]:
        """Messages with a call that is not recorded yet.

        One of them may have been claimed again, where this worker was so slow that another has taken it over.
        """
        return {attempt.message.id for attempt in self._on_the_wire.values()}

    def _start(self, passed: Sequence[Attempt]) -> bool:
        """Begin calls while there are no results to be recorded. Does any of them start?"""
        self._record([], passed)
        return any(attempt in passed for attempt in self._on_the_wire.values())

    def _hold(self) -> None:
        """Renew the leases in time.

        A worker that sends anything also takes over what dead ones left, however busy it is, because an uncertain call
        can be repeated on its own day only.
        """
        if time.monotonic() - self._renewed_at > claims.LEASE.total_seconds() / 4:
            self._renewed_at = time.monotonic()
            claims.renew([*(attempt.message for attempt in self._on_the_wire.values()), *self._claimed.values()])
            if self._pks is None:
                self._announce(claims.take_over_abandoned())

    # -- record --------------------------------------------------------------------------------------------------------

    def _gather(self) -> None:
        """Record what has been answered within a moment."""
        if self._on_the_wire:
            done = self._calls.gather(self._on_the_wire, min(len(self._on_the_wire), self._together), GATHERING)
            pending = self._on_the_wire.keys() - done
            if pending and time.monotonic() > self._deadline:
                done |= self._give_up(pending)
            self._record(done, self._ask())
        self._hold()

    def _give_up(self, pending: set[Future[None]]) -> set[Future[None]]:
        """Take calls that have passed the deadline for unanswered, whatever the gateway makes of it."""
        wait(pending, timeout=0.5)  # a gateway that knows of the deadline ends them by itself
        for future in pending:
            if not future.cancel() and not future.done():
                # On a copy, because the thread may still write its result.
                late = SendResult(outcome=CallOutcome.NO_ANSWER, text=put_together(LATE, f"{IN_REQUEST:g} s"))
                self._on_the_wire[future] = replace(self._on_the_wire[future], result=late, ended=timezone.now())
        return pending

    def _record(self, done: Collection[Future[None]], begin: Sequence[Attempt] = (), *, keep: bool = True) -> None:
        """Record results, act on what they show, and start the calls to `begin`.

        `keep`: wait until the database takes them.
        """
        attempts = [self._on_the_wire[future] for future in done]
        if not attempts and not begin:
            return
        stored = self._store(attempts, begin, keep=keep)
        for future in done:
            del self._on_the_wire[future]
        for recorded in stored:
            self._states = {**self._states, **recorded.lesson.states}
        self._hold_brands()
        account = self._holding(breaker.ACCOUNT)
        if account is not None and not account.is_probe_due() and not any(attempt.probe for attempt in begin):
            self._calls.stop()
        self._calls.resume(sum(is_doubtful(attempt) for attempt in attempts))
        for attempt in [attempt for recorded in stored for attempt in recorded.begun]:
            self._on_the_wire[self._calls.start(attempt)] = attempt
        for attempt in begin:
            del self._claimed[attempt.message.id]

        # Tell the receivers first: what follows uses the database, which may be away, and nobody would tell them later.
        for recorded in stored:
            self._announce(recorded.changes)
        for attempt in attempts:
            if attempt.probe is not None and attempt.result is None:
                breaker.give_back(attempt.probe)
                self._next_probes[attempt.probe.name] = time.monotonic() + LOOKING
        for recorded in stored:
            for state in recorded.lesson.opened:
                if state.silent:
                    take_back_counts(state)
            if recorded.lesson.closed:
                # There may be messages that were stepped over.
                self._sources, self._next_look = self._all_sources(), 0.0
        called, now = [attempt.message for attempt in attempts if attempt.result is not None], timezone.now()
        self._kept += sum(message.is_due(now) for message in called)
        self._count(called)
        self._count_done([attempt.message for attempt in attempts if attempt.result is None])
        self._count_done([attempt.message for attempt in begin if attempt.message.redacted_at is not None])

    def _store(
        self, attempts: Sequence[Attempt], begin: Sequence[Attempt], *, keep: bool, alone: bool = False
    ) -> list[Recorded]:
        """Store the results together or, where that fails, one by one, so that none costs another.

        `alone`: this one has failed before, together with others or by something that was no error of the database.
        """
        began = time.monotonic()
        # Another process may have found out something, which counts within a second.
        is_fresh = began - self._learned_at < breaker.ACCURACY.total_seconds()
        if not is_fresh and attempts:
            self._learned_at = began

        def keep_trying() -> bool:
            # The database is away, and the answers are known to this process alone.
            told_to_end = self._interruptions.wait or (self._should_stop is not None and self._should_stop())
            if not (keep and attempts) or told_to_end or time.monotonic() > self._deadline:
                return False
            time.sleep(LOOKING)
            return not is_reachable(self._alias) or time.monotonic() - began < _PATIENCE

        try:
            return [
                record_attempts(
                    attempts,
                    begin,
                    states=self._states,
                    is_fresh=is_fresh,
                    in_request=self._in_request,
                    keep_trying=keep_trying,
                )
            ]
        except Exception as error:
            if isinstance(error, AWAY) and not is_reachable(self._alias) and attempts:
                log_failure(error, "what came of %d calls is lost with the database; %s", len(attempts), _TAKEN_OVER)
                raise
            if alone or (len(attempts) + len(begin) == 1 and isinstance(error, DatabaseTrouble)):
                pk = [*attempts, *begin][0].message.id
                log_failure(error, "what came of message %s cannot be stored; %s", pk, _TAKEN_OVER)
                return []
            log_failure(error, "%d results cannot be stored together; they are stored one by one", len(attempts))
        stored: list[Recorded] = []
        for done, attempt in enumerate(attempts):
            if time.monotonic() > self._deadline:
                logger.error("no time is left to store %d results; %s", len(attempts) - done, _TAKEN_OVER)
                break
            stored += self._store([attempt], (), keep=False, alone=True)
        for attempt in begin:
            stored += self._store([], [attempt], keep=False, alone=True)
        return stored

    def _finish(self, error: BaseException | None) -> None:
        """Let the calls on the wire end, store their results, and give back what was not called for."""
        self._calls.stop()
        try:
            if self._on_the_wire:
                pending = {future for future in self._on_the_wire if not future.cancel()}
                wait(pending, timeout=max(self._deadline - time.monotonic(), 0) if self._in_request else None)
                self._give_up({future for future in pending if not future.done()})
                # A database that is away is waited for, but nothing else that ends the process.
                self._record(list(self._on_the_wire), keep=isinstance(error, AWAY))
        finally:
            try:
                self._release()
            except AWAY as away:
                count = len(self._claimed)
                log_failure(away, "%d messages cannot be released now; they are taken over in two minutes", count)

    def _announce(self, changes: Sequence[Transition]) -> None:
        """Tell the site's receivers what was committed. They may take their time, so leases are renewed meanwhile."""
        for change in changes:
            lifecycle.announce(change)
            with suppress(*AWAY):  # the others are told all the same; the database is missed soon enough
                self._hold()

    def _count_done(self, messages: Sequence[OutboundViberMessage]) -> None:
        """Count those that are done with, though no call was made. What was released is still due: it is left."""
        now = timezone.now()
        self._count([message for message in messages if not message.is_due(now)])

    def _count(self, messages: Sequence[OutboundViberMessage]) -> None:
        self._counts.update(message.status for message in messages)
        if self._on_progress is not None:
            self._on_progress(len(messages))

    def _summary(self) -> DeliverySummary:
        counts, account = self._counts, self._holding(breaker.ACCOUNT)
        return DeliverySummary(
            sent=counts[Status.SENT] + counts[Status.DELIVERED] + counts[Status.UNDELIVERED],
            failed=counts[Status.FAILED] + counts[Status.CANCELLED],
            unknown=counts[Status.UNKNOWN],
            requeued=counts[Status.QUEUED],
            left=max(self._left() - self._kept, 0),
            account_code=account.code if account is not None else "",
            outage=account is not None and not account.code,
            refused_brands={name: self._states[name].code for name in self._calls.held},
        )

    def _left(self) -> int:
        rows, holds, now = OutboundViberMessage.objects.for_writing(), self._calls.holds, timezone.now()
        if self._pks is None:
            left = 0
            for lane in itertools.islice(due_lanes(rows, holds, now), MOST_LANES):
                left += lane.bounded_count(beyond=self._kept)
                if left > MOST_COUNTED + self._kept:
                    break
            return left
        due = rows.due(now).filter(purpose__in=holds.purposes(now)).exclude(campaign__in=holds.campaigns)
        return 0 if holds.everything else sum(due.filter(pk__in=chunk).count() for chunk in in_chunks(self._pks))


def _urgency(message: OutboundViberMessage) -> bool:
    return message.purpose == Purpose.PROMOTIONAL
