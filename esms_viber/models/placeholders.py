"""Names in braces: `{name}` in a text or a link stands for a value that is filled in. No template language."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache
from urllib.parse import quote

_UNSEEN = re.compile(
    r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f"
    r"\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f\ufeff\uffa0]"
)
MARKS = " *:;,.#='\"“”‘’"
"""Characters at the ends of a name that are no part of it."""
_REQUIRED = re.compile(r"[(\[] ?(?:\*|required|optional|bắt buộc|bat buoc|không bắt buộc|tùy chọn) ?[)\]]$")
_ONE_LETTER = str.maketrans("ðɖ", "đđ")
"""Three letters look alike as capitals, Ð, and old converters take one for another."""
_PLACEHOLDER = re.compile(r"\{([^{}]+)\}")


def visible(name: str) -> str:
    """Return a name as it looks, in one line: without the characters that nobody sees."""
    return " ".join(_UNSEEN.sub("", name).replace("\u2800", " ").split())


@lru_cache(maxsize=100)
def comparable(name: str) -> str:
    """Reduce names that look alike to one form, whatever their capitals, spaces and marks of required columns."""
    text = unicodedata.normalize("NFKC", visible(name)).casefold()
    text = unicodedata.normalize("NFKC", text).translate(_ONE_LETTER)
    text = " ".join(text.replace("_", " ").split())
    return _REQUIRED.sub("", text.strip(MARKS)).strip(MARKS) or text


def placeholders_in(texts: Iterable[str]) -> list[str]:
    """Return the names in braces, as they are written first; those that look alike count as one."""
    found: dict[str, str] = {}
    for text in texts:
        for name in filter(visible, _PLACEHOLDER.findall(text)):
            found.setdefault(comparable(name), name)
    return list(found.values())


def fill(text: str, values: Mapping[str, str]) -> str:
    """Fill in the values, by `comparable()` names; names without a value stay as they are."""
    return _PLACEHOLDER.sub(lambda match: values.get(comparable(match[1]), match[0]), text)


def fill_link(link: str, values: Mapping[str, str]) -> str:
    """Fill a link: a value at its beginning is a link itself, a value further on is quoted to stay one part of it."""
    start = first[0] if (first := _PLACEHOLDER.match(link)) else ""
    quoted = {name: quote(value, safe="") for name, value in values.items()}
    return fill(start, values) + fill(link.removeprefix(start), quoted)


def fill_parts(parts: Mapping[str, str], values: Mapping[str, str]) -> dict[str, str]:
    """Fill the texts and the links of a message."""
    return {
        name: (fill_link if name in {"image_url", "button_url"} else fill)(text, values) for name, text in parts.items()
    }


def example_of(link: str) -> str:
    """Fill a link with an address at its beginning, and elsewhere with what may stand in a host and in a path alike."""
    values = dict.fromkeys(map(comparable, placeholders_in([link])), "example.vn")
    if (first := _PLACEHOLDER.match(link)) and visible(first[1]):
        values[comparable(first[1])] = "https://example.vn"
    return fill_link(link, values)
