"""The app in Django's admin. Importing it registers messages, with their history, opt-outs and templates."""

from __future__ import annotations

from .inlines import ViberMessageInline
from .message_admin import OutboundViberMessageAdmin
from .opt_out_admin import ViberOptOutAdmin
from .template_admin import ViberTemplateAdmin

__all__ = ["OutboundViberMessageAdmin", "ViberMessageInline", "ViberOptOutAdmin", "ViberTemplateAdmin"]
