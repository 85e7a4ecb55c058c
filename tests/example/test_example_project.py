"""The example project, run as a newcomer runs it: by its own `manage.py`, in processes of its own."""

from __future__ import annotations

import json
import re
import signal

import pytest

from .processes import MANAGE, demo_running, fetch, run

HEX = r"[0-9a-f]+"

pytestmark = pytest.mark.skipif(not MANAGE.exists(), reason="the example project is not part of this copy")


def test_its_own_tests(environment: dict[str, str]) -> None:
    result = run(environment, "test", "shop", "simulator", "demo")
    assert result.returncode == 0, result.stderr
    assert int(re.search(r"Ran (\d+) tests", result.stderr)[1]) > 50


def test_its_migrations_are_complete(environment: dict[str, str]) -> None:
    result = run(environment, "makemigrations", "--check", "--dry-run", "shop")
    assert result.returncode == 0, result.stdout + result.stderr


def test_once_shows_the_way_of_a_message(environment: dict[str, str]) -> None:
    for _ in range(2):
        result = run(environment, "demo", "--once")
        assert result.returncode == 0, result.stdout + result.stderr
        assert result.stderr == ""
        steps = [re.sub(r"^ *[\d:.]+ +", "", line) for line in result.stdout.splitlines()[1:]]
        assert re.fullmatch(r"queued +stored for \+84901888484, .*", steps[0])
        assert re.fullmatch(rf"queued → sending +RequestId {HEX}", steps[1])
        assert re.fullmatch(rf"sending → sent +eSMS answered 100 after \d+ ms, SMSID {HEX}", steps[2])
        assert re.fullmatch(r"sent → delivered +.*SendStatus 5, 470 đ", steps[3])
        assert steps[4:] == ["The message is delivered."]


def test_serves_until_ctrl_c(environment: dict[str, str]) -> None:
    with demo_running(environment) as (process, written):
        assert "The message is delivered." in written, written
        assert "admin / demo" in written
        origin = re.search(r"http://127\.0\.0\.1:\d+", written)[0]
        for path in ("/", "/phone/", "/phone/0901888484/", "/simulator/", "/admin/login/", "/static/site/site.css"):
            assert fetch(origin + path)
        (message,) = json.loads(fetch(f"{origin}/phone/0901888484/messages/"))["messages"]
        assert message["text"].startswith("Cà Phê Sớm xin chào")
        assert message["button_url"].startswith(f"{origin}/orders/")
        assert "not a parameter" not in fetch(f"{origin}/simulator/")
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 0
        assert process.stdout.read().strip() == "Stopped."


def test_refuses_a_real_account(environment: dict[str, str]) -> None:
    environment["ESMS_BASE_URL"] = "https://rest.esms.vn/MainService.svc/json/"
    result = run(environment, "demo", "--once")
    assert result.returncode == 1
    assert "ESMS_BASE_URL" in result.stderr
    assert "Traceback" not in result.stderr
