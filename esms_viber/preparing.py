"""What comes between claim and call: the site's receivers are asked, and that a call may be made is committed."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import transaction
from django.db.models import F, Value
from django.db.models.functions import Coalesce
from django.utils import timezone
from django.utils.translation import gettext_noop

from . import claims, lifecycle
from .calls import Attempt
from .lifecycle import Move
from .models import OutboundViberMessage, Status
from .outcomes import wait_before
from .outgoing import outgoing_for
from .sentences import put_together
from .signals import CancelSend, pre_send
from .tracebacks import log_failure
from .transactions import in_transaction, write_alias

_VETOED = gettext_noop("This site decided not to send it.")
_NOT_CHECKED = gettext_noop("Not sent: this site's own check before sending (pre_send) failed.")


def attempt_at(message: OutboundViberMessage) -> Attempt:
    return Attempt(message, outgoing_for(message), message.uncertain_since is None, message.code_result)


def is_allowed(attempt: Attempt) -> bool:
    """Ask the site's receivers before a message goes out for the first time."""
    if not attempt.first:
        return True
    message = attempt.message
    try:
        pre_send.send(OutboundViberMessage, message=message)
    except CancelSend as veto:
        reason = str(veto) or _VETOED
        _end_claim(Move(message, Status.CANCELLED, lifecycle.end_columns(reason)), reason)
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "a pre_send receiver failed; message %s waits", message.id)
        reason = put_together(_NOT_CHECKED, type(error).__name__)
        when = timezone.now() + wait_before(5)
        _end_claim(lifecycle.put_back(message, when=when, error_message=reason), reason)
    else:
        return True
    return False


def _end_claim(move: Move, reason: str) -> None:
    message = move.message
    with transaction.atomic(using=write_alias()):
        if lifecycle.move(message, move.to, claim=message.claim_id, **move.columns):
            lifecycle.note(message, reason)


def give_back(messages: Iterable[OutboundViberMessage]) -> None:
    """No call was made, and none will be: an error, trouble, or somebody's Ctrl-C came first."""
    for message in messages:
        if message.status == Status.SENDING:
            back = lifecycle.put_back(message, when=timezone.now())
            lifecycle.move(message, back.to, claim=message.claim_id, **back.columns)


def begin(attempts: list[Attempt]) -> list[Attempt]:
    """Commit that a call may be made from now on; drops what has been taken from us in the meantime."""
    now = timezone.now()
    lease_until = now + claims.LEASE

    def write() -> set[int]:
        ours = claims.lock_claimed(attempt.message for attempt in attempts)
        for sandbox in (True, False):
            pks = [a.message.id for a in attempts if a.message.id in ours and a.outgoing.sandbox is sandbox]
            OutboundViberMessage.objects.using(write_alias()).filter(pk__in=pks).update(
                attempts=F("attempts") + 1,
                sandbox=sandbox,
                code_result="",
                uncertain_since=Coalesce("uncertain_since", Value(now)),
                lease_until=lease_until,
            )
        return ours

    ours = in_transaction(write) if attempts else set()
    begun = [attempt for attempt in attempts if attempt.message.id in ours]
    for attempt in begun:
        message = attempt.message
        message.attempts += 1
        message.sandbox, message.code_result = attempt.outgoing.sandbox, ""
        message.uncertain_since, message.lease_until = message.uncertain_since or now, lease_until
    return begun
