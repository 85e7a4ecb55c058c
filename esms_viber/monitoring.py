"""Monitoring: can messages go out with the settings as they are, and does the queue move?"""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from decimal import Decimal
from typing import Any

from django.core.checks import ERROR
from django.core.exceptions import ImproperlyConfigured
from django.db.models import Count, Min, Q
from django.utils import timezone
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .account import cost_of_queue
from .codes import Verdict, describe
from .conf import get_dispatcher, get_settings
from .formatting import MOST_COUNTED, dong, moment, stored, tell_count
from .gateways.loading import get_gateway
from .lifecycle import new_request_id
from .models import OutboundViberMessage, Purpose, ViberGatewayState, ViberMessageEvent, ViberPause
from .models.pause import MOST_LANES, due_lanes
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

QUIET = dt.timedelta(minutes=1)
"""After a call without an answer: if nothing was called for since, nobody tries whether eSMS answers again."""

MOST_NAMED = 5
"""Paused campaigns that a remark names."""

MANY = 5
"""Phones in a row that eSMS refuses: then most likely the list is wrong."""


@dataclass(frozen=True, slots=True)
class QueueStatus:
    """The queue at one moment. A count of `MOST_COUNTED + 1` stands for more."""

    at: dt.datetime
    queued: int
    """Waiting to be sent, those for a later time included."""
    due: int
    """To be called for now, for the first time or again; those that a pause or the hours hold included."""
    oldest_due_at: dt.datetime | None
    """When the oldest of these that nothing holds became due."""
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
    last_call: str
    """The outcome of that call, in words for people; empty: there was none."""
    account_code: str
    """The code with which eSMS refuses the account itself; empty: it does not."""
    outage: bool
    """Does eSMS not answer?"""
    refused_brands: dict[str, str]
    """Brand names whose messages wait, with the code with which eSMS refuses them."""
    next_probe_at: dt.datetime | None
    """When the next call is to show whether any of that is over."""
    paused: bool = False
    """Is sending paused as a whole?"""
    paused_campaigns: list[str] = field(default_factory=list)
    promotional_from: dt.datetime | None = None
    """When promotional messages that wait for their hours go out; None where none of them waits for that."""
    refused_phones: str = ""
    """The code with which eSMS has refused the last phones, one after the other; empty: it has not."""
    balance: Decimal | None = None
    """The balance of the account in VND, when eSMS was last asked for it; None: it never was."""
    balance_at: dt.datetime | None = None
    cost_of_queue: Decimal | None = None
    """What the queue will cost by past prices; None where a price, or the balance, is not known."""
    sender_seen_at: dt.datetime | None = None
    """When a worker last looked for messages, give or take a minute; None: never."""
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
        in_trouble = self.account_code or self.outage or self.refused_brands
        return bool(self.misconfiguration or in_trouble or self.stalled or self.held_up)

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
            waiting = _("eSMS refuses the account, so messages wait.")
            found.append(f"{waiting} {_explained(self.account_code)}")
        if self.outage:
            found.append(
                _(
                    "eSMS does not answer, or not in a way that can be read, so messages wait. If it goes on, check "
                    "whether this server reaches rest.esms.vn, or ask eSMS."
                )
            )
        for brandname, code in self.refused_brands.items():
            sentence = _("eSMS refuses messages under the brand name “%(brand)s”, so they wait; others go out.")
            found.append(f"{sentence % {'brand': brandname}} {_explained(code)}")
        if self.account_code or self.outage or self.refused_brands:
            found[-1] += " " + self._next_try()
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
                % {"count": tell_count(self.held_up)}
            )
        return found

    def _next_try(self) -> str:
        """Tell of the last call and of the next one, which is made without anybody's doing."""
        told = []
        if self.last_call_at is not None:
            sentence = _("The last call was at %(time)s: %(what)s")
            told.append(sentence % {"time": moment(self.last_call_at), "what": f"{self.last_call.rstrip('.')}."})
        if self.next_probe_at is None or self.next_probe_at <= self.at:
            told.append(_("The next worker or request that sends tries one message."))
        else:
            sentence = _("One message is tried again from %(time)s on.")
            told.append(sentence % {"time": moment(self.next_probe_at)})
        return " ".join(told)

    def remarks(self) -> list[str]:
        """Say what somebody has arranged, or what is odd, though nothing is wrong, in sentences for people."""
        found = []
        for sentence, campaigns in self.pauses():
            names = [*campaigns[:MOST_NAMED], *["…"] * (len(campaigns) > MOST_NAMED)]
            found.append(f"{sentence} {', '.join(names)}." if names else sentence)
        return [*found, *self.oddities()]

    def oddities(self) -> list[str]:
        """Return the remarks that are not about pauses."""
        found = []
        if self.promotional_from is not None:
            sentence = _("Promotional messages wait for their hours, and go out from %(time)s on.")
            found.append(sentence % {"time": moment(self.promotional_from)})
        if self.refused_phones:
            sentence = _("eSMS refused the last %(count)d phones, one after the other: check where they come from.")
            found.append(f"{sentence % {'count': MANY}} {_explained(self.refused_phones)}")
        if self.balance is not None and self.cost_of_queue is not None and self.balance < self.cost_of_queue:
            sentence = _(
                "The balance was %(balance)s at %(time)s, and what waits will cost about %(cost)s, going by the latest "
                "prices. Top up the eSMS account, or ask for the balance again."
            )
            cost = dong(self.cost_of_queue)
            if self.queued > MOST_COUNTED:
                cost = _("%(cost)s or more") % {"cost": cost}
            told = {"balance": dong(self.balance), "time": moment(self.balance_at), "cost": cost}
            found.append(sentence % told)
        return found

    def pauses(self) -> list[tuple[str, list[str]]]:
        """Say what is paused, each sentence with the campaigns that it names; none where it is about everything."""
        found: list[tuple[str, list[str]]] = []
        if self.paused:
            found.append((_("Sending is paused: nothing goes out until somebody resumes it."), []))
        if self.paused_campaigns:
            count = len(self.paused_campaigns)
            sentence = ngettext("One campaign is paused:", "%(count)d campaigns are paused:", count) % {"count": count}
            found.append((sentence, self.paused_campaigns))
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
            ) % {"count": tell_count(self.undecided)}
        if self.unconfirmed:
            found["unconfirmed"] = ngettext(
                "One message was taken by eSMS more than a day ago without an SMSID, and no report has come: only "
                "eSMS's portal can tell what became of it.",
                "%(count)s messages were taken by eSMS more than a day ago without an SMSID, and no reports have "
                "come: only eSMS's portal can tell what became of them.",
                self.unconfirmed,
            ) % {"count": tell_count(self.unconfirmed)}
        return found

    def as_dict(self) -> dict[str, Any]:
        """Return every field and property for JSON, with times in ISO 8601 and amounts as text."""
        fields: dict[str, Any] = {}
        for name, value in asdict(self).items():
            if isinstance(value, dt.datetime):
                value = value.isoformat()
            elif isinstance(value, Decimal):
                value = str(value)
            fields[name] = value
        return {**fields, "stalled": self.stalled, "blocked": self.blocked, "needs_a_person": self.needs_a_person}


def get_queue_status() -> QueueStatus:
    """Read the queue as it stands now, however long it is; wrong settings are told, not raised.

    No count goes beyond `MOST_COUNTED + 1`, which stands for more.
    """
    now = timezone.now()
    messages = OutboundViberMessage.objects.for_writing()
    queued, unknown = messages.queued(), messages.unknown()
    holds = ViberPause.objects.holds()
    lanes = itertools.islice(due_lanes(messages, holds, now), MOST_LANES)
    oldest = [lane.values_list("next_attempt_at", flat=True).first() for lane in lanes]
    opens_at = holds.opens_at(now)
    if opens_at is not None:
        promotional = [rows.filter(purpose=Purpose.PROMOTIONAL).soonest_first(now) for rows in (queued, unknown)]
        opens_at = opens_at if any(rows.exists() for rows in promotional) else None
    sending = (
        messages.sending()
        .order_by()[: MOST_COUNTED + 1]
        .aggregate(
            sending=Count("pk"),
            stuck=Count("pk", filter=Q(lease_until__lt=now)),
            stuck_since=Min("lease_until", filter=Q(lease_until__lt=now)),
        )
    )
    events = ViberMessageEvent.objects.for_writing().filter(kind=ViberMessageEvent.Kind.ATTEMPT).order_by("-pk")
    calls = list(events.only("created_at", "code", "text", "data")[:MANY])
    last = calls[0] if calls else None
    rows = {state.brandname: state for state in ViberGatewayState.objects.for_writing().in_trouble_or_account()}
    # Where nobody has asked for the balance, and no worker was seen, the account has no row.
    noted = rows.get("", ViberGatewayState())
    states = {name: state for name, state in rows.items() if state.in_trouble}
    account, queued_count = states.get(""), queued.bounded_count()
    return QueueStatus(
        at=now,
        queued=queued_count,
        due=messages.due(now).bounded_count(),
        oldest_due_at=min((when for when in oldest if when is not None), default=None),
        **sending,
        held_up=messages.held_up().bounded_count(),
        unknown=unknown.bounded_count(),
        undecided=messages.undecided(now).bounded_count(),
        unconfirmed=messages.unconfirmed(now).bounded_count(),
        last_call_at=last.created_at if last is not None else None,
        last_call=_what_came_of(last) if last is not None else "",
        account_code=account.code if account is not None and account.is_open else "",
        outage=account is not None and _is_outage(account, last, now),
        refused_brands={name: state.code for name, state in sorted(states.items()) if name and state.is_open},
        next_probe_at=min((s.next_probe_at for s in states.values() if s.next_probe_at is not None), default=None),
        paused=holds.everything,
        paused_campaigns=sorted(holds.campaigns),
        promotional_from=opens_at,
        refused_phones=_refused_phones(calls),
        balance=noted.balance,
        balance_at=noted.balance_at,
        cost_of_queue=cost_of_queue(queued_count) if noted.balance is not None and queued_count else None,
        sender_seen_at=noted.sender_seen_at,
        misconfiguration=find_trouble(),
    )


def _is_outage(account: ViberGatewayState, last: ViberMessageEvent | None, now: dt.datetime) -> bool:
    if account.code or account.is_open:
        return not account.code
    # One call without an answer is told only if messages wait, and nobody makes another call.
    is_quiet = last is not None and last.created_at < now - QUIET
    messages = OutboundViberMessage.objects.for_writing()
    return (account.silent > 1 or account.probes > 0 or is_quiet) and (
        messages.queued().exists() or messages.unknown().filter(next_attempt_at__isnull=False).exists()
    )


def _explained(code: str) -> str:
    found = describe(code)
    return f"{found.code}: {found.meaning} {found.remedy}"


def _what_came_of(call: ViberMessageEvent) -> str:
    return f"{call.code}: {describe(call.code).meaning}" if call.code else stored(call.text) or _("no answer")


def _refused_phones(calls: Sequence[ViberMessageEvent]) -> str:
    codes = [call.code for call in calls]
    is_told = len(codes) == MANY and all(describe(code).verdict is Verdict.PHONE for code in codes)
    return codes[0] if is_told else ""
