"""How long *Send to many* takes for a list, against a floor measured in the same run: a bare bulk insert of its rows.

    python tests/benchmarks/mailing.py [lines]

Prints seconds for each step, for the longest request, and the ratios. SQLite, in a temporary folder.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")

PAGE = "/admin/esms_viber/outboundvibermessage/viber-send-to-many/"


def main(count: int) -> None:
    import django
    from django.conf import settings
    from django.core.management import call_command

    with tempfile.TemporaryDirectory() as folder:
        settings.DATABASES["default"]["NAME"] = f"{folder}/db.sqlite3"
        settings.ESMS_VIBER = {
            **settings.ESMS_VIBER,
            "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
            "DISPATCHER": "esms_viber.dispatch.queue_only",
        }
        django.setup()
        logging.disable(logging.WARNING)
        call_command("migrate", verbosity=0)
        compare(count)


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    found = work()
    return time.perf_counter() - started, found


def bare_insert(count: int) -> int:
    from esms_viber.models import OutboundViberMessage, ViberMessageEvent

    rows = [OutboundViberMessage(phone=f"+84977{n:06d}", content="x" * 80, campaign="floor") for n in range(count)]
    super(type(OutboundViberMessage.objects.all()), OutboundViberMessage.objects.all()).bulk_create(rows, 500)
    events = [ViberMessageEvent(message=row, kind="requested") for row in rows]
    return len(ViberMessageEvent.objects.bulk_create(events, 500))


def compare(count: int) -> None:
    from django.contrib.auth.models import User
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.test import Client
    from django.test.utils import setup_test_environment

    from esms_viber.admin.mailing import AT_ONCE

    setup_test_environment()
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    lines = "".join(f"0977{n:06d};Khách {n};KM{n:05d}\n" for n in range(count))
    text = {"campaign": "tet", "content": "Chào {tên}, mã của bạn là {mã}. " + "Ưu đãi Tết đến hết tháng. " * 3}
    file = SimpleUploadedFile("list.csv", f"phone;tên;mã\n{lines}".encode())

    floor, _count = seconds(lambda: bare_insert(count))
    print(f"bare insert of {count} rows with their events: {floor:6.2f} s (floor)")
    took, shown = seconds(lambda: client.post(PAGE, {**text, "file": file}))
    assert shown.context["ready"] == count, shown.context["form"].errors
    print(f"review:                      {took:6.2f} s, ratio {took / floor:.1f}")

    columns, people = json.loads(shown.context["rows"])
    parts = [json.dumps([columns, people[start : start + AT_ONCE]]) for start in range(0, count, AT_ONCE)]
    buttons = ["_store"] * (len(parts) - 1) + ["_confirm"]
    times = [
        seconds(lambda: client.post(PAGE, {**text, "rows": part, button: "1"}))[0]  # noqa: B023 - called at once
        for part, button in zip(parts, buttons, strict=True)
    ]
    print(f"storing, in {len(parts)} requests:   {sum(times):6.2f} s, ratio {sum(times) / floor:.1f}")
    print(f"the longest of them:         {max(times):6.2f} s")

    again, known = seconds(lambda: client.post(PAGE, {**text, "rows": shown.context["rows"], "_confirm": "1"}))
    assert known.status_code == 302
    print(f"the whole list again, in one request without the script: {again:6.2f} s, ratio {again / floor:.1f}")
    fresh = {**text, "campaign": "other", "rows": shown.context["rows"], "_confirm": "1"}
    print(f"a new campaign, in one request without the script: {seconds(lambda: client.post(PAGE, fresh))[0]:6.2f} s")


if __name__ == "__main__":
    arguments = [int(argument) for argument in sys.argv[1:]]
    main(*(arguments or [10_000]))
