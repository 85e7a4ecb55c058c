"""Lists of people: pasted phones in any mix of separators, and CSV files as spreadsheets save them."""

from __future__ import annotations

import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esms_viber.phones import normalize_phone
from esms_viber.recipients import (
    MOST_BYTES,
    MOST_RECIPIENTS,
    Recipient,
    Recipients,
    UnreadableList,
    read_csv,
    read_pasted,
)


def phones(text: str) -> list[str]:
    return [person.phone for person in read_pasted(text).people]


@pytest.mark.parametrize(
    "text",
    [
        "0901888484\n0912345678",
        "0901888484,0912345678",
        "0901888484 ; 0912345678;",
        "0901888484\t0912345678",
        "0901888484 0912345678",
        "0901 888 484 0912 345 678",
        "0901.888.484 - 0912-345-678",
        "+84 901 888 484 84 912 345 678",
        "901888484 912345678",
        "901 888 484\t912.345.678",
        "\r\n 0901888484 ,,\r\n\r\n | 0912345678 \r\n",
        "(+84) 901 888 484\n0912 345 678",
        "0901\u00a0888\u00a0484, 0912\u202f345 678",
    ],
)
def test_phones_are_found_in_any_mix_of_separators(text: str) -> None:
    assert [normalize_phone(phone) for phone in phones(text)] == ["+84901888484", "+84912345678"]


def test_what_is_no_phone_is_kept_with_its_line_to_be_told_of() -> None:
    found = read_pasted("Lan: 0901888484\n12345, 0281 234 5678\n–")
    assert [(person.line, person.phone) for person in found.people] == [
        (1, "Lan:"),
        (1, "0901888484"),
        (2, "12345"),
        (2, "0281 234 5678"),
    ]


def test_a_number_that_a_spreadsheet_has_shortened_stays_in_one_piece() -> None:
    assert phones("8,49019E+10,0901888484, 9.01888484E+08") == ["8,49019E+10", "0901888484", "9.01888484E+08"]
    assert phones("0901888484,9E+08") == ["0901888484", "9E+08"]


spelled = st.sampled_from(["0{0}{1}{2}", "0{0} {1} {2}", "84{0}{1}{2}", "+84 {0} {1} {2}", "0{0}.{1}.{2}"])
number = st.tuples(st.sampled_from(["901", "912", "977", "868"]), *[st.from_regex(r"[0-9]{3}", fullmatch=True)] * 2)


@given(st.lists(st.tuples(spelled, number, st.sampled_from(["\n", ",", " ; ", "\t", " | ", "\r\n"])), min_size=1))
def test_every_phone_of_any_list_is_found(entries: list) -> None:
    text = "".join(form.format(*parts) + separator for form, parts, separator in entries)
    assert [normalize_phone(phone) for phone in phones(text)] == ["+84" + "".join(parts) for _f, parts, _s in entries]


@given(st.text())
def test_no_text_breaks_the_reading(text: str) -> None:
    # A letter, so that there is something to be told of.
    assert all(person.phone.strip() for person in read_pasted(f"x {text}").people)


@pytest.mark.parametrize(
    "text",
    ["Lan\t0901888484\t350.000.000", "CMND 331234567\n0901888484", "+84901888484, 912345678", "84912345678 331234567"],
)
def test_a_number_without_its_0_among_phones_with_it_is_asked_about(text: str) -> None:
    with pytest.raises(UnreadableList, match="Write every phone with its 0"):
        read_pasted(text)


def test_far_too_much_text_is_refused_at_once() -> None:
    with pytest.raises(UnreadableList, match="at most 10000 phones"):
        read_pasted("a " * 1_000_000)


@pytest.mark.parametrize("text", ["", "  \n ,;", "- - -"])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(UnreadableList, match="no phone in the list"):
        read_pasted(text)


def test_more_than_can_be_sent_to_at_once_is_refused_with_both_numbers() -> None:
    with pytest.raises(UnreadableList, match="10001 recipients; at most 10000"):
        read_pasted("0901888484\n" * (MOST_RECIPIENTS + 1))


# -- CSV ---------------------------------------------------------------------------------------------------------------

TABLE = "Tên,Số điện thoại,Mã\nLan,0901888484,A1\nMinh,0912345678,B2\n"
READ = Recipients(
    ("Tên", "Mã"), (Recipient(2, "0901888484", ("Lan", "A1")), Recipient(3, "0912345678", ("Minh", "B2")))
)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_file_is_read_as_spreadsheets_save_it(encoding: str, delimiter: str, end: str) -> None:
    assert read_csv(TABLE.replace(",", delimiter).replace("\n", end).encode(encoding)) == READ


@pytest.mark.parametrize(
    "name", ["phone", "PHONE", "Phone_number", "sđt", "SDT", "Điện thoại", " Mobile ", "Số ĐT", "so dt", "ĐT", "dt"]
)
def test_the_column_of_the_phones_goes_by_many_names(name: str) -> None:
    assert read_csv(f"x,{name}\n1,0901888484\n".encode()).people[0].phone == "0901888484"


def test_a_single_column_needs_no_particular_name() -> None:
    assert read_csv(b"customers\n0901888484\n").people == (Recipient(2, "0901888484"),)


def test_letters_and_accents_that_stand_apart_are_put_together() -> None:
    found = read_csv(unicodedata.normalize("NFD", "Số điện thoại,tên\n0901888484,Hà\n").encode())
    assert (found.columns, found.people) == (("tên",), (Recipient(2, "0901888484", ("Hà",)),))


def test_a_file_may_say_itself_what_separates() -> None:
    found = read_csv(b"sep=;\r\nphone;name, first\r\n0901888484;Lan\r\n")
    assert (found.columns, found.people) == (("name, first",), (Recipient(3, "0901888484", ("Lan",)),))
    with pytest.raises(UnreadableList, match="Line 4 has more columns"):
        read_csv(b"sep=;\nphone;name\n0901888484;Lan\n0912345678;Minh;x\n")
    with pytest.raises(UnreadableList, match="Line 3 cannot be read"):
        read_csv(b'sep=;\nphone;name\n0901888484;"Lan\n')


def test_a_file_of_many_short_lines_takes_no_memory_for_them() -> None:
    columns = ",".join(f"c{n}" for n in range(49))
    data = f"phone,{columns}\n".encode() + b"1\n" * 200_000
    tracemalloc.start()
    try:
        with pytest.raises(UnreadableList, match="200000 recipients"):
            read_csv(data)
        assert tracemalloc.get_traced_memory()[1] < 40 * len(data)
    finally:
        tracemalloc.stop()


def test_quotes_line_breaks_short_lines_and_empty_lines() -> None:
    found = read_csv('phone,name,\n0901888484,"Lan, \n ""chị"""\n\n0912345678\n,,\n'.encode())
    assert found.columns == ("name",)
    assert found.people == (Recipient(3, "0901888484", ('Lan, \n "chị"',)), Recipient(5, "0912345678", ("",)))


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"", "no phone in the list"),
        (b"name,code\nLan,A\n", "No column holds the phones.*The columns are: name, code."),
        (b"0901888484,Lan\n0912345678,Minh\n", "first line must name the columns"),
        (b"phone,Name,name\n1,2,3\n", "Two columns are called “Name”"),
        (b"phone\n", "no phone in the list"),
        (b'phone,name\n0901888484,"Lan\n', "Line 2 cannot be read: a quotation mark"),
        ("phone,name\n0901888484,Lê\n".encode("latin-1"), "letters of this file cannot be read.*CSV UTF-8"),
        ("phone,name\n0901888484,Lan,chị\n".encode(), "Line 2 has more columns than the first line"),
        (b"PK\x03\x04 a workbook", "This is a spreadsheet"),
        (b"\xd0\xcf\x11\xe0 an old workbook", "This is a spreadsheet"),
        (b"phone\n" + b"0901888484\n" * (MOST_RECIPIENTS + 1), "10001 recipients"),
        (b"x" * (MOST_BYTES + 1), "larger than 2 MB"),
        (b"phone\n\x00\x01", "letters of this file cannot be read"),
        ("phone,name\n0901888484,Lan\n".encode("utf-16-le"), "letters of this file cannot be read"),
        (b"phone," + b"," * 60 + b"\n0901888484\n", "62 columns; at most 50"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_with_what_to_do(data: bytes, sentence: str) -> None:
    with pytest.raises(UnreadableList, match=sentence):
        read_csv(data)


@given(st.binary())
def test_no_file_breaks_the_reading(data: bytes) -> None:
    try:
        found = read_csv(b"phone,name\n" + data)
    except UnreadableList:
        return
    assert all(len(person.values) == len(found.columns) for person in found.people)


# -- the way through a form --------------------------------------------------------------------------------------------


def test_a_list_survives_its_way_through_a_form() -> None:
    assert Recipients.from_json(READ.as_json()) == READ


@pytest.mark.parametrize(
    "text",
    [
        "",
        "x",
        "null",
        "[]",
        "[[],[[1]]]",
        '[["a"],[[1,"0901888484"]]]',
        '[[],[["1","0901888484"]]]',
        "[[1],[]]",
        "[" * 9999,
        '[[],[[1,"\\ud800"]]]',
    ],
)
def test_a_list_that_was_tampered_with_is_refused(text: str) -> None:
    with pytest.raises(UnreadableList, match="damaged on its way"):
        Recipients.from_json(text)
