"""Apply a delivery report to its message."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from .. import lifecycle
from ..database import update_one
from ..lifecycle import Transition
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from .parsing import DeliveryReport, ReportVerdict

_STATUS = {
    ReportVerdict.DELIVERED: Status.DELIVERED,
    ReportVerdict.UNDELIVERED: Status.UNDELIVERED,
    ReportVerdict.TAKEN: Status.SENT,
}


class MovedOn(Exception):
    """The row has changed since the message was read."""


def apply_report(
    message: OutboundViberMessage,
    report: DeliveryReport,
    event: ViberMessageEvent,
    *,
    again: bool = False,
    is_listed: bool = False,
) -> list[Transition]:
    """Write what a report on the current RequestId says, in one UPDATE, and return the transition, if the status moves.

    The caller announces it after the commit.

    The first final report wins, because no transition leads out of a final status. The UPDATE expects the status and
    the RequestId that were read; raises `MovedOn`, and writes nothing, where the row has others by now. `again`: the
    report was stored before, so where the status stays it only fills columns that are empty. `is_listed`: see
    `status_after()`.
    """
    to = status_after(message, report, is_listed=is_listed)
    if to is None:
        return []
    columns = columns_after(message, report, to, again=again)
    if to != message.status:
        change = lifecycle.report(message, to, columns, event)
        if not lifecycle.write(change):
            raise MovedOn
        return [change]
    if columns:
        # The phone too, because a message that was redacted in the meantime has none.
        expected = {"pk": message.id, "status": to, "request_id": message.request_id, "phone": message.phone}
        alias = OutboundViberMessage.objects.write_alias()
        if not update_one(OutboundViberMessage, expected, columns, using=alias):
            raise MovedOn
    return []


def columns_after(
    message: OutboundViberMessage, report: DeliveryReport, to: Status, *, again: bool = False
) -> dict[str, Any]:
    """Return the columns that the report itself says; only those that it changes where the status stays."""
    columns: dict[str, Any] = {"send_status": report.send_status, "error_message": ""}
    if report.total_price is not None:
        columns["total_price"] = report.total_price
    if report.telco_id is not None:
        columns["telco_id"] = report.telco_id
    if report.sms_id and not message.sms_id:
        columns["sms_id"] = report.sms_id[:64]
    # Where no answer told when eSMS took the message, it counts as taken by the first call that had none.
    sent_at = message.sent_at or message.uncertain_since or timezone.now()
    if message.sent_at is None:
        columns["sent_at"] = sent_at
    if to == Status.SENT and message.next_query_at is None:
        columns["next_query_at"] = lifecycle.first_query_at(message, sent_at)
    if to != message.status:
        return columns
    return {
        name: value
        for name, value in columns.items()
        if value != getattr(message, name) and not (again and getattr(message, name) not in {None, ""})
    }


def status_after(message: OutboundViberMessage, report: DeliveryReport, *, is_listed: bool = False) -> Status | None:
    """Return the status that the message has after the report, or None where the report changes nothing.

    `is_listed`: the report is of eSMS's list of what was sent, which proves that eSMS has the message.
    """
    to, current = _STATUS.get(report.verdict, Status.SENT if is_listed else None), Status(message.status)
    return to if to in lifecycle.TRANSITIONS[current] or to == current == Status.SENT else None
