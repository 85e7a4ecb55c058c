"""Writing down what calls came to and what a report says."""

from __future__ import annotations

import copy
import datetime as dt
import logging
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from django.db.models import Case, Count, Value, When
from django.utils import timezone
from django.utils.translation import gettext_noop

from . import lifecycle
from .calls import Attempt
from .codes import Verdict, describe
from .conf import get_settings
from .gateways.answers import own_words
from .gateways.base import Reach, SendResult, StatusResult
from .lifecycle import EXPIRED, Move
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .outcomes import Decision, decide, may_repeat_at, next_query_at, wait_before
from .phones import mask_phone
from .reports import DeliveryReport, ReportVerdict
from .rows import insert_each
from .transactions import in_transaction, lock, write_alias

logger = logging.getLogger("esms_viber")

_NOTHING_SAID = gettext_noop("eSMS gave no answer that can be used.")
_CODE = re.compile(r"[0-9]{1,4}")
ABANDONED = "abandoned"
"""Beside the values of `Reach`, in the history: the sender was gone before it could tell how far its call got."""


def record_attempts(attempts: Sequence[Attempt]) -> None:
    """Write down what these calls came to, and give back what was not called for: one transaction, a few statements.

    A report that came before the answer has moved the status already: then only what the answer adds is written.
    """
    if not attempts:
        return
    # On copies: what a rollback takes back must not stay on the messages, which are recorded once more then.
    recorded = in_transaction(lambda: _record([replace(a, message=copy.copy(a.message)) for a in attempts]))
    for attempt, copied in zip(attempts, recorded, strict=True):
        attempt.message.__dict__.update(copied.message.__dict__)
        if attempt.result is not None:
            _log(attempt.message, attempt.result)


def _record(attempts: list[Attempt]) -> list[Attempt]:
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=[a.message.id for a in attempts])
    there = {pk: claim for pk, *claim in lock(rows.order_by("pk")).values_list("pk", "status", "claim_id")}
    ours, lost = [], []
    for attempt in attempts:
        pk, claim_id = attempt.message.id, attempt.message.claim_id
        if pk not in there:
            # What was deleted has no history to write to.
            logger.warning("message %s was deleted while it was being sent", pk)
        elif there[pk] == [Status.SENDING, claim_id]:
            ours.append(attempt)
        elif attempt.result is not None:
            lost.append((attempt.message, attempt.result, attempt.first))
    events = [*_record_ours(ours), *(_record_late(*late) for late in lost)]
    insert_each(events, using=write_alias())
    return attempts


def _record_ours(attempts: list[Attempt]) -> list[ViberMessageEvent]:
    """Write the consequences for messages that are still claimed by us; the events are left to be stored."""
    made = [(a.message, a.result, decide(a.result, first=a.first)) for a in attempts if a.result is not None]
    unanswered = count_unanswered([message for message, _result, decision in made if decision.counts])
    moves = [
        Move(message, decision.status, _columns(message, result, decision, unanswered), _event(message, result))
        for message, result, decision in made
    ]
    moves += [_give_back(attempt) for attempt in attempts if attempt.result is None]
    lifecycle.move_all(moves)
    for move in moves:
        if move.event is not None:
            move.event.applied = True
    return [move.event for move in moves if move.event is not None]


def _event(message: OutboundViberMessage, result: SendResult) -> ViberMessageEvent:
    return lifecycle.make_note(
        message,
        result.text,
        kind=ViberMessageEvent.Kind.ATTEMPT,
        code=result.code,
        duration_ms=result.duration_ms,
        data={"reach": result.reach.value, "http_status": result.http_status, "sms_id": result.sms_id},
    )


def _columns(
    message: OutboundViberMessage, result: SendResult, decision: Decision, unanswered: Counter[int]
) -> dict[str, Any]:
    now = timezone.now()
    columns: dict[str, Any] = {
        "code_result": result.code,
        "error_message": "" if decision.status == Status.SENT else _reason(result),
        "next_attempt_at": None,
    }
    if result.sms_id:
        columns["sms_id"] = result.sms_id
    match decision.status:
        case Status.SENT:
            columns |= {"sent_at": now, "next_query_at": _next_query(message, result.sms_id, now)}
        case Status.FAILED:
            columns |= {"completed_at": now, "uncertain_since": None}
        case Status.QUEUED:
            columns |= {"uncertain_since": None, "next_attempt_at": now + wait_before(message.attempts)}
        case Status.UNKNOWN:
            columns["next_attempt_at"] = _next_repeat(message, decision, unanswered)
    return columns


def _reason(result: SendResult) -> str:
    """Nothing where the code alone says it."""
    return (result.text or ("" if result.code else _NOTHING_SAID))[:500]


def _next_query(message: OutboundViberMessage, sms_id: str, sent_at: dt.datetime) -> dt.datetime | None:
    """eSMS finds a message by its SMSID alone, and stores none that was sent to the sandbox."""
    return next_query_at(sent_at, timezone.now()) if sms_id and not message.sandbox else None


def _next_repeat(message: OutboundViberMessage, decision: Decision, unanswered: Counter[int]) -> dt.datetime | None:
    if message.uncertain_since is None or not decision.repeat:
        return None
    if decision.counts and unanswered[message.id] + 1 >= get_settings().MAX_ATTEMPTS:
        return None
    when = timezone.now() + wait_before(message.attempts)
    return when if may_repeat_at(message.uncertain_since, when) else None


def count_unanswered(messages: Sequence[OutboundViberMessage]) -> Counter[int]:
    """By primary key: calls under the current RequestId that left, so far as is known, and had no answer."""
    if not messages:
        return Counter()
    events = ViberMessageEvent.objects.using(write_alias()).filter(message__in=[message.id for message in messages])
    events = events.filter(data__reach__in=[Reach.NO_ANSWER.value, ABANDONED])
    counts = events.order_by().values_list("message", "request_id").annotate(Count("pk"))
    current = {message.id: message.request_id for message in messages}
    return Counter({pk: count for pk, request_id, count in counts if current[pk] == request_id})


def _give_back(attempt: Attempt) -> Move:
    """No call was made for it."""
    message, now = attempt.message, timezone.now()
    expired = message.expires_at is not None and message.expires_at <= now
    if attempt.first and expired:
        return Move(message, Status.FAILED, lifecycle.end_columns(EXPIRED), lifecycle.make_note(message, EXPIRED))
    return lifecycle.put_back(
        message,
        when=None if expired else now,
        attempts=message.attempts - 1,
        code_result=attempt.code,
        uncertain_since=None if attempt.first else message.uncertain_since,
    )


def _record_late(message: OutboundViberMessage, result: SendResult, first: bool) -> ViberMessageEvent:
    """The row is no longer ours: a report, or a sender that took it over, came first."""
    event = _event(message, result)
    decision = decide(result, first=first)
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.id, request_id=message.request_id)
    rows.update(
        sms_id=Case(When(sms_id="", then=Value(result.sms_id)), default="sms_id"),
        code_result=Case(When(code_result="", then=Value(result.code)), default="code_result"),
    )
    message.refresh_from_db(using=write_alias())
    if message.request_id != event.request_id:
        return event
    next_query = _next_query(message, message.sms_id, message.sent_at or timezone.now())
    if message.status in {Status.SENDING, Status.UNKNOWN} and decision.status == Status.SENT:
        columns: dict[str, Any] = {"sent_at": timezone.now(), "next_query_at": next_query}
        columns |= {"next_attempt_at": None, "error_message": ""}
        event.applied = lifecycle.move(message, Status.SENT, event=event, **columns)
    elif message.status == Status.SENT and message.next_query_at is None:
        # It was sent by a 124, without an SMSID; now it can be asked about.
        rows.filter(status=Status.SENT).update(next_query_at=next_query)
    return event


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
        tell_undecided(message)
    elif verdict is Verdict.DUPLICATE and message.status == Status.SENT and not message.sms_id:
        logger.warning(
            "message %s: eSMS took an earlier call, and gave no SMSID; only a report can tell more", message.id
        )


def in_log(result: SendResult | StatusResult) -> str:
    """How a call went, without the gateway's own words, because these may repeat the phone or the text."""
    code = result.code if _CODE.fullmatch(result.code) else "-"
    http = f"HTTP {result.http_status}, " if result.http_status else ""
    return f"{result.reach.value}, code {code}, {http}{result.duration_ms} ms {own_words(result.text)}".rstrip()


def tell_undecided(message: OutboundViberMessage) -> None:
    logger.error("message %s may have been sent, or not; nothing repeats it, somebody has to decide", message.id)


class MovedOn(Exception):
    """The message is not as it was read any more."""


def apply_report(
    message: OutboundViberMessage, report: DeliveryReport, event: ViberMessageEvent, *, again: bool = False
) -> bool:
    """Write what a report on the current RequestId says, in one UPDATE; True where it moved the status.

    Final states stay, because the first final report wins. `again`: a report that was stored before moves the status,
    or adds what the row lacks. The UPDATE names the status and the RequestId of the message as it was read; raises
    `MovedOn`, and writes nothing, where these have changed.
    """
    to = status_after(message, report)
    if to is None:
        return False
    columns = _reported(message, report)
    # Where no answer told when eSMS took it, that was with the first call that had none.
    sent_at = columns["sent_at"] = message.sent_at or message.uncertain_since or timezone.now()
    if to == Status.SENT and message.next_query_at is None:
        columns["next_query_at"] = _next_query(message, message.sms_id or report.sms_id, sent_at)
    if to == message.status:
        new = {
            name: value
            for name, value in columns.items()
            if value != getattr(message, name) and not (again and getattr(message, name) not in {None, ""})
        }
        rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.id, status=to)
        if new and not rows.filter(request_id=message.request_id).update(**new):
            raise MovedOn
        return False
    if to != Status.SENT:
        columns |= {"completed_at": timezone.now(), "next_query_at": None}
    if not lifecycle.move(message, to, event=event, under=message.request_id, next_attempt_at=None, **columns):
        raise MovedOn
    return True


def status_after(message: OutboundViberMessage, report: DeliveryReport) -> Status | None:
    """The status that the message has after the report; None where the report changes nothing."""
    match report.verdict:
        case ReportVerdict.DELIVERED:
            to = Status.DELIVERED
        case ReportVerdict.UNDELIVERED:
            to = Status.UNDELIVERED
        case ReportVerdict.TAKEN:
            to = Status.SENT
        case _:
            return None
    current = Status(message.status)
    return to if to in lifecycle.MOVES[current] or (to == current == Status.SENT) else None


def _reported(message: OutboundViberMessage, report: DeliveryReport) -> dict[str, Any]:
    columns: dict[str, Any] = {"send_status": report.send_status, "error_message": ""}
    if report.total_price is not None:
        columns["total_price"] = report.total_price
    if report.telco_id is not None:
        columns["telco_id"] = report.telco_id
    if report.sms_id and not message.sms_id:
        columns["sms_id"] = report.sms_id[:64]
    return columns
