"""The index is read by columns, checked every time, and the same as when it is read whole."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import INDEX, fingerprint_array
from ecgdist.errors import DataError
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES
from tests.corpus.corpora import made_ecg, row, write_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    return write_corpus(
        tmp_path_factory.mktemp("c") / "c", [row(made_ecg(n), f"r{n}", split="fold1") for n in range(150)]
    )


def test_chosen_columns_are_those_of_the_whole(corpus: Corpus) -> None:
    whole = Corpus(corpus.location).index
    assert whole.schema.equals(INDEX)
    assert corpus.columns("split", "record_id").equals(whole.select(["split", "record_id"]))
    assert corpus.columns("record_id", "age").equals(whole.select(["record_id", "age"]))
    assert corpus.index.equals(whole)


def test_fingerprints_are_those_of_the_rows(corpus: Corpus) -> None:
    assert corpus.fingerprints.shape == (150, FINGERPRINT_BYTES)
    expected = corpus.index["fingerprint"].to_pylist()
    assert [bytes(print_) for print_ in corpus.fingerprints] == expected
    halves = corpus.index.slice(50, 60)["fingerprint"]
    np.testing.assert_array_equal(fingerprint_array(halves), corpus.fingerprints[50:110])


def test_a_change_between_two_reads_is_noticed(corpus: Corpus, tmp_path: Path) -> None:
    copied = shutil.copytree(corpus.location.uri, tmp_path / "copy")
    corpus = Corpus(copied)
    corpus.columns("split")
    path = copied / "index.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert corpus.columns("split").num_rows == 150  # in memory already
    with pytest.raises(DataError, match=r"index\.parquet differs from its manifest"):
        corpus.columns("record_id")
