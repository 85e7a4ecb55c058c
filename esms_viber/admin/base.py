"""Who may do what to a message, and where its page is."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib import messages as notices
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from ..exceptions import MessageNotEditable
from ..models import OutboundViberMessage, Status
from ..transactions import in_transaction, lock, write_alias
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

    def delete_model(self, request: HttpRequest, obj: OutboundViberMessage) -> None:
        if in_transaction(lambda: _delete([obj.pk])):
            raise MessageNotEditable("It is on its way by now.")

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]) -> None:
        pks = sorted(queryset.using(write_alias()).order_by().values_list("pk", flat=True))
        if kept := in_transaction(lambda: _delete(pks)):
            sentence = ngettext(
                "One message was not deleted: it was handed over for sending in the meantime.",
                "%(count)d messages were not deleted: they were handed over for sending in the meantime.",
                kept,
            )
            self.message_user(request, sentence % {"count": kept}, notices.WARNING)

    def page_url(self, pk: int) -> str:
        return reverse("admin:esms_viber_outboundvibermessage_change", args=[pk], current_app=self.admin_site.name)


def _on_their_way(messages: Iterable[OutboundViberMessage]) -> list[str]:
    """Protected: the answer to one of these would find no row, and nobody would know that it was sent."""
    return [
        _("%(message)s: cancel it first, or wait until it is sent.") % {"message": message}
        for message in messages
        if _is_on_its_way(message)
    ]


def _is_on_its_way(message: OutboundViberMessage) -> bool:
    repeated = message.status == Status.UNKNOWN and message.next_attempt_at is not None
    return repeated or message.status in {Status.QUEUED, Status.SENDING}


def _delete(pks: list[int]) -> int:
    """Delete those that are not on their way, and tell how many are: since they were looked at, one may be sent."""
    kept = 0
    rows = OutboundViberMessage.objects.using(write_alias())
    for start in range(0, len(pks), 500):
        locked = list(lock(rows.filter(pk__in=pks[start : start + 500]).order_by("pk")))
        free = [message.pk for message in locked if not _is_on_its_way(message)]
        rows.filter(pk__in=free).delete()
        kept += len(locked) - len(free)
    return kept
