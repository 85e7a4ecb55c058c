"""The overview and the page of a campaign: numbers that lead to what they count, and who may see and ask what."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator
from decimal import Decimal
from html import unescape
from html.parser import HTMLParser

import pytest
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.http import urlencode

from esms_viber import formatting
from esms_viber.models import OutboundViberMessage as Message
from tests.admin.conftest import LogIn, Make
from tests.admin.pages import LIST, forms, told
from tests.clock import Clock
from tests.fake_gateway import FakeGateway, json_answer

pytestmark = pytest.mark.django_db

OVERVIEW, CAMPAIGN, BALANCE = f"{LIST}viber-overview/", f"{LIST}viber-campaign/", f"{LIST}viber-balance/"
HOSTILE = ["<script>alert(1)</script>", "\"&=#/?%'+;", "Tết Bính Ngọ – ưu đãi", "a" * 100, "../../", "{{ x }}"]


@pytest.fixture(autouse=True)
def _nothing_remembered() -> Iterator[None]:
    cache.clear()
    yield
    cache.clear()


class _Page(HTMLParser):
    """Links with their texts, tables as rows of texts by the caption, and whatever a strict policy would block."""

    def __init__(self, response: HttpResponse) -> None:
        super().__init__()
        self.links: list[tuple[str, str]] = []
        self.tables: dict[str, list[list[str]]] = {}
        self.blocked: list[str] = []
        self._rows: list[list[str]] = []
        self._caption: list[str] | None = None
        self._open: list[str] = []
        assert response.status_code == 200, response
        self.feed(response.content.decode())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if "style" in given or tag == "style" or (tag == "script" and "src" not in given):
            self.blocked.append(self.get_starttag_text() or "")
        self._open.append(tag)
        if tag == "a":
            self.links.append((given.get("href") or "", ""))
        elif tag == "table":
            self._rows, self._caption = [], []
        elif tag == "tr":
            self._rows.append([])
        elif tag in {"td", "th"}:
            self._rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass
        if tag == "table" and self._caption is not None:
            self.tables[" ".join("".join(self._caption).split())] = self._rows
            self._caption = None

    def handle_data(self, data: str) -> None:
        if "a" in self._open:
            self.links[-1] = (self.links[-1][0], self.links[-1][1] + data)
        if self._caption is not None and "caption" in self._open:
            self._caption.append(data)
        elif self._caption is not None and {"td", "th"} & {*self._open}:
            self._rows[-1][-1] = " ".join((self._rows[-1][-1] + data).split())

    def rows(self, caption: str) -> list[list[str]]:
        [found] = [rows for name, rows in self.tables.items() if name.startswith(caption)]
        return found

    def numbers(self) -> list[tuple[str, int]]:
        """Where numbers lead, and what they say."""
        return [
            (href, int(text.strip().replace(",", "")))
            for href, text in self.links
            if re.fullmatch(r"\s*[\d,]+\s*", text)
        ]


def look(client: Client, url: str = OVERVIEW, **query: str) -> _Page:
    return _Page(client.get(f"{url}?{urlencode(query)}"))


def listed(client: Client, url: str) -> int:
    response = client.get(url)
    assert response.status_code == 200, (url, response)
    return response.context["cl"].result_count


def cards(response: HttpResponse) -> dict[str, str]:
    html = response.content.decode()
    found = re.findall(r"<dt>(.*?)</dt>\s*<dd><strong>(.*?)</strong>(.*?)</dd>", html, re.S)
    strip = re.compile(r"<[^>]+>")
    return {name: " ".join(unescape(strip.sub("", f"{number} {remark}")).split()) for name, number, remark in found}


@pytest.fixture
def many(make: Make, clock: Clock) -> None:
    """Two campaigns over three days, each state, sandbox and drafts among them."""
    now = timezone.now()
    took = dt.timedelta
    for days_ago, campaign in ((0, "tet"), (1, "tet"), (1, "sale"), (40, "tet")):
        created = {"created_at": now - took(days=days_ago), "campaign": campaign}
        for status in Message.Status:
            seconds = 70 if status == "delivered" else None
            make(status, **created, total_price=Decimal(100), delivery_seconds=seconds)
        make("failed", **created, code_result="104")
        make("failed", **created, code_result="99")
        make("delivered", **created, delivery_seconds=5)
        make("delivered", **created, sent_to_sandbox=True, delivery_seconds=0)


# -- numbers -----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("many")
def test_the_overview_counts_by_day_and_state(root: Client, clock: Clock) -> None:
    page = look(root)
    today, yesterday = (
        f"{day:%m/%d/%Y}" for day in (timezone.localdate(), timezone.localdate() - dt.timedelta(days=1))
    )
    header, first, second, total = page.rows("Messages by day and state")
    assert header[2:] == [
        "All",
        "… Queued",
        "→ Sending",
        "? Unknown",
        "✓ Sent",
        "✓✓ Delivered",
        "✕ Undelivered",
        "! Failed",
        "– Cancelled",
    ]
    assert first == [today, "", "11", "1", "1", "1", "1", "2", "1", "3", "1"]
    assert second == [yesterday, "", "22", "2", "2", "2", "2", "4", "2", "6", "2"]
    assert total == ["Total", "", "33", "3", "3", "3", "3", "6", "3", "9", "3"]


@pytest.mark.usefixtures("many")
def test_the_overview_tells_reasons_times_and_campaigns(root: Client) -> None:
    page = look(root)
    assert page.rows("Failures by reason")[1:] == [
        ["It expired before it could be sent.", "", "3"],
        ["104: eSMS does not know this brand name, or it is not active yet.", "", "3"],
        ["99: eSMS blocks this phone number.", "", "3"],
        ["eSMS reports that it was not delivered; most often the number has no Viber.", "", "3"],
    ]
    assert page.rows("Time to delivery")[1:] == [
        ["At most 10 seconds", "", "3", "50.0%"],
        ["10 seconds to a minute", "", "0", "0.0%"],
        ["1 to 10 minutes", "", "3", "50.0%"],
        ["10 minutes to an hour", "", "0", "0.0%"],
        ["More than an hour", "", "0", "0.0%"],
    ]
    assert page.rows("Campaigns")[1:] == [
        ["sale", "11", "2", "66.7%", "800 đ"],
        ["tet", "22", "4", "66.7%", "1,600 đ"],
    ]


@pytest.mark.usefixtures("many")
def test_key_figures(root: Client) -> None:
    assert cards(root.get(OVERVIEW)) == {
        "Asked for": "33",
        "Delivered": "6",
        "Delivery rate": "66.7% of 9 that eSMS has reported on",
        "Cost": "2,400 đ as far as eSMS has reported it",
        "Balance": "not asked yet",
    }
    assert cards(root.get(f"{CAMPAIGN}?name=tet"))["Asked for"] == "33"


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("url", [OVERVIEW, f"{OVERVIEW}?days=7", f"{CAMPAIGN}?name=tet", f"{CAMPAIGN}?name=sale"])
def test_every_number_leads_to_as_many_messages(root: Client, url: str) -> None:
    numbers = _Page(root.get(url)).numbers()
    assert len(numbers) > 20
    for href, count in numbers:
        assert listed(root, href) == count > 0, href


def test_links_hold_at_midnight_and_in_another_time_zone(root: Client, make: Make, settings, clock: Clock) -> None:
    midnight = timezone.localtime().replace(hour=0, minute=0, second=0, microsecond=0)
    for hours in (-24, -1, 0, 1):
        make("sent", created_at=midnight + dt.timedelta(hours=hours))
    make("sent", created_at=midnight - dt.timedelta(microseconds=1))
    for zone, expected in (("Asia/Ho_Chi_Minh", ["2", "3"]), ("UTC", ["4", "1"])):
        settings.TIME_ZONE = zone
        page = look(root)
        assert [row[2] for row in page.rows("Messages by day")[1:-1]] == expected
        for href, count in page.numbers():
            assert listed(root, href) == count, href


def test_a_period_of_seven_days(root: Client, make: Make) -> None:
    make("sent", created_at=timezone.now() - dt.timedelta(days=6))
    make("sent", created_at=timezone.now() - dt.timedelta(days=7))
    for days, count in (("7", "1"), ("30", "2"), ("x", "2"), ("", "2")):
        assert cards(root.get(OVERVIEW, {"days": days}))["Asked for"] == count


def test_nothing_to_show_is_said(root: Client, make: Make) -> None:
    make("draft", campaign="tet")
    make("sent", campaign="tet", sent_to_sandbox=True)
    html = root.get(OVERVIEW).content.decode()
    assert "No messages were asked for in this time." in html
    assert "viber-plot" not in html
    html = root.get(f"{CAMPAIGN}?name=tet").content.decode()
    assert "No message of this campaign counts so far." in html
    assert "<progress" not in html
    assert f'href="{LIST}?campaign=tet"' in html


def test_the_days_of_an_old_campaign(root: Client, make: Make) -> None:
    latest = timezone.now() - dt.timedelta(days=400)
    for days in (100, 31, 30, 0):
        make("sent", campaign="old", created_at=latest - dt.timedelta(days=days))
    page = look(root, CAMPAIGN, name="old")
    rows = page.rows("Messages by day")[1:-1]
    assert [row[2] for row in rows] == ["1", "1", "2"]
    assert rows[-1][0] == "Earlier"
    for href, count in page.numbers():
        assert listed(root, href) == count, href


# -- a campaign --------------------------------------------------------------------------------------------------------


def test_progress_is_told_in_one_sentence_and_shown(root: Client, make: Make) -> None:
    now = timezone.now()
    for _n in range(3):
        make("delivered", campaign="tet")
    make("queued", campaign="tet", next_attempt_at=now - dt.timedelta(minutes=5))
    make("queued", campaign="tet", next_attempt_at=now + dt.timedelta(minutes=5))
    make("unknown", campaign="tet", next_attempt_at=now)
    make("unknown", campaign="tet")
    make("queued", campaign="other", next_attempt_at=now)
    html = root.get(f"{CAMPAIGN}?name=tet").content.decode()
    assert '<p id="viber-said">4 of 7 messages are through.</p>' in html
    assert '<progress max="7" value="4" aria-labelledby="viber-said">' in html
    since = formatting.moment(now - dt.timedelta(minutes=5))
    assert f"2 of these are due, the oldest since {since}" in html
    waits = {text: href for href, text in look(root, CAMPAIGN, name="tet").links if "itself" in text or "queue" in text}
    assert {text: listed(root, href) for text, href in waits.items()} == {
        "2 wait in the queue": 2,
        "One may have been sent; it is tried again by itself": 1,
    }


@pytest.mark.parametrize(
    ("status", "columns", "seconds"),
    [
        ("queued", {"next_attempt_at": -60}, 3),
        ("sending", {}, 3),
        ("unknown", {"next_attempt_at": -60}, 3),
        ("queued", {"next_attempt_at": 60}, 15),
        ("sent", {"sent_at": -60}, 15),
        ("sent", {"sent_at": -3700}, None),
        ("unknown", {}, None),
        ("delivered", {"sent_at": -60}, None),
    ],
)
def test_a_page_looks_again_while_something_is_to_come(
    root: Client, make: Make, status: str, columns: dict[str, int], seconds: int | None
) -> None:
    now = timezone.now()
    make(status, campaign="tet", **{name: now + dt.timedelta(seconds=after) for name, after in columns.items()})
    html = root.get(f"{CAMPAIGN}?name=tet&fragment=1").content.decode()
    assert re.findall(r'data-seconds="(\d+)"', html) == ([str(seconds)] if seconds else [])


@pytest.mark.usefixtures("many")
def test_the_fragment_is_the_part_of_the_page_that_moves(root: Client) -> None:
    whole = root.get(f"{CAMPAIGN}?name=tet").content.decode()
    part = root.get(f"{CAMPAIGN}?name=tet&fragment=1")
    assert part.content.decode().strip() in whole
    assert "<html" not in part.content.decode()
    assert "no-store" in part["Cache-Control"]
    assert f'href="{CAMPAIGN}?name=tet" id="viber-again"' in whole


@pytest.mark.parametrize("name", HOSTILE)
def test_any_name_is_escaped_and_leads_to_its_campaign(root: Client, make: Make, name: str) -> None:
    make("delivered", campaign=name)
    make("sent", campaign="another")
    overview = look(root)
    [address] = [href for href, text in overview.links if text == name]
    response = root.get(address)
    html = response.content.decode()
    assert "<script>alert" not in html + root.get(OVERVIEW).content.decode()
    assert response.context["title"] == f"Campaign {name}"
    for href, count in overview.numbers() + _Page(response).numbers():
        assert listed(root, href) == count, href
    assert cards(response)["Asked for"] == "1"


@pytest.mark.parametrize("query", ["", "?name=", "?name=+", "?name=%00", "?name=a%00b"])
def test_no_name_is_no_page(root: Client, query: str) -> None:
    assert root.get(f"{CAMPAIGN}{query}").status_code == 404


# -- who, and what it costs --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("permissions", "page", "balance"),
    [
        ((), 403, 403),
        (("view",), 200, 403),
        (("send",), 403, 302),
        (("view", "send"), 200, 302),
        (("change",), 200, 403),
    ],
)
def test_who_may_look_and_who_may_ask(log_in: LogIn, permissions: tuple[str, ...], page: int, balance: int) -> None:
    client = log_in(*permissions)
    assert client.get(OVERVIEW).status_code == page
    assert client.get(f"{CAMPAIGN}?name=tet").status_code == page
    assert client.post(BALANCE).status_code == balance


def test_who_is_nobody_is_asked_to_log_in(client: Client) -> None:
    for url in (OVERVIEW, CAMPAIGN, BALANCE):
        assert client.get(url).status_code == 302


@pytest.mark.usefixtures("many")
def test_the_queries_are_as_many_whatever_there_is(root: Client, make: Make) -> None:
    urls = [OVERVIEW, f"{CAMPAIGN}?name=tet", f"{CAMPAIGN}?name=tet&fragment=1"]

    def counts() -> list[int]:
        found = []
        for url in urls:
            with CaptureQueriesContext(connection) as captured:
                assert root.get(url).status_code == 200
            found.append(len(captured))
        return found

    few = counts()
    for number in range(30):
        for status in Message.Status:
            make(status, campaign=f"{number}", created_at=timezone.now() - dt.timedelta(days=number))
            make(status, campaign="tet", code_result=f"{number}")
    # Two of each for the session and its user, and fourteen that ask how the queue stands. On PostgreSQL four more: a
    # savepoint with settings of its own, which is rolled back and released.
    more = 4 if connection.vendor == "postgresql" else 0
    assert few == counts() == [19 + more, 21 + more, 21 + more]


def test_the_list_leads_to_the_overview_and_back(root: Client, make: Make) -> None:
    make("unknown", uncertain_since=timezone.now(), campaign="tet")
    assert f'<a href="{OVERVIEW}">Overview</a>' in root.get(LIST).content.decode()
    links = dict(look(root).links)
    decisions = f"{LIST}?attention=undecided"
    assert links[decisions] == "Show"
    assert listed(root, decisions) == 1
    assert links[f"{LIST}?status__exact=unknown"] == "Unknown: 1"


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("url", [OVERVIEW, f"{CAMPAIGN}?name=tet"])
def test_the_pages_hold_under_a_strict_policy_and_in_vietnamese(root: Client, url: str, settings) -> None:
    settings.USE_THOUSAND_SEPARATOR = True
    settings.LANGUAGE_CODE = "vi"
    page = _Page(root.get(url))
    assert page.blocked == []
    assert len(page.tables) >= 3
    assert [card for card in cards(root.get(url)).values() if card.startswith("66,7%")]
    for x, width in re.findall(r' x="(.*?)" width="(.*?)"', root.get(url).content.decode()):
        assert 0 <= int(x) < int(x) + int(width) <= 1000


@pytest.mark.usefixtures("many")
def test_the_pages_work_on_a_site_without_time_zones(root: Client, settings) -> None:
    settings.USE_TZ = False
    for url in (OVERVIEW, f"{CAMPAIGN}?name=sale"):
        assert root.get(url).status_code == 200


# -- the balance -------------------------------------------------------------------------------------------------------


def test_the_balance_is_asked_once_and_remembered(root: Client, esms: FakeGateway) -> None:
    esms.answer(json_answer({"CodeResponse": "100", "Balance": 36693}))
    form = next(form for form in forms(root.get(OVERVIEW)) if form["attrs"].get("action") == BALANCE)
    response = root.post(BALANCE, form["fields"], follow=True)
    assert response.redirect_chain == [(OVERVIEW, 302)]
    assert told(response) == "The balance of the eSMS account is 36,693 đ."
    assert cards(root.get(OVERVIEW))["Balance"].startswith("36,693 đ at ")
    assert [request.path.split("/")[3] for request in esms.requests] == ["GetBalance_json", "GetListBrandname"]


def test_why_there_is_no_balance_is_told(root: Client, esms: FakeGateway) -> None:
    esms.answer(json_answer({"CodeResponse": "101", "Balance": 0}))
    response = root.post(BALANCE, follow=True)
    assert told(response).startswith("Code 101: eSMS does not accept the API key")
    assert cards(response)["Balance"] == "not asked yet"


def test_the_balance_is_not_asked_by_a_link_or_from_elsewhere(root: Client, esms: FakeGateway) -> None:
    assert root.get(BALANCE).status_code == 302
    stranger = Client(enforce_csrf_checks=True)
    stranger.cookies = root.cookies
    assert stranger.post(BALANCE).status_code == 403
    assert esms.requests == []


def test_who_may_not_send_sees_the_balance_but_no_button(log_in: LogIn, esms: FakeGateway, root: Client) -> None:
    esms.answer(json_answer({"CodeResponse": "100", "Balance": 5}))
    root.post(BALANCE)
    response = log_in("view").get(OVERVIEW)
    assert cards(response)["Balance"].startswith("5 đ at ")
    assert BALANCE not in response.content.decode()


def test_when_a_campaign_for_later_begins_is_told(root: Client, make: Make) -> None:
    later = timezone.now() + dt.timedelta(days=1)
    make("queued", campaign="tet", next_attempt_at=later)
    html = root.get(f"{CAMPAIGN}?name=tet").content.decode()
    assert f"The next of these go out at {date_format(timezone.localtime(later), 'SHORT_DATETIME_FORMAT')}" in html


def test_a_balance_from_before_the_latest_calls_is_told_as_such(root: Client, make: Make, esms: FakeGateway) -> None:
    cache.clear()
    esms.answer(json_answer({"CodeResponse": "100", "Balance": 5000}))
    root.post(BALANCE)
    assert "messages went out since then" not in root.get(OVERVIEW).content.decode()
    make("sent").events.create(kind="attempt", code="100", data={"outcome": "answered"})
    assert "messages went out since then" in root.get(OVERVIEW).content.decode()
