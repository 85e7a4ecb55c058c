"""`get_gateway()`: one instance a process, from the settings as they are."""

from __future__ import annotations

import traceback
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from esms_viber.gateways.console import ConsoleGateway
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.loading import get_gateway
from esms_viber.gateways.memory import MemoryGateway
from tests.fake_gateway import PATIENCE, FakeGateway
from tests.gateways.samples import API_KEY, SECRET_KEY, make_message, traces_in

ESMS = "esms_viber.gateways.esms.EsmsGateway"
ACCOUNT = {"API_KEY": API_KEY, "SECRET_KEY": SECRET_KEY, "BRANDNAME": "Shop", "GATEWAY": ESMS}


def test_one_instance_for_all_threads() -> None:
    with override_settings(ESMS_VIBER=ACCOUNT), ThreadPoolExecutor(8) as threads:
        found = set(threads.map(lambda _: get_gateway(), range(50)))
    assert len(found) == 1
    assert isinstance(found.pop(), EsmsGateway)


def test_a_changed_setting_makes_a_new_one() -> None:
    with override_settings(ESMS_VIBER=ACCOUNT):
        first = get_gateway()
    with override_settings(ESMS_VIBER={**ACCOUNT, "TIMEOUT": [1, 2]}):
        second = get_gateway()
        assert second is get_gateway()
    with override_settings(ESMS_VIBER={"GATEWAY": "esms_viber.gateways.console.ConsoleGateway"}):
        assert isinstance(get_gateway(), ConsoleGateway)
    with override_settings(ESMS_VIBER={"GATEWAY": "esms_viber.gateways.memory.MemoryGateway"}):
        assert isinstance(get_gateway(), MemoryGateway)
    assert first is not second


@pytest.mark.parametrize("path", ["nowhere", "no.such.module.Gateway", "esms_viber.conf.NAMES", "datetime.date", ""])
def test_a_path_that_names_no_gateway(path: str) -> None:
    with override_settings(ESMS_VIBER={**ACCOUNT, "GATEWAY": path}), pytest.raises(ImproperlyConfigured) as caught:
        get_gateway()
    assert 'ESMS_VIBER["GATEWAY"]' in str(caught.value)


@pytest.mark.parametrize("name", ["API_KEY", "SECRET_KEY", "BRANDNAME"])
def test_a_missing_setting_is_named(name: str) -> None:
    with override_settings(ESMS_VIBER={**ACCOUNT, name: " "}), pytest.raises(ImproperlyConfigured) as caught:
        get_gateway()
    assert f'ESMS_VIBER["{name}"]' in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://", "https://user:word@esms.example/", "https://esms.example/?a=1", "https://e.vn/#a", "http://[::1/"],
)
def test_a_base_url_that_is_none(url: str) -> None:
    with override_settings(ESMS_VIBER={**ACCOUNT, "BASE_URL": url}), pytest.raises(ImproperlyConfigured) as caught:
        get_gateway()
    assert 'ESMS_VIBER["BASE_URL"]' in str(caught.value)
    assert traces_in("".join(traceback.format_exception(caught.value))) == []


def test_the_settings_reach_the_wire(fake_gateway: FakeGateway) -> None:
    conf: dict[str, Any] = {**ACCOUNT, "BASE_URL": fake_gateway.url, "TIMEOUT": [PATIENCE, PATIENCE], "CONCURRENCY": 2}
    with override_settings(ESMS_VIBER=conf):
        gateway = get_gateway()
        assert gateway.send(make_message()).code == "100"
    assert (fake_gateway.last["ApiKey"], fake_gateway.last["SecretKey"]) == (API_KEY, SECRET_KEY)
    assert isinstance(gateway, EsmsGateway)
    gateway.close()
