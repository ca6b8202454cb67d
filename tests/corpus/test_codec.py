"""The stored form of signals gives back every bit, whatever the signal is, and is worth its trouble on real ECGs."""

from __future__ import annotations

import io
import itertools
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from ecgdist.corpus.codec import decode, encode
from ecgdist.corpus.schema import signal_array, signal_column, stored_array
from ecgdist.preprocessing import PackStep
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source

LEAST, MOST = -32768, 32767
LIMB_LEADS = slice(2, 6)


@pytest.fixture(scope="module")
def ecgs() -> npt.NDArray[np.int16]:
    """20 real ECGs, ``(20, 12, 2500)``."""
    source = open_source("ptbxl", str(sample_folder()))
    listings = list(source.list_records())[:20]
    recordings = (source.read_record(listing) for listing in listings)
    return np.stack([PackStep().segments(recording)[0].signal_uv for recording in recordings])


def by_the_book(signal_uv: npt.NDArray[np.int16]) -> bytes:
    """The stored form of one signal as the module describes it, in Python's own integers."""
    i, ii, iii, avr, avl, avf, *chest = signal_uv.tolist()

    def int16(value: int) -> int:
        return (value + 32768) % 65536 - 32768

    def delta(lead: list[int]) -> list[int]:
        return [lead[0], *(after - before for before, after in itertools.pairwise(lead))]

    residuals = [
        delta(i),
        delta(ii),
        [c - int16(b - a) for a, b, c in zip(i, ii, iii, strict=True)],
        [r + (int16(a + b) >> 1) for a, b, r in zip(i, ii, avr, strict=True)],
        [r - (int16(a - c) >> 1) for a, c, r in zip(i, iii, avl, strict=True)],
        [r - (int16(b + c) >> 1) for b, c, r in zip(ii, iii, avf, strict=True)],
        *(delta(lead) for lead in chest),
    ]
    moved = [(value + 128) % 65536 for lead in residuals for value in lead]
    return bytes(value >> 8 for value in moved) + bytes(value & 255 for value in moved)


def test_the_stored_form_is_the_described_one(ecgs: npt.NDArray[np.int16]) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(LEAST, MOST, (3, 12, 50), dtype=np.int16, endpoint=True)
    for signals in (noise, ecgs[:3]):
        assert [row.tobytes() for row in encode(signals)] == [by_the_book(signal) for signal in signals]


@given(
    st.tuples(st.integers(0, 9), st.just(12), st.integers(1, 12)).flatmap(
        lambda shape: arrays(
            np.int16, shape, elements=st.sampled_from([LEAST, -1, 0, 1, MOST]) | st.integers(LEAST, MOST)
        )
    )
)
def test_any_signal_comes_back_bit_by_bit(signals: npt.NDArray[np.int16]) -> None:
    stored = encode(signals)
    assert stored.shape == (len(signals), 24 * signals.shape[2])
    np.testing.assert_array_equal(decode(stored, signals.shape[2]), signals)


@given(st.integers(1, 5).flatmap(lambda samples: arrays(np.uint8, (3, 24 * samples))))
def test_any_bytes_are_some_signal(stored: npt.NDArray[np.uint8]) -> None:
    """So nothing that a damaged or hostile shard holds can make decoding fail, overrun or allocate."""
    samples = stored.shape[1] // 24
    signals = decode(stored, samples)
    assert signals.shape == (3, 12, samples)
    np.testing.assert_array_equal(encode(signals), stored)


def test_real_ecgs_with_missing_flat_and_clipped_leads(ecgs: npt.NDArray[np.int16]) -> None:
    changed = ecgs.copy()
    changed[0] = 0
    changed[1, LIMB_LEADS] = 0
    changed[2, 6:, 1000:] = 0
    changed[3, 1] = MOST
    changed[4, :, ::2], changed[4, :, 1::2] = LEAST, MOST
    for signals in (ecgs, changed):
        before = signals.copy()
        back = decode(encode(signals), signals.shape[2])
        np.testing.assert_array_equal(back, before)
        np.testing.assert_array_equal(signals, before)
        assert back.dtype == np.dtype("<i2")


def test_chosen_rows_come_in_the_order_asked_for(ecgs: npt.NDArray[np.int16]) -> None:
    stored = encode(ecgs)
    for rows in ([19, 0, 7, 7, *range(12)], [3], []):
        chosen = np.array(rows, dtype=np.int64)
        np.testing.assert_array_equal(decode(stored, 2500, chosen), ecgs[chosen])


def test_rows_are_stored_one_by_one(ecgs: npt.NDArray[np.int16]) -> None:
    """A row's bytes depend on nothing but the row, so any grouping of the same rows decodes alike."""
    alone = [encode(signal[np.newaxis])[0] for signal in ecgs]
    np.testing.assert_array_equal(np.stack(alone), encode(ecgs))


def test_real_ecgs_take_less_than_half_of_the_space(ecgs: npt.NDArray[np.int16]) -> None:
    def parquet_bytes(column: pa.Array) -> int:
        buffer = io.BytesIO()
        pq.write_table(pa.table({"signal": column}), buffer, compression="zstd", compression_level=1)
        return len(buffer.getvalue())

    plain = signal_column(ecgs.astype("<i2"))
    stored = encode(ecgs)
    assert parquet_bytes(signal_column(stored.view("<i2").reshape(ecgs.shape))) < 0.5 * parquet_bytes(plain)


def test_a_column_and_its_array_are_inverse(ecgs: npt.NDArray[np.int16]) -> None:
    column = signal_column(ecgs)
    assert column.type == pa.binary(60_000)
    np.testing.assert_array_equal(signal_array(column, 2500), ecgs)
    assert signal_column(ecgs[:0]).to_pylist() == []


def test_a_row_without_signal_is_refused(tmp_path: Path) -> None:
    column = pa.array([b"\0" * 48, None], pa.binary(48))
    with pytest.raises(ValueError, match="1 rows have no signal"):
        stored_array(column, 2)


_IN_A_FORK = """
import os, signal, sys
import numpy as np, torch
from ecgdist.corpus.codec import decode, encode
signals = np.arange(8 * 12 * 2500, dtype=np.int16).reshape(8, 12, 2500)
stored = encode(signals)
torch.set_num_threads(2)
torch.ones(1_000_000).mul_(2)  # torch's threads are there now, and will not be in the child
child = os.fork()
if child == 0:
    signal.alarm(20)
    os._exit(0 if np.array_equal(decode(stored, 2500), signals) else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_process_decodes_though_it_has_none_of_torchs_threads() -> None:
    assert subprocess.run([sys.executable, "-c", _IN_A_FORK], timeout=120, check=False).returncode == 0
