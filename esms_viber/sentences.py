"""What the app writes into the rows: stored in English, shown in the language of whoever reads it."""

from __future__ import annotations

from django.utils.translation import gettext

_BETWEEN = " · "


def put_together(*parts: str) -> str:
    """One text to be stored. Each part is translated by itself where `gettext_noop()` marks it, and else kept."""
    return _BETWEEN.join(filter(None, parts))


def parts(text: str) -> list[str]:
    """What was put together."""
    return text.split(_BETWEEN)


def stored(text: str) -> str:
    """A stored text for a reader; what eSMS or the site itself said is shown as it was said."""
    return _BETWEEN.join(gettext(part) if _is_sentence(part) else part for part in parts(text))


def _is_sentence(part: str) -> bool:
    # A word alone is somebody else's, and may stand in the catalogue for another reason.
    return " " in part or part.endswith(".")
