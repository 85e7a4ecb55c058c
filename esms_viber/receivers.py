"""`SEND_ON_SAVE`."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.models.signals import post_save
from django.dispatch import receiver

from .conf import get_settings
from .models import OutboundViberMessage, Status
from .services import queue_stored_message


@receiver(post_save, dispatch_uid="esms_viber.send_on_save")
def send_on_save(instance: models.Model, *, created: bool, raw: bool, **kwargs: Any) -> None:
    """Queue a draft when `save()` or `create()` first inserts it; a fixture (raw) queues nothing."""
    # Connected to every sender, because a proxy or child of the model is one of its own.
    if not isinstance(instance, OutboundViberMessage):
        return
    is_new_draft = created and not raw and instance.status == Status.DRAFT
    if is_new_draft and not instance.keep_draft and get_settings().SEND_ON_SAVE:
        queue_stored_message(instance)
