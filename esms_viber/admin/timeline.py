"""The history of one message, in words for shop staff."""

from __future__ import annotations

import datetime as dt
import heapq
from dataclasses import dataclass, field
from typing import Any

from django.utils.safestring import SafeString
from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ..codes import ACCOUNT_CODES, Verdict, describe
from ..delivery.outcomes import Decision, decide
from ..formatting import moment
from ..gateways.base import CallOutcome, SendResult
from ..lifecycle import ABANDONED
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..reports.parsing import DeliveryReport, MalformedReport, ReportVerdict, parse_report
from ..reports.sent_list import AMBIGUOUS, RECOGNISED, can_recognise, candidates_in, status_of
from . import display
from .base import MessageAdminBase

MOST_SHOWN = 200
_RESENDS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class History:
    """The latest events of a message."""

    entries: list[Entry]
    """Oldest first."""
    is_cut: bool
    """Are there events before these?"""


def history(model_admin: MessageAdminBase, message: OutboundViberMessage) -> History:
    events = ViberMessageEvent.objects.for_writing().filter(message=message.id).prefetch_related("user")
    latest = list(events.order_by("-pk")[: MOST_SHOWN + 1])
    is_cut = len(latest) > MOST_SHOWN
    oldest_first = latest[MOST_SHOWN - 1 :: -1]
    # Doubt the oldest RequestId where events are cut off, because eSMS may have taken a call among them.
    uncertain = {oldest_first[0].request_id} if is_cut else set()
    told = []
    for event in oldest_first:
        first = event.request_id not in uncertain
        told.append(tell(event, message, first=first))
        if event.kind == ViberMessageEvent.Kind.ATTEMPT:
            leaves_doubt = decision_of(event, first=first).status == Status.UNKNOWN
        else:
            leaves_doubt = was_abandoned(event)
        if leaves_doubt:
            uncertain.add(event.request_id)
    before = message.resend_of
    sent_before = [_other(model_admin, message, _("resend of"), before)] if before else []
    sent_again = [_other(model_admin, resend, _("sent again as"), resend) for resend in resends_of(message)]
    # Merge them, because sorting would change the order of the events where the clocks of two machines differ.
    entries = heapq.merge(told, sent_again, key=lambda entry: entry.when)
    return History([*sent_before, *entries], is_cut)


def resends_of(message: OutboundViberMessage) -> list[OutboundViberMessage]:
    resends = OutboundViberMessage.objects.for_writing().filter(resend_of=message.id).order_by("pk")
    return list(resends[:_RESENDS_SHOWN])


def _other(model_admin: MessageAdminBase, made: OutboundViberMessage, how: str, other: OutboundViberMessage) -> Entry:
    link = display.numbered(other, model_admin.page_url(other.id))
    return Entry(when=made.created_at, look=("quiet", "↻"), sentence=capfirst(how), link=link)


QUIET = ("quiet", "•")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One line of a message's timeline."""

    when: dt.datetime
    sentence: str
    look: tuple[str, str] = QUIET
    """The colour's name and the sign, as `display.look()` returns them."""
    link: SafeString | str = ""
    quote: str = ""
    """The words of eSMS, or the error of the call or the report."""
    advice: str = ""
    """Advice on what to do, or how to read the event."""
    by: str = ""
    """The user who did it, unless the sentence names one."""
    duration_ms: int | None = None
    applied: bool = False
    candidates: list[tuple[str, str, str]] = field(default_factory=list)
    """Entries of eSMS's list that may be this message: time, SMSID and status."""
    can_recognise: bool = False
    """May a person still say that one of these is the message?"""
    details: list[tuple[str, str]] = field(default_factory=list)
    """The stored values of the report or the call, as they are."""


def tell(event: ViberMessageEvent, message: OutboundViberMessage, *, first: bool) -> Entry:
    """Tell of one event. `first`: eSMS cannot have taken an earlier call under its RequestId."""
    told: dict[str, Any]
    match event.kind:
        case ViberMessageEvent.Kind.REQUESTED:
            asked_by = _("It was asked for by %(user)s.") % {"user": event.user}
            told = {"sentence": _("It was asked for; no user is recorded.") if event.user is None else asked_by}
        case ViberMessageEvent.Kind.ATTEMPT:
            decision = decision_of(event, first=first)
            told = {
                "sentence": _what_came_of_it(event),
                "look": display.look(decision.status),
                "quote": display.stored(event.text),
                "advice": _advice(event, message, decision, first=first),
                "by": str(event.user or ""),
            }
        case ViberMessageEvent.Kind.CALLBACK:
            reported = _reported(event, message, _("eSMS reports: %(report)s."))
            told = {"quote": display.stored(event.text), **reported}
        case ViberMessageEvent.Kind.POLL:
            told = _poll(event, message)
        case _:
            sentence = display.stored(event.text) or event.get_kind_display()
            told = {"sentence": sentence, "by": str(event.user or "")}
            if was_abandoned(event):
                told |= {"look": display.look(Status.UNKNOWN), "advice": _("It may have been sent.")}
            elif event.text == AMBIGUOUS:
                # A site without time zones reads times in its own.
                listed = [
                    (str(moment(each.sent_at.astimezone())), each.sms_id, str(status_of(each).label))
                    for each in candidates_in(event)
                ]
                told |= {"look": display.look(Status.UNKNOWN), "candidates": listed}
                if can_recognise(message, event):
                    advice = _(
                        "Look them up on eSMS's portal by their SMSIDs. If one of them is this message, say so here; "
                        "if none is, send it again."
                    )
                    told |= {"can_recognise": True, "advice": advice}
    return Entry(
        when=event.created_at,
        duration_ms=event.duration_ms,
        applied=event.applied,
        details=[(name, value) for name, value in _values(event).items() if value and name != "candidates"],
        **told,
    )


def decision_of(event: ViberMessageEvent, *, first: bool) -> Decision:
    """Decide again what followed from the call."""
    return decide(SendResult(outcome=_call_outcome(event), code=event.code), first=first)


def was_abandoned(event: ViberMessageEvent) -> bool:
    return _values(event).get("outcome") == ABANDONED


def _values(event: ViberMessageEvent) -> dict[str, str]:
    data = event.data if isinstance(event.data, dict) else {}
    return {str(name): "" if value is None else str(value) for name, value in data.items()}


def _call_outcome(event: ViberMessageEvent) -> CallOutcome:
    try:
        return CallOutcome(_values(event).get("outcome"))
    except ValueError:
        return CallOutcome.ANSWERED if event.code else CallOutcome.NO_ANSWER


# -- what we did -------------------------------------------------------------------------------------------------------


def _what_came_of_it(event: ViberMessageEvent) -> str:
    match _call_outcome(event):
        case CallOutcome.NOT_CONNECTED:
            return _("eSMS could not be reached.")
        case CallOutcome.NO_ANSWER:
            return _("eSMS was called, and no trustworthy answer came.")
        case CallOutcome.ANSWERED_WITHOUT_CODE:
            return _("eSMS was called, and answered without a code.")
        case _:
            return _("eSMS was called, and answered %(answer)s") % {"answer": display.meaning(event.code)}


def _advice(event: ViberMessageEvent, message: OutboundViberMessage, decision: Decision, *, first: bool) -> str:
    """Give the remedy of the answer code, unless eSMS can have taken an earlier call, or has reported since."""
    settled = {Status.SENT, Status.DELIVERED, Status.UNDELIVERED}
    is_settled = event.request_id == message.request_id and message.status in settled
    if decision.status == Status.UNKNOWN and is_settled:
        return _("What became of it was reported separately.")
    if decision.status == Status.UNKNOWN and not first:
        return _("It may have been sent by an earlier call.")
    if not event.code:
        return _("It may have been sent.") if decision.status == Status.UNKNOWN else _("This call sent nothing.")
    if decision.status == Status.SENT and describe(event.code).verdict is Verdict.DUPLICATE:
        return _("eSMS has it from an earlier call; this one sent nothing.")
    return str(describe(event.code).remedy)


# -- what eSMS told ----------------------------------------------------------------------------------------------------


def _poll(event: ViberMessageEvent, message: OutboundViberMessage) -> dict[str, Any]:
    asked = {"quote": display.stored(event.text), "by": str(event.user or "")}
    if event.text == RECOGNISED:
        return {"sentence": display.stored(event.text), "look": display.look(Status.SENT), "by": asked["by"]}
    if event.code == "100":
        return asked | _reported(event, message, _("eSMS was asked for the status, and reports: %(report)s."))
    if not event.code:
        return asked | {"sentence": _("eSMS was asked for the status, and gave no trustworthy answer.")}
    answer = _("eSMS was asked for the status, and answered %(answer)s") % {"answer": display.meaning(event.code)}
    told = {"sentence": answer}
    if event.code in ACCOUNT_CODES:
        told["advice"] = str(describe(event.code).remedy)
    return asked | told


def _reported(event: ViberMessageEvent, message: OutboundViberMessage, sentence: str) -> dict[str, Any]:
    try:
        report = parse_report(_values(event))
    except MalformedReport:
        return {"sentence": sentence % {"report": _("something that makes no sense")}}
    match report.verdict:
        case ReportVerdict.DELIVERED:
            said, look = str(Status.DELIVERED.label), display.look(Status.DELIVERED)
        case ReportVerdict.UNDELIVERED:
            said, look = str(Status.UNDELIVERED.label), display.look(Status.UNDELIVERED)
        case ReportVerdict.TAKEN:
            said, look = _("it has the message, and its result is still to come"), display.look(Status.SENT)
        case _:
            said, look = _("nothing that decides whether it was delivered"), QUIET
    objection = _objection(event, message, report)
    said = ", ".join(filter(None, [said, display.price(report.total_price)]))
    return {"sentence": sentence % {"report": said}, "look": QUIET if objection else look, "advice": objection}


def _objection(event: ViberMessageEvent, message: OutboundViberMessage, report: DeliveryReport) -> str:
    """Tell why the report is not about the message as it was sent last; empty if it is."""
    is_callback = event.kind == ViberMessageEvent.Kind.CALLBACK
    if is_callback and report.names_another_request(event.request_id):
        return _("It names another RequestId, so it changed nothing.")
    if event.request_id != message.request_id:
        return _("It is about an earlier RequestId of this message.")
    if is_callback and report.names_another_phone(message.phone):
        return _("It names another phone, so it changed nothing.")
    if not is_callback and report.names_another_sms_id(message.sms_id):
        return _("It names another SMSID, so it changed nothing.")
    return ""
