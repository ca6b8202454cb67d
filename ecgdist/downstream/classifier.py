"""A classifier: an encoder with a head, in one model folder.

``head.safetensors`` holds the head's weights, ``head.json`` its kind, outputs, thresholds, figures and where they come
from. Where the encoder has not seen what the head was fitted on, ``head_patients.parquet`` and
``head_waveforms.safetensors`` say what that was; a fine-tuned encoder has, and says so itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays
from torch import Tensor

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.manifest import canonical_json
from ecgdist.corpus.seen import Seen
from ecgdist.downstream.headcard import HEAD_CONFIG, HEAD_FORMAT, HeadConfig, head_card
from ecgdist.downstream.heads import HEADS, FloatArray, Head
from ecgdist.downstream.overrows import over_rows
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import Sources
from ecgdist.modelfolder import WEIGHTS, Model, checked, load, save_model, sha256_of
from ecgdist.preprocessing import Preprocessing
from ecgdist.storage import Location
from ecgdist.trainedon import patients_file, read_patients, read_waveforms, waveforms_file

HEAD_WEIGHTS, HEAD_PATIENTS, HEAD_WAVEFORMS = (
    "head.safetensors",
    "head_patients.parquet",
    "head_waveforms.safetensors",
)
_HASHED = {
    HEAD_WEIGHTS: "weights_sha256",
    HEAD_PATIENTS: "patients_sha256",
    HEAD_WAVEFORMS: "waveforms_sha256",
}
_ENCODER, _WHOLE = "encoder_sha256", "classifier_hash"


@dataclass(frozen=True)
class Classifier:
    """An encoder with a head: a `Predictor`.

    Attributes:
        model: the encoder with its preprocessing.
        config: what the head says of itself.
        head: its weights.
        seen: what the head was fitted, and its thresholds were chosen, on; None where the encoder was, too.
        classifier_hash: sha256 over encoder, head, what it was fitted on and what it says of itself.
    """

    model: Model
    config: HeadConfig
    head: Head
    seen: Seen | None
    classifier_hash: str

    @property
    def sources(self) -> Sources:
        """Licence and citation of each source of encoder and head."""
        return self.model.config.provenance.sources | self.config.sources

    @property
    def preprocessing(self) -> Preprocessing:
        """What makes the model's input."""
        return self.model.preprocessing

    def __call__(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        """``(b, outputs)`` of what `Preprocessing.inputs` made of b segments, and their lead masks."""
        return self.head.predict(self.model, windows, valid_samples, lead_mask)

    def predict_packed(
        self,
        signal_uv: npt.NDArray[np.int16],
        valid_samples: npt.NDArray[np.integer],
        lead_mask: npt.NDArray[np.bool_],
    ) -> FloatArray:
        """Probabilities, or numbers, of packed segments.

        Args:
            signal_uv: ``(b, 12, num_samples)`` int16 microvolt.
            valid_samples: ``(b,)``.
            lead_mask: ``(b, 12)``.

        Returns:
            ``(b, outputs)``.
        """
        return self(*self.model.inputs(signal_uv, valid_samples, lead_mask))

    def predict_rows(self, corpus: Corpus, rows: npt.NDArray[np.int64], batch_rows: int) -> FloatArray:
        """Probabilities, or numbers, of chosen rows of a corpus; see `over_rows`."""
        return over_rows(self.predict_packed, corpus, rows, batch_rows, len(self.config.outputs))


def save_classifier(model: Model, config: HeadConfig, head: Head, seen: Seen | None, where: Location) -> None:
    """Write a model folder that holds a head, too; as in `save_model`, ``config.json`` comes last.

    Args:
        model: with trained weights.
        config: what the head says of itself.
        head: its weights.
        seen: what it was fitted on; None if that is what the model says that it has seen.
        where: an empty folder.

    Raises:
        DataError: if the folder is not empty, or the head does not fit outputs and encoder.
    """
    if where.is_file() or where.list_files():
        raise DataError(f"{where} exists and is not empty; choose another --out, or remove it first")
    HEADS[config.kind].of(head.arrays(), config, model.dim)
    files = {
        HEAD_WEIGHTS: save_arrays({n: np.ascontiguousarray(values) for n, values in head.arrays().items()}),
    }
    if seen is not None:
        files |= {
            HEAD_PATIENTS: patients_file(seen.patients),
            HEAD_WAVEFORMS: waveforms_file(seen.waveforms),
        }
    said = config.model_dump(mode="json") | {_ENCODER: model.model_hash}
    said |= {_HASHED[name]: sha256_of(content) for name, content in files.items()}
    said[_WHOLE] = sha256_of(canonical_json(said))
    for name, content in files.items():
        (where / name).write_bytes(content)
    (where / HEAD_CONFIG).write_bytes(json.dumps(said, indent=1).encode() + b"\n")
    state = {name: weight.cpu() for name, weight in model.encoder.state_dict().items()}
    card = head_card(config, model.config.provenance.sources | config.sources, said[_WHOLE])
    save_model(where, model.config, state, sorted(model.patients), model.waveforms, card)


def load_classifier(where: str | Location) -> Classifier:
    """Load a model folder with its head, local or s3://.

    Raises:
        DataError: if it is no model folder, has no head, holds weights that are not finite, or anything in it was
            changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    model = load(folder)
    if not (folder / HEAD_CONFIG).exists():
        raise DataError(
            f"{folder} holds an encoder but no head, so it gives embeddings and no probabilities; fit one with "
            f"`ecgdist fit-head {folder} --task TASK --corpus CORPUS --out DIR`, or train it with `ecgdist finetune`, "
            "and give that model folder"
        )
    config, hashes = _read_config(folder)
    if hashes[_ENCODER] != model.model_hash:
        raise DataError(
            f"{folder}: the head was fitted on another encoder than the one beside it; fit it again"
        )
    content = checked(folder / HEAD_WEIGHTS, hashes[_HASHED[HEAD_WEIGHTS]], HEAD_CONFIG)
    try:
        arrays = load_arrays(content)
    except SafetensorError as error:
        raise DataError(f"{folder / HEAD_WEIGHTS} is damaged: {error}") from error
    _refuse_infinite(folder / HEAD_WEIGHTS, arrays)
    _refuse_infinite(
        folder / WEIGHTS, {name: weight.numpy() for name, weight in model.encoder.state_dict().items()}
    )
    head = HEADS[config.kind].of(arrays, config, model.dim)
    return Classifier(model, config, head, _read_seen(folder, config, hashes), hashes[_WHOLE])


def _refuse_infinite(file: Location, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    bad = sorted(name for name, values in arrays.items() if not np.isfinite(values).all())
    if bad:
        raise DataError(
            f"{file} holds weights that are not finite numbers ({', '.join(bad[:3])}), so nothing can be predicted "
            "with it; take another checkpoint, or train again with a lower learning rate"
        )


def head_config(where: str | Location) -> HeadConfig:
    """What the head in a model folder says of itself; its weights are not read.

    Raises:
        DataError: if it was changed.
        StorageError: if it cannot be read.
    """
    return _read_config(Location.of(where))[0]


def seen_by_head(where: str | Location) -> Seen | None:
    """What the head in a model folder was fitted on; None if there is no head, or its encoder has seen the same.

    Raises:
        DataError: if the head was changed.
        StorageError: if it cannot be read.
    """
    folder = Location.of(where)
    return _read_seen(folder, *_read_config(folder)) if (folder / HEAD_CONFIG).exists() else None


def _read_seen(folder: Location, config: HeadConfig, hashes: dict[str, str]) -> Seen | None:
    if _HASHED[HEAD_PATIENTS] not in hashes:
        return None
    contents = [
        checked(folder / name, hashes[_HASHED[name]], HEAD_CONFIG) for name in (HEAD_PATIENTS, HEAD_WAVEFORMS)
    ]
    return Seen(
        corpus_id=config.corpus_id,
        patient_key_fingerprint=config.patient_key_fingerprint,
        patients=read_patients(contents[0], str(folder / HEAD_PATIENTS)),
        waveforms=read_waveforms(contents[1], str(folder / HEAD_WAVEFORMS)),
    )


def _read_config(folder: Location) -> tuple[HeadConfig, dict[str, str]]:
    """``head.json``, and the hashes in it."""
    path = folder / HEAD_CONFIG
    try:
        values = json.loads(path.read_bytes())
        if (version := values.get("format_version")) != HEAD_FORMAT:
            raise DataError(
                f"{path} has head format {version!r}; this version reads {HEAD_FORMAT}: fit it again"
            )
        whole = sha256_of(canonical_json({name: value for name, value in values.items() if name != _WHOLE}))
        hashes = {name: values.pop(name) for name in (_ENCODER, _HASHED[HEAD_WEIGHTS], _WHOLE)}
        hashes |= {name: values.pop(name) for name in _HASHED.values() if name in values}
        config = build(HeadConfig, values, str(path))
    except (ValueError, KeyError, AttributeError, ConfigError) as error:
        raise DataError(f"{path} is not the configuration of a head: {error}; fit it again") from error
    if hashes[_WHOLE] != whole:
        raise DataError(f"{path} was changed after the head was fitted (its hash does not fit); fit it again")
    return config, hashes
