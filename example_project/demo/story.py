"""Follows one message, as the app itself tells of it, and writes a line for each thing that happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.utils.timezone import localtime
from django.utils.translation import gettext
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.signals import status_changed

from shop.models import Order

from . import terminal

Status = OutboundViberMessage.Status

ENDS = (Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELLED)


class Story:
    """From the order that is paid to the message that is delivered."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._ended = threading.Event()
        self.message: OutboundViberMessage | None = None

    def tell(self, order: Order, seconds: float) -> Status | None:
        """Mark the order as paid, and return the status its message has in the end, or when the time is over.

        None: there is no message.
        """
        status_changed.connect(self._on_status_changed, sender=OutboundViberMessage)
        try:
            self._pay(order)
            self._ended.wait(seconds)
        finally:
            status_changed.disconnect(self._on_status_changed, sender=OutboundViberMessage)
        if self.message is None:
            return None
        self.message.refresh_from_db()
        return Status(self.message.status)

    def _pay(self, order: Order) -> None:
        order.status = Order.Status.PAID
        with transaction.atomic():
            order.save()
            self.message = OutboundViberMessage.objects.for_object(order).first()
            if self.message is not None:
                stored = gettext("stored for %(phone)s, leaves after the commit") % {"phone": self.message.phone}
                self._write_line(Status(self.message.status).label, stored)

    def _on_status_changed(
        self,
        message: OutboundViberMessage,
        old_status: str,
        new_status: str,
        event: ViberMessageEvent | None,
        **kwargs: Any,
    ) -> None:
        if self.message is None or message.pk != self.message.pk:
            return
        row = OutboundViberMessage.objects.get(pk=message.pk)
        # A report comes in by a request, which speaks the language of the site.
        with terminal.in_its_language():
            self._write_line(f"{Status(old_status).label} → {Status(new_status).label}", _describe(row, event))
        if new_status in ENDS:
            self._ended.set()

    def _write_line(self, what: str, detail: str) -> None:
        self._write(f"  {localtime():%H:%M:%S.%f}"[:-3] + f"  {what:<24}  {detail}")


def _describe(row: OutboundViberMessage, event: ViberMessageEvent | None) -> str:
    """What the row and the event have on this change."""
    match row.status:
        case Status.SENDING:
            return f"RequestId {row.request_id}"
        case Status.SENT if event and event.duration_ms is not None:
            answer = gettext("eSMS answered %(code)s after %(duration)d ms, SMSID %(sms_id)s")
            return answer % {"code": row.code_result, "duration": event.duration_ms, "sms_id": row.sms_id}
        case Status.SENT:
            return gettext("eSMS answered %(code)s, SMSID %(sms_id)s") % {"code": row.code_result, "sms_id": row.sms_id}
        case Status.DELIVERED | Status.UNDELIVERED:
            report = event.get_kind_display() if event else gettext("report")
            return f"{report}: SendStatus {row.send_status}, {row.total_price or 0:.0f} đ"
        case _:
            return f"{row.code_result} {row.error_message}".strip()
