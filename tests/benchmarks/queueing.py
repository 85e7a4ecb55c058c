"""How fast `queue_viber_messages()` stores, against a bare `bulk_create()` of the same rows; and its memory."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import harness

CHUNK = 500
TEXT = "Đơn hàng #{} đã giao. Cảm ơn bạn đã mua hàng ở Cà Phê Sớm!"
IMAGE, LABEL, LINK = "https://shop.example.vn/sale.png", "Xem đơn", "https://shop.example.vn/orders/{}"
KINDS: dict[str, Callable[[int], dict[str, str]]] = {
    "texts": lambda n: {},
    "texts, image and button shared": lambda n: {"image_url": IMAGE, "button_label": LABEL, "button_url": LINK},
    "texts, image, a link of their own": lambda n: {
        "image_url": IMAGE,
        "button_label": LABEL,
        "button_url": LINK.format(n),
    },
}


def run(messages: int = 5_000, most: int = 100_000, rounds: int = 5) -> list[harness.Result]:
    results = []
    with harness.settings_of_app(GATEWAY="esms_viber.gateways.esms.EsmsGateway"):
        for name, parts in KINDS.items():
            ours, floor = [], []
            for count in (CHUNK, *[messages] * rounds):  # the first round loads code and fills caches
                floor.append(_rate(_bare_insert, _stored(count, parts)))
                ours.append(_rate(_queue, _unsaved(count, parts)))
            results.append(harness.ratio(f"queue_viber_messages, {name}", ours[1:], floor[1:]))
        [(alone, together)] = harness.together(1, grow, most)
    for what, mib in {"with the instances made before": alone, "its instances included": together}.items():
        results.append(harness.summary(f"a call of {most:,}, {what}", [mib], "mib", floor=together - alone))
    return results


# -- the rate ----------------------------------------------------------------------------------------------------------


def _unsaved(count: int, parts: Callable[[int], dict[str, str]]) -> list[Any]:
    from esms_viber.models import OutboundViberMessage

    return [
        OutboundViberMessage(phone=f"090{n:07}", content=TEXT.format(n), campaign="tet", **parts(n))
        for n in range(1_000_000, 1_000_000 + count)
    ]


def _stored(count: int, parts: Callable[[int], dict[str, str]]) -> list[Any]:
    """The same messages, as they are in the end."""
    from django.utils import timezone

    rows, now = _unsaved(count, parts), timezone.now()
    columns = {"status": "queued", "brandname": "SHOP", "queued_at": now, "next_attempt_at": now}
    for row in rows:
        vars(row).update(columns, phone=f"+84{row.phone[1:]}", request_id=uuid.uuid4().hex)
    return rows


def _rate(work: Callable[[list[Any]], object], rows: list[Any]) -> float:
    started = time.perf_counter()
    work(rows)
    return len(rows) / (time.perf_counter() - started)


def _queue(rows: list[Any]) -> None:
    from esms_viber.services import queue_viber_messages

    queue_viber_messages(rows)


def _bare_insert(rows: list[Any]) -> None:
    from django.db import transaction

    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    with transaction.atomic():
        OutboundViberMessage._base_manager.bulk_create(rows, CHUNK)
        events = [ViberMessageEvent(message=row, kind="requested", request_id=row.request_id) for row in rows]
        ViberMessageEvent._base_manager.bulk_create(events, CHUNK)


# -- the memory --------------------------------------------------------------------------------------------------------


def grow(count: int) -> tuple[float, float]:
    """MiB by which one call makes a new process grow: beyond the instances it is given, and together with them."""
    parts = KINDS["texts, image and button shared"]
    _queue(_unsaved(CHUNK, parts))
    before = _resident()
    messages = _unsaved(count, parts)
    with_instances = _resident()
    _queue(messages)
    peak = harness.peak_mib()
    return peak - with_instances, peak - before


def _resident() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
