"""What would keep messages from being sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.utils.module_loading import import_string

from ..conf import NAMES, ViberSettings
from ..dispatch import django_tasks
from ..gateways.base import BaseGateway
from .addresses import is_loopback, split

ACCOUNT_KEYS = ("API_KEY", "SECRET_KEY", "BRANDNAME")
ACCOUNT_HINT = (
    'ESMS_VIBER = {"API_KEY": env("ESMS_API_KEY"), "SECRET_KEY": env("ESMS_SECRET_KEY"), '
    '"BRANDNAME": "the Viber brand name registered with eSMS"}. To try without an account: '
    '"GATEWAY": "esms_viber.gateways.console.ConsoleGateway".'
)
DEFAULTS = {name: getattr(ViberSettings(), name) for name in NAMES}


def check_gateway(conf: ViberSettings) -> Iterator[CheckMessage]:
    gateway, problem = _import(conf.GATEWAY)
    if not problem and not _is_subclass(gateway, BaseGateway):
        problem = "it is not a subclass of esms_viber.gateways.base.BaseGateway"
    if problem:
        yield _unusable("GATEWAY", problem, "esms_viber.E004")


def _import(path: str) -> tuple[object, str]:
    """What a dotted path leads to, or why it leads nowhere."""
    try:
        return import_string(path), ""
    except (ImportError, TypeError, ValueError) as error:
        return None, str(error)


def _unusable(name: str, problem: str, check_id: str) -> CheckMessage:
    return Error(f'ESMS_VIBER["{name}"] cannot be used: {problem}.', hint=f'"{name}": "{DEFAULTS[name]}"', id=check_id)


def _is_subclass(found: object, kind: object) -> bool:
    return isinstance(found, type) and isinstance(kind, type) and issubclass(found, kind)


def check_dispatcher(conf: ViberSettings) -> Iterator[CheckMessage]:
    wanted = conf.DISPATCHER
    dispatcher, problem = _import(wanted) if isinstance(wanted, str) else (wanted, "")
    if not problem and not callable(dispatcher):
        problem = "it is not callable"
    if problem:
        yield _unusable("DISPATCHER", problem, "esms_viber.E005")
    elif dispatcher is django_tasks and (problem := _find_task()[1]):
        yield Error(
            f'ESMS_VIBER["DISPATCHER"] is django_tasks, but tasks cannot be used: {problem}.',
            hint='On Django 5.2: pip install "django-esms-viber[tasks]". On any: TASKS needs a backend "default" with '
            'a queue "default".',
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
    if backend in {"ImmediateBackend", "DummyBackend"}:
        does = "sends in the web request, without INLINE_LIMIT" if backend == "ImmediateBackend" else "sends nothing"
        yield CheckWarning(
            f'ESMS_VIBER["DISPATCHER"] is django_tasks, and the backend of TASKS is {backend}, which {does}.',
            hint='TASKS = {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}, and run its worker.',
            id="esms_viber.W009",
        )


def check_account(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = f"Nothing can be sent yet. Missing in ESMS_VIBER: {missing}."
        yield CheckWarning(message, hint=ACCOUNT_HINT, id="esms_viber.W001")


def check_account_in_production(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = f"This deployment cannot send. Missing in ESMS_VIBER: {missing}."
        yield Error(message, hint=ACCOUNT_HINT, id="esms_viber.E006")


def _missing_account_keys(conf: ViberSettings) -> str:
    gateway, esms_gateway = _import(conf.GATEWAY)[0], _import(DEFAULTS["GATEWAY"])[0]
    if not _is_subclass(gateway, esms_gateway):
        return ""
    return ", ".join(name for name in ACCOUNT_KEYS if not getattr(conf, name).strip())


def check_base_url(conf: ViberSettings) -> Iterator[CheckMessage]:
    parts = split(conf.BASE_URL)
    if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield CheckWarning(
            'ESMS_VIBER["BASE_URL"] is not https: the API key and the secret key travel unencrypted.',
            hint=f'"BASE_URL": "{DEFAULTS["BASE_URL"]}"',
            id="esms_viber.W002",
        )


def check_sandbox(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.SANDBOX:
        yield CheckWarning(
            'ESMS_VIBER["SANDBOX"] is on: eSMS delivers nothing.',
            hint='"SANDBOX": False; or, on a staging site, add "esms_viber.W006" to SILENCED_SYSTEM_CHECKS.',
            id="esms_viber.W006",
        )
