"""Claim, call, record: how queued messages get sent. What dispatchers, tasks and the command call.

The database is used from the calling thread alone; the others touch nothing but the network.
"""

from __future__ import annotations

import copy
import logging
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone

from . import lifecycle
from .calls import Attempt, Calls
from .claims import EXPIRED, LEASE, claim, lock_claimed, renew, take_over_abandoned
from .conf import get_settings
from .gateways import get_gateway
from .models import OutboundViberMessage, Status
from .outcomes import wait_before
from .outgoing import outgoing_for
from .recording import record_result
from .signals import CancelSend, pre_send
from .transactions import lock, refuse_open_transaction, write_alias

logger = logging.getLogger("esms_viber")

_RENEWAL = LEASE.total_seconds() / 4
_GATHERING = 0.05
"""Seconds for which results are gathered, to be recorded in one transaction."""

_HINT = "Call it after the commit, e.g. by transaction.on_commit()."


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """How many messages went which way, and whether the account is in trouble."""

    sent: int = 0
    failed: int = 0
    """Refused, expired or vetoed."""
    unknown: int = 0
    requeued: int = 0
    """Surely not taken; they wait for another try."""
    left: int = 0
    """Due, and not tried this time."""
    account_code: str = ""
    """The code with which eSMS refused the account itself; empty: it did not."""


def deliver_messages(pks: Sequence[int]) -> DeliverySummary:
    """Send those of these messages that are due. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return _deliver(list(pks))


def deliver_due_messages(limit: int | None = None) -> DeliverySummary:
    """Send what is due, at most `limit` messages. Any number of processes may do so at once.

    Raises `TransactionManagementError` inside an open transaction.
    """
    return _deliver(None, limit=limit)


def deliver_inline(pks: Sequence[int], *, limit: int, seconds: float) -> DeliverySummary:
    """As `deliver_messages()`, starting at most so many calls and none after so many seconds."""
    return _deliver(list(pks), limit=limit, start_before=time.monotonic() + seconds)


def deliver_claimed(message: OutboundViberMessage) -> None:
    """Send a message that the caller has inserted as claimed, and record the outcome on it."""
    _send([message], Calls(get_gateway(), get_settings()))


def _deliver(pks: list[int] | None, *, limit: int | None = None, start_before: float | None = None) -> DeliverySummary:
    refuse_open_transaction(_HINT)
    conf = get_settings()
    calls = Calls(get_gateway(), conf, start_before=start_before)
    take_over_abandoned()
    counts: dict[Status, int] = {}
    remaining = float("inf") if limit is None else limit
    # One message is the probe while the last word from eSMS was trouble: the others keep their place.
    probing = (pks is None or len(pks) > 1) and _in_trouble()
    chunks = deque(_chunks(pks))
    while chunks and not calls.stopped and remaining > 0:
        batch = claim(int(min(1 if probing else conf.CONCURRENCY * 4, remaining)), chunks[0])
        if not batch:
            chunks.popleft()
            continue
        statuses = _send(batch, calls)
        for status in statuses:
            counts[status] = counts.get(status, 0) + 1
        remaining -= len(batch)
        if not statuses or (probing and calls.in_trouble):
            break
        probing = probing and not calls.made
    return _summary(counts, pks, calls)


def _chunks(pks: list[int] | None) -> list[list[int] | None]:
    """What is claimed from: any messages, or these, as many at a time as a statement may name."""
    return [None] if pks is None else [pks[start : start + 500] for start in range(0, len(pks), 500)]


def _in_trouble() -> bool:
    messages = OutboundViberMessage.objects.using(write_alias())
    return messages.in_account_trouble().exists() or messages.unreachable().exists()


def _summary(counts: dict[Status, int], pks: list[int] | None, calls: Calls) -> DeliverySummary:
    due = OutboundViberMessage.objects.using(write_alias()).due()
    summary = DeliverySummary(
        sent=sum(counts.get(status, 0) for status in (Status.SENT, Status.DELIVERED, Status.UNDELIVERED)),
        failed=counts.get(Status.FAILED, 0) + counts.get(Status.CANCELLED, 0),
        unknown=counts.get(Status.UNKNOWN, 0),
        requeued=counts.get(Status.QUEUED, 0),
        left=sum((due if chunk is None else due.filter(pk__in=chunk)).count() for chunk in _chunks(pks)),
        account_code=calls.account_code,
    )
    if summary.account_code:
        logger.error(
            "eSMS refuses the account (code %s); %d messages wait",
            summary.account_code,
            summary.left + summary.requeued,
        )
    elif calls.in_outage:
        logger.error(
            "eSMS does not answer; no more calls were made, %d messages wait",
            summary.left + summary.requeued + summary.unknown,
        )
    return summary


def _send(batch: list[OutboundViberMessage], calls: Calls) -> list[Status]:
    """Call the gateway for claimed messages and record the outcomes; the statuses of those that it is done with."""
    claim_id = batch[0].claim_id
    try:
        attempts = [
            Attempt(message, outgoing_for(message), message.uncertain_since is None, message.code_result)
            for message in batch
        ]
        attempts = _begin(_allowed(attempts, claim_id), claim_id)
    except BaseException:
        for message in batch:
            if message.status == Status.SENDING:
                lifecycle.put_back(message, claim=claim_id, when=timezone.now())
        raise
    if attempts:
        _call_and_record(attempts, calls, claim_id)
    now = timezone.now()
    return [Status(message.status) for message in batch if not message.is_due(now)]


def _allowed(attempts: list[Attempt], claim_id: str) -> list[Attempt]:
    """Those that no receiver holds back. Receivers may take their time: the claim is renewed meanwhile."""
    allowed, renewed = [], time.monotonic()
    for attempt in attempts:
        if _is_allowed(attempt, claim_id):
            allowed.append(attempt)
        if time.monotonic() - renewed > _RENEWAL:
            renew([attempt.message for attempt in attempts], claim_id)
            renewed = time.monotonic()
    return allowed


def _is_allowed(attempt: Attempt, claim_id: str) -> bool:
    """Ask the site's receivers before a message goes out for the first time."""
    if not attempt.first:
        return True
    message = attempt.message
    try:
        pre_send.send(OutboundViberMessage, message=message)
    except CancelSend as veto:
        reason = str(veto) or "Vetoed before sending."
        with transaction.atomic(using=write_alias()):
            if lifecycle.cancel(message, reason, claim=claim_id):
                lifecycle.note(message, reason)
    except Exception as error:
        logger.exception("a pre_send receiver failed; message %s waits", message.pk)
        reason = f"Not sent: a pre_send receiver failed ({type(error).__name__})."
        with transaction.atomic(using=write_alias()):
            when = timezone.now() + wait_before(5)
            if lifecycle.put_back(message, claim=claim_id, when=when, error_message=reason):
                lifecycle.note(message, reason)
    else:
        return True
    return False


def _begin(attempts: list[Attempt], claim_id: str) -> list[Attempt]:
    """Commit that a call may be made from now on; drops what has been taken from us in the meantime."""
    now = timezone.now()
    with transaction.atomic(using=write_alias()):
        ours = lock_claimed([attempt.message for attempt in attempts], claim_id)
        attempts = [attempt for attempt in attempts if attempt.message.pk in ours]
        for sandbox in (True, False):
            pks = [attempt.message.pk for attempt in attempts if attempt.outgoing.sandbox is sandbox]
            OutboundViberMessage.objects.using(write_alias()).filter(pk__in=pks).update(
                attempts=F("attempts") + 1,
                sandbox=sandbox,
                code_result="",
                uncertain_since=Coalesce("uncertain_since", Value(now)),
                lease_until=now + LEASE,
            )
    for attempt in attempts:
        attempt.message.code_result = ""
        attempt.message.lease_until = now + LEASE
        attempt.message.attempts += 1
        attempt.message.sandbox = attempt.outgoing.sandbox
        attempt.message.uncertain_since = now if attempt.first else attempt.message.uncertain_since
    return attempts


def _call_and_record(attempts: list[Attempt], calls: Calls, claim_id: str) -> None:
    pending: dict[Future[None], Attempt] = {}
    pool = ThreadPoolExecutor(min(len(attempts), calls.concurrency), thread_name_prefix="esms_viber")
    try:
        for attempt in attempts:
            pending[pool.submit(calls.make, attempt)] = attempt
        renewed = time.monotonic()
        while pending:
            done, _ = wait(pending, timeout=_GATHERING)
            _record([pending[future] for future in done], claim_id)
            # Not before: should recording fail, it is tried once more below.
            for future in done:
                del pending[future]
            if time.monotonic() - renewed > _RENEWAL:
                renew([attempt.message for attempt in pending.values()], claim_id)
                renewed = time.monotonic()
    except BaseException:
        calls.stop()
        raise
    finally:
        # Whatever goes wrong here, what is on the wire is finished and written down.
        pool.shutdown(wait=True)
        _record(list(pending.values()), claim_id)


def _record(attempts: list[Attempt], claim_id: str) -> None:
    if not attempts:
        return
    # On copies: what a rollback takes back must not stay on the messages, which are recorded once more then.
    copies = [replace(attempt, message=copy.copy(attempt.message)) for attempt in attempts]
    with transaction.atomic(using=write_alias()):
        rows = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=[a.message.pk for a in attempts])
        # What was deleted meanwhile has no history to write to.
        there = set(lock(rows.order_by("pk")).values_list("pk", flat=True))
        for attempt in copies:
            if attempt.message.pk not in there:
                logger.warning("message %s was deleted while it was being sent", attempt.message.pk)
            elif attempt.result is None:
                _give_back(attempt, claim_id)
            else:
                record_result(attempt.message, attempt.result, claim_id=claim_id, first=attempt.first)
    for attempt, recorded in zip(attempts, copies, strict=True):
        attempt.message.__dict__.update(recorded.message.__dict__)


def _give_back(attempt: Attempt, claim_id: str) -> None:
    """No call was made for it."""
    message, now = attempt.message, timezone.now()
    expired = message.expires_at is not None and message.expires_at <= now
    if attempt.first and expired:
        lifecycle.expire(message, EXPIRED, claim=claim_id)
        return
    lifecycle.put_back(
        message,
        claim=claim_id,
        when=None if expired else now,
        attempts=message.attempts - 1,
        code_result=attempt.code,
        uncertain_since=None if attempt.first else message.uncertain_since,
    )
