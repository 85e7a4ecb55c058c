"""The second act: eSMS does not answer, messages wait, and it ends by itself."""

from __future__ import annotations

import time
from collections.abc import Callable

from django.utils.translation import gettext
from esms_viber.models import OutboundViberMessage
from esms_viber.monitoring import get_queue_status
from esms_viber.services import queue_viber_messages

from shop.models import Order
from simulator.behaviour import NORMAL, Answering, Behaviour
from simulator.state import gateway

MESSAGES = 8
SECONDS_OF_OUTAGE = 5
SECONDS_TO_END = 90


def play(write: Callable[[str], object], send_what_is_due: Callable[[], object], admin_url: str) -> bool:
    """Let the gateway answer HTTP 503 for a while. Returns whether all messages were sent in the end."""
    gateway.behave(Behaviour(Answering.BUSY))
    write(gettext("eSMS answers HTTP 503 from now on. The shop reminds %(count)d customers:") % {"count": MESSAGES})
    began = time.monotonic()
    phone = Order.objects.order_by("-pk").values_list("phone", flat=True)[0]
    text = gettext("Reminder %(number)d: your coffee is waiting for you.")
    reminders = queue_viber_messages(
        [
            OutboundViberMessage(phone=phone, content=text % {"number": number}, campaign="reminders")
            for number in range(1, MESSAGES + 1)
        ]
    )
    send_what_is_due()
    _tell(write, reminders)
    write(gettext("The admin says above its list, %(url)s:") % {"url": admin_url})
    for sentence in get_queue_status().obstacles():
        write(f"    {sentence}")

    time.sleep(SECONDS_OF_OUTAGE)
    gateway.behave(NORMAL)
    write(gettext("eSMS answers again. Nobody does anything:"))
    while _unsent(reminders) and time.monotonic() - began < SECONDS_TO_END:
        time.sleep(1)
        send_what_is_due()
    _tell(write, reminders)
    seconds = round(time.monotonic() - began)
    if is_over := not _unsent(reminders):
        write(gettext("It is over after %(seconds)d s, and each of them was sent once.") % {"seconds": seconds})
    return is_over


def _unsent(messages: list[OutboundViberMessage]) -> bool:
    waiting = OutboundViberMessage.objects.filter(pk__in=[message.pk for message in messages])
    return waiting.filter(status__in=["queued", "sending", "unknown"]).exists()


def _tell(write: Callable[[str], object], messages: list[OutboundViberMessage]) -> None:
    rows = OutboundViberMessage.objects.filter(pk__in=[message.pk for message in messages]).order_by()
    for status in OutboundViberMessage.Status:
        if count := rows.filter(status=status).count():
            write(f"    {count} × {status.label}")
