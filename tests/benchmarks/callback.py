"""How fast a callback is answered, against views of two floors that are asked in turn with it.

The floors are a bare view, which does one INSERT and one UPDATE on the app's own tables by hand-written SQL in one
transaction, and an empty view. All are asked through Django's WSGI handler in this process, under the same middleware
and with a database connection that stays open, so no web server adds the same time to each.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median

from . import harness

REPORT = (
    "SMSID=849fe08c19294b02857cf91687021a50250&SendFailed=0&SendStatus=5&SendSuccess=1&TotalPrice=470.0000"
    "&TotalReceiver=1&TotalSent=1&RequestId=&TypeId=23&telcoid=2&phonenumber=0901888484"
)
PAIRS = {
    "valid callback, against an INSERT and an UPDATE": ("valid", "bare"),
    "same callback again, against an INSERT and an UPDATE": ("again", "bare"),
    "bad token, against an empty view": ("bad", "empty"),
}
TURN = 50

Ask = Callable[[str], int]


def run(rounds: int = 9, each: int = 200) -> list[harness.Result]:
    """Measure on the database of the settings, whose tables must exist; the rows that it makes are left there."""
    measured: list[dict[str, Spent]] = []
    with _floors(), _asking() as ask:
        known = [_path(*one) for one in _sent_messages(each)]
        for path in known:
            assert ask(path) == 200
        for number in range(rounds + 1):
            messages = _sent_messages(2 * each)
            valid = [_path(*one) for one in messages[:each]]
            work: dict[str, tuple[list[str], int]] = {
                "empty": ([path.replace("esms-viber", f"empty-{n % 2}") for n, path in enumerate(valid)], 200),
                "bad": ([_tampered(path) for path in valid], 404),
                "again": (known, 200),
                "bare": ([f"/bare/{pk}/{request_id}/" for pk, request_id in messages[each:]], 200),
                "valid": (valid, 200),
            }
            spent = {name: Spent() for name in work}
            # In turns of a few requests, because the machine is not always equally fast; the order turns around,
            # because whoever follows the database's work finds cold caches.
            for turn, start in enumerate(range(0, each, TURN)):
                for name in list(work)[:: -1 if turn % 2 else 1]:
                    paths, answer = work[name]
                    with spent[name]:
                        for path in paths[start : start + TURN]:
                            assert ask(path) == answer, path
            if number:  # the first round warms up
                measured.append(spent)
    return [_result(name, *pair, measured, each) for name, pair in PAIRS.items()]


class Spent:
    """Seconds on the clock, and of this process's CPU."""

    def __init__(self) -> None:
        self.seconds = self.cpu = 0.0

    def __enter__(self) -> None:
        self._began = time.perf_counter(), time.process_time()

    def __exit__(self, *error: object) -> None:
        self.seconds += time.perf_counter() - self._began[0]
        self.cpu += time.process_time() - self._began[1]


def _result(name: str, ours: str, floor: str, measured: list[dict[str, Spent]], each: int) -> harness.Result:
    rates = {one: [each / spent[one].seconds for spent in measured] for one in (ours, floor)}
    cpu = {one: median(spent[one].cpu for spent in measured) for one in (ours, floor)}
    return harness.ratio(name, rates[ours], rates[floor], cpu_ratio=cpu[floor] / cpu[ours])


@contextmanager
def _asking() -> Iterator[Ask]:
    """A function that asks the WSGI handler for a path, and returns the status of the answer."""
    from django.core.handlers.wsgi import WSGIHandler
    from django.db import connection
    from django.test.client import FakePayload

    handler = WSGIHandler()
    statuses: list[str] = []

    def ask(path: str) -> int:
        environ = {
            "REQUEST_METHOD": "GET",
            "PATH_INFO": path,
            "SCRIPT_NAME": "",
            "QUERY_STRING": REPORT,
            "SERVER_NAME": "testserver",
            "SERVER_PORT": "80",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "REMOTE_ADDR": "127.0.0.1",
            "HTTP_HOST": "testserver",
            "wsgi.url_scheme": "http",
            "wsgi.input": FakePayload(b""),
        }
        response = handler(environ, lambda status, headers: statuses.append(status))
        b"".join(response)
        response.close()
        return int(statuses.pop()[:3])

    connection.close()
    age, connection.settings_dict["CONN_MAX_AGE"] = connection.settings_dict["CONN_MAX_AGE"], None
    try:
        yield ask
    finally:
        connection.close()
        connection.settings_dict["CONN_MAX_AGE"] = age


@contextmanager
def _floors() -> Iterator[None]:
    """The two floors, and the app's own view, as the site's addresses."""
    from django.contrib.auth.decorators import login_not_required
    from django.db import connection, transaction
    from django.http import HttpRequest, HttpResponse
    from django.test import override_settings
    from django.urls import include, path
    from django.utils import timezone

    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    quote = connection.ops.quote_name
    names = ("message_id", "kind", "created_at", "request_id", "code", "text", "data", "fingerprint", "applied")
    insert = (
        f"INSERT INTO {quote(ViberMessageEvent._meta.db_table)} ({', '.join(map(quote, names))})"  # noqa: S608 - the models' own names
        f" VALUES ({', '.join(['%s'] * len(names))})"
    )
    written = ("status", "send_status", "total_price", "telco_id", "error_message", "completed_at", "next_query_at")
    columns, wanted = (", ".join(f"{quote(name)} = %s" for name in written), ("id", "status", "request_id"))
    update = (
        f"UPDATE {quote(OutboundViberMessage._meta.db_table)} SET {columns}"  # noqa: S608 - the models' own names
        f" WHERE {' AND '.join(f'{quote(name)} = %s' for name in wanted)}"
    )

    data = json.dumps({"SendStatus": "5"})

    @login_not_required
    def bare(request: HttpRequest, pk: int, request_id: str) -> HttpResponse:
        now = connection.ops.adapt_datetimefield_value(timezone.now())
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute(update, ["delivered", 5, "470.0000", 2, "", now, None, pk, "sent", request_id])
            cursor.execute(insert, [pk, "callback", now, request_id, "", "", data, uuid.uuid4().hex, True])
        return HttpResponse("OK")

    @login_not_required
    def empty(request: HttpRequest, token: str) -> HttpResponse:
        return HttpResponse("OK")

    # Django's routing is no work of the app, so the empty view is as deep as the app's own, and once before it and once
    # after it, because each address that does not fit takes time.
    patterns = (
        path("empty-0/", include([path("callback/<str:token>/", empty)])),
        path("esms-viber/", include("esms_viber.urls")),
        path("empty-1/", include([path("callback/<str:token>/", empty)])),
        path("bare/<int:pk>/<str:request_id>/", bare),
    )
    with override_settings(ROOT_URLCONF=patterns):
        yield


def _sent_messages(count: int) -> list[tuple[int, str]]:
    """Store messages as eSMS has taken them, with the history that goes with it; their primary keys and RequestIds."""
    from django.utils import timezone

    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    now = timezone.now()
    rows = [
        OutboundViberMessage(
            phone="+84901888484",
            content="Đơn hàng #17 đã được giao",
            brandname="SHOP",
            status="sent",
            request_id=uuid.uuid4().hex,
            sms_id="849fe08c19294b02857cf91687021a50250",
            code_result="100",
            attempts=1,
            queued_at=now,
            sent_at=now,
            next_query_at=now,
            uncertain_since=now,
        )
        for _ in range(count)
    ]
    # The model's own manager inserts drafts only.
    OutboundViberMessage._base_manager.bulk_create(rows)
    stored = list(OutboundViberMessage.objects.order_by("-pk").values_list("pk", "request_id")[:count])
    ViberMessageEvent.objects.bulk_create(
        ViberMessageEvent(message_id=pk, kind=kind, request_id=request_id, fingerprint=uuid.uuid4().hex)
        for pk, request_id in stored
        for kind in ("requested", "attempt")
    )
    return stored


def _path(pk: int, request_id: str) -> str:
    from esms_viber.tokens import make_token

    return f"/esms-viber/callback/{make_token(pk, request_id)}/"


def _tampered(path: str) -> str:
    """In the middle of the signature, so that it has the shape of one."""
    place = path.index("~") + 20
    return path[:place] + ("A" if path[place] != "A" else "B") + path[place + 1 :]
