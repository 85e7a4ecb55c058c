"""The demo: a shop, an eSMS gateway and a phone, in one process, and a first message on its way."""

from __future__ import annotations

import logging
import signal
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management import call_command
from django.core.management.base import BaseCommand, CommandError
from django.db import DatabaseError
from django.urls import reverse
from django.utils.translation import gettext
from esms_viber.services import deliver_due_messages

from config.images import local_images
from demo import history, outage, seed, server, terminal
from demo.story import Status, Story
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

    def handle(self, *, port: int | None, once: bool, **options: Any) -> None:
        with terminal.in_its_language():
            self._handle(port, once=once)

    def _handle(self, port: int | None, *, once: bool) -> None:
        _refuse_real_account()
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            self._run(_bind((0 if once else DEFAULT_PORT) if port is None else port), once=once)
        except KeyboardInterrupt:
            if once:
                raise CommandError(gettext("Stopped before the message arrived.")) from None
            self.stdout.write("\n" + gettext("Stopped."))

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
        history.create_history()
        seed.create_opt_out()
        seed.create_paused_campaign()
        return seed.create_orders()

    def _send_first_message(self, order: Order, *, strict: bool) -> None:
        self.stdout.write(gettext("Order %(order)s is paid:") % {"order": order})
        status = Story(self.stdout.write).tell(order, SECONDS_TO_DELIVER)
        if status == Status.DELIVERED:
            self.stdout.write(self.style.SUCCESS(gettext("The message is delivered.")))
        elif strict:
            raise CommandError(_not_delivered(status))
        else:
            self.stderr.write(_not_delivered(status))

    def _serve(self, origin: str) -> None:
        pages = [
            (gettext("Shop"), "/"),
            (gettext("Phones"), reverse("simulator:phones")),
            (gettext("Admin"), reverse("admin:index")),
            (gettext("Gateway"), reverse("simulator:control")),
        ]
        self.stdout.write("")
        for name, path in pages:
            self.stdout.write(f"  {name:<15} {origin}{path}")
        login = gettext("Login")
        for username, password, rights in seed.LOGINS:
            self.stdout.write(f"  {login:<15} {username} / {password}: {rights}")
        customer, phone, *_order = seed.OPTED_OUT
        told = gettext("%(customer)s (%(phone)s) has opted out of promotional messages: “Send to many” leaves her out.")
        self.stdout.write("\n" + told % {"customer": customer, "phone": phone})
        self.stdout.write(
            gettext("A shipped order says what the template “order-shipped” says: rewrite it in the admin.")
        )
        told = gettext("The campaign “%(name)s” is paused: resume it on its page, and its messages go out.")
        self.stdout.write(told % {"name": seed.PAUSED_CAMPAIGN})
        self.stdout.write(gettext("Enter shows an outage of eSMS, and how it ends."))
        self.stdout.write(gettext("Ctrl-C ends it."))
        enter = terminal.Enter()
        while True:
            # What a site's cron job or worker does: repeats what is due again.
            if enter.was_pressed_within(SECONDS_BETWEEN_DRAINS):
                url = origin + reverse("admin:esms_viber_outboundvibermessage_changelist")
                outage.play(self.stdout.write, _send_what_is_due, url)
            _send_what_is_due()


def _not_delivered(status: Status | None) -> str:
    if status is None:
        return gettext("The order has no message.")
    sentence = gettext("The message is not delivered after %(seconds)d s: its status is “%(status)s”.")
    return sentence % {"seconds": SECONDS_TO_DELIVER, "status": status.label}


def _send_what_is_due() -> None:
    try:
        deliver_due_messages()
    except DatabaseError:
        logger.exception("The messages that are due were not sent; they are tried again.")


def _refuse_real_account() -> None:
    """Its first message goes to a number of the samples, and its passwords are in the source."""
    if not settings.DEBUG:
        raise CommandError(gettext("The demo has fixed passwords and runs only with DEBUG=True."))
    if not settings.ESMS_IS_SIMULATED:
        raise CommandError(
            gettext(
                "ESMS_BASE_URL is not the simulator. The demo sends messages of its own: "
                "unset it for the demo, or run the site with “manage.py runserver”."
            )
        )


def _bind(port: int) -> server.Server:
    try:
        return server.bind(port)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        sentence = gettext("Port %(port)s cannot be used: %(reason)s. Choose another one with --port.")
        raise CommandError(sentence % {"port": port, "reason": reason}) from None


def _point_everything_at(origin: str) -> None:
    """The port is known only now, and the account is the simulator's, whatever the environment says."""
    settings.SITE_ORIGIN = origin
    settings.DEMO_LOGINS = seed.LOGINS
    settings.SIMULATOR = {**settings.SIMULATOR, "LOCAL_IMAGES": local_images(origin)}
    settings.ESMS_VIBER = {
        **settings.ESMS_VIBER,
        "API_KEY": "demo-api-key",
        "SECRET_KEY": "demo-secret-key",
        "BRANDNAME": settings.SIMULATOR["BRANDNAMES"][0],
        "SANDBOX": False,
        "CALLBACK_ORIGIN": origin,
        "BASE_URL": f"{origin}/MainService.svc/json/",
    }
