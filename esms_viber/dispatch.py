"""Dispatchers, which decide who sends queued messages, and the hand-over to one of them after the commit."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils import translation

from .conf import get_dispatcher, get_settings
from .delivery.worker import IN_REQUEST, Worker
from .exceptions import log_failure
from .models import OutboundViberMessage
from .monitoring import find_trouble

logger = logging.getLogger("esms_viber")

TASK_SIZE = 500
"""The most messages of one task: so several workers share a large batch."""


def inline(pks: list[int]) -> None:
    """Send now, in this process: at most `INLINE_LIMIT` messages, in ten seconds at most.

    While eSMS does not answer, or refuses the account, one request at a time makes a call; what the others queue waits.
    """
    summary = Worker(pks, limit=get_settings().INLINE_LIMIT, within=IN_REQUEST).run()
    if summary.left:
        logger.warning(
            "%d of %d messages were not sent now and stay queued; `manage.py send_viber_messages` sends them.",
            summary.left,
            len(pks),
        )


def django_tasks(pks: list[int]) -> None:
    """Have a worker of Django Tasks send: Django's own, or on Django 5.2 those of the package `django-tasks`."""
    # Imported late, because the other dispatchers must work where neither of them is installed.
    from .delivery.django_task import deliver

    for start in range(0, len(pks), TASK_SIZE):
        deliver.enqueue(pks[start : start + TASK_SIZE])


def queue_only(pks: list[int]) -> None:
    """Do nothing: `manage.py send_viber_messages`, run elsewhere, sends what is queued."""


class _Handover:
    """Messages that wait for the commit. Django holds the only strong reference, and drops it with a rollback."""

    def __init__(self, pks: list[int], alias: str, *, is_told: bool) -> None:
        """`is_told`: what is wrong with the settings stands in the log already."""
        self.pks = pks
        self.is_told = is_told
        self._connection = connections[alias]

    def wait(self) -> None:
        _waiting.setdefault(self._connection, []).append(weakref.ref(self))
        transaction.on_commit(self, using=self._connection.alias)

    def __call__(self) -> None:
        """Dispatch these messages, together with those that the same transaction has queued after them."""
        waiting = [handover for ref in _waiting.get(self._connection, ()) if (handover := ref())]
        if self not in waiting:
            return  # an earlier one has taken these along
        position = waiting.index(self)
        together = waiting[position:]
        _waiting[self._connection] = [weakref.ref(handover) for handover in waiting[:position]]
        pks = list(dict.fromkeys(pk for handover in together for pk in handover.pks))
        try:
            get_dispatcher()(pks)
        except ImproperlyConfigured as error:
            if not any(handover.is_told for handover in together):
                log_failure(error, "the settings are not in order; %d messages stay queued", len(pks))
        except Exception as error:  # noqa: BLE001 - the site's own code
            log_failure(error, "the dispatcher failed; %d messages stay queued", len(pks))


_waiting: weakref.WeakKeyDictionary[object, list[weakref.ref[_Handover]]] = weakref.WeakKeyDictionary()
"""For each connection. The references are weak, because Django drops the hooks of a rolled-back savepoint silently."""


def dispatch_on_commit(pks: Iterable[int], *, hold_inline: bool = False) -> None:
    """Hand messages to the dispatcher after the commit: once per transaction, with all of its messages.

    A rolled-back savepoint's messages are not among them. `hold_inline`: the inline dispatcher is given them later, by
    another call. A setting that is wrong, or a dispatcher's error, is logged, not raised: the messages are queued, and
    safe.
    """
    if not (pks := list(pks)):
        return
    with translation.override(None):  # the log is in English, whoever queues
        trouble = find_trouble()
    if trouble:
        logger.error("%d messages are queued, and wait until this is mended: %s", len(pks), trouble)
    if not (hold_inline and is_inline()):
        _Handover(pks, OutboundViberMessage.objects.write_alias(), is_told=bool(trouble)).wait()


def is_inline() -> bool:
    """Does the inline dispatcher send? False also where no dispatcher can be had."""
    try:
        return get_dispatcher() is inline
    except ImproperlyConfigured:
        return False
