"""Tells customers on Viber how their orders get on."""

from __future__ import annotations

import logging
from typing import Any

from django.conf import settings
from django.core.exceptions import ValidationError
from django.db.models.signals import post_save
from django.dispatch import receiver
from django.templatetags.static import static
from esms_viber.services import queue_viber_message

from config.images import https_url

from .models import Order

logger = logging.getLogger(__name__)

# Not translated by gettext: the language in force here is that of whoever saves the order.
TEXTS = {
    Order.Status.PAID: (
        "Cà Phê Sớm xin chào {order.customer},\n"
        "shop đã nhận {order.price} cho đơn #{order.pk}: {order.items}. Cảm ơn bạn!"
    ),
}
# The shop's staff write the text of this one themselves, in the admin.
TEMPLATES = {Order.Status.SHIPPED: "order-shipped"}


@receiver(post_save, sender=Order)
def tell_customer(instance: Order, raw: bool, **kwargs: Any) -> None:
    """Queue the message of the order's status. It leaves when the transaction commits, once per status."""
    message = None if raw else _message_for(instance)
    if message is None:
        return
    try:
        queue_viber_message(
            instance.phone,
            **message,
            related_object=instance,
            dedupe_key=f"order-{instance.pk}-{instance.status}",
            campaign="orders",
        )
    except ValidationError as error:
        # The form checks the phone, but orders come from imports too, and one is worth more than its message.
        # The sentences themselves may repeat the phone, which has no place in a log.
        logger.warning("Order %s: no Viber message, because of its %s", instance.pk, ", ".join(error.message_dict))


def _message_for(order: Order) -> dict[str, Any] | None:
    """The texts, or the template with its values; None where a status has nothing to say."""
    status = Order.Status(order.status)
    if status in TEMPLATES:
        image = https_url(settings.SITE_ORIGIN, static("shop/parcel.png"))
        values = {"order": order.pk, "customer": order.customer, "image": image, "link": order.link}
        return {"template": TEMPLATES[status], "context": values}
    if status in TEXTS:
        content = TEXTS[status].format(order=order)
        return {"content": content, "button_label": "Xem đơn hàng", "button_url": order.link}
    return None
