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
    """Return an object that differs between any two of Django's test cases; None outside of a test run."""
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
    """Return the process's one gateway, of the class that `ESMS_VIBER["GATEWAY"]` names; rebuild it after a change.

    In a test run the memory gateway takes the place of `EsmsGateway` and of its subclasses, unless the test overrides
    `ESMS_VIBER` with a dict that names `GATEWAY`. Raise `ImproperlyConfigured`, naming the setting that is wrong.
    """
    conf = get_settings()
    # The setting is read twice instead of bound to a name, because a traceback shows local variables.
    may_leave = running_test() is None or (
        getattr(settings, "ESMS_VIBER", {}) is not _site_settings and "GATEWAY" in getattr(settings, "ESMS_VIBER", {})
    )
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
    # Only the first call counts, because an override of INSTALLED_APPS loads the apps again, maybe while ESMS_VIBER is
    # overridden as well.
    if _site_settings is None:
        _site_settings = getattr(settings, "ESMS_VIBER", {})


def load_gateway_class(conf: ViberSettings) -> type[BaseGateway]:
    """Import the class that `GATEWAY` names; raise `ImproperlyConfigured` if no gateway can be made of it."""
    found = load("GATEWAY", conf.GATEWAY)
    if not (isinstance(found, type) and issubclass(found, BaseGateway)):
        sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: it is not a subclass of %(name)s.')
        raise ImproperlyConfigured(sentence % {"name": f"{BaseGateway.__module__}.{BaseGateway.__qualname__}"})
    if missing := sorted(getattr(found, "__abstractmethods__", ())):
        sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: it does not define %(names)s.')
        raise ImproperlyConfigured(sentence % {"names": ", ".join(f"{name}()" for name in missing)})
    return found


def build_gateway(kind: type[BaseGateway], conf: ViberSettings) -> BaseGateway:
    """Build a gateway; raise `ImproperlyConfigured`, naming the setting, if it cannot be built or called."""
    problem = ""
    try:
        gateway = kind.from_settings(conf)
    except ImproperlyConfigured:
        raise
    except Exception as error:  # noqa: BLE001 - a site's own gateway may raise anything
        problem = type(error).__name__
    if problem:
        # Only the error's type is told, because its text, its frames and the errors it chains to may hold a key.
        sentence = _('ESMS_VIBER["GATEWAY"] cannot be used: its from_settings() failed with %(problem)s.')
        raise ImproperlyConfigured(sentence % {"problem": problem})
    if not isinstance(gateway, BaseGateway):
        raise ImproperlyConfigured(_('ESMS_VIBER["GATEWAY"] cannot be used: its from_settings() returns no gateway.'))
    for name, wanted in vars(BaseGateway).items():
        if name.startswith("_") or not inspect.isfunction(wanted):
            continue
        try:
            method = getattr(gateway, name, None)
        except Exception:  # noqa: BLE001 - a site's own property may raise anything
            method = None
        parameters = list(inspect.signature(wanted).parameters.values())[1:]
        # The deadline may be missing, because a worker gives up by itself on a gateway that does not know it.
        by_place = [None for parameter in parameters if parameter.kind is not parameter.KEYWORD_ONLY]
        if not (callable(method) and runs_when_called(method) and accepts(method, *by_place)):
            sentence = _(
                'ESMS_VIBER["GATEWAY"] cannot be used: %(call)s must be an ordinary method with that signature.'
            )
            raise ImproperlyConfigured(sentence % {"call": f"{name}{inspect.signature(wanted)}"})
    return gateway


def _start_anew() -> None:
    """Replace the holder after a fork, because its sockets are the parent's and its lock may never be released."""
    global _holder
    inherited, _holder = _holder, _Holder()
    # The old one is kept, because collecting it would close the parent's pool, whose lock may be held for ever too.
    _holder.inherited = inherited


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
