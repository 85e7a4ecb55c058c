"""The filtered list as a file for Excel, read and sent in slices."""

from __future__ import annotations

import csv
import datetime as dt
import io
import itertools
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

_BYTE_ORDER_MARK = "\ufeff"  # without it Excel takes UTF-8 for the code page of the machine
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
    "sandbox",
    "content_type",
    "object_id",
)
_OWN_TITLES = {"pk": _("number"), "kind": _("kind"), "meaning": _("meaning of the code")}
_READ = tuple(name for name in _COLUMNS if name not in _OWN_TITLES)


def export(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    """Select what the list shows under this query string, on all of its pages, newest first."""
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
    titles = []
    for name in _COLUMNS:
        title = _OWN_TITLES.get(name) or OutboundViberMessage._meta.get_field(name).verbose_name  # type: ignore[union-attr] # a field of ours has one
        titles.append(capfirst(str(title)))
    yield _BYTE_ORDER_MARK + _written([titles])
    # In slices by primary key, because `iterator()` would hold a transaction open, or the client the whole result.
    messages = messages.select_related(None).only(*_READ).order_by("-pk")
    some = list(messages[:SLICE])
    while some:
        yield _written([_cell(message, name) for name in _COLUMNS] for message in some)
        some = list(messages.filter(pk__lt=some[-1].pk)[:SLICE]) if len(some) == SLICE else []


def _written(rows: Iterable[list[str]]) -> str:
    # Excel splits lines at the list separator of its reader's region, which is ";" where the comma is in numbers.
    delimiter = ";" if get_format("DECIMAL_SEPARATOR") == "," else ","
    text = io.StringIO()
    # All of them quoted: where a spreadsheet splits at other signs, the rest of a text is no cell of its own.
    csv.writer(text, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows(rows)
    return text.getvalue()


def _in_context(lines: Iterator[str], language: str | None, zone: dt.tzinfo) -> Iterator[str]:
    """Each piece in the language and time zone of the request: it is made after the middleware has ended."""
    while True:
        with translation.override(language), timezone.override(zone):
            line = next(lines, None)
        if line is None:
            return
        yield line


async def _asynchronous(lines: Iterator[str]) -> AsyncIterator[str]:
    """Under ASGI Django would read what is not asynchronous to its end before it sends anything."""
    while (line := await sync_to_async(lambda: next(lines, None))()) is not None:
        yield line


# -- cells -------------------------------------------------------------------------------------------------------------


def _cell(message: OutboundViberMessage, name: str) -> str:
    value = _SHOWN[name](message) if name in _SHOWN else getattr(message, name)
    cell = _local(value).strftime("%Y-%m-%d %H:%M:%S") if isinstance(value, dt.datetime) else str(value or "")
    # An apostrophe goes before a formula, also behind what cannot be seen, because a spreadsheet would run it.
    before = "".join(itertools.takewhile(_is_passed_over, cell))
    first = cell[len(before) : len(before) + 1]
    return f"'{cell}" if first in _BEGINS_FORMULA or _BREAKS & set(before) else cell


def _is_passed_over(sign: str) -> bool:
    return sign in "\"'" or sign.isspace() or unicodedata.category(sign) in {"Cc", "Cf"}


def _local(when: dt.datetime) -> dt.datetime:
    return timezone.localtime(when) if timezone.is_aware(when) else when


def _price(message: OutboundViberMessage) -> str:
    """A number without grouping, with the decimal sign by which the reader's Excel knows one."""
    if message.total_price is None:
        return ""
    return f"{message.total_price.normalize():f}".replace(".", str(get_format("DECIMAL_SEPARATOR")))


def _meaning(message: OutboundViberMessage) -> str:
    return str(describe(message.code_result).meaning) if message.code_result else ""


def _sandbox(message: OutboundViberMessage) -> str:
    return gettext("yes") if message.sandbox else gettext("no")


def _type_of_related(message: OutboundViberMessage) -> str:
    # Kept in memory by its manager, where following the relation would ask for every row.
    try:
        return ContentType.objects.get_for_id(message.content_type_id).name if message.content_type_id else ""
    except ContentType.DoesNotExist:
        return ""


_SHOWN: dict[str, Callable[[OutboundViberMessage], Any]] = {
    "phone": display.phone,
    "status": OutboundViberMessage.get_status_display,
    "kind": display.kind,
    "total_price": _price,
    "meaning": _meaning,
    "sandbox": _sandbox,
    "content_type": _type_of_related,
}
