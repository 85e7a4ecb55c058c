"""The app in Django's admin. Importing it registers the messages; their history is shown with them."""

from __future__ import annotations

from .inlines import ViberMessageInline
from .message_admin import OutboundViberMessageAdmin

__all__ = ["OutboundViberMessageAdmin", "ViberMessageInline"]
