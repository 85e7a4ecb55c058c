"""The errors of the public interface, and logging of errors without the keys, texts and phones they may hold."""

from __future__ import annotations

import errno
import logging
import traceback
from collections.abc import Iterator

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseTrouble
from django.db import OperationalError
from django.utils.translation import gettext as _


class EsmsViberError(Exception):
    """The base of this app's own errors."""


class GatewayRefused(EsmsViberError):
    """The message was not taken, or did not arrive: change it, the account or the recipient."""

    def __init__(self, code: str, remedy: str) -> None:
        # An undelivered message has the code of a success, because eSMS took it, and that explains nothing.
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

    This happens under REPEATABLE READ and SERIALIZABLE, if the open transaction had read before the other committed.
    It is an `OperationalError`, because sites that choose these levels repeat their transactions at one.
    """


class CancelSend(Exception):
    """Raised by a `pre_send` receiver to keep a message from being sent. Its argument is the reason shown to people."""


logger = logging.getLogger("esms_viber")

_FRAMES_SHOWN = 20
_LARGEST_MYSQL_CODE = 9999


def log_failure(error: BaseException, sentence: str, *args: object) -> None:
    """Log an error with the types, codes and places of the exception and of its causes.

    Their texts are left out, because a database's quotes whole rows, and a site's own may name a customer.
    """
    logger.error(f"{sentence}: %s", *args, outline(error), stacklevel=2)


def outline(error: BaseException) -> str:
    """List the exception and its causes by type, code and place, with the text only where a setting is wrong."""
    lines = []
    for one in _chain(error):
        kind = type(one)
        name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
        explained = str(one) if isinstance(one, ImproperlyConfigured) else _code(one)
        lines.append(f"{name} ({explained})" if explained else name)
        for frame, line in list(traceback.walk_tb(one.__traceback__))[-_FRAMES_SHOWN:]:
            lines.append(f"  {frame.f_globals.get('__name__')}:{line} {frame.f_code.co_qualname}")
    return "\n".join(lines)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _code(error: BaseException) -> str:
    """Return the code that the system or the database gives the error."""
    if isinstance(error, OSError):
        return errno.errorcode.get(error.errno or 0, "")
    if not isinstance(error, DatabaseTrouble):
        return ""
    for name in ("sqlstate", "pgcode", "sqlite_errorname"):
        if code := getattr(error.__cause__, name, None):
            return str(code)
    # MySQL's drivers give the number as the first argument.
    number = error.args[0] if error.args else None
    return str(number) if isinstance(number, int) and number <= _LARGEST_MYSQL_CODE else ""
