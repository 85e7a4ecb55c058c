"""Check the database that the messages are in."""

from __future__ import annotations

from collections.abc import Iterator

from django.conf import settings
from django.core.checks import CheckMessage
from django.core.checks import Warning as CheckWarning
from django.db import connections
from django.utils.translation import gettext as _

from ..conf import ViberSettings
from ..models import OutboundViberMessage


def check_sqlite(conf: ViberSettings) -> Iterator[CheckMessage]:
    """Warn where a site's own transaction that queues a message may fail with "database is locked".

    The app begins its own transactions as IMMEDIATE, and can do nothing about one that the site has begun.
    """
    alias = OutboundViberMessage.objects.write_alias()
    options = settings.DATABASES[alias].get("OPTIONS", {})
    if connections[alias].vendor == "sqlite" and not options.get("transaction_mode"):
        yield CheckWarning(
            _(
                'Orders that read before they queue a message may fail with "database is locked": that is how SQLite '
                "works."
            ),
            hint=_('In DATABASES["%(alias)s"]: %(line)s')
            % {"alias": alias, "line": '"OPTIONS": {"transaction_mode": "IMMEDIATE"}'},
            id="esms_viber.W015",
        )
