"""Where tables are: all of them in the first database, and those of the messages in a second one as well."""

from __future__ import annotations

from typing import Any

_MESSAGES = {"esms_viber", "subclasses"}
# A migration of django-tasks-db asks for its table on MySQL, whatever a router says.
_THERE_TOO = {"django_tasks_database"}


class OneDatabase:
    """Nearly every test: the second database is made, and not used."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return app_label in _MESSAGES | _THERE_TOO if db == "messages" else None


class MessagesApart(OneDatabase):
    """As sites write it: it names the app, and says nothing of relations."""

    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "messages" if model._meta.app_label in _MESSAGES else None

    db_for_write = db_for_read
