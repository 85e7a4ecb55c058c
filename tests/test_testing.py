"""What a site gets for its own tests."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import tomllib
from pathlib import Path

import pytest
import requests
import responses
from django.conf import settings as site_settings
from django.core import mail
from django.test import override_settings

from esms_viber.exceptions import GatewayRefused
from esms_viber.gateways.base import CallOutcome
from esms_viber.gateways.console import ConsoleGateway
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.gateways.loading import get_gateway
from esms_viber.gateways.memory import MemoryGateway
from esms_viber.services import refresh_viber_messages, send_viber_message
from esms_viber.testing import answer_next, assert_sent, outbox, play_callback
from tests.fake_gateway import FakeGateway

ROOT = Path(__file__).resolve().parents[1]
ESMS = "esms_viber.gateways.esms.EsmsGateway"
ACCOUNT = {"API_KEY": "k", "SECRET_KEY": "s", "BRANDNAME": "SHOP"}


class Traced(EsmsGateway):
    """A site's own gateway."""


# -- the outbox, answers and reports -----------------------------------------------------------------------------------


@pytest.fixture
def console_site(settings):
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "esms_viber.gateways.console.ConsoleGateway"}


@pytest.mark.django_db
@pytest.mark.usefixtures("console_site")
def test_the_fixture_keeps_what_is_sent_whatever_gateway_the_site_has(viber_outbox):
    message = send_viber_message("0901 888 484", "Xin chào")
    assert [sent.request_id for sent in viber_outbox] == [message.request_id]


def test_the_outbox_is_empty_for_the_next_test():
    assert outbox == []


@pytest.mark.django_db
def test_answers_are_scripted_one_by_one():
    answer_next("146", text="Template is not match")
    answer_next()
    answer_next(outcome=CallOutcome.NO_ANSWER)
    statuses = [send_viber_message("0901 888 484", f"{number}").status for number in range(4)]
    assert statuses == ["failed", "sent", "unknown", "queued"], "after no answer the next waits, as it would for eSMS"


@pytest.mark.django_db
@pytest.mark.parametrize(("delivered", "status"), [(True, "delivered"), (False, "undelivered")])
def test_a_callback_is_played(delivered, status):
    message = send_viber_message("0901 888 484", "Xin chào")
    assert play_callback(message, delivered=delivered).status_code == 200
    message.refresh_from_db()
    assert message.status == status
    if not delivered:
        with pytest.raises(GatewayRefused):
            message.raise_for_status()


@pytest.mark.django_db
def test_a_callback_is_played_to_a_site_below_a_path(settings):
    message = send_viber_message("0901 888 484", "Xin chào")
    settings.FORCE_SCRIPT_NAME = "/shop"
    assert play_callback(message).status_code == 200


@pytest.mark.django_db
def test_what_was_sent_to_whom_is_asserted():
    for text in ("Đơn hàng #1", "Đơn hàng #2", "Tạm biệt"):
        send_viber_message("0901 888 484", text)
    assert assert_sent("+84 901 888 484", "Đơn hàng").content == "Đơn hàng #2"
    assert assert_sent("0901888484").content == "Tạm biệt"
    for phone, text in (("0912 345 678", ""), ("0901 888 484", "Chúc mừng")):
        with pytest.raises(AssertionError, match=r"Sent was:\n  \+84901888484: Đơn hàng #1\n"):
            assert_sent(phone, text)
    outbox.clear()
    with pytest.raises(AssertionError, match="Sent was: nothing"):
        assert_sent("0901 888 484")


@pytest.mark.django_db
def test_the_outbox_reads_like_a_list():
    assert not outbox
    assert outbox == [] == outbox
    for text in ("một", "hai", "ba"):
        send_viber_message("0901 888 484", text)
    first, *rest = outbox
    assert (len(outbox), outbox[0], outbox[-1], outbox[1:]) == (3, first, rest[-1], rest)
    assert outbox == [first, *rest] == outbox
    assert outbox != [first]
    assert first in outbox
    assert [sent.content for sent in reversed(outbox)] == ["ba", "hai", "một"]
    assert (outbox.index(first), outbox.count(first)) == (0, 1)
    assert repr(outbox) == repr([first, *rest])
    kept = outbox[:]
    del outbox[1:]
    assert outbox.pop() == first
    assert len(kept) == 3


@pytest.mark.django_db
def test_another_test_case_of_django_finds_nothing_of_the_one_before(monkeypatch):
    """Each begins with a list of its own for e-mails."""
    send_viber_message("0901 888 484", "Xin chào")
    answer_next("146")
    monkeypatch.setattr(mail, "outbox", [])
    assert outbox == []
    assert send_viber_message("0901 888 484", "Chào lại").status == "sent"
    assert [sent.content for sent in outbox] == ["Chào lại"]


@pytest.mark.django_db
def test_an_answer_scripted_first_of_all_is_for_this_test(monkeypatch):
    monkeypatch.setattr(mail, "outbox", [])
    answer_next("146")
    assert send_viber_message("0901 888 484", "Xin chào").status == "failed"


# -- which gateway a test has ------------------------------------------------------------------------------------------


@pytest.mark.django_db
@pytest.mark.parametrize("conf", [{}, {"SANDBOX": True}, {**ACCOUNT, "DISPATCHER": "esms_viber.dispatch.inline"}])
def test_an_override_that_names_no_gateway_sends_nothing_and_needs_no_keys(settings, conf):
    settings.ESMS_VIBER = conf
    assert send_viber_message("0901 888 484", "Xin chào").status == "sent"
    assert_sent("0901 888 484", "Xin chào")


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        (ESMS, EsmsGateway),
        (f"{__name__}.Traced", Traced),
        ("esms_viber.gateways.console.ConsoleGateway", ConsoleGateway),
        ("esms_viber.gateways.memory.MemoryGateway", MemoryGateway),
    ],
)
def test_a_test_that_names_a_gateway_gets_it(settings, path, kind):
    settings.ESMS_VIBER = {**ACCOUNT, "GATEWAY": path}
    assert type(get_gateway()) is kind


def test_the_innermost_override_counts_in_every_thread():
    def kind() -> type:
        found: list[type] = []
        thread = threading.Thread(target=lambda: found.append(type(get_gateway())))
        thread.start()
        thread.join()
        assert found == [type(get_gateway())]
        return found[0]

    before = kind()
    with override_settings(ESMS_VIBER={**ACCOUNT, "GATEWAY": ESMS}):
        assert kind() is EsmsGateway
        with override_settings(ESMS_VIBER={**site_settings.ESMS_VIBER, "SANDBOX": True}):
            assert kind() is EsmsGateway
        with override_settings(ESMS_VIBER=ACCOUNT):
            assert kind() is MemoryGateway
            with override_settings(ESMS_VIBER={**ACCOUNT, "GATEWAY": f"{__name__}.Traced"}):
                assert kind() is Traced
            assert kind() is MemoryGateway
        with override_settings(LANGUAGE_CODE="vi"):
            assert kind() is EsmsGateway
        assert kind() is EsmsGateway
    assert kind() is before is MemoryGateway


def test_the_override_is_known_after_the_apps_were_loaded_again(settings):
    settings.ESMS_VIBER = {**ACCOUNT, "GATEWAY": ESMS}
    settings.INSTALLED_APPS = [*settings.INSTALLED_APPS, "django.contrib.humanize"]
    assert type(get_gateway()) is EsmsGateway


def test_outside_of_tests_the_settings_count(settings, monkeypatch):
    settings.ESMS_VIBER = ACCOUNT
    assert type(get_gateway()) is MemoryGateway
    monkeypatch.delattr(mail, "outbox")
    assert type(get_gateway()) is EsmsGateway


# -- with responses ----------------------------------------------------------------------------------------------------


@pytest.fixture
def esms_url(settings, fake_gateway):
    """Where the gateway calls, unless `responses` answers in its place."""
    account = {"API_KEY": "an-api-key", "SECRET_KEY": "a-secret-key", "BRANDNAME": "SHOP"}
    settings.ESMS_VIBER = {**account, "GATEWAY": ESMS, "BASE_URL": fake_gateway.url}
    yield fake_gateway.url
    assert fake_gateway.connections == 0


@pytest.mark.django_db
@pytest.mark.parametrize(
    ("answer", "status", "code"),
    [
        ({"json": {"CodeResult": "100", "SMSID": "s-1"}}, "sent", "100"),
        ({"json": {"CodeResult": "99", "ErrorMessage": "Unknown"}, "status": 500}, "failed", "99"),
        ({"json": {"error": "Invalid request"}}, "unknown", ""),
        ({"body": "<html>", "status": 502}, "unknown", ""),
        ({"body": "{" * 70_000}, "unknown", ""),
        ({"status": 302, "headers": {"Location": "https://esms.example/"}}, "unknown", ""),
        ({"body": requests.ConnectionError("no way")}, "queued", ""),
    ],
)
@responses.activate
def test_a_registered_answer_is_what_the_gateway_gets(esms_url, answer, status, code):
    responses.get(f"{esms_url}SendMultipleMessage_V4_get", **answer)
    message = send_viber_message("0901 888 484", "Xin chào")
    assert (message.status, message.code_result) == (status, code)
    (call,) = responses.calls
    assert (call.request.method, call.request.url) == ("GET", f"{esms_url}SendMultipleMessage_V4_get")
    assert not call.request.body
    seen = repr(vars(call.request)) + repr(call.request)
    assert not [text for text in ("an-api-key", "a-secret-key", "901888484", "Xin", "SHOP") if text in seen]


@pytest.mark.django_db
@responses.activate
def test_registered_answers_to_queries(esms_url):
    responses.get(f"{esms_url}SendMultipleMessage_V4_get", json={"CodeResult": "100", "SMSID": "s-1"})
    responses.get(f"{esms_url}GetSendStatus", json={"CodeResponse": "100", "SendStatus": 5, "SendSuccess": 1})
    responses.post(f"{esms_url}GetBalance_json", json={"CodeResponse": "100", "Balance": 36693})
    message = send_viber_message("0901 888 484", "Xin chào")
    refresh_viber_messages([message])
    message.refresh_from_db()
    assert message.status == "delivered"
    assert get_gateway().fetch_balance().balance == 36693
    assert not [call for call in responses.calls if call.request.body or "?" in call.request.url]


@pytest.mark.django_db
@responses.activate
def test_what_is_not_registered_is_not_sent(esms_url):
    assert send_viber_message("0901 888 484", "Xin chào").status == "queued"


# -- a stranger's site, under the test runners there are ---------------------------------------------------------------

SITE = {
    "manage.py": """
        import os, sys
        from django.core.management import execute_from_command_line
        os.environ["DJANGO_SETTINGS_MODULE"] = "mysite"
        if __name__ == "__main__":
            if "SPAWN" in os.environ:
                import multiprocessing
                multiprocessing.set_start_method("spawn")
            execute_from_command_line(sys.argv)
    """,
    "mysite.py": """
        import os
        SECRET_KEY = "site"
        INSTALLED_APPS = ["django.contrib.auth", "django.contrib.contenttypes", "esms_viber", "shop"]
        DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "site.sqlite3"}}
        ROOT_URLCONF = "urls"
        STATIC_URL = "static/"
        USE_TZ = True
        ESMS_VIBER = {"API_KEY": "k", "SECRET_KEY": "s", "BRANDNAME": "SHOP", "BASE_URL": os.environ["BASE_URL"]}
        if "SITE_GATEWAY" in os.environ:
            ESMS_VIBER["GATEWAY"] = os.environ["SITE_GATEWAY"]
    """,
    "urls.py": """
        from django.http import HttpResponse
        from django.urls import include, path
        from shop.models import Order

        def buy(request):
            Order.objects.create(phone=request.GET["phone"])
            return HttpResponse()

        urlpatterns = [path("esms-viber/", include("esms_viber.urls")), path("buy/", buy)]
    """,
    "shop/__init__.py": "",
    "shop/gateways.py": """
        from esms_viber.gateways.esms import EsmsGateway
        class Traced(EsmsGateway): pass
    """,
    "shop/models.py": """
        from django.db import models
        from esms_viber.services import queue_viber_message
        class Order(models.Model):
            phone = models.CharField(max_length=20)
            def save(self, *args, **kwargs):
                super().save(*args, **kwargs)
                queue_viber_message(self.phone, f"Order {self.pk}")
    """,
    "shop/tests.py": """
        import unittest
        from urllib.request import urlopen
        from django.conf import settings
        from django.test import LiveServerTestCase, TestCase, TransactionTestCase, override_settings
        from esms_viber.models import OutboundViberMessage
        from esms_viber.testing import answer_next, outbox
        from shop.models import Order

        ASKING = {**settings.ESMS_VIBER, "GATEWAY": "esms_viber.gateways.esms.EsmsGateway"}

        def kept():
            return [sent.phone for sent in outbox]

        class Sends:
            def send(self):
                Order.objects.create(phone="0901 888 484")

            def test_once(self):
                self.assertEqual(kept(), [])
                answer_next("146")
                answer_next("146")
                self.send()
                self.assertEqual(kept(), ["+84901888484"])
                self.assertEqual(OutboundViberMessage.objects.get().status, "failed")

            def test_twice(self):
                self.send()
                self.send()
                self.assertEqual(kept(), ["+84901888484"] * 2)
                self.assertEqual(OutboundViberMessage.objects.filter(status="sent").count(), 2)

        class Committed(Sends, TransactionTestCase):
            pass

        class Captured(Sends, TestCase):
            @classmethod
            def setUpTestData(cls):
                with cls.captureOnCommitCallbacks(execute=True):
                    Order.objects.create(phone="0912 345 678")
                OutboundViberMessage.objects.all().delete()

            def send(self):
                with self.captureOnCommitCallbacks(execute=True):
                    super().send()

        class Live(Sends, LiveServerTestCase):
            def send(self):
                urlopen(self.live_server_url + "/buy/?phone=0901888484").close()

        @override_settings(ESMS_VIBER={"BRANDNAME": "SHOP", "BASE_URL": settings.ESMS_VIBER["BASE_URL"]})
        class Overridden(Sends, TransactionTestCase):
            pass

        @override_settings(ESMS_VIBER=ASKING)
        class Asking(TransactionTestCase):
            def test_class(self):
                Order.objects.create(phone="0909 000 001")
                self.assertEqual(kept(), [])

            @override_settings(ESMS_VIBER={"BASE_URL": settings.ESMS_VIBER["BASE_URL"]})
            def test_within(self):
                Order.objects.create(phone="0901 888 484")
                self.assertEqual(kept(), ["+84901888484"])

        class AskingForAWhile(Sends, TransactionTestCase):
            def setUp(self):
                with self.settings(ESMS_VIBER=ASKING):
                    Order.objects.create(phone="0909 000 002")
                OutboundViberMessage.objects.all().delete()
    """,
    "shop/test_pytest.py": """
        import unittest
        import pytest
        from esms_viber.gateways.loading import get_gateway
        from esms_viber.gateways.base import OutgoingMessage
        from esms_viber.testing import answer_next, outbox

        def give():
            answer_next("146")
            answer_next("146")
            message = OutgoingMessage(phone="+84901888484", request_id="r", brandname="b", content="c")
            assert get_gateway().send(message).code == "146"
            assert len(outbox) == 1

        class PlainTests(unittest.TestCase):
            def test_one(self):
                give()

            def test_two(self):
                give()

        @pytest.mark.parametrize("number", range(3))
        def test_function(number):
            give()

        @pytest.mark.parametrize("number", range(2))
        def test_fixture(viber_outbox, number):
            give()
            assert viber_outbox is outbox
    """,
    "shop/test_fixtures.py": """
        import pytest
        from esms_viber.testing import outbox
        from shop.models import Order

        @pytest.mark.django_db(transaction=True)
        def test_names_a_gateway(settings):
            settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": "shop.gateways.Traced"}
            Order.objects.create(phone="0909 000 003")
            assert outbox == []

        @pytest.mark.django_db(transaction=True)
        def test_names_none_any_more(settings):
            settings.ESMS_VIBER = {"BASE_URL": settings.ESMS_VIBER["BASE_URL"], "BRANDNAME": "SHOP"}
            Order.objects.create(phone="0901 888 484")
            assert len(outbox) == 1

        def test_captured(db, settings, viber_outbox, django_capture_on_commit_callbacks):
            settings.ESMS_VIBER = {**settings.ESMS_VIBER, "MAX_ATTEMPTS": 2}
            with django_capture_on_commit_callbacks(execute=True):
                Order.objects.create(phone="0901 888 484")
            assert len(viber_outbox) == 1

        def test_the_settings_are_the_sites_own_again(settings):
            assert "MAX_ATTEMPTS" not in settings.ESMS_VIBER
            assert "memory" not in settings.ESMS_VIBER.get("GATEWAY", "")
    """,
}


class Site:
    """A project in a folder of its own, whose settings send to the fake gateway."""

    def __init__(self, folder: Path, server: FakeGateway) -> None:
        self._folder, self._server = folder, server
        for name, text in SITE.items():
            (folder / name).parent.mkdir(exist_ok=True)
            (folder / name).write_text(textwrap.dedent(text))
        self._install(folder / "installed")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "DJANGO"))}
        self._environment = {
            **kept,
            "BASE_URL": server.url,
            "PYTHONPATH": os.pathsep.join([str(folder), str(folder / "installed"), str(ROOT)]),
        }

    def _install(self, folder: Path) -> None:
        """Declare the package's entry points where Python finds them, as installing it does."""
        info = folder / "site_of_the_test-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: site-of-the-test\nVersion: 1\n")
        points = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["pytest11"]
        lines = [f"{name} = {module}" for name, module in points.items()]
        (info / "entry_points.txt").write_text("\n".join(["[pytest11]", *lines, ""]))

    def run(self, *arguments: str, **environment: str) -> str:
        command = [sys.executable, "-W", "error", *arguments]
        done = subprocess.run(
            command,
            cwd=self._folder,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        output = done.stdout + done.stderr
        assert done.returncode == 0, output
        return output

    @property
    def phones_sent_to(self) -> list[str]:
        return sorted(request["Phone"] for request in self._server.requests)


@pytest.fixture
def site(tmp_path: Path, fake_gateway: FakeGateway) -> Site:
    return Site(tmp_path, fake_gateway)


ASKED_FOR = ["0909000001", "0909000002", "0909000002"]


@pytest.mark.parametrize(
    ("arguments", "environment"),
    [
        pytest.param((), {}, id="one after the other"),
        pytest.param(("--parallel", "2", "--shuffle"), {"SITE_GATEWAY": "shop.gateways.Traced"}, id="forked"),
        pytest.param(("--parallel", "2"), {"SPAWN": "1"}, id="spawned"),
    ],
)
def test_under_djangos_runner_only_what_is_asked_for_leaves(site, arguments, environment):
    output = site.run("manage.py", "test", "shop.tests", *arguments, **environment)
    assert "Ran 12 tests" in output
    assert site.phones_sent_to == ASKED_FOR


def test_under_pytest_only_what_is_asked_for_leaves(site):
    paths = ("shop/tests.py", "shop/test_pytest.py", "shop/test_fixtures.py")
    output = site.run("-m", "pytest", "-q", "--ds=mysite", *paths, SITE_GATEWAY=ESMS)
    assert "23 passed" in output
    assert site.phones_sent_to == [*ASKED_FOR, "0909000003"]


def test_under_pytest_without_pytest_django(site, tmp_path):
    """Nothing leaves from a fixture of the session either."""
    (tmp_path / "conftest.py").write_text(
        "import manage, django, pytest\n"
        "django.setup()\n"
        "from esms_viber.gateways.loading import get_gateway\n"
        "from esms_viber.gateways.base import OutgoingMessage\n"
        "@pytest.fixture(scope='session', autouse=True)\n"
        "def sends():\n"
        "    message = OutgoingMessage(phone='+84909000005', request_id='r', brandname='b', content='c')\n"
        "    get_gateway().send(message)\n"
        "    yield\n"
        "    get_gateway().send(message)\n"
    )
    output = site.run("-m", "pytest", "-q", "-p", "no:django", "shop/test_pytest.py")
    assert "7 passed" in output
    assert site.phones_sent_to == []


@pytest.mark.parametrize("named", [(), ("-p", "esms_viber.pytest_plugin")], ids=["found", "found and named"])
def test_a_project_without_django_is_left_alone(site, tmp_path, named):
    (tmp_path / "test_other.py").write_text("import sys\ndef test_other():\n    assert 'django' not in sys.modules\n")
    output = site.run("-m", "pytest", "-q", "-p", "no:django", *named, "--setup-show", "test_other.py")
    assert "1 passed" in output
    assert output.count("SETUP    F _viber_outbox_is_empty") == 1


def test_a_site_whose_mails_stay_in_memory_sends_for_real(site):
    """As on staging: Django's `mail.outbox` alone does not make a test."""
    site.run(
        "-c",
        "import manage, django; django.setup()\n"
        "from django.core import mail\n"
        "from django.core.mail.backends.locmem import EmailBackend\n"
        "EmailBackend(); assert mail.outbox == []\n"
        "from esms_viber.gateways.loading import get_gateway\n"
        "from esms_viber.gateways.base import OutgoingMessage\n"
        "message = OutgoingMessage(phone='+84909000004', request_id='r', brandname='b', content='c')\n"
        "assert get_gateway().send(message).code == '100'\n",
    )
    assert site.phones_sent_to == ["0909000004"]
