"""Checks for everything that would keep messages from being sent."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

import django
from django.conf import settings
from django.core.checks import CheckMessage, Error
from django.core.checks import Warning as CheckWarning
from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from ..conf import NAMES, ViberSettings, load_dispatcher
from ..delivery.payload import query_length
from ..gateways.base import BaseGateway
from ..gateways.console import ConsoleGateway
from ..gateways.esms import EsmsGateway
from ..gateways.loading import build_gateway, load_gateway_class
from ..gateways.memory import MemoryGateway
from ..models import OutboundViberMessage
from ..monitoring import backend_trouble, find_task, is_django_tasks, task_trouble
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
    try:
        kind = load_gateway_class(conf)
        # Keys that are only missing yet are left to another check.
        if not _missing_account_keys(conf):
            build_gateway(kind, conf)
    except ImproperlyConfigured as error:
        # Only `BASE_URL` can still be wrong with eSMS's own gateway here.
        name = "BASE_URL" if DEFAULTS["GATEWAY"] == conf.GATEWAY else "GATEWAY"
        yield Error(str(error), hint=f'"{name}": "{DEFAULTS[name]}"', id="esms_viber.E004")


def check_dispatcher(conf: ViberSettings) -> Iterator[CheckMessage]:
    try:
        dispatcher = load_dispatcher(conf)
    except ImproperlyConfigured as error:
        yield Error(str(error), hint=f'"DISPATCHER": "{DEFAULTS["DISPATCHER"]}"', id="esms_viber.E005")
        return
    if is_django_tasks(dispatcher) and (trouble := task_trouble() or backend_trouble()):
        yield Error(trouble, hint=_how_to_have_tasks(), id="esms_viber.E009")


_TASK_PACKAGES = {
    "database": ("django-tasks-db", "django_tasks_db", "django_tasks_db.DatabaseBackend"),
    "rq": ("django-tasks-rq", "django_rq", "django_tasks_rq.RQBackend"),
}
"""For each kind of backend: the package to install, the app to add, the backend's path."""


def _how_to_have_tasks() -> str:
    backends = getattr(settings, "TASKS", None)
    default = backends.get("default") if isinstance(backends, dict) else None
    backend = str(default.get("BACKEND", "")) if isinstance(default, dict) else ""
    # Settings may still name the module of django-tasks that each backend was before it had a package of its own.
    kind = {"django_tasks_db": "database", "django_tasks_rq": "rq"}.get(backend.partition(".")[0])
    kind = kind or next((kind for kind in _TASK_PACKAGES if f".backends.{kind}." in backend), "")
    package, app, path = _TASK_PACKAGES.get(kind, ("", "", ""))
    missing = []
    if django.VERSION < (6, 0) and not find_spec("django_tasks"):
        missing.append('"django-esms-viber[tasks]"')
    elif backend.startswith("django_tasks.") and not kind and not find_spec("django_tasks"):
        missing.append("django-tasks")
    if path and not find_spec(path.partition(".")[0]):
        missing.append(package)
    found = []
    if missing:
        found.append(_("Install what is missing: %(line)s") % {"line": f"pip install {' '.join(missing)}"})
    if path and backend != path:
        found.append(_("The backend's path is %(line)s") % {"line": f'"BACKEND": "{path}"'})
    if app and not any(entry.partition(".")[0] == app for entry in settings.INSTALLED_APPS):
        found.append(_("Add its app: %(line)s") % {"line": f'INSTALLED_APPS += ["{app}"]'})
    usual = _('On Django 5.2: %(line)s. On any: TASKS needs a backend "default" with a queue "default".')
    return "; ".join(found) or usual % {"line": 'pip install "django-esms-viber[tasks]"'}


def check_task_backend(conf: ViberSettings) -> Iterator[CheckMessage]:
    try:
        is_dispatched_by_tasks = is_django_tasks(load_dispatcher(conf))
    except ImproperlyConfigured:
        is_dispatched_by_tasks = False
    task = find_task()[0] if is_dispatched_by_tasks else None
    backend = type(task.get_backend()).__name__ if task is not None else ""
    not_for_production = {
        "ImmediateBackend": _(
            'ESMS_VIBER["DISPATCHER"] is django_tasks, and the backend of TASKS is ImmediateBackend, which sends in '
            "the web request, without INLINE_LIMIT."
        ),
        "DummyBackend": _(
            'ESMS_VIBER["DISPATCHER"] is django_tasks, and the backend of TASKS is DummyBackend, which sends nothing.'
        ),
    }
    if sentence := not_for_production.get(backend):
        hint = _("%(line)s, and run its worker.")
        yield CheckWarning(sentence, hint=hint % {"line": _DATABASE_BACKEND}, id="esms_viber.W009")


def check_account(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = _("Nothing can be sent yet. Missing in ESMS_VIBER: %(names)s.") % {"names": missing}
        yield CheckWarning(message, hint=account_hint(), id="esms_viber.W001")


def check_account_in_production(conf: ViberSettings) -> Iterator[CheckMessage]:
    if missing := _missing_account_keys(conf):
        message = _("This deployment cannot send. Missing in ESMS_VIBER: %(names)s.") % {"names": missing}
        yield Error(message, hint=account_hint(), id="esms_viber.E006")


def _missing_account_keys(conf: ViberSettings) -> str:
    if not _is_gateway(conf, EsmsGateway):
        return ""
    return ", ".join(name for name in ACCOUNT_KEYS if not getattr(conf, name).strip())


def _is_gateway(conf: ViberSettings, *kinds: type[BaseGateway]) -> bool:
    try:
        return issubclass(load_gateway_class(conf), kinds)
    except ImproperlyConfigured:
        return False


def check_query_length(conf: ViberSettings) -> Iterator[CheckMessage]:
    try:
        length = query_length(OutboundViberMessage(phone="+84901888484", content="a"))
    except Exception:  # noqa: BLE001 - a site's own gateway may raise anything; it shows when a message is checked
        return
    if length is not None and length > conf.MAX_QUERY_LENGTH:
        yield Error(
            _(
                "Nothing can be sent: a text of one letter takes %(length)d characters, and "
                'ESMS_VIBER["MAX_QUERY_LENGTH"] is %(limit)d.'
            )
            % {"length": length, "limit": conf.MAX_QUERY_LENGTH},
            hint=_("Leave it out for the default, %(default)s.") % {"default": DEFAULTS["MAX_QUERY_LENGTH"]},
            id="esms_viber.E011",
        )


def check_stand_in(conf: ViberSettings) -> Iterator[CheckMessage]:
    if not settings.DEBUG and _is_gateway(conf, ConsoleGateway, MemoryGateway):
        yield CheckWarning(
            _('ESMS_VIBER["GATEWAY"] is %(name)s, which sends nothing and takes every message as sent.')
            % {"name": load_gateway_class(conf).__name__},
            hint=_or_silence(f'"GATEWAY": "{DEFAULTS["GATEWAY"]}"', "esms_viber.W012"),
            id="esms_viber.W012",
        )


def check_base_url(conf: ViberSettings) -> Iterator[CheckMessage]:
    parts = split(conf.BASE_URL)
    if parts is not None and parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        yield CheckWarning(
            _('ESMS_VIBER["BASE_URL"] is not https: the API key and the secret key travel unencrypted.'),
            hint=f'"BASE_URL": "{DEFAULTS["BASE_URL"]}"',
            id="esms_viber.W002",
        )


def check_base_url_in_production(conf: ViberSettings) -> Iterator[CheckMessage]:
    parts = split(conf.BASE_URL)
    is_used = not _is_gateway(conf, ConsoleGateway, MemoryGateway)
    if parts is not None and is_loopback(parts.hostname or "") and is_used:
        yield CheckWarning(
            _('ESMS_VIBER["BASE_URL"] leads to this machine itself (%(host)s), where no eSMS is.')
            % {"host": parts.hostname},
            hint=_or_silence(f'"BASE_URL": "{DEFAULTS["BASE_URL"]}"', "esms_viber.W013"),
            id="esms_viber.W013",
        )


def _or_silence(line: str, check_id: str) -> str:
    hint = _('%(line)s; or, on a staging site, add "%(id)s" to SILENCED_SYSTEM_CHECKS.')
    return hint % {"line": line, "id": check_id}


def check_sandbox(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.SANDBOX:
        yield CheckWarning(
            _('ESMS_VIBER["SANDBOX"] is on: eSMS delivers nothing.'),
            hint=_or_silence('"SANDBOX": False', "esms_viber.W006"),
            id="esms_viber.W006",
        )


def check_hours(conf: ViberSettings) -> Iterator[CheckMessage]:
    if conf.PROMOTIONAL_HOURS:
        line = _or_silence("manage.py send_viber_messages --watch", "esms_viber.W016")
        yield CheckWarning(
            _(
                'ESMS_VIBER["PROMOTIONAL_HOURS"] is set: what waits for these hours goes out only if a worker runs '
                "when they begin."
            ),
            hint=line,
            id="esms_viber.W016",
        )
