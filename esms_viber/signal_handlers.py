"""Handlers of Django's signals: `SEND_ON_SAVE`."""

from __future__ import annotations

import logging
from typing import Any

from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver

from .conf import find_problems, is_dict, readable_settings
from .models import OutboundViberMessage, Status
from .services import queue_stored_message

logger = logging.getLogger("esms_viber")


@receiver(post_save, dispatch_uid="esms_viber.send_on_save")
def send_on_save(instance: models.Model, *, created: bool, raw: bool, **kwargs: Any) -> None:
    """Queue a draft when `save()` or `create()` first inserts it; a fixture (raw) queues nothing."""
    # Connected to every sender, because a proxy or child of the model is one of its own.
    if not isinstance(instance, OutboundViberMessage):
        return
    is_new_draft = created and not raw and instance.status == Status.DRAFT
    if not is_new_draft or instance.keep_draft:
        return
    if readable_settings().SEND_ON_SAVE:
        queue_stored_message(instance)
    elif not is_dict() or "SEND_ON_SAVE" in find_problems():
        # Logged, not raised, because a setting of ours must not cost the site its save.
        logger.error('message %s stays a draft, because ESMS_VIBER["SEND_ON_SAVE"] cannot be read', instance.pk)
