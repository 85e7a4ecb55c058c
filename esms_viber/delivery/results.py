"""Record what came of each attempt."""

from __future__ import annotations

import copy
import datetime as dt
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

from django.db.models import Case, Value, When
from django.utils import timezone
from django.utils.translation import gettext_noop

from .. import lifecycle
from ..codes import Verdict, describe
from ..conf import get_settings
from ..database import in_transaction, lock
from ..gateways.base import SendResult, StatusResult
from ..gateways.responses import own_words
from ..lifecycle import Transition
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..phones import mask_phone
from .outcomes import Decision, back_off, decide
from .payload import Attempt

logger = logging.getLogger("esms_viber")

_NOTHING_SAID = gettext_noop("eSMS gave no answer that can be used.")
_CODE = re.compile(r"[0-9]{1,4}")


def record_attempts(attempts: Sequence[Attempt]) -> list[Transition]:
    """Record what these calls came to, and release the messages that were not called for, in one transaction.

    Where a report came before the answer, the status has moved already, and only what the answer adds is written.
    Returns the transitions that were committed, for the caller to announce.
    """
    if not attempts:
        return []

    def write() -> tuple[list[Attempt], list[Transition]]:
        # On copies, because a transaction that is repeated must find the messages as they were.
        copies = [replace(attempt, message=copy.copy(attempt.message)) for attempt in attempts]
        return copies, _record(copies)

    recorded, changes = in_transaction(write, using=OutboundViberMessage.objects.write_alias())
    originals = {id(copied.message): attempt.message for attempt, copied in zip(attempts, recorded, strict=True)}
    for attempt, copied in zip(attempts, recorded, strict=True):
        attempt.message.__dict__.update(copied.message.__dict__)
        if attempt.result is not None:
            _log(attempt.message, attempt.result)
    for change in changes:
        change.message = originals[id(change.message)]
    return changes


def _record(attempts: list[Attempt]) -> list[Transition]:
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=[attempt.message.id for attempt in attempts])
    stored = {pk: claim for pk, *claim in lock(rows.order_by("pk")).values_list("pk", "status", "claim_id")}
    called: list[tuple[Attempt, SendResult, Decision]] = []
    late: list[tuple[Attempt, SendResult]] = []
    changes: list[Transition] = []
    for attempt in attempts:
        message, result = attempt.message, attempt.result
        if message.id not in stored:
            # There is no history any more to write to.
            logger.warning("message %s was deleted while it was being sent", message.id)
        elif stored[message.id] == [Status.SENDING, message.claim_id]:
            if result is None:
                changes.append(_release(attempt))
            else:
                called.append((attempt, result, decide(result, first=attempt.first)))
        elif result is not None:
            late.append((attempt, result))
    unanswered = lifecycle.count_unanswered([attempt.message for attempt, _, decision in called if decision.counts])
    changes += [_answer(attempt.message, result, decision, unanswered) for attempt, result, decision in called]
    lifecycle.transition(*changes, announce_them=False)
    for change in changes:
        if change.event is not None:
            change.event.applied = True
    events = [change.event for change in changes]
    for attempt, result in late:
        event, moved = _record_late(attempt.message, result, first=attempt.first)
        events.append(event)
        if moved is not None:
            changes.append(moved)
    lifecycle.store_events(events)
    return changes


def _answer(
    message: OutboundViberMessage, result: SendResult, decision: Decision, unanswered: Counter[int]
) -> Transition:
    return lifecycle.answer(
        message,
        decision.status,
        _event(message, result),
        code=result.code,
        # The code alone says enough where there is one.
        error=(result.text or ("" if result.code else _NOTHING_SAID))[:500],
        sms_id=result.sms_id,
        next_attempt_at=_next_attempt_at(message, decision, unanswered),
    )


def _event(message: OutboundViberMessage, result: SendResult) -> ViberMessageEvent:
    return lifecycle.make_note(
        message,
        result.text,
        kind=ViberMessageEvent.Kind.ATTEMPT,
        code=result.code,
        duration_ms=result.duration_ms,
        data={"outcome": result.outcome.value, "http_status": result.http_status, "sms_id": result.sms_id},
    )


def _next_attempt_at(message: OutboundViberMessage, decision: Decision, unanswered: Counter[int]) -> dt.datetime | None:
    if not decision.repeat:
        return None
    when = timezone.now() + back_off(message.attempts)
    if decision.status == Status.QUEUED:
        return when
    if decision.counts and unanswered[message.id] + 1 >= get_settings().MAX_ATTEMPTS:
        return None
    since = message.uncertain_since
    return when if since is not None and lifecycle.may_repeat_at(since, when) else None


def _release(attempt: Attempt) -> Transition:
    """Release a message for which no call was made after all."""
    message, now = attempt.message, timezone.now()
    expired = message.expires_at is not None and message.expires_at <= now
    if attempt.first and expired:
        return lifecycle.expire(message)
    return lifecycle.release(
        message,
        when=None if expired else now,
        attempts=message.attempts - 1,
        code_result=attempt.code,
        uncertain_since=None if attempt.first else message.uncertain_since,
    )


def _record_late(
    message: OutboundViberMessage, result: SendResult, *, first: bool
) -> tuple[ViberMessageEvent, Transition | None]:
    """Record an answer to a claim that was lost: a report, or a worker that took the message over, came first."""
    event = _event(message, result)
    rows = OutboundViberMessage.objects.for_writing().filter(pk=message.id, request_id=message.request_id)
    rows.update(
        sms_id=Case(When(sms_id="", then=Value(result.sms_id)), default="sms_id"),
        code_result=Case(When(code_result="", then=Value(result.code)), default="code_result"),
    )
    message.refresh_from_db(using=rows.db)
    if message.request_id != event.request_id:
        return event, None
    taken = decide(result, first=first).status == Status.SENT
    if taken and message.status in {Status.SENDING, Status.UNKNOWN}:
        change = lifecycle.answer(
            message, Status.SENT, event, code=message.code_result, error="", sms_id=message.sms_id, next_attempt_at=None
        )
        event.applied = lifecycle.transition(change, announce_them=False)
        return event, change
    if message.status == Status.SENT and message.next_query_at is None:
        # An answer 124 has no SMSID. Now there is one, and eSMS can be asked about the message.
        when = lifecycle.first_query_at(message, message.sms_id, message.sent_at or timezone.now())
        rows.filter(status=Status.SENT).update(next_query_at=when)
    return event, None


def _log(message: OutboundViberMessage, result: SendResult) -> None:
    verdict = describe(result.code).verdict
    went_well = verdict is Verdict.ACCEPTED or message.status == Status.SENT
    level = logging.INFO if went_well else logging.WARNING
    logger.log(
        logging.ERROR if verdict is Verdict.ACCOUNT else level,
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
            "message %s: eSMS took an earlier call, and gave no SMSID; only a report can tell more", message.id
        )


def in_log(result: SendResult | StatusResult) -> str:
    """Say how a call went, without the gateway's own words, because these may repeat the phone or the text."""
    code = result.code if _CODE.fullmatch(result.code) else "-"
    http = f"HTTP {result.http_status}, " if result.http_status else ""
    return f"{result.outcome.value}, code {code}, {http}{result.duration_ms} ms {own_words(result.text)}".rstrip()
