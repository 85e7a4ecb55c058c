"""Who may do what to a message, and where its page is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from ..models import OutboundViberMessage, Status
from . import times

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[OutboundViberMessage]
else:
    ModelAdmin = admin.ModelAdmin


class MessageAdminBase(ModelAdmin):
    formfield_overrides = {models.DateTimeField: times.OVERRIDES}

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("esms_viber.send_outboundvibermessage")

    def has_change_permission(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> bool:
        """Never for what has been handed over for sending: that can be looked at only."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_editable)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        deletable, counts, lacking, protected = super().get_deleted_objects(objs, request)
        return deletable, counts, lacking, [*protected, *_on_their_way(objs)]

    def page_url(self, pk: int) -> str:
        return reverse("admin:esms_viber_outboundvibermessage_change", args=[pk], current_app=self.admin_site.name)


def _on_their_way(messages: Iterable[OutboundViberMessage]) -> list[str]:
    """Protected: the answer to one of these would find no row, and nobody would know that it was sent."""
    return [
        _("%(message)s: cancel it first, or wait until it is sent.") % {"message": message}
        for message in messages
        if message.status in {Status.QUEUED, Status.SENDING}
        or (message.status == Status.UNKNOWN and message.next_attempt_at)
    ]
