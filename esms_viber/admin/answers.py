"""What every action ends with: the rows read again, the sentences, and the way back."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from django.contrib import messages as notices
from django.core.exceptions import ImproperlyConfigured
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.utils.translation import gettext as _

from ..models import OutboundViberMessage
from ..transactions import write_alias
from . import reporting
from .base import MessageAdminBase
from .review import in_chunks

if TYPE_CHECKING:
    from django.contrib.auth.base_user import AbstractBaseUser

logger = logging.getLogger("esms_viber")

FROM_PAGE = "from_page"
"""Posted by the buttons on a message's own page, to which the answer then leads back."""


def user_of(request: HttpRequest) -> AbstractBaseUser:
    """Somebody: the admin lets no one else in."""
    return cast("AbstractBaseUser", request.user)


def rows_of(pks: list[int]) -> QuerySet[OutboundViberMessage]:
    rows: QuerySet[OutboundViberMessage] = OutboundViberMessage.objects.using(write_alias()).filter(pk__in=pks)
    return rows.order_by("pk")


def all_rows(pks: list[int]) -> Iterable[OutboundViberMessage]:
    return (message for chunk in in_chunks(pks) for message in rows_of(chunk))


def tell(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int], told: Iterable[reporting.Notice]) -> None:
    if len(pks) == 1 and (message := rows_of(pks).first()) and model_admin.has_view_permission(request):
        told = reporting.about(message, model_admin.page_url(message.id), told)
    for level, text in told:
        model_admin.message_user(request, text, level)


def refuse_so_many(model_admin: MessageAdminBase, request: HttpRequest, most: int) -> None:
    sentence = _("Nothing was done: this can be done with at most %(most)d messages at once. Select fewer.")
    model_admin.message_user(request, sentence % {"most": most}, notices.ERROR)


def report_configuration(model_admin: MessageAdminBase, request: HttpRequest, error: ImproperlyConfigured) -> None:
    logger.error("the connection to eSMS is not set up: %s", error)
    model_admin.message_user(request, not_set_up(error), notices.ERROR)


def not_set_up(error: ImproperlyConfigured) -> str:
    return _("The connection to eSMS is not set up. Tell the people who run this site: %(error)s") % {"error": error}


def back(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> HttpResponse:
    return HttpResponseRedirect(back_url(model_admin, request, pks))


def back_url(model_admin: MessageAdminBase, request: HttpRequest, pks: list[int]) -> str:
    if FROM_PAGE in request.POST and len(pks) == 1:
        return model_admin.page_url(pks[0])
    return request.get_full_path()


def report(
    model_admin: MessageAdminBase,
    request: HttpRequest,
    pks: list[int],
    besides: Iterable[reporting.Notice] = (),
) -> None:
    tell(model_admin, request, pks, [*reporting.outcomes(all_rows(pks)), *besides])
