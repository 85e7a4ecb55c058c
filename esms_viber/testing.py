"""For the tests of sites: what was sent, what eSMS is to answer, and the reports it would send.

Works with `ESMS_VIBER["GATEWAY"] = "esms_viber.gateways.memory.MemoryGateway"`. With pytest, put
`pytest_plugins = ["esms_viber.testing"]` into `conftest.py` and use the fixture `viber_outbox`, which sets this up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.conf import settings
from django.test import Client
from django.test.utils import override_settings

from .gateways.base import OutgoingMessage, Reach, SendResult
from .gateways.memory import MemoryGateway, outbox
from .models import OutboundViberMessage
from .outgoing import callback_path
from .tokens import make_token

__all__ = ["answer_next", "outbox", "play_callback", "reset"]


def answer_next(code: str = "100", *, reach: Reach = Reach.ANSWERED, sms_id: str = "", text: str = "") -> None:
    """Script the answer to the next send that has none yet; e.g. `answer_next(reach=Reach.NO_ANSWER)` is a time-out."""
    code = code if reach is Reach.ANSWERED else ""
    MemoryGateway.answers.append(SendResult(reach=reach, code=code, sms_id=sms_id, text=text))


def play_callback(message: OutboundViberMessage, *, delivered: bool = True, **parameters: Any) -> Any:
    """Report on a message as eSMS would, through the site's own URLs and middleware; the response.

    `parameters` replace eSMS's, under its names, e.g. `SendStatus="7"`.
    """
    message.refresh_from_db()
    reported = {
        "SMSID": message.sms_id,
        "SendStatus": "5",
        "SendSuccess": str(int(delivered)),
        "SendFailed": str(int(not delivered)),
        "TotalPrice": "470.0000",
        "TotalReceiver": "1",
        "TotalSent": "1",
        "RequestId": message.request_id,
        "TypeId": "23",
        "telcoid": "2",
        "phonenumber": message.phone.replace("+84", "0", 1),
        **parameters,
    }
    return Client().get(callback_path(make_token(message.pk, message.request_id)), reported, secure=True)


def reset() -> None:
    """Empty the outbox and forget scripted answers."""
    MemoryGateway.reset()


def _viber_outbox() -> Iterator[list[OutgoingMessage]]:
    gateway = f"{MemoryGateway.__module__}.{MemoryGateway.__qualname__}"
    reset()
    with override_settings(ESMS_VIBER={**getattr(settings, "ESMS_VIBER", {}), "GATEWAY": gateway}):
        yield outbox
    reset()


try:
    import pytest
except ImportError:
    pass
else:
    viber_outbox = pytest.fixture(_viber_outbox, name="viber_outbox")
