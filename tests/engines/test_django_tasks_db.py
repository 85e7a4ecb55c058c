"""Through Django Tasks and the database worker of the package django-tasks-db."""

from __future__ import annotations

import pytest
from django.apps import apps
from django.db import connection

from esms_viber.services import deliver_due_messages
from tests.engines.cases import EngineTests, each_once, queue, queue_several
from tests.engines.engine import Engine, Workers, need
from tests.engines.esms import Esms


class DatabaseEngine(Engine):
    settings = {"TASKS": {"default": {"BACKEND": "django_tasks_db.DatabaseBackend"}}}
    worker = ["django", "db_worker", "--interval", "0.05", "--no-startup-delay", "--no-reload"]

    def __init__(self) -> None:
        self._tasks = apps.get_model("django_tasks_database", "DBTaskResult")

    def waiting(self) -> int:
        return self._tasks.objects.ready().count()

    def lose_tasks(self) -> None:
        self._tasks.objects.all().delete()

    # The broker is a table. It is away where its migrations were not run.

    def stop_broker(self) -> None:
        self._rename_table(self._tasks._meta.db_table, "away")

    def start_broker(self) -> None:
        self._rename_table("away", self._tasks._meta.db_table)

    def _rename_table(self, old: str, new: str) -> None:
        with connection.schema_editor() as editor:
            editor.alter_db_table(self._tasks, old, new)


@pytest.fixture
def engine() -> DatabaseEngine:
    need("django_tasks_db")
    return DatabaseEngine()


class TestDatabaseWorker(EngineTests):
    def test_tasks_that_were_deleted_lose_no_message(
        self, engine: DatabaseEngine, esms: Esms, workers: Workers
    ) -> None:
        messages = queue_several(5)
        engine.lose_tasks()
        last = queue()
        workers.start()
        workers.wait_for(lambda: esms.calls == each_once([last]))
        assert deliver_due_messages().sent == 5
        workers.wait_for(lambda: esms.calls == each_once([*messages, last]))
