"""A pool that is read holds exactly the rows that the order names, with the corpus's signals."""

from __future__ import annotations

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from ecgdist.corpus import Corpus
from ecgdist.corpus.schema import signal_array
from ecgdist.errors import DataError
from ecgdist.storage import Location
from ecgdist.streaming.pool import patient_number
from tests.streaming.streams import Stream, row_ids

pytestmark = pytest.mark.ray


@pytest.fixture(params=[(), ("fold1", "fold5")], ids=["all rows", "without two folds"])
def stream(request: pytest.FixtureRequest, sample_corpus: Corpus) -> Stream:
    return Stream.of(sample_corpus, exclude_splits=request.param)


@pytest.fixture(scope="session")
def all_signals(sample_corpus: Corpus) -> np.ndarray:
    ((_, signals),) = sample_corpus.iter_signals(np.arange(353), batch_rows=353)
    return signals


def test_rows_and_signals_are_those_of_the_order(stream: Stream, all_signals: np.ndarray) -> None:
    index = stream.corpus.index
    for item in stream.order.items(range(4), 0, 2 * stream.order.steps_per_epoch):
        rows = stream.index_rows(*stream.order.pool(item.epoch, item.lane, item.pool))
        table = stream.reader.read_alone(item)
        assert table["row_id"].to_pylist() == row_ids(stream.corpus, rows)
        np.testing.assert_array_equal(signal_array(table["signal"], 1000), all_signals[rows])
        facts = index.take(rows)
        for name in ("lead_mask", "valid_samples"):
            assert table[name].to_pylist() == facts[name].to_pylist()
        patients = [patient_number(key) for key in facts["patient_key"].to_pylist()]
        assert table["patient"].to_pylist() == patients
        assert set(table["lane"].to_pylist()) == {item.lane}
        assert set(table["step"].to_pylist()) == {item.step}


def test_a_pool_in_mid_epoch_begins_where_it_was_left(stream: Stream) -> None:
    first = next(stream.order.items([2], 0, 100))
    late = next(item for item in stream.order.items([2], 1, 100) if item.skip)
    whole = stream.reader.read_alone(replace(late, skip=0))
    rest = stream.reader.read_alone(late)
    assert (late.pool, late.lane) == (first.pool, first.lane)
    assert rest.num_rows == whole.num_rows - late.skip
    assert rest["row_id"].to_pylist() == whole["row_id"].to_pylist()[late.skip :]
    np.testing.assert_array_equal(
        signal_array(rest["signal"], 1000), signal_array(whole["signal"], 1000)[late.skip :]
    )


@pytest.mark.parametrize(("threads", "kept_rows"), [(1, 0), (1, 10), (3, 60), (4, 10_000)])
def test_pools_read_together_are_those_read_alone(stream: Stream, threads: int, kept_rows: int) -> None:
    """From mid-epoch over an epoch's end, bit by bit, whatever is kept and however many threads read."""
    items = list(stream.order.items(range(4), 9, 2 * stream.order.steps_per_epoch))
    assert items[0].skip
    together = list(stream.reader.read(items, threads, kept_rows))
    assert len(together) == len(items)
    for table, item in zip(together, items, strict=True):
        assert table.equals(stream.reader.read_alone(item))


def test_pools_that_nobody_takes_are_not_read_to_the_end(stream: Stream) -> None:
    items = list(stream.order.items(range(4), 0, 100 * stream.order.steps_per_epoch))
    tables = stream.reader.read(items, threads=2, kept_rows=0)
    next(tables)
    tables.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("row-groups")]


def test_signals_travel_as_int16_bytes(stream: Stream) -> None:
    """Half of what float32 takes, in one fixed-size column; a list column would double it again."""
    table = stream.reader.read_alone(next(stream.order.items([0], 0, 1)))
    assert table.schema.field("signal").type == pa.binary(12 * 1000 * 2)
    assert table["signal"].nbytes == table.num_rows * 24_000
    assert table.nbytes < table.num_rows * 24_200


def test_two_ecgs_of_a_patient_have_one_number() -> None:
    key = "f" * 16 + "0" * 16
    assert patient_number(key) == 2**63 - 1
    assert patient_number("0" * 16 + "f" * 16) == 0
    assert np.array([patient_number(key)], np.int64)[0] == patient_number(key)


def test_a_corpus_replaced_during_the_run_is_refused(stream: Stream, tmp_path: Path) -> None:
    shutil.copytree(stream.corpus.location.uri, tmp_path / "corpus")
    reader = replace(stream.reader, location=Location.of(tmp_path / "corpus"), corpus_id="another")
    with pytest.raises(DataError, match=r"was replaced by another corpus during the run \(another -> "):
        reader.read_alone(next(stream.order.items([0], 0, 1)))
