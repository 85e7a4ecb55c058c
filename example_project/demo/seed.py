"""What the demo begins with: two people who may log in, and a few orders."""

from __future__ import annotations

from django.contrib.auth.models import Permission, User
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from esms_viber.models import OutboundViberMessage
from esms_viber.services import opt_out, pause_sending, queue_viber_messages

from shop.models import Order

# Fixed and printed: the demo listens on this machine alone, and runs only with DEBUG on.
PASSWORD = "demo"
LOGINS = (
    ("admin", PASSWORD, _("may do everything")),
    ("staff", PASSWORD, _("may look at orders and messages, and send nothing")),
)
STAFF_MAY = ("view_order", "view_outboundvibermessage", "view_vibermessageevent")

ORDERS = (
    ("Nguyễn Thị Lan", "0901 888 484", "2 × Robusta Buôn Ma Thuột 500 g", 260_000),
    ("Trần Văn Minh", "0968 856 820", "1 × Arabica Cầu Đất 1 kg", 420_000),
    ("Phạm Thu Hà", "0912 345 678", "3 × phin nhôm", 135_000),
    ("Lê Quốc Bảo (chưa có Viber)", "0900 000 000", "1 × Culi 250 g", 95_000),
)
OPTED_OUT = ORDERS[2]
PAUSED_CAMPAIGN = "tra-sen-vang"
PAUSED_TEXT = "Trà sen vàng mới về! Ghé Cà Phê Sớm trong tuần này để uống thử một ly nhé."


def create_logins() -> None:
    """Accounts that are there already keep their passwords."""
    if not User.objects.filter(username="admin").exists():
        User.objects.create_superuser("admin", password=PASSWORD)
    staff, created = User.objects.get_or_create(username="staff", defaults={"is_staff": True})
    if created:
        staff.set_password(PASSWORD)
        staff.save()
        staff.user_permissions.set(Permission.objects.filter(codename__in=STAFF_MAY))


def create_orders() -> Order:
    """Orders to play with, if there are none, and a new one for this run."""
    if not Order.objects.exists():
        for order in ORDERS[1:]:
            _create(*order)
    return _create(*ORDERS[0])


def create_opt_out() -> None:
    """A customer who wants no more offers, and still hears of her orders."""
    opt_out(OPTED_OUT[1], scope="promotional", note=gettext("asked for it by phone"))


def create_paused_campaign() -> None:
    """A campaign whose messages wait until somebody resumes it."""
    if OutboundViberMessage.objects.filter(campaign=PAUSED_CAMPAIGN).exists():
        return
    pause_sending(PAUSED_CAMPAIGN, note=gettext("the tea has not arrived yet"))
    phones = [phone for _customer, phone, *_order in ORDERS if phone != OPTED_OUT[1]]
    texts = {"content": PAUSED_TEXT, "campaign": PAUSED_CAMPAIGN, "purpose": "promotional"}
    queue_viber_messages([OutboundViberMessage(phone=phone, **texts) for phone in phones])


def _create(customer: str, phone: str, items: str, amount: int) -> Order:
    return Order.objects.create(customer=customer, phone=phone, items=items, amount=amount)
