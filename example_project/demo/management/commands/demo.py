"""The demo: a shop, an eSMS gateway and a phone, in one process, and a first message on its way."""

from __future__ import annotations

import logging
import signal
import time
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.urls import reverse
from django.utils import translation
from esms_viber.services import deliver_due_messages

from demo import seed, server
from demo.story import Story
from shop.models import Order

DEFAULT_PORT = 8000
SECONDS_TO_DELIVER = 15
SECONDS_BETWEEN_DRAINS = 5

logger = logging.getLogger(__name__)


class Command(BaseCommand):
    help = "Serve the shop with a simulated eSMS gateway, and send a first message."
    # They would warn, rightly, that nobody outside can reach this machine's loopback address.
    requires_system_checks = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--port", type=int, help=f"default: {DEFAULT_PORT}; with --once, any free one")
        parser.add_argument("--once", action="store_true", help="send the message, and end; fail unless it arrived")

    @translation.override("en")
    def handle(self, *, port: int | None, once: bool, **options: Any) -> None:
        _refuse_real_account()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._run(_bind((0 if once else DEFAULT_PORT) if port is None else port), once=once)
        except KeyboardInterrupt:
            if once:
                raise CommandError("Stopped before the message arrived.") from None
            self.stdout.write("\nStopped.")

    def _run(self, site: server.Server, *, once: bool) -> None:
        _point_everything_at(server.origin(site))
        order = self._prepare()
        with server.serving(site):
            self._send_first_message(order, strict=once)
            if not once:
                self._serve(server.origin(site))

    def _prepare(self) -> Order:
        call_command("migrate", verbosity=0, interactive=False)
        seed.create_logins()
        return seed.create_orders()

    def _send_first_message(self, order: Order, *, strict: bool) -> None:
        self.stdout.write(f"Order {order} is paid:")
        status = Story(self.stdout.write).tell(order, SECONDS_TO_DELIVER)
        if status == "delivered":
            self.stdout.write(self.style.SUCCESS("The message is delivered."))
        elif strict:
            raise CommandError(f"The message is not delivered after {SECONDS_TO_DELIVER} s: its status is “{status}”.")
        else:
            self.stderr.write(f"The message is not delivered: its status is “{status}”.")

    def _serve(self, origin: str) -> None:
        pages = [
            ("Shop", "/"),
            ("Phone", reverse("simulator:phones")),
            ("Admin", reverse("admin:index")),
            ("Gateway", reverse("simulator:control")),
        ]
        self.stdout.write("")
        for name, path in pages:
            self.stdout.write(f"  {name:<8} {origin}{path}")
        for username, password, rights in seed.LOGINS:
            self.stdout.write(f"  Login    {username} / {password}: {rights}")
        self.stdout.write("\nCtrl-C ends it.")
        while True:
            # What a site's cron job or worker does: repeats what is due again.
            time.sleep(SECONDS_BETWEEN_DRAINS)
            _send_what_is_due()


def _send_what_is_due() -> None:
    try:
        deliver_due_messages()
    except DatabaseError:
        logger.exception("The messages that are due were not sent; they are tried again.")


def _refuse_real_account() -> None:
    """Its first message goes to a number of the samples, and its passwords are in the source."""
    if not settings.DEBUG:
        raise CommandError("The demo has fixed passwords and runs only with DEBUG=True.")
    if not settings.ESMS_IS_SIMULATED:
        raise CommandError(
            "ESMS_BASE_URL is not the simulator. The demo sends messages of its own: "
            "unset it for the demo, or run the site with “manage.py runserver”."
        )


def _bind(port: int) -> server.Server:
    try:
        return server.bind(port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise CommandError(f"Port {port} cannot be used: {reason}. Choose another one with --port.") from None


def _point_everything_at(origin: str) -> None:
    """The port is known only now, and the account is the simulator's, whatever the environment says."""
    settings.SITE_ORIGIN = origin
    settings.DEMO_LOGINS = seed.LOGINS
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "API_KEY": "demo-api-key",
        "SECRET_KEY": "demo-secret-key",
        "BRANDNAME": settings.SIMULATOR["BRANDNAMES"][0],
        "SANDBOX": False,
        "CALLBACK_ORIGIN": origin,
        "BASE_URL": f"{origin}/MainService.svc/json/",
    }
