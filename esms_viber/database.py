"""Transactions, locks and bulk writes, on every database that Django supports. Knows no model."""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from django.conf import settings
from django.db import DatabaseError, InterfaceError, OperationalError, connections, models, transaction
from django.db.transaction import TransactionManagementError

View = TypeVar("View", bound=Callable[..., Any])
Result = TypeVar("Result")
Item = TypeVar("Item")
Row = TypeVar("Row", bound=models.Model)

AWAY = (OperationalError, InterfaceError)
"""Errors of a database that is away, or that could not do now what it can do later."""

TRIES = 4
"""For a lock that could not be had in time, a deadlock, or a connection that the server has closed."""

CHUNK = 500
"""The most rows, or primary keys, of one statement: SQLite takes 32,766 parameters, and older ones fewer."""


def in_chunks(items: Iterable[Item]) -> list[list[Item]]:
    items = list(items)
    return [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]


# -- transactions ------------------------------------------------------------------------------------------------------


@contextmanager
def atomic_for_writing(using: str) -> Iterator[None]:
    """Open a transaction that may read before it writes.

    Such a one fails on SQLite with "database is locked" as soon as another writer comes in between, however long the
    time-out is. Begun as IMMEDIATE it waits its turn. Inside a transaction that is open already nothing can be done;
    there the site's own `transaction_mode` helps.
    """
    connection: Any = connections[using]
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        with transaction.atomic(using=using):
            yield
        return
    connection.ensure_connection()  # which sets the mode by the site's settings
    mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
    try:
        with transaction.atomic(using=using):
            connection.transaction_mode = mode
            yield
    finally:
        connection.transaction_mode = mode


def in_transaction(
    work: Callable[[], Result],
    *,
    using: str,
    repeatable: bool = True,
    was_committed: Callable[[Result], bool] | None = None,
    keep_trying: Callable[[], bool] = lambda: False,
) -> Result:
    """Do the work in a transaction, and again from its start where the database could not finish it.

    The work must change nothing in memory that a second run would not change again. The answer to a COMMIT can be lost
    with the connection: then `was_committed` is asked, in the next transaction and with the result of the work, whether
    it stands in the database after all, and if so the work is not repeated. Hooks of the lost transaction's own
    `on_commit()` are not called. Pass `repeatable=False` for work that cannot tell: then the error is raised, because
    nobody knows whether it was done. Inside an open transaction, and with autocommit off, the work is done once,
    because only the caller can begin anew. After a few tries `keep_trying` is asked whether to go on, and may wait.
    """
    connection = connections[using]
    # The result of the try before, if its COMMIT may have succeeded; a list, because the result may be None.
    done: list[Result] = []
    for tried in itertools.count(1):
        was_open = connection.in_atomic_block or (connection.connection is not None and not connection.autocommit)
        try:
            with atomic_for_writing(using):
                if not (done and was_committed is not None and was_committed(done[0])):
                    done.clear()
                    done.append(work())
        except AWAY:
            # `DedupeKeyTaken` is one too: a new transaction sees the message that has the key.
            if was_open or (done and not repeatable) or (tried >= TRIES and not keep_trying()):
                raise
            # Wait a random time, because two that met in a deadlock must not meet again.
            time.sleep(random.uniform(0, 0.2))  # noqa: S311 - not a secret
            connection.close_if_unusable_or_obsolete()
        else:
            return done[0]
    raise AssertionError("unreachable")


def is_reachable(using: str) -> bool:
    """Does the database answer? A connection that is broken is closed, so that the next use makes another."""
    connection = connections[using]
    try:
        connection.close_if_unusable_or_obsolete()
        connection.ensure_connection()
    except DatabaseError:
        return False
    return bool(connection.is_usable())


def refuse_open_transaction(hint: str, *, using: str) -> None:
    """Raise `TransactionManagementError`, ending in the hint, inside an open transaction or with autocommit off.

    The block that Django's `TestCase` opens around each test does not count.
    """
    connection = connections[using]
    refused = not connection.in_atomic_block and not connection.get_autocommit()
    if not refused:
        try:
            # Django refuses a durable block inside every other one but a TestCase's.
            with transaction.atomic(using=using, durable=True):
                pass
        except RuntimeError:
            refused = True
    if refused:
        raise TransactionManagementError(
            "eSMS cannot be called inside an open transaction: a rollback would not bring the message back. " + hint
        )


def non_atomic_requests(view: View) -> View:
    """Exempt a view from `ATOMIC_REQUESTS` on every alias; Django's bare decorator exempts `default` only."""
    for alias in settings.DATABASES:
        view = transaction.non_atomic_requests(using=alias)(view)
    return view


# -- rows --------------------------------------------------------------------------------------------------------------


def lock(queryset: models.QuerySet[Row], *, skip_locked: bool = False) -> models.QuerySet[Row]:
    """Lock the rows against other writers until the transaction ends.

    Skip locked rows only when looking for any work: a caller that wants a particular row has to wait for it, because
    whoever holds the lock may not do the work. SQLite has no row locks and needs none: see `atomic_for_writing()`.
    """
    features = connections[queryset.db].features
    if not features.has_select_for_update:
        return queryset
    return queryset.select_for_update(
        skip_locked=skip_locked and features.has_select_for_update_skip_locked,
        # Inserting an event takes a key lock on its message; a plain FOR UPDATE would conflict with it.
        no_key=features.has_select_for_no_key_update,
    )


def update_each(
    model: type[models.Model], changes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, using: str
) -> int:
    """Write columns to rows, and return how many rows were found.

    Each change is a pair: the columns by which its row is found (`pk` among them), and the columns to write. Rows that
    become the same share an UPDATE; the others go through `executemany()`, at a fraction of what `bulk_update()` costs.
    """
    changes = list(changes)
    if len(changes) == 1:
        expected, columns = changes[0]
        return model._base_manager.using(using).filter(**expected).update(**columns)
    alike = defaultdict(list)
    for expected, columns in changes:
        conditions = tuple((name, value) for name, value in expected.items() if name != "pk")
        alike[tuple(columns.items()), conditions].append(expected["pk"])
    found = 0
    single = defaultdict(list)
    for (written, conditions), pks in alike.items():
        if len(pks) > 1:
            rows = model._base_manager.using(using).filter(**dict(conditions))
            found += sum(rows.filter(pk__in=chunk).update(**dict(written)) for chunk in in_chunks(pks))
        else:
            names = tuple(name for name, _value in written), (*(name for name, _value in conditions), "pk")
            single[names].append([*(value for _name, value in (*written, *conditions)), pks[0]])
    for (columns_of, conditions_of), values in single.items():
        found += _update_many(model, columns_of, conditions_of, values, using)
    return found


def _update_many(
    model: type[models.Model], columns: Sequence[str], conditions: Sequence[str], values: list[list[Any]], using: str
) -> int:
    connection = connections[using]
    quote = connection.ops.quote_name
    names = (*columns, *conditions)
    fields: list[Any] = [model._meta.pk if name == "pk" else model._meta.get_field(name) for name in names]
    equations = [f"{quote(field.column)} = %s" for field in fields]
    written, wanted = ", ".join(equations[: len(columns)]), " AND ".join(equations[len(columns) :])
    # The names are the model's own columns, and every value is a parameter.
    sql = f"UPDATE {quote(model._meta.db_table)} SET {written} WHERE {wanted}"  # noqa: S608 - see above
    with connection.cursor() as cursor:
        cursor.executemany(
            sql,
            [[field.get_db_prep_save(v, connection) for field, v in zip(fields, row, strict=True)] for row in values],
        )
        return int(cursor.rowcount)


def insert_each(rows: Sequence[Row], *, using: str) -> None:
    """Insert the rows, in bulk where the database returns their primary keys: MySQL, unlike MariaDB, does not."""
    if len(rows) > 1 and connections[using].features.can_return_rows_from_bulk_insert:
        models_of = {row._meta.concrete_model for row in rows}
        model: Any = models_of.pop()
        # Django inserts rows of several tables, as a site's own subclass may have them, one by one only.
        if not models_of and not model._meta.parents:
            model._base_manager.using(using).bulk_create(rows, batch_size=CHUNK)
            return
    for row in rows:
        models.Model.save(row, force_insert=True, using=using)
