"""The gateway under test, its keys and a message."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, quote_plus

from esms_viber.gateways.base import OutgoingMessage
from esms_viber.gateways.esms import EsmsGateway
from tests.fake_gateway import PATIENCE

API_KEY = 'K+/=%&é x"<9'
SECRET_KEY = "S3CR+T'/%41&é \\x>"
TIMEOUT = (PATIENCE, PATIENCE)
SOON = 0.4
"""Seconds after which a test ends a wait that would not end otherwise."""


def make_gateway(url: str, **options: Any) -> EsmsGateway:
    found = {"api_key": API_KEY, "secret_key": SECRET_KEY, "timeout": TIMEOUT, "pool_size": 4, **options}
    return EsmsGateway(base_url=url, **found)


@contextmanager
def impatient(gateway: EsmsGateway) -> Iterator[None]:
    """Within it the gateway waits for an answer no longer than that, on the connections that it has."""
    transport = gateway._transport
    patient, transport._timeout = transport._timeout, (PATIENCE, SOON)
    yield
    transport._timeout = patient


def make_message(**fields: Any) -> OutgoingMessage:
    given = {"phone": "+84901888484", "request_id": "r-1", "brandname": "Shop Áo", "content": "Chào bạn", **fields}
    return OutgoingMessage(**given)


def spellings(key: str) -> set[str]:
    """The key in the encodings in which a log, a page or a repr may show it."""
    once = {key, quote(key, safe=""), quote_plus(key), quote(key, safe="").lower(), html.escape(key), quote(key)}
    twice = {quote(text, safe="") for text in once}
    escaped = {json.dumps(text)[1:-1] for text in once} | {repr(text)[1:-1] for text in once}
    in_bytes = {repr(text.encode())[2:-1] for text in once}
    return once | twice | escaped | in_bytes


TRACES = spellings(API_KEY) | spellings(SECRET_KEY) | {"SecretKey=", "ApiKey="}


def traces_in(text: str) -> list[str]:
    return [trace for trace in TRACES if trace in text]
