"""Signals. Both are sent with the model class as `sender`."""

from __future__ import annotations

from django.dispatch import Signal

from .exceptions import CancelSend

__all__ = ["CancelSend", "pre_send", "status_changed"]

pre_send = Signal()
"""`message`: about to be sent for the first time, no transaction open. Raise `CancelSend("why")` to cancel it; any
other exception puts it back into the queue for a while, so that a guard which fails does not let messages through."""

status_changed = Signal()
"""`message`, `old_status`, `new_status`, `event` (or None): sent after the commit; a receiver's error is logged."""
