from __future__ import annotations

import re
import socket
from io import StringIO
from pathlib import Path
from unittest.mock import patch

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, TestCase, override_settings

import config.settings
from shop.models import Order

from . import seed, server


class SeedTests(TestCase):
    def test_logins(self) -> None:
        seed.create_logins()
        self.assertTrue(self.client.login(username="admin", password=seed.PASSWORD))
        staff = User.objects.get(username="staff")
        self.assertTrue(staff.has_perm("esms_viber.view_outboundvibermessage"))
        self.assertFalse(staff.has_perm("esms_viber.send_outboundvibermessage"))
        self.assertFalse(staff.has_perm("shop.change_order"))

    def test_logins_that_are_there_are_left_alone(self) -> None:
        User.objects.create_superuser("admin", password="mine")
        seed.create_logins()
        self.assertTrue(self.client.login(username="admin", password="mine"))

    def test_every_run_has_a_new_order(self) -> None:
        first, second = seed.create_orders(), seed.create_orders()
        self.assertNotEqual(first.pk, second.pk)
        self.assertEqual(Order.objects.count(), len(seed.ORDERS) + 1)


class RefusalTests(SimpleTestCase):
    @override_settings(DEBUG=False)
    def test_without_debug(self) -> None:
        with self.assertRaisesMessage(CommandError, "DEBUG=True"):
            call_command("demo")

    @override_settings(DEBUG=True, ESMS_IS_SIMULATED=False)
    def test_real_account(self) -> None:
        with self.assertRaisesMessage(CommandError, "ESMS_BASE_URL"):
            call_command("demo")

    @override_settings(DEBUG=True)
    def test_port_that_is_taken(self) -> None:
        with socket.create_server((server.HOST, 0)) as taken:
            port = taken.getsockname()[1]
            with self.assertRaisesMessage(CommandError, f"Port {port} cannot be used"):
                call_command("demo", port=port)

    def test_settings_name_the_simulators_account(self) -> None:
        self.assertIn(settings.ESMS_VIBER["BRANDNAME"], settings.SIMULATOR["BRANDNAMES"])

    def test_every_variable_is_in_the_example(self) -> None:
        source = Path(config.settings.__file__).read_text(encoding="utf-8")
        read = set(re.findall(r'\benv[.\w]*\(\s*"([A-Z_]+)"', source))
        example = (settings.BASE_DIR / ".env.example").read_text(encoding="utf-8")
        self.assertEqual(read, set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)))


@override_settings(DEBUG=True)
class OnceTests(TestCase):
    def test_fails_unless_the_message_is_delivered(self) -> None:
        with (
            patch("demo.management.commands.demo.Story.tell", return_value="sent"),
            self.assertRaisesMessage(CommandError, "its status is “sent”"),
        ):
            call_command("demo", once=True, stdout=StringIO())

    def test_stopped_early(self) -> None:
        with (
            patch("demo.management.commands.demo.Story.tell", side_effect=KeyboardInterrupt),
            self.assertRaisesMessage(CommandError, "Stopped"),
        ):
            call_command("demo", once=True, stdout=StringIO())
