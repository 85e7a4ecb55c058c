"""The search of the list: a phone or a number by an index, or words in the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from django.db import connections
from django.db.models import Q, QuerySet
from django.utils.text import smart_split, unescape_string_literal

from ..models import OutboundViberMessage, ViberOptOut
from ..models.validators import normalize_text
from ..phones import phone_beginnings

_FEW = 500
_QUOTES = ('"', "'")
_NUMBER = re.compile(r"\S*[\d_:/-]\S*")
"""One word with a digit in it, or with what joins the parts of a key."""


def is_number(text: str) -> bool:
    """Does the text look like a phone, SMSID, RequestId or dedupe key? In quotes nothing does."""
    text = normalize_text(text).strip()
    if text.startswith(_QUOTES):
        return False
    return bool(phone_beginnings(text) or _NUMBER.fullmatch(text))


def kind_of(text: str) -> str:
    """Tell what is searched for: a number, texts and keys, or texts alone."""
    if is_number(text):
        return "number"
    return "texts" if normalize_text(text).strip().startswith(_QUOTES) else "texts and keys"


def find(rows: QuerySet[OutboundViberMessage], text: str) -> QuerySet[OutboundViberMessage]:
    """Find messages by the beginning of a phone or another number, or else by each of the words in their texts.

    A dedupe key may be any text, so unless they stand in quotes the words are taken for the beginning of one as well.
    """
    text = normalize_text(text).strip()
    if not text:
        return rows
    if is_number(text):
        return rows.filter(_with_number(text, rows.db))
    in_texts, alike = Q(), Q()
    for word in _words(text):
        in_texts &= _in_any_case(word, connections[rows.db].vendor)
    if not text.startswith(_QUOTES):
        alike = _with_any([Q(dedupe_key__startswith=text)], OutboundViberMessage.objects.using(rows.db))
    return rows.filter(in_texts | alike) if alike else rows.filter(in_texts)


def _in_any_case(word: str, vendor: str) -> Q:
    if vendor == "postgresql":
        # Not `icontains`, which makes a copy of each text in capitals, and which no index of trigrams serves.
        return Q(content__iregex=re.escape(word))
    # SQLite knows the capitals of English alone.
    spellings = {word} if word.isascii() else {word.lower(), word.upper(), word.capitalize(), word.title()}
    return Q(*[("content__icontains", spelling) for spelling in sorted(spellings)], _connector=Q.OR)


def _with_number(text: str, alias: str) -> Q:
    """Return the condition for a phone or another number that begins so."""
    columns = [Q(**{f"{name}__startswith": text}) for name in ("sms_id", "request_id", "dedupe_key")]
    columns += [Q(phone__startswith=beginning) for beginning in phone_beginnings(text)]
    return _with_any(columns, OutboundViberMessage.objects.using(alias)) or Q(pk__in=[])


def find_phone(rows: QuerySet[ViberOptOut], text: str) -> QuerySet[ViberOptOut]:
    """Find the rows of a phone in any spelling, or of those that begin so; none for what is no phone."""
    text = normalize_text(text).strip()
    if not text:
        return rows
    columns = [Q(phone__startswith=beginning) for beginning in phone_beginnings(text)]
    return rows.filter(_with_any(columns, ViberOptOut.objects.using(rows.db)) or Q(pk__in=[]))


def _with_any(columns: Iterable[Q], rows: QuerySet[Any]) -> Q:
    """Return a condition for what meets any of these; an empty one where nothing does.

    Each column is asked by itself, because SQLite uses no index for a choice of ranges. Where few are found, their
    primary keys are the condition; otherwise it is that of the columns in which something was found.
    """
    found, pks, is_cut = Q(), set[int](), False
    for column in columns:
        some = list(rows.order_by().filter(column).values_list("pk", flat=True)[: _FEW + 1])
        if some:
            found |= column
        pks.update(some)
        is_cut = is_cut or len(some) > _FEW
    return found if is_cut or not pks else Q(pk__in=pks)


def _words(text: str) -> list[str]:
    """Split the text at spaces, but for what stands in quotes, as Django's own search does."""
    words = []
    for word in smart_split(text):
        is_quoted = len(word) > 1 and word.startswith(_QUOTES) and word[0] == word[-1]
        words.append(unescape_string_literal(word) if is_quoted else word)
    return [word for word in words if word]
