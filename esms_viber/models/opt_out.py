from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

from django.conf import settings
from django.db import models
from django.db.models import UniqueConstraint
from django.utils.translation import gettext_lazy as _

from ..database import CHUNK, in_chunks, in_transaction
from ..phones import mask_phone, validate_phone
from .choices import Purpose
from .fields import CrossDatabaseForeignKey, PhoneField
from .querysets import ForWriting
from .validators import validate_text


class Scope(models.TextChoices):
    PROMOTIONAL = "promotional", _("promotional messages")
    EVERYTHING = "everything", _("all messages")


class OptOutQuerySet(ForWriting):
    def among(self, phones: Iterable[str]) -> dict[str, str]:
        """Return the scopes of the opt-outs of these phones, by phone."""
        found: dict[str, str] = {}
        for chunk in in_chunks(list(dict.fromkeys(phones))):
            found |= self.for_writing().filter(phone__in=chunk).values_list("phone", "scope")
        return found

    def opt_out_all(self, phones: Iterable[str], *, scope: str, note: str = "", user: Any = None) -> int:
        """Opt these phones (E.164) out in few statements, and return how many had not opted out before.

        The wider scope stands. Scope and note are not checked.
        """
        rows = self.for_writing()
        # Keep one order, so that two people with the same list wait for each other instead of meeting in a deadlock.
        phones = sorted(set(phones))

        def write() -> int:
            known = rows.among(phones)
            new = [self.model(phone=phone, scope=scope, note=note, user=user) for phone in phones if phone not in known]
            rows.bulk_create(new, ignore_conflicts=True, batch_size=CHUNK)
            if scope == Scope.EVERYTHING:
                # Not only what was known, because another request may have stored some of the phones by now.
                columns = {"scope": scope, "note": note} if note else {"scope": scope}
                for chunk in in_chunks(phones):
                    rows.filter(phone__in=chunk, scope=Scope.PROMOTIONAL).update(**columns)
            return len(new)

        return in_transaction(write, using=rows.db)


class ViberOptOut(models.Model):
    """One phone that gets no promotional message any more, or none at all."""

    Scope = Scope

    phone = PhoneField(
        _("phone"),
        max_length=32,
        validators=[validate_phone],
        help_text=_("A Vietnamese mobile number in any spelling, e.g. 0901 888 484 or +84901888484."),
    )
    scope = models.CharField(
        _("gets no more"),
        max_length=12,
        choices=Scope,
        default=Scope.PROMOTIONAL,
        help_text=_("All messages: also those about an order."),
    )
    note = models.CharField(
        _("note"),
        max_length=200,
        blank=True,
        validators=[validate_text],
        help_text=_("E.g. how this person asked for it."),
    )
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    user = CrossDatabaseForeignKey(settings.AUTH_USER_MODEL, verbose_name=_("user"), blank=True, editable=False)

    objects: ClassVar[Any] = OptOutQuerySet.as_manager()

    class Meta:
        verbose_name = _("opt-out")
        verbose_name_plural = _("opt-outs")
        ordering = ["-pk"]
        constraints = [
            UniqueConstraint(
                fields=["phone"],
                name="esms_viber_opt_out_phone",
                violation_error_message=_("This phone has opted out already."),
            )
        ]

    def __str__(self) -> str:
        # Masked, because Django stores it in its own log.
        return f"{mask_phone(self.phone)} · {self.get_scope_display()}"


def forbids(scope: str | None, purpose: str) -> bool:
    """Does an opt-out of this scope, None for no opt-out, keep a message of this purpose from being sent?"""
    return scope == Scope.EVERYTHING or (scope == Scope.PROMOTIONAL and purpose == Purpose.PROMOTIONAL)
