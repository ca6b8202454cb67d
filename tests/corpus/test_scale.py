"""Index operations at the size of the public data: their answers, and that they fit into 3 GiB."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.benchmarks.index import OPERATIONS, make_corpora, measure, measure_apart

LARGEST_GIB = 3.0


def expected(rows: int) -> str:
    return f"{rows:,} pretraining and {rows // 10:,} evaluation rows share 1,000 patients and 100 waveforms"


def test_the_operations_give_the_planted_answers(tmp_path: Path) -> None:
    make_corpora(tmp_path, 30_000)
    said = {name: measure(name, tmp_path)[0] for name in OPERATIONS}
    assert said["leak check"] == expected(30_000)
    assert said["counts"].endswith("71 labels")
    assert said["rows for pretraining, checked"].endswith("evaluation rows share 0 patients and 0 waveforms")
    assert all(said.values())


@pytest.mark.slow
def test_1_3_million_rows_fit_into_3_gib(tmp_path: Path) -> None:
    make_corpora(tmp_path, 1_300_000)
    found = {name: measure_apart(name, tmp_path) for name in OPERATIONS}
    assert found["leak check"][0] == expected(1_300_000)
    assert {name: gib for name, (_, _, gib) in found.items() if gib > LARGEST_GIB} == {}
