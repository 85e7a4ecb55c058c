"""A sender of its own process for whom time is short: leases of seconds, waits a hundredth of what they are.

Its database is not to be relied on either: connections end, and answers to a COMMIT are lost.

python -m tests.chaos.sender BASE_URL CALLBACK_ORIGIN READ_SECONDS
"""

from __future__ import annotations

import datetime as dt
import logging
import os
import random
import socket
import sys
from types import SimpleNamespace
from typing import Any

LEASE = 2.5
LOST_COMMITS, ENDED_CONNECTIONS = 0.02, 0.002


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
    for name in ("esms_viber", "psycopg"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    from django.core.management import call_command
    from django.db import connection

    from esms_viber.delivery import breaker, claims, outcomes, watching, worker

    claims.LEASE = dt.timedelta(seconds=LEASE)
    outcomes.random = SimpleNamespace(uniform=lambda low, high: high / 100)
    watching.FIRST_PAUSE = watching.LONGEST_PAUSE = 0.3
    worker._MARGIN = 1.0
    breaker.FIRST_WAIT, breaker.LONGEST_WAIT = dt.timedelta(seconds=0.3), dt.timedelta(seconds=2)
    worker.LOOKING = 0.1
    if connection.vendor != "sqlite":
        spoil_database()
    call_command("send_viber_messages", watch=True, verbosity=0)


def cut(connection: Any) -> None:
    """Cut the network, as seen from here."""
    with socket.socket(fileno=os.dup(connection.connection.fileno())) as wire:
        wire.shutdown(socket.SHUT_RDWR)


def spoil_database() -> None:
    from django.db import OperationalError, connection
    from django.db.backends.base.base import BaseDatabaseWrapper

    chance = random.Random()
    commit = BaseDatabaseWrapper._commit

    def and_lose_the_answer(self: BaseDatabaseWrapper) -> None:
        commit(self)
        if chance.random() < LOST_COMMITS:
            cut(self)
            raise OperationalError("the connection was lost, and nobody knows whether it was committed")

    def end_connection(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        if chance.random() < ENDED_CONNECTIONS and connection.connection is not None:
            cut(connection)
        return execute(sql, params, many, context)

    BaseDatabaseWrapper._commit = and_lose_the_answer  # type: ignore[method-assign]  # the point
    connection.execute_wrappers.append(end_connection)


if __name__ == "__main__":
    main(*sys.argv[1:])
