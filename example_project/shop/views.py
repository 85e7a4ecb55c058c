from __future__ import annotations

from uuid import UUID

from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.shortcuts import get_object_or_404, render
from esms_viber.phones import InvalidPhone, normalize_phone, to_national

from .models import Order

MAX_ORDERS = 20


def home(request: HttpRequest) -> HttpResponse:
    """The demo's start page. A real shop would show this list to its staff only."""
    orders = Order.objects.with_viber_status()[:MAX_ORDERS]
    context = {
        "orders": [{"order": order, "phone": _phone_on_screen(order.phone)} for order in orders],
        "logins": getattr(settings, "DEMO_LOGINS", ()) if settings.DEBUG else (),
        "is_simulated": settings.ESMS_IS_SIMULATED,
    }
    return render(request, "shop/home.html", context)


def order(request: HttpRequest, public_id: UUID) -> HttpResponse:
    """Where the button of a message leads."""
    return render(request, "shop/order.html", {"order": get_object_or_404(Order, public_id=public_id)})


def _phone_on_screen(phone: str) -> str:
    try:
        return to_national(normalize_phone(phone))
    except InvalidPhone:
        return ""
