"""The dispatcher `django_tasks`, without a worker: what it enqueues, and what the system checks say of its set-up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import django
import pytest
from django.core.checks import run_checks
from django.core.checks.messages import CheckMessage

from esms_viber import dispatch
from esms_viber.gateways.memory import outbox
from esms_viber.models import OutboundViberMessage
from esms_viber.services import deliver_due_messages, queue_viber_messages

pytestmark = pytest.mark.django_db(transaction=True)

BACKENDS = "django.tasks.backends" if django.VERSION >= (6, 0) else "django_tasks.backends"
DUMMY, IMMEDIATE = f"{BACKENDS}.dummy.DummyBackend", f"{BACKENDS}.immediate.ImmediateBackend"


@pytest.fixture(autouse=True)
def _tasks(settings) -> Iterator[None]:
    pytest.importorskip("django.tasks" if django.VERSION >= (6, 0) else "django_tasks", reason="needs django-tasks")
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.django_tasks"}
    # A task is bound to its backend when its module is imported; at a site the settings are there by then.
    sys.modules.pop("esms_viber.delivery.django_task", None)
    yield
    sys.modules.pop("esms_viber.delivery.django_task", None)


def queue(count: int) -> list[int]:
    messages = [OutboundViberMessage(phone="0901888484", content=str(number)) for number in range(count)]
    return [message.pk for message in queue_viber_messages(messages)]


def enqueued() -> list[list[int]]:
    """What the dummy backend keeps: the arguments of each task."""
    from esms_viber.delivery.django_task import deliver

    return [result.args[0] for result in deliver.get_backend().results]


def findings(*, deploy: bool = True) -> list[CheckMessage]:
    found = run_checks(tags=["esms_viber"], include_deployment_checks=deploy)
    return [message for message in found if message.id in {"esms_viber.E009", "esms_viber.W009"}]


def test_one_task_holds_the_messages_of_a_transaction(settings):
    settings.TASKS = {"default": {"BACKEND": DUMMY}}
    pks = queue(7)
    assert enqueued() == [pks]
    assert outbox == []


def test_a_large_batch_is_shared_among_tasks(settings, monkeypatch):
    monkeypatch.setattr(dispatch, "TASK_SIZE", 3)
    settings.TASKS = {"default": {"BACKEND": DUMMY}}
    pks = queue(7)
    assert enqueued() == [pks[:3], pks[3:6], pks[6:]]


def test_the_task_sends_and_tells_what_came_of_it(settings):
    settings.TASKS = {"default": {"BACKEND": IMMEDIATE}}
    pks = queue(3)
    assert len(outbox) == 3
    assert OutboundViberMessage.objects.filter(pk__in=pks, status="sent").count() == 3

    from esms_viber.delivery.django_task import deliver

    assert deliver.call(pks) == {
        **dict.fromkeys(("sent", "failed", "unknown", "requeued", "left"), 0),
        "account_code": "",
        "outage": False,
        "refused_brands": {},
    }
    assert len(outbox) == 3, "run twice, it sends once"


def test_a_task_that_never_runs_loses_nothing(settings):
    settings.TASKS = {"default": {"BACKEND": DUMMY}}
    queue(3)
    assert deliver_due_messages().sent == 3


@pytest.mark.parametrize(("backend", "does"), [(DUMMY, "sends nothing"), (IMMEDIATE, "in the web request")])
def test_a_backend_without_a_worker_is_told_where_it_matters(settings, backend: str, does: str):
    settings.TASKS = {"default": {"BACKEND": backend}}
    assert findings(deploy=False) == []
    (warning,) = findings()
    assert warning.id == "esms_viber.W009"
    assert does in warning.msg


@pytest.mark.parametrize("tasks", [{"default": {"BACKEND": DUMMY, "QUEUES": ["mail"]}}], ids=["no queue default"])
def test_tasks_that_cannot_be_used_are_told(settings, tasks: dict[str, Any]):
    settings.TASKS = tasks
    (error,) = findings(deploy=False)
    assert error.id == "esms_viber.E009"
    assert 'queue "default"' in str(error.hint)


def test_tasks_that_are_not_there_are_told(monkeypatch):
    monkeypatch.setitem(sys.modules, "esms_viber.delivery.django_task", None)
    (error,) = findings(deploy=False)
    assert error.id == "esms_viber.E009"
    assert "django-esms-viber[tasks]" in str(error.hint)


def test_other_dispatchers_need_no_tasks(settings, monkeypatch):
    monkeypatch.setitem(sys.modules, "esms_viber.delivery.django_task", None)
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "DISPATCHER": "esms_viber.dispatch.inline"}
    assert findings() == []
