"""A manifest names a corpus; changed in one place, it is one no longer."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecgdist.corpus import Manifest, ShardFacts, SourceFacts
from ecgdist.corpus.codec import CODEC
from ecgdist.corpus.schema import FORMAT_VERSION
from ecgdist.errors import DataError
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS

SHARD = ShardFacts(
    name="00000.parquet", rows=2, row_groups=(2,), bytes=10, sha256="00", footer_bytes=9, footer_sha256="01"
)


def manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "format_version": FORMAT_VERSION,
        "pack": PackStep(),
        "leads": STANDARD_LEADS,
        "unit": "uV",
        "codec": CODEC,
        "patient_key_fingerprint": "0123456789abcdef",
        "sources": {
            "ptbxl": SourceFacts(
                kind="ptbxl",
                dataset="ptbxl",
                licence="CC BY 4.0",
                citation="x",
                listed=3,
                packed=2,
                refused=1,
            )
        },
        "refused": {"nan": 1},
        "rows": 2,
        "shards": (SHARD,),
        "index_sha256": "11",
        "refused_sha256": "22",
    }
    return Manifest(**{**values, **changes}).identified()


def test_a_manifest_is_read_back() -> None:
    assert Manifest.from_bytes(manifest().to_bytes(), "here") == manifest()


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"pack": PackStep(rate_hz=500.0)},
        {"patient_key_fingerprint": "fedcba9876543210"},
        {"refused": {}},
        {"index_sha256": "33"},
        {"shards": (SHARD.model_copy(update={"footer_sha256": "02"}),)},
    ],
)
def test_every_fact_is_part_of_the_identity(change: dict[str, Any]) -> None:
    assert manifest(**change).corpus_id != manifest().corpus_id


def test_a_changed_value_is_noticed() -> None:
    values = json.loads(manifest().to_bytes())
    values["sources"]["ptbxl"]["refused"] = 0
    with pytest.raises(DataError, match="here was changed after packing"):
        Manifest.from_bytes(json.dumps(values).encode(), "here")


def test_no_flipped_bit_goes_unnoticed() -> None:
    content = manifest().to_bytes()
    for position in range(len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << position % 8
        try:
            read = Manifest.from_bytes(bytes(flipped), "here")
        except DataError:
            continue
        assert read == manifest()  # white space, or the case of an exponent: it says the same


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"{", b"[1, 2]", b"7", b"null", b"{}"])
def test_what_is_no_manifest_is_refused(content: bytes) -> None:
    with pytest.raises(DataError, match="here"):
        Manifest.from_bytes(content, "here")


def test_another_format_asks_for_packing_again() -> None:
    values = {**json.loads(manifest().to_bytes()), "format_version": FORMAT_VERSION - 1}
    expected = f"here has corpus format {FORMAT_VERSION - 1}; this version reads {FORMAT_VERSION}: pack again"
    with pytest.raises(DataError, match=expected):
        Manifest.from_bytes(json.dumps(values).encode(), "here")


def test_a_form_of_signals_that_is_not_known_is_refused() -> None:
    values = json.loads(manifest().to_bytes())
    for changed, shown in (({**values, "codec": "wavelet"}, "'wavelet'"), (values | {"codec": None}, "None")):
        with pytest.raises(
            DataError, match=f"here has signals stored as {shown}; this version reads '{CODEC}': pack again"
        ):
            Manifest.from_bytes(json.dumps(changed).encode(), "here")
