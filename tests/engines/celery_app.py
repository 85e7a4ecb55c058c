"""The Celery app of a site."""

from __future__ import annotations

from celery import Celery

app = Celery("site", include=["tests.engines.celery_tasks"])
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()
