"""Monitoring: can messages go out with the settings as they are, and does the queue move?"""

from __future__ import annotations

import datetime as dt
import itertools
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from django.core.checks import ERROR
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count, Min, Q
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .codes import ACCOUNT_CODES, describe
from .conf import get_dispatcher, get_settings, readable_settings
from .formatting import grouped
from .gateways.base import CallOutcome
from .gateways.loading import get_gateway
from .lifecycle import new_request_id
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .tokens import LARGEST_PK, callback_url

# -- the settings ------------------------------------------------------------------------------------------------------


def require_setup() -> None:
    """Raise `ImproperlyConfigured`, naming the setting, where no message can be sent with the settings as they are."""
    conf = get_settings()
    get_gateway()
    callback_url(LARGEST_PK, new_request_id(), conf)


def find_trouble() -> str:
    """Say why messages do not go out with the settings as they are, in a sentence for people; empty where they do."""
    try:
        require_setup()
        dispatcher = get_dispatcher()
    except ImproperlyConfigured as error:
        return str(error)
    return task_trouble() if is_django_tasks(dispatcher) else ""


def is_django_tasks(dispatcher: object) -> bool:
    # Find it by its path, because `dispatch` imports this module.
    return dispatcher is import_string("esms_viber.dispatch.django_tasks")


def task_trouble() -> str:
    """Say why the dispatcher `django_tasks` has no tasks, in a sentence for people; empty where it has."""
    problem = find_task()[1]
    return "" if problem is None else _tasks_cannot_be_used(str(problem))


def backend_trouble() -> str:
    """Return the first error of the tasks' backend's own check, in a sentence for people; empty where it finds none.

    Only the system checks ask, because a backend may complain of what its worker lacks, and take tasks all the same.
    """
    task = find_task()[0]
    if task is None:
        return ""
    try:
        errors = [message.msg for message in task.get_backend().check() if message.level >= ERROR]
    except Exception as error:  # noqa: BLE001 - somebody else's code, over settings that are wrong
        errors = [f"{type(error).__name__}: {error}"]
    return _tasks_cannot_be_used(errors[0]) if errors else ""


def find_task() -> tuple[Any, Exception | None]:
    """Return the task of the dispatcher `django_tasks`, or the error that keeps it from being imported."""
    try:
        return import_string("esms_viber.delivery.django_task.deliver"), None
    except Exception as error:  # noqa: BLE001 - the import makes the task, with any backend that TASKS names
        return None, error


def _tasks_cannot_be_used(problem: str) -> str:
    sentence = _('ESMS_VIBER["DISPATCHER"] is django_tasks, but tasks cannot be used: %(problem)s.')
    return sentence % {"problem": problem.rstrip(".")}


# -- the queue ---------------------------------------------------------------------------------------------------------

STALLED_AFTER = dt.timedelta(minutes=10)
"""Nobody sends messages that are due for so long without a single call, because cron comes every minute."""

_SILENCE = 5
"""Calls in a row without an answer that are told as an outage; a worker stops after `CONCURRENCY` of them."""

_NON_ANSWERS = {CallOutcome.NO_ANSWER.value, CallOutcome.NOT_CONNECTED.value}


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue at one moment."""

    at: dt.datetime
    queued: int
    """Waiting to be sent, those for a later time included."""
    due: int
    """To be called for now, for the first time or again."""
    oldest_due_at: dt.datetime | None
    """When the oldest of these became due."""
    sending: int
    stuck: int
    """Claimed by a worker that is gone; the next one takes them over."""
    stuck_since: dt.datetime | None
    """When the oldest of these could first have been taken over."""
    held_up: int
    """Queued again, because a `pre_send` receiver of the site failed."""
    unknown: int
    """Perhaps sent, perhaps not; those that a worker repeats included."""
    undecided: int
    """Unknown ones of the last seven days that only a person can decide about."""
    unconfirmed: int
    """Taken by eSMS, without report or SMSID for a day: only its portal can tell."""
    last_call_at: dt.datetime | None
    """When eSMS was last called about a message."""
    account_code: str
    """The code with which eSMS refuses the account itself; empty: it does not."""
    outage: bool
    """Have the last calls had no answer that can be read?"""
    misconfiguration: str = ""
    """Why no message goes out with the settings as they are, in a sentence for people; empty: they are right."""

    @property
    def stalled(self) -> bool:
        """Are messages due, and nobody sends them?"""
        since = self.at - STALLED_AFTER
        waiting = [when for when in (self.oldest_due_at, self.stuck_since) if when is not None]
        if not waiting or min(waiting) > since:
            return False
        return self.last_call_at is None or self.last_call_at < since

    @property
    def blocked(self) -> bool:
        """Do messages not go out, so that somebody has to see to it now?"""
        return bool(self.misconfiguration or self.account_code or self.outage or self.stalled or self.held_up)

    @property
    def needs_a_person(self) -> bool:
        """Are there messages whose end only a person can find out, or decide?"""
        return bool(self.undecided or self.unconfirmed)

    def obstacles(self) -> list[str]:
        """Say why messages do not go out, and what to do about it, in sentences for people."""
        found = []
        if self.misconfiguration:
            sentence = _("Messages do not go out until this is corrected in the settings: %(problem)s")
            found.append(sentence % {"problem": self.misconfiguration})
        if self.account_code:
            code = describe(self.account_code)
            waiting = _("eSMS refuses the account, so messages wait.")
            found.append(f"{waiting} {code.code}: {code.meaning} {code.remedy}")
        if self.outage:
            found.append(
                _(
                    "The last calls to eSMS had no answer, or none that can be read, so messages wait. Their history "
                    "shows what came back. They are tried again by themselves; if it goes on, check whether this "
                    "server reaches rest.esms.vn, or ask eSMS."
                )
            )
        if self.stalled:
            found.append(
                _(
                    "Messages are due, and nobody sends them. Have “manage.py send_viber_messages” run by cron every "
                    "minute, or with --watch as a service."
                )
            )
        if self.held_up:
            found.append(
                ngettext(
                    "One message waits because this site's own check before sending (pre_send) failed: see its log.",
                    "%(count)s messages wait because this site's own check before sending (pre_send) failed: see its "
                    "log.",
                    self.held_up,
                )
                % {"count": grouped(self.held_up)}
            )
        return found

    def decisions(self) -> dict[str, str]:
        """Say what only a person can find out or decide: sentences by the queryset's method that finds the messages."""
        found = {}
        if self.undecided:
            found["undecided"] = ngettext(
                "One message may have been sent, or not. Look on eSMS's portal, and send it again if it is not there.",
                "%(count)s messages may have been sent, or not. Look on eSMS's portal, and send those again that are "
                "not there.",
                self.undecided,
            ) % {"count": grouped(self.undecided)}
        if self.unconfirmed:
            found["unconfirmed"] = ngettext(
                "One message was taken by eSMS more than a day ago without an SMSID, and no report has come: only "
                "eSMS's portal can tell what became of it.",
                "%(count)s messages were taken by eSMS more than a day ago without an SMSID, and no reports have "
                "come: only eSMS's portal can tell what became of them.",
                self.unconfirmed,
            ) % {"count": grouped(self.unconfirmed)}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return every field and property for JSON, with times in ISO 8601."""
        fields = {
            name: value.isoformat() if isinstance(value, dt.datetime) else value for name, value in asdict(self).items()
        }
        return {**fields, "stalled": self.stalled, "blocked": self.blocked, "needs_a_person": self.needs_a_person}


def get_queue_status() -> QueueStatus:
    """Read the queue as it stands now, in a handful of indexed queries; wrong settings are told, not raised."""
    now = timezone.now()
    messages = OutboundViberMessage.objects.for_writing()
    waiting = messages.filter(status__in=[Status.QUEUED, Status.UNKNOWN, Status.SENDING]).aggregate(
        queued=Count("pk", filter=Q(status=Status.QUEUED)),
        sending=Count("pk", filter=Q(status=Status.SENDING)),
        stuck=Count("pk", filter=Q(status=Status.SENDING, lease_until__lt=now)),
        stuck_since=Min("lease_until", filter=Q(status=Status.SENDING, lease_until__lt=now)),
        held_up=Count("pk", filter=Q(status=Status.QUEUED, attempts=0) & ~Q(error_message="")),
        unknown=Count("pk", filter=Q(status=Status.UNKNOWN)),
        repeated=Count("pk", filter=Q(status=Status.UNKNOWN, next_attempt_at__isnull=False)),
    )
    repeated = waiting.pop("repeated")
    due = messages.due(now).order_by().aggregate(due=Count("pk"), oldest_due_at=Min("next_attempt_at"))
    calls = _last_calls()
    # Messages may wait longer than the trouble lasts, so the last call tells whether the account is still refused.
    last_code = calls[0].code if calls else ""
    is_refused = last_code in ACCOUNT_CODES and messages.in_account_trouble().exists()
    return QueueStatus(
        at=now,
        **waiting,
        **due,
        undecided=messages.undecided(now).count(),
        unconfirmed=messages.unconfirmed(now).count(),
        last_call_at=calls[0].at if calls else None,
        account_code=last_code if is_refused else "",
        outage=bool(waiting["queued"] or repeated) and _is_outage(calls),
        misconfiguration=find_trouble(),
    )


def in_trouble() -> bool:
    """Do messages wait because eSMS refused the account or did not answer? Then a worker tries one of them first."""
    if OutboundViberMessage.objects.for_writing().in_account_trouble().exists():
        return True
    return _is_outage(_last_calls())


class _Call(NamedTuple):
    at: dt.datetime
    code: str
    outcome: Any


def _last_calls() -> list[_Call]:
    """Return the latest calls about messages, newest first."""
    calls = ViberMessageEvent.objects.for_writing().filter(kind=ViberMessageEvent.Kind.ATTEMPT)
    newest = calls.order_by("-pk").values_list("created_at", "code", "data__outcome")[: readable_settings().CONCURRENCY]
    return [_Call(*call) for call in newest]


def _is_outage(calls: list[_Call]) -> bool:
    """Have the latest calls had no answer, one after the other?"""
    silent = itertools.takewhile(lambda call: call.outcome in _NON_ANSWERS, calls)
    return sum(1 for _call in silent) >= min(_SILENCE, readable_settings().CONCURRENCY)
