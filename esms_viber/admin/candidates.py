"""The button by which a person says which entry of eSMS's list of what was sent is a message."""

from __future__ import annotations

from django.contrib.messages import constants as levels
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseRedirect
from django.urls import URLPattern
from django.utils.translation import gettext as _

from ..reports import sent_list
from . import notices
from .base import MessageAdminBase
from .notices import user_of
from .routes import press_again, route


def urls(model_admin: MessageAdminBase) -> list[URLPattern]:
    return [route(model_admin, "recognise/", recognise, permission="send")]


def recognise(model_admin: MessageAdminBase, request: HttpRequest) -> HttpResponseBase:
    if request.method != "POST":
        return press_again(model_admin, request)
    pk = request.POST.get("message", "")
    # As Django finds it for the message's page, because a site's own admin may show some messages only.
    message = model_admin.get_object(request, pk)
    if message is None or not model_admin.has_view_or_change_permission(request, message):
        raise Http404
    if sent_list.recognise(message.pk, request.POST.get("sms_id", ""), user=user_of(request)):
        notices.report(model_admin, request, [message.pk])
    else:
        sentence = _(
            "Nothing was changed: there is nothing to decide about this message any more, or another message has this "
            "SMSID."
        )
        model_admin.message_user(request, sentence, levels.WARNING)
    return HttpResponseRedirect(model_admin.page_url(message.pk))
