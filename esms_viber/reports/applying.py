"""Apply a delivery report to its message."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from .. import lifecycle
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from .parsing import DeliveryReport, ReportVerdict

_STATUS = {
    ReportVerdict.DELIVERED: Status.DELIVERED,
    ReportVerdict.UNDELIVERED: Status.UNDELIVERED,
    ReportVerdict.TAKEN: Status.SENT,
}


class MovedOn(Exception):
    """The message is not as it was read any more."""


def apply_report(
    message: OutboundViberMessage, report: DeliveryReport, event: ViberMessageEvent, *, again: bool = False
) -> bool:
    """Write what a report on the current RequestId says, in one UPDATE. Returns whether it moved the status.

    The first final report wins, so final states stay. `again`: a report that was stored before moves the status, or
    adds what the row lacks. The UPDATE names the status and the RequestId of the message as it was read; where these
    have changed nothing is written, and `MovedOn` is raised.
    """
    to = status_after(message, report)
    if to is None:
        return False
    columns = _reported(message, report)
    # If no answer told when eSMS took it, that was with the first call that had none.
    columns["sent_at"] = message.sent_at or message.uncertain_since or timezone.now()
    if to == Status.SENT and message.next_query_at is None:
        sms_id = message.sms_id or report.sms_id
        columns["next_query_at"] = lifecycle.first_query_at(message, sms_id, columns["sent_at"])
    if to == message.status:
        new = {
            name: value
            for name, value in columns.items()
            if value != getattr(message, name) and not (again and getattr(message, name) not in {None, ""})
        }
        rows = OutboundViberMessage.objects.for_writing().filter(pk=message.id, status=to)
        if new and not rows.filter(request_id=message.request_id).update(**new):
            raise MovedOn
        return False
    if not lifecycle.transition(lifecycle.report(message, to, columns, event)):
        raise MovedOn
    return True


def status_after(message: OutboundViberMessage, report: DeliveryReport) -> Status | None:
    """The status that the message has after the report; None where the report changes nothing."""
    to, current = _STATUS.get(report.verdict), Status(message.status)
    return to if to in lifecycle.TRANSITIONS[current] or to == current == Status.SENT else None


def _reported(message: OutboundViberMessage, report: DeliveryReport) -> dict[str, Any]:
    columns: dict[str, Any] = {"send_status": report.send_status, "error_message": ""}
    if report.total_price is not None:
        columns["total_price"] = report.total_price
    if report.telco_id is not None:
        columns["telco_id"] = report.telco_id
    if report.sms_id and not message.sms_id:
        columns["sms_id"] = report.sms_id[:64]
    return columns
