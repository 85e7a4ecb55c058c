"""Normalise and validate the values of a message. Knows no model.

Limits are read from the settings when a value is checked, so that they do not freeze into migrations.
"""

from __future__ import annotations

import datetime as dt
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any, cast

from django.conf import settings
from django.core.exceptions import ValidationError
from django.core.validators import URLValidator, validate_slug
from django.db.backends.base.operations import BaseDatabaseOperations
from django.utils import timezone
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..conf import readable_settings
from ..phones import InvalidPhone, normalize_phone
from .choices import kind_of


def normalize_text(text: object) -> str:
    """NFC with `\\n` line breaks; None, and text of nothing but white space is no text."""
    text = "" if text is None else str(text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text if text.strip() else ""


def as_stored(field: Any, value: Any) -> Any:
    """Bring the value of one of the caller's columns into the form in which it is stored.

    Raises `ValidationError` for a value that some database could not store, so that every database answers alike.
    """
    match field.name:
        case "image_url" | "button_label" | "button_url" | "brandname" | "campaign" | "title":
            return _storable(field, normalize_text(value).strip())
        case "phone":
            return _phone(value)
        case "content":
            return _storable(field, normalize_text(value))
        case "dedupe_key":
            return None if value is None or value == "" else _storable(field, str(value))
        case "object_id":
            return "" if value is None else _storable(field, str(value))
        case "send_at" | "expires_at":
            return _time(field, value)
        case "content_type":
            return _key_of_type(field, value)
        case "purpose":
            return _choice(field, value)
        case "metadata":
            return _metadata(field, value)
        case _:  # sandbox
            return value if isinstance(value, bool) else field.clean(value, None)


def _phone(value: Any) -> str:
    try:
        return normalize_phone(str(value or ""))
    except InvalidPhone as error:
        raise ValidationError(error.message, code=error.code) from None


def _storable(field: Any, text: str) -> str:
    if len(text) > (field.max_length or len(text)) or _UNSTORABLE.search(text):
        field.run_validators(text)
        validate_text(text)
    return text


def _time(field: Any, value: Any) -> dt.datetime | None:
    """A time without a zone is one of the current time zone, as in Django's own forms."""
    if value is None:
        return None
    if not isinstance(value, (str, dt.date)):
        raise ValidationError(field.error_messages["invalid"], code="invalid", params={"value": value})
    when: dt.datetime = field.to_python(value)
    if timezone.is_aware(when) is not settings.USE_TZ:
        return timezone.make_aware(when) if settings.USE_TZ else timezone.make_naive(when)
    return when


def _key_of_type(field: Any, value: Any) -> int | None:
    if value is None:
        return None
    key: int = field.to_python(value)
    # The narrowest of all databases counts; SQLite would take more.
    lowest, highest = BaseDatabaseOperations.integer_field_ranges[field.target_field.get_internal_type()]
    if not lowest <= key <= highest:
        params = {"model": field.related_model._meta.verbose_name, "field": "id", "pk": key, "value": key}
        raise ValidationError(field.error_messages["invalid"], code="invalid", params=params)
    return key


def _choice(field: Any, value: Any) -> str:
    if value not in dict(field.choices):
        raise ValidationError(field.error_messages["invalid_choice"], code="invalid_choice", params={"value": value})
    return str(value)


def _metadata(field: Any, value: Any) -> dict[str, Any]:
    value = {} if value is None else value
    validate_metadata(value)
    # A copy as JSON knows it, which nobody who holds the original can change.
    return cast("dict[str, Any]", json.loads(json.dumps(value)))


# PostgreSQL takes no NUL, and no driver encodes a lone surrogate.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
_ESCAPED_NUL = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")
_UNSENDABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\ud800-\udfff]")


def validate_text(value: str) -> None:
    if found := _UNSENDABLE.search(value):
        raise ValidationError(
            _("The character at position %(position)d cannot be sent; delete it and type it again."),
            code="unsendable",
            params={"position": found.start() + 1},
        )


def validate_content(value: str) -> None:
    _validate_length(value, readable_settings().MAX_CONTENT_LENGTH)


def validate_label(value: str) -> None:
    _validate_length(value, readable_settings().MAX_LABEL_LENGTH)


def _validate_length(value: str, limit: int) -> None:
    if len(value) > limit:
        raise ValidationError(
            _("This has %(length)d characters; at most %(limit)d can be sent. Shorten it by %(excess)d."),
            code="max_length",
            params={"length": len(value), "limit": limit, "excess": len(value) - limit},
        )


MOST_METADATA = 4096
"""Bytes of a message's metadata as JSON in UTF-8."""


def validate_metadata(value: Any) -> None:
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
        length = len(text.encode())
    except (TypeError, ValueError, RecursionError):
        text, length = "", 0
    if not isinstance(value, dict) or not text or _ESCAPED_NUL.search(text):
        raise ValidationError(_("Metadata must be a JSON object."), code="invalid")
    if length > MOST_METADATA:
        raise ValidationError(
            _("The metadata takes %(length)d bytes as JSON; at most %(limit)d are kept."),
            code="max_length",
            params={"length": length, "limit": MOST_METADATA},
        )


def validate_name(value: str) -> None:
    # By a name of our own in migrations, because Django's own writes its expression out, which differs by version.
    validate_slug(value)


def validate_image_url(value: str) -> None:
    _IMAGE_URL(value)


def validate_button_url(value: str) -> None:
    _BUTTON_URL(value)


_IMAGE_URL = URLValidator(["https"], message=_("Give the full address of the image, beginning with https://."))
_BUTTON_URL = URLValidator(["http", "https"], message=_("Give the full address of the link, beginning with https://."))


def validate_kind(parts: Mapping[str, str]) -> None:
    """Raise a `ValidationError` on the part that is missing for any kind of message, saying what to do."""
    if kind_of(name for name, text in parts.items() if text) is None:
        field, sentence = _missing_part(**parts)
        raise ValidationError({field: ValidationError(sentence, code="kind")})


def _missing_part(*, content: str, image_url: str, button_label: str, button_url: str) -> tuple[str, str]:
    if button_label and not button_url:
        return "button_url", gettext("A button needs a link. Give the link, or clear the label.")
    if button_url and not button_label:
        return "button_label", gettext("A button needs a label. Give the label, or clear the link.")
    if button_label and image_url:
        return "content", gettext("A message with an image and a button needs a text as well.")
    if button_label:
        return "content", gettext("A message with a button needs a text.")
    if content:
        sentence = gettext("An image with a text needs a button. Add its label and link, or drop text or image.")
        return "button_label", sentence
    return "content", gettext("Write a text, or give an image.")
