"""The three calls of rest.esms.vn that this gateway answers, at their real paths."""

from __future__ import annotations

import json
import time
from datetime import timedelta
from typing import TYPE_CHECKING

from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.html import format_html
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_GET, require_POST

from . import rules
from .behaviour import UNDECIDED, Answering, Behaviour
from .conf import get_config
from .reports import schedule_report
from .state import LogEntry, Message, gateway, now
from .wire import as_dict, find_oddities, read_query

if TYPE_CHECKING:
    from django.utils.functional import _StrOrPromise

SEND = _("send call")

ERROR_PAGE = (
    "<!DOCTYPE html><html><head><title>{title}</title></head>"
    "<body><h1>Server Error in '/' Application.</h1><h2>{title}</h2><p>Requested URL: {url}</p></body></html>"
)


@require_GET
def send_multiple_message_v4_get(request: HttpRequest) -> HttpResponse:
    query = request.META["QUERY_STRING"]
    if len(query) > get_config().MAX_QUERY_LENGTH:
        gateway.log(LogEntry(SEND, "HTTP 400", oddities=(_("the query string is too long"),)))
        return _error_page(request, 400, "Bad Request")
    parameters = read_query(query)
    values, oddities = as_dict(parameters), tuple(find_oddities(parameters))
    behaviour = gateway.take_behaviour()
    response, result = _answer(request, values, behaviour)
    gateway.log(LogEntry(SEND, result, values.get("RequestId", ""), values.get("Phone", ""), oddities))
    _hold(behaviour)
    return response


def _answer(request: HttpRequest, values: dict[str, str], behaviour: Behaviour) -> tuple[HttpResponse, _StrOrPromise]:
    """The response, and in a few words what it says."""
    if behaviour.answering is Answering.ERROR_500:
        return _error_page(request, 500, "Internal Server Error"), "HTTP 500"
    if behaviour.answering is Answering.HANG:
        return HttpResponse(status=503), _("no answer")
    if (status := UNDECIDED.get(behaviour.answering)) is not None:
        told = {"error": "Invalid request"} if status == 200 else {"message": "Service Unavailable"}
        return JsonResponse(told, status=status), format_lazy(_("HTTP {status} without a code"), status=status)
    answer, message = gateway.receive(values, behaviour)
    if message is not None:
        schedule_report(message, behaviour.reporting)
    result = str(answer.get("CodeResult") or answer["error"])
    if behaviour.answering is Answering.HTML:
        return _error_page(request, 200, "Service Unavailable"), format_lazy(_("{code}, told as HTML"), code=result)
    return JsonResponse(answer), result


def _hold(behaviour: Behaviour) -> None:
    config = get_config()
    if behaviour.answering is Answering.SLOW:
        time.sleep(config.SLOW_SECONDS)
    elif behaviour.answering in {Answering.TIMEOUT, Answering.HANG}:
        time.sleep(config.HOLD_SECONDS)


def _error_page(request: HttpRequest, status: int, title: str) -> HttpResponse:
    """Like ASP.NET's own, which repeats the URL with everything in it."""
    return HttpResponse(format_html(ERROR_PAGE, title=title, url=request.get_full_path()), status=status)


@require_GET
def get_send_status(request: HttpRequest) -> JsonResponse:
    values = as_dict(read_query(request.META["QUERY_STRING"]))
    sms_id = values.get("RefId", "")
    answer = _describe_status(values, sms_id)
    gateway.log(LogEntry("GetSendStatus", str(answer["CodeResponse"])))
    return JsonResponse(answer)


def _describe_status(values: dict[str, str], sms_id: str) -> dict[str, object]:
    config = get_config()
    if not rules.has_right_keys(values, config):
        return {"CodeResponse": "101", "SMSID": sms_id}
    message = gateway.find_message(sms_id)
    if message is None or now() - message.taken_at < timedelta(seconds=config.INDEXING_SECONDS):
        return {"CodeResponse": "105", "SMSID": sms_id}
    return {"CodeResponse": "100", "SMSID": sms_id, **_counts(message)}


def _counts(message: Message) -> dict[str, object]:
    finished = message.finished
    return {
        "SendFailed": int(finished and not message.delivered),
        "SendStatus": message.send_status,
        "SendSuccess": int(message.delivered),
        "TotalPrice": float(message.price),
        "TotalReceiver": 1,
        "TotalSent": int(finished),
    }


@csrf_exempt
@require_POST
def get_balance_json(request: HttpRequest) -> JsonResponse:
    try:
        values = json.loads(request.body)
    except ValueError:
        values = None
    if isinstance(values, dict) and rules.has_right_keys(values, get_config()):
        answer = {"Balance": int(gateway.balance), "CodeResponse": "100", "UserID": 9999}
    else:
        answer = {"Balance": 0, "CodeResponse": "101", "ErrorMessage": "Authorize Failed"}
    gateway.log(LogEntry("GetBalance", str(answer["CodeResponse"])))
    return JsonResponse(answer)
