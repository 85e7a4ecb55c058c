"""The errors of the public interface, and how an error is logged without what it may hold: keys, texts, phones."""

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


logger = logging.getLogger("esms_viber")

_FRAMES_SHOWN = 20
_LARGEST_MYSQL_CODE = 9999


def log_failure(error: BaseException, sentence: str, *args: object) -> None:
    """Log an error with the types, codes and places of the exception and of what it came from.

    Their texts are left out, because a database's quotes whole rows, and a site's own may name a customer.
    """
    logger.error(f"{sentence}: %s", *args, outline(error), stacklevel=2)


def outline(error: BaseException) -> str:
    """The exception and what it came from: types, codes and places; the text only where a setting is wrong."""
    return "\n".join(line for one in _chain(error) for line in (_title(one), *_places(one)))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _title(error: BaseException) -> str:
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    explained = str(error) if isinstance(error, ImproperlyConfigured) else _code(error)
    return f"{name} ({explained})" if explained else name


def _code(error: BaseException) -> str:
    """The system's or the database's own code for what went wrong."""
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


def _places(error: BaseException) -> list[str]:
    frames = list(traceback.walk_tb(error.__traceback__))[-_FRAMES_SHOWN:]
    return [f"  {frame.f_globals.get('__name__')}:{line} {frame.f_code.co_qualname}" for frame, line in frames]
