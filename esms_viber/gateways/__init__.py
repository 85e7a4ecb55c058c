"""Gateways: what carries a message out. `get_gateway()` gives the one the settings name."""

from __future__ import annotations

import os
import threading

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import ViberSettings, get_settings
from .base import BaseGateway
from .esms import EsmsGateway
from .memory import MemoryGateway, running_test


class _Holder:
    """The process's gateway and what it was built from."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.conf: ViberSettings | None = None
        self.may_leave = True
        self.gateway: BaseGateway | None = None
        self.inherited: _Holder | None = None


_holder = _Holder()


def get_gateway() -> BaseGateway:
    """The gateway that `ESMS_VIBER["GATEWAY"]` names, one per process, rebuilt when a setting has changed.

    In a test run the memory gateway takes the place of `EsmsGateway` and of its subclasses, unless the test overrides
    `ESMS_VIBER` with a dict that names `GATEWAY`. Raises `ImproperlyConfigured`, naming the setting.
    """
    conf = get_settings()
    may_leave = running_test() is None or _test_names_gateway()
    holder = _holder
    with holder.lock:
        if holder.gateway is None or (holder.conf, holder.may_leave) != (conf, may_leave):
            found = _gateway_class(conf.GATEWAY)
            if issubclass(found, EsmsGateway) and not may_leave:
                found = MemoryGateway
            holder.gateway, holder.conf, holder.may_leave = found.from_settings(conf), conf, may_leave
        return holder.gateway


_site_settings: object = None


def remember_settings() -> None:
    """Note which dict is the site's own, so that a test's override can be told from it."""
    global _site_settings
    # Once in a process, because an override of INSTALLED_APPS loads the apps again, maybe inside of one of ESMS_VIBER.
    if _site_settings is None:
        _site_settings = getattr(settings, "ESMS_VIBER", {})


def _test_names_gateway() -> bool:
    # Twice asked for, because a traceback shows local variables, and this one would hold the keys.
    is_override = getattr(settings, "ESMS_VIBER", {}) is not _site_settings
    return is_override and "GATEWAY" in getattr(settings, "ESMS_VIBER", {})


def _gateway_class(path: str) -> type[BaseGateway]:
    try:
        found = import_string(path)
    except ImportError as error:
        sentence = _('ESMS_VIBER["%(name)s"] cannot be used: %(problem)s.')
        raise ImproperlyConfigured(sentence % {"name": "GATEWAY", "problem": error}) from error
    if not (isinstance(found, type) and issubclass(found, BaseGateway)):
        raise ImproperlyConfigured(not_a_gateway())
    return found


def not_a_gateway() -> str:
    sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: it is not a subclass of %(name)s.')
    return sentence % {"name": f"{BaseGateway.__module__}.{BaseGateway.__qualname__}"}


def _start_anew() -> None:
    """After a fork: the parent's sockets must not be used, its lock may be held by a thread that is gone."""
    global _holder
    inherited, _holder = _holder, _Holder()
    # Kept, so that collecting it does not close the parent's pool under another lost lock.
    _holder.inherited = inherited


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
