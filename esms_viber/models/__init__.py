"""The tables. What may be written to `status`, and when, is in `lifecycle`."""

from __future__ import annotations

from .choices import Purpose, Status
from .event import ViberMessageEvent
from .gateway_state import ViberGatewayState
from .message import OutboundViberMessage
from .opt_out import ViberOptOut
from .pause import ViberPause
from .template import ViberTemplate

__all__ = [
    "OutboundViberMessage",
    "Purpose",
    "Status",
    "ViberGatewayState",
    "ViberMessageEvent",
    "ViberOptOut",
    "ViberPause",
    "ViberTemplate",
]
