"""Signals. Both are sent with the model class as `sender`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.dispatch import Signal

from .exceptions import CancelSend, log_failure

__all__ = ["CancelSend", "pre_send", "status_changed"]


class _StatusChanged(Signal):
    def _log_robust_failure(self, receiver: Callable[..., Any], err: Exception) -> None:
        # Django's own line quotes the exception, and a receiver's may name the customer.
        log_failure(err, "a status_changed receiver failed")


pre_send = Signal()
"""`message`: about to be sent for the first time, no transaction open. Raise `CancelSend("why")` to cancel it; any
other exception puts it back into the queue for a while, so that a guard which fails does not let messages through."""

status_changed = _StatusChanged()
"""`message`, `old_status`, `new_status`, `event` (or None): sent after the commit; a receiver's error is logged."""
