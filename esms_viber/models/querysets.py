"""Querysets: the rows of each state, and rows where they are written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Self

from django.contrib.contenttypes.models import ContentType
from django.db import models, router
from django.db.models import Exists, OuterRef, Q
from django.utils import timezone

from ..database import in_chunks, lock
from ..formatting import MOST_COUNTED
from .choices import WAITING, Kind, Purpose, Status, kind_condition


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
        """To be called for now, if nothing holds them, soonest first.

        For many rows ask for one status and purpose at a time: see `soonest_first()`.
        """
        return self.filter(status__in=WAITING, purpose__in=Purpose.values).soonest_first(now or timezone.now())

    def soonest_first(self, now: dt.datetime) -> Self:
        """Those whose time has come; of one status and purpose they are read in the order of the index."""
        return self.filter(next_attempt_at__lte=now).order_by("next_attempt_at", "pk")

    def lanes(
        self,
        *,
        brandnames: Iterable[str] | None = None,
        but_not: Collection[str] = (),
        campaigns: Iterable[str] | None = None,
        paused: Collection[str] = (),
        after: str = "",
    ) -> Iterator[Self]:
        """Split these rows of one status and purpose by brand name and campaign, as far as some wait.

        `brandnames`, `campaigns`: only of these; `but_not`: of none of these brand names; `paused`: of none of these
        campaigns; `after`: begin with the campaigns after this one. There may be very many: take no more than needed.
        """
        # Rows without a next attempt are not in the index.
        waiting = self.filter(next_attempt_at__isnull=False)
        for name in waiting._values_of("brandname") if brandnames is None else brandnames:
            if name not in but_not:
                of_brand = waiting.filter(brandname=name)
                for campaign in of_brand._values_of("campaign", after=after) if campaigns is None else campaigns:
                    if campaign not in paused:
                        yield self.filter(brandname=name, campaign=campaign)

    def _values_of(self, column: str, *, after: str = "") -> Iterator[str]:
        """Jump along the index from value to value, because nothing may walk past all the rows of one of them."""
        rows = self.order_by(column).values_list(column, flat=True)
        value = rows.filter(**{f"{column}__gt": after}).first() if after else rows.first()
        while value is not None:
            yield value
            value = rows.filter(**{f"{column}__gt": value}).first()
        value = rows.first() if after else None
        while value is not None and value <= after:
            yield value
            value = rows.filter(**{f"{column}__gt": value}).first()

    def abandoned(self, now: dt.datetime | None = None) -> Self:
        """Claimed by a worker that stopped renewing its lease."""
        return self.filter(status=Status.SENDING, lease_until__lt=now or timezone.now())

    def held_up(self) -> Self:
        """Waiting because a `pre_send` receiver of the site failed."""
        return self.filter(status=Status.QUEUED, held_up_since__isnull=False)

    def due_for_query(self, now: dt.datetime | None = None) -> Self:
        """Without a final report, and to be asked about by now; soonest first. What is repeated is not asked about."""
        may_be_asked = Q(status=Status.SENT) | Q(status=Status.UNKNOWN, next_attempt_at=None)
        due = self.filter(may_be_asked, next_query_at__lte=now or timezone.now())
        return due.order_by("next_query_at", "pk")

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
            redacted_at=None,  # because nobody can look it up or send it again
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
            redacted_at=None,
            sent_to_sandbox=False,
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
        """Update these columns, normalised and checked, whatever the status. Redacted rows stay as they are."""
        messages, names = list(objs), list(fields)
        for message in messages:
            message.prepare_columns(names)
        # A condition of the UPDATE, so that an instance that was loaded before the redaction brings nothing back.
        rows = self.filter(redacted_at=None)
        return super(MessageQuerySet, rows).bulk_update(messages, names, *args, **kwargs)
