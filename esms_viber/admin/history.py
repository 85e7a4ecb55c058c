"""The history of a message, as lines of a table."""

from __future__ import annotations

from dataclasses import dataclass

from ..models import OutboundViberMessage, ViberMessageEvent
from ..transactions import write_alias
from . import display

MOST_SHOWN = 200


@dataclass(frozen=True, slots=True)
class Line:
    event: ViberMessageEvent
    code: str
    """With its meaning."""
    details: list[tuple[str, str]]
    """What eSMS sent, or what is known of the call."""


def history(message: OutboundViberMessage) -> list[Line]:
    """The latest events, oldest first."""
    events = ViberMessageEvent.objects.using(write_alias()).filter(message=message.pk).select_related("user")
    return [_line(event) for event in reversed(events.order_by("-pk")[:MOST_SHOWN])]


def _line(event: ViberMessageEvent) -> Line:
    data = event.data if isinstance(event.data, dict) else {}
    details = [(str(name), str(value)) for name, value in data.items() if value not in (None, "")]
    return Line(event, display.meaning(event.code), details)
