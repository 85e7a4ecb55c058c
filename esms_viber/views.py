"""The callback view."""

from __future__ import annotations

from http import HTTPMethod, HTTPStatus

from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import SuspiciousOperation
from django.http import HttpRequest, HttpResponse

from .database import non_atomic_requests
from .reports.callbacks import Receipt, receive_callback
from .tokens import read_token


@non_atomic_requests
@login_not_required
def callback(request: HttpRequest, token: str) -> HttpResponse:
    """Take a result from eSMS, by GET, and never redirect. The token in the path is the only proof that it is eSMS.

    200: the callback is stored. 400: it is stored, but no result can be read from it. 500: it is stored but not
    applied, and eSMS is to send it again. 404: nothing is stored, because the token is not ours, belongs to another
    site with our `SECRET_KEY`, or its message is deleted.
    """
    signed = read_token(token)
    if signed is None:
        return _answer(HTTPStatus.NOT_FOUND)
    if request.method != HTTPMethod.GET:
        response = _answer(HTTPStatus.METHOD_NOT_ALLOWED)
        response["Allow"] = "GET"
        return response
    try:
        parameters = request.GET.dict()
    except (SuspiciousOperation, LookupError):  # too many parameters, or a charset that does not exist
        parameters = {"SendStatus": "unreadable parameters"}
    receipt: Receipt = receive_callback(*signed, parameters)
    return _answer(HTTPStatus(receipt.value))


# What `csrf_exempt` does, but for a function around the view, which each request would pass.
callback.csrf_exempt = True  # type: ignore[attr-defined] # read by Django's CsrfViewMiddleware


# As `never_cache` has them, which would build them anew for each answer. An `Expires` that is no date is in the past.
_NEVER_CACHED = (
    ("Cache-Control", "max-age=0, no-cache, no-store, must-revalidate, private"),
    ("Expires", "0"),
)


def _answer(status: HTTPStatus) -> HttpResponse:
    body = b"OK" if status is HTTPStatus.OK else status.phrase.encode()
    response = HttpResponse(body, status=status.value, content_type="text/plain")
    for name, value in _NEVER_CACHED:
        response.headers[name] = value
    # Django would log the path of every answer but a success, and with it a valid token.
    response._has_been_logged = True  # type: ignore[attr-defined] # read by django.utils.log.log_response()
    return response
