"""Writing down what a call came to and what a report says."""

from __future__ import annotations

import logging
from typing import Any

from django.db.models import Case, Value, When
from django.utils import timezone

from . import lifecycle
from .codes import describe
from .conf import get_settings
from .gateways.base import Reach, SendResult
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .outcomes import Decision, decide, may_repeat_at, wait_before
from .phones import mask_phone
from .reports import DeliveryReport, ReportVerdict
from .transactions import write_alias

logger = logging.getLogger("esms_viber")


def record_result(message: OutboundViberMessage, result: SendResult, *, claim_id: str, first: bool) -> None:
    """Write the attempt and its consequence.

    A report that came before the answer has moved the status already: then only what the answer adds is written.
    """
    decision = decide(result, first=first)
    event = ViberMessageEvent(
        message=message,
        kind=ViberMessageEvent.Kind.ATTEMPT,
        request_id=message.request_id,
        code=result.code,
        text=result.text[:500],
        duration_ms=result.duration_ms,
        data={"reach": result.reach.value, "http_status": result.http_status, "sms_id": result.sms_id},
    )
    columns = _columns(message, result, decision)
    event.applied = lifecycle.move(message, decision.status, event=event, claim=claim_id, **columns)
    if not event.applied:
        event.applied = _add_late_answer(message, result, decision, event)
    event.save(using=write_alias())
    _log(message, result, decision)


def _columns(message: OutboundViberMessage, result: SendResult, decision: Decision) -> dict[str, Any]:
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
            columns["sent_at"] = now
        case Status.FAILED:
            columns |= {"completed_at": now, "uncertain_since": None}
        case Status.QUEUED:
            columns |= {"uncertain_since": None, "next_attempt_at": now + wait_before(message.attempts)}
        case Status.UNKNOWN:
            columns["next_attempt_at"] = _next_repeat(message, decision)
    return columns


def _reason(result: SendResult) -> str:
    return (result.text or str(describe(result.code).meaning))[:500]


def _next_repeat(message: OutboundViberMessage, decision: Decision) -> Any:
    if message.uncertain_since is None or not decision.repeat:
        return None
    if decision.counts and _unanswered(message) + 1 >= get_settings().MAX_ATTEMPTS:
        return None
    when = timezone.now() + wait_before(message.attempts)
    return when if may_repeat_at(message.uncertain_since, when) else None


def _unanswered(message: OutboundViberMessage) -> int:
    """Calls before this one that left and had no answer. One that never left uses up no repeat."""
    events = ViberMessageEvent.objects.using(write_alias()).filter(
        message=message, kind=ViberMessageEvent.Kind.ATTEMPT, request_id=message.request_id
    )
    return events.filter(data__reach=Reach.NO_ANSWER.value).count()


def _add_late_answer(
    message: OutboundViberMessage, result: SendResult, decision: Decision, event: ViberMessageEvent
) -> bool:
    """The row is no longer ours: a report, or a sender that took it over, came first. True where it moved yet."""
    rows = OutboundViberMessage.objects.using(write_alias()).filter(pk=message.pk, request_id=message.request_id)
    rows.update(
        sms_id=Case(When(sms_id="", then=Value(result.sms_id)), default="sms_id"),
        code_result=Case(When(code_result="", then=Value(result.code)), default="code_result"),
    )
    message.refresh_from_db(using=write_alias())
    is_open = message.status in {Status.SENDING, Status.UNKNOWN} and message.request_id == event.request_id
    if not is_open or decision.status != Status.SENT:
        return False
    columns: dict[str, Any] = {"sent_at": timezone.now(), "next_attempt_at": None, "error_message": ""}
    return lifecycle.move(message, Status.SENT, event=event, **columns)


def _log(message: OutboundViberMessage, result: SendResult, decision: Decision) -> None:
    level = logging.INFO if decision.status == Status.SENT else logging.WARNING
    logger.log(
        logging.ERROR if decision.stops else level,
        "message %s to %s: %s (code %s, %d ms) %s",
        message.pk,
        mask_phone(message.phone),
        message.status,
        result.code or "-",
        result.duration_ms,
        result.text,
    )


def apply_report(message: OutboundViberMessage, report: DeliveryReport, event: ViberMessageEvent) -> bool:
    """Move the status as a report on the current RequestId demands; True where it moved.

    To be called with the row locked. Final states stay: the first final report wins.
    """
    to = _status_after(message, report)
    columns = _reported(message, report)
    if to is None:
        return False
    if to in {Status.DELIVERED, Status.UNDELIVERED}:
        columns["completed_at"] = timezone.now()
    if message.sent_at is None:
        columns["sent_at"] = timezone.now()
    if to == message.status:
        OutboundViberMessage.objects.using(write_alias()).filter(pk=message.pk, status=to).update(**columns)
        return False
    if not lifecycle.move(message, to, event=event, next_attempt_at=None, **columns):
        return False
    event.applied = True
    event.save(update_fields=["applied"])
    return True


def _status_after(message: OutboundViberMessage, report: DeliveryReport) -> Status | None:
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
