"""Settings of the worker processes: those of the tests, and what the test that starts them has set."""

from __future__ import annotations

import json
import os
from importlib.util import find_spec

from tests.settings import *  # noqa: F403 - settings
from tests.settings import DATABASES, INSTALLED_APPS

_test = json.loads(os.environ["ENGINE_TEST"])

DATABASES["default"]["NAME"] = _test["database"]
globals().update(_test["settings"])

if find_spec("django_rq"):
    INSTALLED_APPS.append("django_rq")  # the command `rqworker`
