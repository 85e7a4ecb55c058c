"""What a setting names by a dotted path: found, and judged by whether the app can call it."""

from __future__ import annotations

import functools
import inspect
from typing import Any

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _


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
    return _('ESMS_VIBER["%(name)s"] cannot be used: %(problem)s.') % {"name": name, "problem": problem}


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
