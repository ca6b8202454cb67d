"""A head in a model folder: strict when loaded, and its card says what a user must know."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.downstream.classifier import (
    HEAD_PATIENTS,
    HEAD_WAVEFORMS,
    HEAD_WEIGHTS,
    load_classifier,
    save_classifier,
    seen_by_head,
)
from ecgdist.downstream.headcard import HEAD_CONFIG, HeadConfig
from ecgdist.downstream.heads import ProbeHead, ReadoutHead
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import NOT_A_DEVICE, restrictions
from ecgdist.modelfolder import CONFIG, load, save_model
from ecgdist.storage import Location
from tests.downstream.classifiers import Made, made
from tests.downstream.test_leaks import model

__all__ = ["made"]

IKEM = {"ikem": {"licence": "CC BY-NC-ND 4.0: no derivative may be shared", "citation": "somebody"}}


@pytest.fixture
def copy(made: Made, tmp_path: Path) -> Path:
    """A classifier folder that a test may change."""
    shutil.copytree(made.classifier, tmp_path / "copy")
    return tmp_path / "copy"


def test_what_was_saved_is_loaded(made: Made) -> None:
    found = load_classifier(made.classifier)
    assert found.model.model_hash == load(made.model).model_hash
    assert found.config.outputs == ("A", "B")
    saved = json.loads((Path(made.classifier) / HEAD_CONFIG).read_text())
    assert saved["classifier_hash"] == found.classifier_hash
    assert saved["encoder_sha256"] == found.model.model_hash
    again = made.folder / "again"
    save_classifier(found.model, found.config, found.head, found.seen, Location.of(again))
    for path in Path(made.classifier).iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes()


def test_the_encoder_alone_is_loaded_as_ever(made: Made) -> None:
    assert load(made.classifier).model_hash == load(made.model).model_hash


def test_a_folder_without_a_head_says_what_to_do(made: Made) -> None:
    with pytest.raises(DataError, match=f"ecgdist fit-head {made.model} --task TASK"):
        load_classifier(made.model)
    assert seen_by_head(made.model) is None


@pytest.mark.parametrize("name", [HEAD_WEIGHTS, HEAD_PATIENTS, HEAD_WAVEFORMS])
def test_a_changed_byte_is_noticed(copy: Path, name: str) -> None:
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} differs from its sha256 in head.json"):
        load_classifier(str(copy))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"thresholds": [0.1, 0.2]}, "was changed after the head was fitted"),
        ({"format_version": 7}, "has head format 7; this version reads 2"),
        ({"colour": "red"}, "unknown key colour"),
        ({"encoder_sha256": "0" * 64}, "was changed after the head was fitted"),
    ],
    ids=str,
)
def test_another_head_json_is_refused(copy: Path, changes: dict[str, object], sentence: str) -> None:
    content = json.loads((copy / HEAD_CONFIG).read_text())
    (copy / HEAD_CONFIG).write_text(json.dumps(content | changes))
    for read in (load_classifier, seen_by_head):
        with pytest.raises(DataError, match=sentence):
            read(str(copy))


def test_what_is_no_json_is_refused(copy: Path) -> None:
    for content in ("{", "[]", "{}"):
        (copy / HEAD_CONFIG).write_text(content)
        with pytest.raises(
            DataError, match=r"head\.json (is not the configuration of a head|has head format)"
        ):
            load_classifier(str(copy))


def test_the_encoder_must_be_the_one_that_the_head_was_fitted_on(
    made: Made, copy: Path, tmp_path: Path
) -> None:
    model(tmp_path / "other", made.corpus, np.arange(3))  # other random weights
    for path in (tmp_path / "other").iterdir():
        shutil.copy(path, copy / path.name)
    with pytest.raises(DataError, match="fitted on another encoder"):
        load_classifier(str(copy))


def test_a_half_written_folder_is_none(copy: Path) -> None:
    (copy / CONFIG).unlink()
    with pytest.raises(DataError, match="is not a model folder"):
        load_classifier(str(copy))


def test_a_folder_that_is_not_empty_is_left_alone(made: Made, tmp_path: Path) -> None:
    found = load_classifier(made.classifier)
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(DataError, match="exists and is not empty"):
        save_classifier(found.model, found.config, found.head, found.seen, Location.of(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_weights_must_fit_outputs_and_encoder(made: Made) -> None:
    config = load_classifier(made.classifier).config
    arrays = {"mean": np.zeros(3), "scale": np.ones(3), "weight": np.zeros((2, 3)), "bias": np.zeros(2)}
    ProbeHead.of(arrays, config, 3)
    for changed, sentence in (
        ({"weight": np.zeros((2, 4))}, "a probe of 2 labels on 3 features has not the weights"),
        ({"more": np.zeros(1)}, "has not the weights"),
        ({"scale": np.zeros(3)}, "divide by a scale of zero"),
    ):
        with pytest.raises(DataError, match=sentence):
            ProbeHead.of(arrays | changed, config, 3)
    readout = config.model_copy(update={"kind": "linear"})
    with pytest.raises(DataError, match=r"the weights of the head do not fit head\.json"):
        ReadoutHead.of({"linear.weight": np.zeros((2, 4), np.float32)}, readout, 3)


@pytest.mark.parametrize("where", ["head", "encoder"])
def test_weights_that_are_not_finite_are_named_with_their_file(
    made: Made, tmp_path: Path, where: str
) -> None:
    found = load_classifier(made.classifier)
    head, folder = found.head, tmp_path / "c"
    assert isinstance(head, ProbeHead)
    if where == "head":
        head = replace(head, bias=np.array([0, np.nan]))
        model, named = found.model, rf"{folder}/head\.safetensors .* \(bias\)"
    else:
        weights = found.model.encoder.state_dict()
        weights["transformer.norm.bias"] = torch.full_like(weights["transformer.norm.bias"], torch.inf)
        save_model(Location.of(tmp_path / "m"), found.model.config, weights, [], found.model.waveforms)
        model, named = load(tmp_path / "m"), rf"{folder}/model\.safetensors .* \(transformer\.norm\.bias\)"
    save_classifier(model, found.config, head, found.seen, Location.of(folder))
    with pytest.raises(DataError, match=named):
        load_classifier(str(folder))
    result = CliRunner().invoke(app, ["predict", str(folder), "ecg.hea"])
    assert result.exit_code == 1
    assert "weights that are not finite numbers" in " ".join(result.stderr.split())


def test_thresholds_must_fit_the_labels(made: Made) -> None:
    values = load_classifier(made.classifier).config.model_dump()
    for thresholds, sentence in (
        ((0.5,), "1 thresholds for the labels A, B"),
        ((0.5, 2.0), "between 0 and 1"),
    ):
        with pytest.raises(ConfigError, match=sentence):
            build(HeadConfig, values | {"thresholds": thresholds})


def test_the_card_says_what_the_classifier_is_and_is_not(made: Made) -> None:
    card, found = (Path(made.classifier) / "README.md").read_text(), load_classifier(made.classifier)
    auroc = found.config.metrics.macro.auroc
    for said in (
        NOT_A_DEVICE,
        found.classifier_hash,
        found.config.command,
        found.config.split_digest,
        f"Macro AUROC {auroc}",
        f"| A | {found.config.thresholds[0]:.4f} | {found.config.metrics.labels[0].auroc} |",
        "12 train, 12 validation, 12 test rows",
    ):
        assert said in card
    assert NOT_A_DEVICE in (Path(made.model) / "README.md").read_text()
    assert "RESTRICTED" not in card


def test_the_card_names_a_licence_that_limits_the_use(made: Made, tmp_path: Path) -> None:
    found = load_classifier(made.classifier)
    config = found.config.model_copy(update={"sources": found.config.sources | IKEM})
    save_classifier(found.model, config, found.head, found.seen, Location.of(tmp_path / "c"))
    card = (tmp_path / "c" / "README.md").read_text()
    assert (
        "**RESTRICTED: trained on data whose licence limits what may be done with it: ikem (CC BY-NC" in card
    )


@pytest.mark.parametrize(
    ("licence", "restricted"),
    [
        ("CC BY 4.0", False),
        ("ODC-By 1.0", False),
        ("ODbL 1.0; the LICENSE.txt that came with your copy decides", False),
        ("as stated by the owner of the files", False),
        ("CC BY-NC-ND 4.0: no derivative, such as a corpus, may be shared", True),
        ("CC-BY-ND 4.0", True),
        ("Non-commercial research only", True),
        ("not for commercial use", True),
    ],
)
def test_restricting_licences_are_known_by_their_words(licence: str, restricted: bool) -> None:
    assert bool(restrictions({"x": {"licence": licence, "citation": ""}})) == restricted
