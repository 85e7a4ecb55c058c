from __future__ import annotations

import re
import socket
from datetime import timedelta
from io import StringIO
from pathlib import Path
from unittest.mock import patch
from urllib.parse import urlsplit

from django.conf import settings
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, TestCase, TransactionTestCase, override_settings
from django.utils.timezone import localdate
from esms_viber.delivery import breaker, results
from esms_viber.models import OutboundViberMessage, ViberMessageEvent
from esms_viber.monitoring import get_queue_status
from esms_viber.reports.parsing import parse_report
from esms_viber.reports.polling import RefreshSummary, refresh_due_messages
from esms_viber.services import DeliverySummary, deliver_due_messages

import config.settings
from shop.models import Order
from simulator.behaviour import Behaviour, Reporting
from simulator.conf import get_config
from simulator.state import gateway

from . import history, outage, seed, server, terminal
from .management.commands.demo import _point_everything_at

ENGLISH = {"LC_ALL": "en_GB.UTF-8"}


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


class HistoryTests(TestCase):
    messages = OutboundViberMessage.objects.order_by("pk")

    @classmethod
    def setUpTestData(cls) -> None:
        history.create_history()

    def count(self, **columns: object) -> int:
        return self.messages.filter(**columns).count()

    def test_what_became_of_its_messages(self) -> None:
        statuses = ("delivered", "undelivered", "failed", "unknown")
        self.assertEqual([self.count(status=status) for status in statuses], [76, 8, 5, 1])
        self.assertEqual([self.count(code_result=code) for code in ("100", "99", "146", "199")], [84, 3, 2, 1])
        self.assertEqual(self.count(campaign="orders") + self.count(campaign="tet-2027"), self.messages.count())
        for campaign, price in (("orders", 470), ("tet-2027", 1450)):
            delivered = self.messages.filter(campaign=campaign, status="delivered")
            self.assertEqual(set(delivered.values_list("total_price", flat=True)), {price})

    def test_nothing_of_it_is_left_to_send_or_to_ask(self) -> None:
        before = list(self.messages.values())
        self.assertEqual(deliver_due_messages(), DeliverySummary())
        self.assertEqual(refresh_due_messages(), RefreshSummary())
        self.assertEqual(list(self.messages.values()), before)
        self.assertEqual(self.count(next_attempt_at=None, next_query_at=None), len(before))

    def test_one_message_waits_for_a_person_and_nothing_is_blocked(self) -> None:
        queue = get_queue_status()
        self.assertEqual((queue.undecided, queue.unconfirmed, queue.blocked), (1, 0, False))

    def test_times_follow_each_other_in_the_two_weeks_before_today(self) -> None:
        for message in self.messages.all():
            times = [message.created_at, message.queued_at, message.sent_at, message.completed_at]
            known = [time for time in times if time]
            self.assertEqual(known, sorted(known))
            self.assertIn((localdate() - localdate(message.created_at)).days, range(1, history.DAYS + 1))
        created = list(self.messages.values_list("created_at", flat=True))
        self.assertEqual(created, sorted(created))

    def test_every_message_has_its_timeline(self) -> None:
        for message in self.messages.all():
            events = list(message.events.all())
            expected = ["requested", "attempt"] + ["callback"] * (message.sent_at is not None)
            self.assertEqual([event.kind for event in events], expected)
            self.assertEqual(events[0].created_at, message.created_at)
            self.assertEqual(events[1].code, message.code_result)
            for event in events[2:]:
                self.assertEqual(parse_report(event.data).verdict.value, message.status)

    def test_a_message_as_the_app_would_take_it(self) -> None:
        for message in self.messages.all():
            message.full_clean()

    def test_comes_once(self) -> None:
        history.create_history()
        self.assertEqual(self.messages.count(), 90)
        self.assertEqual(ViberMessageEvent.objects.count(), 90 * 2 + 84)

    def test_is_the_same_in_every_demo(self) -> None:
        columns = ("phone", "content", "status", "request_id", "created_at")
        first = list(self.messages.values_list(*columns))
        self.messages.all().delete()
        history.create_history()
        self.assertEqual(list(self.messages.values_list(*columns)), first)


class TerminalTests(SimpleTestCase):
    def test_speaks_as_the_environment_says(self) -> None:
        for environment, language in (
            ({}, "en"),
            ({"LANG": "vi_VN.UTF-8"}, "vi"),
            ({"LANG": "C.UTF-8"}, "en"),
            ({"LC_ALL": "", "LC_MESSAGES": "vi_VN", "LANG": "en_US.UTF-8"}, "vi"),
            ({"LC_ALL": "en_US.UTF-8", "LANG": "vi_VN.UTF-8"}, "en"),
        ):
            with self.subTest(environment), patch.dict("os.environ", environment, clear=True):
                self.assertEqual(terminal.language(), language)

    @override_settings(DEBUG=False)
    def test_refuses_in_vietnamese(self) -> None:
        with (
            patch.dict("os.environ", {"LC_ALL": "vi_VN.UTF-8"}),
            self.assertRaisesMessage(CommandError, "chỉ chạy khi DEBUG=True"),
        ):
            call_command("demo")


@patch.dict("os.environ", ENGLISH)
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

    def test_pictures_of_this_site_reach_the_phones_without_https(self) -> None:
        settings_before = {name: getattr(settings, name) for name in ("SITE_ORIGIN", "SIMULATOR", "ESMS_VIBER")}
        host = urlsplit(settings.SITE_ORIGIN).netloc
        self.assertEqual(get_config().LOCAL_IMAGES[f"https://{host}/static/"], "/static/")
        with override_settings(DEMO_LOGINS=(), **settings_before):
            _point_everything_at("http://127.0.0.1:8765")
            local = {"https://shop.example.vn/static/", "https://127.0.0.1:8765/static/"}
            self.assertEqual(set(get_config().LOCAL_IMAGES), local)

    def test_every_variable_is_in_the_example(self) -> None:
        source = Path(config.settings.__file__).read_text(encoding="utf-8")
        read = set(re.findall(r'\benv[.\w]*\(\s*"([A-Z_]+)"', source))
        example = (settings.BASE_DIR / ".env.example").read_text(encoding="utf-8")
        self.assertEqual(read, set(re.findall(r"^(?:# )?([A-Z_]+)=", example, re.MULTILINE)))


@patch.dict("os.environ", ENGLISH)
@override_settings(DEBUG=True)
class OnceTests(TestCase):
    def test_fails_unless_the_message_is_delivered(self) -> None:
        with (
            patch("demo.management.commands.demo.Story.tell", return_value=OutboundViberMessage.Status.SENT),
            self.assertRaisesMessage(CommandError, "its status is “sent”"),
        ):
            call_command("demo", once=True, stdout=StringIO())

    def test_stopped_early(self) -> None:
        with (
            patch("demo.management.commands.demo.Story.tell", side_effect=KeyboardInterrupt),
            self.assertRaisesMessage(CommandError, "Stopped"),
        ):
            call_command("demo", once=True, stdout=StringIO())


@patch.dict("os.environ", ENGLISH)
class OutageTests(TransactionTestCase):
    def test_ends_by_itself(self) -> None:
        seed.create_orders()
        gateway.reset()
        lines: list[str] = []
        settings_before = {name: getattr(settings, name) for name in ("SITE_ORIGIN", "SIMULATOR")}
        esms = {**settings.ESMS_VIBER, "GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}
        with (
            override_settings(DEMO_LOGINS=(), ESMS_VIBER=esms, **settings_before),
            patch.object(outage, "SECONDS_OF_OUTAGE", 0),
            # No reports, which would meet a server that is gone.
            patch.object(outage, "NORMAL", Behaviour(reporting=Reporting.NEVER)),
            patch.object(breaker, "FIRST_WAIT", timedelta(seconds=0.5)),
            patch.object(results, "back_off", return_value=timedelta(seconds=0.5)),
            terminal.in_its_language(),
            server.serving(site := server.bind(0)),
        ):
            _point_everything_at(server.origin(site))
            is_over = outage.play(lines.append, deliver_due_messages, "/admin/")
        self.assertTrue(is_over)
        told = "\n".join(lines)
        self.assertIn("eSMS does not answer", told)
        self.assertIn(f"{outage.MESSAGES} × sent", told)
        self.assertEqual(len(gateway.messages), outage.MESSAGES)
