"""Header text: mended where other WFDB readers accept it, refused with a reason where nobody can."""

import pytest

from ecgdist.errors import RecordRefused
from ecgdist.sources.wfdb_header import (
    comment_fields,
    named_files,
    parse_age,
    parse_header,
    parse_labels,
    parse_sex,
)

LEAD = "a.dat 16 1000/mV 16 0 0 0 0 I"


@pytest.mark.parametrize(
    "record_line",
    [
        "a 1 500 5000",
        "a.mat 1 500 5000",
        "a 1 500 5000 05-May-2020 14:50:55",
        "a 1 500 5000 14:50:55 05/05/2020",
        "a 1 500/500(0) 5000",
        "1.2.840.113619 1 500 5000",
    ],
)
def test_name_time_and_date_never_reach_wfdb(record_line: str) -> None:
    header = parse_header(f"{record_line}\n{LEAD}\n".encode())
    assert header.text.splitlines()[0] == "record 1 500 5000"
    assert header.num_samples == 5000


@pytest.mark.parametrize("record_line", ["a 1 500", "a 1 500 0", "a 1 500 10:30:00"])
def test_the_number_of_samples_may_be_left_to_the_file(record_line: str) -> None:
    assert parse_header(f"{record_line}\n{LEAD}\n".encode()).num_samples is None


def test_signal_lines_keep_all_but_the_file_name() -> None:
    header = parse_header(b"a 2 500 10\na.1.dat 16x2:3+24 1000(5)/mV 16 0 1 2 0 I\na.1.dat 16 1000/mV 16 0\n")
    assert header.aliases == {"a.1.dat": "signal0"}
    assert header.text.splitlines()[1:] == [
        "signal0 16x2:3+24 1000(5)/mV 16 0 1 2 0 I",
        "signal0 16x1:0+0 1000/mV 16 0",
    ]
    first = header.signals[0]
    assert (first.samples_per_frame, first.skew, first.byte_offset) == (2, 3, 24)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "latin-1"])
def test_micro_stays_micro_in_every_encoding(encoding: str) -> None:
    header = parse_header("a 1 500 10\na.dat 16 1/µV 16 0 0 0 0 I\n#Name: Müller\n".encode(encoding))
    assert "1/uV" in header.text
    assert header.text.isascii()


def test_comments_may_come_first() -> None:
    assert parse_header(f"# a word before\n\na 1 500 10\n\n{LEAD}\n".encode()).num_samples == 10


@pytest.mark.parametrize(
    ("text", "reason", "detail"),
    [
        ("", "unreadable_header", "is empty"),
        ("# only a comment", "unreadable_header", "is empty"),
        ("\1\2\3", "unreadable_header", "record line"),
        (f"a 1 500 10\0\n{LEAD}", "unreadable_header", "NUL bytes"),
        (f"a 1 1e9 10\n{LEAD}", "unreadable_header", "record line"),
        (f"a 1 500 -10\n{LEAD}", "unreadable_header", "record line"),
        (f"a 1 0 10\n{LEAD}", "unreadable_header", "sampling rate is 0 Hz"),
        (f"a 1 1000000000 10\n{LEAD}", "bad_rate", "check its unit"),
        (f"a one 500 10\n{LEAD}", "unreadable_header", "'a one 500 10' is not `name leads rate samples`"),
        (f"a 2 500 10\n{LEAD}", "unreadable_header", "announces 2 leads and describes 1"),
        ("a 0 500 10", "unreadable_header", "announces 0 leads"),
        ("a 1 500 10\na.dat sixteen", "unreadable_header", "signal line 'a.dat sixteen'"),
        ("a/2 1 500 10\na_1 5\na_2 5", "multi_segment", "a joins records"),
    ],
)
def test_what_is_no_header_is_refused(text: str, reason: str, detail: str) -> None:
    with pytest.raises(RecordRefused, match=detail) as refused:
        parse_header(text.encode())
    assert refused.value.reason == reason


def test_named_files_come_from_any_text() -> None:
    assert {"a.dat", "a.xyz"} <= named_files(b"a 2 500 10\n#no.dat\na.dat 16\n a.xyz 16\nbroken\n")


@pytest.mark.parametrize(
    ("text", "years"), [("56", 56.0), ("NaN", None), ("-1", None), ("old", None), (None, None)]
)
def test_age(text: str | None, years: float | None) -> None:
    assert parse_age(text) == years


@pytest.mark.parametrize(
    ("text", "sex"),
    [("Female", "female"), ("M", "male"), (" male ", "male"), ("Unknown", None), (None, None)],
)
def test_sex(text: str | None, sex: str | None) -> None:
    assert parse_sex(text) == sex


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("251146004,284470004,284470004", ("snomed:251146004", "snomed:284470004")),
        ("AF, I-AVB", ("cpsc:AF", "cpsc:I-AVB")),
        ("", ()),
        (None, ()),
        ("Mr Smith, 426783006", ("snomed:426783006",)),
    ],
)
def test_labels_are_codes_and_never_free_text(text: str | None, labels: tuple[str, ...]) -> None:
    assert parse_labels(text) == labels


def test_comment_fields_ignore_case_and_keep_the_first() -> None:
    assert comment_fields(["Age: 56", "age: 57", "Dx: 1:2", "69 M"]) == {"age": "56", "dx": "1:2"}


def calibration(text: str) -> tuple[float, int, str, int | None, str]:
    """Gain, baseline, unit, checksum and name of a lead described by `text`."""
    (signal,) = parse_header(f"a 1 500 10\na.dat 16 {text}\n".encode()).signals
    return signal.gain, signal.baseline, signal.unit, signal.checksum, signal.name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000(7)/uV 16 5 -119 1508 0 a VR ", (1000, 7, "uV", 1508, "a VR")),
        ("1000.5/mV 16 5 -119 -1508 0 I", (1000.5, 5, "mV", -1508, "I")),
        ("1e3(-7) 12", (1000, -7, "mV", None, "")),
        ("0/mV 16 0 0 0 0 3rd", (200, 0, "mV", 0, "3rd")),
        ("", (200, 0, "mV", None, "")),
        ("200/mV V1", (200, 0, "mV", None, "V1")),
    ],
)
def test_what_a_signal_line_leaves_out_has_the_value_of_the_manual(
    text: str, expected: tuple[float, int, str, int | None, str]
) -> None:
    assert calibration(text) == expected


@pytest.mark.parametrize("gain", ["-200", "nan", "inf", "1e999", "gain"])
def test_a_gain_is_a_positive_number(gain: str) -> None:
    with pytest.raises(RecordRefused, match="bad_gain"):
        calibration(f"{gain}/mV 16 0")


def test_a_header_without_a_rate_has_250_hz() -> None:
    assert parse_header(f"a 1\n{LEAD}\n".encode()).frame_rate_hz == 250


@pytest.mark.parametrize("comment", [b"# M\x85 note", "# a \u2028 b".encode(), b"# x\x1cy"])
def test_a_comment_ends_at_the_end_of_its_line_only(comment: bytes) -> None:
    raw = b"r 1 500 10\nr.dat 16 1000/mV 16 0 0 0 0 II\n" + comment + b"\n#Age: 56\n"
    header = parse_header(raw)
    assert len(header.signals) == 1
    assert named_files(raw) == {"r", "r.dat"}


def test_a_number_beyond_any_life_is_no_age() -> None:
    assert [parse_age(text) for text in ("1e300", "301", "-1", "inf", "NaN")] == [None] * 5
    assert parse_age("300") == 300.0  # what some data sets write for an age above 89
