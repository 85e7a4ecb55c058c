"""For the tests of sites that run pytest: each begins with an empty outbox, and nothing leaves.

pytest loads this in every run on a machine where the package is installed, so it imports Django only where a site has.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .gateways.base import OutgoingMessage
    from .gateways.memory import PerTestList


def _app_is_there() -> bool:
    django_apps = sys.modules.get("django.apps")
    return django_apps is not None and django_apps.apps.ready and django_apps.apps.is_installed("esms_viber")


@pytest.fixture(scope="session", autouse=True)
def _nothing_leaves(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without pytest-django nothing shows that this is a test, and fixtures of the session would send for real."""
    if not _app_is_there() or request.config.pluginmanager.has_plugin("django"):
        yield
        return
    from django.core import mail

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mail, "outbox", [], raising=False)
        yield


@pytest.fixture(autouse=True)
def _viber_outbox_is_empty() -> Iterator[None]:
    if not _app_is_there():
        yield
        return
    from django.core import mail

    from .testing import reset

    with pytest.MonkeyPatch.context() as patch:
        if not hasattr(mail, "outbox"):
            # Django was set up after the session began.
            patch.setattr(mail, "outbox", [], raising=False)
        # pytest-django clears Django's outbox and keeps the list, by which ours would know another test.
        reset()
        yield


@pytest.fixture
def viber_outbox(request: pytest.FixtureRequest) -> Iterator[PerTestList[OutgoingMessage]]:
    """The messages sent in this test. Nothing leaves, whatever gateway the settings name."""
    from django.test import override_settings

    from .testing import outbox

    if request.config.pluginmanager.has_plugin("django"):
        # Through pytest-django's fixture, because overrides must end in reverse order and the test may use it too.
        request.getfixturevalue("settings").ESMS_VIBER = _with_memory_gateway()
        yield outbox
    else:
        with override_settings(ESMS_VIBER=_with_memory_gateway()):
            yield outbox


def _with_memory_gateway() -> dict[str, Any]:
    from django.conf import settings

    return {**getattr(settings, "ESMS_VIBER", {}), "GATEWAY": "esms_viber.gateways.memory.MemoryGateway"}
