"""What an evaluation hands on beside its figures: the figures follow from it, record by record."""

from __future__ import annotations

import io
import json
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.bootstrap import Resamples
from ecgdist.downstream.judged import Records
from ecgdist.downstream.label_evaluation import MultilabelEvaluation, compare_labels
from ecgdist.downstream.metrics import bootstrap, summarise
from ecgdist.downstream.number_evaluation import RegressionEvaluation, compare_numbers
from ecgdist.downstream.outcome import Compared
from ecgdist.downstream.predictions import METADATA, Predictions
from ecgdist.downstream.regression import bootstrap_numbers, number_summary
from ecgdist.downstream.scores import Thresholds
from ecgdist.downstream.tasks import MultilabelTask, RegressionTask, load_task
from tests.downstream.tables import PROVENANCE, make_index

INDEX = make_index(300)
INDEX["age"] = np.arange(len(INDEX)) % 70 + 19.0
SEEDS = {"resamples": 100, "seed": 3}


@pytest.fixture(scope="module")
def labels() -> Compared[MultilabelEvaluation]:
    task = load_task("ptbxl-super")
    assert isinstance(task, MultilabelTask)
    rng = np.random.default_rng(0)
    good = task.truth(INDEX) + rng.normal(size=(len(INDEX), 5))
    blind = rng.normal(size=(len(INDEX), 5))
    return compare_labels(INDEX, task, assign_splits(INDEX, task), good, blind, PROVENANCE, **SEEDS)


@pytest.fixture(scope="module")
def numbers() -> Compared[RegressionEvaluation]:
    task = load_task("ptbxl-age")
    assert isinstance(task, RegressionTask)
    rng = np.random.default_rng(0)
    good = INDEX["age"].to_numpy()[:, None] + rng.normal(size=(len(INDEX), 3))
    blind = rng.normal(size=(len(INDEX), 3))
    return compare_numbers(INDEX, task, assign_splits(INDEX, task), good, blind, PROVENANCE, **SEEDS)


def read(found: Compared[Any]) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    table = pq.read_table(io.BytesIO(found.predictions.parquet(found.evaluation)))
    columns = {name: np.array(table[name].to_pylist()) for name in table.column_names}
    return columns, json.loads(table.schema.metadata[METADATA])


def of_file(columns: dict[str, np.ndarray], who: str, names: list[str]) -> np.ndarray:
    return np.stack([columns[f"{who}:{name}"] for name in names], axis=1)


@pytest.mark.parametrize("arm", ["pretrained", "random_encoder"])
def test_every_figure_of_labels_and_its_interval_follows_from_the_file(
    labels: Compared[MultilabelEvaluation], arm: str
) -> None:
    columns, said = read(labels)
    names = said["columns"]
    metrics = getattr(labels.evaluation, arm).metrics
    cuts = Thresholds(
        np.array([row.f1_threshold for row in metrics.labels]),
        np.array([row.specificity_threshold for row in metrics.labels]),
    )
    patients = [f"{number:06d}" for number in columns["patient"].tolist()]
    truth = of_file(columns, "truth", names)
    drawn = Resamples.of(patients, SEEDS["resamples"], SEEDS["seed"])
    boot = bootstrap(truth, of_file(columns, arm, names), cuts, drawn)
    assert summarise(boot, truth, cuts, names) == metrics
    if arm == "pretrained":
        assert said["thresholds"] == cuts.f1.tolist()


@pytest.mark.parametrize("arm", ["pretrained", "random_encoder"])
def test_every_figure_of_a_number_and_its_interval_follows_from_the_file(
    numbers: Compared[RegressionEvaluation], arm: str
) -> None:
    columns, said = read(numbers)
    assert said["columns"] == ["age"]
    assert said["thresholds"] is None
    patients = [f"{number:06d}" for number in columns["patient"].tolist()]
    drawn = Resamples.of(patients, SEEDS["resamples"], SEEDS["seed"])
    found = number_summary(bootstrap_numbers(columns["truth:age"], columns[f"{arm}:age"], drawn))
    assert found == getattr(numbers.evaluation, arm).metrics


def test_the_file_names_each_record_once_with_its_truth_and_proof(
    labels: Compared[MultilabelEvaluation],
) -> None:
    columns, said = read(labels)
    task = load_task("ptbxl-super")
    test = INDEX[assign_splits(INDEX, task).rows("test")]
    assert columns["record_id"].tolist() == test["record_id"].tolist()
    assert set(columns["source"]) == {"ptbxl"}
    assert set(columns["segments"]) == {1}
    assert said["split_digest"] == labels.evaluation.split_digest
    assert said["provenance"] == labels.evaluation.provenance.model_dump()
    for label, codes in task.labels.items():  # type: ignore[attr-defined]
        carried = [not set(codes).isdisjoint(row) for row in test["labels"]]
        assert columns[f"truth:{label}"].tolist() == carried


def test_the_head_gives_the_predictions_of_the_embeddings(
    labels: Compared[MultilabelEvaluation], numbers: Compared[RegressionEvaluation]
) -> None:
    for found in (labels, numbers):
        np.testing.assert_allclose(
            found.head(found.embeddings), found.predictions.judged, rtol=1e-9, atol=1e-12
        )


def test_segments_are_averaged_and_counted() -> None:
    index = INDEX.head(3).iloc[[0, 0, 1, 2]].reset_index(drop=True)
    index["segment"] = [0, 1, 0, 0]
    index["split"] = "fold10"
    splits = type("Splits", (), {"rows": lambda _self, _name: np.array([True, True, True, False])})()
    records = Records.of(index, splits, "test")
    found = Predictions.of(index, records, ["A"], [[1], [0]], {"pretrained": np.array([[0.5], [0.25]])})
    assert found.segments.tolist() == [2, 1]
    assert found.first_row.tolist() == [0, 2]
    assert found.name(1) == f"ptbxl/{INDEX['record_id'][1]}"
    with pytest.raises(
        ValueError, match=r"pretrained has shape \(1, 1\), not \(records, columns\) = \(2, 1\)"
    ):
        Predictions.of(index, records, ["A"], [[1], [0]], {"pretrained": np.array([[0.5]])})


def test_the_columns_are_plain(labels: Compared[MultilabelEvaluation]) -> None:
    schema = pq.read_schema(io.BytesIO(labels.predictions.parquet(labels.evaluation)))
    assert str(schema.field("truth:MI").type) == "bool"
    assert str(schema.field("pretrained:MI").type) == "double"
