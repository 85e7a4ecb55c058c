"""Can messages be sent with the settings as they are, and if not, why not?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.core.checks import ERROR
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string
from django.utils.translation import gettext as _

from .conf import ViberSettings, get_settings
from .gateways import get_gateway
from .loading import accepts, load, runs_when_called
from .outgoing import LARGEST_PK, callback_url, new_request_id


def require_setup() -> None:
    """Raise `ImproperlyConfigured`, naming the setting, where no message can be sent with the settings as they are."""
    conf = get_settings()
    get_gateway()
    callback_url(LARGEST_PK, new_request_id(), conf)


def find_trouble() -> str:
    """Why messages do not go out with the settings as they are, in a sentence for people; empty where they do."""
    try:
        require_setup()
        dispatcher = get_dispatcher()
    except ImproperlyConfigured as error:
        return str(error)
    return task_trouble() if is_django_tasks(dispatcher) else ""


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
        return _('ESMS_VIBER["DISPATCHER"] cannot be used: it is not callable.')
    if isinstance(found, type) and any("__call__" in vars(base) for base in found.__mro__):
        return _('ESMS_VIBER["DISPATCHER"] cannot be used: it is a class. Name an instance of it, or a function.')
    if not runs_when_called(found):
        return _(
            'ESMS_VIBER["DISPATCHER"] cannot be used: it is async or a generator, of which a call does nothing. Name '
            "an ordinary function."
        )
    if not accepts(found, []):
        return _('ESMS_VIBER["DISPATCHER"] cannot be used: it must take one argument, the list of primary keys.')
    return ""


def is_django_tasks(dispatcher: object) -> bool:
    # By its path, because that module imports what this one serves.
    return dispatcher is import_string("esms_viber.dispatch.django_tasks")


def find_task() -> tuple[Any, Exception | None]:
    """The task of the dispatcher `django_tasks`, or why it cannot be had."""
    try:
        return import_string("esms_viber.background.deliver"), None
    except Exception as error:  # noqa: BLE001 - it is made when imported, by whatever backend TASKS names
        return None, error


def task_trouble() -> str:
    """Why the dispatcher `django_tasks` has no tasks, in a sentence for people; empty where it has."""
    problem = find_task()[1]
    return "" if problem is None else _tasks_cannot_be_used(str(problem))


def backend_trouble() -> str:
    """The first error of the tasks' backend's own check, in a sentence for people; empty where it finds none.

    For the system checks alone: a backend may complain of what its worker lacks, and take tasks all the same.
    """
    task = find_task()[0]
    if task is None:
        return ""
    try:
        errors = [message.msg for message in task.get_backend().check() if message.level >= ERROR]
    except Exception as error:  # noqa: BLE001 - somebody else's code, over settings that are wrong
        errors = [f"{type(error).__name__}: {error}"]
    return _tasks_cannot_be_used(errors[0]) if errors else ""


def _tasks_cannot_be_used(problem: str) -> str:
    sentence = _('ESMS_VIBER["DISPATCHER"] is django_tasks, but tasks cannot be used: %(problem)s.')
    return sentence % {"problem": problem.rstrip(".")}
