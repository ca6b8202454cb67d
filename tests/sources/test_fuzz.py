"""Random and mutated files: a record is read or refused, a table is read or an error, and nothing else happens."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ecgdist.errors import DataError, RecordRefused
from ecgdist.sources.matlab5 import MAGIC, read_matrix
from ecgdist.sources.tables import read_table
from ecgdist.sources.wfdb_header import (
    comment_fields,
    named_files,
    parse_age,
    parse_header,
    parse_labels,
    parse_sex,
)
from ecgdist.sources.wfdb_record import WfdbRecord, read_wfdb
from ecgdist.storage import Location
from tests.sources.test_hostile_wfdb import bomb, element, matlab_5, matrix

DATA = Path(__file__).parents[1] / "data"
HEADERS = [
    path.read_bytes()
    for path in (
        DATA / "wfdb/georgia/E07500.hea",
        DATA / "wfdb/quirks/E00015.hea",
        DATA / "wfdb/mitdb/100.hea",
        DATA / "wfdb/ptbdb/s0010_re.hea",
        DATA / "ptb-xl/records500/00000/00001_hr.hea",
    )
]
TABLE = (DATA / "ptb-xl/ptbxl_database.csv").read_bytes()
MATLAB = matlab_5(matrix((12, 3), np.arange(36, dtype="<i2").tobytes()), element(15, bomb(2**20)))

fuzzed = settings(
    max_examples=300,
    deadline=None,
    derandomize=True,  # the same examples in every run; raise max_examples to look for others
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

# What a mutation puts in: single bytes, and words that mean something in one of these files.
WORDS = st.sampled_from(
    [
        b"", b" ", b"\n", b"#", b"-1", b"0", b"1e9", b"nan", b"99999999999999999999", b"/", b"..", b":", b"+", b"x",
        b"(", b"212", b"16", b"516", b"8", b"310", b"\0", b"\xff", "µV".encode(), b'"', b",", b"\r", b"/mV", b"a.dat",
    ]
)  # fmt: skip
PIECES = st.one_of(WORDS, st.binary(min_size=1, max_size=4))


@st.composite
def mutated(draw: st.DrawFn, originals: list[bytes], most: int = 6) -> bytes:
    """One of the originals, a few of whose parts are exchanged, and perhaps cut short."""
    content = draw(st.sampled_from(originals))
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(content)))
        stop = min(len(content), start + draw(st.sampled_from([0, 1, 1, 2, 4, 8])))
        content = content[:start] + draw(PIECES) + content[stop:]
    return content[: draw(st.integers(0, len(content)))] if draw(st.integers(0, 4)) == 0 else content


def record_in(folder: Path) -> WfdbRecord | RecordRefused:
    try:
        return read_wfdb(Location.of(folder), "a")
    except RecordRefused as refused:
        return refused


@fuzzed
@given(st.one_of(st.binary(max_size=300), mutated(HEADERS), st.text(max_size=300).map(str.encode)))
def test_a_header_is_read_or_refused(raw: bytes) -> None:
    named_files(raw)
    try:
        header = parse_header(raw)
    except RecordRefused:
        return
    assert 0 < header.frame_rate_hz <= 100_000
    assert all(0 < signal.gain < np.inf for signal in header.signals)
    assert all(each.samples_per_frame > 0 and each.skew >= 0 for each in header.signals)
    assert header.text.isascii()
    fields = comment_fields(header.comments)
    assert parse_age(fields.get("age")) is None or parse_age(fields.get("age")) >= 0
    assert parse_sex(fields.get("sex")) in (None, "male", "female")
    assert all(label.startswith(("snomed:", "cpsc:")) for label in parse_labels(fields.get("dx")))


@fuzzed
@given(
    mutated(
        [
            b"a 2 500 10\na.dat 16+24 1000(3)/mV 16 0 0 0 0 I\na.dat 16+24 1000/mV 16 0 0 0 0 II\n",
            b"a 2 360 10\na.dat 212 200/mV 11 1024 0 0 0 MLII\na.dat 212 200/mV 11 1024 0 0 0 V5\n",
            b"a 1 500 10\na.dat 80:2 100/uV 8 0 0 0 0 V1\n",
            b"a 1 500\na.dat 24x2 100/uV 8 0 0 0 0 V1\n#Age: 50\n",
            b"a 1 500 10\na.dat 516 100/uV 8 0 0 0 0 V1\n",
            b"a 1 500 10\na.dat 310 100/uV 8 0 0 0 0 V1\n",
            b"a 1 500 10\na.dat 8 100/uV 8 0 5 0 0 V1\n",
        ],
        most=3,
    ),
    st.one_of(st.binary(max_size=100), st.just(bytes(100)), mutated([MATLAB])),
)
@example(b"a 1 500 10\na.dat 516 100/uV 8 0 0 0 0 V1\n", b"fLaC\x00\x00\x00\x22" + bytes(34))
def test_a_record_is_read_or_refused(header: bytes, signal: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "a.hea").write_bytes(header)
        (folder / "a.dat").write_bytes(signal)
        record = record_in(folder)
    if isinstance(record, WfdbRecord):
        assert record.signal_uv.shape[0] == len(record.leads) > 0
        assert record.signal_uv.shape[1] > 0
        assert record.rate_hz > 0


@pytest.mark.parametrize("name", ["wfdb/georgia/E07500.mat", "wfdb/mitdb/100.dat"])
@settings(fuzzed, max_examples=60)
@given(data=st.data())
def test_a_real_record_is_never_taken_for_another(name: str, data: st.DataObject) -> None:
    """A signal file that is cut short, or in which one byte of a sample differs, is refused: by length or sum."""
    content = (DATA / name).read_bytes()
    place = data.draw(st.integers(24, len(content) - 1))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        (folder / "a.hea").write_bytes((DATA / name).with_suffix(".hea").read_bytes())
        signal = folder / Path(name).name
        signal.write_bytes(content[:place])
        refused = record_in(folder)
        assert isinstance(refused, RecordRefused)
        assert refused.reason == "truncated_signal"
        other = data.draw(st.integers(0, 255).filter(lambda byte: byte != content[place]))
        signal.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
        refused = record_in(folder)
        assert isinstance(refused, RecordRefused)
        assert refused.reason == "checksum"


@fuzzed
@given(st.one_of(st.binary(max_size=300), mutated([TABLE]), st.text(max_size=300).map(str.encode)))
def test_a_table_is_read_or_an_error(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        table = Path(temporary) / "table.csv"
        table.write_bytes(content)
        try:
            rows = read_table(Location.of(table), ("ecg_id",))
        except DataError:
            return
    assert all(None not in row and "ecg_id" in row for row in rows)


@fuzzed
@given(st.one_of(st.binary(max_size=300).map(lambda content: MAGIC + content), mutated([MATLAB])))
def test_a_matlab_file_is_read_or_a_value_error(content: bytes) -> None:
    try:
        values = read_matrix(content, "val", max_bytes=2**16)
    except ValueError:
        return
    assert values.ndim == 2
