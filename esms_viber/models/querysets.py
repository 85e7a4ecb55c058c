"""Querysets: the rows of each state, and rows where they are written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable
from typing import Any, Self

from django.contrib.contenttypes.models import ContentType
from django.db import models, router
from django.db.models import Exists, OuterRef
from django.utils import timezone

from ..database import in_chunks, lock
from ..formatting import MOST_COUNTED
from .choices import WAITING, Kind, Status, kind_condition


class ForWriting(models.QuerySet[Any]):
    """Rows as they are where they are written, because a replica may be behind."""

    def for_writing(self) -> Self:
        return self.using(router.db_for_write(self.model))

    def write_alias(self) -> str:
        """Name the database that these rows are written to."""
        return router.db_for_write(self.model)

    def bounded_count(self, *, beyond: int = 0) -> int:
        """Count the rows, but stop at `MOST_COUNTED + 1`: that many stand for more, and `tell_count()` says so.

        `beyond`: a number of rows that the caller will take off.
        """
        return self.order_by().values("pk")[: MOST_COUNTED + 1 + beyond].count()


class MessageQuerySet(ForWriting):
    def locked(self, pks: Iterable[int]) -> list[Any]:
        """Lock the rows with these primary keys, in the order in which everybody does, and return them."""
        rows = self.for_writing().order_by("pk")
        return [row for chunk in in_chunks(sorted(set(pks))) for row in lock(rows.filter(pk__in=chunk))]

    def draft(self) -> Self:
        return self.filter(status=Status.DRAFT)

    def queued(self) -> Self:
        return self.filter(status=Status.QUEUED)

    def sending(self) -> Self:
        return self.filter(status=Status.SENDING)

    def unknown(self) -> Self:
        return self.filter(status=Status.UNKNOWN)

    def sent(self) -> Self:
        return self.filter(status=Status.SENT)

    def delivered(self) -> Self:
        return self.filter(status=Status.DELIVERED)

    def undelivered(self) -> Self:
        return self.filter(status=Status.UNDELIVERED)

    def failed(self) -> Self:
        return self.filter(status=Status.FAILED)

    def cancelled(self) -> Self:
        return self.filter(status=Status.CANCELLED)

    def of_kind(self, kind: Kind) -> Self:
        return self.filter(kind_condition(kind))

    def due(self, now: dt.datetime | None = None) -> Self:
        """To be called for now, soonest first. For many rows ask for one status at a time: see `soonest_first()`."""
        return self.filter(status__in=WAITING).soonest_first(now or timezone.now())

    def soonest_first(self, now: dt.datetime) -> Self:
        """Those whose time has come; of one status they are read in the order of the index."""
        return self.filter(next_attempt_at__lte=now).order_by("next_attempt_at", "pk")

    def lanes(self, but_not: Collection[str]) -> list[Self]:
        """These rows of one status by brand name, without some brand names.

        Jumps along the index from name to name, because nothing may walk past all the rows of those left out.
        """
        # Rows without a next attempt are not in that index.
        waiting = self.filter(next_attempt_at__isnull=False)
        names, rows = list[str](), waiting.order_by("brandname").values_list("brandname", flat=True)
        name = rows.first()
        while name is not None:
            names.append(name)
            name = rows.filter(brandname__gt=name).first()
        return [self.filter(brandname=name) for name in names if name not in but_not]

    def abandoned(self, now: dt.datetime | None = None) -> Self:
        """Claimed by a worker that stopped renewing its lease."""
        return self.filter(status=Status.SENDING, lease_until__lt=now or timezone.now())

    def held_up(self) -> Self:
        """Waiting because a `pre_send` receiver of the site failed."""
        return self.filter(status=Status.QUEUED, held_up_since__isnull=False)

    def due_for_query(self, now: dt.datetime | None = None) -> Self:
        """Sent, without a final report, and to be asked about by now; soonest first."""
        return self.filter(status=Status.SENT, next_query_at__lte=now or timezone.now()).order_by("next_query_at", "pk")

    def undecided(self, now: dt.datetime | None = None) -> Self:
        """Perhaps sent, perhaps not, and nothing will tell: only a person can decide whether to send it again.

        Those that somebody has sent again, or looked up, are decided, and after seven days eSMS tells nobody any more.
        """
        lately = (now or timezone.now()) - dt.timedelta(days=7)
        return self.filter(
            ~self._looked_up(),
            status=Status.UNKNOWN,
            next_attempt_at=None,
            uncertain_since__gte=lately,
            resends__isnull=True,
        )

    def unconfirmed(self, now: dt.datetime | None = None) -> Self:
        """Taken by eSMS a day ago or more, without a report since, and with no SMSID by which to ask for one.

        So it is where eSMS refused a repeat as "already used": that answer has no SMSID, and no call of eSMS finds a
        message by its RequestId.
        """
        now = now or timezone.now()
        return self.filter(
            ~self._looked_up(),
            status=Status.SENT,
            sms_id="",
            sandbox=False,
            sent_at__gte=now - dt.timedelta(days=7),
            sent_at__lt=now - dt.timedelta(days=1),
        )

    def looked_up(self) -> Self:
        """Somebody has found out what became of it, and left it at that."""
        return self.filter(self._looked_up())

    def _looked_up(self) -> Exists:
        event: Any = self.model._meta.get_field("events").related_model
        # Notes alone: the data of a callback is what somebody else has sent.
        notes = event._base_manager.filter(message=OuterRef("pk"), kind=event.Kind.NOTE)
        return Exists(notes.filter(data__looked_up=True))

    def for_object(self, related_object: models.Model) -> Self:
        kind = ContentType.objects.get_for_model(related_object)
        return self.filter(content_type=kind.pk, object_id=str(related_object.pk))

    def bulk_create(self, objs: Iterable[Any], *args: Any, **kwargs: Any) -> list[Any]:
        """Insert drafts, normalised and checked like in `save()`. Django sends no signals here: nothing is queued."""
        messages = list(objs)
        for message in messages:
            message.prepare_insert()
        stored = super().bulk_create(messages, *args, **kwargs)
        for message in stored:
            message.remember()
        return stored

    def bulk_update(self, objs: Iterable[Any], fields: Iterable[str], *args: Any, **kwargs: Any) -> int:
        """Update these columns, normalised and checked, whatever the status."""
        messages, names = list(objs), list(fields)
        for message in messages:
            message.prepare_columns(names)
        return super().bulk_update(messages, names, *args, **kwargs)
