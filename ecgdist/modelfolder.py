"""What is published: weights, the preprocessing that belongs to them, and a card; loaded anywhere, strictly.

A model folder holds ``model.safetensors`` (the encoder, fp32), ``config.json`` (encoder, preprocessing,
provenance), ``README.md`` (the card), and what it has seen, so that an evaluation can prove that it tests on
something else: ``pretraining_patients.parquet`` (hashed keys) and ``pretraining_waveforms.safetensors``
(fingerprints).
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from safetensors.torch import save_file
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import FORMAT_VERSION, ModelConfig, model_card
from ecgdist.models.encoders import build_encoder
from ecgdist.models.interface import Encoder
from ecgdist.preprocessing import Preprocessing
from ecgdist.storage import Location
from ecgdist.trainedon import (
    NO_FINGERPRINTS,
    Fingerprints,
    patients_file,
    read_patients,
    read_waveforms,
    waveforms_file,
)

WEIGHTS, CONFIG, CARD, PATIENTS, WAVEFORMS = (
    "model.safetensors",
    "config.json",
    "README.md",
    "pretraining_patients.parquet",
    "pretraining_waveforms.safetensors",
)


class Model:
    """An encoder with its preprocessing: from an ECG to an embedding.

    Attributes:
        config: what the model folder says of it.
        encoder: in evaluation mode, without gradients.
        model_hash: sha256 of its weights, or of the seed of untrained ones.
        patients: hashed keys of the patients that it was trained on.
        waveforms: ``(n, FINGERPRINT_BYTES)``, distinct fingerprints of the ECGs that it was trained on.
    """

    def __init__(
        self,
        config: ModelConfig,
        encoder: Encoder,
        model_hash: str,
        patients: frozenset[str] = frozenset(),
        waveforms: Fingerprints = NO_FINGERPRINTS,
    ) -> None:
        self.config, self.model_hash = config, model_hash
        self.patients, self.waveforms = patients, waveforms
        self.encoder = encoder.eval().requires_grad_(False)

    @property
    def dim(self) -> int:
        """Width of an embedding."""
        return self.encoder.dim

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing that belongs to the weights."""
        return self.config.preprocessing

    def to(self, device: str | torch.device) -> Model:
        """Move the encoder to a device."""
        self.encoder.to(device)
        return self

    def embed(
        self, signal: npt.ArrayLike, rate_hz: float, leads: Sequence[str], unit: str = "mV"
    ) -> npt.NDArray[np.float32]:
        """The embedding of one ECG, of any rate and lead order, at least `PackStep.min_duration_s` long.

        Args:
            signal: ``(leads, samples)`` in `unit`.
            rate_hz: sampling rate.
            leads: the name of each row; missing leads are allowed.
            unit: V, mV, uV or nV.

        Returns:
            ``(dim,)``, the mean over segments.

        Raises:
            RecordRefused: naming why the ECG cannot be used.
        """
        segments = self.preprocessing.convert(signal, rate_hz, leads, unit)
        embedded = self.embed_packed(
            np.stack([segment.signal_uv for segment in segments]),
            np.array([segment.valid_samples for segment in segments]),
            np.stack([segment.lead_mask for segment in segments]),
        )
        mean: npt.NDArray[np.float32] = embedded.mean(axis=0)
        return mean

    @torch.no_grad()
    def embed_packed(
        self,
        signal_uv: npt.NDArray[np.int16],
        valid_samples: npt.NDArray[np.integer],
        lead_mask: npt.NDArray[np.bool_],
    ) -> npt.NDArray[np.float32]:
        """Embeddings of packed segments, each the mean over its windows.

        Args:
            signal_uv: ``(b, 12, num_samples)`` int16 microvolt.
            valid_samples: ``(b,)``.
            lead_mask: ``(b, 12)``.

        Returns:
            ``(b, dim)``.
        """
        return self.embed_windows(*self.inputs(signal_uv, valid_samples, lead_mask))

    def inputs(
        self,
        signal_uv: npt.NDArray[np.int16],
        valid_samples: npt.NDArray[np.integer],
        lead_mask: npt.NDArray[np.bool_],
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What `embed_windows` takes of packed segments, on the encoder's device; arguments as of `embed_packed`."""
        device = next(self.encoder.parameters()).device
        valid = torch.from_numpy(np.asarray(valid_samples, np.int64)).to(device)
        present = torch.from_numpy(lead_mask).to(device)
        windows, window_valid = self.preprocessing.inputs(
            torch.from_numpy(signal_uv).to(device), valid, present
        )
        return windows, window_valid, present

    @torch.no_grad()
    def embed_windows(
        self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor
    ) -> npt.NDArray[np.float32]:
        """Embeddings of what `Preprocessing.inputs` made of a batch, each the mean over its windows.

        Args:
            windows: ``(b, windows, 12, window_samples)``, as the encoder takes them.
            valid_samples: ``(b, windows)``.
            lead_mask: ``(b, 12)``.

        Returns:
            ``(b, dim)``.
        """
        device = next(self.encoder.parameters()).device
        windows, valid, present = (each.to(device) for each in (windows, valid_samples, lead_mask))
        parts = [
            self.encoder.embed(w, v, present) for w, v in zip(windows.unbind(1), valid.unbind(1), strict=True)
        ]
        embedded: npt.NDArray[np.float32] = torch.stack(parts).mean(0).float().cpu().numpy()
        return embedded

    def untrained(self, seed: int) -> Model:
        """The same model with fresh weights: the control that a pretrained one must beat."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            encoder = build_encoder(self.config.encoder)
        return Model(self.config, encoder, f"untrained, seed {seed}")


def save_model(
    where: Location,
    config: ModelConfig,
    weights: dict[str, Tensor],
    patients: Collection[str],
    waveforms: Fingerprints,
    more_card: str = "",
) -> None:
    """Write a model folder; ``config.json`` comes last, so that a half-written folder is none.

    Args:
        weights: the encoder's, named as in its class.
        patients: hashed keys of the patients trained on.
        waveforms: ``(n, FINGERPRINT_BYTES)`` fingerprints of the ECGs trained on.
        more_card: Markdown that the card ends with, of what else the folder holds.

    Raises:
        DataError: if `weights` do not fit the encoder of `config`.
    """
    _strict(build_encoder(config.encoder), weights, str(where))
    with tempfile.TemporaryDirectory(prefix="ecgdist-model-") as temporary:
        path = Path(temporary) / WEIGHTS
        save_file(_as_saved(weights), path)
        model_hash = sha256_of(path.read_bytes())
        (where / WEIGHTS).upload(path)
    known = patients_file(patients)
    (where / PATIENTS).write_bytes(known)
    card = model_card(config, model_hash, len(set(patients)))
    (where / CARD).write_bytes("\n".join(filter(None, (card, more_card))).encode())
    seen = waveforms_file(waveforms)
    (where / WAVEFORMS).write_bytes(seen)
    hashes = {
        "weights_sha256": model_hash,
        "patients_sha256": sha256_of(known),
        "waveforms_sha256": sha256_of(seen),
    }
    content = config.model_dump(mode="json") | hashes
    (where / CONFIG).write_bytes(json.dumps(content, indent=1).encode() + b"\n")


def hash_of(weights: dict[str, Tensor]) -> str:
    """The hash of a model with these weights, which `save_model` will give it."""
    return sha256_of(save_tensors(_as_saved(weights)))


def _as_saved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: weight.float().contiguous() for name, weight in weights.items()}


def load(where: str | os.PathLike[str] | Location) -> Model:
    """Load a model folder, local or s3://.

    Raises:
        DataError: if it is no model folder, was written by another format, or its weights were changed, are
            missing, are more than the encoder has, or have other shapes.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    config, (weights_hash, patients_hash, waveforms_hash) = _read_config(folder)
    content = checked(folder / WEIGHTS, weights_hash, CONFIG)
    try:
        weights = load_tensors(content)
    except SafetensorError as error:
        raise DataError(f"{folder / WEIGHTS} is damaged: {error}") from error
    encoder = build_encoder(config.encoder)
    _strict(encoder, weights, str(folder))
    encoder.load_state_dict(weights, strict=True)
    # Checked too: an evaluation proves by these lists that it tests on nothing that the model has seen.
    patients = read_patients(checked(folder / PATIENTS, patients_hash, CONFIG), str(folder / PATIENTS))
    waveforms = read_waveforms(checked(folder / WAVEFORMS, waveforms_hash, CONFIG), str(folder / WAVEFORMS))
    return Model(config, encoder, weights_hash, patients, waveforms)


def _read_config(folder: Location) -> tuple[ModelConfig, tuple[str, str, str]]:
    """``config.json`` of a model folder, and the sha256 of its weights, of its patients and of its waveforms."""
    path = folder / CONFIG
    if not path.exists():
        raise DataError(
            f"{folder} is not a model folder: it has no {CONFIG}; "
            "make one with `ecgdist export RUN --out DIR`"
        )
    try:
        values = json.loads(path.read_bytes())
        if values.get("format_version") != FORMAT_VERSION:
            raise DataError(
                f"{folder} has model format {values.get('format_version')!r}; "
                f"this version reads {FORMAT_VERSION}; train it again, or use the version that wrote it"
            )
        hashes = (
            values.pop("weights_sha256"),
            values.pop("patients_sha256"),
            values.pop("waveforms_sha256"),
        )
        return build(ModelConfig, values, str(path)), hashes
    except (ValueError, KeyError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is not the configuration of a model: {error}") from error


def checked(path: Location, sha256: str, said_in: str) -> bytes:
    """The content of a file of a model folder.

    Raises:
        DataError: if it has not the sha256 that the folder's file `said_in` says.
        StorageError: if it cannot be read.
    """
    content = path.read_bytes()
    if sha256_of(content) != sha256:
        raise DataError(
            f"{path} differs from its sha256 in {said_in}: it was damaged or changed; export the model again"
        )
    return content


def _strict(encoder: Encoder, weights: dict[str, Tensor], origin: str) -> None:
    own = encoder.state_dict()
    missing, extra = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    if missing or extra:
        raise DataError(
            f"{origin}: weights do not fit the encoder: missing {missing[:3]}, not known {extra[:3]}"
        )
    for name, weight in own.items():
        if weight.shape != weights[name].shape:
            raise DataError(
                f"{origin}: weight {name} has shape {tuple(weights[name].shape)}, "
                f"the encoder needs {tuple(weight.shape)}"
            )


def sha256_of(content: bytes) -> str:
    """In hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()
