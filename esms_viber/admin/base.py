"""Permissions, deletion and form fields that every page of the messages shares."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from ..database import atomic_for_writing, in_chunks, in_transaction
from ..exceptions import MessageNotEditable
from ..models import OutboundViberMessage, Status
from . import form_fields

if TYPE_CHECKING:
    ModelAdmin = admin.ModelAdmin[OutboundViberMessage]
else:
    ModelAdmin = admin.ModelAdmin


def in_one_transaction(request: HttpRequest) -> AbstractContextManager[None]:
    """Open a transaction for a POST to a view of Django's, in which it may read before it writes, also on SQLite."""
    if request.method != "POST":
        return nullcontext()
    return atomic_for_writing(OutboundViberMessage.objects.write_alias())


class MessageAdminBase(ModelAdmin):
    formfield_overrides = {models.DateTimeField: form_fields.OVERRIDES}

    def __init__(self, model: type[OutboundViberMessage], admin_site: admin.AdminSite) -> None:
        """Refuse a child model with a primary key of its own, because the pages find messages by their id."""
        super().__init__(model, admin_site)
        key: Any = model._meta.pk
        while key.remote_field and key.remote_field.parent_link:
            key = key.target_field
        if key.model._meta.concrete_model is not OutboundViberMessage:
            raise ImproperlyConfigured(
                f"{model.__name__} has a primary key of its own, so this admin cannot show it. Register "
                "OutboundViberMessage, or a proxy of it."
            )

    def has_send_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("esms_viber.send_outboundvibermessage")

    def has_redact_permission(self, request: HttpRequest) -> bool:
        return request.user.has_perm("esms_viber.redact_outboundvibermessage")

    def has_change_permission(self, request: HttpRequest, obj: OutboundViberMessage | None = None) -> bool:
        """Let nobody change a message that was handed over for sending; it can only be viewed."""
        return super().has_change_permission(request, obj) and (obj is None or obj.is_editable)

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        deletable, counts, lacking, protected = super().get_deleted_objects(objs, request)
        # If one of these were deleted, eSMS's answer would find no row, and nobody would know that it was sent.
        sentence = _("%(message)s: cancel it first, or wait until it is sent.")
        on_their_way = [sentence % {"message": message} for message in objs if _is_on_its_way(message)]
        return deletable, counts, lacking, [*protected, *on_their_way]

    def delete_model(self, request: HttpRequest, obj: OutboundViberMessage) -> None:
        _delete([obj.id])

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[OutboundViberMessage]) -> None:
        rows = queryset.using(OutboundViberMessage.objects.write_alias())
        _delete(list(rows.order_by().values_list("id", flat=True)))

    def page_url(self, pk: int) -> str:
        is_registered = self.admin_site.is_registered(OutboundViberMessage)
        opts = OutboundViberMessage._meta if is_registered else self.opts
        name = f"admin:{opts.app_label}_{opts.model_name}_change"
        return reverse(name, args=[pk], current_app=self.admin_site.name)


def _is_on_its_way(message: OutboundViberMessage) -> bool:
    repeated = message.status == Status.UNKNOWN and message.next_attempt_at is not None
    return repeated or message.status in {Status.QUEUED, Status.SENDING}


def _delete(pks: list[int]) -> None:
    """Delete all of them, or none and raise `MessageNotEditable` if one was handed over for sending meanwhile."""
    rows = OutboundViberMessage.objects

    def write() -> None:
        if any(_is_on_its_way(message) for message in rows.locked(pks)):
            raise MessageNotEditable("It was handed over for sending in the meantime.")
        for chunk in in_chunks(pks):
            rows.for_writing().filter(pk__in=chunk).delete()

    in_transaction(write, using=rows.write_alias())


MOST_AT_ONCE = 1500
"""Messages that one request plans and queues. More are sent or cancelled in slices."""
