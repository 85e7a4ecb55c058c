"""Gateways: what carries a message out. `get_gateway()` gives the one the settings name."""

from __future__ import annotations

import os
import threading

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import ViberSettings, get_settings
from .base import BaseGateway


class _Holder:
    """The process's gateway and the settings it was built from."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.conf: ViberSettings | None = None
        self.gateway: BaseGateway | None = None
        self.inherited: _Holder | None = None


_holder = _Holder()


def get_gateway() -> BaseGateway:
    """The gateway that `ESMS_VIBER["GATEWAY"]` names, one per process, rebuilt when a setting has changed.

    Raises `ImproperlyConfigured`, naming the setting.
    """
    conf = get_settings()
    holder = _holder
    with holder.lock:
        if holder.gateway is None or holder.conf != conf:
            holder.gateway, holder.conf = _gateway_class(conf.GATEWAY).from_settings(conf), conf
        return holder.gateway


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
