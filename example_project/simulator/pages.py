"""The pages for people: the gateway's controls, and the phones that its messages reach."""

from __future__ import annotations

from typing import TypedDict
from urllib.parse import urlsplit

from django import forms
from django.contrib import messages
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.utils.formats import time_format
from django.utils.timezone import localtime
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from . import rules
from .behaviour import Answering, Behaviour, Reporting
from .conf import get_config
from .state import Message, gateway

# A phone shows an image wherever it is; everything else on the page comes from this site.
PHONE_POLICY = "default-src 'self'; img-src 'self' https:; base-uri 'none'; form-action 'self'; object-src 'none'"


class BehaviourForm(forms.Form):
    answering = forms.ChoiceField(
        label=_("Send calls are answered"), choices=Answering.choices, widget=forms.RadioSelect
    )
    reporting = forms.ChoiceField(label=_("The callback comes"), choices=Reporting.choices, widget=forms.RadioSelect)
    remaining = forms.IntegerField(
        label=_("For the next so many send calls"),
        help_text=_("Empty: until it is changed here."),
        min_value=1,
        max_value=1000,
        required=False,
    )

    def behaviour(self) -> Behaviour:
        data = self.cleaned_data
        return Behaviour(Answering(data["answering"]), Reporting(data["reporting"]), data["remaining"])


@require_http_methods(["GET", "HEAD", "POST"])
def control(request: HttpRequest) -> HttpResponse:
    current = gateway.behaviour
    initial = {"answering": current.answering, "reporting": current.reporting, "remaining": current.remaining}
    form = BehaviourForm(request.POST or None, initial=initial)
    if form.is_valid():
        gateway.behave(form.behaviour())
        messages.success(request, gettext("From now on the gateway behaves as chosen."))
        return redirect("simulator:control")
    return render(request, "simulator/control.html", {"form": form, "gateway": gateway, "config": get_config()})


@require_POST
def top_up(request: HttpRequest) -> HttpResponse:
    gateway.top_up()
    messages.success(request, gettext("The account is topped up."))
    return redirect("simulator:control")


@require_POST
def empty(request: HttpRequest) -> HttpResponse:
    gateway.empty()
    messages.success(request, gettext("Two more messages can be paid for."))
    return redirect("simulator:control")


@require_GET
def phones(request: HttpRequest) -> HttpResponse:
    latest = {}
    for message in gateway.arrived():
        # Taken out first: a dict keeps the place of the first.
        latest.pop(message.phone, None)
        latest[message.phone] = message
    return render(request, "simulator/phones.html", {"latest": list(reversed(latest.values()))})


@require_GET
def phone(request: HttpRequest, number: str) -> HttpResponse:
    if rules.local_phone(number) != number:
        raise Http404(gettext("A phone is written like this: 0901888484."))
    bubbles = [_as_bubble(message) for message in gateway.arrived(number)]
    context = {"number": number, "bubbles": bubbles, "last": _last_arrival(bubbles), "run": gateway.run}
    response = render(request, "simulator/phone.html", context)
    response.headers["Content-Security-Policy"] = PHONE_POLICY
    return response


@never_cache
@require_GET
def phone_messages(request: HttpRequest, number: str) -> JsonResponse:
    """Messages that arrived after the one named, for the phone page to add."""
    after = request.GET.get("after", "")
    bubbles = [_as_bubble(m) for m in gateway.arrived(number, after=int(after) if after.isdecimal() else 0)]
    return JsonResponse({"run": gateway.run, "messages": bubbles})


class Bubble(TypedDict):
    """A message as a phone shows it."""

    arrival: int
    brand: str
    text: str
    image: str
    image_url: str
    button_label: str
    button_url: str
    time: str
    moment: str


def _as_bubble(message: Message) -> Bubble:
    arrived_at = localtime(message.arrived_at)
    return {
        "arrival": message.arrival,
        "brand": message.brand,
        "text": message.content.replace("\r\n", "\n"),
        "image": _image_source(message.image_url),
        "image_url": message.image_url,
        "button_label": message.button_label,
        "button_url": _only_web(message.button_url),
        "time": time_format(arrived_at, "H:i"),
        "moment": arrived_at.isoformat(timespec="seconds"),
    }


def _last_arrival(bubbles: list[Bubble]) -> int:
    return bubbles[-1]["arrival"] if bubbles else 0


def _image_source(url: str) -> str:
    for prefix, local in get_config().LOCAL_IMAGES.items():
        if url.startswith(prefix):
            return local + url.removeprefix(prefix)
    return _only_web(url)


def _only_web(url: str) -> str:
    return url if urlsplit(url).scheme in ("http", "https") else ""
