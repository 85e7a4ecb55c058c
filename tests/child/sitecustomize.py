"""Python imports this in every process that a test starts: their clock is the test's."""

from __future__ import annotations

import contextlib
import os

if shift := os.environ.get("TEST_CLOCK_SHIFT"):
    import datetime as dt

    # A process without Django, such as pip's, has nothing to set.
    with contextlib.suppress(ImportError):
        from django.utils import timezone

        _real_now, _shift = timezone.now, dt.timedelta(seconds=float(shift))
        timezone.now = lambda: _real_now() + _shift
