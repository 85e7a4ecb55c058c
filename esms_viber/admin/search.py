"""The search of the list: a phone or a number by an index, or words in the texts."""

from __future__ import annotations

import re
from collections.abc import Iterable

from django.db.models import Q, QuerySet
from django.utils.text import smart_split, unescape_string_literal

from ..models import OutboundViberMessage
from ..models.validators import normalize_text
from ..phones import phone_beginnings

_FEW = 500
_TRIGRAM = 3
_QUOTES = ('"', "'")
_NUMBER = re.compile(r"\S*[\d_:/-]\S*")
"""One word with a digit in it, or with what joins the parts of a key."""


def is_number(text: str) -> bool:
    """Does the text look like a phone, SMSID, RequestId or dedupe key? In quotes nothing does."""
    text = normalize_text(text).strip()
    if text.startswith(_QUOTES):
        return False
    return bool(phone_beginnings(text) or _NUMBER.fullmatch(text))


def find(rows: QuerySet[OutboundViberMessage], text: str) -> QuerySet[OutboundViberMessage]:
    """Find messages by the beginning of a phone or another number, or else by each of the words in their texts."""
    text = normalize_text(text).strip()
    if is_number(text):
        return rows.filter(_with_number(text, rows.db))
    for word in _words(text):
        # Not `icontains`, for which PostgreSQL makes a copy of each text in capitals, and for which SQLite knows the
        # capitals of English alone. An index of trigrams, which a site may add, serves these too.
        spellings = {word, word.lower(), word.upper(), word.capitalize(), word.title()}
        # Two of them differ in their first letter alone, so a text without the word shows that sooner by their ends.
        ends = {spelling[1:] for spelling in spellings}
        if len(ends) < len(spellings) and len(word) > _TRIGRAM:
            rows = rows.filter(_has_any(ends))
        rows = rows.filter(_has_any(spellings))
    return rows


def _has_any(texts: Iterable[str]) -> Q:
    return Q(*[("content__contains", text) for text in sorted(texts)], _connector=Q.OR)


def _with_number(text: str, alias: str) -> Q:
    """Return the condition for a phone or another number that begins so.

    Each column is asked by itself, because SQLite uses no index for a choice of ranges. Where few are found, their
    primary keys are the condition; otherwise it is that of the columns in which something was found.
    """
    columns = [Q(**{f"{name}__startswith": text}) for name in ("sms_id", "request_id", "dedupe_key")]
    columns += [Q(phone__startswith=beginning) for beginning in phone_beginnings(text)]
    messages = OutboundViberMessage.objects.using(alias).order_by()
    found, pks, is_cut = Q(), set[int](), False
    for column in columns:
        some = list(messages.filter(column).values_list("id", flat=True)[: _FEW + 1])
        if some:
            found |= column
        pks.update(some)
        is_cut = is_cut or len(some) > _FEW
    return found if is_cut else Q(pk__in=pks)


def _words(text: str) -> list[str]:
    """Split the text at spaces, but for what stands in quotes, as Django's own search does."""
    words = []
    for word in smart_split(text):
        is_quoted = len(word) > 1 and word.startswith(_QUOTES) and word[0] == word[-1]
        words.append(unescape_string_literal(word) if is_quoted else word)
    return [word for word in words if word]
