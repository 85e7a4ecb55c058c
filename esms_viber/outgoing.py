"""How a row becomes what a gateway is asked to send."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured
from django.urls import NoReverseMatch, reverse
from django.utils.translation import gettext as _

from .conf import ViberSettings, get_settings
from .gateways.base import OutgoingMessage
from .tokens import make_token

if TYPE_CHECKING:
    from .models import OutboundViberMessage

LARGEST_PK = 2**63 - 1
URLCONF_LINE = 'path("esms-viber/", include("esms_viber.urls"))'


def new_request_id() -> str:
    """32 characters; eSMS documents at most 50."""
    return uuid.uuid4().hex


def callback_url(pk: int, request_id: str, conf: ViberSettings) -> str:
    """Empty without `CALLBACK_ORIGIN`. Holds no `?`: how eSMS adds to an existing query string is not documented."""
    if not conf.CALLBACK_ORIGIN:
        return ""
    try:
        path = reverse("esms_viber:callback", args=[make_token(pk, request_id)])
    except NoReverseMatch:
        sentence = _(
            'ESMS_VIBER["CALLBACK_ORIGIN"] is set, but nothing answers there. Add to your root URLconf: %(line)s'
        )
        raise ImproperlyConfigured(sentence % {"line": URLCONF_LINE}) from None
    return conf.CALLBACK_ORIGIN.rstrip("/") + path


def outgoing_for(message: OutboundViberMessage) -> OutgoingMessage:
    """What goes on the wire now: the sandbox of the row or of the settings, whichever is on."""
    conf = get_settings()
    return _outgoing(message, message.pk, message.request_id, conf)


def longest_outgoing(message: OutboundViberMessage) -> OutgoingMessage:
    """What the message could take at most, whatever primary key and RequestId it gets."""
    return _outgoing(message, LARGEST_PK, new_request_id(), get_settings())


def _outgoing(message: OutboundViberMessage, pk: int, request_id: str, conf: ViberSettings) -> OutgoingMessage:
    return OutgoingMessage(
        phone=message.phone,
        request_id=request_id,
        brandname=message.brandname or conf.BRANDNAME,
        content=message.content,
        image_url=message.image_url,
        button_label=message.button_label,
        button_url=message.button_url,
        callback_url=callback_url(pk, request_id, conf),
        sandbox=message.sandbox or conf.SANDBOX,
    )
