"""Augmented views: the same for a record on any rank, others for another step, view, position or seed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.views import augment
from ecgdist.signals.augment import AUGMENTATIONS, AugmentConfig, View
from ecgdist.streaming.draws import AUGMENT_STUDENT, AUGMENT_TEACHER, Draws
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.signals.augment.batches import RATE_HZ, VALID, batch

BATCH = len(VALID)
ALL = build(
    AugmentConfig,
    {
        "student": [
            {"name": name, "p": 0.6} | ({"frequencies_hz": [45]} if name == "powerline" else {})
            for name in AUGMENTATIONS
        ]
    },
).student


def augmented(
    view: View, positions: list[int], seed: int = 0, step: int = 0, stream: int = AUGMENT_STUDENT
) -> View:
    view = view._replace(signal_uv=view.signal_uv.clone())
    return augment(view, ALL, RATE_HZ, Draws(seed, 16), stream, step, np.array(positions, np.int64))


def part(view: View, rows: list[int]) -> View:
    return View(*(values[rows] for values in view))


def test_any_order_and_any_split_over_ranks_gives_the_same_bits() -> None:
    view, positions = batch(), [3, 0, 7, 11, 12, 15]
    whole = augmented(view, positions)
    for ranks in ([[0, 1, 2], [3, 4, 5]], [[5, 3, 1, 0, 2, 4]], [[0], [1], [2], [3], [4], [5]]):
        for rows in ranks:
            alone = augmented(part(view, rows), [positions[row] for row in rows])
            assert torch.equal(alone.signal_uv, whole.signal_uv[rows])
            assert torch.equal(alone.lead_mask, whole.lead_mask[rows])


def test_only_the_signal_of_the_given_view_is_overwritten() -> None:
    view = batch()
    valid_samples, lead_mask = view.valid_samples.clone(), view.lead_mask.clone()
    changed = augment(view, ALL, RATE_HZ, Draws(0, 16), AUGMENT_STUDENT, 0, np.arange(BATCH))
    assert changed.signal_uv is view.signal_uv
    assert not torch.equal(changed.lead_mask, lead_mask)
    assert torch.equal(view.lead_mask, lead_mask)
    assert torch.equal(view.valid_samples, valid_samples)


def test_seed_step_view_and_position_change_what_is_drawn() -> None:
    one = part(batch(), [0] * BATCH)
    base = augmented(one, list(range(BATCH))).signal_uv
    assert len({row.numpy().tobytes() for row in base}) == BATCH, "the same ECG at another position"
    for other in (
        augmented(one, list(range(BATCH)), seed=1),
        augmented(one, list(range(BATCH)), step=1),
        augmented(one, list(range(BATCH)), stream=AUGMENT_TEACHER),
    ):
        assert not any(torch.equal(a, b) for a, b in zip(other.signal_uv, base, strict=True))


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_a_record_is_changed_with_its_probability(p: float) -> None:
    ones = View(torch.ones(4000, 12, 4), torch.full((4000,), 4), torch.ones(4000, 12).bool())
    chosen = build(AugmentConfig, {"student": [{"name": "amplitude_scale", "p": p}]}).student
    found = augment(ones, chosen, RATE_HZ, Draws(0, 4000), AUGMENT_STUDENT, 0, np.arange(4000))
    share = float((found.signal_uv != 1).any(dim=(1, 2)).double().mean())
    assert share == (pytest.approx(p, abs=4 * 0.5 / 4000**0.5) if 0 < p < 1 else p)


def test_a_run_on_a_corpus_of_too_low_a_rate_does_not_start(tmp_path: Path) -> None:
    corpus = tmp_path / "corpus"
    write_corpus(corpus, [row(made_ecg(number), f"r{number}") for number in range(8)])
    settings = {
        "corpus": str(corpus),
        "out": str(tmp_path / "run"),
        "data": {"lanes": 2},
        "augment": {"teacher": ["powerline"]},
    }
    with pytest.raises(ConfigError, match="powerline: 60 Hz cannot be told apart at 100 samples per second"):
        RunPlan.of(build(PretrainConfig, settings))
