"""The states of a message, the kinds of its events, and the kinds of messages that Viber has."""

from __future__ import annotations

from collections.abc import Iterable

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _
from django.utils.translation import gettext_noop


class Status(models.TextChoices):
    DRAFT = "draft", _("draft")
    QUEUED = "queued", _("queued")
    SENDING = "sending", _("sending")
    UNKNOWN = "unknown", _("unknown")
    SENT = "sent", _("sent")
    DELIVERED = "delivered", _("delivered")
    UNDELIVERED = "undelivered", _("undelivered")
    FAILED = "failed", _("failed")
    CANCELLED = "cancelled", _("cancelled")


class Purpose(models.TextChoices):
    """The more urgent one comes first."""

    TRANSACTIONAL = "transactional", _("transactional")
    PROMOTIONAL = "promotional", _("promotional")


EDITABLE = frozenset({Status.DRAFT, Status.FAILED, Status.CANCELLED})
"""States in which no attempt can have been taken, so that text and phone may still change."""

WAITING = frozenset({Status.QUEUED, Status.UNKNOWN})
"""States from which a worker may take a message, when it is due."""

TAKEN = frozenset({Status.SENT, Status.DELIVERED, Status.UNDELIVERED})
"""States of messages that eSMS took."""

PAUSED = gettext_noop("Not sent yet: sending is paused.")
CAMPAIGN_PAUSED = gettext_noop("Not sent yet: its campaign is paused.")
OUTSIDE_HOURS = gettext_noop("Not sent yet: promotional messages wait for their hours.")
HELD = frozenset({PAUSED, CAMPAIGN_PAUSED, OUTSIDE_HOURS})
"""Why a message waits that nothing is wrong with."""


REDACTED = gettext_noop("Its text and phone were redacted.")
"""Why a message is cancelled that nobody had sent when it was redacted."""


class EventKind(models.TextChoices):
    REQUESTED = "requested", _("requested")
    ATTEMPT = "attempt", _("attempt")
    CALLBACK = "callback", _("callback")
    POLL = "poll", _("status query")
    NOTE = "note", _("note")


class Kind(models.TextChoices):
    """The four layouts that eSMS documents for Viber; the values list the columns that are filled."""

    TEXT = "text", _("text only")
    TEXT_BUTTON = "text_button", _("text and button")
    IMAGE = "image", _("image")
    TEXT_IMAGE_BUTTON = "text_image_button", _("text, image and button")


KIND_FIELDS = ("content", "image_url", "button_label", "button_url")
FILLED: dict[Kind, set[str]] = {
    Kind.TEXT: {"content"},
    Kind.TEXT_BUTTON: {"content", "button_label", "button_url"},
    Kind.IMAGE: {"image_url"},
    Kind.TEXT_IMAGE_BUTTON: set(KIND_FIELDS),
}


def kind_condition(kind: Kind) -> Q:
    """The rows of one kind, those included that were of it until they were redacted."""
    return _filled_as(kind) | Q(redacted_kind=kind)


def _filled_as(kind: Kind) -> Q:
    conditions = [Q(**{name: ""}) if name not in FILLED[kind] else ~Q(**{name: ""}) for name in KIND_FIELDS]
    return Q(*conditions)


def any_kind() -> Q:
    """The rows that are of one of the four kinds."""
    condition = Q()
    for kind in Kind:
        condition |= _filled_as(kind)
    return condition


def kind_of(filled: Iterable[str]) -> Kind | None:
    """The kind of a message in which these of the `KIND_FIELDS` are filled; None for a mix that Viber does not have."""
    found = set(filled)
    return next((kind for kind, names in FILLED.items() if names == found), None)
