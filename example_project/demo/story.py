"""Follows one message, as the app itself tells of it, and writes a line for each thing that happens."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from django.db import transaction
from django.utils.timezone import localtime
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.signals import status_changed

from shop.models import Order

ENDS = ("delivered", "undelivered", "failed", "cancelled")


class Story:
    """From the order that is paid to the message that is delivered."""

    def __init__(self, write: Callable[[str], object]) -> None:
        self._write = write
        self._ended = threading.Event()
        self.message: OutboundViberMessage | None = None

    def tell(self, order: Order, seconds: float) -> str:
        """Mark the order as paid, and return the status its message has in the end, or when the time is over."""
        status_changed.connect(self._on_status_changed, sender=OutboundViberMessage)
        try:
            self._pay(order)
            self._ended.wait(seconds)
        finally:
            status_changed.disconnect(self._on_status_changed, sender=OutboundViberMessage)
        if self.message is None:
            return "no message"
        self.message.refresh_from_db()
        return self.message.status

    def _pay(self, order: Order) -> None:
        order.status = Order.Status.PAID
        with transaction.atomic():
            order.save()
            self.message = OutboundViberMessage.objects.for_object(order).first()
            if self.message is not None:
                self._write_line(self.message.status, f"stored for {self.message.phone}, leaves after the commit")

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
        self._write_line(f"{old_status} → {new_status}", _describe(row, event))
        if new_status in ENDS:
            self._ended.set()

    def _write_line(self, what: str, detail: str) -> None:
        self._write(f"  {localtime():%H:%M:%S.%f}"[:-3] + f"  {what:<18}  {detail}")


def _describe(row: OutboundViberMessage, event: ViberMessageEvent | None) -> str:
    """What the row and the event have on this change."""
    match row.status:
        case "sending":
            return f"RequestId {row.request_id}"
        case "sent":
            took = f" after {event.duration_ms} ms" if event and event.duration_ms is not None else ""
            return f"eSMS answered {row.code_result}{took}, SMSID {row.sms_id}"
        case "delivered" | "undelivered":
            return f"{event.kind if event else 'report'}: SendStatus {row.send_status}, {row.total_price or 0:.0f} đ"
        case _:
            return f"{row.code_result} {row.error_message}".strip()
