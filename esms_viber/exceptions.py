"""Errors, sorted by what the caller can do about them."""

from __future__ import annotations

from django.db import OperationalError
from django.utils.translation import gettext as _


class EsmsViberError(Exception):
    """Base of everything this app raises on its own account."""


class GatewayRefused(EsmsViberError):
    """The message was not taken, or did not arrive: change it, the account or the recipient."""

    def __init__(self, code: str, remedy: str) -> None:
        # What was taken and not delivered has the code of a success, which explains nothing.
        has_meaning = code not in {"", "100"}
        told = _("Code %(code)s: %(remedy)s") % {"code": code, "remedy": remedy} if has_meaning else remedy
        super().__init__(told)
        self.code = code
        self.remedy = remedy


class GatewayUnreachable(EsmsViberError):
    """No connection was made, so nothing was sent; the message is queued and safe to send later."""


class OutcomeUnknown(EsmsViberError):
    """A request left and no trustworthy answer came: the message may have been sent."""


class MessageNotEditable(EsmsViberError):
    """The text, phone or terms of a message were changed after it was handed over for sending."""


class DedupeKeyTaken(EsmsViberError, OperationalError):
    """Another transaction has stored a message with this dedupe key, and the open one cannot see it: repeat it whole.

    So it is under REPEATABLE READ and SERIALIZABLE where the open transaction has read before the other committed.
    It is an `OperationalError`, because sites that choose these levels repeat their transactions at one.
    """


class CancelSend(Exception):
    """Raised by a `pre_send` receiver: do not send this message. Its argument is the reason shown to people."""
