"""The history of a message as a timeline: its events, and the messages before and after it."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from django.utils.text import capfirst
from django.utils.translation import gettext as _

from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..transactions import write_alias
from . import display
from .base import MessageAdminBase
from .events import Entry, decision_of, tell, was_abandoned

MOST_SHOWN = 200
_RESENDS_SHOWN = 20


@dataclass(frozen=True, slots=True)
class History:
    entries: list[Entry]
    """Oldest first."""
    is_cut: bool
    """Are there events before these?"""


def history(model_admin: MessageAdminBase, message: OutboundViberMessage) -> History:
    events = ViberMessageEvent.objects.using(write_alias()).filter(message=message.id).prefetch_related("user")
    latest = list(events.order_by("-pk")[: MOST_SHOWN + 1])
    is_cut = len(latest) > MOST_SHOWN
    told = _tell_all(latest[MOST_SHOWN - 1 :: -1], message, is_cut)
    # Each in its own order, also where the clocks of two machines differ.
    entries = heapq.merge(told, _sent_again(model_admin, message), key=lambda entry: entry.when)
    return History([*_sent_before(model_admin, message), *entries], is_cut)


def resends_of(message: OutboundViberMessage) -> list[OutboundViberMessage]:
    resends = OutboundViberMessage.objects.using(write_alias()).filter(resend_of=message.id).order_by("pk")
    return list(resends[:_RESENDS_SHOWN])


def _tell_all(events: Sequence[ViberMessageEvent], message: OutboundViberMessage, is_cut: bool) -> Iterator[Entry]:
    # Of what is not shown nobody knows here whether it was taken.
    uncertain = {events[0].request_id} if is_cut else set()
    for event in events:
        first = event.request_id not in uncertain
        yield tell(event, message, first=first)
        if _leaves_doubt(event, first=first):
            uncertain.add(event.request_id)


def _leaves_doubt(event: ViberMessageEvent, *, first: bool) -> bool:
    if event.kind == ViberMessageEvent.Kind.ATTEMPT:
        return decision_of(event, first=first).status == Status.UNKNOWN
    return was_abandoned(event)


def _sent_before(model_admin: MessageAdminBase, message: OutboundViberMessage) -> Iterator[Entry]:
    if before := message.resend_of:
        yield _other(model_admin, message, _("resend of"), before)


def _sent_again(model_admin: MessageAdminBase, message: OutboundViberMessage) -> Iterator[Entry]:
    for resend in resends_of(message):
        yield _other(model_admin, resend, _("sent again as"), resend)


def _other(model_admin: MessageAdminBase, made: OutboundViberMessage, how: str, other: OutboundViberMessage) -> Entry:
    link = display.numbered(other, model_admin.page_url(other.id))
    return Entry(when=made.created_at, look=("quiet", "↻"), sentence=capfirst(how), link=link)
