import phonenumbers
import pytest
from django.utils import translation
from django.utils.functional import Promise
from hypothesis import assume, given
from hypothesis import strategies as st

from esms_viber.phones import (
    PREFIXES_BEFORE_2018,
    InvalidPhone,
    mask_phone,
    normalize_phone,
    phone_beginnings,
    to_national,
)

PHONE = "+84901888484"

SPELLINGS = [
    "0901888484",
    "84901888484",
    "+84901888484",
    "0084901888484",
    "901888484",
    "  0901 888 484 ",
    "0901.888.484",
    "090.188.8484",
    "0901888.484",
    "0901 888.484",
    "09.01.88.84.84",
    "0901.88.84.84",
    "901.888.484",
    "84.901.888.484",
    "+84.901888484",
    "+84.901.888.484",
    "84.901888484",
    "0901.888.484.",
    "0901888484.\N{NO-BREAK SPACE}",
    "0901-888-484",
    "(0901) 888 484",
    "(+84) 901 888 484",
    "+84 (0) 901 888 484",
    "+840901888484",
    "84 0901 888 484",
    "0901\N{NO-BREAK SPACE}888\N{NARROW NO-BREAK SPACE}484",
    "0901\N{EN DASH}888\N{NON-BREAKING HYPHEN}484",
    "\N{LEFT-TO-RIGHT EMBEDDING}+84 901 888 484\N{POP DIRECTIONAL FORMATTING}",
    "\N{ZERO WIDTH NO-BREAK SPACE}0901888484",
]


@pytest.mark.parametrize("text", SPELLINGS)
def test_reads_every_spelling(text: str) -> None:
    assert normalize_phone(text) == PHONE


@pytest.mark.parametrize(
    "text",
    ["0849018884", "0843333333", "0321234567", "0561234567", "0701234567", "0811234567", "0991234567"],
)
def test_reads_each_range_of_mobile_numbers(text: str) -> None:
    assert normalize_phone(text) == "+84" + text[1:]


def test_a_number_that_ends_in_zeros_may_be_grouped_by_a_dot() -> None:
    assert normalize_phone("0901888.000") == "+84901888000"
    assert normalize_phone("0901.888.000") == "+84901888000"


@pytest.mark.parametrize(
    "text",
    [
        "38221234.0",
        "38221234.00",
        "3822123.40",
        "382212.340",
        "382212.345",
        "3.82212345",
        "3. 82212345",
        "38 221 234.0",
        "38\N{NO-BREAK SPACE}221\N{NO-BREAK SPACE}234,0",
        "38.221.234.0",
        "3.822.123.45",
        "38.221.234,0",
        "38,221,234.0",
        "382,212,345",
        "382.212.345,0",
        "38221234,0",
        "0.901888484",
        ".901888484",
        "90188848.4",
        "0901888484.5",
        "901888484.10",
        "84382212.000",
        "8438221234.0",
        "84.3822123",
        "84.38221234.0",
        "+8438221234.0",
        "038221234.0",
        "01201234567.0",
    ],
)
def test_decimals_and_thousands_are_no_digits_of_a_number(text: str) -> None:
    with pytest.raises(InvalidPhone, match="a number with decimals") as caught:
        normalize_phone(text)
    assert caught.value.code == "decimal"


@pytest.mark.parametrize(
    "text",
    [
        "901888484.0",
        "84901888484.0",
        "+84901888484.0",
        "0901888484.00",
        "0901888484,0",
        "901888484,00",
        " 901888484.000 ",
    ],
)
def test_a_number_that_was_read_as_a_decimal_one_is_told_whole(text: str) -> None:
    with pytest.raises(InvalidPhone, match="added decimals to this number: enter 0901888484") as caught:
        normalize_phone(text)
    assert caught.value.code == "decimal"


@pytest.mark.parametrize(
    "text", ["901888484 ₫", "901.888.484đ", "$901,888,484.00", "901888484 VND", "350.000.000 đồng", "901888484 €"]
)
def test_an_amount_of_money_is_no_phone(text: str) -> None:
    with pytest.raises(InvalidPhone, match="amount of money"):
        normalize_phone(text)


def test_a_number_that_begins_with_84_is_not_taken_for_the_country_code() -> None:
    assert normalize_phone("849018884") == "+84849018884"
    assert normalize_phone("84849018884") == "+84849018884"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("", "empty", "such as 0901888484"),
        (" \t\n", "empty", "such as 0901888484"),
        ("()", "empty", "such as 0901888484"),
        ("+1 650 253 0000", "country", "Vietnamese"),
        ("0066812345678", "country", "Vietnamese"),
        ("+0901888484", "country", "+84"),
        ("024 3822 1234", "landline", "landline"),
        ("+842838221234", "landline", "landline"),
        ("19001234", "service", "hotline"),
        ("1800 1234", "service", "hotline"),
        ("0672345678", "service", "service number"),
        ("0901888484 ext 5", "extension", "extension"),
        ("0901888484x5", "extension", "extension"),
        ("0901888484;ext=5", "extension", "extension"),
        ("0901888484 #12", "extension", "extension"),
        ("0901888484 máy lẻ 3", "extension", "extension"),
        ("0901888484, 0901888485", "extension", "second number"),
        ("8,49019E+10", "shortened", "spreadsheet"),
        ("8.49019E+10", "shortened", "make the column text"),
        (" 9.01888484e+08 ", "shortened", "write the numbers again"),
        ("9E+08", "shortened", "digits of it may be lost"),
        ("9.01888484E8", "shortened", "spreadsheet"),
        ("9,01888484E+08", "shortened", "spreadsheet"),
        ("9.01888484E+008", "shortened", "spreadsheet"),
        ("9.01888484 E+08", "shortened", "spreadsheet"),
        ("1.2e3", "shortened", "spreadsheet"),
        ("0901888484-1", "too_long", "too many"),
        ("0901888484 đường Lê Lợi", "letters", "digits only"),
        ("0901888484 / 0901888485", "characters", "one number"),
        ("0901888484 0901888485", "too_long", "10"),
        ("090188848", "too_short", "10"),
        ("113", "too_short", "missing"),
        ("0", "too_short", "missing"),
        ("+84", "too_short", "missing"),
        ("09018884845", "too_long", "too many"),
        ("9" * 100_000, "too_long", "too many"),
        ("0901CALLME", "letters", "digits only"),
        ("gọi sau", "letters", "digits only"),
        ("0901888484?", "characters", "digits only"),
        ("++84901888484", "characters", "digits only"),
        ("0901+888484", "characters", "digits only"),
        ("0901888484\x00", "characters", "digits only"),
        ("\ud800901888484", "characters", "digits only"),
        ("０９０１８８８４８４", "digits", "ordinary digits"),
        ("٠٩٠١٨٨٨٤٨٤", "digits", "ordinary digits"),
        ("090188848²", "digits", "ordinary digits"),
        ("＋84901888484", "digits", "ordinary digits"),
        ("tel:+84901888484", "uri", "tel:"),
        (" TEL:0901888484", "uri", "tel:"),
        ("0552345678", "prefix", "0552"),
        ("0438221234", "prefix", "0438"),
        ("0121012345", "prefix", "0121"),
    ],
)
def test_refuses_with_a_hint(text: str, code: str, hint: str) -> None:
    with pytest.raises(InvalidPhone) as caught:
        normalize_phone(text)
    assert caught.value.code == code
    assert hint in str(caught.value.message)
    assert str(caught.value) == str(caught.value.message)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("01201234567", "0701234567"),
        ("01211234567", "0791234567"),
        ("01221234567", "0771234567"),
        ("01261234567", "0761234567"),
        ("01281234567", "0781234567"),
        ("01231234567", "0831234567"),
        ("01241234567", "0841234567"),
        ("01251234567", "0851234567"),
        ("01271234567", "0811234567"),
        ("01291234567", "0821234567"),
        ("01621234567", "0321234567"),
        ("01631234567", "0331234567"),
        ("01641234567", "0341234567"),
        ("01651234567", "0351234567"),
        ("01661234567", "0361234567"),
        ("01671234567", "0371234567"),
        ("01681234567", "0381234567"),
        ("01691234567", "0391234567"),
        ("01861234567", "0561234567"),
        ("01881234567", "0581234567"),
        ("01991234567", "0591234567"),
        ("+84 120 123 4567", "0701234567"),
        ("84 0120 123 4567", "0701234567"),
    ],
)
def test_names_what_an_11_digit_number_became(old: str, new: str) -> None:
    with pytest.raises(InvalidPhone, match=new) as caught:
        normalize_phone(old)
    assert caught.value.code == "before_2018"
    assert normalize_phone(new)


def test_a_hint_is_translated_when_it_is_shown() -> None:
    with translation.override("vi"), pytest.raises(InvalidPhone) as caught:
        normalize_phone("01201234567")
    assert isinstance(caught.value.message, Promise)


def test_national_form() -> None:
    assert to_national(PHONE) == "0901888484"


def test_mask_hides_the_middle_and_everything_that_is_no_phone() -> None:
    assert mask_phone(PHONE) == "+8490***484"
    assert mask_phone("0901888484") == "***"
    assert mask_phone("") == "***"


@pytest.mark.parametrize(
    ("text", "beginnings"),
    [
        ("0901888484", ["+84901888484"]),
        ("+84 901.888.484", ["+84901888484"]),
        ("84901888484", ["+84901888484"]),
        ("0084 901 888 484", ["+84901888484"]),
        ("+84(0)901", ["+84901"]),
        ("0901 888", ["+84901888"]),
        ("901888", ["+84901888"]),
        ("84901", ["+84901", "+8484901"]),
        ("0849", ["+84849"]),
        ("+849", ["+849"]),
        ("d8e0", []),
        ("09018884841", []),
        ("84", []),
        ("0", []),
        ("", []),
        ("Nguyễn", []),
        ("order 0901", []),
        ("٠٩٠١٨٨٨", []),
    ],
)
def test_how_a_number_that_is_searched_for_begins(text: str, beginnings: list[str]) -> None:
    assert phone_beginnings(text) == beginnings


MOBILES = st.builds(
    lambda prefix, rest: f"{prefix}{rest:07}",
    st.sampled_from([*PREFIXES_BEFORE_2018.values(), "90", "91", "94", "96", "97", "98", "86", "88"]),
    st.integers(0, 10**7 - 1),
)


def _code(text: str) -> str:
    try:
        normalize_phone(text)
    except InvalidPhone as error:
        return error.code
    return ""


@pytest.mark.parametrize("length", range(4, 12))
def test_every_number_is_of_the_kind_that_phonenumbers_says(length: int) -> None:
    """By each prefix of four digits, and the digits after it at their lowest and highest."""
    landlines = {phonenumbers.PhoneNumberType.FIXED_LINE, phonenumbers.PhoneNumberType.FIXED_LINE_OR_MOBILE}
    others = {phonenumbers.PhoneNumberType.UNKNOWN, phonenumbers.PhoneNumberType.MOBILE}
    for prefix in range(1000, 10_000):
        for rest in {"0" * (length - 4), "9" * (length - 4)}:
            national = f"{prefix}{rest}"
            kind = phonenumbers.number_type(phonenumbers.PhoneNumber(country_code=84, national_number=int(national)))
            code = _code("+84" + national)
            is_mobile = kind == phonenumbers.PhoneNumberType.MOBILE and length == 9 and national[0] in "35789"
            assert (code == "") is is_mobile, national
            if code != "before_2018":
                assert (code == "landline") is (kind in landlines), national
                assert (code == "service") is (kind not in landlines | others), national


@given(MOBILES, st.sampled_from(["0", "84", "+84", "0084", "+840", ""]), st.data())
def test_any_spelling_of_a_number_gives_the_same(national: str, prefix: str, data: st.DataObject) -> None:
    assume(phonenumbers.is_valid_number(phonenumbers.parse("+84" + national)))
    separators = st.text(" -()\u00a0", max_size=2)
    spelled = "".join(char + data.draw(separators) for char in prefix + national)
    assert normalize_phone(spelled) == "+84" + national


@given(st.from_regex(r"\A[1-9][0-9]{6,10}\Z"), st.sampled_from(".,"), st.from_regex(r"\A[0-9]{1,6}\Z"))
def test_no_decimal_number_is_read_as_a_phone(whole: str, mark: str, decimals: str) -> None:
    with pytest.raises(InvalidPhone):
        normalize_phone(whole + mark + decimals)


@given(st.text() | st.text("+0123456789 .-()x;", max_size=20) | st.from_regex(r"\A(\+84|84|0)?[0-9]{6,12}\Z"))
def test_gives_a_mobile_number_or_a_reason(text: str) -> None:
    try:
        phone = normalize_phone(text)
    except InvalidPhone as error:
        reason = str(error.message)
        phone = ""
    assert phone or reason
    assert not phone or normalize_phone(phone) == normalize_phone(to_national(phone)) == phone
    assert not phone or phone in phone_beginnings(text)


@given(MOBILES, st.sampled_from(["0", "84", "+84", "0084", ""]), st.integers(3, 9))
def test_the_beginning_of_a_stored_number_finds_it(national: str, prefix: str, end: int) -> None:
    beginnings = phone_beginnings(prefix + national[:end])
    assert any(f"+84{national}".startswith(beginning) for beginning in beginnings)
