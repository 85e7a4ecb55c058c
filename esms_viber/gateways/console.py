"""Show messages on the console instead of sending them, for development."""

from __future__ import annotations

import sys
import threading
import uuid
from decimal import Decimal
from typing import TextIO

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from .base import BalanceResult, BaseGateway, CallOutcome, OutgoingMessage, SendResult, StatusResult
from .esms import EsmsGateway, send_parameters

_NOT_SENT = gettext_noop("Written to the console, not sent.")
_FREE = gettext_noop("The console costs nothing.")
_KEYS_MASKED = {"ApiKey": "********", "SecretKey": "********"}


class ConsoleGateway(BaseGateway):
    """A gateway that writes eSMS's parameters, with masked keys, and takes every message as sent."""

    def __init__(self, *, stream: TextIO | None = None) -> None:
        """Write to `stream`, or else to `sys.stdout` as it is at the time of each message."""
        self._stream = stream
        self._lock = threading.Lock()

    def send(self, message: OutgoingMessage, *, deadline: float | None = None) -> SendResult:
        sms_id = f"console-{uuid.uuid4().hex}"
        fields = {**send_parameters(message), **_KEYS_MASKED}
        text = _("Viber message") + "\n"
        for name, value in fields.items():
            indented = value.replace("\r\n", "\n    ")
            text += f"  {name}: {indented}\n"
        stream = self._stream or sys.stdout
        encoding = getattr(stream, "encoding", None) or "utf-8"
        # A character that the console cannot show becomes its code, because sending must not fail over it.
        shown = text.encode(encoding, "backslashreplace").decode(encoding)
        with self._lock:
            stream.write(shown)
            stream.flush()
        return SendResult(outcome=CallOutcome.ANSWERED, code="100", sms_id=sms_id, text=_NOT_SENT)

    @classmethod
    def usual_query_length(cls, message: OutgoingMessage) -> int:
        """Measure as eSMS's gateway does, so that a message too long for eSMS is refused here too."""
        return EsmsGateway.usual_query_length(message)

    def fetch_status(self, sms_id: str) -> StatusResult:
        """Return status 7, handed over without a report yet, because the console delivers nothing."""
        return StatusResult(outcome=CallOutcome.ANSWERED, code="100", values={"SMSID": sms_id, "SendStatus": "7"})

    def fetch_balance(self) -> BalanceResult:
        return BalanceResult(outcome=CallOutcome.ANSWERED, code="100", balance=Decimal(0), text=_FREE)
