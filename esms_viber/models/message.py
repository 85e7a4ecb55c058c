from __future__ import annotations

import datetime as dt
import functools
from collections import defaultdict
from collections.abc import Iterable
from typing import Any, ClassVar

from django.contrib.contenttypes.models import ContentType
from django.core.checks import CheckMessage
from django.core.exceptions import NON_FIELD_ERRORS, ValidationError
from django.db import models
from django.db.models import CheckConstraint, Index, Q, UniqueConstraint
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..codes import describe
from ..exceptions import EsmsViberError, GatewayRefused, GatewayUnreachable, OutcomeUnknown
from ..formatting import stored
from ..phones import holds_number, mask_phone, validate_phone
from . import choices, validators
from .choices import EDITABLE, HELD, WAITING, Purpose, Status
from .fields import CrossDatabaseForeignKey, CrossDatabaseGenericForeignKey, KeyField, PhoneField
from .querysets import MessageQuerySet
from .saving import GuardedSave, column_names
from .validators import as_stored


def has(column: str) -> Q:
    """Where there is a value: the condition of a partial index that SQLite, too, recognises in a query."""
    return Q((f"{column}__isnull", False))


class OutboundViberMessage(GuardedSave):
    """One message to one phone, and what became of it.

    A new row is a draft. Nothing is sent by saving one (unless `SEND_ON_SAVE` is on); see `esms_viber.services`.
    """

    Status = Status
    Kind = choices.Kind
    Purpose = Purpose

    phone = PhoneField(
        _("phone"),
        max_length=32,
        validators=[validate_phone],
        help_text=_("A Vietnamese mobile number in any spelling, e.g. 0901 888 484 or +84901888484."),
    )
    content = models.TextField(
        _("text"),
        blank=True,
        validators=[validators.validate_text, validators.validate_content],
        help_text=_("May be empty only if the message is an image alone."),
    )
    image_url = models.CharField(
        _("image"),
        max_length=1000,
        blank=True,
        validators=[validators.validate_image_url],
        help_text=_("Address of the image, e.g. https://shop.example.vn/sale.png."),
    )
    button_label = models.CharField(
        _("button label"),
        max_length=255,
        blank=True,
        validators=[validators.validate_text, validators.validate_label],
        help_text=_("The text on the button, e.g. “See your order”."),
    )
    button_url = models.CharField(
        _("button link"),
        max_length=1000,
        blank=True,
        validators=[validators.validate_button_url],
        help_text=_("The page that the button opens, e.g. https://shop.example.vn/orders/17."),
    )
    brandname = KeyField(
        _("brand name"),
        max_length=100,
        blank=True,
        validators=[validators.validate_text],
        help_text=_("As registered with eSMS. Left empty, the site's own is used."),
    )
    sandbox = models.BooleanField(
        _("sandbox"),
        default=False,
        help_text=_("eSMS checks the message but neither delivers nor charges it."),
    )
    campaign = KeyField(
        _("campaign"),
        max_length=100,
        blank=True,
        validators=[validators.validate_text],
        help_text=_("A name of your own to group messages by, e.g. tet-2027."),
    )
    purpose = models.CharField(
        _("purpose"),
        max_length=16,
        choices=Purpose,
        default=Purpose.TRANSACTIONAL,
        help_text=_("Promotional messages go out after all others, and not to people who have opted out."),
    )
    dedupe_key = KeyField(
        _("dedupe key"),
        max_length=150,
        null=True,
        blank=True,
        validators=[validators.validate_text],
        help_text=_("A second message with the same key is not sent, e.g. order-17-paid."),
    )
    content_type = CrossDatabaseForeignKey(ContentType, verbose_name=_("type of related object"), blank=True)
    object_id = models.CharField(_("id of related object"), max_length=64, blank=True)
    related_object = CrossDatabaseGenericForeignKey("content_type", "object_id")
    metadata = models.JSONField(
        _("metadata"),
        default=dict,
        blank=True,
        validators=[validators.validate_metadata],
        help_text=_("A JSON object of your own, of at most 4 KiB. It is never sent."),
    )
    send_at = models.DateTimeField(_("send at"), null=True, blank=True, help_text=_("Not before this time."))
    expires_at = models.DateTimeField(_("expires at"), null=True, blank=True, help_text=_("Not sent after this time."))

    status = models.CharField(_("status"), max_length=12, choices=Status, default=Status.DRAFT, editable=False)
    sent_to_sandbox = models.BooleanField(_("sent to the sandbox"), default=False, editable=False)
    """Did it go to the sandbox? Until its first call: would it, as the settings were when it was queued?"""
    rehearsal = models.BooleanField(_("rehearsal"), default=False, editable=False)
    """Sent to a phone of somebody's own, to see how it looks: it counts in no figures."""
    request_id = KeyField("RequestId", max_length=50, blank=True, editable=False)
    sms_id = KeyField("SMSID", max_length=64, blank=True, editable=False)
    code_result = models.CharField(_("code"), max_length=16, blank=True, editable=False)
    error_message = models.CharField(_("error"), max_length=500, blank=True, editable=False)
    send_status = models.IntegerField("SendStatus", null=True, blank=True, editable=False)
    total_price = models.DecimalField(
        _("price (đ)"), max_digits=14, decimal_places=4, null=True, blank=True, editable=False
    )
    telco_id = models.IntegerField(_("network"), null=True, blank=True, editable=False)
    resend_of = models.ForeignKey(
        "self",
        verbose_name=_("resend of"),
        on_delete=models.SET_NULL,
        null=True,
        blank=True,
        editable=False,
        related_name="resends",
        db_index=False,
    )
    attempts = models.PositiveIntegerField(_("attempts"), default=0, editable=False)
    next_attempt_at = models.DateTimeField(_("next attempt"), null=True, blank=True, editable=False)
    next_query_at = models.DateTimeField(_("next status query"), null=True, blank=True, editable=False)
    lease_until = models.DateTimeField(null=True, blank=True, editable=False)
    claim_id = models.CharField(max_length=32, blank=True, editable=False)
    held_up_since = models.DateTimeField(null=True, blank=True, editable=False)
    """While it is queued: since when a failing `pre_send` receiver of the site keeps it from being sent."""
    uncertain_since = models.DateTimeField(_("uncertain since"), null=True, blank=True, editable=False)
    """Committed before the first call under the current RequestId; null as long as surely no call of it was taken.

    A row that has it may be at eSMS already, so it is only ever called again under the same RequestId."""
    created_at = models.DateTimeField(_("created at"), auto_now_add=True)
    queued_at = models.DateTimeField(_("queued at"), null=True, blank=True, editable=False)
    sent_at = models.DateTimeField(_("sent at"), null=True, blank=True, editable=False)
    completed_at = models.DateTimeField(_("completed at"), null=True, blank=True, editable=False)
    delivery_seconds = models.PositiveIntegerField(_("seconds to delivery"), null=True, blank=True, editable=False)
    """From `sent_at` to `completed_at`, rounded up; stored, because counting intervals costs SQLite a call a row."""

    redacted_at = models.DateTimeField(_("redacted at"), null=True, blank=True, editable=False)
    """Since then it has no text, link, phone or metadata any more."""
    redacted_kind = models.CharField(max_length=20, blank=True, editable=False)
    """The kind that it had until then, because prices depend on it."""

    objects = MessageQuerySet.as_manager()

    CALLERS_COLUMNS: ClassVar[tuple[str, ...]] = (
        "phone",
        "content",
        "image_url",
        "button_label",
        "button_url",
        "brandname",
        "sandbox",
        "campaign",
        "purpose",
        "dedupe_key",
        "content_type_id",
        "object_id",
        "metadata",
        "send_at",
        "expires_at",
    )

    class Meta:
        verbose_name = _("Viber message")
        verbose_name_plural = _("Viber messages")
        ordering = ["-pk"]
        permissions = [
            ("send_outboundvibermessage", "Can send Viber messages"),
            ("redact_outboundvibermessage", "Can redact Viber messages, and export what is stored of a person"),
        ]
        # A change of status writes to every index that has the row, so each has to earn that, and has no row in vain.
        # None has what is written before each call (`uncertain_since`, `lease_until`, `attempts`, `code_result`). Then
        # PostgreSQL writes to no index at all, where the page of the row has room.
        indexes = [
            # What is due: claims, and how the queue stands.
            Index(
                fields=["status", "purpose", "next_attempt_at", "id"],
                condition=has("next_attempt_at"),
                name="esms_viber_queue",
            ),
            # The same in one lane, while a brand name or a campaign has to wait.
            Index(
                fields=["status", "purpose", "brandname", "campaign", "next_attempt_at", "id"],
                condition=has("next_attempt_at"),
                name="esms_viber_lane",
            ),
            Index(fields=["held_up_since"], condition=has("held_up_since"), name="esms_viber_held_up"),
            Index(fields=["next_query_at", "id"], condition=has("next_query_at"), name="esms_viber_query"),
            # The list of one status; claims of workers that are gone.
            Index(fields=["status", "id"], name="esms_viber_status"),
            Index(fields=["campaign", "id"], name="esms_viber_campaign"),
            Index(fields=["created_at"], name="esms_viber_created"),
            Index(fields=["sent_to_sandbox", "id"], condition=Q(sent_to_sandbox=True), name="esms_viber_sandbox"),
            Index(fields=["delivery_seconds", "id"], condition=has("delivery_seconds"), name="esms_viber_took"),
            Index(fields=["content_type", "object_id"], condition=has("content_type"), name="esms_viber_related"),
            Index(fields=["resend_of"], condition=has("resend_of"), name="esms_viber_resend_of"),
            # What people search for. Without an SMSID only a person can find out what became of a message.
            Index(fields=["phone"], name="esms_viber_phone"),
            Index(fields=["request_id"], name="esms_viber_request"),
            Index(fields=["sms_id", "status"], name="esms_viber_smsid"),
        ]
        constraints = [
            # Not `unique=True`, for which Django makes two indexes on PostgreSQL.
            UniqueConstraint(fields=["dedupe_key"], name="esms_viber_dedupe_key"),
            CheckConstraint(condition=Q(status__in=Status.values), name="esms_viber_known_status"),
            CheckConstraint(
                condition=choices.any_kind() | has("redacted_at"),
                name="esms_viber_kind",
                violation_error_message=_(
                    "A Viber message is a text; a text and a button; an image; or a text, an image and a button."
                ),
            ),
        ]

    @classmethod
    def check(cls, **kwargs: Any) -> list[CheckMessage]:
        # MySQL and MariaDB have no partial indexes, and Django warns of it. There they are whole, and serve as well.
        return [found for found in super().check(**kwargs) if found.id != "models.W037"]

    def __str__(self) -> str:
        number = f"№ {self.id} · " if self.id else ""
        return f"{number}{mask_phone(self.phone)} · {self.get_status_display()}"

    @property
    def kind(self) -> choices.Kind | None:
        """The layout; None for a mix of parts that Viber does not have."""
        if self.redacted_kind:
            return choices.Kind(self.redacted_kind)
        return choices.kind_of([name for name in choices.KIND_FIELDS if getattr(self, name)])

    def get_status_display(self) -> str:  # type: ignore[no-redef] # which mypy's plugin takes for Django's
        # Django's own makes a dictionary of all states anew for each row of a list.
        return str(_STATUS_NAMES.get(self.status, self.status))

    @property
    def is_editable(self) -> bool:
        return self.status in EDITABLE and self.redacted_at is None

    @property
    def is_final(self) -> bool:
        """Is no change expected any more, short of a report that contradicts eSMS's own answer?"""
        return self.status in {Status.DELIVERED, Status.UNDELIVERED, Status.FAILED, Status.CANCELLED}

    def is_due(self, now: dt.datetime) -> bool:
        """Would a worker take it now?"""
        return self.status in WAITING and self.next_attempt_at is not None and self.next_attempt_at <= now

    # -- validation ------------------------------------------------------------------------------------------------

    def normalize(self, columns: Iterable[str] | None = None) -> None:
        """Bring the caller's columns, or these of them, into the form in which they are stored.

        Raises one `ValidationError` that names every column that some database could not store.
        """
        errors = {}
        for column in self.CALLERS_COLUMNS if columns is None else columns:
            field: Any = self._meta.get_field(column)
            value = getattr(self, column)
            if (value is field.get_default() or value == {}) and column != "phone":
                continue
            try:
                setattr(self, column, as_stored(field, value))
            except ValidationError as error:
                errors[field.name] = error
                if column == "phone":
                    # The checks that follow in `full_clean()` build the request, which wants a text.
                    self.phone = str(self.phone or "")
        if errors:
            raise ValidationError(errors)

    def prepare_insert(self) -> None:
        """Normalise a new draft. Raises for a message that is no draft, or that the database would refuse."""
        if self.status != Status.DRAFT:
            raise EsmsViberError(
                "A new message is a draft. To send it use esms_viber.services, e.g. queue_viber_message()."
            )
        self.prepare_columns(self.CALLERS_COLUMNS)

    def prepare_columns(self, fields: Iterable[str]) -> None:
        """Normalise the caller's columns among these. Raises `ValidationError` for what the database would refuse."""
        columns = column_names(fields)
        self.normalize(name for name in self.CALLERS_COLUMNS if name in columns)
        if not columns.isdisjoint(choices.KIND_FIELDS):
            self.validate_kind()

    def full_clean(self, exclude: Any = None, validate_unique: bool = True, validate_constraints: bool = True) -> None:
        """Do as Django does, but tell what is wrong with an excluded field of the message as a whole.

        A form fails with a ValueError over an error of a field that it does not have.
        """
        excluded = set(exclude or ())
        found: defaultdict[str, list[ValidationError]] = defaultdict(list)
        try:
            super().full_clean(excluded, validate_unique, validate_constraints)
        except ValidationError as error:
            for name, errors in error.error_dict.items():
                found[NON_FIELD_ERRORS if name in excluded else name] += errors
            raise ValidationError(found) from None

    def clean(self) -> None:
        super().clean()
        self.validate_kind()
        begin, end = self.send_at, self.expires_at
        # `clean_fields()` has refused what is no time.
        if isinstance(begin, dt.datetime) and isinstance(end, dt.datetime) and end <= begin:
            sentence = gettext("It would expire before it may be sent. Choose a later time.")
            raise ValidationError({"expires_at": ValidationError(sentence)})

    def validate(self, passed: dict[tuple[str, str], str] | None = None) -> None:
        """Normalise and check everything but what only the database or the gateway can tell.

        Raises `ValidationError`. The services also check that the gateway's query string can carry the message.
        `passed` keeps the values that have passed, in the form in which they are stored: messages of one call share
        text, links, brand and campaign, and what passed once needs no second look.
        """
        passed = {} if passed is None else passed
        # The app's own columns of a stored row were checked by the database. A default needs no check, because every
        # column but the phone may be left out.
        defaults = _defaults()
        given = [
            (column, here)
            for column in (defaults if self._state.adding else self.CALLERS_COLUMNS)
            if (here := getattr(self, column)) is not defaults[column] and here != {}
        ]
        checked: dict[str, Any] = {"phone": self.phone}
        for column, value in given:
            if type(value) is str and (stored_value := passed.get((column, value))) is not None:
                setattr(self, column, stored_value)
            else:
                checked[column] = value
        self.normalize([column for column in self.CALLERS_COLUMNS if column in checked])
        # Django's own `clean_fields()`, because ours normalises again. A normalised phone needs no second reading.
        names = {self._meta.get_field(column).name for column in checked} - {"phone", "content_type"}
        super().clean_fields(exclude=_names(type(self)) - names)
        self.clean()
        if len(passed) > _MOST_PASSED:
            passed.clear()
        for column in _SHARED & checked.keys():
            if type(value := checked[column]) is str:
                passed[column, value] = getattr(self, column)

    def validate_kind(self) -> None:
        """Raise a `ValidationError` on the part that is missing, saying what to do."""
        validators.validate_kind({name: getattr(self, name) for name in choices.KIND_FIELDS})

    def forget_number(self, phone: str, using: str | None) -> None:
        """Take a phone that was corrected out of the history, where nobody would find it to erase it."""
        for event in self.events.using(using):
            values = event.data if isinstance(event.data, dict) else {}
            event.data = {name: value for name, value in values.items() if not holds_number(str(value), phone)}
            text = "" if holds_number(event.text, phone) else event.text
            if (text, event.data) != (event.text, values):
                event.text = text
                event.save(using=using, update_fields=["text", "data"])
        if holds_number(self.error_message, phone):
            self.error_message = ""
            type(self)._base_manager.using(using).filter(pk=self.pk).update(error_message="")

    # -- the outcome -----------------------------------------------------------------------------------------------

    def raise_for_status(self) -> None:
        """Raise what became of the message, if it is not good news; nothing for draft, fresh, sent and delivered."""
        match self.status:
            case Status.FAILED | Status.UNDELIVERED | Status.CANCELLED:
                raise GatewayRefused(self.code_result, self._remedy())
            case Status.QUEUED if self.code_result:
                raise GatewayRefused(self.code_result, self._remedy())
            case Status.QUEUED if self.error_message in HELD:
                pass
            case Status.QUEUED if self.held_up_since is not None:
                raise EsmsViberError(stored(self.error_message))
            case Status.QUEUED if self.error_message:
                raise GatewayUnreachable(stored(self.error_message))
            case Status.SENDING | Status.UNKNOWN:
                raise OutcomeUnknown(
                    stored(self.error_message)
                    or (self.code_result and str(describe(self.code_result).meaning))
                    or gettext("No trustworthy answer has come; the message may have been sent.")
                )

    def _remedy(self) -> str:
        if self.status == Status.UNDELIVERED:
            return gettext("eSMS reports that it was not delivered; most often the number has no Viber.")
        if self.code_result:
            return str(describe(self.code_result).remedy)
        return stored(self.error_message) or gettext("It was cancelled.")


_STATUS_NAMES = dict(Status.choices)

_SHARED = {*choices.KIND_FIELDS, "brandname", "campaign"}
"""Columns in which messages of one call are often the same."""
_MOST_PASSED = 1000


@functools.cache
def _defaults() -> dict[str, Any]:
    return {field.attname: field.get_default() for field in OutboundViberMessage._meta.fields}


@functools.cache
def _names(model: type[OutboundViberMessage]) -> frozenset[str]:
    return frozenset(field.name for field in model._meta.fields)
