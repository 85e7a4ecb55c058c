"""The filtered list as a file for Excel, read and sent in slices."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
import json
import unicodedata
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.admin.options import IncorrectLookupParameters
from django.contrib.admin.views.main import ERROR_FLAG, PAGE_VAR
from django.contrib.contenttypes.models import ContentType
from django.core.handlers.asgi import ASGIRequest
from django.db.models import QuerySet
from django.http import (
    HttpRequest,
    HttpResponseBase,
    HttpResponseNotAllowed,
    HttpResponseRedirect,
    StreamingHttpResponse,
)
from django.utils import timezone, translation
from django.utils.formats import get_format
from django.utils.text import capfirst
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from ..codes import describe
from ..models import OutboundViberMessage
from . import display
from .base import MessageAdminBase
from .routes import url_of

SLICE = 2000
"""Rows that are in memory at a time."""

_BYTE_ORDER_MARK = "\ufeff"  # because without it Excel reads the code page of the machine
_BEGINS_FORMULA = set("=+-@＝＋－＠")
_BREAKS = set("\t\r\n")

_COLUMNS = (
    "pk",
    "phone",
    "status",
    "kind",
    "content",
    "image_url",
    "button_label",
    "button_url",
    "brandname",
    "campaign",
    "total_price",
    "code_result",
    "meaning",
    "created_at",
    "queued_at",
    "send_at",
    "expires_at",
    "sent_at",
    "completed_at",
    "sms_id",
    "request_id",
    "dedupe_key",
    "sent_to_sandbox",
    "rehearsal",
    "purpose",
    "content_type",
    "object_id",
    "metadata",
)
_OWN_TITLES = {"pk": _("number"), "kind": _("kind"), "meaning": _("meaning of the code")}
_READ = (*(name for name in _COLUMNS if name not in _OWN_TITLES), "redacted_at", "redacted_kind")


def export(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    """Send every message that the list shows under this query string, on all its pages, newest first."""
    if request.method != "GET":
        return HttpResponseNotAllowed(["GET"])
    every_page: Any = request.GET.copy()
    every_page.pop(PAGE_VAR, None)
    request.GET = every_page
    try:
        messages = model_admin.get_changelist_instance(request).queryset
    except IncorrectLookupParameters:
        return HttpResponseRedirect(f"{url_of(model_admin, 'changelist')}?{ERROR_FLAG}=1")
    lines = _in_context(_file(messages), translation.get_language(), timezone.get_current_timezone())
    response = StreamingHttpResponse(
        _asynchronous(lines) if isinstance(request, ASGIRequest) else lines, content_type="text/csv; charset=utf-8"
    )
    today = _local(timezone.now()).date()
    response["Content-Disposition"] = f'attachment; filename="viber-messages-{today.isoformat()}.csv"'
    return response


# -- sending -----------------------------------------------------------------------------------------------------------


def _file(messages: QuerySet[OutboundViberMessage]) -> Iterator[str]:
    fields: dict[str, Any] = {field.name: field for field in OutboundViberMessage._meta.get_fields()}
    titles = [_OWN_TITLES.get(name) or fields[name].verbose_name for name in _COLUMNS]
    yield _BYTE_ORDER_MARK + _written([[capfirst(str(title)) for title in titles]])
    # Read slices by primary key, because `iterator()` would hold a transaction open, or the client the whole result.
    messages = messages.select_related(None).only(*_READ).order_by("-pk")
    rows = list(messages[:SLICE])
    while rows:
        yield _written([_cell(message, name) for name in _COLUMNS] for message in rows)
        rows = list(messages.filter(pk__lt=rows[-1].pk)[:SLICE]) if len(rows) == SLICE else []


def _written(rows: Iterable[list[str]]) -> str:
    # Excel splits lines at the list separator of the region, which is ";" where the comma is the decimal separator.
    delimiter = ";" if get_format("DECIMAL_SEPARATOR") == "," else ","
    text = io.StringIO()
    # Quote every cell, because a spreadsheet that splits at another sign would make the rest of a text a new cell.
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


def _in_context(lines: Iterator[str], language: str | None, zone: dt.tzinfo) -> Iterator[str]:
    """Make each piece in the request's language and time zone, because the middleware has ended by then."""
    while True:
        with translation.override(language), timezone.override(zone):
            line = next(lines, None)
        if line is None:
            return
        yield line


async def _asynchronous(lines: Iterator[str]) -> AsyncIterator[str]:
    """Iterate asynchronously, because under ASGI Django reads any other iterator to its end before it sends."""
    while (line := await sync_to_async(lambda: next(lines, None))()) is not None:
        yield line


# -- cells -------------------------------------------------------------------------------------------------------------


def _cell(message: OutboundViberMessage, name: str) -> str:
    value = _SHOWN[name](message) if name in _SHOWN else getattr(message, name)
    cell = _local(value).strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, dt.datetime) else str(value or "")

    def is_passed_over(sign: str) -> bool:
        return sign in "\"'" or sign.isspace() or unicodedata.category(sign) in {"Cc", "Cf"}

    # Put an apostrophe before a formula, because a spreadsheet would run it, also behind invisible signs.
    before = "".join(itertools.takewhile(is_passed_over, cell))
    first = cell[len(before) : len(before) + 1]
    return f"'{cell}" if first in _BEGINS_FORMULA or _BREAKS & set(before) else cell


def _local(when: dt.datetime) -> dt.datetime:
    return timezone.localtime(when) if timezone.is_aware(when) else when


def _price(message: OutboundViberMessage) -> str:
    """The price ungrouped, with the decimal separator by which the reader's Excel recognises a number."""
    if message.total_price is None:
        return ""
    return f"{message.total_price.normalize():f}".replace(".", str(get_format("DECIMAL_SEPARATOR")))


def _type_of_related(message: OutboundViberMessage) -> str:
    # Ask the manager, because it remembers content types, and following the relation is a query for each row.
    try:
        return ContentType.objects.get_for_id(message.content_type_id).name if message.content_type_id else ""
    except ContentType.DoesNotExist:
        return ""


_SHOWN: dict[str, Callable[[OutboundViberMessage], Any]] = {
    "phone": display.phone,
    "status": OutboundViberMessage.get_status_display,
    "kind": display.kind,
    "total_price": _price,
    "meaning": lambda message: describe(message.code_result).meaning if message.code_result else "",
    "sent_to_sandbox": lambda message: gettext("yes") if message.sent_to_sandbox else gettext("no"),
    "rehearsal": lambda message: gettext("yes") if message.rehearsal else gettext("no"),
    "purpose": OutboundViberMessage.get_purpose_display,
    "content_type": _type_of_related,
    "metadata": lambda message: json.dumps(message.metadata, ensure_ascii=False) if message.metadata else "",
}
