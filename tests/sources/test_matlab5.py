"""The MATLAB 5 reader against files that scipy writes."""

import io
import random
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from ecgdist.sources.matlab5 import read_matrix

DTYPES = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "float32", "float64"]


def written(compressed: bool = False, **variables: object) -> bytes:
    file = io.BytesIO()
    scipy.io.savemat(file, variables, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 3), (12, 25), (3, 0)])
def test_reads_what_scipy_writes(dtype: str, shape: tuple[int, int], compressed: bool) -> None:
    values = np.random.default_rng(0).integers(0, 100, shape).astype(dtype)
    content = written(compressed, before="text", val=values, after=np.ones((2, 2)))
    read = read_matrix(content, "val")
    np.testing.assert_array_equal(read, values)
    assert read.dtype == values.dtype


@pytest.mark.parametrize("other", ["text", np.ones((2, 2, 2)), np.ones((2, 2)) * 1j, {"field": 1}])
def test_only_a_real_matrix_counts(other: object) -> None:
    with pytest.raises(ValueError, match="no numeric matrix 'val'"):
        read_matrix(written(val=other, feats=np.ones((2, 2))), "val")


def test_other_files_are_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "four.mat", {"val": np.ones((2, 2))}, format="4")
    for content in (b"", (tmp_path / "four.mat").read_bytes(), written(val=np.ones((2, 2)))[:100]):
        with pytest.raises(ValueError, match="not a MATLAB 5 file"):
            read_matrix(content, "val")


@pytest.mark.parametrize("compressed", [False, True])
def test_damage_is_a_value_error_or_other_numbers(compressed: bool) -> None:
    content = written(compressed, val=np.arange(60, dtype="int16").reshape(12, 5))
    draw = random.Random(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(content[: draw.randrange(120, len(content) + 1)])
        damaged[draw.randrange(len(damaged))] = draw.randrange(256)
        try:
            assert read_matrix(bytes(damaged), "val").ndim == 2
        except ValueError:
            refused += 1
    assert refused > 100
