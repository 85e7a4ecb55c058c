"""Ask eSMS what became of messages: of the ones that somebody names, and of the ones that are due for a query."""

from __future__ import annotations

import datetime as dt
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from django.db import Error as DatabaseTrouble
from django.utils import timezone

from .. import lifecycle
from ..codes import ACCOUNT_CODES
from ..conf import get_settings
from ..database import in_transaction, lock, refuse_open_transaction, update_each
from ..delivery.calls import GATHERING, Calls, Query
from ..delivery.interruptions import held_interruptions
from ..delivery.outcomes import is_silent
from ..delivery.results import in_log
from ..exceptions import log_failure
from ..formatting import put_together
from ..gateways.base import CallOutcome
from ..gateways.loading import get_gateway
from ..lifecycle import FIRST_QUERY, Transition, next_query_at
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..phones import mask_phone
from .applying import apply_report
from .callbacks import apply_stored_reports
from .parsing import MalformedReport, parse_report, without_person
from .sent_list import can_look_up, look_up

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

ASKABLE = (Status.SENDING, Status.UNKNOWN, Status.SENT)

_AT_ONCE = 200

_LOOKED_UP_AT_ONCE = 1000
"""Messages looked for in eSMS's list together, so that the list of their time is read once."""

_SECONDS_TO_LOOK_UP = 15
"""For whoever may wait in a web request: no page of the list is asked for after that."""


@dataclass(frozen=True, slots=True)
class RefreshSummary:
    """The counts of one run of `refresh_due_messages()`."""

    applied: int = 0
    """Stored reports that moved their messages, and whose applying had failed before."""

    delivered: int = 0
    undelivered: int = 0
    undecided: int = 0
    """Asked about, and still without a final report; they are asked about again, unless seven days have passed."""
    left: int = 0
    """To be asked about, and not asked this time."""
    account_code: str = ""
    """The code with which eSMS refused the account itself; empty: it did not."""
    outage: bool = False
    """Did so many calls in a row have no answer that no more were made?"""


def can_ask(message: OutboundViberMessage) -> bool:
    """Can eSMS find the message, by its SMSID or in its list of what was sent? It stores no sandbox messages."""
    by_sms_id = bool(message.sms_id) and not message.sent_to_sandbox and message.status in ASKABLE
    return by_sms_id or can_look_up(message)


def refresh_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Ask eSMS about the messages that have no final report yet, and return the rows asked about, as they are then.

    Those without an SMSID, whose calls are over, are looked up in eSMS's list of what was sent: one that the list has
    once, and that no other message can be, gets the entry's SMSID and status. Sandbox messages are skipped. eSMS
    answers for seven days after a send. Where it refuses the account or does not answer, the rest is not asked about.
    Raises `TransactionManagementError` inside an open transaction.
    """
    refuse_open_transaction("Call it after the commit.", using=OutboundViberMessage.objects.write_alias())
    messages = [message for message in messages if can_ask(message)]
    calls = Calls(get_gateway(), get_settings())
    queries = [Query(message) for message in messages if message.sms_id]
    with held_interruptions() as interruptions:
        _ask_all(queries, calls, user=user, should_stop=interruptions.let_through)
        until = time.monotonic() + _SECONDS_TO_LOOK_UP
        others = [message for message in messages if not message.sms_id]
        looked_up = look_up(
            others, calls, user=user, should_stop=lambda: interruptions.let_through() or time.monotonic() > until
        )
    return [*(query.message for query in queries if query.result is not None), *looked_up]


def refresh_due_messages(
    limit: int | None = None,
    *,
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int], object] = lambda count: None,
) -> RefreshSummary:
    """Ask eSMS about messages that have been without a final report for a while, at most `limit` of them.

    Each is asked about five minutes after it was sent, then at twice that age, and so on, for seven days: by its
    SMSID or, like what is `unknown` and not repeated, in eSMS's list of what was sent. Before that, stored reports
    whose applying failed are applied. Any number of processes may do so at once. Raises `TransactionManagementError`
    inside an open transaction.
    """
    refuse_open_transaction("Call it after the commit.", using=OutboundViberMessage.objects.write_alias())
    if should_stop is not None:
        return _refresh_due(limit, should_stop, on_progress)
    with held_interruptions() as interruptions:
        return _refresh_due(limit, interruptions.let_through, on_progress)


def _refresh_due(
    limit: int | None, should_stop: Callable[[], bool], on_progress: Callable[[int], object]
) -> RefreshSummary:
    applied = apply_stored_reports(should_stop=should_stop)
    calls = Calls(get_gateway(), get_settings())
    statuses, without_sms_id = Counter[str](), list[OutboundViberMessage]()

    def look_up_claimed() -> None:
        looked_up = look_up(without_sms_id, calls, should_stop=should_stop)
        without_sms_id.clear()
        statuses.update(message.status for message in looked_up)
        on_progress(len(looked_up))

    while not calls.stopped and not should_stop():
        left = _AT_ONCE if limit is None else min(_AT_ONCE, limit - statuses.total() - len(without_sms_id))
        messages = _claim(left) if left > 0 else []
        if not messages:
            break
        without_sms_id += [message for message in messages if can_look_up(message)]
        if len(without_sms_id) >= _LOOKED_UP_AT_ONCE:
            look_up_claimed()
        queries = [Query(message) for message in messages if message.sms_id]
        try:
            _ask_all(queries, calls, should_stop=should_stop)
        except DatabaseTrouble:
            raise
        except BaseException:
            _plan_again(queries)
            raise
        _plan_again(queries)
        asked = [query.message for query in queries if query.result is not None]
        statuses.update(message.status for message in asked)
        on_progress(len(asked))
    if without_sms_id and not calls.stopped:
        look_up_claimed()
    delivered, undelivered = statuses[Status.DELIVERED], statuses[Status.UNDELIVERED]
    return RefreshSummary(
        applied=applied,
        delivered=delivered,
        undelivered=undelivered,
        undecided=statuses.total() - delivered - undelivered,
        left=OutboundViberMessage.objects.for_writing().due_for_query().bounded_count(),
        account_code=calls.account_code,
        outage=calls.outage,
    )


def _claim(limit: int) -> list[OutboundViberMessage]:
    """Claim messages that are due for a query: plan their next one, so that no other process asks before then."""
    rows = OutboundViberMessage.objects.for_writing()
    if not rows.due_for_query().exists():
        return []

    def plan_next() -> list[OutboundViberMessage]:
        now = timezone.now()
        messages = list(lock(rows.due_for_query(now), skip_locked=True)[:limit])
        changes = []
        for message in messages:
            when = next_query_at(message.sent_at or message.uncertain_since or now, now)
            if not message.sms_id and can_look_up(message):
                # Soon, in case this run does not come to it. Looking it up plans the next time.
                when = now + FIRST_QUERY
            message.next_query_at = when
            changes.append(({"pk": message.id, "status": message.status}, {"next_query_at": when}))
        update_each(OutboundViberMessage, changes, using=rows.db)
        return messages

    return in_transaction(plan_next, using=rows.db)


def _plan_again(queries: Sequence[Query]) -> None:
    """Ask sooner about messages without an answer, because claiming them put off their next query."""
    asked = [(query.message, query.result) for query in queries if query.result is not None]
    in_vain = [message for message, result in asked if is_silent(result) or result.code in ACCOUNT_CODES]
    _ask_again([query.message for query in queries if query.result is None], timezone.now())
    _ask_again(in_vain, timezone.now() + FIRST_QUERY)


def _ask_again(messages: Iterable[OutboundViberMessage], when: dt.datetime) -> None:
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=[message.id for message in messages])
    rows.filter(status__in=[Status.SENT, Status.UNKNOWN]).update(next_query_at=when)


def _ask_all(queries: Iterable[Query], calls: Calls, *, should_stop: Callable[[], bool], user: Any = None) -> None:
    """Call from many threads and record from this one; afterwards each query has its message as it is stored."""
    pending = {calls.start_query(query): query for query in queries}

    def record(done: Iterable[Future[None]]) -> None:
        asked = [query for future in done if (query := pending.pop(future)).result is not None]
        rows = _record(asked, user) if asked else {}
        for query in asked:
            if query.result is not None and (row := rows.get(query.message.id)):
                query.message = row
                phone, told = mask_phone(row.phone), in_log(query.result)
                logger.info("asked about message %s to %s: %s (%s)", row.id, phone, row.status, told)
            else:
                logger.warning("message %s was deleted while eSMS was asked about it", query.message.id)
                query.result = None

    try:
        while pending:
            if should_stop():
                calls.stop()
            done, _pending = wait(pending, timeout=GATHERING)
            record(done)
    except BaseException as error:
        calls.stop()
        ended = [future for future in pending if not future.cancel()]
        wait(ended)
        if not isinstance(error, DatabaseTrouble):
            try:
                record(ended)
            except DatabaseTrouble as trouble:
                log_failure(trouble, "%d answers to status queries are lost", len(ended))
        raise


def _record(queries: Sequence[Query], user: Any) -> dict[int, OutboundViberMessage]:
    """Store an event for each answer, apply the reports among them, and return the rows that still exist."""
    found, _events, changes = in_transaction(
        partial(_write, queries, user),
        using=OutboundViberMessage.objects.write_alias(),
        was_committed=lambda written: lifecycle.is_stored(written[1]),
    )
    lifecycle.announce_after_commit(changes)
    return found


def _write(
    queries: Sequence[Query], user: Any
) -> tuple[dict[int, OutboundViberMessage], list[ViberMessageEvent], list[Transition]]:
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=[query.message.id for query in queries])
    found = {row.id: row for row in lock(rows.order_by("pk"))}
    events, changes = list[ViberMessageEvent](), list[Transition]()
    for query in queries:
        message, result = found.get(query.message.id), query.result
        if message is None or result is None:
            continue
        is_redacted = message.redacted_at is not None
        event = lifecycle.make_note(
            message,
            "" if is_redacted else result.text,
            kind=ViberMessageEvent.Kind.POLL,
            code=result.code,
            duration_ms=result.duration_ms,
            data=without_person(result.values, request_id=message.request_id) if is_redacted else dict(result.values),
            user=user,
        )
        events.append(event)
        if result.outcome is not CallOutcome.ANSWERED or result.code != "100":
            continue
        try:
            report = parse_report(result.values)
        except MalformedReport as error:
            logger.warning("status answer for message %s makes no sense: %s", message.id, error)
            continue
        if report.left_out:
            names = ", ".join(report.left_out)
            logger.warning("status answer for message %s: cannot be read, and left out: %s", message.id, names)
            event.text = put_together(*report.notes, event.text)[:500]
        if report.names_another_sms_id(message.sms_id):
            logger.warning("status answer for message %s speaks of another SMSID", message.id)
        else:
            moved = apply_report(message, report, event)
            event.applied = bool(moved)
            lifecycle.adopt(moved)
            changes += moved
    lifecycle.store_events(events)
    return found, events, changes
