"""The preview beside a message that is written: the phone on which Viber will show it, and what is wrong with it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from urllib.parse import urlsplit

from django import forms
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest, JsonResponse

from ..conf import get_settings
from ..models import OutboundViberMessage
from ..phones import InvalidPhone, normalize_phone, spaced_phone
from .consent import warning
from .form_fields import room

CHECK = "_check"


_IMAGES = (".png", ".jpg", ".jpeg", ".gif", ".webp")


@dataclass(frozen=True, slots=True)
class Bubble:
    """The message as the phone shows it; empty parts are left out."""

    brand: str
    text: str
    image_url: str
    image: str
    """The address from which the browser may load the picture. If it is empty, `image_url` is shown as text instead."""
    button_label: str
    button_url: str


def bubble(message: OutboundViberMessage, request: HttpRequest) -> Bubble:
    leads_to_web = message.button_url.startswith(("http://", "https://"))
    return Bubble(
        brand=message.brandname or own_brand(),
        text=message.content,
        image_url=message.image_url,
        image=_local(message.image_url, request.get_host()),
        button_label=message.button_label,
        button_url=message.button_url if leads_to_web else "",
    )


def own_brand() -> str:
    """Return the site's brand name; empty where the settings are wrong, because the page must open all the same."""
    try:
        return get_settings().BRANDNAME
    except ImproperlyConfigured:
        return ""


def _local(url: str, host: str) -> str:
    """Return the path of a picture on this host; empty for every other address.

    Another host would learn who looks at a message. Another address of the site might do something when it is called.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if parts.scheme != "https" or parts.netloc != host or not parts.path.lower().endswith(_IMAGES):
        return ""
    # Begin with one slash only, because two name a host, and browsers read a backslash as a slash.
    return "/" + parts.path.lstrip("/\\") + (f"?{parts.query}" if parts.query else "")


def checked(form: forms.BaseForm, messages: list[OutboundViberMessage]) -> JsonResponse:
    """Answer with a form's errors by field, its phone as it would be stored, and the room that the messages leave.

    It warns of a phone that has opted out; no error, because a draft may be kept until the person agrees.
    """
    errors = {name: [str(sentence) for sentence in sentences] for name, sentences in form.errors.items()}
    try:
        found = normalize_phone(str(form.data.get("phone", "")))
        phone, opted_out = f"{spaced_phone(found)} ({found})", warning(messages[0])
    except InvalidPhone:
        phone = opted_out = ""
    return JsonResponse({"errors": errors, "phone": phone, "opted_out": opted_out, "room": asdict(room(messages))})
