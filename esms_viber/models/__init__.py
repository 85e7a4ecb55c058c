"""The tables. What may be written to `status`, and when, is in `lifecycle`."""

from __future__ import annotations

from .choices import Status
from .event import ViberMessageEvent
from .gateway_state import ViberGatewayState
from .message import OutboundViberMessage

__all__ = ["OutboundViberMessage", "Status", "ViberGatewayState", "ViberMessageEvent"]
