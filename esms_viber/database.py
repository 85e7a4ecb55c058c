"""Transactions, locks and bulk writes, on every database that Django supports. Knows no model."""

from __future__ import annotations

import itertools
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import lru_cache
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


def atomic_for_writing(using: str) -> AbstractContextManager[None]:
    """Open a transaction that may read before it writes.

    Such a one fails on SQLite with "database is locked" as soon as another writer comes in between, however long the
    time-out is. Begun as IMMEDIATE it waits its turn. Inside a transaction that is open already nothing can be done;
    there the site's own `transaction_mode` helps.
    """
    connection: Any = connections[using]
    if connection.vendor != "sqlite" or connection.in_atomic_block:
        return transaction.atomic(using=using)
    return _immediate(connection)


@contextmanager
def _immediate(connection: Any) -> Iterator[None]:
    connection.ensure_connection()  # which sets the mode by the site's settings
    mode, connection.transaction_mode = connection.transaction_mode, "IMMEDIATE"
    try:
        with transaction.atomic(using=connection.alias):
            connection.transaction_mode = mode
            yield
    finally:
        connection.transaction_mode = mode


def begin_with_write(rows: models.QuerySet[Any], column: str) -> None:
    """Write a column of these rows as it is, if a transaction is open on SQLite that may have done nothing so far.

    For a caller that reads these rows and then writes others: see `atomic_for_writing()`.
    """
    connection = connections[rows.db]
    if connection.vendor == "sqlite" and connection.in_atomic_block:
        rows.update(**{column: models.F(column)})


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
    except (DatabaseError, InterfaceError):
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


def has_row_locks(using: str) -> bool:
    """SQLite has none, and needs none: see `atomic_for_writing()`."""
    return connections[using].features.has_select_for_update


def lock(queryset: models.QuerySet[Row], *, skip_locked: bool = False) -> models.QuerySet[Row]:
    """Lock the rows against other writers until the transaction ends.

    Skip locked rows only when looking for any work: a caller that wants a particular row has to wait for it, because
    whoever holds the lock may not do the work.
    """
    if not has_row_locks(queryset.db):
        return queryset
    features = connections[queryset.db].features
    return queryset.select_for_update(
        skip_locked=skip_locked and features.has_select_for_update_skip_locked,
        # Inserting an event takes a key lock on its message; a plain FOR UPDATE would conflict with it.
        no_key=features.has_select_for_no_key_update,
    )


def lock_columns(
    model: type[models.Model], pks: Iterable[int], columns: Sequence[str], *, using: str
) -> list[tuple[Any, ...]]:
    """Lock the rows like `lock()`, in the order in which everybody does; the columns, as the driver gives them.

    It is done before each batch of calls, and Django takes longer to build the query than the database for the rows.
    """
    connection: Any = connections[using]
    meta: Any = model._meta
    quote, features, is_postgresql = connection.ops.quote_name, connection.features, connection.vendor == "postgresql"
    names, pk = ", ".join(quote(meta.get_field(name).column) for name in columns), quote(meta.pk.column)
    select = f"SELECT {names} FROM {quote(meta.db_table)} WHERE {pk}"  # noqa: S608 - the model's own names
    locking = connection.ops.for_update_sql(no_key=features.has_select_for_no_key_update)
    ending = f"ORDER BY {pk} {locking if has_row_locks(using) else ''}"
    found: list[tuple[Any, ...]] = []
    with connection.cursor() as cursor:
        for chunk in in_chunks(sorted(pks)):
            wanted = "= ANY(%s)" if is_postgresql else f"IN ({', '.join(['%s'] * len(chunk))})"
            cursor.execute(f"{select} {wanted} {ending}", [chunk] if is_postgresql else chunk)
            found += cursor.fetchall()
    return found


def update_each(
    model: type[models.Model], changes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, using: str
) -> int:
    """Write columns to rows, and return how many rows were found.

    Each change is a pair: the columns by which its row is found (`pk` among them), and the columns to write; all of
    them plain values, and no row twice. A condition is compared with `=`, which finds no NULL.

    PostgreSQL gets one UPDATE for all rows in which the same columns are written, other databases one for all rows that
    become the same. Either takes a fraction of the time of `bulk_update()`.
    """
    changes = list(changes)
    if len(changes) == 1:
        return update_one(model, *changes[0], using=using)
    found = 0
    if connections[using].vendor != "postgresql":
        found, changes = _update_alike(model, changes, using)
    by_columns = defaultdict(list)
    for expected, columns in changes:
        by_columns[tuple(columns), tuple(expected)].append([*columns.values(), *expected.values()])
    for (names, conditions), rows in by_columns.items():
        found += sum(_update_many(model, names, conditions, chunk, using) for chunk in in_chunks(rows))
    return found


def _update_alike(
    model: type[models.Model], changes: list[tuple[Mapping[str, Any], Mapping[str, Any]]], using: str
) -> tuple[int, list[tuple[Mapping[str, Any], Mapping[str, Any]]]]:
    """Update together the rows that become the same; return how many were found, and the other changes."""
    alike = defaultdict(list)
    for expected, columns in changes:
        conditions = tuple((name, value) for name, value in expected.items() if name != "pk")
        written = tuple((name, _as_stored(value)) for name, value in columns.items())
        alike[written, conditions].append((expected, columns))
    found, others = 0, []
    for (_written, conditions), same in alike.items():
        if len(same) == 1:
            others += same
            continue
        rows, columns = model._base_manager.using(using).filter(**dict(conditions)), same[0][1]
        for chunk in in_chunks(expected["pk"] for expected, _columns in same):
            found += rows.filter(pk__in=chunk).update(**columns)
    return found, others


def update_differing(
    model: type[models.Model], columns: Sequence[str], rows: Iterable[list[Any]], *, using: str
) -> None:
    """Write columns that differ from row to row, JSON among them; each of the rows is its values and its primary key.

    `bulk_update()` takes ten times as long to build its statement.
    """
    for chunk in in_chunks(rows):
        _update_many(model, columns, ("pk",), chunk, using)


def _update_many(
    model: type[models.Model], columns: Sequence[str], conditions: Sequence[str], rows: list[list[Any]], using: str
) -> int:
    connection = connections[using]
    sql, fields = _update_statement(model, tuple(columns), tuple(conditions), using)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql" and len(rows) > 1:
            # There `executemany()` is a statement a row.
            cursor.execute(*_update_by_lists(model, fields, len(columns), rows, connection))
        else:
            cursor.executemany(sql, [_prepared(fields, row, connection) for row in rows])
        return int(cursor.rowcount)


def _update_by_lists(
    model: type[models.Model], fields: Sequence[Any], written: int, rows: list[list[Any]], connection: Any
) -> tuple[str, dict[str, Any]]:
    """Make an UPDATE of many rows. The first of the fields are `written`, and a row is found by the others."""
    values, source, parameters = _as_lists(fields, rows, connection)
    names = [connection.ops.quote_name(field.column) for field in fields]
    changes = [f"{name} = {value}" for name, value in zip(names[:written], values, strict=False)]
    conditions = []
    for field, name, value in list(zip(fields, names, values, strict=True))[written:]:
        # `|| ''` keeps PostgreSQL from looking rows up by status. It would do so where its statistics are of a quiet
        # moment, and then read every message that is being sent, instead of these by their primary keys.
        expected = f"old.{name} || ''" if isinstance(field, models.CharField) else f"old.{name}"
        conditions.append(f"{expected} = {value}")
    table, all_of = connection.ops.quote_name(model._meta.db_table), " AND ".join(conditions)
    return f"UPDATE {table} AS old SET {', '.join(changes)} FROM {source} WHERE {all_of}", parameters  # noqa: S608 - the model's own names


def _as_lists(
    fields: Sequence[Any], rows: Sequence[Sequence[Any]], connection: Any
) -> tuple[list[str], str, dict[str, Any]]:
    """Make the SQL that gives PostgreSQL one list for each column in which rows differ, and one value for the others.

    Returns the SQL of each column's value, the SQL to select these from, and the parameters of both.
    """
    values, lists, parameters = list[str](), ["%(number)s::integer[]"], {"number": list(range(len(rows)))}
    names = ["number"]
    for at, (field, of_rows) in enumerate(zip(fields, zip(*rows, strict=True), strict=True)):
        name = f"v{at}"
        # Texts come without their length, because a cast would cut what is too long.
        kind = "text" if isinstance(field, models.CharField) else field.db_type(connection)
        if _are_alike(of_rows):
            values.append(f"%({name})s::{kind}")
            (parameters[name],) = _prepared([field], of_rows[:1], connection)
        else:
            values.append(f"new.{name}")
            names.append(name)
            lists.append(f"%({name})s::{kind}[]")
            parameters[name] = _prepared([field] * len(of_rows), of_rows, connection)
    return values, f"unnest({', '.join(lists)}) AS new ({', '.join(names)})", parameters


def _are_alike(values: Sequence[Any]) -> bool:
    """Are they stored alike?"""
    try:
        return len(set(values)) == 1 and len(set(map(_as_stored, values))) == 1
    except TypeError:  # JSON, which may have 1 in one row, and `True` in another
        return False


def _as_stored(value: Any) -> tuple[Any, ...]:
    """Tell apart what Python finds equal: `True` and 1, and an hour that comes twice, because clocks go back."""
    return type(value), getattr(value, "fold", 0), value


def insert_each(rows: Sequence[Row], *, using: str) -> None:
    """Insert the rows, in bulk where the database returns their primary keys: MySQL, unlike MariaDB, does not."""
    connection = connections[using]
    if len(rows) > 1 and connection.features.can_return_rows_from_bulk_insert:
        models_of = {row._meta.concrete_model for row in rows}
        model: Any = models_of.pop()
        # Django inserts rows of several tables, as a site's own subclass may have them, one by one only.
        if not models_of and not model._meta.parents:
            if connection.vendor == "postgresql" and all(row.pk is None for row in rows):
                for chunk in in_chunks(rows):
                    _insert_many(model, chunk, using)
            else:
                model._base_manager.using(using).bulk_create(rows, batch_size=CHUNK)
            return
    for row in rows:
        models.Model.save(row, force_insert=True, using=using)


def _insert_many(model: type[models.Model], rows: Sequence[Any], using: str) -> None:
    """Insert rows of plain values on PostgreSQL, in half of the time of `bulk_create()`.

    The caller opens the transaction.
    """
    connection: Any = connections[using]
    insert, fields, returning = _insert_statement(model, using)
    for row in rows:
        # As `bulk_create()` does: a related object that is not saved is refused, the key of one that was is taken over.
        row._prepare_related_fields_for_save(operation_name="bulk_create")
    before = [[field.pre_save(row, True) for field in fields] for row in rows]
    values, source, parameters = _as_lists(fields, before, connection)
    with connection.cursor() as cursor:
        select = f"SELECT {', '.join(values)} FROM {source} ORDER BY new.number"  # noqa: S608 - names and placeholders, no value
        cursor.execute(f"{insert} {select} {returning}", parameters)
        for row, (pk,) in zip(rows, cursor.fetchall(), strict=True):
            row.pk, row._state.adding, row._state.db = pk, False, using


def insert_beside(
    row: models.Model, source: type[models.Model], pks: Iterable[int], taken: Mapping[str, str], *, using: str
) -> None:
    """Insert, for each row of another table, one like `row`, with the columns that are `taken` from the other.

    The database copies what it has already, at a tenth of what it costs to make and send as many rows.
    """
    connection = connections[using]
    quote = connection.ops.quote_name
    fields: list[Any] = [field for field in row._meta.concrete_fields if not field.primary_key]
    of_source: Any = source._meta
    columns = ", ".join(quote(field.column) for field in fields)
    copied = {name: quote(of_source.get_field(other).column) for name, other in taken.items()}
    expressions = ", ".join(copied.get(field.name, "%s") for field in fields)
    own = [field for field in fields if field.name not in taken]
    values = [field.get_db_prep_save(field.pre_save(row, add=True), connection) for field in own]
    # The names are the models' own columns, and every value is a parameter.
    insert = f"INSERT INTO {quote(row._meta.db_table)} ({columns}) SELECT {expressions}"
    with connection.cursor() as cursor:
        for chunk in in_chunks(pks):
            wanted = f"{quote(of_source.pk.column)} IN ({', '.join(['%s'] * len(chunk))})"
            cursor.execute(f"{insert} FROM {quote(of_source.db_table)} WHERE {wanted}", [*values, *chunk])


# -- one row -----------------------------------------------------------------------------------------------------------
#
# Django builds a query anew each time, which costs several times what the database takes for a single row. These
# statements are built once. Their names are the model's own tables and columns, and every value is a parameter.


def column_list(model: type[models.Model], *, using: str, table: str, only: frozenset[str] = frozenset()) -> str:
    """List the columns of the model's own table as `from_row()` expects them; `table` is their table's alias.

    All of them unless `only` names some.
    """
    quote, fields = connections[using].ops.quote_name, _columns(model, only)
    return ", ".join(f"{table}.{quote(field.column)}" for field in fields)


def from_row(model: type[Row], values: Sequence[Any], *, using: str, only: frozenset[str] = frozenset()) -> Row:
    """Make the instance of a row that was read by one's own SQL, as the driver gives its values.

    It is whole unless `only` names some columns; Django loads each of the others when it is asked for.
    """
    connection, converted = connections[using], list(values)
    names, converting = _conversions(model, using, only, settings.USE_TZ)
    for place, field, expression in converting:
        for convert in _converters(field, expression, connection):
            converted[place] = convert(converted[place], expression, connection)
    return model.from_db(using, names, converted)


@lru_cache(maxsize=8)
def _conversions(
    model: type[models.Model], using: str, only: frozenset[str], use_tz: bool
) -> tuple[frozenset[str], list[tuple[int, Any, Any]]]:
    """The names of the columns, and the place, field and expression of those that have to be converted.

    On MySQL times are among these only with `use_tz`, which a test may change.
    """
    connection, fields = connections[using], _columns(model, only)
    columns = [(place, field, field.get_col(model._meta.db_table)) for place, field in enumerate(fields)]
    converting = [column for column in columns if _converters(*column[1:], connection)]
    return frozenset(field.attname for field in fields), converting


def _converters(field: Any, expression: Any, connection: Any) -> list[Any]:
    # Not to be kept: they hold the connection, which belongs to a thread.
    return [*connection.ops.get_db_converters(expression), *field.get_db_converters(connection)]


def update_one(
    model: type[models.Model], expected: Mapping[str, Any], columns: Mapping[str, Any], *, using: str
) -> int:
    """Write columns to the row that has the expected ones, `pk` among them, and return how many rows were found."""
    connection = connections[using]
    sql, fields = _update_statement(model, tuple(columns), tuple(expected), using)
    values = (*columns.values(), *expected.values())
    with connection.cursor() as cursor:
        cursor.execute(sql, _prepared(fields, values, connection))
        return int(cursor.rowcount)


@lru_cache(maxsize=128)
def _update_statement(
    model: type[models.Model], columns: tuple[str, ...], conditions: tuple[str, ...], using: str
) -> tuple[str, list[Any]]:
    quote = connections[using].ops.quote_name
    names = (*columns, *conditions)
    fields: list[Any] = [model._meta.pk if name == "pk" else model._meta.get_field(name) for name in names]
    equations = [f"{quote(field.column)} = %s" for field in fields]
    written, wanted = ", ".join(equations[: len(columns)]), " AND ".join(equations[len(columns) :])
    return f"UPDATE {quote(model._meta.db_table)} SET {written} WHERE {wanted}", fields  # noqa: S608 - the model's own names


def insert_one(row: models.Model, *, using: str) -> None:
    """Insert a row that has no primary key yet, without the signals of `save()`."""
    connection = connections[using]
    # MySQL, unlike MariaDB, does not return the primary key, and a child model has several tables.
    if row._meta.parents or not connection.features.can_return_rows_from_bulk_insert:
        models.Model.save(row, force_insert=True, using=using)
        return
    insert, fields, returning = _insert_statement(type(row), using)
    values = _prepared(fields, [field.pre_save(row, True) for field in fields], connection)
    with connection.cursor() as cursor:
        cursor.execute(f"{insert} VALUES ({', '.join(['%s'] * len(fields))}) {returning}", values)
        # All of it is fetched, because SQLite commits no statement that is not read to its end.
        ((row.pk,),) = cursor.fetchall()
    row._state.adding, row._state.db = False, using


@lru_cache(maxsize=8)
def _insert_statement(model: type[models.Model], using: str) -> tuple[str, list[Any], str]:
    """Return the beginning of an INSERT, the fields that it wants values for, and its end."""
    quote, pk = connections[using].ops.quote_name, next(field for field in _columns(model) if field.primary_key)
    fields = [field for field in _columns(model) if field is not pk]
    columns = ", ".join(quote(field.column) for field in fields)
    return f"INSERT INTO {quote(model._meta.db_table)} ({columns})", fields, f"RETURNING {quote(pk.column)}"


def _prepared(fields: Sequence[Any], values: Sequence[Any], connection: Any) -> list[Any]:
    """The values as the driver takes them. A None is NULL in every column, and needs no field to tell."""
    pairs = zip(fields, values, strict=True)
    return [None if value is None else field.get_db_prep_save(value, connection) for field, value in pairs]


def _columns(model: type[models.Model], only: frozenset[str] = frozenset()) -> list[Any]:
    return [field for field in model._meta.local_concrete_fields if not only or field.attname in only]
