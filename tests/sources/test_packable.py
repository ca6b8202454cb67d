"""What the HDF5, XML and .npy sources read can be packed: rates, lengths, leads, labels and flags pass."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ecgdist.packing.privacy import refuse_free_text
from ecgdist.preprocessing import PackStep
from ecgdist.sources import open_source
from tests.sources.contract import read_all
from tests.sources.made import (
    code15_row,
    ikem_row,
    made_code15,
    made_ikem,
    made_samitrop,
    made_sph,
    made_ukbiobank,
    samitrop_row,
    sph_row,
)
from tests.sources.test_own_files import made_own

FOLDERS: dict[str, Callable[[Path], Path]] = {
    "code15": lambda path: made_code15(
        path, [code15_row(1, 0, AF=True, normal_ecg=True), code15_row(2, 0, **{"1dAVb": True})], {0: [1, 2]}
    ),
    "ikem": lambda path: made_ikem(path, [ikem_row(1), ikem_row(2)], {1: [1, 2]}, {2: 2500}),
    "samitrop": lambda path: made_samitrop(path, [samitrop_row(1, normal_ecg=True), samitrop_row(2)]),
    "sph": lambda path: made_sph(path, [sph_row("A1", AHA_Code="60+310;147"), sph_row("A2", N=28_000)]),
    "ukbiobank": lambda path: made_ukbiobank(path, ["1000037_20205_2_0.xml", "1000038_20205_2_0.xml"]),
    "npy": lambda path: made_own("npy", path),
    "hdf5": lambda path: made_own("hdf5", path),
}
SECONDS = {
    "code15": [10, 7], "ikem": [8.192, 5], "samitrop": [10, 7], "sph": [10, 56], "ukbiobank": [10, 10],
    "npy": [6, 10, 10, 10], "hdf5": [6, 10, 10, 10],
}  # fmt: skip


@pytest.mark.parametrize("kind", FOLDERS)
def test_every_record_becomes_segments(tmp_path: Path, kind: str) -> None:
    recordings, _ = read_all(open_source(kind, str(FOLDERS[kind](tmp_path))))
    packed_s = []
    for recording in recordings:
        refuse_free_text(recording)
        segments = PackStep(rate_hz=250).segments(recording)
        assert all(set(recording.flags) <= set(segment.quality) for segment in segments)
        packed_s.append(sum(segment.valid_samples for segment in segments) / 250)
    assert packed_s == pytest.approx(SECONDS[kind], abs=0.005)
