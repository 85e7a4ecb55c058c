"""What would keep messages from being sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from ..conf import NAMES, ViberSettings
from ..dispatch import django_tasks, not_callable
from ..gateways import not_a_gateway
from ..gateways.base import BaseGateway
from .addresses import is_loopback, split

ACCOUNT_KEYS = ("API_KEY", "SECRET_KEY", "BRANDNAME")
DEFAULTS = {name: getattr(ViberSettings(), name) for name in NAMES}
_DATABASE_BACKEND = 'TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}'
_CONSOLE = '"GATEWAY": "esms_viber.gateways.console.ConsoleGateway"'


def account_hint() -> str:
    brand = _("the Viber brand name registered with eSMS")
    keys = f'"API_KEY": env("ESMS_API_KEY"), "SECRET_KEY": env("ESMS_SECRET_KEY"), "BRANDNAME": "{brand}"'
    sentence = _("%(lines)s. To try without an account: %(console)s.")
    return sentence % {"lines": f"ESMS_VIBER = {{{keys}}}", "console": _CONSOLE}


def check_gateway(conf: ViberSettings) -> Iterator[CheckMessage]:
    gateway, problem = _import(conf.GATEWAY)
    if problem:
        yield _wrong("GATEWAY", _unusable("GATEWAY", problem), "esms_viber.E004")
    elif not _is_subclass(gateway, BaseGateway):
        yield _wrong("GATEWAY", not_a_gateway(), "esms_viber.E004")


def _import(path: str) -> tuple[object, str]:
    """What a dotted path leads to, or why it leads nowhere."""
    try:
        return import_string(path), ""
    except (ImportError, TypeError, ValueError) as error:
        return None, str(error)


def _unusable(name: str, problem: str) -> str:
    return _('ESMS_VIBER["%(name)s"] cannot be used: %(problem)s.') % {"name": name, "problem": problem}


def _wrong(name: str, sentence: str, check_id: str) -> CheckMessage:
    return Error(sentence, hint=f'"{name}": "{DEFAULTS[name]}"', id=check_id)


def _is_subclass(found: object, kind: object) -> bool:
    return isinstance(found, type) and isinstance(kind, type) and issubclass(found, kind)


def check_dispatcher(conf: ViberSettings) -> Iterator[CheckMessage]:
    wanted = conf.DISPATCHER
    dispatcher, problem = _import(wanted) if isinstance(wanted, str) else (wanted, "")
    if problem:
        yield _wrong("DISPATCHER", _unusable("DISPATCHER", problem), "esms_viber.E005")
    elif not callable(dispatcher):
        yield _wrong("DISPATCHER", not_callable(), "esms_viber.E005")
    elif dispatcher is django_tasks and (problem := _find_task()[1]):
        yield Error(
            _('ESMS_VIBER["DISPATCHER"] is django_tasks, but tasks cannot be used: %(problem)s.')
            % {"problem": problem},
            hint=_('On Django 5.2: %(line)s. On any: TASKS needs a backend "default" with a queue "default".')
            % {"line": 'pip install "django-esms-viber[tasks]"'},
            id="esms_viber.E009",
        )


def _find_task() -> tuple[Any, str]:
    """The task of that dispatcher, or why it cannot be had."""
    try:
        return import_string("esms_viber.background.deliver"), ""
    except Exception as error:  # noqa: BLE001 - it is made when imported, by whatever backend TASKS names
        return None, str(error)


def check_task_backend(conf: ViberSettings) -> Iterator[CheckMessage]:
    wanted = conf.DISPATCHER
    dispatcher = _import(wanted)[0] if isinstance(wanted, str) else wanted
    task = _find_task()[0] if dispatcher is django_tasks else None
    backend = type(task.get_backend()).__name__ if task is not None else ""
    if sentence := _why_not_for_production().get(backend):
        hint = _("%(line)s, and run its worker.")
        yield CheckWarning(sentence, hint=hint % {"line": _DATABASE_BACKEND}, id="esms_viber.W009")


def _why_not_for_production() -> dict[str, str]:
    return {
        "ImmediateBackend": _(
            'ESMS_VIBER["DISPATCHER"] is django_tasks, and the backend of TASKS is ImmediateBackend, which sends in '
            "the web request, without INLINE_LIMIT."
        ),
        "DummyBackend": _(
            'ESMS_VIBER["DISPATCHER"] is django_tasks, and the backend of TASKS is DummyBackend, which sends nothing.'
        ),
    }


def check_account(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = _("Nothing can be sent yet. Missing in ESMS_VIBER: %(names)s.") % {"names": missing}
        yield CheckWarning(message, hint=account_hint(), id="esms_viber.W001")


def check_account_in_production(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = _("This deployment cannot send. Missing in ESMS_VIBER: %(names)s.") % {"names": missing}
        yield Error(message, hint=account_hint(), id="esms_viber.E006")


def _missing_account_keys(conf: ViberSettings) -> str:
    gateway, esms_gateway = _import(conf.GATEWAY)[0], _import(DEFAULTS["GATEWAY"])[0]
    if not _is_subclass(gateway, esms_gateway):
        return ""
    return ", ".join(name for name in ACCOUNT_KEYS if not getattr(conf, name).strip())


def check_base_url(conf: ViberSettings) -> Iterator[CheckMessage]:
    parts = split(conf.BASE_URL)
    if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield CheckWarning(
            _('ESMS_VIBER["BASE_URL"] is not https: the API key and the secret key travel unencrypted.'),
            hint=f'"BASE_URL": "{DEFAULTS["BASE_URL"]}"',
            id="esms_viber.W002",
        )


def check_sandbox(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.SANDBOX:
        yield CheckWarning(
            _('ESMS_VIBER["SANDBOX"] is on: eSMS delivers nothing.'),
            hint=_('%(line)s; or, on a staging site, add "%(id)s" to SILENCED_SYSTEM_CHECKS.')
            % {"line": '"SANDBOX": False', "id": "esms_viber.W006"},
            id="esms_viber.W006",
        )
