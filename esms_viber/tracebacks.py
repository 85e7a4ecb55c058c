"""What of an exception others may see: a traceback that holds no key, and a log line that quotes nobody."""

from __future__ import annotations

import errno
import functools
import logging
import traceback
from collections.abc import Callable, Iterator
from typing import Any, ParamSpec, TypeVar

from django.core.exceptions import ImproperlyConfigured
from django.db import Error as DatabaseTrouble

logger = logging.getLogger("esms_viber")

P = ParamSpec("P")
R = TypeVar("R")

_FRAMES_SHOWN = 20
_LARGEST_MYSQL_CODE = 9999


class _Escaped:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = bare(error)


def bare(error: BaseException) -> BaseException:
    """The exception without the frames it came through and without what it chains to."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


def sealed(function: Callable[P, R]) -> Callable[P, R]:
    """Whatever passes out of the function (a time limit, Ctrl-C) leaves its frames and their locals behind.

    Its arguments stay visible, because the caller's frame holds them too: pass no key.
    """

    def attempt(args: tuple[Any, ...], kwargs: dict[str, Any]) -> R | _Escaped:
        try:
            return function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 (not swallowed: raised again by the wrapper)
            return _Escaped(error)

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        outcome = attempt(args, kwargs)
        if isinstance(outcome, _Escaped):
            raise outcome.error
        return outcome

    return wrapper


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
