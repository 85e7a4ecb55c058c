"""Asking eSMS what became of messages: those that somebody names, and those whose time has come."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.utils import timezone

from .. import lifecycle
from ..codes import ACCOUNT_CODES
from ..conf import get_settings
from ..database import in_transaction, lock, refuse_open_transaction, update_each
from ..delivery.calls import GATHERING, Calls, Query
from ..delivery.outcomes import is_silent
from ..delivery.results import in_log
from ..formatting import put_together
from ..gateways.base import CallOutcome, StatusResult
from ..gateways.loading import get_gateway
from ..lifecycle import FIRST_QUERY, next_query_at
from ..models import OutboundViberMessage, Status, ViberMessageEvent
from ..phones import mask_phone
from .applying import apply_report
from .parsing import MalformedReport, parse_report

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser


logger = logging.getLogger("esms_viber")

ASKABLE = (Status.SENDING, Status.UNKNOWN, Status.SENT)

_AT_ONCE = 200


@dataclass(frozen=True, slots=True)
class RefreshSummary:
    """What came of asking about messages that have no final report."""

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
    """eSMS finds a message by its SMSID alone, and stores none that was sent to the sandbox."""
    return bool(message.sms_id) and not message.sandbox and message.status in ASKABLE


def refresh_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Ask eSMS about the messages that have no final report yet; the rows asked about, as they are then.

    Skipped: sandbox messages, and those that have no SMSID. eSMS answers for seven days after a send. Where it
    refuses the account or does not answer, the rest is not asked about. Raises `TransactionManagementError` inside an
    open transaction.
    """
    refuse_open_transaction("Call it after the commit.", using=OutboundViberMessage.objects.write_alias())
    queries = [Query(message) for message in messages if can_ask(message)]
    _ask_all(queries, Calls(get_gateway(), get_settings()), user=user)
    return [query.message for query in queries if query.result is not None]


def refresh_due_messages(
    limit: int | None = None,
    *,
    should_stop: Callable[[], bool] = lambda: False,
    on_progress: Callable[[int], object] = lambda count: None,
) -> RefreshSummary:
    """Ask eSMS about messages that have been `sent` for a while without a final report, at most `limit` of them.

    Each is asked about five minutes after it was sent, then at twice that age, and so on, for seven days. Any number
    of processes may do so at once. Raises `TransactionManagementError` inside an open transaction.
    """
    refuse_open_transaction("Call it after the commit.", using=OutboundViberMessage.objects.write_alias())
    calls = Calls(get_gateway(), get_settings())
    found = {Status.DELIVERED: 0, Status.UNDELIVERED: 0}
    asked, due = 0, OutboundViberMessage.objects.for_writing().due_for_query
    while not calls.stopped and not should_stop() and (limit is None or asked < limit):
        queries = _claim(_AT_ONCE if limit is None else min(_AT_ONCE, limit - asked))
        if not queries:
            break
        _ask_all(queries, calls, should_stop=should_stop)
        answered = [query for query in queries if query.result is not None]
        _put_back([query for query in queries if query.result is None], timezone.now())
        _put_back([query for query in queries if _had_no_answer(query)], timezone.now() + FIRST_QUERY)
        asked += len(answered)
        for query in answered:
            if query.message.status in found:
                found[Status(query.message.status)] += 1
        on_progress(len(answered))
    delivered, undelivered = found.values()
    return RefreshSummary(
        delivered, undelivered, asked - delivered - undelivered, due().count(), calls.account_code, calls.outage
    )


def _claim(limit: int) -> list[Query]:
    """Messages whose time to be asked about has come; nobody else asks about them before the next time."""
    if not OutboundViberMessage.objects.for_writing().due_for_query().exists():
        return []
    return in_transaction(lambda: _plan_next(limit), using=OutboundViberMessage.objects.write_alias())


def _plan_next(limit: int) -> list[Query]:
    now = timezone.now()
    due = OutboundViberMessage.objects.for_writing().due_for_query(now)
    messages = list(lock(due, skip_locked=True)[:limit])
    changes = []
    for message in messages:
        message.next_query_at = next_query_at(message.sent_at or now, now)
        changes.append(({"pk": message.id, "status": Status.SENT}, {"next_query_at": message.next_query_at}))
    update_each(OutboundViberMessage, changes, using=due.db)
    return [Query(message) for message in messages]


def _had_no_answer(query: Query) -> bool:
    return query.result is not None and (is_silent(query.result) or query.result.code in ACCOUNT_CODES)


def _put_back(queries: Iterable[Query], when: dt.datetime) -> None:
    """Those that were asked about in vain, or not at all, have not had their turn."""
    pks = [query.message.id for query in queries]
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=pks, status=Status.SENT)
    rows.update(next_query_at=when)


def _ask_all(
    queries: Iterable[Query], calls: Calls, *, user: Any = None, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Call from many threads, record from this one; the messages are then as they are stored."""
    pending = {calls.start_query(query): query for query in queries}
    try:
        while pending:
            if should_stop():
                calls.stop()
            done, _pending = wait(pending, timeout=GATHERING)
            _record([query for future in done if (query := pending.pop(future)).result is not None], user)
    except BaseException:
        calls.stop()
        wait([future for future in pending if not future.cancel()])
        raise


def _record(queries: Sequence[Query], user: Any) -> None:
    if not queries:
        return
    rows = in_transaction(lambda: _write(queries, user), using=OutboundViberMessage.objects.write_alias())
    for query in queries:
        if query.message.id in rows:
            query.message = rows[query.message.id]
            _log(query.message, query.result)
        else:
            logger.warning("message %s was deleted while eSMS was asked about it", query.message.id)
            query.result = None


def _log(message: OutboundViberMessage, result: StatusResult | None) -> None:
    if result is not None:
        phone = mask_phone(message.phone)
        logger.info("asked about message %s to %s: %s (%s)", message.id, phone, message.status, in_log(result))


def _write(queries: Sequence[Query], user: Any) -> dict[int, OutboundViberMessage]:
    rows = OutboundViberMessage.objects.for_writing().filter(pk__in=[query.message.id for query in queries])
    found = {row.id: row for row in lock(rows.order_by("pk"))}
    polls = [
        (found[query.message.id], query.result, _event(found[query.message.id], query.result, user))
        for query in queries
        if query.message.id in found and query.result is not None
    ]
    for message, result, event in polls:
        if result.outcome is CallOutcome.ANSWERED and result.code == "100":
            event.applied = _apply(message, result, event)
    lifecycle.store_events(event for _message, _result, event in polls)
    return found


def _event(message: OutboundViberMessage, result: StatusResult, user: Any) -> ViberMessageEvent:
    return lifecycle.make_note(
        message,
        result.text,
        kind=ViberMessageEvent.Kind.POLL,
        code=result.code,
        duration_ms=result.duration_ms,
        data=dict(result.values),
        user=user,
    )


def _apply(message: OutboundViberMessage, result: StatusResult, event: ViberMessageEvent) -> bool:
    try:
        report = parse_report(result.values)
    except MalformedReport as error:
        logger.warning("status answer for message %s makes no sense: %s", message.id, error)
        return False
    if report.left_out:
        logger.warning(
            "status answer for message %s: cannot be read, and left out: %s", message.id, ", ".join(report.left_out)
        )
        event.text = put_together(*report.notes, event.text)[:500]
    if report.names_another_sms_id(message.sms_id):
        logger.warning("status answer for message %s speaks of another SMSID", message.id)
        return False
    return apply_report(message, report, event)
