"""Who sends a queued message: dispatchers, and handing over to one when a transaction has committed."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterable

from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from .conf import get_settings
from .delivery import Drain
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


def get_dispatcher() -> Callable[[list[int]], object]:
    """Raises `ImproperlyConfigured` for a dotted path that leads nowhere."""
    dispatcher = get_settings().DISPATCHER
    if isinstance(dispatcher, str):
        try:
            dispatcher = import_string(dispatcher)
        except ImportError as error:
            sentence = _('ESMS_VIBER["%(name)s"] cannot be used: %(problem)s.')
            raise ImproperlyConfigured(sentence % {"name": "DISPATCHER", "problem": error}) from error
    if not callable(dispatcher):
        raise ImproperlyConfigured(not_callable())
    return dispatcher


def not_callable() -> str:
    return _('ESMS_VIBER["DISPATCHER"] cannot be used: it is not callable.')


class _Handover:
    """The messages of one call, waiting for the commit. Django holds the only lasting reference."""

    __slots__ = ("__weakref__", "_alias", "_done", "_pks")

    def __init__(self, pks: list[int], alias: str) -> None:
        self._pks = pks
        self._alias = alias
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
        _dispatch(list(dict.fromkeys(pk for handover in together for pk in handover._pks)))


_waiting: weakref.WeakKeyDictionary[object, list[weakref.ref[_Handover]]] = weakref.WeakKeyDictionary()
"""Per connection. Weak, since Django drops the callbacks of a savepoint that is rolled back and tells nobody."""


def _waiting_on(alias: str) -> list[weakref.ref[_Handover]]:
    return _waiting.setdefault(connections[alias], [])


def dispatch_on_commit(pks: Iterable[int], alias: str) -> None:
    """Hand messages to the dispatcher after the commit: once per transaction, with all of its messages.

    What a rolled-back savepoint had queued is not among them. A dispatcher's error is logged, not raised: the messages
    are queued, and safe.
    """
    if pks := list(pks):
        transaction.on_commit(_Handover(pks, alias), using=alias)


def _dispatch(pks: list[int]) -> None:
    try:
        get_dispatcher()(pks)
    except Exception as error:  # noqa: BLE001 - the site's own code
        log_failure(error, "the dispatcher failed; %d messages stay queued", len(pks))
