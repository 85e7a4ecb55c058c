"""The gateway that the settings name, built once for each process and value of the setting."""

from __future__ import annotations

import inspect
import os
import sys
import threading

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import ViberSettings, accepts, get_settings, load, runs_when_called
from .base import BaseGateway


def running_test() -> object | None:
    """Something that is another object in each of Django's test cases; None outside of a test run."""
    # `setup_test_environment()` makes `mail.outbox`, and each test case replaces it. A staging site whose e-mails go to
    # the locmem backend has an outbox too, so `django.test` must have been imported as well.
    if "django.test" not in sys.modules:
        return None
    return getattr(sys.modules.get("django.core.mail"), "outbox", None)


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
            found = load_gateway_class(conf)
            if found.stand_in and not may_leave:
                found = import_string(found.stand_in)
            holder.gateway, holder.conf, holder.may_leave = build_gateway(found, conf), conf, may_leave
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


def load_gateway_class(conf: ViberSettings) -> type[BaseGateway]:
    """Raises `ImproperlyConfigured` where `GATEWAY` leads to no class of which a gateway can be made."""
    found = load("GATEWAY", conf.GATEWAY)
    if not (isinstance(found, type) and issubclass(found, BaseGateway)):
        sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: it is not a subclass of %(name)s.')
        raise ImproperlyConfigured(sentence % {"name": f"{BaseGateway.__module__}.{BaseGateway.__qualname__}"})
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: it does not define %(names)s.')
        raise ImproperlyConfigured(sentence % {"names": ", ".join(f"{name}()" for name in missing)})
    return found


def build_gateway(kind: type[BaseGateway], conf: ViberSettings) -> BaseGateway:
    """Raises `ImproperlyConfigured`, naming the setting, for a gateway that cannot be built or called."""
    try:
        gateway = kind.from_settings(conf)
    except ImproperlyConfigured:
        raise
    except Exception as error:  # noqa: BLE001 - what a foreign gateway raises is not known
        problem = type(error).__name__
    else:
        if sentence := _why_unusable(gateway):
            raise ImproperlyConfigured(sentence)
        return gateway
    # Without its words, its frames and what it chains to: they may hold a key.
    sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: its from_settings() failed with %(problem)s.')
    raise ImproperlyConfigured(sentence % {"problem": problem})


def _why_unusable(gateway: object) -> str:
    if not isinstance(gateway, BaseGateway):
        return _('ESMS_VIBER["GATEWAY"] cannot be used: its from_settings() returns no gateway.')
    for name, wanted in vars(BaseGateway).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        try:
            method = getattr(gateway, name, None)
        except Exception:  # noqa: BLE001 - a property of a site's own
            method = None
        parameters = list(inspect.signature(wanted).parameters.values())[1:]
        by_name = {parameter.name: None for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY}
        by_place = [None] * (len(parameters) - len(by_name))
        if not (callable(method) and runs_when_called(method) and accepts(method, *by_place, **by_name)):
            sentence = _(
                'ESMS_VIBER["GATEWAY"] cannot be used: %(call)s must be an ordinary method with that signature.'
            )
            return sentence % {"call": f"{name}{inspect.signature(getattr(BaseGateway, name))}"}
    return ""


def _start_anew() -> None:
    """After a fork: the parent's sockets must not be used, its lock may be held by a thread that is gone."""
    global _holder
    inherited, _holder = _holder, _Holder()
    # Kept, so that collecting it does not close the parent's pool under another lost lock.
    _holder.inherited = inherited


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
