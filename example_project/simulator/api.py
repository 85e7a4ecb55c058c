"""The five calls of rest.esms.vn that this gateway answers, at their real paths."""

from __future__ import annotations

import json
import time
from datetime import datetime, timedelta
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
from .state import FINISHED, VIETNAM, LogEntry, Message, gateway, now
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
    if rules.has_right_keys(_read_json(request), get_config()):
        answer = {"Balance": int(gateway.balance), "CodeResponse": "100", "UserID": 9999}
    else:
        answer = {"Balance": 0, "CodeResponse": "101", "ErrorMessage": "Authorize Failed"}
    gateway.log(LogEntry("GetBalance", str(answer["CodeResponse"])))
    return JsonResponse(answer)


@require_GET
def get_list_brandname(request: HttpRequest, api_key: str, secret_key: str) -> JsonResponse:
    config = get_config()
    if rules.has_right_keys({"ApiKey": api_key, "SecretKey": secret_key}, config):
        names = [{"Brandname": name, "Type": int(rules.VIBER)} for name in config.BRANDNAMES]
        # An account has names for other kinds of messages, too.
        others = [{"Brandname": name, "Type": 2} for name in config.OTHER_BRANDNAMES]
        answer: rules.Answer = {"CodeResponse": "100", "ListBrandName": [*others, *names]}
    else:
        answer = {"CodeResult": "101", "ErrorMessage": "Authorize Failed"}
    gateway.log(LogEntry("GetListBrandname", str(answer.get("CodeResponse") or answer["CodeResult"])))
    return JsonResponse(answer)


MAX_PAGE_SIZE = 500
MAX_DAYS = 3


@csrf_exempt
@require_POST
def get_sms_sent_data_v2(request: HttpRequest) -> JsonResponse:
    values = _read_json(request)
    answer = _list_sent(values)
    gateway.log(LogEntry("GetSmsSentData", str(answer["CodeResult"])))
    return JsonResponse(answer)


def _list_sent(values: dict[str, object]) -> rules.Answer:
    """The page asked for, newest first. That it answers what is out of bounds by code 110 is chosen here."""
    if not rules.has_right_keys(values, get_config()):
        return {"CodeResult": "101", "ErrorMessage": "Authorize Failed"}
    try:
        begin, end = (
            datetime.strptime(str(values[name]), "%Y-%m-%d %H:%M:%S").replace(tzinfo=VIETNAM) for name in ("From", "To")
        )
        page, size = int(str(values["Page"])), int(str(values["PageSize"]))
    except (KeyError, ValueError):
        return {"CodeResult": "110", "ErrorMessage": "Data is not valid"}
    is_bounded = timedelta(0) <= end - begin <= timedelta(days=MAX_DAYS) and 0 < size <= MAX_PAGE_SIZE
    if not is_bounded or page < 1 or str(values.get("SmsType")) != rules.VIBER:
        return {"CodeResult": "110", "ErrorMessage": "Data is not valid"}
    found = [
        (number, message)
        for number, message in enumerate(gateway.messages, start=1)
        if begin <= message.taken_at.replace(microsecond=0) <= end
    ]
    entries = [_as_entry(number, message) for number, message in reversed(found)]
    first = (page - 1) * size
    return {"CodeResult": "100", "CountTotal": len(entries), "SentData": entries[first : first + size]}


def _as_entry(number: int, message: Message) -> dict[str, object]:
    """An entry has no RequestId: this is why a lost SMSID is hard to find."""
    return {
        "Campaign": "",
        "Content": message.content,
        "Phone": message.phone,
        "ReferenceId": message.sms_id,
        "SellPrice": float(message.price),
        "SendResult": int(message.delivered) if message.send_status == FINISHED else 2,
        "SendStatus": message.send_status,
        "SentTime": f"/Date({round(message.taken_at.timestamp() * 1000)}+0700)/",
        "SmsId": number,
        "SmsType": int(rules.VIBER),
    }


def _read_json(request: HttpRequest) -> dict[str, object]:
    try:
        values = json.loads(request.body)
    except ValueError:
        return {}
    return values if isinstance(values, dict) else {}
