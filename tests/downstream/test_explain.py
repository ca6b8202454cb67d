"""Confusion, worst errors, occlusion and map: each against a slow loop."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.downstream.confusion import confusion
from ecgdist.downstream.embedding_map import MOST_RECORDS, embedding_map
from ecgdist.downstream.occlusion import PLACES_PER_WINDOW, WINDOW_S, occlude
from ecgdist.downstream.predictions import FloatArray, Predictions
from ecgdist.downstream.worst import most_positives, worst_errors
from ecgdist.preprocessing import Preprocessing
from tests.corpus.corpora import made_ecg


def made(truth: list[list[float]], judged: list[list[float]], thresholds: list[float] | None) -> Predictions:
    count = len(truth)
    return Predictions(
        columns=tuple("ABCDE"[: len(truth[0])]),
        source=("made",) * count,
        record_id=tuple(map(str, range(count))),
        patient=np.arange(count),
        first_row=np.arange(count),
        segments=np.ones(count, dtype=np.int64),
        truth=np.array(truth, dtype=np.float64),
        arms={"pretrained": np.array(judged)},
        thresholds=None if thresholds is None else np.array(thresholds),
    )


def test_confusion_counts_every_pair_of_labels_like_a_loop() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.random((200, 4)) < 0.3, rng.random((200, 4)) < 0.4
    found = confusion(tuple("ABCD"), truth, predicted)
    for i in range(4):
        assert found.positives[i] == sum(row[i] for row in truth)
        assert found.nothing[i] == sum(t[i] and not any(p) for t, p in zip(truth, predicted, strict=True))
        assert found.false_alarms[i] == sum(
            not any(t) and p[i] for t, p in zip(truth, predicted, strict=True)
        )
        for j in range(4):
            both = [(t, p) for t, p in zip(truth, predicted, strict=True) if t[i] and p[j]]
            assert found.together[i, j] == len(both)
            assert found.wrong[i, j] == sum(not t[j] for t, _ in both)
    assert found.unlabelled == sum(not any(t) for t in truth) > 0
    assert found.silent == sum(not any(t) and not any(p) for t, p in zip(truth, predicted, strict=True))


def test_worst_errors_are_the_most_certain_ones_of_the_most_frequent_labels() -> None:
    rng = np.random.default_rng(1)
    truth = (rng.random((300, 4)) < [0.1, 0.4, 0.2, 0]).astype(float)
    judged, cuts = rng.random((300, 4)), [0.5, 0.6, 0.7, 0.5]
    predictions = made(truth.tolist(), judged.tolist(), cuts)
    assert most_positives(predictions, 3) == [1, 2, 0]  # D has no positives
    found = worst_errors(predictions, 2)
    assert [(each.column, each.kind) for each in found] == [
        (1, "false positive"), (1, "false negative"), (2, "false positive"), (2, "false negative"),
    ]  # fmt: skip
    for each in found:
        wrong = [
            n
            for n in range(300)
            if (judged[n, each.column] >= cuts[each.column]) != truth[n, each.column]
            and truth[n, each.column] == (each.kind == "false negative")
        ]
        key = (
            (lambda n, c=each.column: judged[n, c])
            if each.kind == "false positive"
            else (lambda n, c=each.column: -judged[n, c])
        )
        assert each.record == max(wrong, key=key)


def test_a_label_without_errors_has_none_and_a_number_has_one_to_each_side() -> None:
    right = made([[1], [0], [1]], [[0.9], [0.2], [0.8]], [0.5])
    assert worst_errors(right) == []
    number = made([[50], [60], [70]], [[55], [75], [40]], None)
    assert [(each.kind, each.record) for each in worst_errors(number)] == [
        ("overestimated", 1), ("underestimated", 2),
    ]  # fmt: skip


class Weighted:
    """Predicts a weighted sum over what it is given, so that what a place is worth can be reckoned by hand."""

    def __init__(self, window_s: float) -> None:
        device = {"window_s": window_s, "highpass_hz": None, "lowpass_hz": None}
        self.preprocessing = build(Preprocessing, {"pack": {"rate_hz": 100}, "device": device})
        self.weight = torch.from_numpy(
            np.random.default_rng(0).normal(size=(12, self.preprocessing.window_samples))
        )

    def __call__(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> FloatArray:
        summed = (windows.double() * self.weight).sum((2, 3)).mean(1)
        return torch.stack([torch.zeros_like(summed), summed], dim=1).numpy()


@pytest.mark.parametrize(("window_s", "valid"), [(9.0, 1000), (10.0, 1000), (9.0, 730), (3.0, 1000)])
def test_occlusion_equals_a_loop_over_leads_and_windows(window_s: float, valid: int) -> None:
    predictor, signal = Weighted(window_s), made_ecg(3)
    signal[:, valid:] = 0
    mask = np.ones(12, dtype=np.bool_)
    mask[7], signal[7] = False, 0
    found = occlude(predictor, signal, valid, mask, 1)
    place = round(WINDOW_S * 100 / PLACES_PER_WINDOW)
    assert found.place_samples == place == 20

    pre = predictor.preprocessing
    arguments = torch.tensor([valid]), torch.from_numpy(mask)[None]
    windows, _ = pre.inputs(torch.from_numpy(signal)[None], *arguments)
    starts = pre.window_starts(arguments[0])[0].tolist()
    places = -(-valid // place)
    assert found.change.shape == (12, places)
    assert np.isnan(found.change[7]).all()
    assert found.prediction == pytest.approx(float(predictor(windows, *arguments)[0, 1]))
    for lead in (0, 6, 11):
        changes: list[list[float]] = [[] for _ in range(places)]
        for begin in range(places - PLACES_PER_WINDOW + 1):
            copy = windows.clone()
            for number, start in enumerate(starts):
                for sample in range(begin * place, min((begin + PLACES_PER_WINDOW) * place, valid)):
                    if 0 <= sample - start < pre.window_samples:
                        copy[0, number, lead, sample - start] = 0
            change = float(predictor(copy, *arguments)[0, 1]) - found.prediction
            for each in range(PLACES_PER_WINDOW):
                changes[begin + each].append(change)
        for number in range(places):
            span = range(number * place, min((number + 1) * place, valid))
            seen = any(0 <= sample - start < pre.window_samples for sample in span for start in starts)
            wanted = np.mean(changes[number]) if seen else np.nan
            assert found.change[lead, number] == pytest.approx(wanted, abs=1e-6, nan_ok=True)


def test_places_between_the_windows_of_a_model_are_not_seen() -> None:
    mask = np.ones(12, dtype=np.bool_)
    found = occlude(Weighted(3.0), made_ecg(3), 1000, mask, 1)
    assert np.isnan(found.change[0]).tolist() == [15 <= number < 35 for number in range(50)]


def test_the_map_keeps_neighbours_and_is_the_same_for_the_same_seed() -> None:
    rng = np.random.default_rng(0)
    group = np.arange(60) % 3
    embeddings = rng.normal(size=(60, 8)) + 20 * np.eye(8)[group]
    found = embedding_map(embeddings, 5)
    assert found.record.tolist() == list(range(60))
    distance = np.linalg.norm(found.place[:, None] - found.place[None], axis=2)
    np.fill_diagonal(distance, np.inf)
    assert (group[distance.argmin(axis=1)] == group).all()
    np.testing.assert_array_equal(found.place, embedding_map(embeddings, 5).place)
    assert "perplexity 19.7, seed 5" in found.method
    with pytest.raises(ValueError, match="9 records are too few"):
        embedding_map(embeddings[:9], 5)


def test_of_many_records_a_map_shows_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecgdist.downstream.embedding_map.MOST_RECORDS", 30)
    embeddings = np.random.default_rng(0).normal(size=(100, 5))
    found = embedding_map(embeddings, 1)
    assert len(found.record) == 30 < MOST_RECORDS
    assert len(set(found.record.tolist())) == 30
    assert found.method.startswith("30 of 100 records drawn by chance, ")
    assert embedding_map(embeddings, 2).record.tolist() != found.record.tolist()
