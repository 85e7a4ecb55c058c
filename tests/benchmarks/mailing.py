"""How long *Send to many* takes for a list, against a bare bulk insert of its rows in the same run."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from . import harness, pages

PAGE = f"{pages.LIST}viber-send-to-many/"


def run(rounds: int = 5, lines: int = 10_000) -> list[harness.Result]:
    from django.test.utils import setup_test_environment, teardown_test_environment

    taken: dict[str, list[float]] = {}
    longest: list[float] = []
    client = pages.staff()
    setup_test_environment()  # which keeps the context of a page
    try:
        for number in range(rounds):
            times, requests = steps(client, lines, f"campaign-{number}")
            longest.append(max(requests))
            for name, milliseconds in times.items():
                taken.setdefault(name, []).append(milliseconds)
    finally:
        teardown_test_environment()
    rates = {name: [1000 * lines / each for each in times] for name, times in taken.items()}
    floor = rates.pop("floor")
    return [harness.ratio(f"list of {lines:,}: {name}", each, floor) for name, each in rates.items()] + [
        harness.summary(f"list of {lines:,}: the longest request that stores", longest)
    ]


def steps(client: Any, count: int, campaign: str) -> tuple[dict[str, float], list[float]]:
    """The milliseconds of each step with a list of so many lines, and of each request that stores a part of it."""
    from django.core.files.uploadedfile import SimpleUploadedFile

    from esms_viber.admin.mailing import AT_ONCE

    lines = "".join(f"0977{n:06d};Khách {n};KM{n:05d}\n" for n in range(count))
    text = {"campaign": campaign, "content": "Chào {tên}, mã của bạn là {mã}. " + "Ưu đãi Tết đến hết tháng. " * 3}
    file = SimpleUploadedFile("list.csv", f"phone;tên;mã\n{lines}".encode())
    taken: dict[str, float] = {}

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        started = time.perf_counter()
        found = work()
        return 1000 * (time.perf_counter() - started), found

    taken["floor"], _count = timed(lambda: bare_insert(count))
    taken["review"], shown = timed(lambda: client.post(PAGE, {**text, "file": file}))
    assert shown.context["ready"] == count, shown.context["form"].errors
    columns, people = json.loads(shown.context["rows"])
    parts = [json.dumps([columns, people[start : start + AT_ONCE]]) for start in range(0, count, AT_ONCE)]
    buttons = ["_store"] * (len(parts) - 1) + ["_confirm"]
    times = [
        timed(lambda: client.post(PAGE, {**text, "rows": part, button: "1"}))[0]  # noqa: B023 - called at once
        for part, button in zip(parts, buttons, strict=True)
    ]
    taken["storing it"] = sum(times)
    whole = {**text, "rows": shown.context["rows"], "_confirm": "1"}
    taken["the same again, in one request"], known = timed(lambda: client.post(PAGE, whole))
    assert known.status_code == 302
    fresh = {**whole, "campaign": f"{campaign}-fresh"}
    taken["a new campaign, in one request"], _answer = timed(lambda: client.post(PAGE, fresh))
    return taken, times


def bare_insert(count: int) -> int:
    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    rows = [OutboundViberMessage(phone=f"+84977{n:06d}", content="x" * 80, campaign="floor") for n in range(count)]
    # The model's own manager checks each of them.
    OutboundViberMessage._base_manager.bulk_create(rows, 500)
    events = [ViberMessageEvent(message=row, kind="requested") for row in rows]
    return len(ViberMessageEvent.objects.bulk_create(events, 500))
