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
    Order.Status.SHIPPED: (
        "Đơn #{order.pk} đang trên đường đến {order.customer} 🛵\nBạn vui lòng để ý điện thoại giúp shop nhé."
    ),
}


@receiver(post_save, sender=Order)
def tell_customer(instance: Order, raw: bool, **kwargs: Any) -> None:
    """Queue the message of the order's status. It leaves when the transaction commits, once per status."""
    text = TEXTS.get(Order.Status(instance.status))
    if text is None or raw:
        return
    try:
        queue_viber_message(
            instance.phone,
            text.format(order=instance),
            image_url=_parcel_image() if instance.status == Order.Status.SHIPPED else "",
            button_label="Xem đơn hàng",
            button_url=instance.link,
            related_object=instance,
            dedupe_key=f"order-{instance.pk}-{instance.status}",
            campaign="orders",
        )
    except ValidationError as error:
        # The form checks the phone, but orders come from imports too, and one is worth more than its message.
        # The sentences themselves may repeat the phone, which has no place in a log.
        logger.warning("Order %s: no Viber message, because of its %s", instance.pk, ", ".join(error.message_dict))


def _parcel_image() -> str:
    return https_url(settings.SITE_ORIGIN, static("shop/parcel.png"))
