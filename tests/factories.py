"""Rows that many tests need, and short ways to look at them."""

from __future__ import annotations

from collections import Counter
from io import StringIO
from typing import Any

from django.core.management import call_command

from esms_viber.models import OutboundViberMessage, Status
from esms_viber.services import queue_viber_messages

PHONE = "0901888484"
TEXT = "Xin chào"


def unsaved(**fields: Any) -> OutboundViberMessage:
    return OutboundViberMessage(**{"phone": PHONE, "content": TEXT, **fields})


def row(status: Status = Status.DRAFT, **columns: Any) -> OutboundViberMessage:
    """A stored message in any state, as loaded from the database."""
    message = unsaved(**{name: columns.pop(name) for name in ("related_object",) if name in columns})
    message.keep_draft = True
    message.save()
    OutboundViberMessage.objects.filter(pk=message.pk).update(status=status, **columns)
    return stored(message)


def queue(count: int) -> list[OutboundViberMessage]:
    """Queue messages to as many phones."""
    return queue_viber_messages([unsaved(phone=f"09{number:08d}") for number in range(count)])


def stored(message: OutboundViberMessage) -> OutboundViberMessage:
    """The message as it is in the database now."""
    return OutboundViberMessage.objects.get(pk=message.pk)


def columns_of(message: OutboundViberMessage) -> dict[str, Any]:
    return OutboundViberMessage.objects.filter(pk=message.pk).values().get()


def states() -> Counter[str]:
    """How many messages are in which state."""
    return Counter(OutboundViberMessage.objects.values_list("status", flat=True))


def show_status(form: str = "text") -> tuple[int, str]:
    """Exit code and output of `send_viber_messages --status`."""
    out = StringIO()
    try:
        call_command("send_viber_messages", status=form, stdout=out, no_color=True)
    except SystemExit as end:
        return int(end.code or 0), out.getvalue()
    return 0, out.getvalue()
