"""For the tests of sites: what was sent, what eSMS is to answer, and the reports it would send.

In a test run nothing leaves: the memory gateway takes the place of `EsmsGateway`, and `outbox` holds what the running
test has sent. A test that is to call a gateway all the same, for example a simulator of its own, overrides `ESMS_VIBER`
with a dict that names `GATEWAY`.
"""

from __future__ import annotations

from typing import Any

from django.test import Client

from .gateways.base import CallOutcome, OutgoingMessage, SendResult
from .gateways.memory import MemoryGateway, outbox
from .models import OutboundViberMessage
from .phones import normalize_phone
from .tokens import callback_path, make_token

__all__ = ["answer_next", "assert_sent", "outbox", "play_callback", "reset"]


def answer_next(
    code: str = "100", *, outcome: CallOutcome = CallOutcome.ANSWERED, sms_id: str = "", text: str = ""
) -> None:
    """Script the answer to the next send that has none yet. A time-out is `CallOutcome.NO_ANSWER`."""
    code = code if outcome is CallOutcome.ANSWERED else ""
    MemoryGateway.answers.append(SendResult(outcome=outcome, code=code, sms_id=sms_id, text=text))


def assert_sent(phone: str, text: str = "") -> OutgoingMessage:
    """Fail unless a message with this text in it was sent to this phone, in any spelling; return the last of them."""
    wanted = normalize_phone(phone)
    for message in reversed(outbox):
        if message.phone == wanted and text in message.content:
            return message
    sent = "".join(f"\n  {message.phone}: {message.content}" for message in outbox) or " nothing"
    raise AssertionError(f"No message to {phone} with the text {text!r} was sent. Sent was:{sent}")


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
    return Client().get(callback_path(make_token(message.id, message.request_id)), reported, secure=True)


def reset() -> None:
    """Empty the outbox and forget scripted answers; each test begins so by itself."""
    MemoryGateway.reset()
