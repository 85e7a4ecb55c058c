import pytest
from django.utils.functional import Promise
from hypothesis import given
from hypothesis import strategies as st

from esms_viber.codes import ACCOUNT_CODES, CODES, Verdict, describe

MESSAGE_CODES = (
    "106 107 110 115 120 146 171 177 204 210 301 687 789 790 791 799".split()  # noqa: SIM905 - reads as a table
)


@pytest.mark.parametrize(
    ("verdict", "codes"),
    [
        (Verdict.ACCEPTED, {"100"}),
        (Verdict.ACCOUNT, {"101", "102", "103", "118", "140", "300"}),
        (Verdict.BRAND, {"104"}),
        (Verdict.PHONE, {"99", "108"}),
        (Verdict.DUPLICATE, {"124"}),
        (Verdict.UNCERTAIN, {"105", "199"}),
        (Verdict.MESSAGE, set(MESSAGE_CODES)),
    ],
)
def test_verdicts(verdict: Verdict, codes: set[str]) -> None:
    assert {code for code, entry in CODES.items() if entry.verdict is verdict} == codes


def test_account_codes() -> None:
    assert frozenset({"101", "102", "103", "118", "140", "300"}) == ACCOUNT_CODES


@pytest.mark.parametrize("code", CODES)
def test_every_code_is_explained_in_sentences_that_can_be_translated(code: str) -> None:
    entry = describe(code)
    assert entry is CODES[code]
    assert entry.code == code
    for sentence in (entry.meaning, entry.remedy):
        assert isinstance(sentence, Promise)
        assert str(sentence).endswith(".")


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        CODES["999"] = CODES["100"]  # type: ignore[index] # the point


def test_a_code_that_is_not_in_the_table_claims_nothing() -> None:
    entry = describe("999")
    assert entry.verdict is Verdict.UNCERTAIN
    assert str(entry.meaning) == "Code 999 is not in eSMS's table of codes."
    assert entry.remedy


def test_no_code() -> None:
    entry = describe("")
    assert entry.verdict is Verdict.UNCERTAIN
    assert str(entry.meaning) == "eSMS answered without a code."


@given(st.text())
def test_any_text_is_described(code: str) -> None:
    entry = describe(code)
    assert entry.code == code
    assert len(str(entry.meaning)) < 100
