"""Time and memory of index operations on a made index: ``python -m tests.benchmarks.index ROWS [ROWS ...]``.

The index has every column in its published form; patients have 1.7 rows on average, as in the 1.3 million public
ECGs. Fingerprints are signs of random projections, which agree in a band of 24 bits rather more often than those of
real ECGs do (2.1 against 1.4 pairs in a million). An evaluation corpus of a tenth of the rows shares
1,000 patients, and 100 waveforms that are really stored, so that they are confirmed. Every operation runs in a
process of its own; its memory is the process's largest resident set.
"""

from __future__ import annotations

import hashlib
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ecgdist.corpus import Corpus, Manifest, ShardFacts, SourceFacts
from ecgdist.corpus.candidates import near_pairs
from ecgdist.corpus.codec import CODEC, encode
from ecgdist.corpus.footer import shard_facts
from ecgdist.corpus.leaks import check_leak, rows_in_splits
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import (
    FORMAT_VERSION,
    INDEX,
    REFUSED,
    ROWS_PER_GROUP,
    plain_bytes,
    plain_writer,
    shard_schema,
    shard_writer,
    table,
)
from ecgdist.corpus.splits import SeededSplit, digest, groups_of, seeded_split
from ecgdist.corpus.summary import summarise
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES, fingerprints
from ecgdist.streaming.selection import select_rows
from tests.benchmarks import results
from tests.corpus.corpora import made_ecg

ROWS_PER_SHARD = 4096
ROWS_AT_ONCE = 32 * ROWS_PER_SHARD
STORED = ROWS_PER_GROUP
"""Rows of the last shard, the only one that has a file."""
SHARED_PATIENTS, SHARED_WAVEFORMS = 1_000, 100
PACK = PackStep(rate_hz=100.0)
CODES = pa.array([f"scp:C{number}" for number in range(71)])
LEFT_OUT = ("fold9", "fold10")
FOLDS = pa.array([f"fold{number}" for number in range(1, 11)])

Bytes = npt.NDArray[np.uint8]


def make_corpus(folder: Path, rows: int, seed: int) -> Corpus:
    """A corpus with an index of `rows` rows, and signals for the last `STORED` of them only.

    Corpora of other seeds share the first `SHARED_PATIENTS` patients and the first `SHARED_WAVEFORMS` of the
    stored signals.
    """
    (folder / "shards").mkdir(parents=True)
    listed = rows - STORED
    sizes = [min(ROWS_PER_SHARD, listed - start) for start in range(0, listed, ROWS_PER_SHARD)] + [STORED]
    waves = np.stack([made_ecg(n if n < SHARED_WAVEFORMS else seed * 10_000 + n) for n in range(STORED)])
    last = _write_shard(folder / f"shards/{len(sizes) - 1:05d}.parquet", waves)
    with plain_writer(folder / "index.parquet", INDEX) as writer:
        for part in _parts(sizes, waves, seed):
            writer.write_table(part)
    refused = plain_bytes(table([], REFUSED))
    (folder / "refused.parquet").write_bytes(refused)
    listed_shards = tuple(_listed(f"{n:05d}.parquet", size) for n, size in enumerate(sizes[:-1]))
    with (folder / "index.parquet").open("rb") as file:
        index_sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    facts = SourceFacts(
        kind="npy", dataset="made", licence="none", citation="made", listed=rows, packed=rows, refused=0
    )
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=PACK,
        leads=STANDARD_LEADS,
        unit="uV",
        codec=CODEC,
        patient_key_fingerprint=PatientHasher().fingerprint,
        sources={"made": facts},
        refused={},
        rows=rows,
        shards=(*listed_shards, last),
        index_sha256=index_sha256,
        refused_sha256=hashlib.sha256(refused).hexdigest(),
    ).identified()
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return Corpus(folder)


def _listed(name: str, rows: int) -> ShardFacts:
    groups = tuple(min(ROWS_PER_GROUP, rows - start) for start in range(0, rows, ROWS_PER_GROUP))
    return ShardFacts(
        name=name, rows=rows, row_groups=groups, bytes=0, sha256="", footer_bytes=8, footer_sha256=""
    )


def _write_shard(path: Path, waves: npt.NDArray[np.int16]) -> ShardFacts:
    schema = shard_schema(PACK.num_samples)
    columns = [pa.array([signal.tobytes() for signal in encode(waves)], schema.field("signal").type)]
    columns += [pa.nulls(len(waves), field.type) for field in schema if field.name != "signal"]
    with shard_writer(path, PACK.num_samples) as writer:
        writer.write_table(pa.table(columns, schema=schema))
    return shard_facts(path, path.name, _listed(path.name, len(waves)).row_groups)


def _parts(sizes: list[int], waves: npt.NDArray[np.int16], seed: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(seed)
    rows = sum(sizes)
    own = np.frombuffer(random.bytes(16 * int(rows / 1.7)).hex().encode(), dtype="S32")
    shared = np.frombuffer(np.random.default_rng(0).bytes(16 * SHARED_PATIENTS).hex().encode(), dtype="S32")
    planes = np.random.default_rng(0).standard_normal((16, 24, 24), dtype=np.float32)
    shard = np.repeat(np.arange(len(sizes)), sizes)
    place = np.arange(rows) - np.repeat(np.cumsum([0, *sizes[:-1]]), sizes)
    for start in range(0, rows, ROWS_AT_ONCE):
        part = slice(start, min(start + ROWS_AT_ONCE, rows))
        count = part.stop - part.start
        keys = own[random.integers(0, len(own), count)]
        if start == 0:
            keys[:SHARED_PATIENTS] = shared
        # Each of 16 bands from 24 numbers of its own: bands agree by chance, whole fingerprints do not.
        waves_like = random.standard_normal((16, count, 24), dtype=np.float32) @ planes
        prints = np.packbits(waves_like.transpose(1, 0, 2).reshape(count, -1) > 0, axis=1)
        stored = np.arange(part.start, part.stop) - (rows - STORED)
        real = stored >= 0
        mask, valid = np.ones((STORED, 12), np.bool_), np.full(STORED, PACK.num_samples)
        prints[real] = fingerprints(waves, PACK.rate_hz, mask, valid)[stored[real]]
        yield _part(random, part.start, shard[part], place[part], keys, prints)


def _part(
    random: np.random.Generator,
    start: int,
    shard: npt.NDArray[np.int64],
    place: npt.NDArray[np.int64],
    keys: npt.NDArray[np.bytes_],
    prints: Bytes,
) -> pa.Table:
    count = len(keys)
    labels = np.append(0, np.cumsum(random.integers(1, 4, count))).astype(np.int32)
    flags = np.zeros(count + 1, dtype=np.int32)
    columns = {
        "shard": shard,
        "row_group": place // ROWS_PER_GROUP,
        "row": place % ROWS_PER_GROUP,
        "record_id": pa.array(np.arange(start, start + count)).cast(pa.string()),
        "source": pa.repeat("made", count),
        "patient_key": pa.array(keys.astype("U32").tolist(), pa.string()),
        "segment": np.zeros(count, np.int32),
        "lead_mask": np.full(count, 4095, np.int16),
        "valid_samples": np.full(count, PACK.num_samples, np.int32),
        "age": random.integers(18, 90, count).astype(np.float32),
        "sex": pa.array(["female", "male"]).take(pa.array(random.integers(0, 2, count))),
        "labels": pa.ListArray.from_arrays(labels, CODES.take(pa.array(random.integers(0, 71, labels[-1])))),
        "split": FOLDS.take(pa.array(random.integers(0, 10, count))),
        "quality": pa.ListArray.from_arrays(flags, pa.array([], pa.string())),
        "source_rate_hz": np.full(count, 500, np.float32),
        "source_samples": np.full(count, 5000, np.int32),
        "nan_share": np.zeros(count, np.float32),
        "flat_leads": np.zeros(count, np.int16),
        "clipped_leads": np.zeros(count, np.int16),
        "peak_uv": random.uniform(500, 4000, count).astype(np.float32),
        "limb_residual_uv": random.uniform(0, 3, count).astype(np.float32),
        "fingerprint": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(FINGERPRINT_BYTES), count, [None, pa.py_buffer(np.ascontiguousarray(prints))]
        ),
    }
    arrays = {
        name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()
    }
    empty = pa.nulls(count)
    return pa.table([arrays.get(field.name, empty).cast(field.type) for field in INDEX], schema=INDEX)


def _open(ours: Corpus, theirs: Corpus) -> str:
    return f"{ours.columns('row')['row'].to_numpy().sum():,} checked"


def _split(ours: Corpus, theirs: Corpus) -> str:
    keys = ours.columns("patient_key")["patient_key"]
    found = seeded_split(keys, groups_of(keys, near_pairs(ours.fingerprints)), SeededSplit())
    names = ours.columns("source", "record_id", "segment")
    return f"digest {digest(found.split, names['source'], names['record_id'], names['segment'])[:8]}"


def _select(ours: Corpus, theirs: Corpus) -> str:
    selection, keep = select_rows(ours, LEFT_OUT)
    return f"{keep.sum():,} rows to train on, {selection.linked:,} linked to those left out"


def _checked(ours: Corpus, theirs: Corpus) -> str:
    """What `pretrain` does before it starts: its rows against those that it leaves to evaluation."""
    _, keep = select_rows(ours, LEFT_OUT)
    return check_leak(ours, ours, keep, rows_in_splits(ours, LEFT_OUT)).verdict


def _counts(ours: Corpus, theirs: Corpus) -> str:
    found = summarise(ours)
    return f"{found.patients:,} patients, {len(found.by_label)} labels"


def _leaks(ours: Corpus, theirs: Corpus) -> str:
    return check_leak(ours, theirs).verdict


OPERATIONS: dict[str, Callable[[Corpus, Corpus], str]] = {
    "open, one column": _open,
    "seeded split with duplicates and digest": _split,
    "rows for pretraining": _select,
    "rows for pretraining, checked": _checked,
    "counts": _counts,
    "leak check": _leaks,
}


def measure(name: str, folder: Path) -> tuple[str, float, float]:
    """What an operation on the corpora in `folder` says, its seconds, and this process's largest memory in GiB."""
    start = time.perf_counter()
    said = OPERATIONS[name](Corpus(folder / "pretraining"), Corpus(folder / "evaluation"))
    seconds = time.perf_counter() - start
    return said, seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def measure_apart(name: str, folder: Path) -> tuple[str, float, float]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "tests.benchmarks.index", "--measure", name, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    said, seconds, gib = json.loads(done.stdout)
    return str(said), float(seconds), float(gib)


def make_corpora(folder: Path, rows: int) -> None:
    """The corpora that operations run on."""
    make_corpus(folder / "pretraining", rows, seed=1)
    make_corpus(folder / "evaluation", rows // 10, seed=2)


def main(arguments: list[str]) -> None:
    """Print what is measured and write it down; with ``--measure NAME FOLDER``, one measurement as JSON."""
    if arguments[0] == "--measure":
        print(json.dumps(measure(arguments[1], Path(arguments[2]))))
        return
    lines = []
    for rows in map(int, arguments):
        with tempfile.TemporaryDirectory(prefix="ecgdist-index-") as folder:
            make_corpora(Path(folder), rows)
            for name in OPERATIONS:
                said, seconds, gib = measure_apart(name, Path(folder))
                print(f"{rows:12,}  {name:40}  {seconds:8.1f} s  {gib:5.2f} GiB  {said}", flush=True)
                lines.append([f"{rows:,}: {name}", f"{seconds:.1f}", f"{gib:.2f}", said])
    what = (
        "A made index of so many rows, and one of a tenth of them for evaluation; each operation once, in a process "
        "of its own, whose largest resident set is its memory."
    )
    results.write_section(
        "Index",
        f"python -m tests.benchmarks.index {' '.join(arguments)}",
        [what, results.table(["rows: operation", "s", "GiB", "found"], lines)],
    )


if __name__ == "__main__":
    main(sys.argv[1:])
