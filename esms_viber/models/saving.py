"""`save()` writes a new draft as a whole, and of an existing row the caller's columns alone."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import models, router, transaction
from django.utils.translation import gettext

from ..conf import readable_settings
from ..database import atomic_for_writing, lock
from ..exceptions import MessageNotEditable
from .choices import EDITABLE, Status

_UNKNOWN = object()
"""Differs from every value, also after a copy or an unpickling."""


def _kept(values: Iterable[Any]) -> tuple[Any, ...]:
    """Copy what may be changed in place, as metadata may."""
    return tuple([copy.deepcopy(value) if type(value) is dict else value for value in values])


def column_names(fields: Iterable[str]) -> set[str]:
    return {"content_type_id" if name == "content_type" else name for name in fields}


class Normalized(models.Model):
    """Bring columns into the form in which they are stored before Django checks them; see `normalize()`."""

    class Meta:
        abstract = True

    if TYPE_CHECKING:

        def normalize(self) -> None: ...

    def clean_fields(self, exclude: Any = None) -> None:
        excluded, errors = set(exclude or ()), {}
        try:
            self.normalize()
        except ValidationError as error:
            errors = {name: found for name, found in error.error_dict.items() if name not in excluded}
        try:
            super().clean_fields(exclude=excluded | errors.keys())
        except ValidationError as error:
            errors |= error.error_dict
        if errors:
            raise ValidationError(errors)


class GuardedSave(Normalized):
    """Keep stale instances from undoing what happened since they were loaded.

    Each instance remembers the caller's columns as they are in the database. `save()` compares with that, writes only
    what was changed, and refuses to change a message that has been handed over for sending.
    """

    CALLERS_COLUMNS: ClassVar[tuple[str, ...]] = ()

    if TYPE_CHECKING:
        status: models.CharField[str, str]

        def validate(self) -> None: ...
        def prepare_insert(self) -> None: ...
        def prepare_columns(self, fields: Iterable[str]) -> None: ...
        def forget_number(self, phone: str, using: str | None) -> None: ...

    keep_draft = False
    """Set it on an instance before its first `save()` to keep `SEND_ON_SAVE` from queueing it."""

    _loaded: tuple[Any, ...] = ()
    """The values of the `CALLERS_COLUMNS` in the database, as far as they are known; empty if none is.

    A tuple, because a list of 100,000 messages has as many of them."""

    class Meta:
        abstract = True

    # -- what is known of the row ----------------------------------------------------------------------------------

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
        self.remember(None if fields is None else column_names(fields))

    def remember(self, columns: Iterable[str] | None = None) -> None:
        """Note that these columns, or all of the caller's, are in the database as they are here."""
        if columns is None:
            self._loaded = _kept(map(self.__dict__.get, self.CALLERS_COLUMNS, itertools.repeat(_UNKNOWN)))
        else:
            self._note(self._values(columns))

    def _note(self, values: Mapping[str, Any]) -> None:
        known = self._loaded or (_UNKNOWN,) * len(self.CALLERS_COLUMNS)
        self._loaded = _kept(map(values.get, self.CALLERS_COLUMNS, known))

    def _remember_after_commit(self, columns: Iterable[str], using: str | None) -> None:
        # Django tells nobody of a rollback, so until the commit these columns count as changed.
        written = self._values(columns)
        self._note(dict.fromkeys(written, _UNKNOWN))
        transaction.on_commit(partial(self._note, written), using=using)

    def _values(self, columns: Iterable[str]) -> dict[str, Any]:
        """The caller's columns among these that are loaded here: `defer()` and `only()` leave some out."""
        wanted = set(columns)
        return {name: self.__dict__[name] for name in self.CALLERS_COLUMNS if name in wanted and name in self.__dict__}

    def _changed(self, update_fields: Iterable[str] | None) -> set[str]:
        """The columns that `save()` has to look at."""
        wanted = self.CALLERS_COLUMNS if update_fields is None else column_names(update_fields)
        known = dict(zip(self.CALLERS_COLUMNS, self._loaded, strict=False))
        return {name for name, value in self._values(wanted).items() if known.get(name, _UNKNOWN) != value}

    # -- saving ----------------------------------------------------------------------------------------------------

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
        # The database that is written to; the instance may have been loaded from a replica.
        alias = using or router.db_for_write(self._guarded_model())
        if self._state.adding or self.pk is None:
            self.prepare_insert()
            if readable_settings().SEND_ON_SAVE and not self.keep_draft:
                self.validate()
            with transaction.atomic(using=alias):
                super().save(force_insert=force_insert or True, using=alias)
                self._remember_after_commit(self.CALLERS_COLUMNS, alias)
            return
        # Columns that were not touched are not checked: a row that came in by another door may be odd in them.
        self.prepare_columns(self._changed(update_fields))
        # The savepoint keeps the caller's transaction usable, because Django breaks it for any error while it saves.
        # Outside of one the row is read before it is written.
        with atomic_for_writing(alias):
            super().save(force_insert=force_insert, force_update=force_update, using=alias, update_fields=update_fields)

    def _save_table(
        self,
        raw: bool = False,
        cls: Any = None,
        force_insert: Any = False,
        force_update: bool = False,
        using: str | None = None,
        update_fields: Iterable[str] | None = None,
    ) -> bool:
        """Guard the app's own table. Returns whether the row was there.

        Django calls this for each table of the instance's class. A site's subclass may have tables and columns of its
        own, which Django saves as ever.
        """
        pk = getattr(self, cls._meta.pk.attname)
        if raw or force_insert or cls is not self._guarded_model() or pk is None:
            return super()._save_table(raw, cls, force_insert, force_update, using, update_fields)  # type: ignore[misc,no-any-return] # Django's own, not in the stubs
        columns = self._changed(update_fields)
        if not columns:
            return True
        row = lock(cls._base_manager.using(using).filter(pk=pk))
        stored = row.values("status", "redacted_at", *columns).first()
        if stored is None:
            # Insert a row that is gone, e.g. rolled back, as Django does unless the caller insists on an update.
            force_insert = not (force_update or update_fields)
            return super()._save_table(raw, cls, force_insert, force_update, using, update_fields)  # type: ignore[misc,no-any-return] # as above
        if differing := {name for name in columns if stored[name] != self.__dict__[name]}:
            if stored["redacted_at"] is not None:
                # Also an instance that was loaded before brings nothing back.
                raise MessageNotEditable(
                    gettext("Message %(pk)s was redacted; nothing of it can be changed.") % {"pk": pk}
                )
            if stored["status"] not in EDITABLE:
                raise MessageNotEditable(
                    gettext("Message %(pk)s is %(status)s; its %(columns)s can no longer be changed.")
                    % {"pk": pk, "status": Status(stored["status"]).label, "columns": ", ".join(sorted(differing))}
                )
            super()._save_table(raw, cls, False, True, using, differing)  # type: ignore[misc] # as above
            if "phone" in differing:
                self.forget_number(stored["phone"], using)
        self._remember_after_commit(columns, using)
        return True

    def _guarded_model(self) -> type[models.Model]:
        return self._meta.get_field("status").model
