"""Statements over many rows: what Django's ORM does not have, or does at several times the cost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from django.db import DatabaseError, connections, models

Row = TypeVar("Row", bound=models.Model)

_BATCH = 500


def update_each(
    model: type[models.Model], changes: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], *, using: str
) -> None:
    """Write columns to rows: pairs of what a row must be like, its `pk` among it, and what to write to it.

    Rows that are to become the same share an UPDATE, the others an `executemany()`; `bulk_update()` builds a tree of
    expressions for each value instead. Raises `DatabaseError` where a row is not like that: the caller holds them
    locked, and has looked.
    """
    same = defaultdict(list)
    for found, becomes in changes:
        others = tuple((name, value) for name, value in found.items() if name != "pk")
        same[tuple(becomes.items()), others].append(found["pk"])
    own = defaultdict(list)
    for (written, others), pks in same.items():
        columns, wanted = dict(written), dict(others)
        if len(pks) > 1:
            _update_alike(model, columns, wanted, pks, using)
        else:
            own[tuple(columns), (*wanted, "pk")].append([*columns.values(), *wanted.values(), pks[0]])
    for (names, conditions), values in own.items():
        _update_own(model, names, conditions, values, using)


def _update_alike(
    model: type[models.Model], columns: dict[str, Any], found: dict[str, Any], pks: list[Any], using: str
) -> None:
    rows = model._base_manager.using(using).filter(**found)
    for start in range(0, len(pks), _BATCH):
        some = pks[start : start + _BATCH]
        _refuse_missing(rows.filter(pk__in=some).update(**columns), len(some))


def _update_own(
    model: type[models.Model], columns: tuple[str, ...], found: tuple[str, ...], values: list[list[Any]], using: str
) -> None:
    connection = connections[using]
    quote = connection.ops.quote_name
    fields: list[Any] = [model._meta.pk if name == "pk" else model._meta.get_field(name) for name in (*columns, *found)]
    named = [f"{quote(field.column)} = %s" for field in fields]
    written, wanted = ", ".join(named[: len(columns)]), " AND ".join(named[len(columns) :])
    # Names of the model's own columns; every value is a parameter.
    sql = f"UPDATE {quote(model._meta.db_table)} SET {written} WHERE {wanted}"  # noqa: S608
    rows = [
        [field.get_db_prep_save(value, connection) for field, value in zip(fields, row, strict=True)] for row in values
    ]
    with connection.cursor() as cursor:
        cursor.executemany(sql, rows)
        _refuse_missing(cursor.rowcount, len(rows))


def _refuse_missing(updated: int, expected: int) -> None:
    if updated != expected:
        raise DatabaseError(f"{expected} rows were to be updated, {updated} were found")


def insert_each(rows: Sequence[Row], *, using: str) -> None:
    """Insert in bulk, every row with its primary key afterwards; MySQL, unlike MariaDB, returns none in bulk."""
    if not rows:
        return
    model: Any = rows[0]._meta.concrete_model
    # Django inserts rows of several tables, as a site's own subclass may have them, one by one only.
    in_one_table = all(row._meta.concrete_model is model for row in rows) and not model._meta.parents
    if in_one_table and connections[using].features.can_return_rows_from_bulk_insert:
        model._base_manager.using(using).bulk_create(rows, batch_size=_BATCH)
        return
    for row in rows:
        models.Model.save(row, force_insert=True, using=using)
