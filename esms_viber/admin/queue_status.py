"""The state of the queue, shown above the list: obstacles, decisions for a person, and how much waits."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field, replace
from urllib.parse import quote, unquote

from django.urls import get_script_prefix
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import formatting
from ..account import Balance
from ..conf import readable_settings
from ..formatting import tell_count
from ..models import Status
from ..monitoring import MOST_NAMED, QueueStatus, get_queue_status
from ..tokens import split_origin
from .filters import AttentionFilter


@dataclass(frozen=True, slots=True)
class Queue:
    """The queue as the template shows it; a filter is a query string of the list."""

    obstacles: list[str]
    decisions: list[tuple[str, str]]
    """A sentence, and the filter that lists its messages."""
    counts: list[tuple[str, str, str, str]]
    """Name, number, remark and filter of each status that has messages."""
    last_call_at: dt.datetime | None
    remarks: list[str] = field(default_factory=list)
    """What is odd, though it keeps no message from being sent."""
    pauses: list[tuple[str, list[str], bool]] = field(default_factory=list)
    """A sentence, the campaigns that it names, and whether there are more of them; without any it is about all."""
    balance: Balance | None = None
    """What eSMS told last."""


def look() -> Queue:
    status = get_queue_status()
    due = stuck = ""
    if status.due:
        due = _("%(count)s due") % {"count": tell_count(status.due)}
        if since := formatting.moment(status.oldest_due_at):
            due = _("%(count)s due, the oldest since %(time)s") % {"count": tell_count(status.due), "time": since}
    if status.stuck:
        stuck = ngettext(
            "one of them by a worker that is gone", "%(count)s of them by a worker that is gone", status.stuck
        ) % {"count": tell_count(status.stuck)}
    counts = [
        (Status.QUEUED, status.queued, due),
        (Status.SENDING, status.sending, stuck),
        (Status.UNKNOWN, status.unknown, ""),
    ]
    return Queue(
        obstacles=status.obstacles(),
        decisions=[
            (sentence, f"{AttentionFilter.parameter_name}={kind}") for kind, sentence in status.decisions().items()
        ],
        counts=[
            (capfirst(str(kind.label)), tell_count(count), remark, f"status__exact={kind.value}")
            for kind, count, remark in counts
            if count
        ],
        last_call_at=status.last_call_at,
        remarks=[*status.oddities(), *_remarks()],
        pauses=_pauses(status),
        balance=_balance(status),
    )


def obstacles(page_of: str = "") -> Queue:
    """Return only what is in the way, for pages that are about something else.

    The page of a campaign tells of its own pause by itself.
    """
    status = get_queue_status()
    if page_of:
        status = replace(status, paused_campaigns=[name for name in status.paused_campaigns if name != page_of])
    return Queue(status.obstacles(), [], [], status.last_call_at, _remarks(), _pauses(status), _balance(status))


def _balance(status: QueueStatus) -> Balance | None:
    if status.balance is None or status.balance_at is None:
        return None
    return Balance(status.balance, status.balance_at)


def _pauses(status: QueueStatus) -> list[tuple[str, list[str], bool]]:
    return [(told, names[:MOST_NAMED], len(names) > MOST_NAMED) for told, names in status.pauses()]


def _remarks() -> list[str]:
    """Remark on the path that the web server mounts the site under, because no command and no check can know it."""
    origin = split_origin(readable_settings().CALLBACK_ORIGIN)
    mounted = get_script_prefix().strip("/")
    if origin is None or mounted == unquote(origin.path).strip("/"):
        return []
    line = f'"CALLBACK_ORIGIN": "{origin.scheme}://{origin.netloc}{quote(f"/{mounted}".rstrip("/"))}"'
    sentence = _(
        "This page is served under “/%(here)s”, and eSMS is told to send its reports to “/%(there)s”. If eSMS too "
        "reaches the site under “/%(here)s”, they are lost; then write in ESMS_VIBER: %(line)s"
    )
    return [sentence % {"here": mounted, "there": unquote(origin.path).strip("/"), "line": line}]


def balance_remark(known: Balance, queue: Queue) -> str:
    """Tell how old the balance is, and whether messages went out since."""
    at = formatting.moment(known.at)
    if queue.last_call_at and queue.last_call_at > known.at:
        return _("at %(time)s; messages went out since then") % {"time": at}
    return _("at %(time)s") % {"time": at}
