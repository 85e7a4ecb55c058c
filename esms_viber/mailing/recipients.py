"""Lists of people to write to: phones as they are pasted, or a CSV file with columns for the text."""

from __future__ import annotations

import codecs
import csv
import io
import json
import re
import unicodedata
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate, islice, takewhile
from typing import Any
from urllib.parse import unquote

from django.utils.translation import gettext as _

from ..models.placeholders import MARKS, comparable, visible
from ..phones import InvalidPhone, normalize_phone

MOST_RECIPIENTS = 10_000
MOST_BYTES = 2 * 1024 * 1024
MOST_COLUMNS = 50
MOST_CHARACTERS = 50 * MOST_RECIPIENTS
"""Limit of a pasted text: enough for `MOST_RECIPIENTS` phones in any spelling."""

_PHONE_COLUMNS = {
    "phone", "phones", "phone number", "phone numbers", "phonenumber", "phone no", "mobile", "mobile phone",
    "mobile number", "mobile no", "cell", "cell phone", "cellphone", "tel", "telephone", "telephone number",
    "contact number", "customer phone", "recipient phone", "primary phone", "home phone", "work phone",
    "business phone", "billing phone", "shipping phone",
    "điện thoại", "dien thoai", "số điện thoại", "so dien thoai", "sđt", "sdt", "số đt", "so dt", "đt", "dt",
    "di động", "di dong", "số di động", "so di dong", "điện thoại di động", "dien thoai di dong",
    "số điện thoại di động", "so dien thoai di dong", "đt di động", "dt di dong", "đtdđ", "dtdd", "sđt di động",
    "điện thoại khách hàng", "số điện thoại khách hàng", "sđt khách hàng", "sđt kh", "sdt kh",
    "điện thoại người nhận", "số điện thoại người nhận", "sđt người nhận",
}  # fmt: skip
_REMARK = re.compile(r" ?[(\[][^()\[\]]*[)\]]$")
_COUNT = re.compile(r"[ .#-]*[0-9]{1,2}(?: - value)?$")
"""The number of a phone, if a person has several: `SĐT 2`, and `Phone 1 - Value` in Google's contacts."""
_LONGEST_NAME = 60
"""Longest name of a column with phones, its remarks included."""
_ROWS_ABOVE = 20
"""Rows at the top that are searched for the names of the columns, because there may be titles above them."""
_ROWS_TRIED = 200
"""Rows that are looked at to tell whether a column of another name holds phones."""

_BETWEEN_PHONES = re.compile(
    r"(?:[;|\t]|,(?!(?<=\b[0-9],)[0-9]+E\+?[0-9]|(?<=[0-9],)0+\s*(?:[,;|\t]|\Z)))+", re.IGNORECASE
)
"""A comma within a number as spreadsheets write it, 8,49019E+10 or 901888484,0, separates nothing."""
_HAS_PREFIX = re.compile(r"\W*(0|\+|84[\W_]*[0-9](?:[\W_]*[0-9]){8})")
_FEWEST_DIGITS, _MOST_DIGITS = 9, 17
_LONGEST_SPELLING = 8
"""Groups of characters with spaces between them that one number may be spelt in, e.g. `+84 9 01 88 84 84`."""
_LONE_DIGIT = re.compile(r"[0-9]{2}\W+[0-9]\W*\Z")
_CURRENCY = re.compile(r"[$€₫]|đ|vnđ|vnd|đồng|usd|eur", re.IGNORECASE)


class UnreadableList(ValueError):
    """The input is no list of recipients; the message tells a person what to do."""


@dataclass(frozen=True, slots=True)
class Recipient:
    """One phone of a list, in its spelling there, without the marks that a program has put around it."""

    line: int
    phone: str
    values: tuple[str, ...] = ()
    """This line's value in each column, in the order of the columns."""


@dataclass(frozen=True, slots=True)
class Recipients:
    """A list as it was read; its phones are not checked."""

    columns: tuple[str, ...]
    """Names that a text may hold in braces."""
    people: tuple[Recipient, ...]
    phone_columns: tuple[str, ...] = ()
    """The names of the columns with phones, if there are several; the first is the one used."""
    header_line: int = 0
    """The line with the names of the columns, if it is not the first."""

    def with_phones_of(self, column: str) -> Recipients:
        """Return the list with the phones of another of its `phone_columns`; the list itself for any other name."""
        if column not in self.phone_columns[1:]:
            return self
        place, used = self.columns.index(column), self.phone_columns[0]

        def replaced(values: tuple[str, ...], value: str) -> tuple[str, ...]:
            return (*values[:place], value, *values[place + 1 :])

        return Recipients(
            replaced(self.columns, used),
            tuple(
                Recipient(person.line, _phone(person.values[place]), replaced(person.values, person.phone))
                for person in self.people
            ),
            (column, *(name for name in self.phone_columns if name != column)),
            self.header_line,
        )

    def as_json(self) -> str:
        rows = [[person.line, person.phone, *person.values] for person in self.people]
        remarks = [list(self.phone_columns), self.header_line] if self.phone_columns or self.header_line else []
        return json.dumps([list(self.columns), rows, *remarks], ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Recipients:
        """Raise `UnreadableList` for anything that `as_json()` would not make."""
        try:
            names, rows, *remarks = json.loads(text)
            columns = tuple(map(_text, names))
            people = tuple(Recipient(line, _text(phone), tuple(map(_text, values))) for line, phone, *values in rows)
            named, header_line = remarks or ([], 0)
            found = cls(columns, people, tuple(map(_text, named)), header_line)
            is_sound = (
                all(isinstance(person.line, int) and len(person.values) == len(columns) for person in people)
                and set(found.phone_columns[1:]) <= set(columns)
                and isinstance(header_line, int)
            )
        except (ValueError, TypeError, RecursionError):
            is_sound = False
        if not is_sound:
            raise UnreadableList(_("The list of recipients was damaged on its way. Give the file again."))
        return _bounded(found)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    value.encode()  # raises ValueError for half a character, which JSON can hold
    return value


def _bounded(found: Recipients) -> Recipients:
    _refuse_too_many(len(found.people))
    if not found.people:
        raise UnreadableList(_("There is no phone in the list."))
    return found


def _refuse_too_many(count: int) -> None:
    if count > MOST_RECIPIENTS:
        raise UnreadableList(
            _("There are %(count)d phones; at most %(most)d can be taken at once. Divide the list.")
            % {"count": count, "most": MOST_RECIPIENTS}
        )


# -- names of columns --------------------------------------------------------------------------------------------------

_BLANK = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\u00ad\u200b\u200e\u200f\u2060\u2800\ufeff"
"""Characters that cannot be seen at the ends of a text. Joiners are left out, because emoji are made with them."""


def _names_phone(name: str) -> bool:
    text = comparable(name)
    if len(text) > _LONGEST_NAME:
        return False
    spellings = (text, _COUNT.sub("", text), _COUNT.sub("", _REMARK.sub("", text).strip(MARKS)))
    return any(spelling.replace("-", " ").strip(MARKS) in _PHONE_COLUMNS for spelling in spellings)


# -- marks around a number ---------------------------------------------------------------------------------------------

_QUOTES = "'\"`´‘’‚“”„«»‹›"
_BEFORE = _BLANK + _QUOTES + "=<[{:;|•·●"
_AFTER = _BLANK + _QUOTES + ">]},:;|."
_ADDRESS = re.compile(r"[^<>0-9]*<([^<>]*)>")
"""`Lan <0901888484>`"""
_LINK = re.compile(
    r"(?:https?://)?(?:www\.)?(?:zalo|wa)\.me/([^/?#]+)/?(?:[?#].*)?"
    r"|(?:viber|zalo|whatsapp)://[^?]*\?(?:.*&)?(?:phone|number)=([^&#]+).*",
    re.IGNORECASE,
)
_URI = re.compile(
    r"(?:tel|callto|sms|smsto|viber|zalo|whatsapp):(?://)?([^;?]*)(?:[;?](?!.*\b(?:ext|postd)=).*)?", re.I
)
_NOTHING_AROUND = re.compile(r"[+0-9() -]+")
_LABEL = re.compile(
    r"(?:[pmt][:：](?=\s*(?:[+0]|84))|tel(?:;[\w=,;]+)?[:：]|"
    rf"(?:zalo|viber|whatsapp|{'|'.join(sorted(_PHONE_COLUMNS, key=len, reverse=True))})(?:\s*[:：.]|\s))\s*",
    re.IGNORECASE,
)
"""`p:` of lead forms, `TEL;TYPE=CELL:` of address books, `SĐT:`"""
_DECIMALS = re.compile(r"(.*[0-9])([.,])0+")
_THOUSANDS = re.compile(r"[0-9]{1,3}(?:,[0-9]{3})+")


def _number(text: str) -> str:
    """Find the one phone that a text is, without the marks of programs around it; empty for any other text."""
    # Most texts are no phone, and counting digits tells so at a fraction of the cost.
    if not _FEWEST_DIGITS <= _count_digits(text) <= _MOST_DIGITS:
        return ""
    if _is_phone(text):
        return text
    core = text.lstrip(_BEFORE).rstrip(_AFTER)
    if text.rstrip(_BLANK).endswith(">") and (address := _ADDRESS.fullmatch(text.strip(_BLANK))):
        core = address[1]
    if link := _LINK.fullmatch(core):
        part = unquote(link[1] or link[2])
        return part if _HAS_PREFIX.match(part) and _is_phone(part) else ""
    if uri := _URI.fullmatch(core):
        core = unquote(uri[1])
    elif label := _LABEL.match(core):
        core = core[label.end() :]
    core = core.lstrip(_BEFORE).rstrip(_AFTER)
    # Each reading keeps every digit of the number.
    readings = [core]
    if _THOUSANDS.fullmatch(core):
        readings.append(core.replace(",", ""))
    # No program writes its decimals and its thousands with the same sign.
    if (decimals := _DECIMALS.fullmatch(core)) and decimals[2] not in decimals[1]:
        readings.append(decimals[1])
        if _THOUSANDS.fullmatch(decimals[1]):
            readings.append(decimals[1].replace(",", ""))
    return next(filter(_is_phone, readings), "")


def _count_digits(text: str) -> int:
    return sum(map(str.isdigit, text))


def _is_phone(text: str) -> bool:
    try:
        normalize_phone(text)
    except InvalidPhone:
        return False
    return True


# -- pasted ------------------------------------------------------------------------------------------------------------


def read_pasted(text: str) -> Recipients:
    """Read phones with anything between them: line breaks, commas, semicolons, tabs, and spaces if need be."""
    _refuse_too_long(len(text) > MOST_CHARACTERS)
    lines = enumerate(unicodedata.normalize("NFC", text).splitlines(), start=1)
    parts = [(line, part) for line, words in lines for part in _BETWEEN_PHONES.split(words) if _has_words(part)]
    # Each part holds one entry or more, so far too many are refused before they are read.
    _refuse_at_least(len(parts))
    _refuse_too_long(_count_digits(text) > _MOST_DIGITS * MOST_RECIPIENTS)
    people: list[Recipient] = []
    phones: list[Recipient] = []
    for line, part in parts:
        for entry, is_phone in _phones_in(part.split()):
            people.append(Recipient(line, entry))
            _refuse_at_least(len(people))
            if is_phone:
                phones.append(people[-1])
    # Among phones with their 0 another number of nine digits is no phone, but an amount or the number of a card.
    bare = [person for person in phones if not _HAS_PREFIX.match(person.phone)]
    if bare and len(bare) < len(phones):
        raise UnreadableList(
            _(
                "Line %(line)d: is “%(number)s” a phone? Write every phone with its 0 or +84, and leave out other "
                "numbers, such as amounts."
            )
            % {"line": bare[0].line, "number": bare[0].phone}
        )
    return _bounded(Recipients((), tuple(people)))


def _refuse_too_long(is_too_long: bool) -> None:
    if is_too_long:
        raise UnreadableList(
            _("This is too long. Paste at most %(most)d phones and nothing else.") % {"most": MOST_RECIPIENTS}
        )


def _refuse_at_least(count: int) -> None:
    if count > MOST_RECIPIENTS:
        raise UnreadableList(
            _("There are at least %(count)d phones; at most %(most)d can be taken at once. Divide the list.")
            % {"count": count, "most": MOST_RECIPIENTS}
        )


def _phones_in(groups: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Divide groups of characters into entries, and tell of each whether it is a phone; some spellings have spaces."""
    digits = [_count_digits(group) for group in groups]
    unreadable: list[str] = []
    start = 0
    while start < len(groups):
        # The longest run of groups that is one number is taken.
        counts = list(takewhile(_MOST_DIGITS.__ge__, accumulate(digits[start : start + _LONGEST_SPELLING])))
        for length in range(len(counts), bisect_left(counts, _FEWEST_DIGITS), -1):
            text = " ".join(groups[start : start + length])
            # A digit that stands alone at the end most likely belongs to the next column.
            if (number := _number(text)) and not (length > 1 and _LONE_DIGIT.search(text)):
                break
        else:
            length, number = 1, ""
        end = start + length
        if number and not any(map(_CURRENCY.fullmatch, (*groups[start - 1 : start], *groups[end : end + 1]))):
            yield from _as_one(unreadable)
            unreadable = []
            yield number, True
        else:
            unreadable += groups[start:end]
        start = end
    yield from _as_one(unreadable)


def _as_one(groups: list[str]) -> Iterator[tuple[str, bool]]:
    text = " ".join(groups)
    # These groups are no number together, and must not become one when the whole entry is read again.
    for entry in groups if _number(text) else [text]:
        if _has_words(entry):
            yield entry, False


def _has_words(text: str) -> bool:
    return any(map(str.isalnum, text))


# -- CSV ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Row:
    """The cells of one line."""

    line: int
    cells: list[str]

    @property
    def filled(self) -> list[int]:
        return [n for n, cell in enumerate(self.cells) if cell.strip(_BLANK)]


def read_csv(data: bytes) -> Recipients:
    """Read a table as spreadsheets save it, with a line that names the columns, one of them the phone.

    Lines above the names are skipped. A single column of phones needs no name.
    """
    if len(data) > MOST_BYTES:
        raise UnreadableList(
            _("The file is larger than %(most)d MB. Leave out columns, or divide it.") % {"most": MOST_BYTES // 1024**2}
        )
    if data.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):
        raise UnreadableList(_("This is a spreadsheet. Save it as “CSV UTF-8”, and give that file."))
    encoding = "utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig"
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise UnreadableList(_("The letters of this file cannot be read. Save it as “CSV UTF-8”, and give that file."))
    # Some systems take letters and accents apart; a name in the text is compared with them put together. A program
    # that does not see the mark at the beginning of a file writes another one before it.
    text, lines_before = unicodedata.normalize("NFC", text.lstrip("\ufeff\u200b")), 0
    if told := re.match(r"sep=(.)\r?\n", text):
        text, lines_before = text[told.end() :], 1

    delimiter = told[1] if told else _delimiter(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    rows: list[_Row] = []
    count = 0
    try:
        for cells in reader:
            if "".join(cells).strip(_BLANK):
                count += 1
                if count <= MOST_RECIPIENTS + _ROWS_ABOVE:  # a small file can hold a million rows
                    # A field may hold line breaks, so a row ends on the line that the reader has come to.
                    rows.append(_Row(lines_before + reader.line_num, cells))
    except csv.Error:
        raise UnreadableList(
            _(
                "Line %(line)d cannot be read: a quotation mark is not closed or stands in a wrong place, or a text "
                "is far too long."
            )
            % {"line": lines_before + reader.line_num}
        ) from None

    header = _header(rows)
    if header is not None:
        _refuse_too_many(count - header - 1)
        names = rows[header]
        # A name may hold line breaks, and is looked for where it begins.
        line = names.line - sum(name.count("\n") for name in names.cells)
        return _bounded(_table(names.cells, rows[header + 1 :], line if line > lines_before + 1 else 0))
    _refuse_too_many(count)
    places = {place for row in rows for place in row.filled}
    if len(places) > 1:
        raise UnreadableList(_("The first line must name the columns, such as “phone,name”: put it above the phones."))
    people = (Recipient(row.line, _phone(row.cells[place])) for row in rows for place in places)
    return _bounded(Recipients((), tuple(people)))


def _delimiter(text: str) -> str:
    """Tell what separates the columns: the one that finds their names, or else the most frequent one in a line."""
    widths = dict.fromkeys(",;\t", 0)
    for delimiter in widths:
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
        with suppress(csv.Error):  # read_csv() tells about it
            rows = list(islice(reader, _ROWS_ABOVE))
            widths[delimiter] = max((len(row) for row in rows if _names_columns(row)), default=0)
    if any(widths.values()):
        return max(widths, key=lambda delimiter: widths[delimiter])
    lines = islice(io.StringIO(text), _ROWS_ABOVE)
    line = next((line for line in lines if any(delimiter in line for delimiter in widths)), "")
    return max(widths, key=line.count)


def _header(rows: Sequence[_Row]) -> int | None:
    """Find the row that names the columns, and return its place; None where there are only numbers."""
    top = rows[:_ROWS_ABOVE]
    # Titles stand alone in their rows, and may be called like a column or hold the phone of the shop.
    titles = takewhile(lambda row: len(row.filled) < 2 or not _holds_phone(row), top)
    if named := [n for n, row in enumerate(titles) if len(row.filled) > 1 and _names_columns(row.cells)]:
        return named[0]
    above = list(enumerate(takewhile(lambda row: not _holds_phone(row), top)))
    named = [n for n, row in above if _names_columns(row.cells)]
    # Words rather than numbers are names, but among phones neither a landline is one nor 9.01E+08.
    texts = [(n, "".join(row.cells)) for n, row in above]
    worded = [n for n, text in texts if sum(map(str.isalpha, text)) > _count_digits(text)]
    wide = [n for n, row in above if n in worded and len(row.filled) > 1]
    return next(iter(named or wide or worded), None)


def _names_columns(cells: Sequence[str]) -> bool:
    return any(map(_names_phone, cells[:MOST_COLUMNS]))


def _holds_phone(row: _Row) -> bool:
    return any(map(_number, row.cells[:MOST_COLUMNS]))


def _table(header: list[str], rows: list[_Row], header_line: int) -> Recipients:
    names, width = _names(header), len(header)
    for row in rows:
        row.cells.extend([""] * (width - len(row.cells)))
    named = [place for place, name in enumerate(names) if _names_phone(name)]
    if not named:
        # The phones are in the only column or, among several, in the only one without a name that looks like phones.
        nameless = [n for n, name in enumerate(names) if not name and _looks_like_phones(row.cells[n] for row in rows)]
        named = [0] if width == 1 else nameless
        if len(named) != 1:
            raise UnreadableList(
                _("No column holds the phones: call it “phone” or “số điện thoại”. The columns are: %(names)s.")
                % {"names": ", ".join(filter(None, names)) or "–"}
            )
    holding = [place for place in named if len(named) > 1 and any(_number(row.cells[place]) for row in rows)]
    used = (holding or named)[0]
    names[used] = names[used] or _("column %(number)d") % {"number": used + 1}
    if long := [row.line for row in rows if any(row.cells[width:])]:
        # A text with a comma in it, most often, was cut in two, and must not be sent without its rest.
        raise UnreadableList(
            _("Line %(line)d has more columns than the first line. Put a text with commas into quotation marks.")
            % {"line": long[0]}
            if not header_line
            else _("Line %(line)d has more columns than line %(header)d. Put a text with commas into quotation marks.")
            % {"line": long[0], "header": header_line}
        )
    others = [place for place, name in enumerate(names) if name and place != used]
    also = [n for n in others if n in holding or (n not in named and _looks_like_phones(row.cells[n] for row in rows))]
    return Recipients(
        columns=tuple(names[place] for place in others),
        people=tuple(
            Recipient(row.line, _phone(row.cells[used]), tuple(row.cells[place].strip(_BLANK) for place in others))
            for row in rows
        ),
        phone_columns=(names[used], *(names[place] for place in also)) if also or len(named) > 1 else (),
        header_line=header_line,
    )


def _names(header: list[str]) -> list[str]:
    if len(header) > MOST_COLUMNS:
        raise UnreadableList(
            _("The file has %(count)d columns; at most %(most)d can be read. Leave out those that you do not need.")
            % {"count": len(header), "most": MOST_COLUMNS}
        )
    names: list[str] = []
    for number, name in enumerate(map(visible, header), start=1):
        alike = [other for other in names if name and comparable(other) == comparable(name)]
        if alike and not _names_phone(name):
            raise UnreadableList(_("Two columns are called “%(name)s”. Rename one of them.") % {"name": alike[0]})
        # Two columns with phones get different names, because a person chooses one of them.
        names.append(_("%(name)s (column %(number)d)") % {"name": name, "number": number} if alike else name)
    return names


def _looks_like_phones(cells: Iterable[str]) -> bool:
    """Are most of the first cells of a column phones, with their 0 or +84? Other numbers have nine digits too."""
    tried = [cell for cell in islice(cells, _ROWS_TRIED) if cell.strip(_BLANK)]
    phones = [cell for cell in tried if _HAS_PREFIX.match(_number(cell))]
    return bool(phones) and 2 * len(phones) > len(tried)


def _phone(cell: str) -> str:
    text = cell.strip(_BLANK)
    return text if _NOTHING_AROUND.fullmatch(text) else _number(text) or text.removeprefix("'")
