from __future__ import annotations

import numpy as np
import pytest

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.bootstrap import holm
from ecgdist.downstream.comparison import Candidate, Comparison, Training, compare_arms
from ecgdist.downstream.evaluate import Setup
from ecgdist.downstream.evaluation import Features
from ecgdist.downstream.retrieval import Retrieval
from ecgdist.downstream.tasks import load_task
from ecgdist.errors import DataError
from ecgdist.report.comparison import draw_comparison
from ecgdist.report.curves import svg
from tests.downstream.tables import make_index

INDEX = make_index(num_patients=300)
TASK = load_task("ptbxl-super")
TRUTH = TASK.truth(INDEX)
SEEDS = (0, 1)


class NamedCorpus:
    """What a comparison asks a corpus for."""

    corpus_id = "0123"


def setup() -> Setup:
    splits = assign_splits(INDEX, TASK)
    return Setup(NamedCorpus(), INDEX, TASK, splits, ("an open question",), "d1ge57")  # type: ignore[arg-type]


def candidate(arm: str, seed: int, signal: float) -> tuple[Candidate, Features]:
    """Noise, with as much of the truth in it as `signal` says."""
    noise = np.random.default_rng([seed, len(arm)]).normal(size=(len(INDEX), 8))
    noise[:, : TRUTH.shape[1]] += signal * TRUTH
    return Candidate(arm, seed, f"{arm}{seed}", Retrieval(signal / 100, 64, 64), ("a warning",)), noise


def comparison(**signal: float) -> Comparison:
    candidates = [candidate(arm, seed, value) for arm, value in signal.items() for seed in SEEDS]
    return compare_arms(
        setup(),
        candidates,
        dict.fromkeys(signal),
        {"perfect": Training(ecg_per_s=100, minutes=2)},
        {"steps": 3},
        resamples=200,
    )


def test_a_perfect_encoder_is_clearly_ahead_of_a_random_one() -> None:
    result = comparison(random=0.0, perfect=50.0)
    random, perfect = result.arms
    assert perfect.macro.auroc.value == pytest.approx(1.0)
    assert abs(random.macro.auroc.value - 0.5) < 0.15
    (difference,) = result.differences
    assert (difference.arm, difference.other) == ("perfect", "random")
    assert difference.is_clear
    assert difference.macro.auroc.value == pytest.approx(perfect.macro.auroc.value - random.macro.auroc.value)


def test_an_arm_is_the_mean_of_its_seeds() -> None:
    result = comparison(some=1.0)
    (arm,) = result.arms
    assert arm.seeds == SEEDS
    assert len(set(arm.auroc_by_seed)) == 2
    assert arm.macro.auroc.value == pytest.approx(np.mean(arm.auroc_by_seed))
    assert arm.macro.auroc.low < arm.macro.auroc.value < arm.macro.auroc.high
    assert arm.retrieval_by_seed == (0.01, 0.01)
    assert result.differences == ()


def test_two_arms_of_the_same_encoders_do_not_differ() -> None:
    pairs = [candidate("arm", seed, 1.0) for seed in SEEDS]
    renamed = [(Candidate("mra", one.seed, one.model_hash, None), features) for one, features in pairs]
    result = compare_arms(setup(), [*pairs, *renamed], {"arm": None, "mra": None}, {}, {}, resamples=100)
    (difference,) = result.differences
    auroc = difference.macro.auroc
    assert (auroc.value, auroc.low, auroc.high) == (0, 0, 0)
    assert (difference.p_value, difference.p_holm) == (1, 1)
    assert not difference.is_clear
    assert result.arms[1].retrieval_by_seed is None


def test_p_values_are_corrected_for_the_number_of_pairs() -> None:
    result = comparison(random=0.0, some=1.0, perfect=50.0)
    found = {(one.arm, one.other): one for one in result.differences}
    assert len(found) == 3
    least = 2 / 201
    assert found["perfect", "random"].p_value == pytest.approx(least)
    assert found["perfect", "random"].p_holm >= 3 * least - 1e-12
    assert [one.p_holm for one in result.differences] == holm([one.p_value for one in result.differences])


def test_too_few_resamples_for_the_pairs_are_said() -> None:
    pairs = [candidate(f"arm{'x' * n}", 0, 1.0) for n in range(4)]
    arms = {one.arm: None for one, _ in pairs}
    few = compare_arms(setup(), pairs, arms, {}, {}, resamples=200)
    assert any("200 resamples cannot tell any of 6 pairs apart" in warning for warning in few.warnings)
    enough = compare_arms(setup(), pairs, arms, {}, {}, resamples=250)
    assert not any("cannot tell" in warning for warning in enough.warnings)


def test_an_arm_without_encoders_is_refused() -> None:
    with pytest.raises(DataError, match="no encoder of missing"):
        compare_arms(
            setup(), [candidate("arm", 0, 1.0)], {"arm": None, "missing": None}, {}, {}, resamples=100
        )


def test_the_text_has_every_arm_pair_and_warning() -> None:
    result = comparison(random=0.0, perfect=50.0)
    text = result.to_markdown()
    assert "| perfect | 1.000 (1.000 to 1.000) | 1.000 1.000 |" in text
    assert "| 100 | 2.0 |" in text
    assert "| perfect - random |" in text
    assert "| they differ |" in text
    assert "corrected for the 1 pairs" in text
    for warning in ("an open question", "a warning", "the sample is small"):
        assert text.count(warning) == 1
    assert [len(table.rows) for table in result.tables()] == [2, 1]


def test_the_plot_shows_every_arm() -> None:
    figure = draw_comparison(comparison(random=0.0, perfect=50.0))
    (panel,) = figure.axes
    assert [label.get_text() for label in panel.get_yticklabels()] == ["random", "perfect"]
    seeds = [line.get_xdata() for line in panel.lines if line.get_marker() == "|"]
    assert [len(values) for values in seeds] == [2, 2]
    assert svg(figure).startswith(b"<?xml")
