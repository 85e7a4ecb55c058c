"""The `ESMS_VIBER` setting: one table of defaults, read when used, and what its dotted paths name."""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import re
import zoneinfo
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from .phones import InvalidPhone, normalize_phone

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise as StrOrPromise


@dataclass(frozen=True, slots=True)
class ViberSettings:
    """Every key of `ESMS_VIBER` with its default. The account's keys stay out of `repr()`."""

    API_KEY: str = field(default="", repr=False)
    SECRET_KEY: str = field(default="", repr=False)
    BRANDNAME: str = ""
    SANDBOX: bool = False
    ONLY_TO: Sequence[str] | None = None
    """Phones in any spelling; messages to all others go to the sandbox."""
    CALLBACK_ORIGIN: str | None = None
    """Scheme, host and path under which eSMS reaches this site; None: no callback is asked for."""
    GATEWAY: str = "esms_viber.gateways.esms.EsmsGateway"
    DISPATCHER: str | Callable[[list[int]], object] = "esms_viber.dispatch.inline"
    BASE_URL: str = "https://rest.esms.vn/MainService.svc/json/"
    TIMEOUT: tuple[float, float] = (5, 30)
    """Seconds to connect; seconds from the request leaving to the last byte of its answer."""
    CONCURRENCY: int = 16
    INLINE_LIMIT: int = 50
    MAX_ATTEMPTS: int = 5
    MAX_PER_SECOND: float | None = None
    EXPIRES_AFTER: dt.timedelta | None = None
    """When a message without a time of its own expires, from the later of the time it was queued and `send_at`."""
    PROMOTIONAL_HOURS: tuple[str, str] | None = None
    """From the first until before the second time of day, in Vietnam, promotional messages go out."""
    REDACT_AFTER_DAYS: int | None = None
    DELETE_AFTER_DAYS: int | None = None
    """What `prune_viber_messages` does with messages of this age when it is told nothing else."""
    MAX_CONTENT_LENGTH: int = 1000
    """Code points; a line break counts one."""
    MAX_LABEL_LENGTH: int = 30
    MAX_QUERY_LENGTH: int = 2048
    SEND_ON_SAVE: bool = False

    @property
    def promotional_hours(self) -> tuple[dt.time, dt.time] | None:
        return _hours(*self.PROMOTIONAL_HOURS) if self.PROMOTIONAL_HOURS else None

    def leaves_out(self, phone: str) -> bool:
        """Does `ONLY_TO` keep messages from this phone, which is in E.164?"""
        return self.ONLY_TO is not None and phone not in _phones(tuple(self.ONLY_TO))


VIETNAM = zoneinfo.ZoneInfo("Asia/Ho_Chi_Minh")


@functools.cache
def _hours(begin: str, end: str) -> tuple[dt.time, dt.time]:
    return _time_of_day(begin), _time_of_day(end)


def _time_of_day(text: str) -> dt.time:
    """Read a time as it is written, e.g. "08:00". "24:00" is the end of the day."""
    return dt.time.max if text == "24:00" else dt.time.fromisoformat(text)


@functools.lru_cache(maxsize=8)
def _phones(spelled: tuple[str, ...]) -> frozenset[str]:
    return frozenset(map(normalize_phone, spelled))


NAMES = tuple(f.name for f in fields(ViberSettings))


_DAY = 24 * 60 * 60
BASE_URL = re.compile(r"https?://[^\s?#@/]+(/[^\s?#]*)?")


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_flag(value: object) -> bool:
    return isinstance(value, bool)


def _is_positive_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < float("inf")


def _is_positive_integer(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_pair_of_seconds(value: object) -> bool:
    # A socket takes some 24 days at most, and fails every call with more.
    return (
        isinstance(value, tuple | list) and len(value) == 2 and all(_is_positive_number(v) and v <= _DAY for v in value)
    )


def _are_phones(value: object) -> bool:
    try:
        return isinstance(value, tuple | list) and _phones(tuple(value)) is not None
    except (InvalidPhone, TypeError):
        return False


def _are_hours(value: object) -> bool:
    if not (isinstance(value, tuple | list) and len(value) == 2 and all(_TIME_OF_DAY.fullmatch(str(v)) for v in value)):
        return False
    begin, end = _hours(*value)
    return begin < end


_TIME_OF_DAY = re.compile(r"([01][0-9]|2[0-3]):[0-5][0-9]|24:00")

# The column of a message's brand name holds 100 characters, and PostgreSQL takes no NUL and no lone surrogate.
_BRANDNAME = re.compile(r"[^\x00-\x1f\x7f\ud800-\udfff]{0,100}")


_MOST_CALLS = 1000

_TEXT = (_is_text, _("It must be a string."))
_FLAG = (_is_flag, _("It must be True or False."))
_POSITIVE_INTEGER = (_is_positive_integer, _("It must be a positive integer."))

_LONGEST = dt.timedelta(days=3652)

_DAYS = (
    lambda v: v is None or (_is_positive_integer(v) and v <= _LONGEST.days),
    _("It must be a positive number of days, ten years at most, or None."),
)

_RULES: dict[str, tuple[Callable[[Any], bool], StrOrPromise]] = {
    "API_KEY": _TEXT,
    "SECRET_KEY": _TEXT,
    "BRANDNAME": (
        lambda v: _is_text(v) and _BRANDNAME.fullmatch(v) is not None,
        _("It must be a string of at most 100 characters, on one line."),
    ),
    "SANDBOX": _FLAG,
    "CALLBACK_ORIGIN": (
        lambda v: v is None or _is_text(v),
        _('It must be a string such as "https://shop.example.vn", or None.'),
    ),
    "GATEWAY": (_is_text, _("It must be the dotted path of a gateway class.")),
    "DISPATCHER": (lambda v: _is_text(v) or callable(v), _("It must be a dotted path or a callable.")),
    "BASE_URL": (
        lambda v: _is_text(v) and BASE_URL.fullmatch(v) is not None,
        _("It must be an http(s) URL without user, query and fragment."),
    ),
    "TIMEOUT": (_is_pair_of_seconds, _("It must be two positive numbers of seconds, (connect, read), a day at most.")),
    # Each call has a thread, and its place in the pool of connections takes memory from the start.
    "CONCURRENCY": (
        lambda v: _is_positive_integer(v) and v <= _MOST_CALLS,
        _("It must be an integer from 1 to 1000."),
    ),
    "INLINE_LIMIT": _POSITIVE_INTEGER,
    "MAX_ATTEMPTS": _POSITIVE_INTEGER,
    "MAX_PER_SECOND": (
        lambda v: v is None or _is_positive_number(v),
        _("It must be a positive number, or None."),
    ),
    "ONLY_TO": (
        lambda v: v is None or _are_phones(v),
        _('It must be a list of Vietnamese mobile numbers, e.g. ["0901 888 484"], or None.'),
    ),
    "EXPIRES_AFTER": (
        lambda v: v is None or (isinstance(v, dt.timedelta) and dt.timedelta() < v <= _LONGEST),
        _("It must be a positive timedelta of at most ten years, or None."),
    ),
    "PROMOTIONAL_HOURS": (
        lambda v: v is None or _are_hours(v),
        _('It must be two times of day in Vietnam, the earlier first, e.g. ("08:00", "21:00"), or None.'),
    ),
    "REDACT_AFTER_DAYS": _DAYS,
    "DELETE_AFTER_DAYS": _DAYS,
    "MAX_CONTENT_LENGTH": _POSITIVE_INTEGER,
    "MAX_LABEL_LENGTH": _POSITIVE_INTEGER,
    "MAX_QUERY_LENGTH": _POSITIVE_INTEGER,
    "SEND_ON_SAVE": _FLAG,
}


def not_a_dict() -> str:
    return gettext("The setting ESMS_VIBER must be a dict.")


def wrong_type(name: str) -> str:
    return gettext('ESMS_VIBER["%(name)s"] has the wrong type.') % {"name": name}


P = ParamSpec("P")
R = TypeVar("R")


def bare(error: BaseException) -> BaseException:
    """Strip the exception of the frames that it came through, and of what it chains to."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


class _Escaped:
    __slots__ = ("error",)

    def __init__(self, error: BaseException) -> None:
        self.error = bare(error)


def sealed(function: Callable[P, R]) -> Callable[P, R]:
    """Keep the frames of the function, and their locals, out of tracebacks; also of a time limit or Ctrl-C.

    Arguments stay visible, because the caller's frame holds them too: pass no key.
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


@dataclass(frozen=True, slots=True)
class _Reading:
    """The setting as it was read, for as long as it is the same object with the same values."""

    raw: Any = field(repr=False)
    values: dict[str, Any] = field(repr=False)
    conf: ViberSettings
    """The defaults stand in for what cannot be read."""
    problems: dict[str, StrOrPromise]
    """Known keys whose value is of a wrong type, with what it must be. Values are not repeated."""


_reading: _Reading | None = None


def _read() -> _Reading:
    # Django keeps a setting that was read in `__dict__` until it is overridden. With getattr() it would stand among the
    # local variables of Django's own frames, which error trackers show.
    if _reading is None or vars(settings).get("ESMS_VIBER") is not _reading.raw or _reading.raw != _reading.values:
        return _read_anew()
    return _reading


@sealed
def _read_anew() -> _Reading:
    global _reading
    raw = getattr(settings, "ESMS_VIBER", {})
    values = dict(raw) if isinstance(raw, Mapping) else {}
    problems = {name: rule for name, (fits, rule) in _RULES.items() if name in values and not fits(values[name])}
    conf = ViberSettings(**{name: values[name] for name in NAMES if name in values and name not in problems})
    _reading = _Reading(raw, values, conf, problems)
    return _reading


def get_settings() -> ViberSettings:
    """The settings as they are now. Unknown keys are left to the system checks.

    Raises `ImproperlyConfigured`, naming the setting, for a value of a wrong type.
    """
    reading = _read()
    if not isinstance(reading.raw, Mapping):
        raise ImproperlyConfigured(not_a_dict())
    for name, rule in reading.problems.items():
        raise ImproperlyConfigured(f"{wrong_type(name)} {rule}")
    return reading.conf


def readable_settings() -> ViberSettings:
    """The settings, with the default for what cannot be read: for code that must not fail over a setting."""
    return _read().conf


def find_problems() -> dict[str, StrOrPromise]:
    """Known keys whose value is of a wrong type, with what it must be. The default stands in for each."""
    return _read().problems


def is_dict() -> bool:
    return isinstance(_read().raw, Mapping)


def names_given() -> list[object]:
    """The keys that the site has written."""
    return list(_read().values)


def load(name: str, path: str) -> Any:
    """Import what `ESMS_VIBER[name]` names. Raises `ImproperlyConfigured`, naming the setting."""
    try:
        return import_string(path)
    except (ImportError, TypeError, ValueError) as error:
        raise ImproperlyConfigured(cannot_be_used(name, str(error).rstrip("."))) from error
    except Exception as error:
        # The module itself failed. Its words are left out, because nobody knows what they hold.
        raise ImproperlyConfigured(cannot_be_used(name, type(error).__name__)) from error


def cannot_be_used(name: str, problem: str) -> str:
    return gettext('ESMS_VIBER["%(name)s"] cannot be used: %(problem)s.') % {"name": name, "problem": problem}


def accepts(function: Any, *args: Any, **kwargs: Any) -> bool:
    """Can it be called with these arguments, as far as its signature tells?"""
    # A decorator may add arguments, or take some away, and name the function it wraps all the same.
    for follow_wrapped in (True, False):
        try:
            inspect.signature(function, follow_wrapped=follow_wrapped).bind(*args, **kwargs)
        except TypeError:
            continue
        except ValueError:  # some built-in functions have no signature
            return True
        else:
            return True
    return False


def runs_when_called(function: Any) -> bool:
    """False for async functions and generators, of which a call does nothing but make an object."""
    while isinstance(function, functools.partial):
        function = function.func
    bodies = [function]
    if not (inspect.isroutine(function) or inspect.isclass(function)):
        bodies.append(type(function).__call__)
    return not any(
        iscoroutinefunction(body) or inspect.isasyncgenfunction(body) or inspect.isgeneratorfunction(body)
        for body in bodies
    )


def get_dispatcher() -> Callable[[list[int]], object]:
    """Raises `ImproperlyConfigured`, naming the setting, for a dispatcher that cannot be had or called."""
    return load_dispatcher(get_settings())


def load_dispatcher(conf: ViberSettings) -> Callable[[list[int]], object]:
    wanted = conf.DISPATCHER
    dispatcher: Any = load("DISPATCHER", wanted) if isinstance(wanted, str) else wanted
    if problem := _why_no_dispatcher(dispatcher):
        raise ImproperlyConfigured(problem)
    return dispatcher  # type: ignore[no-any-return] # judged above


def _why_no_dispatcher(found: Any) -> str:
    if not callable(found):
        return gettext('ESMS_VIBER["DISPATCHER"] cannot be used: it is not callable.')
    if isinstance(found, type) and any("__call__" in vars(base) for base in found.__mro__):
        return gettext('ESMS_VIBER["DISPATCHER"] cannot be used: it is a class. Name an instance of it, or a function.')
    if not runs_when_called(found):
        return gettext(
            'ESMS_VIBER["DISPATCHER"] cannot be used: it is async or a generator, of which a call does nothing. Name '
            "an ordinary function."
        )
    if not accepts(found, []):
        return gettext('ESMS_VIBER["DISPATCHER"] cannot be used: it must take one argument, the list of primary keys.')
    return ""
