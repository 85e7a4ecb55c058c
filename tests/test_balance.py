"""Balance and brand names: asked of eSMS over its socket, remembered, told in words where they cannot be had."""

from __future__ import annotations

from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError
from django.test import Client

from esms_viber.account import (
    Balance,
    BalanceUnavailable,
    BrandnamesUnavailable,
    ask,
    ask_brandnames,
    remembered_brandnames,
)
from esms_viber.gateways.base import BalanceResult, CallOutcome
from esms_viber.gateways.esms import EsmsGateway
from esms_viber.monitoring import get_queue_status
from tests.clock import Clock
from tests.fake_gateway import Close, FakeGateway, http_answer, json_answer

pytestmark = pytest.mark.django_db


def remembered() -> Balance | None:
    status = get_queue_status()
    return None if status.balance is None or status.balance_at is None else Balance(status.balance, status.balance_at)


def has(amount: object) -> list:
    return json_answer({"CodeResponse": "100", "Balance": amount, "UserID": 1})


def test_what_esms_said_is_remembered_with_its_time(esms: FakeGateway, clock: Clock) -> None:
    assert remembered() is None
    esms.answer(has(36693))
    balance = ask()
    assert balance.amount == Decimal(36693)
    clock.advance(days=3)
    assert remembered() == balance
    assert len(esms.requests) == 1


def test_who_asks_again_gets_a_new_answer(esms: FakeGateway) -> None:
    esms.answer(has(1000), has(900))
    assert [ask().amount, ask().amount] == [1000, 900]
    found = remembered()
    assert isinstance(found, Balance)
    assert found.amount == 900


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (
            json_answer({"CodeResponse": "101", "Balance": 0}),
            "Code 101: eSMS does not accept the API key and secret key",
        ),
        (json_answer({"CodeResponse": "140", "Balance": 0}), "Ask eSMS to add the server's public IP address"),
        (json_answer({"CodeResponse": "100"}), "eSMS accepts the keys, but did not tell the balance."),
        (
            [Close()],
            "eSMS did not tell the balance: Connection closed before the answer was complete. Try again later.",
        ),
    ],
)
def test_why_there_is_none_is_told(esms: FakeGateway, answer: list, sentence: str) -> None:
    esms.answer(answer)
    with pytest.raises(BalanceUnavailable) as error:
        ask()
    assert sentence in str(error.value)
    assert "test-secret-key" not in str(error.value)
    assert remembered() is None


def test_an_error_leaves_what_was_known(esms: FakeGateway) -> None:
    esms.answer(has(1000), [Close()])
    balance = ask()
    with pytest.raises(BalanceUnavailable):
        ask()
    assert remembered() == balance


@pytest.mark.parametrize("name", ["ConsoleGateway", "MemoryGateway"])
def test_a_stand_in_has_no_balance(settings, name: str) -> None:
    module = name.removesuffix("Gateway").lower()
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "GATEWAY": f"esms_viber.gateways.{module}.{name}"}
    with pytest.raises(BalanceUnavailable, match=f"is {name}, so there is nobody to ask"):
        ask()


def test_a_setting_that_is_missing_is_named(settings) -> None:
    settings.ESMS_VIBER = {"GATEWAY": "esms_viber.gateways.esms.EsmsGateway", "API_KEY": "", "SECRET_KEY": "s3cret"}
    with pytest.raises(BalanceUnavailable, match="API_KEY") as error:
        ask()
    assert error.value.__context__ is None
    assert "s3cret" not in str(error.value)


DEFAULT = "https://rest.esms.vn/MainService.svc/json/"


@pytest.mark.parametrize(
    "answer",
    [
        http_answer(b"<html>Not Found</html>", status=404),
        http_answer(b"<html>Not allowed</html>", status=405),
        http_answer(b"Bad Gateway", status=502),
        http_answer(b"<html>Welcome</html>"),
        http_answer(b"", status=301, headers={"Location": "https://elsewhere.example.vn/"}),
        json_answer({"detail": "Not found."}, status=404),
        json_answer({"hello": "world"}),
        json_answer([]),
    ],
)
@pytest.mark.parametrize("path", ["", "json", "MainService.svc/xml/"])
def test_a_wrong_path_is_told_with_the_right_one(esms: FakeGateway, settings, answer: list, path: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BASE_URL": esms.url + path}
    esms.answer(answer)
    with pytest.raises(CommandError) as error:
        call_command("check_esms")
    sentence = str(error.value)
    assert f"{esms.url}{path}".rstrip("/") + "/GetBalance_json" in sentence
    assert 'ESMS_VIBER["BASE_URL"]' in sentence
    assert DEFAULT in sentence
    assert "Try again later" not in sentence
    assert "test-secret-key" not in sentence


@pytest.mark.parametrize("url", ["http://127.0.0.1:1/json/", "http://no-such-host.invalid/json/"])
def test_a_wrong_host_is_told_with_the_right_one(esms: FakeGateway, settings, url: str) -> None:
    settings.ESMS_VIBER = {**settings.ESMS_VIBER, "BASE_URL": url}
    with pytest.raises(BalanceUnavailable) as error:
        ask()
    assert f"{url}GetBalance_json" in str(error.value)
    assert DEFAULT in str(error.value)
    assert "Try again later" not in str(error.value)


class Wordless(EsmsGateway):
    """eSMS as it is when it is out of order."""

    def fetch_balance(self) -> BalanceResult:
        return BalanceResult(outcome=CallOutcome.NO_ANSWER, text="The answer is not a JSON object", http_status=503)


@pytest.mark.parametrize("url", [DEFAULT, DEFAULT.rstrip("/")])
def test_esms_itself_is_to_be_tried_again_later(settings, url: str) -> None:
    conf = {"API_KEY": "a", "SECRET_KEY": "b", "BRANDNAME": "SHOP", "BASE_URL": url}
    settings.ESMS_VIBER = {**conf, "GATEWAY": f"{__name__}.Wordless"}
    with pytest.raises(BalanceUnavailable, match="Try again later") as error:
        ask()
    assert "BASE_URL" not in str(error.value)


def names(*names: str, kind: object = 23) -> list:
    listed = [{"Brandname": name, "Type": kind} for name in names]
    return json_answer({"CodeResponse": "100", "ListBrandName": [*listed, {"Brandname": "QC", "Type": 1}]})


def check(**options: Any) -> str:
    out = StringIO()
    call_command("check_esms", stdout=out, **options)
    return out.getvalue()


def test_the_command_tells_the_same(esms: FakeGateway) -> None:
    esms.answer(has(36693), names("OTHER", "SHOP"), json_answer({"CodeResponse": "103", "Balance": 0}))
    assert check() == "eSMS accepts the keys. Balance: 36,693 đ\nBrand names active for Viber: OTHER, SHOP\n"
    assert remembered_brandnames() == ["OTHER", "SHOP"]
    with pytest.raises(CommandError, match=r"Code 103: The balance .* Top up"):
        check()


@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        (names("OTHER"), "“SHOP”, which is not active for Viber. Use one of those that are (OTHER), or ask eSMS"),
        (names(), "those that are (none)"),
        (names("Shop", "OTHER"), "“SHOP”, but it is registered as “Shop”: write it so."),
        (names("SHOP", kind=2), "which is not active for Viber"),
    ],
)
def test_a_brand_name_that_is_not_active_is_told_with_a_remedy(esms: FakeGateway, listed: list, sentence: str) -> None:
    esms.answer(has(36693), listed)
    with pytest.raises(CommandError) as error:
        check()
    assert error.value.returncode == 1
    assert 'ESMS_VIBER["BRANDNAME"]' in str(error.value)
    assert sentence in str(error.value)


@pytest.mark.parametrize(
    ("answer", "sentence"),
    [
        (json_answer({"CodeResult": "777"}), "eSMS did not tell the brand names: 777: "),
        (json_answer({"CodeResponse": "100"}), "eSMS did not tell the brand names: the answer lists none."),
        ([Close()], "eSMS did not tell the brand names: Connection closed before the answer was complete."),
    ],
)
def test_without_a_list_of_brand_names_nothing_is_wrong(esms: FakeGateway, answer: list, sentence: str) -> None:
    esms.answer(has(1), names("SHOP"))
    check()
    esms.answer(has(1), answer)
    assert sentence in check()
    assert remembered_brandnames() == ["SHOP"], "what was known stays"
    esms.answer(answer)
    with pytest.raises(BrandnamesUnavailable):
        ask_brandnames()


@pytest.mark.parametrize(("minimum", "is_enough"), [(999, True), (1000, True), (1001, False)])
def test_the_command_fails_where_the_balance_is_under_a_minimum(
    esms: FakeGateway, minimum: int, is_enough: bool
) -> None:
    esms.answer(has(1000), names("OTHER" if not is_enough else "SHOP"))
    if is_enough:
        assert "1,000 đ" in check(minimum=minimum)
    else:
        with pytest.raises(CommandError, match=r"under 1,001 đ\. Top up the eSMS account\.") as error:
            check(minimum=minimum)
        assert error.value.returncode == 1
        assert "not active for Viber" in str(error.value), "all that is wrong is told"


def test_the_command_works_before_the_tables_are_made(esms: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    from esms_viber.models import ViberGatewayState

    def missing(self: Any, **columns: Any) -> None:
        raise DatabaseError("no such table")

    monkeypatch.setattr(type(ViberGatewayState.objects.all()), "note_of_account", missing)
    monkeypatch.setattr(type(ViberGatewayState.objects), "note_of_account", missing)
    esms.answer(has(36693), names("SHOP"))
    assert "36,693 đ" in check()


def test_asking_for_the_balance_in_the_admin_asks_for_the_names_too(esms: FakeGateway, admin_client: Client) -> None:
    esms.answer(has(36693), names("Cà Phê", "SHOP"))
    page = admin_client.post("/admin/esms_viber/outboundvibermessage/viber-balance/", follow=True).content.decode()
    assert "The balance of the eSMS account is 36,693 đ." in page
    assert remembered_brandnames() == ["Cà Phê", "SHOP"]
    form = admin_client.get("/admin/esms_viber/outboundvibermessage/add/").content.decode()
    assert 'list="id_brandname_offered"' in form
    assert '<datalist id="id_brandname_offered"><option value="Cà Phê"></option><option value="SHOP">' in form
    mailing = admin_client.get("/admin/esms_viber/outboundvibermessage/viber-send-to-many/").content.decode()
    assert '<option value="Cà Phê"></option>' in mailing


def test_no_names_are_offered_before_anybody_asked(admin_client: Client) -> None:
    form = admin_client.get("/admin/esms_viber/outboundvibermessage/add/").content.decode()
    assert 'name="brandname"' in form
    assert "datalist" not in form


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_that_is_busy_may_be_asked_again(esms: FakeGateway, status: int) -> None:
    esms.answer(http_answer(b"Service Unavailable", status=status))
    with pytest.raises(CommandError, match=r"Try again later\."):
        call_command("check_esms")


@pytest.mark.parametrize("code", ["777", "99"])
def test_a_code_that_is_not_of_the_account_has_no_remedy_for_messages(esms: FakeGateway, code: str) -> None:
    esms.answer(json_answer({"CodeResponse": code}))
    with pytest.raises(CommandError, match=rf"Code {code}.*Try again later\.") as error:
        call_command("check_esms")
    assert "send it again" not in str(error.value)
