"""Who sends a queued message: dispatchers, and handing over to one when a transaction has committed."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Iterable

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils import translation

from .conf import get_settings
from .delivery import Drain
from .readiness import find_trouble, get_dispatcher
from .tracebacks import log_failure

logger = logging.getLogger("esms_viber")

INLINE_SECONDS = 20.0
TASK_SIZE = 500
"""The most messages of one task: so several workers share a large batch."""


def inline(pks: list[int]) -> None:
    """Send now, in this process: at most `INLINE_LIMIT` messages, and no new call after 20 seconds."""
    summary = Drain(pks, limit=get_settings().INLINE_LIMIT, seconds=INLINE_SECONDS).run()
    if summary.left:
        logger.warning(
            "%d of %d messages were not sent now and stay queued; `manage.py send_viber_messages` sends them.",
            summary.left,
            len(pks),
        )


def django_tasks(pks: list[int]) -> None:
    """Have a worker of Django Tasks send: Django's own, or on Django 5.2 those of the package `django-tasks`."""
    # Not before: without either of them the other dispatchers work all the same.
    from .background import deliver

    for start in range(0, len(pks), TASK_SIZE):
        deliver.enqueue(pks[start : start + TASK_SIZE])


def queue_only(pks: list[int]) -> None:
    """Do nothing: `manage.py send_viber_messages`, run elsewhere, sends what is queued."""


class _Handover:
    """The messages of one call, waiting for the commit. Django holds the only lasting reference."""

    __slots__ = ("__weakref__", "_alias", "_done", "_pks", "_told")

    def __init__(self, pks: list[int], alias: str, *, told: bool) -> None:
        """`told`: what is wrong with the settings stands in the log already."""
        self._pks = pks
        self._alias = alias
        self._told = told
        self._done = False
        _waiting_on(alias).append(weakref.ref(self))

    def __call__(self) -> None:
        """Dispatch these and all later ones of the same transaction, once."""
        if self._done:
            return
        waiting = [handover for ref in _waiting_on(self._alias) if (handover := ref())]
        together = waiting[waiting.index(self) :]
        for handover in together:
            handover._done = True
        _waiting_on(self._alias)[:] = [weakref.ref(handover) for handover in waiting if not handover._done]
        pks = list(dict.fromkeys(pk for handover in together for pk in handover._pks))
        _dispatch(pks, told=any(handover._told for handover in together))


_waiting: weakref.WeakKeyDictionary[object, list[weakref.ref[_Handover]]] = weakref.WeakKeyDictionary()
"""Per connection. Weak, since Django drops the callbacks of a savepoint that is rolled back and tells nobody."""


def _waiting_on(alias: str) -> list[weakref.ref[_Handover]]:
    return _waiting.setdefault(connections[alias], [])


def dispatch_on_commit(pks: Iterable[int], alias: str, *, hold_inline: bool = False) -> None:
    """Hand messages to the dispatcher after the commit: once per transaction, with all of its messages.

    What a rolled-back savepoint had queued is not among them. `hold_inline`: the inline dispatcher is given them
    later, by another call. A setting that is wrong, or a dispatcher's error, is logged, not raised: the messages are
    queued, and safe.
    """
    if not (pks := list(pks)):
        return
    with translation.override(None):  # the log is in English, whoever queues
        trouble = find_trouble()
    if trouble:
        logger.error("%d messages are queued, and wait until this is mended: %s", len(pks), trouble)
    if not (hold_inline and is_inline()):
        transaction.on_commit(_Handover(pks, alias, told=bool(trouble)), using=alias)


def is_inline() -> bool:
    """Does the inline dispatcher send? False also where no dispatcher can be had."""
    try:
        return get_dispatcher() is inline
    except ImproperlyConfigured:
        return False


def _dispatch(pks: list[int], *, told: bool) -> None:
    try:
        get_dispatcher()(pks)
    except ImproperlyConfigured as error:
        if not told:
            log_failure(error, "the settings are not in order; %d messages stay queued", len(pks))
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "the dispatcher failed; %d messages stay queued", len(pks))
