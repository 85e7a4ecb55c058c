"""Lists of people to write to: phones as they are pasted, or a CSV file with columns for the text."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.utils.translation import gettext as _

from .phones import InvalidPhone, normalize_phone

MOST_RECIPIENTS = 10_000
MOST_BYTES = 2 * 1024 * 1024
MOST_COLUMNS = 50
MOST_CHARACTERS = 50 * MOST_RECIPIENTS
"""Of pasted text: more than that many phones need in any spelling."""

_PHONE_COLUMNS = {
    "phone",
    "phones",
    "phone number",
    "mobile",
    "mobile phone",
    "tel",
    "telephone",
    "điện thoại",
    "dien thoai",
    "số điện thoại",
    "so dien thoai",
    "sđt",
    "sdt",
    "số đt",
    "so dt",
    "đt",
    "dt",
    "di động",
    "di dong",
    "số di động",
}
_BETWEEN_PHONES = re.compile(r"(?:[;|\t]|,(?!(?<=\b[0-9],)[0-9]+E\+))+", re.IGNORECASE)
"""A comma within what a spreadsheet makes of a number, 8,49019E+10, is none."""
_HAS_PREFIX = re.compile(r"\W*(0|\+|84[\W_]*[0-9](?:[\W_]*[0-9]){8})")
_FEWEST_DIGITS, _MOST_DIGITS = 9, 15
_LONGEST_SPELLING = 8
"""Groups of characters with spaces between them that one number may be spelt in, e.g. `+84 9 01 88 84 84`."""


class UnreadableList(ValueError):
    """Not a list of recipients; the message tells a person what to do."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One phone of a list, as it is spelt there."""

    line: int
    phone: str
    values: tuple[str, ...] = ()
    """What the columns hold in this line, in their order."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """A list as it was read; whether its phones are any good is another question."""

    columns: tuple[str, ...]
    """Names that a text may hold in braces."""
    people: tuple[Recipient, ...]

    def as_json(self) -> str:
        rows = [[person.line, person.phone, *person.values] for person in self.people]
        return json.dumps([list(self.columns), rows], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipients:
        """Raise `UnreadableList` for anything that `as_json()` would not make."""
        try:
            columns, rows = json.loads(text)
            people = tuple(_person(row, len(columns)) for row in rows)
            names = tuple(_text(name) for name in columns)
        except (ValueError, TypeError, RecursionError):
            raise UnreadableList(_("The list of recipients was damaged on its way. Give the file again.")) from None
        return _bounded(cls(names, people))


def _person(row: Any, columns: int) -> Recipient:
    line, phone, *values = row
    if not isinstance(line, int) or len(values) != columns:
        raise ValueError("not a row")
    return Recipient(line, _text(phone), tuple(_text(value) for value in values))


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # half a character, which JSON can hold, is a ValueError
    return value


def _bounded(found: Recipients) -> Recipients:
    _refuse_too_many(len(found.people))
    if not found.people:
        raise UnreadableList(_("There is no phone in the list."))
    return found


def _refuse_too_many(count: int) -> None:
    if count > MOST_RECIPIENTS:
        raise UnreadableList(
            _("There are %(count)d recipients; at most %(most)d can be sent to at once. Divide the list.")
            % {"count": count, "most": MOST_RECIPIENTS}
        )


# -- pasted ------------------------------------------------------------------------------------------------------------


def read_pasted(text: str) -> Recipients:
    """Phones with anything between them: line breaks, commas, semicolons, tabs, and spaces if need be."""
    if len(text) > MOST_CHARACTERS:
        raise UnreadableList(
            _("This is too long. Paste at most %(most)d phones and nothing else.") % {"most": MOST_RECIPIENTS}
        )
    lines = enumerate(text.splitlines(), start=1)
    parts = ((number, part) for number, line in lines for part in _BETWEEN_PHONES.split(line))
    people = tuple(Recipient(number, phone) for number, part in parts for phone in _phones_in(part.split()))
    _refuse_other_numbers(people)
    return _bounded(Recipients((), people))


def _refuse_other_numbers(people: Sequence[Recipient]) -> None:
    """Among phones with their 0 another number of nine digits is no phone, but an amount or the number of a card."""
    phones = [person for person in people if _is_phone(person.phone)]
    bare = [person for person in phones if not _HAS_PREFIX.match(person.phone)]
    if bare and len(bare) < len(phones):
        raise UnreadableList(
            _(
                "Line %(line)d: is “%(number)s” a phone? Write every phone with its 0 or +84, and leave out other "
                "numbers, such as amounts."
            )
            % {"line": bare[0].line, "number": bare[0].phone}
        )


def _phones_in(groups: Sequence[str]) -> Iterator[str]:
    """The numbers that groups of characters make up, spaces being part of some spellings; and what makes up none."""
    unreadable: list[str] = []
    start = 0
    while start < len(groups):
        length = _length_of_number(groups[start : start + _LONGEST_SPELLING])
        if length and unreadable:
            yield from _as_one(unreadable)
            unreadable = []
        if length:
            yield " ".join(groups[start : start + length])
        else:
            unreadable.append(groups[start])
        start += length or 1
    yield from _as_one(unreadable)


def _length_of_number(groups: Sequence[str]) -> int:
    """How many of the first groups are one number together: the most that are; 0 for none."""
    return next((n for n in range(len(groups), 0, -1) if _is_phone(" ".join(groups[:n]))), 0)


def _is_phone(text: str) -> bool:
    # Most of what this is asked about is none, and told so at a fraction of the cost.
    if not _FEWEST_DIGITS <= sum(map(str.isdigit, text)) <= _MOST_DIGITS:
        return False
    try:
        normalize_phone(text)
    except InvalidPhone:
        return False
    return True


def _as_one(groups: list[str]) -> Iterator[str]:
    text = " ".join(groups)
    if any(character.isalnum() for character in text):
        yield text


# -- CSV ---------------------------------------------------------------------------------------------------------------


def read_csv(data: bytes) -> Recipients:
    """A table whose first line names the columns, one of them the phone; as spreadsheets save it."""
    if len(data) > MOST_BYTES:
        raise UnreadableList(
            _("The file is larger than %(most)d MB. Leave out columns, or divide it.") % {"most": MOST_BYTES // 1024**2}
        )
    text, delimiter, lines_before = _delimiter(_decoded(data))
    if not text.strip():
        return _bounded(Recipients((), ()))
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[tuple[int, list[str]]] = []
    count = 0
    try:
        header = next(reader, [])
        for row in reader:
            if any(cell.strip() for cell in row):
                count += 1
                if count <= MOST_RECIPIENTS:  # a small file can hold a million rows
                    # A field may hold line breaks, so a row ends on the line that the reader has come to.
                    rows.append((lines_before + reader.line_num, row))
    except csv.Error:
        raise UnreadableList(
            _(
                "Line %(line)d cannot be read: a quotation mark is not closed or stands in a wrong place, or a text "
                "is far too long."
            )
            % {"line": lines_before + reader.line_num}
        ) from None
    _refuse_too_many(count)
    return _bounded(_table(_names(header), rows))


def _decoded(data: bytes) -> str:
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UnreadableList(_("This is a spreadsheet. Save it as “CSV UTF-8”, and give that file."))
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UnreadableList(_("The letters of this file cannot be read. Save it as “CSV UTF-8”, and give that file."))
    # Some systems take letters and accents apart; a name in the text is compared with them put together.
    return unicodedata.normalize("NFC", text)


def _delimiter(text: str) -> tuple[str, str, int]:
    """The table, what stands between its columns (as it says itself, or what the header has most of), and the lines
    that it comes after.
    """
    header, _end, rows = text.partition("\n")
    if told := re.fullmatch(r"sep=(.)\r?", header):
        return rows, told[1], 1
    return text, max(",;\t", key=header.count), 0


def _names(header: list[str]) -> list[str]:
    names = [name.strip() for name in header]
    if len(names) > MOST_COLUMNS:
        raise UnreadableList(
            _("The file has %(count)d columns; at most %(most)d can be read. Leave out those that you do not need.")
            % {"count": len(names), "most": MOST_COLUMNS}
        )
    again = [name for name in names if name and [n.casefold() for n in names].count(name.casefold()) > 1]
    if again:
        raise UnreadableList(_("Two columns are called “%(name)s”. Rename one of them.") % {"name": again[0]})
    return names


def _table(names: list[str], rows: list[tuple[int, list[str]]]) -> Recipients:
    place = _place_of_phone(names)
    others = [n for n, name in enumerate(names) if name and n != place]
    width = len(names)
    if long := [line for line, row in rows if any(row[width:])]:
        # The rest of a text with a comma in it, most often; without it something else would be sent.
        raise UnreadableList(
            _("Line %(line)d has more columns than the first line. Put a text with commas into quotation marks.")
            % {"line": long[0]}
        )
    padded = ((line, [*row, *[""] * (width - len(row))]) for line, row in rows)
    people = (Recipient(line, _phone(row[place]), tuple(row[n].strip() for n in others)) for line, row in padded)
    return Recipients(tuple(names[n] for n in others), tuple(people))


def _phone(cell: str) -> str:
    # An apostrophe is how people keep a spreadsheet from dropping the 0.
    return cell.strip().removeprefix("'")


def _place_of_phone(names: list[str]) -> int:
    if any(_is_phone(name) for name in names):
        raise UnreadableList(_("The first line must name the columns, such as “phone,name”: put it above the phones."))
    for place, name in enumerate(names):
        if name.casefold().replace("_", " ") in _PHONE_COLUMNS:
            return place
    if len(names) == 1:
        return 0
    raise UnreadableList(
        _("No column holds the phones: call it “phone” or “số điện thoại”. The columns are: %(names)s.")
        % {"names": ", ".join(filter(None, names)) or "–"}
    )
