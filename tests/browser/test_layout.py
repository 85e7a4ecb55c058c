"""Where things stand, measured: the same on every Django, whose own layout differs."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import LIST
from tests.browser.test_accessibility import by_name

ADD = f"{LIST}add/"

# What is looked at must be what is there: at its middle and near both ends nothing else lies on it.
COVERED = """() => {
  const seen = [];
  const ours = document.querySelectorAll(
    "#content h1, #content h2, #content label, .messagelist li, .viber-queue a, .viber-tools a, .viber-tools button, " +
    ".object-tools a, .viber-periods a, .submit-row input, .submit-row a, .viber-decision input, .viber-decision a, " +
    ".viber-rehearsal :is(label, input, button, p), .viber-values :is(legend, p, input), .viber-from-template > *",
  );
  for (const element of ours) {
    if (!element.checkVisibility() || element.matches(".visually-hidden")) {
      continue;
    }
    element.scrollIntoView({ block: "center" });
    for (const { left, right, top, bottom, width } of element.getClientRects()) {
      if (width < 3) {
        continue;
      }
      for (const x of [left + 2, (left + right) / 2, right - 2]) {
        const found = document.elementFromPoint(x, (top + bottom) / 2);
        if (found && !element.contains(found) && !found.contains(element)) {
          seen.push(`${found.outerHTML.slice(0, 80)} lies on ${element.outerHTML.slice(0, 120)}`);
        }
      }
    }
  }
  return seen;
}"""

sizes = pytest.mark.parametrize("width", [1280, 390])


def _visit(visit: Any, width: int) -> Any:
    return visit("admin", viewport={"width": width, "height": 844})


@sizes
@by_name
def test_nothing_hangs_over_or_lies_on_another(visit: Any, open_page: Any, width: int) -> None:
    page = _visit(visit, width)
    open_page(page)
    page.wait_for_load_state()
    assert page.evaluate("() => document.documentElement.scrollWidth") <= width
    assert page.evaluate(COVERED) == []


@sizes
@pytest.mark.parametrize("address", [ADD, f"{LIST}viber-send-to-many/"])
def test_inputs_are_as_wide_as_their_column(visit: Any, address: str, width: int) -> None:
    page = _visit(visit, width)
    page.goto(address)
    page.check("[name=kind][value=text_image_button]")
    names = ("content", "image_url", "button_label", "button_url", "brandname", "campaign")
    boxes = {name: page.locator(f"[name={name}]").bounding_box() for name in names}
    assert len({round(box["width"]) for box in boxes.values()}) == 1, boxes
    assert len({round(box["x"]) for box in boxes.values()}) == 1, boxes
    column = page.locator(".viber-fields fieldset").first.bounding_box()
    # Beside the label, or below it.
    assert boxes["content"]["width"] > column["width"] - 200
    # None is stretched to the height of its label.
    heights = {round(box["height"]) for name, box in boxes.items() if name != "content"}
    assert max(heights) - min(heights) <= 2, boxes


@sizes
def test_remarks_stand_below_their_inputs(visit: Any, width: int) -> None:
    page = _visit(visit, width)
    page.goto(ADD)
    page.fill("[name=phone]", "+84 977.123.456")
    page.get_by_text("is sent to 0977 123 456").wait_for()
    for name in ("phone", "content"):
        box, remark = (page.locator(f"#id_{name}{end}").bounding_box() for end in ("", "_note"))
        assert remark["y"] >= box["y"] + box["height"]
        assert abs(remark["x"] - box["x"]) < 3


@sizes
def test_a_choice_stands_in_one_line_beside_its_radio(visit: Any, width: int) -> None:
    page = _visit(visit, width)
    page.goto(ADD)
    heights = {round(label.bounding_box()["height"]) for label in page.locator(".viber-kinds label:has(input)").all()}
    assert len(heights) == 1


@pytest.mark.parametrize("address", [ADD, f"{LIST}viber-send-to-many/"])
def test_each_time_has_a_label_that_says_what_for(visit: Any, address: str) -> None:
    page = visit("admin")
    page.goto(address)
    for field in ("Send at", "Expires at"):
        for part in ("Date:", "Time:"):
            name = page.get_by_label(f"{field} {part}", exact=False)
            assert name.count() == 1, (field, part)
    assert page.get_by_role("radiogroup", name="Kind of message").count() >= 1
