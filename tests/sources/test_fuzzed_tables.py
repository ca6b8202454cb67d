"""Any text in any cell of the tables of HDF5 and .npy data sets is a listing or a refusal, and never free text."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecgdist.sources import Listing, open_source
from tests.sources.made import code15_row, ikem_row, own_row, samitrop_row, sph_row, write_csv, write_hdf5

ROWS: dict[str, tuple[str, Callable[[], dict[str, Any]]]] = {
    "code15": ("exams.csv", lambda: code15_row(1, 0)),
    "ikem": ("exams.csv", lambda: ikem_row(1)),
    "samitrop": ("exams.csv", lambda: samitrop_row(1)),
    "sph": ("metadata.csv", lambda: sph_row("A1")),
    "npy": ("records.csv", lambda: own_row("a", "a.npy")),
    "hdf5": ("records.csv", lambda: own_row("a", "a.h5")),
}
LABEL = re.compile(r"[a-z0-9]{1,16}:[A-Za-z0-9_.+()/-]{1,40}")
SLUG = re.compile(r"[a-z]+(_[a-z]+)*")

# Anything that a csv cell can hold, and what breaks parsers of numbers, paths and codes in particular.
CELLS = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\0"), max_size=40),
    st.sampled_from(
        ["", "-1", "1e999", "nan", "inf", "9" * 40, "1.0", "٣", "True", "../a", "/etc/hostname", "a/../b", "1;2;x",
         "1+2", "scp:NORM own:a", "Jane Doe", "=1+1", "1_000", " 7 "]
    ),
)  # fmt: skip


def listed(kind: str, folder: Path, changes: dict[str, str]) -> list[Listing]:
    table, row = ROWS[kind]
    whole = row()
    write_csv(folder / table, [whole | {name: text for name, text in changes.items() if name in whole}])
    return open_source(kind, str(folder)).list_records()


@pytest.mark.parametrize("kind", ROWS)
def test_any_cell(kind: str, tmp_path: Path) -> None:
    write_hdf5(tmp_path / "exams.hdf5", tracings=np.ones((1, 4096, 12)))
    names = list(ROWS[kind][1]())

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.dictionaries(st.sampled_from(names), CELLS, min_size=1, max_size=4))
    def check(changes: dict[str, str]) -> None:
        for listing in listed(kind, tmp_path, changes):
            assert listing.record_id
            assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.: -]*", listing.record_id)
            assert all(LABEL.fullmatch(label) for label in listing.labels)
            assert listing.split is None or re.fullmatch(r"[a-z0-9_.-]+", listing.split)
            assert listing.age is None or 0 <= listing.age < float("inf")
            assert ".." not in listing.key.split("/")
            assert not listing.key.startswith("/")
            if listing.refusal:
                assert SLUG.fullmatch(listing.refusal[0])

    check()
