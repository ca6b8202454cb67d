"""`ecgdist predict`: from any file the probabilities that an evaluation would give, and a clear word for the others."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from safetensors.torch import load_file
from typer.testing import CliRunner, Result

from ecgdist.cli import app
from ecgdist.downstream.classifier import Classifier, load_classifier, save_classifier
from ecgdist.downstream.evaluate import features
from ecgdist.downstream.predict import predict_recording
from ecgdist.errors import DataError
from ecgdist.modelcard import NOT_A_DEVICE
from ecgdist.modelfolder import WEIGHTS, load, save_model
from ecgdist.record import STANDARD_LEADS, Recording
from ecgdist.storage import Location
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.downstream.classifiers import Made, made
from tests.downstream.test_heads import IKEM
from tests.test_recordfile import headers

__all__ = ["made"]

LONG_S = 27.0
"""Three segments, the last of them padded."""


def predict(made: Made, *arguments: str) -> Result:
    return CliRunner().invoke(app, ["predict", made.classifier, *arguments])


@pytest.fixture(scope="module")
def classifier(made: Made) -> Classifier:
    return load_classifier(made.classifier)


def long_ecg() -> Recording:
    signal_uv = made_ecg(900, duration_s=LONG_S).astype(np.float64)
    return Recording("long", "made", signal_uv, 100.0, STANDARD_LEADS)


def probabilities(classifier: Classifier, recording: Recording) -> list[float]:
    return [each.probability for each in predict_recording(classifier, recording, "f").labels]


def test_a_file_is_judged_as_an_evaluation_judges_a_record(classifier: Classifier, tmp_path: Path) -> None:
    """By the mean probability of its segments, each embedded as out of a corpus; to the last bit."""
    recording = long_ecg()
    segments = classifier.model.preprocessing.pack_recording(recording)
    rows = [
        row(each.signal_uv, "long", segment=each.segment, valid_samples=each.valid_samples)
        for each in segments
    ]
    corpus = write_corpus(tmp_path / "corpus", rows)
    packed = classifier.head.probabilities(features(classifier.model, corpus, np.arange(len(rows)), 64))
    assert len(rows) == 3
    np.testing.assert_array_equal(probabilities(classifier, recording), packed.mean(axis=0))
    said = predict_recording(classifier, recording, "f")
    assert (said.segments, said.seconds, said.leads) == (3, LONG_S, STANDARD_LEADS)


def test_any_rate_and_order_and_some_leads_of_it(classifier: Classifier) -> None:
    ecg = long_ecg()
    expected = probabilities(classifier, ecg)
    backwards = Recording("r", "made", ecg.signal_uv[::-1], 100.0, STANDARD_LEADS[::-1])
    np.testing.assert_array_equal(probabilities(classifier, backwards), expected)
    fast = Recording("r", "made", made_ecg(900, 500.0, LONG_S).astype(float), 500.0, STANDARD_LEADS)
    np.testing.assert_allclose(probabilities(classifier, fast), expected, rtol=0, atol=0.01)
    two = Recording("r", "made", ecg.signal_uv[:2], 100.0, ("i", "MLII"))
    said = predict_recording(classifier, two, "f")
    assert said.leads == ("I", "II")
    assert [each.probability for each in said.labels] != expected


def test_an_ecg_that_the_head_was_fitted_on_is_said_to_be(classifier: Classifier) -> None:
    for number, seen in ((0, True), (1, True), (2, False), (900, False)):  # folds one, two, three; no fold
        ecg = Recording("r", "made", 1.5 * made_ecg(number), 100.0, STANDARD_LEADS)
        assert predict_recording(classifier, ecg, "f").trained_on == seen


def test_one_json_document_and_nothing_else(made: Made, tmp_path: Path) -> None:
    one, two, missing = headers()[0], headers()[1], str(tmp_path / "none.hea")
    result = predict(made, one, missing, two, "--json", "--plot", str(tmp_path / "ecg.png"))
    assert result.exit_code == 1
    said = json.loads(result.stdout)
    assert said["notice"] == NOT_A_DEVICE
    assert [each["file"] for each in said["files"]] == [one, missing, two]
    first, bad, third = said["files"]
    assert [each["label"] for each in first["labels"]] == ["A", "B"]
    for each in (*first["labels"], *third["labels"]):
        assert each["predicted"] == (each["probability"] >= each["threshold"])
    assert first["labels"] != third["labels"]
    assert bad["labels"] == []
    assert "unknown_file: there is no" in bad["error"]
    assert f"error: {missing}: unknown_file" in " ".join(result.stderr.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ecg-1.png", "ecg-3.png"]


def test_what_is_printed_for_a_reader(made: Made) -> None:
    result = predict(made, headers()[0])
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0] == f"{headers()[0]}: {', '.join(STANDARD_LEADS)}; 10 s at 100 Hz"
    assert any("A: 0." in line and "(threshold 0." in line for line in lines)
    assert "they are not calibrated further" in result.stdout
    assert lines[-1] == NOT_A_DEVICE
    assert "RESTRICTED" not in result.stdout


def test_a_licence_that_limits_the_use_is_printed(made: Made, tmp_path: Path) -> None:
    found = load_classifier(made.classifier)
    config = found.config.model_copy(update={"sources": IKEM})
    save_classifier(found.model, config, found.head, found.seen, Location.of(tmp_path / "c"))
    for more in ((), ("--json",)):
        result = CliRunner().invoke(app, ["predict", str(tmp_path / "c"), headers()[0], *more])
        assert result.exit_code == 0, result.output
        assert (
            "RESTRICTED: trained on data whose licence limits what may be done with it: ikem" in result.stdout
        )


def test_other_formats_take_their_options(made: Made, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", made_ecg(3)[:2] / 1000)
    given = ["--rate", "100", "--unit", "mV", "--leads", "I, V1", "--json"]
    result = predict(made, str(tmp_path / "a.npy"), *given)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["files"][0]["leads"] == ["I", "V1"]
    unknown = predict(made, str(tmp_path / "a.npy"), *given, "--leads", "I,nasal")
    assert unknown.exit_code == 1
    error = json.loads(unknown.stdout)["files"][0]["error"]
    assert error.startswith("unknown_lead: lead 'nasal' is not one of I, II, III")
    wrong = predict(made, str(tmp_path / "a.npy"), "--rate", "-5")
    assert wrong.exit_code == 1
    assert "rate_hz = -5" in wrong.stderr


def test_a_plot_that_cannot_be_written_is_the_files_error(made: Made, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = predict(made, headers()[0], "--plot", str(tmp_path / "file/ecg.png"))
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    assert "ecg.png" in result.stderr


def test_the_plot_is_an_ecg_on_paper_with_what_is_said_of_it(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "ecg.png"
    assert predict(made, headers()[0], "--plot", str(path)).exit_code == 0
    pixels = imread(io.BytesIO(path.read_bytes()))
    assert pixels.shape[1] > pixels.shape[0] > 600


def test_a_model_that_gives_no_numbers_for_an_ecg_predicts_nothing(made: Made, tmp_path: Path) -> None:
    """Its weights are finite, and what it makes of the ECG overflows."""
    model = load(made.model)
    weights = load_file(Path(made.model) / WEIGHTS)
    weights["transformer.norm.weight"] = torch.full_like(weights["transformer.norm.weight"], 3e38)
    save_model(Location.of(tmp_path / "large"), model.config, weights, [], model.waveforms)
    good = load_classifier(made.classifier)
    broken = load(tmp_path / "large")
    save_classifier(broken, good.config, good.head, good.seen, Location.of(tmp_path / "c"))
    with pytest.raises(DataError, match="values that are not finite"):
        predict_recording(load_classifier(str(tmp_path / "c")), long_ecg(), "f")
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "c"), headers()[0], "--json"])
    assert result.exit_code == 1
    (said,) = json.loads(result.stdout)["files"]
    assert said["labels"] == []
    assert "values that are not finite" in said["error"]


def test_a_model_of_another_version_is_refused(made: Made, tmp_path: Path) -> None:
    shutil.copytree(made.classifier, tmp_path / "c")
    content = json.loads((tmp_path / "c/config.json").read_text())
    (tmp_path / "c/config.json").write_text(json.dumps(content | {"format_version": 99}))
    result = CliRunner().invoke(app, ["predict", str(tmp_path / "c"), headers()[0]])
    assert result.exit_code == 1
    assert "has model format 99; this version reads 3" in " ".join(result.stderr.split())
