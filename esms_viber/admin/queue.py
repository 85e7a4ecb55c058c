"""How the queue stands, above the list: what is in the way, what a person has to decide, how much waits."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from django.core.exceptions import ImproperlyConfigured
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..balance import Balance
from ..models import Status
from ..monitoring import get_queue_status
from . import display
from .answers import not_set_up
from .filters import AttentionFilter


@dataclass(frozen=True, slots=True)
class Queue:
    """What the template shows; a filter is a query string of the list."""

    obstacles: list[str]
    decisions: list[tuple[str, str]]
    """With the filter that lists the messages."""
    counts: list[tuple[str, int, str, str]]
    """Name, number, remark and filter of what there is any of."""
    last_call_at: dt.datetime | None


def look() -> Queue:
    try:
        status = get_queue_status()
    except ImproperlyConfigured as error:
        return _unknown(error)
    counts = [
        (Status.QUEUED, status.queued, _due(status.due, display.moment(status.oldest_due_at))),
        (Status.SENDING, status.sending, _stuck(status.stuck)),
        (Status.UNKNOWN, status.unknown, ""),
    ]
    return Queue(
        obstacles=status.obstacles(),
        decisions=[
            (sentence, f"{AttentionFilter.parameter_name}={kind}") for kind, sentence in status.decisions().items()
        ],
        counts=[
            (capfirst(str(kind.label)), count, remark, f"status__exact={kind.value}")
            for kind, count, remark in counts
            if count
        ],
        last_call_at=status.last_call_at,
    )


def obstacles() -> Queue:
    """Only what is in the way: for pages that are about something else."""
    try:
        status = get_queue_status()
    except ImproperlyConfigured as error:
        return _unknown(error)
    return Queue(status.obstacles(), [], [], status.last_call_at)


def _unknown(error: ImproperlyConfigured) -> Queue:
    """Settings in disorder are in the way themselves; the pages need not fail."""
    return Queue([not_set_up(error)], [], [], None)


def balance_remark(known: Balance, queue: Queue) -> str:
    """How old it is."""
    at = display.moment(known.at)
    if queue.last_call_at and queue.last_call_at > known.at:
        return _("at %(time)s; messages went out since then") % {"time": at}
    return _("at %(time)s") % {"time": at}


def _due(count: int, since: str | None) -> str:
    if not count:
        return ""
    return _("%(count)d due, the oldest since %(time)s") % {"count": count, "time": since}


def _stuck(count: int) -> str:
    if not count:
        return ""
    return ngettext("one of them by a sender that is gone", "%(count)d of them by a sender that is gone", count) % {
        "count": count
    }
