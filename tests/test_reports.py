import decimal
import json
import uuid
from collections.abc import Callable
from decimal import Decimal
from urllib.parse import parse_qsl

import pytest
from django.http import QueryDict
from hypothesis import given
from hypothesis import strategies as st

from esms_viber.reports.parsing import LEFT_OUT, DeliveryReport, MalformedReport, ReportVerdict, bounded, parse_report

VIBER_CALLBACK = (
    "SMSID=849fe08c19294b02857cf91687021a50250&SendFailed=0&SendStatus=5&SendSuccess=1&TotalPrice=470.0000"
    "&TotalReceiver=1&TotalSent=1&RequestId=&TypeId=23&telcoid=2&phonenumber=0901888484"
)


def test_reads_the_documented_callback() -> None:
    report = parse_report(QueryDict(VIBER_CALLBACK))
    assert report == DeliveryReport(
        sms_id="849fe08c19294b02857cf91687021a50250",
        request_id="",
        phone="+84901888484",
        send_status=5,
        succeeded=1,
        failed=0,
        total_price=Decimal("470.0000"),
        telco_id=2,
    )
    assert report.verdict is ReportVerdict.DELIVERED


def test_reads_a_status_answer() -> None:
    report = parse_report(
        {"CodeResponse": "100", "SMSID": "abc", "SendFailed": "0", "SendStatus": "5.0", "SendSuccess": "1"}
    )
    assert (report.send_status, report.succeeded, report.total_price) == (5, 1, None)


def test_nothing_reported() -> None:
    assert parse_report({}) == DeliveryReport()
    assert parse_report({"SendStatus": " ", "TotalPrice": "", "telcoid": "\t"}) == DeliveryReport()


@pytest.mark.parametrize(
    ("status", "succeeded", "failed", "verdict"),
    [
        (5, 1, 0, ReportVerdict.DELIVERED),
        (5, 2, 0, ReportVerdict.DELIVERED),
        (5, 0, 1, ReportVerdict.UNDELIVERED),
        (5, 1, 1, ReportVerdict.UNDELIVERED),
        (5, 0, 0, ReportVerdict.UNDECIDED),
        (4, 0, 0, ReportVerdict.UNDELIVERED),
        (4, 1, 0, ReportVerdict.UNDELIVERED),
        (1, 0, 0, ReportVerdict.TAKEN),
        (2, 0, 0, ReportVerdict.TAKEN),
        (7, 0, 0, ReportVerdict.TAKEN),
        (7, 1, 0, ReportVerdict.TAKEN),
        (0, 0, 0, ReportVerdict.UNDECIDED),
        (3, 0, 0, ReportVerdict.UNDECIDED),
        (6, 1, 0, ReportVerdict.UNDECIDED),
        (-1, 1, 0, ReportVerdict.UNDECIDED),
        (None, 1, 0, ReportVerdict.UNDECIDED),
    ],
)
def test_verdict(status: int | None, succeeded: int, failed: int, verdict: ReportVerdict) -> None:
    assert DeliveryReport(send_status=status, succeeded=succeeded, failed=failed).verdict is verdict


@pytest.mark.parametrize("name", ["TotalPrice", "Totalprice", "totalprice", "TOTALPRICE"])
def test_names_in_any_case(name: str) -> None:
    assert parse_report({name: "470.0000"}).total_price == 470


@pytest.mark.parametrize(
    "parameters",
    [
        {"SendStatus": "5", "sendstatus": "4"},
        {"sendstatus": "4", "SendStatus": "5"},
        {"SENDSTATUS": " ", "SendStatus": "5", "sendstatus": "4"},
    ],
)
def test_of_two_spellings_the_alphabetically_first_with_a_value_counts(parameters: dict[str, str]) -> None:
    assert parse_report(parameters).send_status == 5
    assert parse_report(bounded(parameters)).send_status == 5


NO_INTEGERS = [
    "five",
    "5.5",
    "1e3",
    "0x5",
    "+5",
    "1_000",
    "١٢",
    "５",
    "²",
    "5 5",
    "--5",
    "2147483648",
    "9" * 5000,
    "5\x00",
    "NaN",
]


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_a_status_that_is_not_an_integer_makes_no_report(value: str) -> None:
    with pytest.raises(MalformedReport, match=r"^SendStatus must be an integer") as caught:
        parse_report({"SendStatus": value})
    assert value not in str(caught.value), "what cannot be read may be anything, a phone too"


@pytest.mark.parametrize("name", ["SendSuccess", "sendfailed"])
@pytest.mark.parametrize("value", [*NO_INTEGERS, "-1"])
def test_counts_have_to_be_read_only_where_they_decide(name: str, value: str) -> None:
    with pytest.raises(MalformedReport, match="must be a number of receivers"):
        parse_report({"SendStatus": "5", "SendSuccess": "1", name: value})
    report = parse_report({"SendStatus": "4", name: value})
    assert report.verdict is ReportVerdict.UNDELIVERED
    assert [left.lower() for left in report.left_out] == [name.lower()]


@pytest.mark.parametrize("value", NO_INTEGERS)
def test_a_network_that_is_not_an_integer_is_left_out(value: str) -> None:
    report = parse_report({"SendStatus": "5", "SendSuccess": "1", "telcoid": value})
    assert (report.verdict, report.telco_id, report.left_out) == (ReportVerdict.DELIVERED, None, ("telcoid",))


@pytest.mark.parametrize(
    "value",
    [
        "NaN",
        "sNaN",
        "Infinity",
        "-1",
        "470,0000",
        "1,470.0000",
        "1.470",
        "470.000",
        "1.470.000",
        "1.470,0000",
        "1 470",
        "1_000",
        "470 VND",
        "470đ",
        "free",
        "٤٧٠",
        "10000000000",
        "9999999999.99995",
        "1e10",
        "1e99",
        "1e400",
        "9" * 99,
    ],
)
def test_a_price_that_is_none_or_could_be_two_is_left_out(value: str) -> None:
    report = parse_report({"SendStatus": "5", "SendSuccess": "1", "TotalPrice": value})
    assert (report.verdict, report.total_price, report.left_out) == (ReportVerdict.DELIVERED, None, ("TotalPrice",))


@pytest.mark.parametrize(
    ("value", "price"),
    [
        ("470.0000", "470.0000"),
        ("850", "850.0000"),
        ("1470.000", "1470.0000"),
        ("0.125", "0.1250"),
        ("0.00005", "0.0001"),
        ("0.00004999", "0.0000"),
        ("9999999999.9999", "9999999999.9999"),
        ("0E-8", "0.0000"),
        ("0e99", "0.0000"),
        ("8.5e+2", "850.0000"),
        ("1e-99", "0.0000"),
    ],
)
def test_prices_have_four_places(value: str, price: str) -> None:
    with decimal.localcontext() as context:
        context.prec = 3
        found = parse_report({"TotalPrice": value}).total_price
    assert str(found) == price


@pytest.mark.parametrize("name", ["SMSID", "RequestId", "phonenumber"])
@pytest.mark.parametrize("value", ["a" * 65, "0901888484\x00", "0901\x1b888484", "a\ud800", "?"])
def test_an_identifier_that_cannot_be_stored_is_left_out(name: str, value: str) -> None:
    report = parse_report({name: value})
    assert (report.sms_id, report.request_id, report.phone, report.left_out) == ("", "", "", (name,))


EMPTY = ["", " ", "null", "NULL", "(null)", '"null"', "None", "nil", "undefined", "-", "--", '""', "{}", "N/A", "n/a"]


@pytest.mark.parametrize("name", ["SMSID", "RequestId", "phonenumber", "TotalPrice", "telcoid", "SendSuccess"])
@pytest.mark.parametrize("value", EMPTY)
def test_what_says_that_there_is_no_value_is_absent(name: str, value: str) -> None:
    assert parse_report({"SendStatus": "5", "SendFailed": "1", name: value}) == DeliveryReport(send_status=5, failed=1)


@pytest.mark.parametrize("name", ["SMSID", "RequestId", "phonenumber"])
@pytest.mark.parametrize("value", ["0", "00000000-0000-0000-0000-000000000000", "0000000000"])
def test_an_identifier_of_zeros_is_absent(name: str, value: str) -> None:
    assert parse_report({name: value}) == DeliveryReport()


@pytest.mark.parametrize("status", EMPTY)
def test_a_status_that_says_that_there_is_none_decides_nothing(status: str) -> None:
    report = parse_report({"SendStatus": status, "SendSuccess": "1"})
    assert (report.send_status, report.verdict) == (None, ReportVerdict.UNDECIDED)


@pytest.mark.parametrize("phone", ["090188****", "xxxx8484", "XXXXXXX484", "0901•••484", "…484", "***"])
def test_a_masked_phone_is_absent(phone: str) -> None:
    report = parse_report({"phonenumber": phone})
    assert (report.phone, report.left_out) == ("", ())
    assert not report.names_another_phone("+84901888484")


@pytest.mark.parametrize("request_id", ["d8e0f1f0****", "d8e0...", "xxxxxxxx1250"])
def test_a_masked_request_id_is_absent(request_id: str) -> None:
    report = parse_report({"RequestId": request_id})
    assert (report.request_id, report.left_out) == ("", ())


@pytest.mark.parametrize("sms_id", ["849fe08c****", "849f…"])
def test_a_masked_sms_id_is_left_out_because_it_would_be_asked_about(sms_id: str) -> None:
    report = parse_report({"SMSID": sms_id})
    assert (report.sms_id, report.left_out) == ("", ("SMSID",))


@pytest.mark.parametrize(
    "spelling",
    ["{}", " {} ", "{{{}}}", '"{}"'],
)
@pytest.mark.parametrize("change", [str, str.upper, lambda text: str(uuid.UUID(text))])
def test_a_request_id_is_the_same_in_any_spelling(spelling: str, change: Callable[[str], str]) -> None:
    ours = "d8e0f1f0702544b2acb456ca9ccfd111"
    report = parse_report({"RequestId": spelling.format(change(ours))})
    assert not report.names_another_request(ours)
    assert report.names_another_request("e8e0f1f0702544b2acb456ca9ccfd111")


@pytest.mark.parametrize("phone", ["0901888485", "+84 901 888 485", "84912345678"])
def test_a_readable_phone_that_is_another_is_another(phone: str) -> None:
    assert parse_report({"phonenumber": phone}).names_another_phone("+84901888484")


def test_a_row_without_a_phone_is_not_compared() -> None:
    assert not parse_report({"phonenumber": "0901888485"}).names_another_phone("")


def test_each_field_that_is_left_out_has_a_sentence() -> None:
    report = parse_report(
        {"TotalPrice": "free", "telcoid": "Viettel", "SMSID": "x" * 65, "SendStatus": "7", "SendFailed": "many"}
    )
    assert set(report.notes) == {LEFT_OUT[name] for name in ("TotalPrice", "telcoid", "SMSID", "SendFailed")}


def test_bounded_keeps_an_ordinary_callback_as_it_is() -> None:
    assert bounded(QueryDict(VIBER_CALLBACK)) == dict(parse_qsl(VIBER_CALLBACK, keep_blank_values=True))


def test_bounded_keeps_the_reports_own_fields_before_others() -> None:
    crowd = {f"a{n}": "x" for n in range(1000)}
    kept = bounded(crowd | {"SendStatus": "5", "phonenumber": "0901888484"})
    assert len(kept) == 40
    assert (kept["SendStatus"], kept["phonenumber"]) == ("5", "0901888484")


def test_bounded_cuts_and_replaces() -> None:
    assert bounded({"k" * 100: "v" * 1000}) == {"k" * 64: "v" * 200}
    assert bounded({"a\x00": "b\n\x7f\x85\ud800ố"}) == {"a\ufffd": "b\ufffd\ufffd\ufffd\ufffdố"}


def test_names_that_become_equal_are_kept_once() -> None:
    assert bounded({"a\x00": "first", "a\x01": "second"}) == {"a\ufffd": "first"}


def any_text(*, max_size: int) -> st.SearchStrategy[str]:
    return st.text(st.characters(), max_size=max_size)


NAMES = st.sampled_from(
    ["SMSID", "RequestId", "phonenumber", "SendStatus", "SendSuccess", "SendFailed", "Totalprice", "telcoid"]
)
PARAMETERS = st.dictionaries(
    NAMES | any_text(max_size=80),
    any_text(max_size=300) | st.integers().map(str) | st.floats().map(str) | st.decimals().map(str),
    max_size=60,
)


@given(PARAMETERS)
def test_parsing_gives_a_report_that_fits_the_columns_or_names_the_parameter(
    parameters: dict[str, str],
) -> None:
    try:
        report = parse_report(parameters)
    except MalformedReport as error:
        named, report = str(error).split()[0], DeliveryReport()
    else:
        named = ""
    assert not named or named.lower() in {name.lower() for name in parameters}
    assert report.verdict in ReportVerdict
    assert report.succeeded >= 0
    assert report.failed >= 0
    assert report.send_status is None or abs(report.send_status) < 2**31
    assert report.telco_id is None or abs(report.telco_id) < 2**31
    assert report.total_price is None or 0 <= report.total_price < 10**10
    assert len(report.sms_id) <= 64
    assert "\0" not in report.sms_id


@given(PARAMETERS)
def test_bounded_is_small_storable_and_independent_of_order(parameters: dict[str, str]) -> None:
    kept = bounded(parameters)
    assert len(kept) <= 40
    assert all(len(key) <= 64 and len(value) <= 200 for key, value in kept.items())
    assert "\0" not in "".join([*kept, *kept.values()])
    json.dumps(kept, ensure_ascii=False).encode()
    assert list(bounded(dict(reversed(parameters.items()))).items()) == list(kept.items())
    assert bounded(kept) == kept
