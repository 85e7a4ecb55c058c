"""eSMS.vn over HTTPS: the operations SendMultipleMessage_V4_get, GetSendStatus, GetSmsSentData_V2, GetBalance_json and
GetListBrandname."""

from __future__ import annotations

import datetime as dt
import string
import unicodedata
from time import monotonic
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from django.core.exceptions import ImproperlyConfigured
from django.utils.translation import gettext as _

from .. import __version__
from ..conf import BASE_URL, sealed
from ..phones import to_national
from .base import (
    BalanceResult,
    BaseGateway,
    BrandnamesResult,
    OutgoingMessage,
    SendResult,
    SentResult,
    StatusResult,
)
from .credentials import Keys
from .responses import VIBER_TYPE, VIETNAM, Answer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..conf import ViberSettings


_USUAL_KEYS = len("&ApiKey=&SecretKey=") + 2 * 30
"""The length of both keys in a query string; those in public samples have 30 characters each."""
_PATIENCE = 10
"""Seconds for a question. People wait for most of them in a web request, and asking again does no harm."""
_PAGE_SIZE = 500
"""Entries of one page of the list of what was sent; eSMS documents this as the most."""
_MAX_LIST_BYTES = 4 * 1024 * 1024
"""For one page: 500 texts of Viber's 1000 characters take 3 MB where each is escaped as `\\u1ea1`, and the rest of an
entry some 500 bytes."""
_HEADERS = {"Accept": "application/json", "User-Agent": f"django-esms-viber/{__version__}"}


class EsmsGateway(BaseGateway):
    """The gateway to eSMS. The keys travel in the query string, as eSMS wants it, and show nowhere else."""

    stand_in = "esms_viber.gateways.memory.MemoryGateway"

    def __init__(
        self,
        *,
        api_key: str,
        secret_key: str,
        base_url: str,
        timeout: tuple[float, float],
        pool_size: int,
    ) -> None:
        """Raise `ValueError` for an invalid base URL. `timeout` is seconds to connect, and seconds for the answer."""
        self._keys = Keys(api_key, secret_key)
        # The keys are deleted here, because the traceback of an error below would show them.
        del api_key, secret_key
        # Imported by the first gateway, because requests and urllib3 would delay the start of every process by 40 ms.
        from .transport import Transport

        if not BASE_URL.fullmatch(base_url):
            raise ValueError("base_url must be an http(s) URL without user, query and fragment")
        self._transport = Transport(base_url, timeout=timeout, pool_size=pool_size, headers=_HEADERS)

    @classmethod
    @sealed
    def from_settings(cls, conf: ViberSettings) -> Self:
        for name in ("API_KEY", "SECRET_KEY", "BRANDNAME"):
            if not getattr(conf, name).strip():
                raise ImproperlyConfigured(
                    _('ESMS_VIBER["%(name)s"] is empty, and nothing can be sent without it.') % {"name": name}
                )
        connect, read = conf.TIMEOUT
        try:
            return cls(
                api_key=conf.API_KEY,
                secret_key=conf.SECRET_KEY,
                base_url=conf.BASE_URL,
                timeout=(connect, read),
                pool_size=conf.CONCURRENCY,
            )
        except ValueError as error:
            raise ImproperlyConfigured(
                _('ESMS_VIBER["BASE_URL"] must be an http(s) URL without user, query and fragment.')
            ) from error

    @sealed
    def send(self, message: OutgoingMessage, *, deadline: float | None = None) -> SendResult:
        reply = self._transport.get("SendMultipleMessage_V4_get", send_query(message), self._keys.query, deadline)
        return Answer(reply, self._keys).as_send_result()

    @sealed
    def fetch_status(self, sms_id: str) -> StatusResult:
        deadline = monotonic() + _PATIENCE
        reply = self._transport.get("GetSendStatus", encode({"RefId": sms_id}), self._keys.query, deadline)
        return Answer(reply, self._keys).as_status_result()

    @sealed
    def fetch_balance(self) -> BalanceResult:
        reply = self._transport.post("GetBalance_json", self._keys.body, monotonic() + _PATIENCE)
        return Answer(reply, self._keys).as_balance_result()

    @sealed
    def fetch_brandnames(self) -> BrandnamesResult:
        reply = self._transport.get_below("GetListBrandname", self._keys.path, monotonic() + _PATIENCE)
        return Answer(reply, self._keys).as_brandnames_result()

    @sealed
    def fetch_sent(self, begin: dt.datetime, end: dt.datetime, page: int) -> SentResult:
        """Ask for a page of 500 entries. eSMS is taken to read both times in Vietnam's."""
        body = self._keys.body_with(
            SmsType=VIBER_TYPE,
            From=_in_vietnam(begin),
            To=_in_vietnam(end),
            Page=page,
            PageSize=_PAGE_SIZE,
        )
        reply = self._transport.post("GetSmsSentData_V2", body, monotonic() + _PATIENCE, most_bytes=_MAX_LIST_BYTES)
        return Answer(reply, self._keys).as_sent_result()

    def query_length(self, message: OutgoingMessage) -> int:
        return _encoded_length(send_parameters(message)) + len("&") + len(self._keys.query)

    @classmethod
    def usual_query_length(cls, message: OutgoingMessage) -> int:
        """Assume keys as long as those that eSMS hands out."""
        return _encoded_length(send_parameters(message)) + _USUAL_KEYS

    def close(self) -> None:
        """Close the idle connections."""
        self._transport.close()


def _in_vietnam(when: dt.datetime) -> str:
    return when.astimezone(VIETNAM).strftime("%Y-%m-%d %H:%M:%S")


def send_parameters(message: OutgoingMessage) -> dict[str, str]:
    """Return the message under eSMS's parameter names, without the keys and without empty values."""
    content = unicodedata.normalize("NFC", message.content)
    # Every new line becomes \r\n, because eSMS's documentation of Viber messages asks for it.
    content = content.replace("\r\n", "\n").replace("\n", "\r\n")
    found = {
        "SmsType": VIBER_TYPE,
        "Phone": to_national(message.phone),
        "Content": content,
        "OTTImgUrl": message.image_url,
        "OTTUrl": message.button_url,
        "OTTLabel": unicodedata.normalize("NFC", message.button_label),
        "Brandname": message.brandname,
        "RequestId": message.request_id,
        "CallbackUrl": message.callback_url,
        # "0" is sent too, because a flag that is missing by mistake would send for real.
        "Sandbox": "1" if message.sandbox else "0",
    }
    return {name: value for name, value in found.items() if value}


def send_query(message: OutgoingMessage) -> str:
    """Return the encoded query string of a message, without the keys."""
    return encode(send_parameters(message))


def encode(parameters: Mapping[str, str]) -> str:
    """Percent-encode UTF-8 once; a space becomes `%20`, as in eSMS's own samples."""
    return "&".join(f"{name}={quote(value, safe='', errors='replace')}" for name, value in parameters.items())


_UNENCODED = (string.ascii_letters + string.digits + "_.-~").encode()


def _encoded_length(parameters: Mapping[str, str]) -> int:
    """Return the length of what `encode()` returns, in a tenth of the time: every message is measured."""
    length = 2 * len(parameters) - 1  # the "=" and "&"
    for name, value in parameters.items():
        data = value.encode(errors="replace")
        length += len(name) + len(data) + 2 * len(data.translate(None, _UNENCODED))
    return length
