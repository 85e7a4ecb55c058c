"""The task of Django Tasks by which the dispatcher `django_tasks` has messages sent."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from .delivery import deliver_messages

try:
    from django.tasks import task
except ImportError:  # Django 5.2
    from django_tasks import task


@task
def deliver(pks: list[int]) -> dict[str, Any]:
    """Send those of these messages that are due. Run twice or never, it neither doubles nor loses one."""
    return asdict(deliver_messages(pks))
