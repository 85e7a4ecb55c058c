"""Ask before sending or resending, and send what was confirmed."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from django.contrib.admin.helpers import ACTION_CHECKBOX_NAME
from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured, SuspiciousOperation, ValidationError
from django.db.models import Max, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from .. import formatting, lifecycle, services
from ..account import average_prices, estimate
from ..conf import get_settings
from ..database import in_chunks, in_transaction, lock
from ..delivery.claims import due_pks
from ..dispatch import dispatch_on_commit, is_inline
from ..formatting import MOST_COUNTED, dong, tell_count
from ..models import OutboundViberMessage, Purpose, Status, ViberMessageEvent
from ..models.choices import Kind
from ..monitoring import require_setup
from ..resend import plan_resend, resend
from . import display, notices, queue_status, slices
from .base import MOST_AT_ONCE, MessageAdminBase
from .notices import (
    FROM_CAMPAIGN,
    FROM_PAGE,
    LAST_SHOWN,
    Notice,
    back_url,
    report,
    report_configuration,
    rows_of,
    tell,
    user_of,
)
from .slices import Work

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


_SHOWN = 20


STILL_REPEATED = gettext_lazy(
    "It is still repeated by itself, in a way that cannot send it twice. Wait, or stop repeating it first."
)


def is_repeated(message: OutboundViberMessage) -> bool:
    """Tell whether the message may still settle by itself, so that nobody has to risk sending it twice."""
    return message.status == Status.UNKNOWN and message.next_attempt_at is not None


@dataclass(slots=True)
class Listing:
    """A count of messages, and the first of them to be shown."""

    count: int = 0
    shown: list[tuple[OutboundViberMessage, str]] = field(default_factory=list)
    """Each message comes with a remark, which may be empty."""

    def add(self, message: OutboundViberMessage, remark: Callable[[], str] = str) -> None:
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append((message, remark()))


@dataclass(slots=True)
class Review:
    """The selected messages by what sending would do with them."""

    first: Listing = field(default_factory=Listing)
    again: Listing = field(default_factory=Listing)
    """Sent again: eSMS took them, and nothing of their family was delivered."""
    arrived: Listing = field(default_factory=Listing)
    """Sent again as well, although they or other messages of their families were delivered."""
    doubtful: Listing = field(default_factory=Listing)
    """Sent again as well, although nobody knows whether eSMS took them."""
    skipped: Listing = field(default_factory=Listing)
    sendable: list[int] = field(default_factory=list)
    charged: Counter[Kind] = field(default_factory=Counter)
    """The number of messages of each kind that would be sent and cost something."""
    charged_though_arrived: Counter[Kind] = field(default_factory=Counter)

    def add(self, messages: Iterable[OutboundViberMessage]) -> None:
        messages = list(messages)
        plan = plan_resend(message for message in messages if not is_repeated(message))
        families = _families(plan.again)
        for message in filter(is_repeated, messages):
            self.skipped.add(message, partial(str, STILL_REPEATED))
        for message in plan.first:
            self.first.add(message, partial(_why_failed, message))
        arrived = []
        for message in plan.again:
            family = families[message.id]
            if _has_arrived(family):
                arrived.append(message)
                self.arrived.add(message, partial(_what_became_of_others, message, family))
            elif message.status == Status.UNKNOWN:
                self.doubtful.add(message, partial(_why_in_doubt, message, family))
            else:
                self.again.add(message, partial(_what_became_of_others, message, family))
        for message, why in plan.skipped:
            self.skipped.add(message, partial(str, why))
        self.sendable += [message.id for message in plan.first + plan.again]
        self.charged.update(_charged(plan.first + plan.again))
        self.charged_though_arrived.update(_charged(arrived))


def _charged(messages: Iterable[OutboundViberMessage]) -> Counter[Kind]:
    conf = get_settings()
    return Counter(
        kind for message in messages if not lifecycle.goes_to_sandbox(message, conf) and (kind := message.kind)
    )


def arrived(messages: Iterable[OutboundViberMessage]) -> set[int]:
    """Find the messages that arrived, themselves or as another message of their family."""
    messages = list(messages)
    families = _families(messages)
    return {message.id for message in messages if _has_arrived(families[message.id])}


def _has_arrived(family: list[OutboundViberMessage]) -> bool:
    return any(member.status == Status.DELIVERED for member in family)


def _families(messages: Iterable[OutboundViberMessage]) -> dict[int, list[OutboundViberMessage]]:
    """Map the primary key of each message to its family: the message sent first, its resends, their resends, and so on.

    Each round of the first two loops is one query, and goes one resend further.
    """
    rows = OutboundViberMessage.objects.for_writing()
    known = {message.id: message for message in messages}
    found = known
    while found:
        originals = {message.resend_of_id for message in found.values() if message.resend_of_id} - known.keys()
        found = {original.id: original for original in rows.filter(pk__in=originals)}
        known |= found
    found = known
    while found:
        resends = rows.filter(resend_of__in=found.keys())
        found = {resend.id: resend for resend in resends if resend.id not in known}
        known |= found
    families = defaultdict(list)
    for _pk, message in sorted(known.items()):
        first = message
        while original := known.get(first.resend_of_id or 0):
            first = original
        families[first.id].append(message)
    return {member.id: family for family in families.values() for member in family}


def _why_failed(message: OutboundViberMessage) -> str:
    return " ".join(display.explain(message)) if message.status == Status.FAILED else ""


def _why_in_doubt(message: OutboundViberMessage, family: list[OutboundViberMessage]) -> str:
    if message.uncertain_since is None:
        known = display.explain(message)[0]
    else:
        calls = ngettext(
            "It was tried once, at %(since)s, and nobody knows whether eSMS took it.",
            "It was tried %(count)d times, first at %(since)s, and nobody knows whether eSMS took it.",
            message.attempts,
        ) % {"count": message.attempts, "since": formatting.moment(message.uncertain_since)}
        known = f"{calls} {display.last_word(message)}"
    return f"{known} {_what_became_of_others(message, family)}".rstrip()


def _what_became_of_others(message: OutboundViberMessage, family: list[OutboundViberMessage]) -> str:
    """Tell of the message that arrived or, where none did, of the latest resend."""
    others = [member for member in family if member.id != message.id]
    told = [other for other in others if other.status == Status.DELIVERED or other.id > message.id]
    if not told:
        return ""
    other = max(told, key=lambda member: (member.status == Status.DELIVERED, member.id))
    if other.id < message.id:
        sentence = _("It is a resend itself, after № %(number)s of %(time)s: %(status)s.")
    else:
        sentence = _("It was sent again before, at %(time)s as № %(number)s: %(status)s.")
    return sentence % {
        "time": formatting.moment(other.created_at),
        "number": other.id,
        "status": other.get_status_display(),
    }


def review(pks: list[int]) -> Review:
    found = Review()
    rows = OutboundViberMessage.objects.for_writing()
    for chunk in in_chunks(pks):
        found.add(rows.filter(pk__in=chunk).order_by("-pk"))
    return found


def selected_pks(queryset: QuerySet[OutboundViberMessage]) -> list[int]:
    """Return the primary keys, newest first. One more than `MOST_AT_ONCE` means that there are too many."""
    rows = queryset.using(OutboundViberMessage.objects.write_alias()).order_by("-id")
    return list(rows.values_list("id", flat=True)[: MOST_AT_ONCE + 1])


@dataclass(frozen=True, slots=True)
class Mark:
    """The end of the history when the confirmation page was made.

    A message to which something happens later is not sent, because nobody has confirmed that. So the second click of a
    double click sends nothing.
    """

    last_event: int
    last_message: int

    @classmethod
    def now(cls) -> Self:
        events = ViberMessageEvent.objects.for_writing().aggregate(last=Max("pk"))
        messages = OutboundViberMessage.objects.for_writing().aggregate(last=Max("pk"))
        return cls(events["last"] or 0, messages["last"] or 0)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", text)
        return cls(int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.last_event}-{self.last_message}"

    def changed_since(self, pks: list[int]) -> set[int]:
        """Find the messages that are newer, and those with a newer event, of their own or of a resend."""
        events = ViberMessageEvent.objects.for_writing().filter(pk__gt=self.last_event).order_by()
        # Two queries, each along the index of its messages, because one would read all events since then.
        seen = set(events.filter(message__in=pks).values_list("message", flat=True))
        seen.update(events.filter(message__resend_of__in=pks).values_list("message__resend_of", flat=True))
        return {pk for pk in pks if pk in seen or pk > self.last_message}


CONFIRMED = "confirmed"
"""The parameter in which the confirmation page posts its `Mark`."""

SPARE = "spare_arrived"
"""The parameter of its second button, which leaves out messages that have arrived."""

_OVERTAKEN = gettext_lazy("Something happened to it after you were asked: look at it before you send it.")


def selects_across(request: HttpRequest) -> bool:
    """Tell whether all that the filters of the list select is meant."""
    return request.POST.get("select_across") == "1"


def ask_for_confirmation(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    pks: list[int],
    *,
    of_many: QuerySet[OutboundViberMessage] | None = None,
) -> HttpResponse:
    """Tell what would be done with the messages; `of_many`: these are only the newest of all that are meant."""
    mark = Mark.now()
    found = review(pks)
    across = selects_across(request)
    many: dict[str, Any] = {}
    if of_many is not None:
        last = request.POST.get(LAST_SHOWN, "")
        newest = min(mark.last_message, int(last) if re.fullmatch("[0-9]{1,18}", last) else mark.last_message)
        many = {
            "selected": tell_count(of_many.order_by().values("pk")[: MOST_COUNTED + 1].count()),
            "looked_at": formatting.grouped(len(pks)),
            **slices.context(model_admin, request, Work.begin(request, of_many, last=newest, mark=str(mark))),
        }
    cost_spared = ""
    prices = average_prices(found.charged) if found.charged and not get_settings().SANDBOX else {}
    if found.charged_though_arrived and not get_settings().SANDBOX:
        amount = estimate(found.charged - found.charged_though_arrived, prices)
        if amount is not None:
            cost_spared = _("Without what has arrived, about %(amount)s.") % {"amount": dong(amount)}
    context: dict[str, Any] = {
        **model_admin.admin_site.each_context(request),
        "title": _("Send Viber messages?"),
        "opts": model_admin.opts,
        "sendable": len(found.sendable),
        "first": _shown(model_admin, found.first),
        "again": _shown(model_admin, found.again),
        "arrived": _shown(model_admin, found.arrived),
        "not_arrived": len(found.sendable) - found.arrived.count,
        "spare_name": SPARE,
        "doubtful": _shown(model_admin, found.doubtful),
        "skipped": _shown(model_admin, found.skipped),
        "viber_queue": queue_status.obstacles(),
        "cost": _cost(found, prices),
        "cost_spared": cost_spared,
        "mark_name": CONFIRMED,
        "mark": mark,
        "action_name": "send_selected",
        "checkbox_name": ACTION_CHECKBOX_NAME,
        # The filters in the address select them again, because thousands of ids exceed the limit of form fields.
        "select_across": across,
        "posted_pks": pks[:1] if across else found.sendable,
        "from_names": [name for name in (FROM_PAGE, FROM_CAMPAIGN) if name in request.POST],
        "back": back_url(model_admin, request, pks),
        **many,
    }
    request.current_app = model_admin.admin_site.name
    return TemplateResponse(request, "admin/esms_viber/outboundvibermessage/send_confirmation.html", context)


def _cost(found: Review, prices: dict[Kind, Decimal]) -> str:
    """Tell what sending may cost; empty where nothing would be sent."""
    if not found.sendable:
        return ""
    if not found.charged:
        return _("It costs nothing: it goes to the sandbox.")
    amount = estimate(found.charged, prices)
    if amount is None:
        return _("The cost is not known, because eSMS has not reported the price of such a message yet.")
    return _("It may cost about %(amount)s, going by the latest prices.") % {"amount": dong(amount)}


def _shown(model_admin: MessageAdminBase, listing: Listing) -> dict[str, Any]:
    lines = [(display.line(message, model_admin.page_url(message.id)), remark) for message, remark in listing.shown]
    return {"count": listing.count, "lines": lines, "more": listing.count - len(lines)}


def send(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int], mark: Mark) -> None:
    since = notices.begin()
    queued, skipped = _send(pks, mark, user_of(request), spare=SPARE in request.POST)
    # The outcomes are worth telling, because the commit called the dispatcher, and the inline one has sent by now.
    report(model_admin, request, queued, notices.left_out(skipped), since=since)


def send_slices(
    model_admin: MessageAdminBase, request: HttpRequest, queryset: QuerySet[OutboundViberMessage], work: Work
) -> HttpResponse:
    """Send some of many; in the end the inline dispatcher sends what one request may, of all that is due."""
    user, mark = user_of(request), Mark.parse(work.mark)
    work.spare = work.spare or SPARE in request.POST
    if mark is None:
        raise SuspiciousOperation("this work is not to be sent")

    def step(pks: list[int]) -> None:
        queued, skipped = _send(pks, mark, user, spare=work.spare, hold_inline=True)
        work.done["queued"] += len(queued)
        work.leave_out(Counter({why: len(left) for why, left in skipped.items() if left}))

    def told() -> list[Notice]:
        count = work.done["queued"]
        found = []
        if count:
            sentence = ngettext(
                "One message was handed over for sending.", "%(count)s messages were handed over for sending.", count
            ) % {"count": formatting.grouped(count)}
            hold = display.hold_on(request.GET.get("campaign", ""), Purpose.TRANSACTIONAL)
            waits = [display.stored(hold.reason), hold.remedy()] if hold else []
            found.append(Notice(levels.WARNING if hold else levels.SUCCESS, " ".join([sentence, *waits])))
        return [*found, *work.left_out()]

    response = slices.go_on(model_admin, request, queryset, work, title=_("Sending"), step=step, told=told)
    if work.finished and slices.PART not in request.POST and is_inline():
        dispatch_on_commit(due_pks("", most=get_settings().INLINE_LIMIT))
    return response


def _send(
    pks: list[int], mark: Mark, user: AbstractBaseUser, *, spare: bool, hold_inline: bool = False
) -> tuple[list[int], dict[str, list[int]]]:
    """Queue the messages in one transaction. Return the queued keys, and the others by the reason."""
    return in_transaction(
        lambda: _queue(sorted(pks), mark, user, spare=spare, hold_inline=hold_inline),
        using=OutboundViberMessage.objects.write_alias(),
        repeatable=False,
    )


def _queue(
    pks: list[int], mark: Mark, user: AbstractBaseUser, *, spare: bool, hold_inline: bool
) -> tuple[list[int], dict[str, list[int]]]:
    queued: list[int] = []
    skipped: defaultdict[str, list[int]] = defaultdict(list)
    for chunk in in_chunks(pks):
        rows = list(lock(rows_of(chunk)))
        changed = mark.changed_since(chunk)
        spared = arrived(rows) - changed if spare else set()
        confirmed = [row for row in rows if row.id not in changed | spared and not is_repeated(row)]
        sent = resend([row.id for row in confirmed], user=user, hold_inline=hold_inline)
        queued += [row.id for row in sent]
        acted_on = {row.id for row in sent} | {row.resend_of_id for row in sent}
        left = plan_resend(row for row in confirmed if row.id not in acted_on)
        for row, why in left.skipped:
            skipped[why].append(row.id)
        skipped[str(_OVERTAKEN)] += changed
        skipped[_("It has arrived already.")] += spared
        skipped[str(STILL_REPEATED)] += [row.id for row in rows if row.id not in changed and is_repeated(row)]
    return queued, skipped


def send_saved(model_admin: MessageAdminBase, request: HttpRequest, message: OutboundViberMessage) -> None:
    """Send for *Save and send*. The message is committed already, so it is kept whatever goes wrong here."""
    try:
        require_setup()
        queued = services.queue_stored_message(message, user=user_of(request))
    except ImproperlyConfigured as error:
        report_configuration(model_admin, request, error)
        tell(model_admin, request, [message.id], [Notice(levels.WARNING, _("It is kept, and was not sent."))])
        return
    except ValidationError as error:
        sentence = " ".join([_("It was not sent."), *error.messages])
        tell(model_admin, request, [message.id], [Notice(levels.ERROR, sentence)])
        return
    besides = []
    if not queued:
        now = rows_of([message.id]).first()
        if now is None or not now.is_editable:
            besides.append(Notice(levels.WARNING, _("It was sent from elsewhere in the meantime, and not again.")))
        elif now.error_message != lifecycle.OPTED_OUT:
            besides.append(Notice(levels.WARNING, _("It was not sent: this phone has opted out.")))
    report(model_admin, request, [message.id], besides)
