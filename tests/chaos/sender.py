"""A sender of its own process for whom time is short: leases of seconds, waits a hundredth of what they are.

python -m tests.chaos.sender BASE_URL CALLBACK_ORIGIN READ_SECONDS
"""

from __future__ import annotations

import datetime as dt
import logging
import sys
from types import SimpleNamespace

LEASE = 2.5


def main(base_url: str, callback_origin: str, read_seconds: str) -> None:
    import django
    from django.conf import settings

    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "GATEWAY": "esms_viber.gateways.esms.EsmsGateway",
        "BASE_URL": base_url,
        "CALLBACK_ORIGIN": callback_origin,
        "TIMEOUT": (1, float(read_seconds)),
        "CONCURRENCY": 8,
    }
    django.setup()
    logging.getLogger("esms_viber").setLevel(logging.CRITICAL)
    from django.core.management import call_command

    from esms_viber.delivery import claims, outcomes, worker

    claims.LEASE = dt.timedelta(seconds=LEASE)
    outcomes.random = SimpleNamespace(uniform=lambda low, high: high / 100)
    worker.FIRST_PAUSE = worker.LONGEST_PAUSE = 0.3
    worker.LOOKING = 0.1
    call_command("send_viber_messages", watch=True, verbosity=0)


if __name__ == "__main__":
    main(*sys.argv[1:])
