"""The page of a campaign in a browser: its figures move by themselves, as long as something is to come."""

from __future__ import annotations

import re
from typing import Any

from tests.browser.conftest import LIST


class Server:
    """Answers for the campaign: the demo's own page, told to say how many are through, and to look again or not."""

    def __init__(self, *answers: tuple[str, int | None]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []

    def answer(self, route: Any) -> None:
        self.asked.append(route.request.url)
        response = route.fetch()
        said, seconds = self.answers.pop(0)
        html = re.sub(r'(<p id="viber-said">).*?(</p>)', rf"\g<1>{said}\g<2>", response.text())
        mark = f' data-seconds="{seconds}"' if seconds else ""
        html = html.replace('aria-labelledby="viber-said">', f'aria-labelledby="viber-said"{mark}>', 1)
        route.fulfill(response=response, body=html)


def open_campaign(visit: Any, server: Server) -> Any:
    page = visit("admin")
    page.clock.install()
    page.route("**/viber-campaign/?name=*", server.answer)
    page.goto(f"{LIST}viber-campaign/?name=tet-2027")
    return page


def test_it_moves_says_so_at_the_end_and_stops(visit: Any) -> None:
    server = Server(("1 of 3", 1), ("2 of 3", 2), ("3 of 3", None))
    page = open_campaign(visit, server)
    page.focus("#viber-again")
    page.locator("#viber-said", has_text="2 of 3").wait_for(state="attached")
    assert page.inner_text("#viber-spoken") == ""
    page.locator("#viber-spoken", has_text="3 of 3").wait_for(state="attached")
    assert page.inner_text("#viber-said") == "3 of 3"
    assert page.evaluate("document.activeElement.id") == "viber-again"
    page.clock.run_for(60_000)
    assert [url.endswith("&fragment=1") for url in server.asked] == [False, True, True]


def test_a_link_that_has_the_focus_keeps_it(visit: Any) -> None:
    server = Server(("1 of 2", 1), ("2 of 2", None))
    page = open_campaign(visit, server)
    link = page.locator("#viber-days tfoot a").first
    link.focus()
    page.locator("#viber-said", has_text="2 of 2").wait_for(state="attached")
    assert page.evaluate("document.activeElement.href") == link.evaluate("a => a.href")


def test_nothing_is_asked_where_nothing_is_to_come(visit: Any) -> None:
    server = Server(("3 of 3", None))
    page = open_campaign(visit, server)
    page.clock.run_for(60_000)
    assert len(server.asked) == 1
