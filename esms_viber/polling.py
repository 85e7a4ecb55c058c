"""Asking eSMS what became of messages."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from django.db import transaction

from . import lifecycle
from .calls import slots
from .conf import get_settings
from .gateways import get_gateway
from .gateways.base import Reach, StatusResult
from .models import OutboundViberMessage, Status, ViberMessageEvent
from .recording import apply_report
from .reports import MalformedReport, parse_report
from .transactions import lock, refuse_open_transaction, write_alias

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

ASKABLE = (Status.SENDING, Status.UNKNOWN, Status.SENT)


def can_ask(message: OutboundViberMessage) -> bool:
    """eSMS finds a message by its SMSID alone, and stores none that was sent to the sandbox."""
    return bool(message.sms_id) and not message.sandbox and message.status in ASKABLE


def refresh_viber_messages(
    messages: Iterable[OutboundViberMessage], *, user: AbstractBaseUser | None = None
) -> list[OutboundViberMessage]:
    """Ask eSMS about the messages that have no final report yet; the rows asked about, as they are then.

    Skipped: sandbox messages, and those that have no SMSID. eSMS answers for seven days after a send. Raises
    `TransactionManagementError` inside an open transaction.
    """
    refuse_open_transaction("Call it after the commit.")
    asked = [message for message in messages if can_ask(message)]
    with ThreadPoolExecutor(get_settings().CONCURRENCY, thread_name_prefix="esms_viber") as pool:
        results = pool.map(_ask, [message.sms_id for message in asked])
        recorded = [_record(message.pk, result, user) for message, result in zip(asked, results, strict=True)]
    return [message for message in recorded if message is not None]


def _ask(sms_id: str) -> StatusResult:
    with slots():
        return get_gateway().fetch_status(sms_id)


def _record(pk: int, result: StatusResult, user: Any) -> OutboundViberMessage | None:
    alias = write_alias()
    with transaction.atomic(using=alias):
        message = lock(OutboundViberMessage.objects.using(alias).filter(pk=pk)).first()
        if message is None:
            logger.warning("message %s was deleted while eSMS was asked about it", pk)
            return None
        event = lifecycle.note(
            message,
            result.text,
            kind=ViberMessageEvent.Kind.POLL,
            code=result.code,
            duration_ms=result.duration_ms,
            data=dict(result.values),
            user=user,
        )
        if result.reach is Reach.ANSWERED and result.code == "100":
            _apply(message, result, event)
    return message


def _apply(message: OutboundViberMessage, result: StatusResult, event: ViberMessageEvent) -> None:
    try:
        report = parse_report(result.values)
    except MalformedReport as error:
        logger.warning("status answer for message %s makes no sense: %s", message.pk, error)
        return
    if report.sms_id and report.sms_id != message.sms_id:
        logger.warning("status answer for message %s speaks of another SMSID", message.pk)
        return
    apply_report(message, report, event)
