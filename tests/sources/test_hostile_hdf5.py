"""HDF5 files made to harm: each is a named refusal; no other file is opened, no plugin loaded, little memory used."""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from ecgdist.sources import open_source
from tests.sources.contract import read_all
from tests.sources.hostile_child import child
from tests.sources.made import made_ecg_uv, own_row, write_csv, write_hdf5

MEBIBYTES = 256
SHAPE = (12, 2500)

Maker = Callable[[h5py.File, Path], None]


def external_link(file: h5py.File, outside: Path) -> None:
    file["ecg"] = h5py.ExternalLink(str(outside / "secret.h5"), "/ecg")


def external_group(file: h5py.File, outside: Path) -> None:
    file["ecg"] = h5py.SoftLink("/group/ecg")
    file["group"] = h5py.ExternalLink(str(outside / "secret.h5"), "/")


def soft_link(file: h5py.File, outside: Path) -> None:
    file["other"] = np.ones(SHAPE)
    file["ecg"] = h5py.SoftLink("/other")


def external_storage(file: h5py.File, outside: Path) -> None:
    size = SHAPE[0] * SHAPE[1] * 8
    file.create_dataset("ecg", SHAPE, "f8", external=[(str(outside / "secret.bin"), 0, size)])


def virtual_dataset(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f8")
    layout[:] = h5py.VirtualSource(str(outside / "secret.h5"), "ecg", SHAPE)
    file.create_virtual_dataset("ecg", layout)


def virtual_dataset_of_unknown_extent(file: h5py.File, outside: Path) -> None:
    layout = h5py.VirtualLayout(SHAPE, "f8", maxshape=(12, None))
    source = h5py.VirtualSource(str(outside / "secret.h5"), "ecg", SHAPE, maxshape=(12, None))
    layout[:, : h5py.h5s.UNLIMITED] = source[:, : h5py.h5s.UNLIMITED]
    file.create_virtual_dataset("ecg", layout)


def huge_shape_in_chunks(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", (12, 10**12), "f8", chunks=(12, 1000))


def huge_shape_in_one(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", (12, 10**12), "f8")


def no_data(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", SHAPE, "f8")


def one_chunk_of_many(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", SHAPE, "f8", chunks=(12, 500))[:, :500] = 1.0


def ten_gigabytes_of_zeros(file: h5py.File, outside: Path) -> None:
    """Every chunk honest, each a thousandth of what it declares; only two are there."""
    stored = file.create_dataset("ecg", (12, 10**8), "f8", chunks=(12, 200_000), compression="gzip")
    stored[:, :400_000] = 0.0


def zeros(num_blocks: int) -> bytes:
    """A zlib stream of 16 MiB of zeros for each block."""
    packer = zlib.compressobj(9)
    start = packer.compress(b"")
    block = packer.compress(bytes(2**24)) + packer.flush(zlib.Z_FULL_FLUSH)
    packer.compress(bytes(2**24))
    again = packer.flush(zlib.Z_FULL_FLUSH)
    return start + block + again * (num_blocks - 1)


def bomb(file: h5py.File, num_blocks: int) -> None:
    stored = file.create_dataset("ecg", SHAPE, "f8", chunks=SHAPE, compression="gzip")
    stored.id.write_direct_chunk((0, 0), zeros(num_blocks))


def bomb_smaller_than_its_values(file: h5py.File, outside: Path) -> None:
    bomb(file, 14)  # 230 kB that expand to 235 MB where 240 kB are declared


def bomb_of_ten_gigabytes(file: h5py.File, outside: Path) -> None:
    bomb(file, 640)


def huge_chunk(file: h5py.File, outside: Path) -> None:
    stored = file.create_dataset("ecg", (12, 3 * 10**7), "f8", chunks=(12, 3 * 10**7), compression="gzip")
    stored.id.write_direct_chunk((0, 0), zeros(1))


def chunk_of_too_few_values(file: h5py.File, outside: Path) -> None:
    stored = file.create_dataset("ecg", SHAPE, "f8", chunks=SHAPE, compression="gzip")
    stored.id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))


def strings(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.full(SHAPE, b"Planted")


def texts_of_any_length(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", data=[["a", "bc"]], dtype=h5py.string_dtype())


def lists_of_any_length(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", SHAPE, h5py.vlen_dtype(np.float64))[0, 0] = [1.0, 2.0]


def compound(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.zeros(SHAPE, [("i", "f8"), ("ii", "f8")])


def references(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", SHAPE, h5py.ref_dtype)


def truth_values(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.ones(SHAPE, bool)


def opaque(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.zeros(SHAPE, "V8")


def complex_numbers(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.ones(SHAPE, np.complex64)


def long_doubles(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.ones(SHAPE, np.longdouble)


def odd_precision(file: h5py.File, outside: Path) -> None:
    kind = h5py.h5t.STD_I16LE.copy()
    kind.set_precision(12)
    space = h5py.h5s.create_simple(SHAPE)
    h5py.h5d.create(file.id, b"ecg", kind, space).write(h5py.h5s.ALL, h5py.h5s.ALL, np.ones(SHAPE, np.int16))


def seven_dimensions(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.ones((1, 1, 1, 1, 1, 12, 2500))


def scalar(file: h5py.File, outside: Path) -> None:
    file["ecg"] = 1.0


def nothing_at_all(file: h5py.File, outside: Path) -> None:
    file["ecg"] = h5py.Empty("f8")


def no_samples(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.ones((12, 0))


def group(file: h5py.File, outside: Path) -> None:
    file.create_group("ecg/ecg")


def type_of_its_own(file: h5py.File, outside: Path) -> None:
    file["ecg"] = np.dtype("f8")


def absent(file: h5py.File, outside: Path) -> None:
    file["other"] = np.ones(SHAPE)


def filter_plugin(file: h5py.File, outside: Path) -> None:
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_chunk(SHAPE)
    plist.set_filter(32015, h5py.h5z.FLAG_OPTIONAL)
    space = h5py.h5s.create_simple(SHAPE)
    stored = h5py.h5d.create(file.id, b"ecg", h5py.h5t.IEEE_F64LE, space, plist)
    stored.write_direct_chunk((0, 0), bytes(100))


def other_compression(file: h5py.File, outside: Path) -> None:
    file.create_dataset("ecg", data=np.ones(SHAPE), compression="lzf")


HOSTILE: dict[Maker, str] = {
    external_link: "is a link to somewhere else",
    external_group: "is a link to somewhere else",
    soft_link: "is a link to somewhere else",
    external_storage: "lie in other files",
    virtual_dataset: "lie in other files",
    virtual_dataset_of_unknown_extent: "lie in other files",
    huge_shape_in_chunks: "2**25 values at most",
    huge_shape_in_one: "2**25 values at most",
    no_data: "holds no data",
    one_chunk_of_many: "chunk storage is not allocated",
    ten_gigabytes_of_zeros: "2**25 values at most",
    bomb_smaller_than_its_values: "expands beyond its declared size",
    bomb_of_ten_gigabytes: "out buffer is only 240304 bytes",
    huge_chunk: "64 MiB at most",
    chunk_of_too_few_values: "has 100 bytes, not 240000",
    strings: "does not hold plain numbers",
    texts_of_any_length: "does not hold plain numbers",
    lists_of_any_length: "does not hold plain numbers",
    compound: "does not hold plain numbers",
    references: "does not hold plain numbers",
    truth_values: "does not hold plain numbers",
    opaque: "does not hold plain numbers",
    complex_numbers: "does not hold plain numbers",
    long_doubles: "does not hold plain numbers",
    odd_precision: "does not hold plain numbers",
    seven_dimensions: "which is no array of ECGs",
    scalar: "which is no array of ECGs",
    nothing_at_all: "which is no array of ECGs",
    no_samples: "which is no array of ECGs",
    group: "is not a dataset",
    type_of_its_own: "is not a dataset",
    absent: "holds no dataset",
    filter_plugin: "is stored with filters",
    other_compression: "is stored with filters",
}
"""Each with a part of what its refusal says."""


def not_hdf5(content: bytes) -> bytes:
    return b"ECGs: " + content


def empty(content: bytes) -> bytes:
    return b""


def cut_short(content: bytes) -> bytes:
    return content[:-1000]


def cut_to_its_first_block(content: bytes) -> bytes:
    return content[:100]


def other_addresses(content: bytes) -> bytes:
    return content[:40] + b"\x7f" * 56 + content[96:]


DAMAGES: list[Callable[[bytes], bytes]] = [
    not_hdf5,
    empty,
    cut_short,
    cut_to_its_first_block,
    other_addresses,
]


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says that reads all hostile files."""
    base, outside = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("outside")
    write_hdf5(outside / "secret.h5", ecg=np.ones(SHAPE))
    (outside / "secret.bin").write_bytes(np.ones(SHAPE).tobytes())
    (outside / "secret.txt").write_text("not for readers")
    (outside / "plugins").mkdir()
    (outside / "plugins" / "libplugin.so").write_bytes(b"\x7fELF")
    for maker in HOSTILE:
        folder = folder_of(base, maker.__name__)
        with h5py.File(folder / "hostile.h5", "w") as file:
            maker(file, outside)
    for damage in DAMAGES:
        folder = folder_of(base, damage.__name__)
        write_hdf5(folder / "hostile.h5", ecg=made_ecg_uv(1, 2500))
        (folder / "hostile.h5").write_bytes(damage((folder / "hostile.h5").read_bytes()))
    return child(
        "hdf5", outside, MEBIBYTES, sorted(base.iterdir()), HDF5_PLUGIN_PATH=str(outside / "plugins")
    )


def folder_of(base: Path, name: str) -> Path:
    (base / name).mkdir()
    write_csv(base / name / "records.csv", [own_row("one", "hostile.h5")])
    return base / name


@pytest.mark.parametrize(
    ("name", "detail"),
    [(maker.__name__, detail) for maker, detail in HOSTILE.items()]
    + [(damage.__name__, "HDF5 cannot read it") for damage in DAMAGES],
)
def test_is_refused(answer: dict[str, Any], name: str, detail: str) -> None:
    (outcome,) = answer["outcomes"][name]
    assert outcome.startswith("unreadable_signal: ")
    assert detail in outcome


def test_no_other_file_is_opened_and_no_plugin_loaded(answer: dict[str, Any]) -> None:
    assert answer["touched"] == []
    assert "secret.txt" in answer["control"]


@pytest.mark.parametrize("seed", range(3))
def test_damage_anywhere_is_a_refusal_or_a_record_and_never_a_crash(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    with h5py.File(tmp_path / "whole.h5", "w") as file:
        file.create_dataset(
            "ecg", data=made_ecg_uv(1, 400), chunks=(12, 100), compression="gzip", shuffle=True
        )
    whole = (tmp_path / "whole.h5").read_bytes()
    rows = []
    for number in range(60):
        content = bytearray(whole)
        for _ in range(chance.randrange(1, 8)):
            content[chance.randrange(len(content) if number % 2 else 2048)] = chance.randrange(256)
        (tmp_path / f"{number}.h5").write_bytes(
            content[: chance.randrange(len(content))] if number % 10 == 0 else content
        )
        rows.append(own_row(str(number), f"{number}.h5"))
    write_csv(tmp_path / "records.csv", rows)
    recordings, refused = read_all(open_source("hdf5", str(tmp_path)))
    assert len(recordings) + len(refused) == 60
    assert {each.reason for each in refused.values()} <= {"unreadable_signal", "lead_count"}
    assert len(refused) > 5
