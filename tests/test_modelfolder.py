"""A model folder: strict when loaded, and the same embedding whatever form the ECG comes in."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from safetensors.torch import load_file, save_file

import ecgdist
from ecgdist.config import build
from ecgdist.errors import DataError, RecordRefused
from ecgdist.modelcard import ModelConfig, Provenance, model_card
from ecgdist.modelfolder import CARD, CONFIG, PATIENTS, WAVEFORMS, WEIGHTS, Model, load, save_model
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.models.vit import VitEncoder
from ecgdist.preprocessing import Preprocessing
from ecgdist.record import STANDARD_LEADS
from ecgdist.sample import sample_folder
from ecgdist.signals.fingerprint import FINGERPRINT_BYTES
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.conftest import S3Server

RATE_HZ = 500.0
PATIENT_KEYS = ("ab" * 32, "cd" * 32)
PRINTS = np.random.default_rng(0).integers(0, 256, (3, FINGERPRINT_BYTES), dtype=np.uint8)


def model_config(**changes: object) -> ModelConfig:
    provenance = Provenance(
        corpus_id="c0ffee",
        patient_key_fingerprint="1234",
        sources={"ptbxl": {"licence": "CC BY 4.0", "citation": "Wagner et al. 2020"}},
        exclude_splits=("fold9", "fold10"),
        rows=1200,
        steps=30,
        global_batch=64,
        settings={"seed": 7, "objective": {"generative": {"weight": 1.0}}},
        versions={"torch": torch.__version__},
    )
    values = {
        "encoder": EncoderConfig(size="tiny"),
        "preprocessing": Preprocessing(),
        "provenance": provenance,
    }
    return build(ModelConfig, values | changes)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder with weights of seed 3."""
    torch.manual_seed(3)
    weights = VitEncoder(EncoderConfig(size="tiny")).state_dict()
    # A patient with two ECGs is one patient, and a copy is one waveform.
    patients, waveforms = [*PATIENT_KEYS, PATIENT_KEYS[0]], PRINTS[[0, 1, 2, 1]]
    save_model(Location.of(tmp_path / "model"), model_config(), weights, patients, waveforms)
    return tmp_path / "model"


@pytest.fixture(scope="module")
def ecg_mv() -> npt.NDArray[np.float64]:
    """``(12, 5000)``: ten seconds of made-up waves at 500 Hz, all below 20 Hz."""
    random = np.random.default_rng(0)
    time_s = np.arange(5000) / RATE_HZ
    rates_hz, phases = random.uniform(1, 20, (2, 12, 6, 1))
    return 0.3 * np.sin(2 * np.pi * rates_hz * time_s + phases).sum(axis=1)


def similarity(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_what_was_saved_is_what_is_loaded(folder: Path) -> None:
    torch.manual_seed(3)
    encoder = VitEncoder(EncoderConfig(size="tiny"))
    model = ecgdist.load(folder)
    assert isinstance(model, Model)
    assert model.config == model_config()
    assert model.patients == frozenset(PATIENT_KEYS)
    assert {bytes(row) for row in model.waveforms} == {bytes(row) for row in PRINTS}
    assert model.waveforms.shape == PRINTS.shape
    for name, weight in model.encoder.state_dict().items():
        assert torch.equal(weight, encoder.state_dict()[name])
    assert not model.encoder.training
    assert not any(weight.requires_grad for weight in model.encoder.parameters())


def test_the_hash_is_that_of_the_weights(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(4)
    other = VitEncoder(EncoderConfig(size="tiny")).state_dict()
    save_model(Location.of(tmp_path / "other"), model_config(), other, PATIENT_KEYS, PRINTS)
    assert load(folder).model_hash == load(folder).model_hash
    assert load(folder).model_hash != load(tmp_path / "other").model_hash


def test_a_folder_holds_five_files_and_no_pickle(folder: Path) -> None:
    files = [WEIGHTS, CONFIG, CARD, PATIENTS, WAVEFORMS]
    assert sorted(path.name for path in folder.iterdir()) == sorted(files)
    # safetensors begins with the length of its JSON header; pickle and zip do not.
    content = (folder / WEIGHTS).read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert {facts["dtype"] for facts in header.values()} == {"F32"}


def test_the_card_says_what_a_user_must_know(folder: Path) -> None:
    card = (folder / CARD).read_text()
    for fact in (
        "c0ffee",
        "CC BY 4.0",
        "Wagner et al. 2020",
        "250 Hz",
        "high-pass 0.67 Hz, low-pass 40 Hz",
        "fold9, fold10",
        "1,200",
    ):
        assert fact in card
    assert "2 patients" in card
    assert load(folder).model_hash in card


def test_the_card_names_a_licence_that_limits_the_use() -> None:
    sources = {"ikem": {"licence": "CC BY-NC-ND 4.0", "citation": "Sejak et al. 2023"}}
    origin = model_config().provenance.model_copy(update={"sources": sources})
    card = model_card(model_config(provenance=origin), "beef", 2)
    assert (
        "> **RESTRICTED: trained on data whose licence limits what may be done with it: ikem (CC BY-NC"
        in card
    )
    assert "RESTRICTED" not in model_card(model_config(), "beef", 2)


def change_weights(folder: Path, changed: dict[str, torch.Tensor]) -> None:
    """Write other weights and the hash that fits them, as somebody who edits a model would."""
    save_file(changed, folder / WEIGHTS)
    content = json.loads((folder / CONFIG).read_text())
    content["weights_sha256"] = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    (folder / CONFIG).write_text(json.dumps(content))


def test_a_missing_weight_is_an_error(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = sorted(weights)[0]
    change_weights(folder, {n: w for n, w in weights.items() if n != name})
    with pytest.raises(DataError, match=rf"missing .*{re.escape(name)}"):
        load(folder)


def test_an_extra_weight_is_an_error(folder: Path) -> None:
    change_weights(folder, load_file(folder / WEIGHTS) | {"stray": torch.zeros(1)})
    with pytest.raises(DataError, match=r"not known .*stray"):
        load(folder)


def test_a_weight_of_another_shape_is_an_error(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    name = next(n for n, w in weights.items() if w.ndim == 1)
    change_weights(folder, weights | {name: torch.zeros(3)})
    with pytest.raises(DataError, match=rf"{re.escape(name)} has shape \(3,\)"):
        load(folder)


def test_weights_that_do_not_fit_are_not_saved_either(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="do not fit the encoder"):
        save_model(Location.of(tmp_path / "model"), model_config(), {"stray": torch.zeros(1)}, [], PRINTS)
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize("name", [WEIGHTS, PATIENTS, WAVEFORMS])
def test_a_changed_byte_is_noticed(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} differs from its sha256"):
        load(folder)


def test_what_is_not_a_model_folder_is_refused(tmp_path: Path) -> None:
    for where in (tmp_path, tmp_path / "missing"):
        with pytest.raises(DataError, match="is not a model folder"):
            load(where)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", "is not the configuration of a model"),
        ("[]", "is not the configuration of a model"),
        ("{}", "has model format None; this version reads 3"),
        ('{"format_version": 1}', "has model format 1; this version reads 3"),
        ('{"format_version": 3}', "is not the configuration of a model"),
    ],
)
def test_another_config_file_is_refused(folder: Path, content: str, sentence: str) -> None:
    (folder / CONFIG).write_text(content)
    with pytest.raises(DataError, match=sentence):
        load(folder)


def test_leads_in_another_order_are_refused(folder: Path) -> None:
    """They would be fed by position otherwise."""
    content = json.loads((folder / CONFIG).read_text())
    content["leads"].reverse()
    (folder / CONFIG).write_text(json.dumps(content))
    with pytest.raises(DataError, match="in that order"):
        load(folder)


def test_a_half_written_folder_is_none(folder: Path) -> None:
    (folder / CONFIG).unlink()
    with pytest.raises(DataError, match="is not a model folder"):
        load(folder)


def test_an_ecg_is_embedded_whatever_its_unit_and_the_order_of_its_leads(
    folder: Path, ecg_mv: npt.NDArray[np.float64]
) -> None:
    model = load(folder)
    expected = model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS)
    assert expected.shape == (model.dim,)
    assert expected.dtype == np.float32
    backwards = model.embed(ecg_mv[::-1], RATE_HZ, [lead.upper() for lead in STANDARD_LEADS[::-1]])
    np.testing.assert_array_equal(backwards, expected)
    np.testing.assert_array_equal(model.embed(ecg_mv * 1000, RATE_HZ, STANDARD_LEADS, unit="uV"), expected)


def test_an_ecg_of_another_rate_gives_nearly_the_same_embedding(
    folder: Path, ecg_mv: npt.NDArray[np.float64]
) -> None:
    model = load(folder)
    expected = model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS)
    slower = model.embed(ecg_mv[:, ::2], RATE_HZ / 2, STANDARD_LEADS)
    assert similarity(slower, expected) > 0.9999
    wrong_rate = model.embed(ecg_mv[:, ::2], RATE_HZ * 0.4, STANDARD_LEADS)
    assert similarity(wrong_rate, expected) < similarity(slower, expected)


def test_missing_leads_are_allowed_and_matter(folder: Path, ecg_mv: npt.NDArray[np.float64]) -> None:
    model = load(folder)
    some = model.embed(ecg_mv[[0, 1, 6]], RATE_HZ, ["I", "II", "V1"])
    named_otherwise = model.embed(ecg_mv[[0, 1, 6]], RATE_HZ, ["I", "II", "V2"])
    assert np.isfinite(some).all()
    assert not np.array_equal(some, named_otherwise)
    assert not np.array_equal(some, model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS))


def test_an_ecg_that_cannot_be_used_is_refused_with_the_reason(
    folder: Path, ecg_mv: npt.NDArray[np.float64]
) -> None:
    model = load(folder)
    with pytest.raises(RecordRefused, match="unknown_lead"):
        model.embed(ecg_mv[:1], RATE_HZ, ["nasal"])
    with pytest.raises(RecordRefused, match="unknown_unit"):
        model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS, unit="mmHg")
    with pytest.raises(RecordRefused, match="too_short"):
        model.embed(ecg_mv[:, :1000], RATE_HZ, STANDARD_LEADS)


def test_a_packed_segment_embeds_like_its_recording(folder: Path) -> None:
    """No skew: what a corpus holds and what a user has in memory go the same way."""
    model = load(folder)
    source = open_source("ptbxl", Location.of(sample_folder()))
    for listing in list(source.list_records())[:3]:
        recording = source.read_record(listing)
        (segment,) = model.preprocessing.pack_recording(recording)
        packed = model.embed_packed(
            segment.signal_uv[None], np.array([segment.valid_samples]), segment.lead_mask[None]
        )
        direct = model.embed(recording.signal_uv, recording.rate_hz, recording.leads, unit="uV")
        np.testing.assert_array_equal(packed[0], direct)


def test_a_batch_embeds_like_its_rows(folder: Path, ecg_mv: npt.NDArray[np.float64]) -> None:
    model = load(folder)
    full = model.preprocessing.convert(ecg_mv, RATE_HZ, STANDARD_LEADS)[0]
    short = model.preprocessing.convert(ecg_mv[:3, :3000], RATE_HZ, STANDARD_LEADS[:3])[0]
    both = model.embed_packed(
        np.stack([full.signal_uv, short.signal_uv]),
        np.array([full.valid_samples, short.valid_samples]),
        np.stack([full.lead_mask, short.lead_mask]),
    )
    for row, segment in zip(both, (full, short), strict=True):
        alone = model.embed_packed(
            segment.signal_uv[None], np.array([segment.valid_samples]), segment.lead_mask[None]
        )
        np.testing.assert_allclose(row, alone[0], atol=1e-5)


def test_a_long_ecg_is_the_mean_of_its_segments(folder: Path, ecg_mv: npt.NDArray[np.float64]) -> None:
    model = load(folder)
    other = np.roll(ecg_mv, 3, axis=0)
    expected = (
        model.embed(ecg_mv, RATE_HZ / 2, STANDARD_LEADS) + model.embed(other, RATE_HZ / 2, STANDARD_LEADS)
    ) / 2
    # 250 Hz is the model's rate, so the two halves are two segments each, and nothing is resampled.
    both = model.embed(np.concatenate([ecg_mv, other], axis=1), RATE_HZ / 2, STANDARD_LEADS)
    np.testing.assert_allclose(both, expected, atol=1e-6)


def test_the_untrained_control_depends_on_its_seed_alone(
    folder: Path, ecg_mv: npt.NDArray[np.float64]
) -> None:
    model = load(folder)
    state = torch.get_rng_state()
    control = model.untrained(3)
    assert torch.equal(torch.get_rng_state(), state)
    embedded = control.embed(ecg_mv, RATE_HZ, STANDARD_LEADS)
    np.testing.assert_array_equal(embedded, model.untrained(3).embed(ecg_mv, RATE_HZ, STANDARD_LEADS))
    assert not np.array_equal(embedded, model.untrained(4).embed(ecg_mv, RATE_HZ, STANDARD_LEADS))
    # The folder's own weights are those of seed 3.
    np.testing.assert_array_equal(embedded, model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS))
    assert control.patients == frozenset()
    assert control.model_hash == "untrained, seed 3"


@pytest.mark.parametrize(
    "encoder",
    [
        {"tokens": "lead", "patch_samples": 2250, "stem": "linear"},
        {"tokens": "lead_time"},
        {"kind": "xresnet"},
        {"kind": "s4d"},
    ],
    ids=str,
)
def test_every_kind_of_encoder_is_saved_loaded_and_embeds(
    tmp_path: Path, ecg_mv: npt.NDArray[np.float64], encoder: dict[str, object]
) -> None:
    config = model_config(encoder={"size": "tiny"} | encoder)
    torch.manual_seed(3)
    built = build_encoder(config.encoder)
    save_model(Location.of(tmp_path / "model"), config, built.state_dict(), PATIENT_KEYS, PRINTS)
    model = ecgdist.load(tmp_path / "model")
    assert type(model.encoder) is type(built)
    embedded = model.embed(ecg_mv, RATE_HZ, STANDARD_LEADS)
    assert embedded.shape == (built.dim,)
    expected = Model(config, built, "in memory").embed(ecg_mv, RATE_HZ, STANDARD_LEADS)
    np.testing.assert_array_equal(embedded, expected)
    np.testing.assert_array_equal(embedded, model.untrained(3).embed(ecg_mv, RATE_HZ, STANDARD_LEADS))
    one_lead = model.embed(ecg_mv[1:2], RATE_HZ, ["II"])
    assert np.isfinite(one_lead).all()
    assert not np.array_equal(one_lead, embedded)
    assert f"# ECG encoder ({config.encoder.kind}, tiny)" in (tmp_path / "model" / CARD).read_text()


@pytest.mark.s3
def test_a_model_folder_lives_in_object_storage_too(s3: S3Server, folder: Path) -> None:
    where = Location.of(f"s3://ecg/models/{os.urandom(4).hex()}")
    save_model(where, model_config(), load_file(folder / WEIGHTS), PATIENT_KEYS, PRINTS)
    assert load(str(where)).model_hash == load(folder).model_hash
