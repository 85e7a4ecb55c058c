"""What a test starts has the clock of the test, whatever the hour is outside."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from pathlib import Path

import pytest
from django.utils import timezone

from tests.clock import VIETNAM, Clock, noon

ASK = """
import django
from django.conf import settings

settings.configure(USE_TZ=True)
django.setup()
from django.utils import timezone

print(timezone.now().isoformat())
"""


def time_of_a_child() -> dt.datetime:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK],
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return dt.datetime.fromisoformat(done.stdout.strip())


def test_a_test_begins_at_noon_in_vietnam():
    assert timezone.now() - noon() < dt.timedelta(hours=1)
    assert timezone.now().astimezone(VIETNAM).hour == 12


@pytest.mark.parametrize("moved", [{}, {"hours": 11, "minutes": 57}, {"days": -400}, {"days": 3}], ids=str)
def test_a_child_process_has_the_clock_of_the_test(clock: Clock, moved: dict[str, float]):
    clock.advance(**moved)
    before = timezone.now()
    there = time_of_a_child()
    assert before <= there <= timezone.now()
