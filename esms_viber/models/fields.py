"""Fields of our own: exact keys, phones in any spelling, and relations that may lead into another database."""

from __future__ import annotations

import re
import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

from django.contrib.contenttypes.fields import GenericForeignKey
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ObjectDoesNotExist, ValidationError
from django.db import models, router
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor
from django.db.models.lookups import Exact, In, StartsWith

from ..phones import InvalidPhone, normalize_phone


class KeyField(models.CharField):  # type: ignore[type-arg] # not subscriptable when the code runs
    """A key that is compared by every character, because MySQL's usual collations take `don-1` for `đơn-1`.

    So its beginning (`startswith`) is found by the same index as the whole key, on every database.
    """

    def db_parameters(self, connection: Any) -> Any:
        parameters = super().db_parameters(connection)
        if connection.vendor == "postgresql":
            parameters["collation"] = "C"
        elif connection.vendor == "mysql":
            parameters["collation"] = "utf8mb4_nopad_bin" if connection.mysql_is_mariadb else "utf8mb4_0900_bin"
        return parameters


@KeyField.register_lookup
class KeyStartsWith(StartsWith):
    """A range, because Django's LIKE finds no index on SQLite, and needs one of its own on PostgreSQL."""

    def as_sql(self, compiler: Any, connection: Any) -> Any:
        if not self.rhs_is_direct_value():
            return super().as_sql(compiler, connection)
        column, parameters = compiler.compile(self.lhs)
        beginning = str(self.rhs)
        return f"({column} >= %s AND {column} < %s)", (
            *parameters,
            beginning,
            *parameters,
            beginning + chr(sys.maxunicode),
        )


# -- phones ------------------------------------------------------------------------------------------------------------

_E164 = re.compile(r"\+84[0-9]{9}")
# PostgreSQL takes no NUL, and no driver encodes a lone surrogate.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")


class PhoneField(KeyField):
    """A Vietnamese mobile number, stored as E.164, that is written and looked up (`exact`, `in`) in any spelling.

    A value that is empty, masked or unreadable stays as it is. Other lookups compare plain text.
    """

    def deconstruct(self) -> Any:
        # Migrations see a KeyField, because it is one in the database.
        name, _path, args, kwargs = super().deconstruct()
        return name, f"{KeyField.__module__}.{KeyField.__qualname__}", args, kwargs

    def pre_save(self, model_instance: models.Model, add: bool) -> Any:
        phone = _normalized(super().pre_save(model_instance, add))
        setattr(model_instance, self.attname, phone)
        return phone

    def get_db_prep_save(self, value: Any, connection: Any) -> Any:
        return super().get_db_prep_save(_normalized(value), connection)


def _normalized(value: Any) -> Any:
    if value is None or hasattr(value, "resolve_expression"):
        return value
    text = str(value)
    # Most phones are E.164 already, and this check takes a tenth of the time of reading one.
    if not text or "*" in text or _E164.fullmatch(text):
        return text
    try:
        return normalize_phone(text)
    except InvalidPhone:
        return text


def _looked_for(value: Any) -> Any:
    phone = _normalized(value)
    # No row has such a value, and the database driver would fail on it.
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", phone) if isinstance(phone, str) else phone


@PhoneField.register_lookup
class PhoneExact(Exact):
    def get_prep_lookup(self) -> Any:
        return _looked_for(super().get_prep_lookup())


@PhoneField.register_lookup
class PhoneIn(In):
    def __init__(self, lhs: Any, rhs: Any) -> None:
        # Normalise the phones before Django looks at them, because it wraps a list that has an expression in it.
        super().__init__(lhs, rhs if hasattr(rhs, "resolve_expression") else [_looked_for(value) for value in rhs])


# -- relations across databases ----------------------------------------------------------------------------------------


def _where_it_lives(queryset: Any) -> Any:
    return queryset if queryset._db else queryset.using(router.db_for_read(queryset.model))


class _CrossDatabaseDescriptor(ForwardManyToOneDescriptor):  # type: ignore[type-arg] # as above
    """Read from the related model's own database, where Django would take that of the instance."""

    def get_queryset(self, **hints: Any) -> Any:
        return _where_it_lives(super().get_queryset(**hints))

    def get_prefetch_querysets(self, instances: Any, querysets: Any = None) -> Any:
        given = [_where_it_lives(queryset) for queryset in querysets or ()]
        return super().get_prefetch_querysets(instances, given or None)

    def get_object(self, instance: models.Model) -> Any:
        try:
            return super().get_object(instance)
        except ObjectDoesNotExist:
            return None

    def __set__(self, instance: models.Model, value: Any) -> None:
        if not isinstance(value, self.field.remote_field.model._meta.concrete_model):
            super().__set__(instance, value)
            return
        # Django would ask the router whether the two databases may be related, and the usual one says no.
        setattr(instance, self.field.attname, getattr(value, self.field.target_field.attname))
        self.field.set_cached_value(instance, value)


class CrossDatabaseForeignKey(models.ForeignKey):  # type: ignore[type-arg] # as above
    """A foreign key to a row that may lie in another database, and reads as None once that row is gone.

    There is no constraint and no index, nothing happens when the row is deleted, and it has no name on the other side,
    because a query over both tables would fail. Prefetch it; do not follow it in filters or `select_related()`.
    """

    forward_related_accessor_class = _CrossDatabaseDescriptor

    def __init__(self, to: Any, **kwargs: Any) -> None:
        always = {"db_constraint": False, "db_index": False, "related_name": "+", "null": True}
        always["on_delete"] = models.DO_NOTHING
        super().__init__(to, **{**kwargs, **always})

    def deconstruct(self) -> Any:
        name, _path, args, kwargs = super().deconstruct()
        return name, "django.db.models.ForeignKey", args, kwargs

    def validate(self, value: Any, model_instance: models.Model | None) -> None:
        # Given an instance, Django would look for the related row in the database of that instance.
        super().validate(value, None)


class CrossDatabaseGenericForeignKey(GenericForeignKey):
    """A generic relation that reads content types and objects from their own databases; None where either is gone."""

    def contribute_to_class(self, cls: type[models.Model], name: str, **kwargs: Any) -> None:  # type: ignore[override] # as Django's own, not as the stubs
        super().contribute_to_class(cls, name, **kwargs)
        setattr(cls, name, _CrossDatabaseGenericDescriptor(self))

    def get_content_type(self, obj: Any = None, id: Any = None, using: Any = None, model: Any = None) -> ContentType:  # noqa: A002 - Django's name
        if id is not None:
            return ContentType.objects.get_for_id(id)
        return ContentType.objects.get_for_model(
            model if obj is None else obj, for_concrete_model=self.for_concrete_model
        )


class _CrossDatabaseGenericDescriptor:
    # Django 5.2 and 6.1 have no class in common to extend: in 5.2 the field is its own descriptor.

    def __init__(self, field: CrossDatabaseGenericForeignKey) -> None:
        self.field = field

    def is_cached(self, instance: models.Model) -> bool:
        return self.field.is_cached(instance)

    def __get__(self, instance: models.Model | None, owner: Any = None) -> Any:
        if instance is None:
            return self
        related = self.field.get_cached_value(instance, default=None)
        if not self.is_cached(instance) or (related is not None and _key_of(related) != self._key(instance)):
            related = next(iter(self._read([instance])), None)
            self.field.set_cached_value(instance, related)
        return related

    def __set__(self, instance: models.Model, value: models.Model | None) -> None:
        setattr(instance, self.field.ct_field, None if value is None else self.field.get_content_type(obj=value))
        setattr(instance, self.field.fk_field, None if value is None else value.pk)
        self.field.set_cached_value(instance, value)

    def get_prefetch_querysets(self, instances: Iterable[models.Model], querysets: Any = None) -> Any:
        return self._read(instances, querysets or ()), _key_of, self._key, True, self.field.name, False

    def _read(self, instances: Iterable[models.Model], querysets: Iterable[Any] = ()) -> list[models.Model]:
        given = {queryset.model: queryset for queryset in querysets}
        wanted = defaultdict(set)
        for model, pk in filter(None, map(self._target, instances)):
            wanted[model].add(pk)
        found: list[models.Model] = []
        for model, pks in wanted.items():
            rows = _where_it_lives(given.get(model, model._base_manager.all()))
            found += rows.filter(pk=pks.pop()) if len(pks) == 1 else rows.filter(pk__in=pks)
        return found

    def _target(self, instance: models.Model) -> tuple[type[models.Model], Any] | None:
        """Return the model and primary key of the related object; None where there cannot be one."""
        kind = getattr(instance, self.field.model._meta.get_field(self.field.ct_field).attname)
        try:
            model = kind and self.field.get_content_type(id=kind).model_class()
            return (model, model._meta.pk.to_python(getattr(instance, self.field.fk_field))) if model else None
        except (ObjectDoesNotExist, ValidationError):
            return None

    def _key(self, instance: models.Model) -> tuple[type[models.Model] | None, Any] | None:
        target = self._target(instance)
        return target and (target[0]._meta.concrete_model, target[1])


def _key_of(related: models.Model) -> tuple[type[models.Model] | None, Any]:
    return related._meta.concrete_model, related.pk
