"""Opening and reading a corpus; whatever was damaged or changed after packing is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import ecgdist.corpus.corpus as module
from ecgdist.corpus import Corpus
from ecgdist.corpus.footer import shard_facts
from ecgdist.corpus.schema import plain_bytes, shard_schema, shard_writer, signal_array
from ecgdist.errors import DataError, StorageError
from ecgdist.preprocessing import PackStep
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.conftest import S3Server

pytestmark = pytest.mark.ray


@pytest.fixture
def copy(sample_corpus: Corpus, tmp_path: Path) -> Path:
    """A copy of the corpus, to be damaged."""
    shutil.copytree(sample_corpus.location.uri, tmp_path / "copy")
    return tmp_path / "copy"


def flip_a_byte(path: Path, position: int) -> None:
    content = bytearray(path.read_bytes())
    content[position] ^= 0x10
    path.write_bytes(content)


def test_facts_of_a_corpus(sample_corpus: Corpus) -> None:
    assert sample_corpus.num_samples == 1000
    assert sample_corpus.group_rows.tolist() == [24] * 14 + [17]
    assert sample_corpus.index.num_rows == sample_corpus.manifest.rows == 353
    assert sample_corpus.refused.num_rows == 0
    assert len(sample_corpus.corpus_id) == 32
    np.testing.assert_array_equal(np.bincount(sample_corpus.groups_of_rows), sample_corpus.group_rows)


def test_the_index_leads_to_the_row(sample_corpus: Corpus) -> None:
    for row in (0, 25, 352):
        fact = sample_corpus.index.slice(row, 1).to_pylist()[0]
        group = sample_corpus.read_group(int(sample_corpus.groups_of_rows[row]), ["record_id", "patient_key"])
        assert group["record_id"][fact["row"]].as_py() == fact["record_id"]
        assert group["patient_key"][fact["row"]].as_py() == fact["patient_key"]


def test_signals_are_those_that_were_packed(sample_corpus: Corpus) -> None:
    source = open_source("ptbxl", str(sample_folder()))
    listings = {listing.record_id: listing for listing in source.list_records()}
    rows = np.array([352, 3, 24, 100, 23])
    read = list(sample_corpus.iter_signals(rows, batch_rows=2))
    assert [found.tolist() for found, _ in read] == [[3, 23], [24, 100], [352]]
    for found, signals in read:
        for row, signal in zip(found, signals, strict=True):
            record_id = sample_corpus.index["record_id"][int(row)].as_py()
            (segment,) = PackStep(rate_hz=100.0).segments(source.read_record(listings[record_id]))
            np.testing.assert_array_equal(signal, segment.signal_uv)
            assert signal.dtype == np.int16


@pytest.mark.parametrize("batch_rows", [1, 7, 24, 1000])
def test_signals_come_in_full_batches_and_none_is_lost(sample_corpus: Corpus, batch_rows: int) -> None:
    rows = np.arange(0, 353, 3)
    read = list(sample_corpus.iter_signals(rows, batch_rows))
    assert np.concatenate([found for found, _ in read]).tolist() == rows.tolist()
    assert all(len(found) == len(signals) == batch_rows for found, signals in read[:-1])
    assert list(sample_corpus.iter_signals(np.array([], dtype=int), batch_rows)) == []


def test_more_shards_than_open_files(sample_corpus: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MAX_OPEN_SHARDS", 2)
    corpus = Corpus(sample_corpus.location)
    for group in (0, 5, 0, 9, 14, 5):
        assert corpus.read_group(group, ["record_id"]).equals(sample_corpus.read_group(group, ["record_id"]))


@pytest.mark.s3
def test_a_bucket_reads_the_same(sample_corpus: Corpus, s3: S3Server, tmp_path: Path) -> None:
    remote = Location.of(f"s3://ecg/{tmp_path.name}/corpus")
    for name in sample_corpus.location.list_files():
        (remote / name).upload((sample_corpus.location / name).uri)
    corpus = Corpus(remote)
    corpus.verify()
    assert corpus.corpus_id == sample_corpus.corpus_id
    assert corpus.index.equals(sample_corpus.index)
    rows = np.array([1, 30, 300])
    ((_, signals),) = corpus.iter_signals(rows, batch_rows=3)
    ((_, expected),) = sample_corpus.iter_signals(rows, batch_rows=3)
    np.testing.assert_array_equal(signals, expected)
    (remote / "shards/00001.parquet").delete()
    with pytest.raises(DataError, match=r"the corpus is not whole: .*00001\.parquet does not exist"):
        corpus.verify()
    with pytest.raises(StorageError, match=r"00001\.parquet"):
        Corpus(remote).read_group(1, ["signal"])


def test_a_folder_without_manifest_is_no_corpus(copy: Path, tmp_path: Path) -> None:
    (copy / "manifest.json").unlink()
    for folder in (copy, tmp_path / "nothing"):
        with pytest.raises(
            DataError, match=r"is not a corpus: it has no manifest\.json; make one with `ecgdist pack"
        ):
            Corpus(folder)


def test_an_unchanged_corpus_is_verified(copy: Path) -> None:
    Corpus(copy).verify()


@pytest.mark.parametrize(
    "name", ["index.parquet", "refused.parquet", "shards/00000.parquet", "shards/00014.parquet"]
)
def test_one_flipped_bit_is_found(copy: Path, name: str) -> None:
    flip_a_byte(copy / name, (copy / name).stat().st_size // 2)
    with pytest.raises(
        DataError, match=rf"{name} differs from its manifest's sha256: it was damaged or changed"
    ):
        Corpus(copy).verify()


def test_one_flipped_bit_of_a_signal_is_found_in_training(copy: Path) -> None:
    """Nobody verifies a terabyte before a run; every page that is read is checked."""
    size = (copy / "shards/00003.parquet").stat().st_size
    whole = (copy / "shards/00003.parquet").read_bytes()
    for position in range(4, size // 2, size // 40):
        flip_a_byte(copy / "shards/00003.parquet", position)
        with pytest.raises(
            DataError, match=r"00003\.parquet is damaged \(row group 0: .*; pack the corpus again"
        ):
            Corpus(copy).read_group(3, ["signal"])
        (copy / "shards/00003.parquet").write_bytes(whole)
    assert Corpus(copy).read_group(3, ["signal"]).num_rows == 24


@pytest.mark.parametrize("content", [b"", b"not parquet at all", None])
def test_a_cut_or_replaced_shard_is_damaged(copy: Path, content: bytes | None) -> None:
    shard = copy / "shards/00000.parquet"
    shard.write_bytes(shard.read_bytes()[:-100] if content is None else content)
    with pytest.raises(DataError, match=r"00000\.parquet is damaged"):
        Corpus(copy).read_group(0, ["signal"])


def test_no_flipped_bit_of_a_footer_goes_unnoticed(copy: Path) -> None:
    """pyarrow would end this process at some of them, and read something else at others."""
    shard = copy / "shards/00003.parquet"
    whole = shard.read_bytes()
    begin = len(whole) - Corpus(copy).manifest.shards[3].footer_bytes
    for position in range(begin, len(whole)):
        flip_a_byte(shard, position)
        with pytest.raises(
            DataError,
            match=r"00003\.parquet is damaged \(row group 0: its footer differs from its manifest's",
        ):
            Corpus(copy).read_group(3, ["signal"])
        shard.write_bytes(whole)


def test_a_whole_shard_of_the_same_size_is_no_replacement(copy: Path) -> None:
    """Two rows have changed places: every checksum of Parquet's is right."""
    shard = copy / "shards/00003.parquet"
    rows = pq.ParquetFile(shard, page_checksum_verification=True).read()
    size = shard.stat().st_size
    with shard_writer(shard, 1000) as writer:
        writer.write_table(rows.take([1, 0, *range(2, 24)]).cast(shard_schema(1000)))
    with shard.open("ab") as file:
        file.truncate(size)
    with pytest.raises(DataError, match=r"00003\.parquet is damaged \(row group 0: its footer differs"):
        Corpus(copy).read_group(3, ["signal"])


def test_a_shard_of_another_corpus_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / "shards/00014.parquet", copy / "shards/00000.parquet")
    with pytest.raises(DataError, match=r"it has [\d,]+ bytes, its manifest [\d,]+"):
        Corpus(copy).read_group(0, ["signal"])


def restate(folder: Path, row_groups: list[int]) -> None:
    """Give the manifest what the first shard is now, with other row groups: whoever makes a corpus makes both."""
    manifest = Corpus(folder).manifest
    facts = shard_facts(folder / "shards/00000.parquet", "00000.parquet", row_groups)
    changed = manifest.model_copy(update={"shards": (facts, *manifest.shards[1:])})
    (folder / "manifest.json").write_bytes(changed.identified().to_bytes())


def test_a_manifest_that_does_not_fit_its_shard_is_refused(copy: Path) -> None:
    shutil.copyfile(copy / "shards/00014.parquet", copy / "shards/00000.parquet")
    restate(copy, [24])
    with pytest.raises(DataError, match="row group 0 has 17 rows, its manifest 24"):
        Corpus(copy).read_group(0, ["signal"])
    shutil.copyfile(copy / "index.parquet", copy / "shards/00000.parquet")
    restate(copy, [24])
    with pytest.raises(DataError, match="its columns are not those of a corpus"):
        Corpus(copy).read_group(0, ["signal"])


def test_a_shard_without_the_group_or_without_signals_is_refused(copy: Path) -> None:
    shard = copy / "shards/00000.parquet"
    whole = pq.read_table(shard)
    with shard_writer(shard, 1000):
        pass
    restate(copy, [24])
    with pytest.raises(DataError, match="row group 0 has 0 rows, its manifest 24"):
        Corpus(copy).read_group(0, ["signal"])
    empty = pa.nulls(24, whole.schema.field("signal").type)
    with shard_writer(shard, 1000) as writer:
        writer.write_table(whole.set_column(0, "signal", empty).cast(shard_schema(1000)))
    restate(copy, [24])
    with pytest.raises(DataError, match=r"00000\.parquet is damaged \(row group 0: 24 rows have no signal\)"):
        Corpus(copy).read_group(0, ["signal"])


def test_rows_of_a_group_come_in_the_order_asked_for(sample_corpus: Corpus) -> None:
    columns = ["record_id", "signal", "labels"]
    rows = np.array([17, 3, 3, 0])
    chosen = sample_corpus.read_group(2, columns, rows)
    assert chosen.column_names == columns
    assert chosen.equals(sample_corpus.read_group(2, columns).take(rows))
    assert sample_corpus.read_group(2, columns, rows[:0]).num_rows == 0


def test_a_missing_shard_is_a_storage_error(copy: Path) -> None:
    (copy / "shards/00002.parquet").unlink()
    with pytest.raises(StorageError, match=r"00002\.parquet does not exist"):
        Corpus(copy).read_group(2, ["signal"])
    with pytest.raises(DataError, match="the corpus is not whole"):
        Corpus(copy).verify()


def test_a_shorter_index_is_refused(copy: Path) -> None:
    index = pq.read_table(copy / "index.parquet")
    (copy / "index.parquet").write_bytes(plain_bytes(index.slice(0, 300)))
    with pytest.raises(DataError, match="differs from its manifest"):
        _ = Corpus(copy).index


def test_reading_keeps_slices_apart(sample_corpus: Corpus) -> None:
    """Arrow slices share their parent's buffer; a slice's signals are its own."""
    column = sample_corpus.read_group(0, ["signal"])["signal"]
    whole = signal_array(column, 1000)
    assert whole.shape == (24, 12, 1000)
    np.testing.assert_array_equal(signal_array(column.slice(5, 7), 1000), whole[5:12])
    np.testing.assert_array_equal(signal_array(column.chunk(0).slice(20), 1000), whole[20:])
    assert signal_array(column.slice(0, 0), 1000).shape == (0, 12, 1000)
