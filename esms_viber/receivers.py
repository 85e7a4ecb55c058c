"""`SEND_ON_SAVE`."""

from __future__ import annotations

from typing import Any

from django.db.models.signals import post_save
from django.dispatch import receiver

from .conf import readable_settings
from .models import OutboundViberMessage, Status
from .services import queue_stored_message


@receiver(post_save, sender=OutboundViberMessage, dispatch_uid="esms_viber.send_on_save")
def send_on_save(instance: OutboundViberMessage, *, created: bool, raw: bool, **kwargs: Any) -> None:
    """Queue a draft when `save()` or `create()` first inserts it; a fixture (raw) queues nothing."""
    is_new_draft = created and not raw and instance.status == Status.DRAFT
    if is_new_draft and not instance.keep_draft and readable_settings().SEND_ON_SAVE:
        queue_stored_message(instance)
