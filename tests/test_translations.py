"""The Vietnamese catalogue: complete, compiled from what stands beside it, with every placeholder in place."""

from __future__ import annotations

import re
from gettext import GNUTranslations
from pathlib import Path

import pytest
from django.core.exceptions import ValidationError
from django.utils import translation

from esms_viber.amounts import dong
from esms_viber.codes import CODES
from esms_viber.models import OutboundViberMessage, Status

FOLDER = Path(__file__).parents[1] / "esms_viber" / "locale" / "vi" / "LC_MESSAGES"


@pytest.fixture(scope="module")
def catalogue() -> dict:
    with (FOLDER / "django.mo").open("rb") as compiled:
        return GNUTranslations(compiled)._catalog


def test_nothing_is_fuzzy_or_left_out():
    source = (FOLDER / "django.po").read_text()
    assert "fuzzy" not in source
    assert not re.search(r'^msgstr(\[0\])? ""\n\n', source, re.M)


def test_every_placeholder_is_kept(catalogue):
    for original, translated in catalogue.items():
        original = original[0] if isinstance(original, tuple) else original
        if original:
            names = set(re.findall(r"%\((\w+)\)|\{(\w+)\}", original))
            # A singular need not say the number that the one form of Vietnamese has to.
            assert names <= set(re.findall(r"%\((\w+)\)|\{(\w+)\}", translated)), original


@pytest.mark.parametrize("code", CODES)
def test_codes_are_told_in_vietnamese(code):
    english = str(CODES[code].meaning), str(CODES[code].remedy)
    with translation.override("vi"):
        vietnamese = str(CODES[code].meaning), str(CODES[code].remedy)
    assert all(here != there for here, there in zip(english, vietnamese, strict=True) if here)


def test_states_and_errors_are_told_in_vietnamese():
    with translation.override("vi"):
        assert Status.DELIVERED.label == "đã nhận"
        with pytest.raises(ValidationError) as refused:
            OutboundViberMessage(phone="0901888484", content="x", button_label="y").validate_for_sending()
        assert refused.value.messages == ["Nút bấm cần có liên kết. Hãy nhập liên kết, hoặc xóa nhãn nút."]


def test_amounts_are_written_as_in_the_language():
    from decimal import Decimal

    assert dong(Decimal("1234567.0000")) == "1,234,567 đ"
    with translation.override("vi"):
        assert dong(Decimal("1234567.0000")) == "1.234.567 đ"
        assert dong(Decimal("470.5000")) == "470,50 đ"
