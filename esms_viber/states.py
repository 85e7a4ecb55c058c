"""The states of a message and the kinds of its events, by the names that are stored."""

from __future__ import annotations

from django.db import models
from django.utils.translation import gettext_lazy as _


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


EDITABLE = frozenset({Status.DRAFT, Status.FAILED, Status.CANCELLED})
"""States in which no attempt can have been taken, so that text and phone may still change."""

WAITING = frozenset({Status.QUEUED, Status.UNKNOWN})
"""States from which a sender may take a message, when it is due."""


class EventKind(models.TextChoices):
    REQUESTED = "requested", _("requested")
    ATTEMPT = "attempt", _("attempt")
    CALLBACK = "callback", _("callback")
    POLL = "poll", _("status query")
    NOTE = "note", _("note")
