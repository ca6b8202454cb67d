"""`ecgdist export`: one file that agrees with the model, whole or not at all."""

from __future__ import annotations

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from ecgdist import exporting
from ecgdist.cli import app
from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError, EcgdistError, StorageError
from ecgdist.exporting import Embedder, export_any, export_file, in_torch
from ecgdist.modelcard import NOT_A_DEVICE
from ecgdist.modelfolder import Model, load, save_model
from ecgdist.models.encoders import build_encoder
from ecgdist.parity import Floats, shipped_ecgs, variants
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.test_modelfolder import PATIENT_KEYS, PRINTS, model_config

KINDS: list[dict[str, object]] = [
    {},
    {"tokens": "lead", "patch_samples": 900, "stem": "linear"},
    {"tokens": "lead_time"},
    {"kind": "xresnet"},
    {"kind": "s4d"},
]

# Tracing takes seconds, so that the quick tests have the default kind alone.
TRACED = [pytest.param(kind, marks=[pytest.mark.slow] if number else []) for number, kind in enumerate(KINDS)]


@pytest.fixture(scope="module")
def ecgs(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """A few ECGs to check on, so that the tests are quick; the command takes 100."""
    rows = [row(made_ecg(n), f"r{n}") for n in range(4)]
    return write_corpus(tmp_path_factory.mktemp("export") / "corpus", rows)


def made_model(encoder: dict[str, object]) -> Model:
    config = model_config(encoder={"size": "tiny"} | encoder, preprocessing={"pack": {"rate_hz": 100.0}})
    torch.manual_seed(3)
    return Model(config, build_encoder(config.encoder), "in memory")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder."""
    model, where = made_model({}), tmp_path_factory.mktemp("model") / "model"
    save_model(Location.of(where), model.config, model.encoder.state_dict(), PATIENT_KEYS, PRINTS)
    return where


def inputs(model: Model, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Windows of one real ECG with some of its lead subsets."""
    _, found = variants(model, next(shipped_ecgs(model)))
    windows, valid, lead_mask = (each[:count] for each in found)
    return windows, valid, lead_mask


@pytest.mark.parametrize("encoder", TRACED, ids=str)
def test_torch_export_holds_every_kind_of_encoder(
    tmp_path: Path, ecgs: Corpus, encoder: dict[str, object]
) -> None:
    model = made_model(encoder)
    found = export_file(model, Location.of(tmp_path / "encoder.pt2"), "torch.export", ecgs)
    assert (found.records, found.worst < 1e-5) == (4, True)
    extra = {"ecgdist.json": ""}
    loaded = torch.export.load(tmp_path / "encoder.pt2", extra_files=extra).module()
    for count in (1, 7):  # it was traced with three
        given = inputs(model, count)
        with torch.no_grad():
            expected = model.encoder.embed(*given)
            torch.testing.assert_close(loaded(*given), expected, rtol=0, atol=1e-5)
    assert_says_what_it_is(json.loads(extra["ecgdist.json"]), model, "torch.export")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.pt2"]


def assert_says_what_it_is(said: dict[str, object], model: Model, form: str) -> None:
    assert said["format"] == form
    assert said["model_hash"] == model.model_hash
    assert said["preprocessing"] == model.preprocessing.model_dump(mode="json")
    assert said["notice"] == NOT_A_DEVICE
    assert said["sources"] == model.config.provenance.sources
    versions = said["versions"]
    assert isinstance(versions, dict)
    assert versions["torch"] == version("torch")
    assert ("onnx" in versions) == (form == "onnx")
    names = said["inputs"]
    assert isinstance(names, dict)
    assert list(names) == ["windows", "valid_samples", "lead_mask"]
    assert "(batch, 12, 900) float32" in names["windows"]


@pytest.mark.parametrize("encoder", TRACED[:4], ids=str)
def test_onnx_runtime_gives_the_same(tmp_path: Path, ecgs: Corpus, encoder: dict[str, object]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    model, path = made_model(encoder), tmp_path / "encoder.onnx"
    assert export_file(model, Location.of(path), "onnx", ecgs).worst < 1e-5
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for count in (1, 7):
        given = inputs(model, count)
        names = ("windows", "valid_samples", "lead_mask")
        feed = {name: tensor.numpy() for name, tensor in zip(names, given, strict=True)}
        (found,) = session.run(["ecg_embedding"], feed)
        with torch.no_grad():
            np.testing.assert_allclose(found, model.encoder.embed(*given).numpy(), rtol=0, atol=1e-5)
    said = json.loads(session.get_modelmeta().custom_metadata_map["ecgdist"])
    assert_says_what_it_is(said, model, "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["encoder.onnx"]


@pytest.mark.slow
def test_complex_numbers_agree_in_onnx_or_are_refused_in_a_sentence(tmp_path: Path, ecgs: Corpus) -> None:
    """ONNX has no complex numbers, of which an S4D is made; how far they are written otherwise is up to torch."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    path = tmp_path / "encoder.onnx"
    try:
        kept = export_file(made_model({"kind": "s4d"}), Location.of(path), "onnx", ecgs).worst < 1e-5
    except EcgdistError as error:
        kept, said = False, str(error)
        refused = "ONNX cannot hold this encoder of kind s4d" in said or "nothing was kept" in said
    else:
        refused = False
    assert kept != refused
    assert path.exists() == kept


@pytest.mark.parametrize(
    ("more", "checked"),
    [(True, 4), pytest.param(False, 100, marks=pytest.mark.slow)],
    ids=["corpus", "shipped"],
)
def test_the_command_says_what_it_was_checked_on(
    folder: Path, tmp_path: Path, ecgs: Corpus, more: bool, checked: int
) -> None:
    """The ECGs of a corpus, or those that ship with the package."""
    out = tmp_path / "encoder.pt2"
    command = ["export", str(folder), "--out", str(out)]
    corpus = ["--corpus", str(ecgs.location)] if more else []
    result = CliRunner().invoke(app, [*command, "--format", "torch.export", *corpus])
    assert result.exit_code == 0, result.output
    assert f"torch.export file written to {out}; largest difference" in result.stdout
    assert (
        f"in {checked} ECGs, each with 12 leads; the 8 independent leads; the 6 limb leads;" in result.stdout
    )
    again = CliRunner().invoke(app, [*command, "--format", "onnx"])
    assert again.exit_code == 1
    assert "exists and is not empty" in again.stderr


def writer_of(change: object) -> object:
    """A writer whose file runs as the model does, but for `change`."""

    def write(module: Embedder, path: Path, model: Model) -> object:
        path.write_bytes(b"a file")
        own = in_torch(module)

        def run(*given: Tensor) -> Floats:
            return change(own(*given))  # type: ignore[operator]

        return run

    return write


def test_a_file_that_does_not_agree_is_not_kept(
    folder: Path, tmp_path: Path, ecgs: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Location.of(tmp_path / "encoder.pt2")
    monkeypatch.setitem(exporting._WRITERS, "torch.export", writer_of(lambda found: found + 2e-5))
    with pytest.raises(DataError, match="at most 1e-05 is allowed, so nothing was kept"):
        export_file(load(folder), out, "torch.export", ecgs)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setitem(exporting._WRITERS, "torch.export", writer_of(lambda found: found + 5e-6))
    export_file(load(folder), out, "torch.export", ecgs)
    assert (tmp_path / "encoder.pt2").read_bytes() == b"a file"


def test_an_interrupted_export_leaves_nothing(
    folder: Path, tmp_path: Path, ecgs: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(found: Floats) -> Floats:
        raise KeyboardInterrupt

    monkeypatch.setenv("TMPDIR", str(tmp_path / "scratch"))
    monkeypatch.setattr("tempfile.tempdir", None)
    (tmp_path / "scratch").mkdir()
    monkeypatch.setitem(exporting._WRITERS, "onnx", writer_of(interrupt))
    with pytest.raises(KeyboardInterrupt):
        export_file(load(folder), Location.of(tmp_path / "out/encoder.onnx"), "onnx", ecgs)
    assert not (tmp_path / "out").exists()
    assert list((tmp_path / "scratch").iterdir()) == []


def test_a_model_folder_that_was_half_copied_is_none(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload, done = Location.upload, []

    def fail_late(self: Location, local: Path) -> None:
        if len(done) == 4:
            raise StorageError("the disk is full")
        done.append(self.name)
        upload(self, local)

    monkeypatch.setattr(Location, "upload", fail_late)
    with pytest.raises(StorageError):
        exporting._copy_folder(folder, Location.of(tmp_path / "out"))
    assert len(list((tmp_path / "out").iterdir())) == 4
    with pytest.raises(DataError, match=r"is not a model folder: it has no config\.json"):
        load(tmp_path / "out")


@pytest.mark.parametrize("package", ["onnxscript", "onnxruntime", "onnx"])
def test_missing_packages_are_named(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ConfigError, match=rf"needs the package {package}.*pip install 'ecgdist\[onnx\]'"):
        export_any(str(folder), str(tmp_path / "x.onnx"), form="onnx")


def test_what_cannot_be_exported_is_said(folder: Path, tmp_path: Path, ecgs: Corpus) -> None:
    out = str(tmp_path / "x")
    with pytest.raises(
        ConfigError, match=r"--format tflite is not known; accepted: safetensors, torch\.export, onnx"
    ):
        export_any(str(folder), out, form="tflite")
    with pytest.raises(ConfigError, match=r"named \*\.pt2 only; give --out .*x\.pt2"):
        export_any(str(folder), out, form="torch.export")
    with pytest.raises(ConfigError, match="is a model folder already; copy it"):
        export_any(str(folder), out)
    with pytest.raises(DataError, match="is neither a run nor a model folder"):
        export_any(str(tmp_path), out, form="onnx")
    slow = write_corpus(tmp_path / "slow", [row(made_ecg(0, 50.0), "r0")], rate_hz=50.0)
    with pytest.raises(DataError, match="holds 10 s at 50 Hz, the model takes 10 s at 100 Hz"):
        export_file(load(folder), Location.of(out), "torch.export", slow)
    assert not Path(out).exists()
