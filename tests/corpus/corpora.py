"""Small corpora of chosen signals, written without packing."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ecgdist.corpus import Corpus, Manifest, SourceFacts
from ecgdist.corpus.codec import CODEC, encode
from ecgdist.corpus.footer import shard_facts
from ecgdist.corpus.patients import PatientHasher
from ecgdist.corpus.schema import (
    FACTS,
    FORMAT_VERSION,
    INDEX,
    REFUSED,
    ROWS_PER_GROUP,
    plain_bytes,
    shard_schema,
    shard_writer,
    table,
)
from ecgdist.preprocessing import PackStep
from ecgdist.record import NUM_LEADS, STANDARD_LEADS, mask_to_bits
from ecgdist.signals.fingerprint import fingerprints

RATE_HZ = 100.0
EVERY_LEAD = np.ones(NUM_LEADS, dtype=np.bool_)

Signal = npt.NDArray[np.int16]


def made_ecg(
    seed: int, rate_hz: float = RATE_HZ, duration_s: float = 10.0, num_leads: int = NUM_LEADS
) -> Signal:
    """``(12, samples)``: waves of 1 to 15 Hz that differ from seed to seed and not from rate to rate."""
    random = np.random.default_rng(seed)
    shape = (2, NUM_LEADS, 40, 1)
    hertz, phase = random.uniform(1, 15, shape)[0], random.uniform(0, 2 * np.pi, shape)[1]
    time_s = np.arange(round(duration_s * rate_hz)) / rate_hz
    wave_uv = 120 * np.sin(2 * np.pi * hertz * time_s + phase).sum(axis=1)
    wave_uv[num_leads:] = 0
    return wave_uv.round().astype(np.int16)


def row(signal_uv: Signal, record_id: str, **facts: Any) -> dict[str, Any]:
    """A row of a corpus; the patient is the record unless `facts` say otherwise."""
    return {
        "signal_uv": signal_uv,
        "record_id": record_id,
        "source": "made",
        "patient": record_id,
        "split": None,
        "lead_mask": EVERY_LEAD,
        "valid_samples": signal_uv.shape[1],
        **facts,
    }


def write_corpus(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    rate_hz: float = RATE_HZ,
    duration_s: float = 10.0,
    hasher: PatientHasher | None = None,
) -> Corpus:
    """A corpus of one shard."""
    hasher = hasher or PatientHasher()
    pack = PackStep(rate_hz=rate_hz, duration_s=duration_s)
    facts = [_facts(row, rate_hz, hasher) for row in rows]
    groups = [range(i, min(i + ROWS_PER_GROUP, len(rows))) for i in range(0, len(rows), ROWS_PER_GROUP)]
    (folder / "shards").mkdir(parents=True)
    shard = folder / "shards/00000.parquet"
    with shard_writer(shard, pack.num_samples) as writer:
        for group in groups:
            signals = encode(np.stack([rows[i]["signal_uv"] for i in group]))
            content = [
                {**facts[i], "signal": signal.tobytes()} for i, signal in zip(group, signals, strict=True)
            ]
            writer.write_table(table(content, shard_schema(pack.num_samples)))
    index = [
        {**fact, "shard": 0, "row_group": i // ROWS_PER_GROUP, "row": i % ROWS_PER_GROUP}
        for i, fact in enumerate(facts)
    ]
    files = {
        "index.parquet": plain_bytes(table(index, INDEX)),
        "refused.parquet": plain_bytes(table([], REFUSED)),
    }
    for name, file in files.items():
        (folder / name).write_bytes(file)
    sizes = [len(group) for group in groups]
    manifest = Manifest(
        format_version=FORMAT_VERSION,
        pack=pack,
        leads=STANDARD_LEADS,
        unit="uV",
        codec=CODEC,
        patient_key_fingerprint=hasher.fingerprint,
        sources={name: _source(name, rows) for name in sorted({row["source"] for row in rows})},
        refused={},
        rows=len(rows),
        shards=(shard_facts(shard, shard.name, sizes),),
        index_sha256=_sha256(files["index.parquet"]),
        refused_sha256=_sha256(files["refused.parquet"]),
    ).identified()
    (folder / "manifest.json").write_bytes(manifest.to_bytes())
    return Corpus(folder)


def _facts(row: Mapping[str, Any], rate_hz: float, hasher: PatientHasher) -> dict[str, Any]:
    signal_uv = row["signal_uv"]
    (fingerprint,) = fingerprints(
        signal_uv[None], rate_hz, row["lead_mask"][None], np.array([row["valid_samples"]])
    )
    usual = dict.fromkeys(FACTS.names) | {
        "segment": 0, "labels": [], "quality": [], "source_rate_hz": rate_hz,
        "source_samples": signal_uv.shape[1], "nan_share": 0.0, "flat_leads": 0, "clipped_leads": 0,
        "peak_uv": 0.0,
    }  # fmt: skip
    own = {
        "patient_key": hasher.patient_key("made", row["patient"], row["record_id"]),
        "lead_mask": mask_to_bits(row["lead_mask"]),
        "fingerprint": fingerprint.tobytes(),
    }
    return usual | {key: value for key, value in row.items() if key != "signal_uv"} | own


def _source(name: str, rows: Sequence[Mapping[str, Any]]) -> SourceFacts:
    count = len({row["record_id"] for row in rows if row["source"] == name})
    return SourceFacts(
        kind="npy", dataset=name, licence="none", citation="made by the test",
        listed=count, packed=count, refused=0,
    )  # fmt: skip


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
