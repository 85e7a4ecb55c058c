"""How this app begins, locks and refuses transactions, on every database that Django supports."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from django.apps import apps
from django.conf import settings
from django.db import InterfaceError, OperationalError, connections, router, transaction
from django.db.models import F, QuerySet
from django.db.transaction import TransactionManagementError

if TYPE_CHECKING:
    from .models import OutboundViberMessage

View = TypeVar("View", bound=Callable[..., Any])
Result = TypeVar("Result")

TRIES = 4
"""For a lock that could not be had in time, a deadlock, or a connection that the server has closed."""


def _model() -> type[OutboundViberMessage]:
    return apps.get_model("esms_viber", "OutboundViberMessage")


def write_alias() -> str:
    """The database that the messages are written to."""
    return router.db_for_write(_model())


def refuse_open_transaction(hint: str) -> None:
    """Raise `TransactionManagementError`, ending in the hint, inside an open transaction other than a `TestCase`'s."""
    alias = write_alias()
    connection = connections[alias]
    try:
        if not connection.in_atomic_block and not connection.get_autocommit():
            raise RuntimeError  # noqa: TRY301 - the same refusal as atomic()'s own, which does not look at autocommit
        with transaction.atomic(using=alias, durable=True):
            pass
    except RuntimeError:
        raise TransactionManagementError(
            "eSMS cannot be called inside an open transaction: a rollback would not bring the message back. " + hint
        ) from None


def in_transaction(work: Callable[[], Result], *, repeatable: bool = True) -> Result:
    """Do the work in a transaction of its own, and again from the start where the database could not finish it.

    What the work changes in memory must be made anew each time. Work that must not be done twice is not `repeatable`:
    then a commit whose answer was lost is an error. Inside an open transaction, and with autocommit off, it is done
    once: that transaction is broken, and its end not ours.
    """
    alias = write_alias()
    connection = connections[alias]
    for tries_left in reversed(range(TRIES)):
        inside = connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)
        done = False
        try:
            with transaction.atomic(using=alias):
                result = work()
                done = True
        except (OperationalError, InterfaceError):
            # `DedupeKeyTaken` is one too: a new transaction sees the message that has the key.
            if inside or not tries_left or (done and not repeatable):
                raise
            # Of two that met in a deadlock, one has to let the other go first.
            time.sleep(random.uniform(0, 0.2))  # noqa: S311 - not a secret
            connection.close_if_unusable_or_obsolete()
        else:
            return result
    raise AssertionError("unreachable")


def begin_with_write(alias: str) -> None:
    """Make the first statement of this transaction a write, on SQLite.

    SQLite fails a transaction that reads first and writes later with "database is locked" as soon as another writer
    came in between, however long the time-out; one that begins with a write waits its turn. It has no row locks.
    """
    if connections[alias].vendor == "sqlite":
        _model()._base_manager.using(alias).filter(pk=0).update(attempts=F("attempts"))


def lock(queryset: QuerySet[OutboundViberMessage], *, skip_locked: bool = False) -> QuerySet[OutboundViberMessage]:
    """The queryset, its rows locked against other writers until the transaction ends.

    Skipping is for those who look for any row: who wants a particular one has to wait, since it may be locked by
    somebody who will not do the work.
    """
    features = connections[queryset.db].features
    begin_with_write(queryset.db)
    if not features.has_select_for_update:
        return queryset
    return queryset.select_for_update(
        skip_locked=skip_locked and features.has_select_for_update_skip_locked,
        # Inserting an event takes a key lock on its message; a plain FOR UPDATE would conflict with it.
        no_key=features.has_select_for_no_key_update,
    )


def non_atomic_requests(view: View) -> View:
    """Exempt a view from `ATOMIC_REQUESTS` on every alias; Django's bare decorator exempts `default` only."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view
