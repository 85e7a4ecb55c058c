"""The README says what the code does."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from esms_viber import services
from esms_viber.conf import ViberSettings
from esms_viber.lifecycle import TRANSITIONS
from esms_viber.models import Status

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def _section(title: str) -> str:
    return README.split(f"## {title}\n", 1)[1].split("\n## ", 1)[0]


def _rows(section: str) -> list[list[str]]:
    lines = [line for line in section.splitlines() if line.startswith("|")][2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_the_table_of_settings_is_the_settings_with_their_defaults():
    told = {}
    for keys, defaults, _meaning in _rows(_section("Settings")):
        names, values = re.findall(r"`(\w+)`", keys), re.findall(r"`([^`]+)`", defaults)
        told |= dict(zip(names, values or [None] * len(names), strict=True))
    defaults = ViberSettings()
    assert set(told) == set(ViberSettings.__dataclass_fields__)
    for name, value in told.items():
        expected = getattr(defaults, name)
        assert (expected == "") if value is None else (ast.literal_eval(value) == expected), name


def test_the_table_of_states_names_every_state_and_every_move():
    told = {}
    for states, _meaning, following in _rows(_section("What the states mean")):
        for state in re.findall(r"`(\w+)`", states):
            told[state] = following
    assert set(told) == set(Status.values)
    for state, following in told.items():
        if state == Status.SENDING:
            continue  # "any of the below": most of them
        assert {s for s in Status.values if re.search(rf"\b{s}\b", following.split("the first final")[0])} == {
            to.value for to in TRANSITIONS[Status(state)]
        }, state


@pytest.mark.parametrize("block", re.findall(r"```python\n(.*?)```", README, re.S))
def test_the_examples_are_python(block):
    plain = "\n".join(line.removeprefix(">>> ") for line in block.splitlines() if not line.startswith("'"))
    compile(plain.replace("...,", ""), "README.md", "exec")


def test_the_services_named_in_the_readme_exist():
    named = set(re.findall(r"`?(\w+_(?:viber_messages?|messages))\(", README))
    assert named
    assert named <= set(services.__all__)


def _blocks(text: str) -> list[tuple[str, str]]:
    """The code blocks, by language, without their comments: those are translated."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M)
    return [(language, re.sub(r"(^|\s)\s*# .*$", "", code, flags=re.M)) for language, code in blocks]


def _keys(text: str) -> list[list[str]]:
    """Of each row of each table: what stands in its first column in code, or as a number."""
    return [re.findall(r"`[^`]+`|^\d+$", row[0]) for row in _rows(text)]


def _headings(text: str) -> list[str]:
    return re.findall(r"^(#+) ", re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M), re.M)


def test_the_readme_in_vietnamese_tells_the_same():
    vietnamese = (ROOT / "README.vi.md").read_text()
    assert _blocks(vietnamese) == _blocks(README)
    assert _keys(vietnamese) == _keys(README)
    assert _headings(vietnamese) == _headings(README)
    assert "[Tiếng Việt](README.vi.md)" in README
    assert "[English](README.md)" in vietnamese


@pytest.mark.parametrize("readme", ["README.md", "README.vi.md"])
def test_links_within_the_readme_lead_somewhere(readme):
    text = (ROOT / readme).read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.M)
    anchors = {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= anchors
    assert all((ROOT / path).exists() for path in re.findall(r"\]\(([^)#:]+)\)", text))
