"""`.npy` files made to harm: no pickle is run, and nothing is allocated that a header only declares."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.lib.format as npy
import pytest

from tests.sources.hostile_child import child
from tests.sources.made import own_row, write_csv


class Touch:
    """Unpickling this opens a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[str, int]]:
        return os.open, (str(self.path), os.O_RDONLY)


def saved(array: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def declared(header: str, values: bytes = b"", version: int = 1) -> bytes:
    """A file with any text for a header."""
    size = len(header).to_bytes(2 if version == 1 else 4, "little")
    return npy.magic(version, 0) + size + header.encode() + values


def shape(text: str, dtype: str = "<f8") -> bytes:
    return declared(f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {text}, }}", bytes(1000))


def objects(outside: Path) -> bytes:
    array = np.empty((12, 10), object)
    array[:] = Touch(outside / "secret.txt")
    return saved(array)


def a_pickle_alone(outside: Path) -> bytes:
    import pickle

    return pickle.dumps(Touch(outside / "secret.txt"))


def a_zip_of_arrays(outside: Path) -> bytes:
    file = io.BytesIO()
    np.savez(file, ecg=np.ones((12, 100)))
    return file.getvalue()


def a_call_for_a_header(outside: Path) -> bytes:
    return declared(f"open({str(outside / 'secret.txt')!r})")


def a_huge_shape(outside: Path) -> bytes:
    return shape("(12, 1000000000000)")


def a_shape_beyond_the_file(outside: Path) -> bytes:
    return shape("(12, 1000000)")


def a_negative_shape(outside: Path) -> bytes:
    return shape("(12, -5)")


def a_shape_of_words(outside: Path) -> bytes:
    return shape("('a', 'b')")


def seven_dimensions(outside: Path) -> bytes:
    return saved(np.ones((1, 1, 1, 1, 1, 12, 100)))


def no_samples(outside: Path) -> bytes:
    return saved(np.ones((12, 0)))


def structures(outside: Path) -> bytes:
    return saved(np.zeros((12, 10), [("i", "f8"), ("ii", "f8")]))


def texts(outside: Path) -> bytes:
    return saved(np.full((12, 10), "Planted"))


def dates(outside: Path) -> bytes:
    return saved(np.zeros((12, 10), "M8[s]"))


def complex_numbers(outside: Path) -> bytes:
    return saved(np.ones((12, 10), complex))


def a_header_of_a_megabyte(outside: Path) -> bytes:
    return declared("{'descr': '<f8', 'fortran_order': False, 'shape': (12, 10)}" + " " * 2**20, version=2)


def a_header_that_says_four_gigabytes(outside: Path) -> bytes:
    return npy.magic(2, 0) + b"\xff" * 4 + b"{}" * 100


def a_deeply_nested_header(outside: Path) -> bytes:
    return declared("(" * 5000 + ")" * 5000)


def a_version_to_come(outside: Path) -> bytes:
    return npy.magic(9, 0) + saved(np.ones((12, 10)))[8:]


def nothing(outside: Path) -> bytes:
    return b""


def the_magic_alone(outside: Path) -> bytes:
    return npy.magic(1, 0)


REASONS = {a_shape_beyond_the_file: "truncated_signal"}
HOSTILE = [
    objects, a_pickle_alone, a_zip_of_arrays, a_call_for_a_header, a_huge_shape, a_shape_beyond_the_file,
    a_negative_shape, a_shape_of_words, seven_dimensions, no_samples, structures, texts, dates, complex_numbers,
    a_header_of_a_megabyte, a_header_that_says_four_gigabytes, a_deeply_nested_header, a_version_to_come, nothing,
    the_magic_alone,
]  # fmt: skip


@pytest.fixture(scope="module")
def answer(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a process of its own says that reads all hostile files."""
    base, outside = tmp_path_factory.mktemp("hostile"), tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("not for readers")
    for maker in HOSTILE:
        folder = base / maker.__name__
        folder.mkdir()
        (folder / "hostile.npy").write_bytes(maker(outside))
        write_csv(folder / "records.csv", [own_row("one", "hostile.npy")])
    return child("npy", outside, 64, sorted(base.iterdir()))


@pytest.mark.parametrize("maker", HOSTILE)
def test_is_refused(answer: dict[str, Any], maker: Callable[[Path], bytes]) -> None:
    (outcome,) = answer["outcomes"][maker.__name__]
    assert outcome.startswith(f"{REASONS.get(maker, 'unreadable_signal')}: ")
    assert "Planted" not in outcome


def test_no_code_runs_and_no_other_file_is_opened(answer: dict[str, Any]) -> None:
    assert answer["touched"] == []
    assert "secret.txt" in answer["control"]
