"""Do the benchmarks run? Nothing here looks at how fast."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from esms_viber.models import OutboundViberMessage, Status, ViberMessageEvent
from tests.benchmarks.filling import LARGEST_CAMPAIGN, campaign, fill, notes, old_shop
from tests.factories import states

ROOT = Path(__file__).parents[1]


@pytest.mark.django_db(transaction=True)
def test_scenes_that_are_filled_have_every_status_and_hold_to_the_constraints():
    fill(old_shop(500), campaign(20), notes(30))

    assert states().keys() == set(Status)
    assert OutboundViberMessage.objects.due().count() == 20
    assert OutboundViberMessage.objects.filter(campaign=LARGEST_CAMPAIGN).count() == 100
    assert set(ViberMessageEvent.objects.values_list("kind", flat=True)) == {"requested", "attempt", "callback", "note"}
    for message in OutboundViberMessage.objects.all():
        message.validate()
        message.validate_constraints()
    assert not ViberMessageEvent.objects.exclude(message__in=OutboundViberMessage.objects.all()).exists()


@pytest.mark.django_db(transaction=True)
def test_rows_can_be_inserted_after_those_that_were_filled():
    fill(old_shop(30))
    fill(old_shop(30), notes(10))
    last = OutboundViberMessage.objects.latest("pk")

    message = OutboundViberMessage.objects.create(phone="0901888484", content="Hello")
    ViberMessageEvent.objects.create(message=message, kind="note")

    assert message.pk > last.pk


def test_one_command_measures_by_name_and_prints_json():
    command = [sys.executable, "-m", "tests.benchmarks", "--rows", "2000", "--rounds", "1", "--json"]
    command += ["pages", "pausing", "pruning"]
    environment = {name: value for name, value in os.environ.items() if name != "TEST_DATABASE_URL"}

    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert not ended.returncode, ended.stderr
    found = json.loads(ended.stdout)
    assert found["machine"]["database"].startswith("SQLite")
    pages, pausing, pruning = found["benchmarks"]
    assert pages["benchmark"] == "pages"
    assert {"list, first page", "search, SMSID", "overview, 30 of 180 days", "drain with nothing due"} <= {
        result["name"] for result in pages["results"]
    }
    assert all(0 < result["min"] <= result["ms"] <= result["max"] for result in pages["results"])
    assert "claim of 128, held: 2,000 by a pause" in {result["name"] for result in pausing["results"]}
    assert "a transaction, delete_after of 2,000" in {result["name"] for result in pruning["results"]}
