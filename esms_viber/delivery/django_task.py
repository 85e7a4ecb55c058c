"""The task of Django Tasks by which the dispatcher `django_tasks` has messages sent.

Not named `tasks`: Celery imports the module of that name of every installed app, and where Django Tasks is missing, or
set up for other queues, importing this one fails.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import django

from .worker import deliver_messages

if django.VERSION < (6, 0):
    from django_tasks import task
else:
    from django.tasks import task  # type: ignore[no-redef] # the same decorator, at home


@task
def deliver(pks: list[int]) -> dict[str, Any]:
    """Send those of these messages that are due. Run twice or never, it neither doubles nor loses one."""
    return asdict(deliver_messages(pks))
