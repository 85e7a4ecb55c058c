"""What pauses and hours cost while very many messages are held by them, and a few of another campaign go out."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from . import harness
from .claims import CLAIM, claim_times
from .filling import campaign, fill
from .pages import LIST, staff

HELD, OTHERS = "tet-2027", "orders"


def run(rows: int = 1_000_000, rounds: int = 5) -> list[harness.Result]:
    from esms_viber.monitoring import get_queue_status

    client = staff()
    looks: dict[str, Callable[[], object]] = {
        "look at the queue": get_queue_status,
        "list, first page": lambda: client.get(LIST),
    }
    fill(campaign(rows, HELD, purpose="promotional"), campaign(CLAIM * rounds * 20, OTHERS))
    results = []
    for name, held in (("nothing", _nothing), (f"{rows:,} by a pause", _paused), (f"{rows:,} by hours", _night)):
        with held():
            times = claim_times(5 * rounds, warm_up=1)
            _put_back()
            results.append(harness.summary(f"claim of {CLAIM}, held: {name}", times))
            results += [
                harness.summary(f"{what}, held: {name}", harness.times_of(look, rounds)) for what, look in looks.items()
            ]
    return results


def _put_back() -> None:
    """Return what was claimed to the queue, so that each scene begins alike."""
    from esms_viber.models import OutboundViberMessage

    OutboundViberMessage.objects.sending().update(status="queued", claim_id="", lease_until=None)


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _paused() -> Iterator[None]:
    from esms_viber.services import pause_sending, resume_sending

    pause_sending(HELD)
    try:
        yield
    finally:
        resume_sending(HELD)


@contextmanager
def _night() -> Iterator[None]:
    from esms_viber.conf import VIETNAM

    hour = dt.datetime.now(VIETNAM).hour
    begin, end = ("12:00", "12:30") if hour < 6 else ("01:00", "01:30")
    with harness.settings_of_app(PROMOTIONAL_HOURS=(begin, end)):
        yield
