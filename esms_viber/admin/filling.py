"""Inputs for the names in braces of a text, below its preview, and what was typed into them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..models import OutboundViberMessage
from ..models.choices import KIND_FIELDS
from ..models.placeholders import comparable, fill_parts, placeholders_in, visible

FROM_TEMPLATE = "_from_template"
"""The field that a message's form posts if its texts are those of a template, to be filled in with the values."""

_PREFIX = "value-"


def typed_values(data: Mapping[str, str]) -> dict[str, str]:
    """Return the values that a form posts, by the `comparable()` names in braces."""
    names = [name for name in data if name.startswith(_PREFIX) and data[name].strip()]
    return {comparable(name.removeprefix(_PREFIX)): data[name] for name in names}


def value_inputs(texts: Iterable[str], data: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return each name in braces with what was typed for it."""
    typed = typed_values(data)
    return [(visible(name), typed.get(comparable(name), "")) for name in placeholders_in(texts)]


def parts_of(written: object) -> dict[str, str]:
    """The texts and links of a message, a template or a mailing."""
    return {name: getattr(written, name) for name in KIND_FIELDS}


def example(written: object, values: Mapping[str, str]) -> OutboundViberMessage:
    """Fill in the values; where there is none, the name itself stands in its place."""
    parts = parts_of(written)
    names = {comparable(name): visible(name) for name in placeholders_in(parts.values())}
    return OutboundViberMessage(**fill_parts(parts, {**names, **values}))
