"""A head in a model folder, and what it predicts from files: the same as from a corpus."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.downstream.fithead import folded
from ecgdist.downstream.heads import (
    HEAD_CONFIG,
    HEAD_WEIGHTS,
    NOT_A_DEVICE,
    HeadConfig,
    LinearHead,
    load_classifier,
    restrictions,
    save_classifier,
)
from ecgdist.downstream.predict import predict_recording
from ecgdist.downstream.probe import linear_probe
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelfolder import load, save_model
from ecgdist.models.encoders import build_encoder
from ecgdist.recordfile import FileOptions, read_file
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.storage import Location
from tests.test_modelfolder import PATIENT_KEYS, PRINTS, model_config


def head_config(**changes: object) -> HeadConfig:
    values = {
        "task": "made-up",
        "labels": ["A", "B"],
        "thresholds": [0.3, 0.5],
        "calibration": "none",
        "corpus_id": "c0ffee",
        "sources": {"ikem": {"licence": "CC BY-NC-ND 4.0", "citation": "somebody"}},
        "split_digest": "d",
        "rows": {"train": 3},
        "left_out": {},
        "metrics": {"macro AUROC, test": 0.5},
    }
    return build(HeadConfig, values | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier folder with made-up weights."""
    root = tmp_path_factory.mktemp("head")
    config = model_config()
    weights = build_encoder(config.encoder).state_dict()
    save_model(Location.of(root / "model"), config, weights, PATIENT_KEYS, PRINTS)
    model = load(root / "model")
    head = LinearHead(np.random.default_rng(0).normal(size=(2, model.dim)), np.array([0.1, -0.2]))
    save_classifier(model, head_config(), head, Location.of(root / "classifier"))
    return root


def headers() -> list[Path]:
    return sorted(Path(str(sample_folder())).rglob("*.hea"))


def test_the_folded_head_is_the_probe() -> None:
    random = np.random.default_rng(1)
    x = random.normal(3, [0.1, 5, 40], (300, 3)).astype(np.float32)
    y = (x - 3) / [0.1, 5, 40] @ random.normal(size=(3, 2)) + random.normal(size=(300, 2)) > 0
    probe = linear_probe(x[:200], y[:200], x[200:250], y[200:250], x[250:], ["A", "B"])
    head = folded(probe, x[:200], y[:200])
    np.testing.assert_allclose(head.probabilities(x[250:]), probe.test, atol=1e-9)
    scaler = StandardScaler().fit(x[:200].astype(float))
    fit = LogisticRegression(C=probe.inverse_regularisation, max_iter=5000)
    fit.fit(scaler.transform(x[:200].astype(float)), y[:200, 1])
    by_hand = []
    for row in x[250:].astype(float):
        logit = fit.intercept_[0]
        for w, value, m, s in zip(fit.coef_[0], row, scaler.mean_, scaler.scale_, strict=True):
            logit += w * (value - m) / s
        by_hand.append(1 / (1 + np.exp(-logit)))
    np.testing.assert_allclose(head.probabilities(x[250:])[:, 1], by_hand, atol=1e-9)


def test_what_was_saved_is_loaded_and_the_card_says_its_limits(folder: Path) -> None:
    classifier = load_classifier(str(folder / "classifier"))
    assert classifier.config == head_config()
    assert classifier.model.model_hash == load(folder / "model").model_hash
    card = (folder / "classifier" / "README.md").read_text()
    assert NOT_A_DEVICE in card
    assert "RESTRICTED: trained on data whose licence limits its use: ikem (CC BY-NC-ND 4.0)" in card
    assert classifier.classifier_hash in card
    assert restrictions({"ptbxl": {"licence": "CC BY 4.0", "citation": ""}}) == ""


def test_a_folder_without_a_head_says_what_to_do(folder: Path) -> None:
    with pytest.raises(DataError, match="ecgdist fit-head"):
        load_classifier(str(folder / "model"))


def test_a_changed_head_is_refused(folder: Path) -> None:
    path = folder / "classifier" / HEAD_WEIGHTS
    before = path.read_bytes()
    path.write_bytes(save({"weight": np.zeros((2, 3)), "bias": np.zeros(2)}))
    try:
        with pytest.raises(DataError, match=HEAD_WEIGHTS):
            load_classifier(str(folder / "classifier"))
    finally:
        path.write_bytes(before)
    assert (folder / "classifier" / HEAD_CONFIG).exists()


def test_thresholds_must_fit_the_labels() -> None:
    with pytest.raises(ConfigError, match="1 thresholds for the labels A, B"):
        head_config(thresholds=[0.5])


def test_a_file_gives_what_its_source_gives(folder: Path) -> None:
    classifier = load_classifier(str(folder / "classifier"))
    source = open_source("ptbxl", str(sample_folder()))
    for listing in source.list_records()[:5]:
        expected = source.read_record(listing)
        found = read_file(f"{sample_folder()}/{listing.key}")
        np.testing.assert_array_equal(found.signal_uv, expected.signal_uv)
        assert (found.rate_hz, found.leads) == (expected.rate_hz, expected.leads)
        segment = classifier.model.preprocessing.pack_recording(expected)[0]
        features = classifier.model.embed_packed(
            segment.signal_uv[None], np.array([segment.valid_samples]), segment.lead_mask[None]
        )
        said = [each.probability for each in predict_recording(classifier, found)]
        np.testing.assert_array_equal(said, classifier.head.probabilities(features)[0])


def test_every_format_gives_the_same_signal(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    record = read_file(str(headers()[0]))
    millivolt = record.signal_uv[:3] / 1000
    np.save(tmp_path / "a.npy", millivolt)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["ecg"] = millivolt.T
    np.savetxt(tmp_path / "a.csv", millivolt.T, delimiter=",", header="I,II,III", comments="", fmt="%.17g")
    options = FileOptions(rate_hz=record.rate_hz, leads=("I", "II", "III"), unit="mV", dataset="ecg")
    for name in ("a.npy", "a.h5", "a.csv"):
        found = read_file(str(tmp_path / name), options)
        np.testing.assert_allclose(found.signal_uv, record.signal_uv[:3], atol=1e-9)
        assert found.leads == ("I", "II", "III")
    named = read_file(str(tmp_path / "a.csv"), FileOptions(rate_hz=500, unit="mV"))
    assert named.leads == ("I", "II", "III")


@pytest.mark.parametrize(
    ("left_out", "option"), [("rate_hz", "--rate"), ("unit", "--unit"), ("leads", "--leads")]
)
def test_what_a_file_does_not_say_is_asked_for_by_its_option(
    tmp_path: Path, left_out: str, option: str
) -> None:
    np.save(tmp_path / "a.npy", np.zeros((1, 5000)))
    given = {"rate_hz": 500.0, "unit": "mV", "leads": ("II",)}
    given.pop(left_out)
    with pytest.raises(ConfigError, match=option):
        read_file(str(tmp_path / "a.npy"), build(FileOptions, given))


def test_the_command_predicts_what_it_can_and_names_the_rest(folder: Path, tmp_path: Path) -> None:
    classifier, ecg = str(folder / "classifier"), str(headers()[0])
    missing, plot = str(tmp_path / "none.hea"), tmp_path / "ecg.png"
    command = ["predict", classifier, ecg, missing, "--json", "--plot", str(plot)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["notice"] == NOT_A_DEVICE
    good, bad = said["files"]
    assert len(good["leads"]) == 12
    assert [each["label"] for each in good["labels"]] == ["A", "B"]
    for each in good["labels"]:
        assert each["predicted"] == (each["probability"] >= each["threshold"])
    assert "none.hea" in bad["error"]
    assert missing in result.stderr
    assert (tmp_path / "ecg-1.png").read_bytes().startswith(b"\x89PNG")
    only = CliRunner().invoke(app, ["predict", classifier, ecg])
    assert only.exit_code == 0
    assert NOT_A_DEVICE in only.stdout
