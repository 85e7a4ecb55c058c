"""How long each page of the admin takes with very many rows, and the look at the queue that stands on most of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import harness
from .filling import FREQUENT_WORD, LARGEST_CAMPAIGN, RARE_WORD, SMALL_CAMPAIGN, fill, old_shop

LIST = "/admin/esms_viber/outboundvibermessage/"


def run(rows: int = 1_000_000, rounds: int = 5) -> list[harness.Result]:
    fill(old_shop(rows))
    return [harness.summary(name, harness.times_of(work, rounds)) for name, work in _works().items()]


def staff() -> Any:
    """A browser in which a superuser is logged in."""
    from django.contrib.auth.models import User
    from django.test import Client

    client = Client(headers={"host": "localhost"})
    client.force_login(User.objects.create_superuser("staff"))
    return client


def _works() -> dict[str, Callable[[], Any]]:
    from esms_viber.models import OutboundViberMessage
    from esms_viber.monitoring import get_queue_status
    from esms_viber.services import deliver_due_messages

    client = staff()
    messages = OutboundViberMessage.objects
    count = messages.count()
    known: Any = messages.delivered().order_by("-pk")[min(1000, count // 4)]
    local = f"0{known.phone[3:]}"

    def get(path: str = "", **query: Any) -> Callable[[], None]:
        def work() -> None:
            assert client.get(LIST + path, query, follow=True).status_code == 200

        return work

    def ask(path: str = "", **more: Any) -> Callable[[], None]:
        data = {"action": "send_selected", "_selected_action": newest, "index": "0", **more}

        def work() -> None:
            assert client.post(LIST + path, data, follow=True).status_code == 200

        return work

    last = (count - 1) // 100 + 1
    newest = list(messages.order_by("-pk").values_list("pk", flat=True)[:100])
    of_campaign = messages.filter(campaign=LARGEST_CAMPAIGN).count()
    return {
        "list, first page": get(),
        "list, page 5,000": get(p=min(5_000, last)),
        "list, last page": get(p=last),
        "list, oldest of a campaign": get(campaign=LARGEST_CAMPAIGN, p=(of_campaign - 1) // 100 + 1),
        "list, one status": get(status__exact="failed"),
        "list, sandbox": get(sent_to_sandbox__exact="1"),
        "list, time to delivery": get(sent_to_sandbox__exact="0", rehearsal__exact="0", delivered_in="2"),
        "search, phone as 0…": get(q=local),
        "search, phone with spaces": get(q=f"{local[:4]} {local[4:7]} {local[7:]}"),
        "search, phone as +84…": get(q=known.phone),
        "search, SMSID": get(q=known.sms_id),
        "search, RequestId": get(q=known.request_id),
        "search, dedupe key": get(q=known.dedupe_key),
        "search, a rare word": get(q=RARE_WORD),
        "search, a frequent word": get(q=FREQUENT_WORD),
        "overview, 7 of 180 days": get("viber-overview/", days=7),
        "overview, 30 of 180 days": get("viber-overview/", days=30),
        "campaign of 200,000": get("viber-campaign/", name=LARGEST_CAMPAIGN),
        "confirmation of 100": ask(),
        "confirmation of a campaign of 3,000": ask(f"?campaign={SMALL_CAMPAIGN.format(1)}", select_across="1"),
        "confirmation of all": ask(select_across="1"),
        "page of a message": get(f"{known.pk}/change/"),
        "look at the queue": get_queue_status,
        "drain with nothing due": lambda: deliver_due_messages(limit=1),
    }
