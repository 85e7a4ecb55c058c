"""The interface of gateways: the message that goes out, and the results that come back. Knows no model."""

from __future__ import annotations

import datetime as dt
import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Self

from django.utils.translation import gettext_noop

if TYPE_CHECKING:
    from ..conf import ViberSettings


CANNOT_TELL = gettext_noop("This gateway cannot tell.")


class CallOutcome(enum.Enum):
    """How far a call got."""

    ANSWERED = "answered"
    """A readable JSON object with a code came back, whatever the HTTP status."""
    ANSWERED_WITHOUT_CODE = "answered_without_code"
    """A readable JSON object came back, but no code in it."""
    NO_ANSWER = "no_answer"
    """The request left, and no trustworthy answer came: time-out, reset, redirect, not JSON, too large."""
    NOT_CONNECTED = "not_connected"
    """Not one byte of the request left: name not found, connection refused, connect time-out, TLS failure."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutgoingMessage:
    """One message to one phone, as a gateway is asked to send it."""

    phone: str
    """E.164, e.g. `+84901888484`."""
    request_id: str
    """At most 50 characters; eSMS takes each once a day."""
    brandname: str
    content: str = ""
    """Line breaks as `\\n`."""
    image_url: str = ""
    button_label: str = ""
    button_url: str = ""
    callback_url: str = ""
    """If empty, no callback is asked for."""
    sandbox: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SendResult:
    """The result of one call. Holds no key and no query string."""

    outcome: CallOutcome
    code: str = ""
    """`CodeResult` as text; empty unless `outcome` is `ANSWERED`."""
    sms_id: str = ""
    """The gateway's id. Its presence does not mean success."""
    text: str = ""
    """The gateway's own words, or what went wrong with the call, for a person to read; at most 500 characters."""
    http_status: int | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StatusResult:
    """The answer to a status query."""

    outcome: CallOutcome
    code: str = ""
    text: str = ""
    http_status: int | None = None
    duration_ms: int = 0
    values: Mapping[str, str] = field(default_factory=dict)
    """The answer's scalar fields as text, names as the gateway wrote them; bounded like a callback's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalanceResult:
    """The answer to a balance query."""

    outcome: CallOutcome
    code: str = ""
    balance: Decimal | None = None
    """In VND; None unless the code is 100, because a refusal carries a 0 that means nothing."""
    text: str = ""
    http_status: int | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class BrandnamesResult:
    """The answer to the question for the account's brand names."""

    outcome: CallOutcome
    code: str = ""
    brandnames: tuple[str, ...] | None = None
    """The names that are active for Viber; None where the gateway did not tell."""
    text: str = ""
    http_status: int | None = None
    duration_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class SentEntry:
    """One message to one phone in the gateway's list of what was sent. Phone and text stay out of `repr()`."""

    sms_id: str
    """The id that the answer to the send call had."""
    phone: str = field(repr=False)
    """E.164."""
    content: str = field(default="", repr=False)
    sent_at: dt.datetime
    """When the gateway created it."""
    send_status: int | None = None
    """As in a delivery report; None where the entry has none that can be read."""
    delivered: bool | None = None
    """How it ended, where `send_status` is 5; None: undetermined."""
    price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SentResult:
    """One page of the gateway's list of what was sent."""

    outcome: CallOutcome
    code: str = ""
    entries: tuple[SentEntry, ...] | None = None
    """Those that can be read; None where the gateway gave no list."""
    unreadable: tuple[str, ...] = field(default=(), repr=False)
    """The phones of entries that are left out; an empty text where even the phone cannot be read."""
    total: int | None = None
    """The number of entries on all pages; None where the gateway did not tell."""
    text: str = ""
    http_status: int | None = None
    duration_ms: int = 0


class BaseGateway(ABC):
    """The base class of gateways. One instance serves a whole process, from many threads at once."""

    stand_in: ClassVar[str] = ""
    """Dotted path of the gateway that replaces this one in a test run; empty for none."""

    @classmethod
    def from_settings(cls, conf: ViberSettings) -> Self:
        """Build the gateway; raise `ImproperlyConfigured`, naming the setting, if one is missing."""
        return cls()

    @abstractmethod
    def send(self, message: OutgoingMessage, *, deadline: float | None = None) -> SendResult:
        """Make one call, never repeat it, and raise nothing.

        `deadline`: the moment of `time.monotonic()` at which the call must have ended, the look-up of the name
        included. What is not answered by then is a time-out like any other.
        """

    @abstractmethod
    def fetch_status(self, sms_id: str) -> StatusResult:
        """Ask for a message's status; raise nothing."""

    @abstractmethod
    def fetch_balance(self) -> BalanceResult:
        """Ask for the account's balance; raise nothing."""

    def fetch_brandnames(self) -> BrandnamesResult:
        """Ask which brand names are active for Viber; raise nothing."""
        return BrandnamesResult(outcome=CallOutcome.NOT_CONNECTED, text=CANNOT_TELL)

    def fetch_sent(self, begin: dt.datetime, end: dt.datetime, page: int) -> SentResult:
        """Ask for a page, from 1 on, of the messages created between two times at most three days apart; raise nothing.

        Only the real ones: the gateway keeps no record of sandbox messages.
        """
        return SentResult(outcome=CallOutcome.NOT_CONNECTED, text=CANNOT_TELL)

    def query_length(self, message: OutgoingMessage) -> int | None:
        """Return how many characters the message takes in an encoded query string; None if that has no limit."""
        return self.usual_query_length(message)

    @classmethod
    def usual_query_length(cls, message: OutgoingMessage) -> int | None:
        """Estimate `query_length()` from the class alone, for a gateway that cannot be built yet."""
        return None

    def __getstate__(self) -> Any:
        raise TypeError(f"{type(self).__name__} holds an account's keys and does not pickle")
