"""What a Viber message may hold. Limits are read when checked, so that they do not freeze into migrations."""

from __future__ import annotations

import bisect
import datetime as dt
import re
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.core.validators import URLValidator
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.models import Q, TextChoices
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from .conf import readable_settings
from .gateways import get_gateway, load_gateway_class
from .gateways.console import ConsoleGateway
from .gateways.esms import EsmsGateway, usual_query_length
from .gateways.memory import MemoryGateway
from .outgoing import longest_outgoing
from .phones import InvalidPhone, normalize_phone
from .tracebacks import log_failure

if TYPE_CHECKING:
    from .gateways.base import OutgoingMessage
    from .models import OutboundViberMessage

    Measure = Callable[[OutgoingMessage], int | None]


class Kind(TextChoices):
    """The four layouts that eSMS documents for Viber; the values list the columns that are filled."""

    TEXT = "text", _("text only")
    TEXT_BUTTON = "text_button", _("text and button")
    IMAGE = "image", _("image")
    TEXT_IMAGE_BUTTON = "text_image_button", _("text, image and button")


KIND_FIELDS = ("content", "image_url", "button_label", "button_url")
FILLED = {
    Kind.TEXT: {"content"},
    Kind.TEXT_BUTTON: {"content", "button_label", "button_url"},
    Kind.IMAGE: {"image_url"},
    Kind.TEXT_IMAGE_BUTTON: set(KIND_FIELDS),
}


def kind_condition(kind: Kind) -> Q:
    """The rows of one kind."""
    conditions = [Q(**{name: ""}) if name not in FILLED[kind] else ~Q(**{name: ""}) for name in KIND_FIELDS]
    return Q(*conditions)


def any_kind() -> Q:
    """The rows that are of one of the four kinds."""
    condition = Q()
    for kind in Kind:
        condition |= kind_condition(kind)
    return condition


def kind_of(message: OutboundViberMessage) -> Kind | None:
    """The layout of a message; None for a mix that Viber does not have."""
    filled = {name for name in KIND_FIELDS if getattr(message, name)}
    return next((kind for kind, fields in FILLED.items() if fields == filled), None)


def normalize_text(text: object) -> str:
    """NFC with `\\n` line breaks; None, and text of nothing but white space is no text."""
    text = "" if text is None else str(text)
    text = unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))
    return text if text.strip() else ""


def normalize(message: OutboundViberMessage, columns: Iterable[str] | None = None) -> None:
    """Bring the caller's columns, or these of them, into the form in which they are stored.

    Raises one `ValidationError` for all those that no database could store, so that every database answers alike.
    """
    errors = {}
    for column in message.CALLERS_COLUMNS if columns is None else columns:
        field: Any = message._meta.get_field(column)
        try:
            setattr(message, column, _as_stored(field, getattr(message, column)))
        except ValidationError as error:
            errors[field.name] = error
            if column == "phone":
                # The checks that follow in `full_clean()` build the request, which wants a text.
                message.phone = str(message.phone or "")
    if errors:
        raise ValidationError(errors)


def _as_stored(field: Any, value: Any) -> Any:
    match field.name:
        case "image_url" | "button_label" | "button_url" | "brandname" | "campaign":
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


# PostgreSQL takes no NUL, and no driver encodes a lone surrogate.
_UNSTORABLE = re.compile(r"[\x00\ud800-\udfff]")
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


def validate_image_url(value: str) -> None:
    _validate_url(value, ["https"], _("Give the full address of the image, beginning with https://."))


def validate_button_url(value: str) -> None:
    _validate_url(value, ["http", "https"], _("Give the full address of the link, beginning with https://."))


def _validate_url(value: str, schemes: list[str], message: Any) -> None:
    URLValidator(schemes=schemes, message=message)(value)


def validate_kind(message: OutboundViberMessage) -> None:
    """Raise a `ValidationError` on the field that is missing, saying what to do."""
    if kind_of(message) is None:
        field, sentence = _missing_field(message)
        raise ValidationError({field: ValidationError(sentence, code="kind")})


def _missing_field(message: OutboundViberMessage) -> tuple[str, Any]:
    if message.button_label and not message.button_url:
        return "button_url", _("A button needs a link. Give the link, or clear the label.")
    if message.button_url and not message.button_label:
        return "button_label", _("A button needs a label. Give the label, or clear the link.")
    if message.button_label and message.image_url:
        return "content", _("A message with an image and a button needs a text as well.")
    if message.button_label:
        return "content", _("A message with a button needs a text.")
    if message.content:
        return "button_label", _("An image with a text needs a button. Add its label and link, or drop text or image.")
    return "content", _("Write a text, or give an image.")


def validate_times(message: OutboundViberMessage) -> None:
    begin, end = message.send_at, message.expires_at
    # What is no time was refused before.
    if isinstance(begin, dt.datetime) and isinstance(end, dt.datetime) and end <= begin:
        raise ValidationError(
            {"expires_at": ValidationError(_("It would expire before it may be sent. Choose a later time."))}
        )


def query_length(message: OutboundViberMessage) -> int | None:
    """Characters that the message takes in the gateway's query string; None where the gateway has no such limit."""
    return _measure()(longest_outgoing(message))


def _measure() -> Measure:
    try:
        measure = get_gateway().query_length
    except ImproperlyConfigured:
        # The message is taken all the same, unless it is sure that eSMS could not carry it.
        return usual_query_length if _has_usual_limit() else lambda outgoing: None

    def measured(outgoing: OutgoingMessage) -> int | None:
        try:
            length = measure(outgoing)
        except Exception as error:  # noqa: BLE001 - a site's own gateway must not cost the caller its transaction
            log_failure(error, "the gateway's query_length() failed, and no limit is known")
            return None
        return length if isinstance(length, int) else None

    return measured


def _has_usual_limit() -> bool:
    try:
        return issubclass(load_gateway_class(readable_settings()), (EsmsGateway, ConsoleGateway, MemoryGateway))
    except ImproperlyConfigured:
        return False


def validate_query_length(message: OutboundViberMessage) -> None:
    """Refuse a text that the gateway's GET cannot carry, saying what to do and with both lengths."""
    measure, limit = _measure(), readable_settings().MAX_QUERY_LENGTH
    outgoing = longest_outgoing(message)
    length = measure(outgoing)
    if length is None or length <= limit:
        return
    fitting = _most_that_fits(measure, outgoing, limit)
    if fitting is None:
        field = max(("image_url", "button_url"), key=lambda name: len(getattr(message, name)))
        excess, sentence = length - limit, _LINK_TOO_LONG
    else:
        field, excess, sentence = "content", len(outgoing.content) - fitting, _TEXT_TOO_LONG
    params = {"length": length, "limit": limit, "excess": excess}
    raise ValidationError({field: ValidationError(sentence, code="query_length", params=params)})


_TEXT_TOO_LONG = _(
    "Too long. Characters to take out: about %(excess)d. Encoded for the gateway the message takes %(length)d "
    "characters; at most %(limit)d fit."
)
_LINK_TOO_LONG = _(
    "Too long. Characters to take out of the link: about %(excess)d. Encoded for the gateway the message takes "
    "%(length)d characters; at most %(limit)d fit."
)


def characters_left(message: OutboundViberMessage) -> int:
    """About how many characters the text can grow by until Viber's limit or the gateway's; negative: it is too long.

    What a character takes in the gateway's query depends on it: an "a" one, an "ệ" nine. The text is taken to go on as
    it is, and while it is short as Vietnamese is.
    """
    conf, measure = readable_settings(), _measure()
    # Whatever has been typed for a phone so far.
    outgoing = replace(longest_outgoing(message), phone="+84901888484")
    by_viber = conf.MAX_CONTENT_LENGTH - len(outgoing.content)
    length = measure(outgoing)
    if length is None:
        return by_viber
    if length > conf.MAX_QUERY_LENGTH:
        fitting = _most_that_fits(measure, outgoing, conf.MAX_QUERY_LENGTH)
        return min(by_viber, (fitting or 0) - len(outgoing.content))
    example = outgoing.content + _VIETNAMESE
    taken = (measure(replace(outgoing, content=example)) or 0) - (measure(replace(outgoing, content="")) or 0)
    return min(by_viber, (conf.MAX_QUERY_LENGTH - length) * len(example) // taken)


_VIETNAMESE = "Cà Phê Sớm xin chào, đơn hàng của bạn đã sẵn sàng. Mời bạn ghé cửa hàng nhận trong hôm nay nhé!"


def _most_that_fits(measure: Measure, outgoing: OutgoingMessage, limit: int) -> int | None:
    """Characters of the text, from its beginning; None where the rest of the message is too long without any."""
    text = outgoing.content

    def length(characters: int) -> int:
        return measure(replace(outgoing, content=text[:characters])) or 0

    fitting = bisect.bisect_right(range(len(text) + 1), limit, key=length) - 1
    return fitting if fitting >= 0 else None
