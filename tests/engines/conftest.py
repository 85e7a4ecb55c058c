from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.fake_gateway import FakeGateway

pytest.register_assert_rewrite("tests.engines.cases", "tests.engines.engine")

from tests.engines.engine import Engine, Workers  # noqa: E402 - not before they are registered
from tests.engines.esms import Esms  # noqa: E402 - nor these


@pytest.fixture
def esms(engine: Engine, fake_gateway: FakeGateway, settings) -> Iterator[Esms]:
    """The app set up as a site that sends through the engine, to an eSMS behind a socket."""
    esms = Esms(fake_gateway)
    for name, value in engine.settings.items():
        setattr(settings, name, value)
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": fake_gateway.url,
        "DISPATCHER": engine.dispatcher,
        "CONCURRENCY": 2,
    }
    # A task is bound to its backend when its module is imported; at a site the settings are there by then.
    sys.modules.pop("esms_viber.delivery.django_task", None)
    yield esms
    sys.modules.pop("esms_viber.delivery.django_task", None)
    esms.release()


@pytest.fixture
def workers(engine: Engine, esms: Esms, transactional_db: None) -> Iterator[Workers]:
    workers = Workers(engine)
    yield workers
    workers.kill()
