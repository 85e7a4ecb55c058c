"""An opt-out, shown where messages to its phone are written and looked at."""

from __future__ import annotations

from dataclasses import dataclass

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse
from django.utils.translation import gettext as _

from .. import formatting
from ..models import OutboundViberMessage, Status, ViberOptOut
from ..models.opt_out import forbids


@dataclass(frozen=True, slots=True)
class Consent:
    """What the page of a message tells of its phone's opt-out."""

    sentence: str
    note: str
    meaning: str
    """What it means for this message."""
    url: str
    """The page on which it is changed; empty for who may not look at it."""


def opt_out_of(message: OutboundViberMessage) -> ViberOptOut | None:
    """Read the opt-out of a message's phone, whether or not it keeps this message from being sent."""
    rows = ViberOptOut.objects.for_writing()
    found: ViberOptOut | None = rows.filter(phone=message.phone).first() if message.phone else None
    return found


def consent(message: OutboundViberMessage, site: admin.AdminSite, request: HttpRequest) -> Consent | None:
    """Tell of the opt-out of a stored message's phone; None where it has not opted out."""
    found = opt_out_of(message)
    if found is None:
        return None
    sentence = _("This phone has opted out of %(scope)s (since %(time)s).")
    return Consent(
        sentence=sentence % {"scope": found.get_scope_display(), "time": formatting.moment(found.created_at)},
        note=found.note,
        meaning=_meaning(found, message),
        url=page_of(found, site) if _may_look(found, site, request) else "",
    )


def _meaning(found: ViberOptOut, message: OutboundViberMessage) -> str:
    if not forbids(found.scope, message.purpose):
        return _("This message is transactional, and may be sent all the same.")
    if message.status == Status.DRAFT:
        return _("This message would be cancelled instead of sent.")
    if message.status == Status.QUEUED:
        return _("This message is cancelled when its turn comes.")
    return _("This message cannot be sent, or sent again, as long as this phone has opted out.")


def _may_look(found: ViberOptOut, site: admin.AdminSite, request: HttpRequest) -> bool:
    # A site's own admin site may leave them out.
    if not site.is_registered(ViberOptOut):
        return False
    return site.get_model_admin(ViberOptOut).has_view_or_change_permission(request, found)


def page_of(found: ViberOptOut, site: admin.AdminSite) -> str:
    return reverse("admin:esms_viber_viberoptout_change", args=[found.pk], current_app=site.name)


def warning(message: OutboundViberMessage) -> str:
    """Warn who writes to a phone that has opted out; empty for every other phone."""
    found = opt_out_of(message)
    if found is None:
        return ""
    if forbids(found.scope, message.purpose):
        sentence = _("This phone has opted out of %(scope)s: the message would be cancelled instead of sent.")
        return sentence % {"scope": found.get_scope_display()}
    return _(
        "This phone has opted out of promotional messages: send it only what this person waits for, such as news of "
        "an order."
    )
