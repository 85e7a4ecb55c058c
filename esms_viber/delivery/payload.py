"""The request for a message, and whether it fits into the gateway's query string."""

from __future__ import annotations

import bisect
import datetime as dt
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from django.core.exceptions import ImproperlyConfigured, ValidationError
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from ..conf import ViberSettings, get_settings, readable_settings
from ..exceptions import log_failure
from ..gateways.base import OutgoingMessage, SendResult
from ..gateways.loading import get_gateway, load_gateway_class
from ..lifecycle import goes_to_sandbox
from ..tokens import LARGEST_PK, callback_url
from .outcomes import is_silent

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..models import OutboundViberMessage

    Measure = Callable[[OutgoingMessage], int | None]


@dataclass(frozen=True, slots=True)
class Probe:
    """The right to make the one call that shows whether a fault is over; see `breaker`."""

    name: str
    """The brand name; empty: the account."""
    until: dt.datetime
    """Another process may probe from then on."""


@dataclass(slots=True, eq=False)
class Attempt:
    """One claimed message and the call to make for it."""

    message: OutboundViberMessage
    outgoing: OutgoingMessage
    first: bool
    """Can no earlier call under this RequestId have been taken?"""
    code: str = ""
    """The code of the call before, to be kept where none is made now."""
    probe: Probe | None = None
    """Where the call is to show whether a fault is over."""
    result: SendResult | None = None
    """Stays None if no call was made."""
    began: dt.datetime = field(default_factory=timezone.now)
    ended: dt.datetime = field(default_factory=timezone.now)
    while_open: bool = False
    """Did the call meet a fault that hits every message? Then it spoils nothing, and counts for nothing."""

    @property
    def is_silent(self) -> bool:
        """Was a call made, and nothing came back that decides anything?"""
        return self.result is not None and is_silent(self.result)


def outgoing_for(message: OutboundViberMessage) -> OutgoingMessage:
    """Build the request. A repeat goes where the first call went, the sandbox or not."""
    conf = get_settings()
    url = callback_url(message.id, message.request_id, conf)
    is_repeat = message.uncertain_since is not None
    sandbox = message.sent_to_sandbox if is_repeat else goes_to_sandbox(message, conf)
    return _outgoing(message, message.request_id, url, conf, sandbox=sandbox)


def longest_outgoing(message: OutboundViberMessage) -> OutgoingMessage:
    """The longest that could go on the wire for the message, whatever primary key and RequestId it gets.

    Settings that cannot be read count as their defaults.
    """
    conf = readable_settings()
    return _outgoing(message, _ANY_REQUEST_ID, _longest_callback_url(conf), conf)


_ANY_REQUEST_ID = "0" * 32


def _longest_callback_url(conf: ViberSettings, *, strict: bool = False) -> str:
    """`strict`: raise `ImproperlyConfigured` where there is no address."""
    try:
        return callback_url(LARGEST_PK, _ANY_REQUEST_ID, conf)
    except ImproperlyConfigured:
        if strict:
            raise
        # The address will be about as long once the setting is mended. A token's signature has 43 characters.
        return f"{conf.CALLBACK_ORIGIN}/esms-viber/callback/{LARGEST_PK}.{_ANY_REQUEST_ID}~{'s' * 43}/"


def _outgoing(
    message: OutboundViberMessage, request_id: str, url: str, conf: ViberSettings, *, sandbox: bool = False
) -> OutgoingMessage:
    return OutgoingMessage(
        phone=message.phone,
        request_id=request_id,
        brandname=message.brandname or conf.BRANDNAME,
        content=message.content,
        image_url=message.image_url,
        button_label=message.button_label,
        button_url=message.button_url,
        callback_url=url,
        sandbox=sandbox,
    )


def query_length(message: OutboundViberMessage) -> int | None:
    """Characters that the message takes in the gateway's query string; None where the gateway has no such limit."""
    return _measure()(longest_outgoing(message))


def _measure(*, strict: bool = False) -> Measure:
    try:
        measure = get_gateway().query_length
    except ImproperlyConfigured:
        if strict:
            raise
        return _usual_query_length

    def measured(outgoing: OutgoingMessage) -> int | None:
        try:
            length = measure(outgoing)
        except Exception as error:  # noqa: BLE001 - a site's own gateway must not cost the caller its transaction
            log_failure(error, "the gateway's query_length() failed, and no limit is known")
            return None
        return length if isinstance(length, int) else None

    return measured


def _usual_query_length(outgoing: OutgoingMessage) -> int | None:
    try:
        return load_gateway_class(readable_settings()).usual_query_length(outgoing)
    except ImproperlyConfigured:
        return None


class QueryLimit:
    """What the gateway's GET can carry. The gateway, the settings and the callback's address are looked up once."""

    def __init__(self, *, strict: bool = False) -> None:
        """`strict`: raise `ImproperlyConfigured` where a setting keeps every message from being sent.

        Otherwise a message passes, unless it is sure that eSMS could not carry it.
        """
        self._measure, self._conf = _measure(strict=strict), readable_settings()
        self._callback_url = _longest_callback_url(self._conf, strict=strict)

    def validate(self, message: OutboundViberMessage) -> None:
        """Refuse a text that is too long, saying what to do and with both lengths."""
        outgoing = _outgoing(message, _ANY_REQUEST_ID, self._callback_url, self._conf)
        length, limit = self._measure(outgoing), self._conf.MAX_QUERY_LENGTH
        if length is None or length <= limit:
            return
        fitting = _most_that_fits(self._measure, outgoing, limit)
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
    # The phone may be half typed, and would not be valid.
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
