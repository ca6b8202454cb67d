"""The linear probe: chosen on validation, deterministic, and nothing left out in silence."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from ecgdist.downstream.probe import ProbeResult, linear_probe
from ecgdist.downstream.scores import BoolArray, FloatArray, auroc
from ecgdist.errors import DataError

LABELS = ("A", "B")


def data(rows: int, seed: int) -> tuple[FloatArray, BoolArray]:
    """Feature 0 tells label A, feature 1 label B; eight more are noise, on very different scales."""
    rng = np.random.default_rng(seed)
    truth = rng.random((rows, 2)) < (0.5, 0.3)
    features = rng.normal(size=(rows, 10))
    features[:, :2] += 2.0 * truth
    return features * np.logspace(-3, 3, 10), truth


def probe(**changes: object) -> ProbeResult:
    (train, y_train), (validation, y_validation), (test, _) = data(200, 0), data(80, 1), data(90, 2)
    arguments: dict[str, object] = {
        "features_train": train,
        "y_train": y_train,
        "features_validation": validation,
        "y_validation": y_validation,
        "features_test": test,
        "labels": LABELS,
    }
    return linear_probe(**(arguments | changes))  # type: ignore[arg-type]


def test_probe_finds_what_the_features_tell() -> None:
    result = probe()
    assert result.test.shape == (90, 2)
    assert result.validation.shape == (80, 2)
    assert result.left_out == {}
    assert (auroc(data(90, 2)[1], result.test) > 0.85).all()


def test_probe_equals_a_plain_regression_on_scaled_features() -> None:
    train, truth = data(200, 0)
    scaled = (train - train.mean(axis=0)) / train.std(axis=0)
    test = (data(90, 2)[0] - train.mean(axis=0)) / train.std(axis=0)
    model = LogisticRegression(C=0.1, max_iter=5000).fit(scaled, truth[:, 0])
    found = probe(grid=(0.1,)).test[:, 0]
    np.testing.assert_allclose(found, model.predict_proba(test)[:, 1], atol=1e-6)


def test_probe_is_deterministic_and_the_precision_of_features_does_not_matter() -> None:
    np.testing.assert_array_equal(probe().test, probe().test)
    narrow = probe(features_train=data(200, 0)[0].astype(np.float32))
    np.testing.assert_allclose(narrow.test, probe().test, atol=1e-4)


def test_regularisation_is_chosen_on_validation() -> None:
    alone = {strength: probe(grid=(strength,)).validation_auroc for strength in (1e-4, 1e-2, 1.0)}
    result = probe(grid=tuple(alone))
    assert result.validation_auroc == max(alone.values())
    assert alone[result.inverse_regularisation] == max(alone.values())


def test_test_features_do_not_influence_any_choice() -> None:
    other = probe(features_test=np.zeros((5, 10)))
    np.testing.assert_array_equal(other.validation, probe().validation)
    assert other.inverse_regularisation == probe().inverse_regularisation


def test_constant_feature_is_harmless() -> None:
    features = data(200, 0)[0]
    features[:, 5] = 7.0
    assert np.isfinite(probe(features_train=features).test).all()


def test_label_with_one_class_in_train_is_named_and_left_out() -> None:
    truth = data(200, 0)[1]
    truth[:, 1] = False
    result = probe(y_train=truth)
    assert result.labels == ("A",)
    assert result.left_out == {"B": "none of the 200 training records has it"}
    assert result.test.shape == (90, 1)
    with pytest.raises(DataError, match="no label has both positive and negative training records"):
        probe(y_train=np.zeros((200, 2), dtype=bool))


def test_unusable_validation_is_refused() -> None:
    with pytest.raises(DataError, match="negative validation records"):
        probe(y_validation=np.zeros((80, 2), dtype=bool))


def test_features_that_are_not_finite_are_refused() -> None:
    features = data(90, 2)[0]
    features[3:5, 0] = np.nan
    with pytest.raises(DataError, match="2 of 90 test records have features that are not finite"):
        probe(features_test=features)
