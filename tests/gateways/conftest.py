from __future__ import annotations

import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from esms_viber.gateways.esms import EsmsGateway
from tests.fake_gateway import FakeGateway
from tests.gateways.samples import make_gateway

CERTIFICATE = Path(__file__).parent / "localhost.pem"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture
def gateway(fake_gateway: FakeGateway) -> Iterator[EsmsGateway]:
    found = make_gateway(fake_gateway.url)
    yield found
    found.close()


@pytest.fixture
def tls_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


@pytest.fixture
def trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(CERTIFICATE))


@pytest.fixture
def tls_server(tls_context: ssl.SSLContext) -> Iterator[FakeGateway]:
    server = FakeGateway(tls=tls_context)
    yield server
    server.close()
