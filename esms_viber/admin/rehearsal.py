"""*Send me this first*: one real message, now, to a phone of one's own, outside of campaigns and figures."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from django.contrib import admin
from django.contrib.admin.utils import unquote
from django.contrib.messages import constants as levels
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, ValidationError
from django.db import IntegrityError
from django.http import HttpRequest
from django.utils.translation import gettext as _

from .. import creation, services
from ..conf import readable_settings
from ..models import OutboundViberMessage, ViberMessageEvent
from ..phones import spaced_phone
from .base import MessageAdminBase
from .filling import parts_of
from .forms import REHEARSE, fingerprint
from .notices import Notice, report, report_configuration, user_of

if TYPE_CHECKING:
    from django import forms

    ModelAdmin = admin.ModelAdmin[Any]
else:
    ModelAdmin = admin.ModelAdmin

PHONE, ID = "rehearsal_phone", "rehearsal_id"

_REMEMBERED = "esms_viber_rehearsal_phone"
"""The key of the session."""

_DONE_WITHOUT = {"phone", "phones", "file", "campaign", "dedupe_key", "send_at", "expires_at", "name"}
"""Fields that a rehearsal leaves out, so that their errors wait until the form is saved."""


@dataclass(frozen=True, slots=True)
class Offer:
    """The button, as the template shows it."""

    phone: str
    form: str = ""
    """The id of the form, if the button stands outside of it."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    """By it the second post of a double click is known."""


def offer(request: HttpRequest, *, form: str = "") -> Offer:
    typed = request.POST.get(PHONE) or request.session.get(_REMEMBERED, "")
    return Offer(typed, form)


def forgive(form: forms.BaseForm) -> None:
    """Drop the errors of fields that a rehearsal leaves out."""
    for name in _DONE_WITHOUT & form.errors.keys():
        del form.errors[name]


class ShownAgain:
    """A form that is shown again with all that was typed, because a rehearsal saves nothing."""

    def full_clean(self) -> None:
        super().full_clean()  # type: ignore[misc] # it is mixed into a form
        forgive(self)  # type: ignore[arg-type] # as above

    def is_valid(self) -> bool:
        return False


class WritingAdmin(ModelAdmin):
    """The admin of something that is written beside a preview: its form is also checked and rehearsed unsaved."""

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change, **kwargs)
        return type(form.__name__, (ShownAgain, form), {}) if REHEARSE in request.POST else form

    def written(self, request: HttpRequest, object_id: str | None) -> Any:
        """Return the posted form with the errors that saving it would show, without saving it.

        Raises `PermissionDenied` for whoever may not save it.
        """
        stored = None if object_id is None else self.get_object(request, unquote(object_id))
        if stored is None and (object_id is not None or not self.has_add_permission(request)):
            raise PermissionDenied
        if stored is not None and not self.has_change_permission(request, stored):
            raise PermissionDenied
        form = self.get_form(request, stored, change=stored is not None)(request.POST, instance=stored)
        form.full_clean()
        return form


def message_admin_of(site: admin.AdminSite) -> MessageAdminBase | None:
    """Find the admin of the messages, or of a site's own kind of them."""
    return next((found for found in site._registry.values() if isinstance(found, MessageAdminBase)), None)


def may_rehearse(model_admin: MessageAdminBase, request: HttpRequest) -> bool:
    """A rehearsal is a message of its own: to send it takes what *Save and send* takes for a new one."""
    return model_admin.has_send_permission(request) and model_admin.has_add_permission(request)


def rehearse(model_admin: MessageAdminBase, request: HttpRequest, written: Any, *, terms: Any) -> None:
    """Send the texts of `written`, with brand name, purpose and sandbox of `terms`, and tell the outcome.

    It obeys pauses, hours and opt-outs like any other message. The second post of a double click sends nothing.
    """
    if not may_rehearse(model_admin, request):
        raise PermissionDenied
    message = OutboundViberMessage(
        phone=request.POST.get(PHONE, ""),
        **parts_of(written),
        brandname=getattr(terms, "brandname", ""),
        sandbox=getattr(terms, "sandbox", False),
        purpose=terms.purpose,
        rehearsal=True,
    )
    try:
        creation.validate(message, strict=True)
        request.session[_REMEMBERED] = spaced_phone(message.phone)
        mark = fingerprint(request.POST.get(ID, ""), message) if request.POST.get(ID) else None
        stored = _send(request, message, mark)
    except ValidationError as error:
        model_admin.message_user(request, " ".join([_("It was not sent."), *error.messages]), levels.ERROR)
    except ImproperlyConfigured as error:
        report_configuration(model_admin, request, error)
    else:
        twice = Notice(levels.INFO, _("The form arrived twice; the message was sent once."))
        report(model_admin, request, [stored.id], [] if stored is message else [twice])


def _send(request: HttpRequest, message: OutboundViberMessage, mark: str | None) -> OutboundViberMessage:
    try:
        return services.send_new_message(message, user=user_of(request), mark=mark)
    except IntegrityError:
        rows = ViberMessageEvent.objects.for_writing().select_related("message")
        event = rows.filter(fingerprint=mark).first() if mark else None
        if event is None:
            raise
        first: OutboundViberMessage = event.message
        return first


def only_to_sentence() -> str:
    """Say on which phones messages arrive, where the settings name them."""
    if readable_settings().ONLY_TO is None:
        return ""
    return _(
        "On this site only the phones in the setting ONLY_TO get messages. What is written to any other goes to the "
        "sandbox, which checks it and neither delivers nor charges it."
    )
