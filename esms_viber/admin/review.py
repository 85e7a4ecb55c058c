"""What a person is shown before messages are sent, and the mark by which the answer is held to it."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from django.db.models import Max, Q, QuerySet
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..resending import plan_resend
from ..transactions import write_alias
from ..validation import Kind
from . import display

MOST_AT_ONCE = 5000
"""Messages that one request plans and queues."""

_SHOWN = 20
_CHUNK = 500


STILL_REPEATED = gettext_lazy(
    "It is still tried again by itself, in a way that cannot send it twice. Wait, or stop that first."
)


def is_repeated(message: OutboundViberMessage) -> bool:
    """Nobody has to take the risk of sending it twice as long as it may settle by itself."""
    return message.status == Status.UNKNOWN and message.next_attempt_at is not None


@dataclass(slots=True)
class Listing:
    """How many there are, and the first of them."""

    count: int = 0
    shown: list[tuple[OutboundViberMessage, str]] = field(default_factory=list)
    """With what is to be said of it."""

    def add(self, message: OutboundViberMessage, remark: str = "") -> None:
        self.count += 1
        if len(self.shown) < _SHOWN:
            self.shown.append((message, remark))


@dataclass(slots=True)
class Review:
    """The selected messages by what sending would do with them."""

    first: Listing = field(default_factory=Listing)
    again: Listing = field(default_factory=Listing)
    """eSMS took them."""
    arrived: Listing = field(default_factory=Listing)
    """Sent again as well, though they were delivered, or what they were sent again as."""
    doubtful: Listing = field(default_factory=Listing)
    """Sent again as well, though nobody knows whether eSMS took them."""
    skipped: Listing = field(default_factory=Listing)
    sendable: list[int] = field(default_factory=list)
    charged: Counter[Kind] = field(default_factory=Counter)
    """Of those that would be sent, how many of each kind cost something."""
    charged_though_arrived: Counter[Kind] = field(default_factory=Counter)

    def add(self, messages: Iterable[OutboundViberMessage]) -> None:
        messages = list(messages)
        plan = plan_resend(message for message in messages if not is_repeated(message))
        families = _families(plan.again)
        for message in filter(is_repeated, messages):
            self.skipped.add(message, str(STILL_REPEATED))
        for message in plan.first:
            self.first.add(message, " ".join(display.explain(message)) if message.status == Status.FAILED else "")
        for message in plan.again:
            family = families[message.id]
            remark = _what_became_of_others(message, family)
            if _has_arrived(family):
                self.arrived.add(message, remark)
                self.charged_though_arrived.update(_charged([message]))
            elif message.status == Status.UNKNOWN:
                self.doubtful.add(message, f"{_what_is_known(message)} {remark}".rstrip())
            else:
                self.again.add(message, remark)
        for message, why in plan.skipped:
            self.skipped.add(message, why)
        self.sendable += [message.id for message in plan.first + plan.again]
        self.charged.update(_charged(plan.first + plan.again))


def _charged(messages: Iterable[OutboundViberMessage]) -> Counter[Kind]:
    return Counter(message.kind for message in messages if message.kind and not message.sandbox)


def arrived(messages: Iterable[OutboundViberMessage]) -> set[int]:
    """Those that were delivered, by themselves or as another of the messages that one was sent again as."""
    messages = list(messages)
    families = _families(messages)
    return {message.id for message in messages if _has_arrived(families[message.id])}


def _has_arrived(family: list[OutboundViberMessage]) -> bool:
    return any(member.status == Status.DELIVERED for member in family)


def _families(messages: Iterable[OutboundViberMessage]) -> dict[int, list[OutboundViberMessage]]:
    """By primary key: the message with what it was sent again from and as, in as many steps as there are."""
    known = {message.id: message for message in messages}
    rows = OutboundViberMessage.objects.using(write_alias())
    latest = set(known)
    while wanted := {pk for made in latest if (pk := known[made].resend_of_id) and pk not in known}:
        known |= {parent.id: parent for parent in rows.filter(pk__in=wanted)}
        latest = wanted & known.keys()
    latest = set(known)
    while latest:
        resends = {resend.id: resend for resend in rows.filter(resend_of__in=latest)}
        latest = resends.keys() - known.keys()
        known |= resends
    families = defaultdict(list)
    roots = {pk: _root(message, known) for pk, message in sorted(known.items())}
    for pk, root in roots.items():
        families[root].append(known[pk])
    return {pk: families[root] for pk, root in roots.items()}


def _root(message: OutboundViberMessage, known: Mapping[int, OutboundViberMessage]) -> int:
    while parent := known.get(message.resend_of_id or 0):
        message = parent
    return message.id


def _what_became_of_others(message: OutboundViberMessage, family: list[OutboundViberMessage]) -> str:
    """Of the one that arrived or, where none did, of the latest resend."""
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
        "time": display.moment(other.created_at),
        "number": other.id,
        "status": other.get_status_display(),
    }


def _what_is_known(message: OutboundViberMessage) -> str:
    if message.uncertain_since is None:
        return display.explain(message)[0]
    calls = ngettext(
        "It was tried once, at %(since)s, and nobody knows whether eSMS took it.",
        "It was tried %(count)d times, first at %(since)s, and nobody knows whether eSMS took it.",
        message.attempts,
    ) % {"count": message.attempts, "since": display.moment(message.uncertain_since)}
    return f"{calls} {display.last_word(message)}"


def review(pks: list[int]) -> Review:
    found = Review()
    rows = OutboundViberMessage.objects.using(write_alias())
    for chunk in in_chunks(pks):
        found.add(rows.filter(pk__in=chunk).order_by("-pk"))
    return found


def selected_pks(queryset: QuerySet[OutboundViberMessage], *, most: int = MOST_AT_ONCE) -> list[int]:
    """Newest first; one more than the most where there are too many."""
    rows = queryset.using(write_alias()).order_by("-id")
    return list(rows.values_list("id", flat=True)[: most + 1])


def in_chunks(pks: list[int]) -> Iterator[list[int]]:
    return (pks[start : start + _CHUNK] for start in range(0, len(pks), _CHUNK))


@dataclass(frozen=True, slots=True)
class Mark:
    """The point up to which a person has seen the history.

    What happens later, the first click of a double one included, was not on the page that was confirmed.
    """

    last_event: int
    last_message: int

    @classmethod
    def now(cls) -> Self:
        alias = write_alias()
        events = ViberMessageEvent.objects.using(alias).aggregate(last=Max("pk"))
        messages = OutboundViberMessage.objects.using(alias).aggregate(last=Max("pk"))
        return cls(events["last"] or 0, messages["last"] or 0)

    @classmethod
    def parse(cls, text: str) -> Self | None:
        match = re.fullmatch(r"([0-9]{1,18})-([0-9]{1,18})", text)
        return cls(int(match[1]), int(match[2])) if match else None

    def __str__(self) -> str:
        return f"{self.last_event}-{self.last_message}"

    def changed_since(self, pks: list[int]) -> set[int]:
        """Those that did not exist yet, and those that something has happened to since, or to a resend of them."""
        events = ViberMessageEvent.objects.using(write_alias()).filter(pk__gt=self.last_event)
        events = events.filter(Q(message__in=pks) | Q(message__resend_of__in=pks))
        seen = {pk for pair in events.values_list("message_id", "message__resend_of_id") for pk in pair}
        return {pk for pk in pks if pk in seen or pk > self.last_message}
