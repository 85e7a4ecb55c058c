"""A past for the demo: two weeks of messages that are over, so that the admin has something to show at once."""

from __future__ import annotations

from datetime import datetime, timedelta
from decimal import Decimal
from random import Random

from django.conf import settings
from django.db import transaction
from django.utils.timezone import localtime
from esms_viber.models import OutboundViberMessage, ViberMessageEvent

from config.images import https_url
from simulator.rules import telco_of

Kind = ViberMessageEvent.Kind
Status = OutboundViberMessage.Status

DAYS = 14
PHONES = [
    "0901234567", "0903456781", "0912876543", "0918345672", "0934567812", "0945678123", "0968123457", "0977345612",
    "0326789451", "0357891246", "0378912465", "0768234519", "0789345126", "0823456719", "0856712349", "0889123475",
]  # fmt: skip
ERRORS = {"99": "Phone number is blocked", "146": "Template is not match", "199": "Request is being processed"}
OUTCOMES = ["delivered"] * 76 + ["undelivered"] * 8 + ["99"] * 3 + ["146"] * 2
UNKNOWN, FROM_THE_END = "199", 6  # so late that eSMS still knows of it
COLUMNS = [field.name for field in OutboundViberMessage._meta.concrete_fields if not field.primary_key]


@transaction.atomic
def create_history() -> None:
    """The same in every demo, but for the days; nothing where there are messages already. None is left to send."""
    if OutboundViberMessage.objects.exists():
        return
    random = Random(2027)  # noqa: S311 - the same each time, not a secret
    outcomes = random.sample(OUTCOMES, len(OUTCOMES))
    outcomes.insert(-FROM_THE_END, UNKNOWN)
    messages, events = [], []
    for at, outcome in zip(_moments(random, len(outcomes)), outcomes, strict=True):
        message = _write_tet(random) if random.random() < 0.4 else _write_order(random)
        message.save()
        events += _tell(message, outcome, at, random)
        messages.append(message)
    OutboundViberMessage.objects.bulk_update(messages, COLUMNS)
    for event in events:
        at = event.created_at
        event.save()
        ViberMessageEvent.objects.filter(pk=event.pk).update(created_at=at)


def _moments(random: Random, count: int) -> list[datetime]:
    """In the shop's hours of the days before today."""
    today = localtime().replace(hour=8, minute=0, second=0, microsecond=0)
    days = (random.randint(1, DAYS) for _ in range(count))
    return sorted(today - timedelta(days=day) + timedelta(hours=random.uniform(0, 12)) for day in days)


def _write_order(random: Random) -> OutboundViberMessage:
    number, amount = random.randint(100, 999), random.randrange(95, 900, 5)
    return OutboundViberMessage(
        phone=random.choice(PHONES),
        content=f"Cà Phê Sớm xin chào,\nshop đã nhận {amount}.000 đ cho đơn #{number}. Cảm ơn bạn!",
        campaign="orders",
    )


def _write_tet(random: Random) -> OutboundViberMessage:
    return OutboundViberMessage(
        phone=random.choice(PHONES),
        content="Tết này Cà Phê Sớm có hộp quà rang mới 🧧\nĐặt trước rằm tháng Chạp để được tặng phin nhôm nhé.",
        image_url=https_url(settings.SITE_ORIGIN, "/static/shop/parcel.png"),
        button_label="Xem quà Tết",
        button_url=f"{settings.SITE_ORIGIN}/",
        campaign="tet-2027",
    )


def _tell(message: OutboundViberMessage, outcome: str, at: datetime, random: Random) -> list[ViberMessageEvent]:
    """Fill in what the app would have, and give the events in their order."""
    brand = settings.ESMS_VIBER["BRANDNAME"]
    message.brandname = brand
    message.created_at = message.queued_at = at
    message.request_id, message.attempts = f"{random.getrandbits(128):032x}", 1
    message.code_result, message.error_message = (outcome, ERRORS[outcome]) if outcome in ERRORS else ("100", "")
    took = random.randint(180, 1_400)
    answered = at + timedelta(seconds=1, milliseconds=took)
    _settle(message, outcome, answered, random)
    call = {"outcome": "answered", "http_status": 200, "sms_id": message.sms_id}
    events = [
        _event(message, Kind.REQUESTED, at),
        _event(message, Kind.ATTEMPT, answered, applied=True, code=message.code_result, duration_ms=took, data=call),
    ]
    if message.send_status is not None:
        delivered = message.status == Status.DELIVERED
        report = {"SMSID": message.sms_id, "RequestId": message.request_id, "TotalPrice": f"{message.total_price:.4f}"}
        report |= {"SendStatus": "5", "SendSuccess": str(int(delivered)), "SendFailed": str(int(not delivered))}
        events.append(_event(message, Kind.CALLBACK, message.completed_at, applied=True, data=report))
    return events


def _settle(message: OutboundViberMessage, outcome: str, answered: datetime, random: Random) -> None:
    message.completed_at = answered + timedelta(seconds=random.uniform(2, 90))
    if outcome == UNKNOWN:
        message.status, message.uncertain_since, message.completed_at = Status.UNKNOWN, message.queued_at, None
    elif outcome in ERRORS:
        message.status, message.completed_at = Status.FAILED, answered
    else:
        price = 1_450 if message.image_url else 470
        message.status, message.sent_at, message.send_status = Status(outcome), answered, 5
        message.sms_id = f"{random.getrandbits(128):032x}{random.randrange(10**6, 10**7)}"
        message.total_price = Decimal(price if outcome == Status.DELIVERED else 0)
        message.telco_id = telco_of(f"0{message.phone[3:]}")


def _event(message: OutboundViberMessage, kind: Kind, at: datetime, **fields: object) -> ViberMessageEvent:
    return ViberMessageEvent(message=message, kind=kind, created_at=at, request_id=message.request_id, **fields)
