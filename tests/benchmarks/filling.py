"""Fill the tables with very many rows, for measuring: scenes that can be mixed, and that are the same each time.

    python -m tests.benchmarks.filling --database URL [--shop N] [--campaign N] [--notes N] [--no-analyze]

Fills a database that exists and keeps it, for looking at plans. The benchmarks fill their own databases.
"""

from __future__ import annotations

import datetime as dt
import itertools
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

Row = dict[str, Any]
"""Values by column; columns that are not named get their field's default."""
Scene = Iterable[tuple[Row | None, list[Row]]]
"""Messages with their events. An event without a message of its own names the `message_id`."""

DAYS = 180
LARGEST_CAMPAIGN, SMALL_CAMPAIGN = "tet-2027", "tuan-{}"
LARGEST, SMALL = 200_000, 3_000
FREQUENT_WORD, RARE_WORD = "đơn", "thanh long"
_RARE_EVERY = 40_000
_AT_ONCE = 2_000

_TEXTS = (
    "Cảm ơn quý khách! Đơn hàng {} của quý khách đã được giao cho đơn vị vận chuyển, dự kiến đến trong 2 ngày tới.",
    "SHOP xin thông báo đơn hàng {} đã giao thành công. Quý khách vui lòng đánh giá để nhận ngay 20.000đ cho lần sau.",
    "Đơn hàng {} đã được xác nhận. Quý khách chuẩn bị 350.000đ khi nhận hàng, mọi thắc mắc xin gọi 1900 1234 nhé.",
    "Chúc mừng sinh nhật! Tặng quý khách mã {} giảm 15% cho mọi đơn từ 200.000đ, dùng đến hết tháng này tại cửa hàng.",
    "Ưu đãi Tết đến rồi! Nhập mã {} để được miễn phí giao hàng cho đơn đầu tiên của năm mới, số lượng có hạn.",
)
_FRUIT = "Mùa thanh long đã về! Mã {} giảm 10% cho mỗi thùng 5 kg, giao tận nhà trong ngày tại Hà Nội và Sài Gòn."
_PREFIXES = ("32", "33", "35", "36", "70", "76", "79", "81", "83", "86", "90", "91", "93", "96", "97", "98")
_NETWORKS = ("1", "2", "3", "5")
_OUTCOMES = (["delivered"] * 87 + ["undelivered"] * 6 + ["failed"] * 3 + ["sent"] * 2 + ["cancelled", "unknown"]) * 3
_OUTCOMES[7] = "draft"
_ANSWERED = json.dumps({"outcome": "answered", "http_status": 200})


# -- the scenes --------------------------------------------------------------------------------------------------------


def old_shop(count: int, *, seed: int = 12) -> Scene:
    """Messages of half a year, nearly all of them done, with the history of each; one large campaign, dozens of small.

    A few are claimed by a worker that is still there. Nothing is queued.
    """
    now = _now() - dt.timedelta(hours=6)  # because some reports take as long
    first, step = _next_pk(), dt.timedelta(days=DAYS) / max(count, 1)
    rng = random.Random(seed + first)
    largest = min(LARGEST, count // 5)
    small = min(SMALL, max(count // 100, 1))
    for number in range(count):
        created = now - dt.timedelta(days=DAYS) + step * number
        status = "sending" if number % (count // 16 + 1) == count // 16 else _any(rng, _OUTCOMES)
        sandbox = rng.random() < 0.05
        if sandbox and status in {"delivered", "undelivered"}:
            status = "sent"
        if 3 * count // 10 <= number < 3 * count // 10 + largest:
            campaign = LARGEST_CAMPAIGN
        elif number // small % 4 == 3:
            campaign = SMALL_CAMPAIGN.format(number // small // 4)
        else:
            campaign = ""
        key = f"{rng.getrandbits(128):032x}"
        code = f"{number:07d}"
        message: Row = {
            "id": str(first + number),
            "phone": _phone(rng),
            "content": (_FRUIT if number % _RARE_EVERY == 333 else _any(rng, _TEXTS)).format(code),
            "brandname": "SHOP",
            "sandbox": "1" if sandbox else "0",
            "sent_to_sandbox": "1" if sandbox else "0",
            "campaign": campaign,
            "dedupe_key": f"{campaign or 'order'}-{first + number}",
            "status": status,
            "created_at": str(created),
        }
        yield message, _what_became(message, status, created, key, rng)


def _what_became(message: Row, status: str, created: dt.datetime, key: str, rng: random.Random) -> list[Row]:
    """Write the columns of this status into the message, and return its history."""
    if status == "draft":
        return []
    asked = str(created)
    message |= {"request_id": key, "queued_at": asked}
    pk = message["id"]
    events: list[Row] = [{"message_id": pk, "kind": "requested", "created_at": asked, "request_id": key}]
    if status == "cancelled":
        message |= {"completed_at": asked, "error_message": "Cancelled."}
        return [*events, {"message_id": pk, "kind": "note", "created_at": asked, "text": "Cancelled."}]
    called = str(created + dt.timedelta(seconds=1))
    message |= {"attempts": "1", "uncertain_since": called}
    attempt = {"message_id": pk, "kind": "attempt", "created_at": called, "request_id": key, "fingerprint": f"{key}-1"}
    attempt |= {"duration_ms": str(40 + int(rng.random() * 860)), "data": _ANSWERED, "code": "100"}
    match status:
        case "sending":
            lease = str(created + dt.timedelta(days=DAYS + 1))
            message |= {"claim_id": key, "lease_until": lease, "next_attempt_at": asked}
            return events
        case "failed":
            code = _any(rng, ("99", "108", "119"))
            message |= {"code_result": code, "completed_at": called, "uncertain_since": None}
            return [*events, attempt | {"code": code}]
        case "unknown":
            text = "No answer came in time."
            message |= {"error_message": text}
            return [*events, attempt | {"code": "", "text": text, "data": '{"outcome": "no_answer"}'}]
    sms_id = f"{rng.getrandbits(128):032x}250"
    message |= {"code_result": "100", "sms_id": sms_id, "sent_at": called}
    if status == "sent":
        return [*events, attempt]
    waited = 2 + int(rng.expovariate(1 / 40)) if rng.random() < 0.95 else rng.randrange(60, 20_000)
    reported = created + dt.timedelta(seconds=1 + waited)
    is_delivered, network = status == "delivered", _any(rng, _NETWORKS)
    message |= {
        "send_status": "5",
        "total_price": "470.0000" if is_delivered else "0.0000",
        "telco_id": network,
        "completed_at": str(reported),
        "delivery_seconds": str(waited) if is_delivered else None,
    }
    data = (
        f'{{"SMSID": "{sms_id}", "RequestId": "{key}", "SendStatus": "5", "TotalPrice": "470.0000", "telcoid":'
        f' "{network}", "SendSuccess": "{is_delivered:d}", "SendFailed": "{not is_delivered:d}", "TotalSent": "1"}}'
    )
    callback = {"message_id": pk, "kind": "callback", "created_at": str(reported), "request_id": key, "data": data}
    return [*events, attempt, callback | {"fingerprint": f"{key}{key}", "applied": "1"}]


def campaign(count: int, name: str = "sale-1212", *, purpose: str = "transactional", seed: int = 13) -> Scene:
    """Messages that were queued together, and all became due at one time."""
    first = _next_pk()
    rng = random.Random(seed + first)
    asked = str(_now() - dt.timedelta(minutes=5))
    for number in range(count):
        key = f"{rng.getrandbits(128):032x}"
        message = {
            "id": str(first + number),
            "phone": _phone(rng),
            "content": _TEXTS[4].format(f"{number:07d}"),
            "brandname": "SHOP",
            "campaign": name,
            "purpose": purpose,
            "dedupe_key": f"{name}-{first + number}",
            "status": "queued",
            "request_id": key,
            "created_at": asked,
            "queued_at": asked,
            "next_attempt_at": asked,
        }
        yield message, [{"message_id": message["id"], "kind": "requested", "created_at": asked, "request_id": key}]


def notes(count: int, *, seed: int = 14) -> Scene:
    """Events after all others that are no calls: what was asked for, and notes, of messages that are there."""
    from esms_viber.models import OutboundViberMessage

    rng = random.Random(seed)
    at = str(_now())
    pks = [str(pk) for pk in OutboundViberMessage.objects.order_by("pk").values_list("pk", flat=True)[:10_000]]
    for _ in range(count):
        kind = _any(rng, ("requested", "note"))
        yield None, [{"message_id": _any(rng, pks), "kind": kind, "created_at": at, "text": "Written in the admin."}]


def _now() -> dt.datetime:
    """UTC without a zone, in which every database here stores it."""
    from django.utils import timezone

    return timezone.now().astimezone(dt.UTC).replace(tzinfo=None, microsecond=0)


def _phone(rng: random.Random) -> str:
    return f"+84{_any(rng, _PREFIXES)}{int(rng.random() * 10_000_000):07d}"


def _any(rng: random.Random, values: Sequence[Any]) -> Any:
    return values[int(rng.random() * len(values))]  # a third of the time that choice() takes


def _next_pk() -> int:
    from esms_viber.models import OutboundViberMessage

    return (OutboundViberMessage.objects.order_by("-pk").values_list("pk", flat=True).first() or 0) + 1


# -- writing them ------------------------------------------------------------------------------------------------------


def fill(*scenes: Scene, analyze: bool = True) -> None:
    """Store the scenes, one after the other.

    A scene is begun when the one before is stored, because it asks for the next free primary key.
    """
    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    with _in_bulk([OutboundViberMessage._meta.db_table, ViberMessageEvent._meta.db_table]):
        for scene in scenes:
            rows = iter(scene)
            part = list(itertools.islice(rows, _AT_ONCE))
            with _writer(OutboundViberMessage) as store_messages, _writer(ViberMessageEvent) as store_events:
                while part:
                    store_messages([message for message, _events in part if message is not None])
                    store_events([event for _message, its_events in part for event in its_events])
                    part = list(itertools.islice(rows, _AT_ONCE))
    _set_sequences()
    if analyze:
        analyze_tables()


@contextmanager
def _writer(model: Any) -> Iterator[Callable[[list[Row]], None]]:
    """A function that stores rows of this table."""
    from django.db import connection
    from django.db.models import Max

    fields = [f for f in model._meta.concrete_fields if not getattr(f, "generated", False)]
    defaults = [(f.column, _as_text(f.get_db_prep_save(f.get_default(), connection))) for f in fields]
    quote, key = connection.ops.quote_name, model._meta.pk.column
    table = f"{quote(model._meta.db_table)} ({', '.join(quote(f.column) for f in fields)})"
    pks = itertools.count((model._base_manager.aggregate(last=Max("pk"))["last"] or 0) + 1)

    def values(rows: list[Row]) -> list[list[str | None]]:
        for row in rows:
            row.setdefault(key, str(next(pks)))
        return [[row.get(column, default) for column, default in defaults] for row in rows]

    if connection.vendor == "postgresql":
        # A connection for each table, so that the server stores rows while the next ones are made.
        own = connection.copy()
        with own.cursor() as cursor, cursor.copy(f"COPY {table} FROM STDIN") as copy:
            yield lambda rows: copy.write("".join(map(_line, values(rows))))
        own.close()
    else:
        insert = f"INSERT INTO {table} VALUES ({', '.join(['%s'] * len(fields))})"  # noqa: S608 - the models' own names
        with connection.cursor() as cursor:
            yield lambda rows: cursor.executemany(insert, values(rows)) if rows else None


def _line(values: list[str | None]) -> str:
    # No scene has a value with a sign that COPY would want escaped.
    return "\t".join(["\\N" if value is None else value for value in values]) + "\n"


def _as_text(value: Any) -> str | None:
    """The text that every database reads as this value."""
    match value:
        case None | str():
            return value
        case bool():
            return str(int(value))
        case dict():
            return json.dumps(value)
        case _ if hasattr(value, "obj"):  # psycopg's wrapper of JSON
            return json.dumps(value.obj)
        case _:
            return str(value)


@contextmanager
def _in_bulk(tables: list[str]) -> Iterator[None]:
    """Drop the indexes meanwhile, because making one of many rows is faster than growing it row by row."""
    from django.db import connection

    with connection.cursor() as cursor:
        match connection.vendor:
            case "postgresql":
                indexes = _indexes_of_postgresql(cursor, tables)
            case "sqlite":
                indexes = _indexes_of_sqlite(cursor, tables)
            case _:
                indexes = _indexes_of_mariadb(cursor, tables)
        for drop, _make in indexes:
            cursor.execute(drop)
        if connection.vendor != "postgresql":
            cursor.execute("BEGIN")
        yield
        if connection.vendor != "postgresql":
            cursor.execute("COMMIT")
        for _drop, make in indexes:
            cursor.execute(make)
    connection.close()  # and with it what was set for it


def _indexes_of_postgresql(cursor: Any, tables: list[str]) -> list[tuple[str, str]]:
    cursor.execute("SET maintenance_work_mem = '256MB'")
    cursor.execute(
        "SELECT format('ALTER TABLE %%s DROP CONSTRAINT %%I', conrelid::regclass, conname),"
        " format('ALTER TABLE %%s ADD CONSTRAINT %%I %%s', conrelid::regclass, conname, pg_get_constraintdef(oid))"
        " FROM pg_constraint WHERE conrelid = ANY(%s::regclass[]) AND contype IN ('u', 'f')"
        " UNION ALL SELECT format('DROP INDEX %%s', indexrelid::regclass), pg_get_indexdef(indexrelid)"
        " FROM pg_index WHERE indrelid = ANY(%s::regclass[])"
        " AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)",
        [tables, tables],
    )
    return list(cursor.fetchall())


def _indexes_of_sqlite(cursor: Any, tables: list[str]) -> list[tuple[str, str]]:
    for pragma in ("foreign_keys = OFF", "synchronous = OFF", "journal_mode = MEMORY", "cache_size = -400000"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.execute("SELECT name, tbl_name, sql FROM sqlite_master WHERE type = 'index' AND sql IS NOT NULL")
    return [(f'DROP INDEX "{name}"', make) for name, table, make in cursor.fetchall() if table in tables]


def _indexes_of_mariadb(cursor: Any, tables: list[str]) -> list[tuple[str, str]]:
    cursor.execute("SET unique_checks = 0, foreign_key_checks = 0")
    cursor.execute(
        "SELECT concat('DROP INDEX ', index_name, ' ON ', table_name), concat('CREATE INDEX ', index_name, ' ON ',"
        " table_name, '(', group_concat(column_name ORDER BY seq_in_index), ')') FROM information_schema.statistics s"
        " WHERE table_schema = database() AND table_name IN %s AND non_unique"
        " AND NOT EXISTS (SELECT 1 FROM information_schema.table_constraints c WHERE c.table_schema = s.table_schema"
        " AND c.table_name = s.table_name AND c.constraint_name = s.index_name) GROUP BY table_name, index_name",
        [tables],
    )
    return list(cursor.fetchall())


def _set_sequences() -> None:
    from django.core.management.color import no_style
    from django.db import connection

    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    with connection.cursor() as cursor:
        for sql in connection.ops.sequence_reset_sql(no_style(), [OutboundViberMessage, ViberMessageEvent]):
            cursor.execute(sql)


def analyze_tables() -> None:
    from django.db import connection

    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    tables = [connection.ops.quote_name(m._meta.db_table) for m in (OutboundViberMessage, ViberMessageEvent)]
    with connection.cursor() as cursor:
        for table in tables:
            match connection.vendor:
                case "postgresql":
                    cursor.execute(f"VACUUM ANALYZE {table}")
                case "sqlite":
                    cursor.execute(f"ANALYZE {table}")
                case _:
                    cursor.execute(f"ANALYZE TABLE {table}")


if __name__ == "__main__":
    import argparse
    import time

    from tests.benchmarks.harness import set_up

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--database", required=True)
    for name in ("shop", "campaign", "notes"):
        parser.add_argument(f"--{name}", type=int, default=0)
    parser.add_argument("--no-analyze", action="store_true")
    options = parser.parse_args()
    set_up(options.database)

    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    started = time.perf_counter()
    fill(
        old_shop(options.shop),
        campaign(options.campaign),
        notes(options.notes),
        analyze=not options.no_analyze,
    )
    print(f"filled in {time.perf_counter() - started:.1f} s")
