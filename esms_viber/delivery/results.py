"""Record what came of calls, and commit what must be known before the next ones."""

from __future__ import annotations

import datetime as dt
import itertools
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Case, CharField, Value, When
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..codes import Verdict, describe, loggable
from ..conf import get_settings
from ..database import in_transaction, lock_columns, update_each
from ..gateways.base import CallOutcome, SendResult, SentResult, StatusResult
from ..gateways.responses import own_words
from ..lifecycle import Transition
from ..models import OutboundViberMessage, Status, ViberGatewayState, ViberMessageEvent
from ..phones import mask_phone
from . import breaker, claims
from .breaker import Lesson
from .outcomes import Decision, back_off, decide
from .payload import Attempt

logger = logging.getLogger("esms_viber")

_NOTHING_SAID = gettext_noop("eSMS gave no answer that can be used.")
_UNCOUNTED = gettext_noop("eSMS answered nobody at that time, so this call does not count as one of the tries.")
_LATEST = 50
"""Latest calls to look at for those that opened a breaker; some of them may be recorded in another order."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """The result of one transaction."""

    changes: list[Transition]
    """The committed transitions, for the caller to announce."""
    lesson: Lesson
    """The changes in the circuit breakers."""
    late: list[tuple[OutboundViberMessage, OutboundViberMessage]]
    """Messages whose claim was lost before the answer came, and their rows as they are now."""
    events: list[ViberMessageEvent]
    begun: list[Attempt]
    """Attempts to be called now; other workers have taken the rest in the meantime."""


def record_attempts(
    attempts: Sequence[Attempt],
    begin: Sequence[Attempt] = (),
    *,
    states: breaker.States,
    is_fresh: bool,
    in_request: bool,
    keep_trying: Callable[[], bool],
) -> Recorded:
    """Record what these calls came to, and release the messages that were not called for, in one transaction.

    The same transaction commits that the calls to `begin` may be made from then on, because a commit costs as much as
    many rows. Where a report came before the answer, the status has moved already, and only what the answer adds is
    written. `states`: the circuit breakers as the caller knows them; `is_fresh`: it looked just now. `keep_trying`: see
    `in_transaction()`.
    """

    def was_committed(recorded: Recorded) -> bool:
        # With the rows locked, because the lost transaction may be about to commit.
        stored = _lock_rows([*attempts, *begin])
        if recorded.events:
            return lifecycle.is_stored(recorded.events)
        return bool(recorded.changes) and not any(
            stored.get(change.message.id) == [Status.SENDING, change.message.claim_id] for change in recorded.changes
        )

    now = timezone.now()
    recorded = in_transaction(
        lambda: _record(attempts, begin, now, states, is_fresh=is_fresh, in_request=in_request),
        using=OutboundViberMessage.objects.write_alias(),
        was_committed=was_committed,
        keep_trying=keep_trying,
    )
    lifecycle.adopt(recorded.changes)
    for message, row in recorded.late:
        message.__dict__.update(row.__dict__)
    for attempt in recorded.begun:
        lifecycle.set_columns(attempt.message, **_columns_begun(attempt, now))
    breaker.tell(recorded.lesson)
    for attempt in attempts:
        if attempt.result is not None:
            _log(attempt.message, attempt.result)
    return recorded


def _lock_rows(attempts: Sequence[Attempt]) -> dict[int, list[str]]:
    """Lock the rows, and return status and claim by primary key.

    Note on each message whether it has been redacted since it was claimed.
    """
    messages, found = {attempt.message.id: attempt.message for attempt in attempts}, {}
    columns, using = ["id", "status", "claim_id", "redacted_at"], OutboundViberMessage.objects.write_alias()
    for pk, status, claim_id, redacted_at in lock_columns(OutboundViberMessage, list(messages), columns, using=using):
        # The time is as the driver gives it, and nothing but whether there is one matters here.
        messages[pk].redacted_at = None if redacted_at is None else timezone.now()
        found[pk] = [status, claim_id]
    return found


def _columns_begun(attempt: Attempt, now: dt.datetime) -> dict[str, Any]:
    """Values, not sums, so that writing them again changes nothing."""
    message = attempt.message
    # The site's own check lets it through now, so it is not held up any more.
    is_checked = {"error_message": "", "held_up_since": None} if message.held_up_since is not None else {}
    return is_checked | {
        "attempts": message.attempts + 1,
        "sent_to_sandbox": attempt.outgoing.sandbox,
        "code_result": "",
        "uncertain_since": message.uncertain_since or now,
        "lease_until": now + claims.LEASE,
    }


def _record(
    attempts: Sequence[Attempt],
    begin: Sequence[Attempt],
    now: dt.datetime,
    states: breaker.States,
    *,
    is_fresh: bool,
    in_request: bool,
) -> Recorded:
    stored = _lock_rows([*attempts, *begin])
    ours = [each for each in begin if stored.get(each.message.id) == [Status.SENDING, each.message.claim_id]]
    begun = [each for each in ours if each.message.redacted_at is None]
    columns = [({"pk": each.message.id}, _columns_begun(each, now)) for each in begun]
    update_each(OutboundViberMessage, columns, using=OutboundViberMessage.objects.write_alias())
    trouble = {name: state for name, state in states.items() if state.in_trouble}
    lesson = breaker.learn(attempts, known=trouble if is_fresh else None, in_request=in_request)
    states = {**states, **lesson.states}
    called: list[tuple[Attempt, SendResult, Decision]] = []
    lost: list[tuple[Attempt, SendResult]] = []
    changes = [lifecycle.release(each.message, when=None) for each in ours if each.message.redacted_at is not None]
    for attempt in attempts:
        message, result = attempt.message, attempt.result
        if message.id not in stored:
            # There is no history any more to write to.
            logger.warning("message %s was deleted while it was being sent", message.id)
        elif stored[message.id] == [Status.SENDING, message.claim_id]:
            if result is None:
                held = breaker.holding(states, attempt.outgoing.brandname, in_request=in_request)
                changes.append(_release(attempt, breaker.reason(held) if held is not None else {}))
            else:
                called.append((attempt, result, decide(result, first=attempt.first, while_open=attempt.while_open)))
        elif result is not None:
            lost.append((attempt, result))
    silent = states[breaker.ACCOUNT].silent if breaker.ACCOUNT in states else 0
    unanswered = lifecycle.count_unanswered([attempt.message for attempt, _, decision in called if decision.counts])
    for attempt, result, decision in called:
        when = _next_attempt_at(attempt, decision, unanswered[attempt.message.id], silent)
        changes.append(_answer(attempt, result, decision, when, now))
    lifecycle.write(*changes)
    for change in changes:
        if change.event is not None:
            change.event.applied = True
    events = [change.event for change in changes if change.event is not None]
    late = []
    known = _recorded_before([attempt for attempt, _result in lost])
    for attempt, result in lost:
        if (event := known.get(_fingerprint(attempt))) is not None:
            row, moved = event.message, _moved_before(attempt, event)
        else:
            row, event, moved = _record_late(attempt, result, now)
            events.append(event)
        late.append((attempt.message, row))
        changes += moved
    lifecycle.store_events(events)
    return Recorded(changes, lesson, late, events, begun)


def _fingerprint(attempt: Attempt) -> str:
    """Name an attempt by claim and number, so that a repeated transaction recognises its own work."""
    message = attempt.message
    return f"{message.claim_id}-{message.id}-{message.attempts}"


def _recorded_before(attempts: Sequence[Attempt]) -> dict[str | None, ViberMessageEvent]:
    """Find the events of attempts that an earlier try has recorded, though its caller was told that it had failed."""
    if not attempts:
        return {}
    events = ViberMessageEvent.objects.for_writing().filter(fingerprint__in=map(_fingerprint, attempts))
    return {event.fingerprint: event for event in events.select_related("message")}


def _moved_before(attempt: Attempt, event: ViberMessageEvent) -> list[Transition]:
    """Return the transition that was made together with the event, and announced to nobody."""
    to = Status(event.message.status)
    if not (event.applied and to in lifecycle.TRANSITIONS[Status.SENDING]):
        return []
    change = Transition(attempt.message, to, {}, event)
    change.message = event.message
    return [change]


def _answer(
    attempt: Attempt, result: SendResult, decision: Decision, when: dt.datetime | None, now: dt.datetime
) -> Transition:
    return lifecycle.answer(
        attempt.message,
        decision.status,
        _event(attempt, result),
        code=result.code,
        # The code alone says enough where there is one.
        error=(result.text or ("" if result.code else _NOTHING_SAID))[:500],
        sms_id=result.sms_id,
        next_attempt_at=when,
        now=now,
    )


def _event(attempt: Attempt, result: SendResult) -> ViberMessageEvent:
    message = attempt.message
    data = {"outcome": result.outcome.value, "http_status": result.http_status, "sms_id": result.sms_id}
    return lifecycle.make_note(
        message,
        # What eSMS says may repeat the phone or the text.
        result.text if message.redacted_at is None else "",
        kind=ViberMessageEvent.Kind.ATTEMPT,
        code=result.code,
        duration_ms=result.duration_ms,
        data=data | ({"while_open": True} if attempt.while_open else {}),
        fingerprint=_fingerprint(attempt),
    )


def _next_attempt_at(attempt: Attempt, decision: Decision, unanswered: int, silent: int) -> dt.datetime | None:
    """Say when to call again.

    `unanswered`: earlier calls for this message that had no answer. `silent`: calls in a row for any message, this one
    included, that had none.
    """
    message, now = attempt.message, timezone.now()
    if not decision.repeat:
        return None
    when = now + back_off(message.attempts)
    if attempt.while_open:
        # The breaker says when to call. What eSMS refuses goes to the end of the queue, because the next probe should
        # be another message; what had no answer keeps its place, and is the next probe.
        is_refused = decision.status == Status.QUEUED and bool(attempt.result and attempt.result.code)
        when = now if is_refused else message.next_attempt_at or now
    if decision.status == Status.QUEUED:
        return when
    # Where no message was accepted since this one was first called for, it is not the message.
    is_the_messages_own = not unanswered or silent <= unanswered
    if decision.counts and is_the_messages_own and unanswered + 1 >= get_settings().MAX_ATTEMPTS:
        return None
    since = message.uncertain_since
    return when if since is not None and lifecycle.may_repeat_at(since, max(when, now)) else None


def _release(attempt: Attempt, reason: Mapping[str, Any]) -> Transition:
    """Release a message for which no call was made after all."""
    message, now = attempt.message, timezone.now()
    expired = message.expires_at is not None and message.expires_at <= now
    if attempt.first and expired:
        return lifecycle.expire(message)
    columns = {"attempts": message.attempts - 1, "code_result": attempt.code}
    if attempt.first:
        columns |= {"uncertain_since": None, **reason}
    return lifecycle.release(message, when=None if expired else message.next_attempt_at, **columns)


def _record_late(
    attempt: Attempt, result: SendResult, now: dt.datetime
) -> tuple[OutboundViberMessage, ViberMessageEvent, list[Transition]]:
    """Record an answer to a claim that was lost: a report, or a worker that took the message over, came first."""
    event, request_id = _event(attempt, result), attempt.message.request_id
    rows = OutboundViberMessage.objects.for_writing().filter(pk=attempt.message.id)
    rows.filter(request_id=request_id).update(
        sms_id=Case(When(sms_id="", then=Value(result.sms_id)), default="sms_id", output_field=CharField()),
        code_result=Case(When(code_result="", then=Value(result.code)), default="code_result"),
    )
    row = rows.get()
    event.message = row
    if row.request_id != request_id:
        return row, event, []
    taken = decide(result, first=attempt.first).status == Status.SENT
    if taken and row.status in {Status.SENDING, Status.UNKNOWN}:
        change = lifecycle.answer(
            row, Status.SENT, event, code=row.code_result, error="", sms_id=row.sms_id, next_attempt_at=None, now=now
        )
        event.applied = lifecycle.write(change)
        return row, event, [change] if event.applied else []
    if row.status == Status.SENT and row.next_query_at is None:
        when = lifecycle.first_query_at(row, row.sent_at or now)
        rows.filter(status=Status.SENT, request_id=request_id).update(next_query_at=when)
    return row, event, []


def take_back_counts(opened: ViberGatewayState) -> None:
    """Count the calls that opened a breaker, because eSMS did not answer, against no message's `MAX_ATTEMPTS`.

    The first of them were recorded before anybody knew of an outage. A message that has stopped being repeated because
    of them is repeated again.
    """
    calls = ViberMessageEvent.objects.for_writing().filter(kind=ViberMessageEvent.Kind.ATTEMPT).order_by("-pk")
    silent = itertools.takewhile(lambda call: call.data.get("outcome") != CallOutcome.ANSWERED.value, calls[:_LATEST])
    counted = [call for call in silent if not call.data.get("while_open") and call.fingerprint][: opened.silent]

    def write() -> None:
        rows = {row.id: row for row in OutboundViberMessage.objects.locked(call.message_id for call in counted)}
        waiting = [
            row
            for row in rows.values()
            if row.status == Status.UNKNOWN and row.next_attempt_at is None and row.redacted_at is None
        ]
        before, most = lifecycle.count_unanswered(waiting), get_settings().MAX_ATTEMPTS
        notes = []
        for call in counted:
            if (row := rows.get(call.message_id)) is not None and row.request_id == call.request_id:
                fingerprint = f"uncounted-{call.pk}"
                notes.append(lifecycle.make_note(row, _UNCOUNTED, data={"uncounted": True}, fingerprint=fingerprint))
        known = ViberMessageEvent.objects.for_writing().filter(fingerprint__in=[note.fingerprint for note in notes])
        stored = set(known.values_list("fingerprint", flat=True))
        lifecycle.store_events(note for note in notes if note.fingerprint not in stored)
        after, now = lifecycle.count_unanswered(waiting), timezone.now()
        again = [
            row
            for row in waiting
            if before[row.id] >= most > after[row.id] and lifecycle.may_repeat_at(row.uncertain_since or now, now)
        ]
        pks = [row.id for row in again]
        OutboundViberMessage.objects.for_writing().filter(pk__in=pks).update(next_attempt_at=now)

    in_transaction(write, using=OutboundViberMessage.objects.write_alias())


def _log(message: OutboundViberMessage, result: SendResult) -> None:
    verdict = describe(result.code).verdict
    went_well = verdict is Verdict.ACCEPTED or message.status == Status.SENT
    level = logging.INFO if went_well else logging.WARNING
    logger.log(
        level,
        "message %s to %s: %s (%s)",
        message.id,
        mask_phone(message.phone),
        message.status,
        in_log(result),
    )
    if message.status == Status.UNKNOWN and message.next_attempt_at is None:
        lifecycle.log_undecided(message)
    elif verdict is Verdict.DUPLICATE and message.status == Status.SENT and not message.sms_id:
        logger.warning(
            "message %s: eSMS took an earlier call, and gave no SMSID; a report or eSMS's list may tell it", message.id
        )


def in_log(result: SendResult | StatusResult | SentResult) -> str:
    """Say how a call went, without the gateway's own words, because these may repeat the phone or the text."""
    code = loggable(result.code)
    http = f"HTTP {result.http_status}, " if result.http_status else ""
    return f"{result.outcome.value}, code {code}, {http}{result.duration_ms} ms {own_words(result.text)}".rstrip()
