"""Lists of people: pasted phones in any mix of separators, and CSV files as spreadsheets save them."""

from __future__ import annotations

import tracemalloc
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from esms_viber.mailing.recipients import (
    MOST_BYTES,
    MOST_RECIPIENTS,
    Recipient,
    Recipients,
    UnreadableList,
    read_csv,
    read_pasted,
)
from esms_viber.phones import InvalidPhone, normalize_phone


def phones(text: str) -> list[str]:
    return [person.phone for person in read_pasted(text).people]


def cell(text: str) -> str:
    """What the phone of a table becomes when its cell holds this."""
    quoted = text.replace('"', '""')
    [person] = read_csv(f'name,phone\nLan,"{quoted}"\n'.encode()).people
    return normalize_phone(person.phone)


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
    assert phones("0901888484,0,Lan\n0912345678,00") == ["0901888484", "Lan", "0912345678"]
    assert phones("0901888484,0 912 345 678") == ["0901888484", "0 912 345 678"]
    assert phones("9,01888484E8,0901888484") == ["9,01888484E8", "0901888484"]


@pytest.mark.parametrize(
    "text",
    [
        "901888484.0",
        "84901888484.0",
        "0901888484.00",
        "0901888484,0",
        "901888484,00",
        "901.888.484,00",
        "901888484.000",
    ],
)
def test_decimals_that_a_spreadsheet_has_added_are_taken_off(text: str) -> None:
    assert [normalize_phone(phone) for phone in phones(text)] == ["+84901888484"]
    assert cell(text) == "+84901888484"
    assert [normalize_phone(phone) for phone in phones(f"{text}\n{text}")] == ["+84901888484"] * 2


@pytest.mark.parametrize("text", ["901,888,484", "84,901,888,484", "901,888,484.00"])
def test_thousands_that_are_set_apart_are_read_in_a_cell(text: str) -> None:
    assert cell(text) == "+84901888484"


@pytest.mark.parametrize(
    "text",
    [
        "38221234.0",
        "38221234,0",
        "38 221 234.0",
        "38.221.234,0",
        "38,221,234.0",
        "90188848.4",
        "9.01888484E8",
        "0901888484.5",
        "901888484.10",
        "901,888,484,000",
        "901.888.484 ₫",
        "901888484 đ",
        "$901888484",
        "KM901888484",
        "p: 350000000",
        "Mã 0901888484",
        "0901888484 máy lẻ 3",
        "tel:0901888484;ext=5",
        "0901888484 0912345678",
        "<0901888484> <0912345678>",
        "901888484%",
        "zalo.me/901888484",
        "٠٩٠١٨٨٨٤٨٤",
    ],
)
def test_what_is_no_phone_for_certain_is_kept_as_it_is_and_refused(text: str) -> None:
    with pytest.raises(InvalidPhone):
        cell(text)


@pytest.mark.parametrize("text", ["350.000.000 ₫", "901888484 đ", "$ 901888484", "350.000.000 VND"])
def test_a_pasted_amount_of_money_is_one_entry_and_no_phone(text: str) -> None:
    assert phones(text) == [text]


@pytest.mark.parametrize("text", ["38221234 0", "38221234.0 5", "3822123.0", "028 3822 1234 - 5"])
def test_a_pasted_number_takes_no_digit_of_the_next_column(text: str) -> None:
    for phone in phones(text):
        with pytest.raises(InvalidPhone):
            normalize_phone(phone)


AROUND = [
    "p:+84901888484",
    "P: 0901888484",
    "m:0901888484",
    '="0901888484"',
    '="+84901888484"',
    "=0901888484",
    "'0901888484",
    "’0901888484",
    "'+84901888484",
    '"0901888484"',
    "“0901888484”",
    "tel:0901888484",
    "TEL:+84-901-888-484",
    "tel://0901888484",
    "sms:+84901888484",
    "sms:0901888484?body=Hi",
    "callto:0901888484",
    "zalo:0901888484",
    "viber:+84901888484",
    "whatsapp:+84901888484",
    "https://zalo.me/0901888484",
    "zalo.me/84901888484",
    "https://wa.me/84901888484?text=Hi",
    "viber://chat?number=%2B84901888484",
    "viber://chat/?number=%2B84901888484",
    "SĐT: 0901888484",
    "Phone: 0901 888 484",
    "Điện thoại：0901888484",
    "ĐT 0901888484",
    "Lan <0901888484>",
    "<0901888484>",
    "[0901888484]",
    "+84901888484,",
    "0901888484.",
    "• 0901888484",
    "\ufeff0901888484\u200b",
]


@pytest.mark.parametrize("text", AROUND)
def test_what_programs_put_around_a_number_is_taken_off(text: str) -> None:
    assert cell(text) == "+84901888484"
    assert [normalize_phone(phone) for phone in phones(text)] == ["+84901888484"]
    assert [normalize_phone(phone) for phone in phones(f"0912345678\n{text}\n0912345679")][1] == "+84901888484"


@pytest.mark.parametrize(
    "text",
    [
        "+84901888484;",
        "tel:+84-901-888-484;phone-context=+84",
        "TEL;TYPE=CELL:+84901888484",
        "TEL;CELL:0901888484",
        '"Lan, chị" <0901888484>',
    ],
)
def test_what_separates_pasted_phones_may_stand_around_one_in_a_cell(text: str) -> None:
    assert cell(text) == "+84901888484"


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
    with pytest.raises(UnreadableList, match="10001 phones; at most 10000"):
        read_pasted("0901888484\n" * (MOST_RECIPIENTS + 1))
    assert len(read_pasted("0901 888 484\n" * MOST_RECIPIENTS).people) == MOST_RECIPIENTS


@pytest.mark.parametrize("separator", ["\n", ",", " ", "; ", "\t"])
def test_far_too_many_phones_are_refused_before_any_is_read(separator: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("esms_viber.mailing.recipients.normalize_phone", lambda text: pytest.fail(text))
    with pytest.raises(UnreadableList, match="at most 10000"):
        read_pasted(separator.join(f"0977{n:06d}" for n in range(40_000)))


@pytest.mark.parametrize("separator", ["\n", ",", " ", " - "])
def test_too_many_are_counted_no_further_than_need_be(separator: str) -> None:
    text = separator.join(["0901 888 484"] * (MOST_RECIPIENTS + 5))
    with pytest.raises(UnreadableList, match=r"at least 1000[15] phones"):
        read_pasted(text)
    assert len(read_pasted(separator.join(["0901 888 484"] * MOST_RECIPIENTS)).people) == MOST_RECIPIENTS


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


@pytest.mark.parametrize(
    "name",
    [
        "\u200bSố điện thoại",
        "\ufeff\ufeffSố điện thoại",
        "Số\u00a0điện\u2009thoại",
        '"Số điện\nthoại"',
        '"Số điện\r\nthoại"',
        "Số  điện_thoại",
        "Số\u00ad điện thoại\u2060",
        "S\u200bĐT",
        "SÐT",
        "Số điện thoại *",
        "Số điện thoại (*)",
        "Số điện thoại (bắt buộc)",
        "* SĐT:",
        "SĐT:",
        "SĐT：",
        "SĐT.",
        '"Phone\n(required)"',
        "Phone [optional]:",
        "phone_number*",
        "Ｐｈｏｎｅ",
        "Phone-Number",
        "Phone No.",
        "Phone (mobile)",
        "SĐT 1",
        "Phone 1 - Value",
        "'phone'",
        unicodedata.normalize("NFD", "Số điện thoại *"),
    ],
)
def test_the_column_of_the_phones_goes_by_what_is_seen(name: str) -> None:
    found = read_csv(f"{name},tên\n0901888484,Lan\n".encode())
    assert (found.columns, [person.phone for person in found.people]) == (("tên",), ["0901888484"])


def test_names_are_kept_as_they_look() -> None:
    found = read_csv('phone,"\u200bHọ \n tên\u00a0*",\u2060\n0901888484,Lan,x\n'.encode())
    assert found.columns == ("Họ tên *",)


@pytest.mark.parametrize("second", ["Tên", "\u200btên", " TÊN *", "tên:", unicodedata.normalize("NFD", "tên")])
def test_columns_that_look_alike_are_two_of_one_name(second: str) -> None:
    with pytest.raises(UnreadableList, match="Two columns are called “tên”"):
        read_csv(f"phone,tên,{second}\n0901888484,a,b\n".encode())


def test_a_cell_of_signs_that_nobody_sees_is_empty() -> None:
    found = read_csv("phone,name\n0901888484,\u200b\u00a0\ufeff\n\u200b,\u2060\n0912345678,👩\u200d🚒\u200b\n".encode())
    assert found.people == (Recipient(2, "0901888484", ("",)), Recipient(4, "0912345678", ("👩\u200d🚒",)))


@pytest.mark.parametrize("data", [b"customers\n0901888484\n", b"\n0901888484\n", b",\n0901888484,\n"])
def test_a_single_column_needs_no_particular_name(data: bytes) -> None:
    assert read_csv(data).people == (Recipient(2, "0901888484"),)


def test_a_single_column_needs_no_name_at_all() -> None:
    found = read_csv(b"0901888484\n+84 912 345 678\nx\n")
    assert found.columns == ()
    assert found.people == (Recipient(1, "0901888484"), Recipient(2, "+84 912 345 678"), Recipient(3, "x"))


@pytest.mark.parametrize("first", ["028 3822 1234", "38221234.0", "9.01888484E8", "12345"])
def test_a_bad_number_in_the_first_line_is_no_name(first: str) -> None:
    assert [person.phone for person in read_csv(f"{first}\n0901888484\n".encode()).people] == [first, "0901888484"]
    with pytest.raises(UnreadableList, match="first line must name the columns"):
        read_csv(f"{first},1\n0901888484,2\n".encode())


def test_a_column_without_a_name_that_holds_phones_is_the_one() -> None:
    found = read_csv("STT,,Tên\n1,0901888484,Lan\n2,0912345678,Minh\n".encode())
    assert found.columns == ("STT", "Tên")
    assert found.people[0] == Recipient(2, "0901888484", ("1", "Lan"))


# -- what stands above the names ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("above", "line"),
    [
        ("", 0),
        ("\n", 2),
        (";;\n", 2),
        ("\n\n\n", 4),
        ("Danh sách khách hàng\n", 2),
        ("Danh sách khách hàng, tháng 11, năm 2026\n", 2),
        ("Danh sách;;\nNgày 25;;\n;;\n", 4),
        ("Điện thoại;;\n", 2),
        ("Liên hệ: ĐT 0912345678;;\n", 2),
        ("0912345678;;\n", 2),
        ('"Danh sách\nkhách hàng";;\n', 3),
    ],
)
def test_titles_and_empty_lines_above_the_names_are_stepped_over(above: str, line: int) -> None:
    found = read_csv(f"{above}Tên;Số điện thoại;Mã\nLan;0901888484;A1\n".encode())
    assert (found.columns, found.header_line) == (("Tên", "Mã"), line)
    assert found.people == (Recipient((line or 1) + 1, "0901888484", ("Lan", "A1")),)


def test_names_below_phones_are_a_line_like_any_other() -> None:
    found = read_csv("Tên,phone,kênh\nLan,0901888484,phone\nsđt,12,phone\n".encode())
    assert [person.line for person in found.people] == [2, 3]
    assert found.header_line == 0


def test_where_no_names_are_found_the_columns_are_told_and_not_the_title() -> None:
    with pytest.raises(UnreadableList, match=r"The columns are: Tên, Liên hệ\."):
        read_csv("Danh sách\nTên,Liên hệ\nLan,0901888484\n".encode())


def test_too_many_columns_in_a_line_are_compared_with_the_names() -> None:
    with pytest.raises(UnreadableList, match="Line 3 has more columns than line 2"):
        read_csv(b"List\nphone,name\n0901888484,Lan,x\n")


# -- more than one column of phones ------------------------------------------------------------------------------------

TWO = "Tên,Phone,Mobile\nLan,0901888484,0912345678\nMinh,0901888485,p:+84912345679\n"


def test_of_two_columns_with_phones_the_first_is_used_and_the_other_can_be() -> None:
    first = read_csv(TWO.encode())
    assert (first.columns, first.phone_columns) == (("Tên", "Mobile"), ("Phone", "Mobile"))
    assert [person.phone for person in first.people] == ["0901888484", "0901888485"]
    second = Recipients.from_json(first.as_json()).with_phones_of("Mobile")
    assert (second.columns, second.phone_columns) == (("Tên", "Phone"), ("Mobile", "Phone"))
    assert second.people[1] == Recipient(3, "+84912345679", ("Minh", "0901888485"))
    assert second.with_phones_of("Mobile") == second.with_phones_of("Tên") == second.with_phones_of("") == second
    assert Recipients.from_json(second.as_json()) == second


@pytest.mark.parametrize(
    ("table", "columns"),
    [
        ("phone,mobile\n,0901888484\n", ("mobile",)),
        ("phone,mobile\n028 3822 1234,0901888484\n", ("mobile",)),
        ("phone,mobile\n0901888484,\n", ("phone",)),
        ("phone,mobile\n,\nx,\n", ("phone",)),
        ("phone,Zalo\n0901888484,0912345678\n", ("phone", "Zalo")),
        ("phone,CMND\n0901888484,331234567\n", ()),
        ("phone,note\n0901888484,0912345678\n0901888485,gọi sau\n", ()),
        ("phone,Phone\n0901888484,0912345678\n", ("phone", "Phone (column 2)")),
        ("Tên,,Zalo\nLan,0901888484,x\nMinh,0901888485,0912345678\n", ()),
        ("Tên,,Zalo,\nLan,0901888484,0912345678\n", ("column 2", "Zalo")),
        ("SĐT 1,SĐT 2,SĐT 3\n0901888484,,0912345678\n", ("SĐT 1", "SĐT 3")),
    ],
)
def test_columns_hold_phones_by_their_names_or_by_what_stands_in_them(table: str, columns: tuple[str, ...]) -> None:
    found = read_csv(table.encode())
    assert found.phone_columns == columns
    for name in columns:
        assert found.with_phones_of(name).phone_columns[0] == name


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
        with pytest.raises(UnreadableList, match="200000 phones"):
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
        (b"phone\n" + b"0901888484\n" * (MOST_RECIPIENTS + 1), "10001 phones"),
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
    for found in (READ, read_csv(TWO.encode()), read_csv(b"List\nphone,name\n0901888484,Lan\n")):
        assert Recipients.from_json(found.as_json()) == found


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
        '[["a"],[[1,"0901888484","x"]],["phone","b"],0]',
        '[["a"],[[1,"0901888484","x"]],[1,"a"],0]',
        '[["a"],[[1,"0901888484","x"]],["phone","a"],"1"]',
        '[["a"],[[1,"0901888484","x"]],["phone","a"]]',
        '[["a"],[[1,"0901888484","x"]],0,0]',
        "[" * 9999,
        '[[],[[1,"\\ud800"]]]',
    ],
)
def test_a_list_that_was_tampered_with_is_refused(text: str) -> None:
    with pytest.raises(UnreadableList, match="damaged on its way"):
        Recipients.from_json(text)
