"""What `save()` may write: everything of a new draft, and of an existing row the caller's columns alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar, Self, cast

from django.db import models, transaction
from django.utils.translation import gettext

from .. import validation
from ..conf import readable_settings
from ..exceptions import EsmsViberError, MessageNotEditable
from ..states import EDITABLE, Status
from ..transactions import lock, write_alias

if TYPE_CHECKING:
    from .message import OutboundViberMessage


def _column_names(fields: Iterable[str]) -> set[str]:
    return {"content_type_id" if name == "content_type" else name for name in fields}


class GuardedSave(models.Model):
    """Remembers what was loaded, so that a stale instance undoes nothing and an untouched one writes nothing."""

    CALLERS_COLUMNS: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        status: models.CharField[str, str]

        def validate_for_sending(self) -> None: ...

    keep_draft = False
    """Set on an instance before its first `save()`, it keeps `SEND_ON_SAVE` from queueing it."""

    class Meta:
        abstract = True

    def prepare_insert(self) -> None:
        """Normalise a new draft; raises for what is none, or what the database would refuse."""
        if self.status != Status.DRAFT:
            raise EsmsViberError(
                "A new message is a draft. To send it use esms_viber.services, e.g. queue_viber_message()."
            )
        self.prepare_columns(self.CALLERS_COLUMNS)

    def prepare_columns(self, fields: Iterable[str]) -> None:
        """Normalise the caller's columns among these; raises `ValidationError` for what the database would refuse."""
        message, columns = cast("OutboundViberMessage", self), _column_names(fields)
        validation.normalize(message, [name for name in self.CALLERS_COLUMNS if name in columns])
        if not set(validation.KIND_FIELDS).isdisjoint(columns):
            validation.validate_kind(message)

    @classmethod
    def from_db(cls, *args: Any, **kwargs: Any) -> Self:
        message = super().from_db(*args, **kwargs)
        message.remember()
        return message

    def refresh_from_db(
        self, using: str | None = None, fields: Iterable[str] | None = None, from_queryset: Any = None
    ) -> None:
        fields = None if fields is None else list(fields)
        super().refresh_from_db(using=using, fields=fields, from_queryset=from_queryset)
        self.remember(self.CALLERS_COLUMNS if fields is None else _column_names(fields))

    def remember(self, columns: Iterable[str] | None = None) -> None:
        """Note these columns, or all, as they are in the database now."""
        here = self.__dict__
        names = self.CALLERS_COLUMNS if columns is None else set(self.CALLERS_COLUMNS).intersection(columns)
        self._loaded = {**self.__dict__.get("_loaded", {}), **{name: here[name] for name in names if name in here}}

    def save(
        self,
        *,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> None:
        """Insert a draft, or write the changed ones of the caller's columns.

        Of an existing row the app's own columns (`status` and the rest) are never written, so a stale instance cannot
        undo a report. Raises `ValidationError` for a phone that cannot be sent to, and `MessageNotEditable` where
        text, phone or terms were changed after the message was handed over.
        """
        # Not where it was loaded from, which may be a replica.
        alias = using or write_alias()
        if self._state.adding or self.pk is None:
            self.prepare_insert()
            if readable_settings().SEND_ON_SAVE and not self.keep_draft:
                self.validate_for_sending()
            with transaction.atomic(using=alias):
                super().save(force_insert=force_insert or True, using=alias)
            self._note_written(set(self.CALLERS_COLUMNS), using=alias)
            return
        # Columns that were not touched stay as they are: a row that came in by another door may be odd in them.
        self.prepare_columns(self._columns_to_save(update_fields))
        # With a savepoint, because Django breaks the caller's transaction for whatever is raised while it saves.
        with transaction.atomic(using=alias):
            super().save(force_insert=force_insert, force_update=force_update, using=alias, update_fields=update_fields)

    def _columns_to_save(self, update_fields: Iterable[str] | None) -> set[str]:
        changed = self._changed_columns()
        return changed if update_fields is None else changed & _column_names(update_fields)

    def _changed_columns(self) -> set[str]:
        loaded, here = self.__dict__.get("_loaded", {}), self.__dict__
        differing = {name for name in self.CALLERS_COLUMNS if name in here and loaded.get(name, self) != here[name]}
        return differing.union(self.__dict__.get("_uncommitted", ()))

    def _note_written(self, columns: set[str], *, using: str | None) -> None:
        self.remember(columns)
        if transaction.get_connection(using).in_atomic_block:
            # Django tells nobody of a rollback: until the commit it is not sure that they are there.
            self._uncommitted = self.__dict__.get("_uncommitted", set()) | columns
            transaction.on_commit(self._forget_uncommitted, using=using)

    def _forget_uncommitted(self) -> None:
        self._uncommitted = set()

    def _save_table(
        self,
        raw: bool = False,
        cls: Any = None,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> bool:
        """Guard the one table that is ours: Django calls this for each table of the instance's class.

        A subclass of the site's may have tables and columns of its own, which Django saves as ever. Gives whether the
        row was there.
        """
        pk = getattr(self, cls._meta.pk.attname)
        is_ours = cls is self._meta.get_field("status").model
        if raw or force_insert or not is_ours or pk is None:
            return super()._save_table(raw, cls, force_insert, force_update, using, update_fields)  # type: ignore[misc,no-any-return] # Django's own, not in the stubs
        columns = self._columns_to_save(update_fields)
        if not columns:
            return True
        stored = lock(cls._base_manager.using(using).filter(pk=pk)).values("status", *columns).first()
        if stored is None:
            # As Django does: insert what is not there (any more, after a rollback), unless it has to be there.
            force_insert = not (force_update or update_fields)
            return super()._save_table(raw, cls, force_insert, force_update, using, update_fields)  # type: ignore[misc,no-any-return] # as above
        if differing := {name for name in columns if stored[name] != self.__dict__[name]}:
            self._refuse_unless_editable(stored["status"], differing)
            super()._save_table(raw, cls, False, True, using, differing)  # type: ignore[misc] # as above
        self._note_written(columns, using=using)
        return True

    def _refuse_unless_editable(self, status: str, columns: set[str]) -> None:
        if status not in EDITABLE:
            raise MessageNotEditable(
                gettext("Message %(pk)s is %(status)s; its %(columns)s can no longer be changed.")
                % {"pk": self.pk, "status": Status(status).label, "columns": ", ".join(sorted(columns))}
            )
