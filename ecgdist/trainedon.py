"""What weights were trained on, kept beside them in two files: hashed keys of patients, and fingerprints of ECGs."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from ecgdist.corpus.schema import plain_bytes, read_plain
from ecgdist.errors import DataError
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES

Fingerprints = npt.NDArray[np.uint8]
NO_FINGERPRINTS: Fingerprints = np.zeros((0, FINGERPRINT_BYTES), dtype=np.uint8)
_FINGERPRINTS = "fingerprints"


def patients_file(patients: Iterable[str]) -> bytes:
    """Hashed keys as a Parquet file, each once."""
    return plain_bytes(pa.table({"patient_key": pa.array(sorted(set(patients)), pa.string())}))


def waveforms_file(waveforms: Fingerprints) -> bytes:
    """``(n, FINGERPRINT_BYTES)`` fingerprints as safetensors: each once, sorted, so that their order tells nothing."""
    rows = np.ascontiguousarray(waveforms).view(f"V{FINGERPRINT_BYTES}")
    distinct: Fingerprints = np.unique(rows).view(np.uint8).reshape(-1, FINGERPRINT_BYTES)
    return save_arrays({_FINGERPRINTS: distinct})


def read_patients(content: bytes, origin: str) -> frozenset[str]:
    """The inverse of `patients_file`.

    Raises:
        DataError: if it is no such file; `origin` is named.
    """
    try:
        return frozenset(read_plain(content)["patient_key"].to_pylist())
    except (ValueError, KeyError, OSError) as error:
        raise DataError(f"{origin} is damaged: {error}") from error


def read_waveforms(content: bytes, origin: str) -> Fingerprints:
    """The inverse of `waveforms_file`.

    Raises:
        DataError: if it is no such file; `origin` is named.
    """
    try:
        waveforms: Fingerprints = load_arrays(content)[_FINGERPRINTS]
    except (SafetensorError, KeyError) as error:
        raise DataError(f"{origin} is damaged: {error}") from error
    if waveforms.dtype != np.uint8 or waveforms.shape[1:] != (FINGERPRINT_BYTES,):
        raise DataError(
            f"{origin} holds {waveforms.dtype} of shape {waveforms.shape}, which are no fingerprints"
        )
    return waveforms
