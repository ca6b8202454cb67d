"""A step of fine-tuning is a function of the global batch, and trains what it should, as fast as it should."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from ecgdist.downstream.finetuning.module import layered_groups
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import ENCODERS
from ecgdist.pretraining.group import Group
from ecgdist.streaming.draws import CROP_STUDENT, Draws
from tests.downstream.finetuning.tuned import WEIGHT_DECAY, Setting, module_of, targets_of, tune
from tests.pretraining.processes import Processes
from tests.pretraining.runs import (
    GLOBAL_BATCH,
    ORDER,
    PREPROCESSING,
    largest_difference,
    rank_batch,
    slow,
)

GroupOf = Callable[[int], Processes]
STEPS = 3
TOLERANCE = 1e-5


def plainly(setting: Setting) -> tuple[list[float], list[float], dict[str, np.ndarray]]:
    """Losses, norms and weights by torch alone: one process, one pass over the whole batch."""
    module = module_of(setting)
    adamw = torch.optim.AdamW(
        layered_groups(module, WEIGHT_DECAY, setting.layer_decay), lr=0, betas=(0.9, 0.999)
    )
    losses, norms = [], []
    for step in range(STEPS):
        batch = rank_batch(step, Group())
        valid, lead_mask = torch.from_numpy(batch.valid_samples), torch.from_numpy(batch.lead_mask)
        spare = np.maximum(batch.valid_samples - PREPROCESSING.window_samples, 0) + 1
        start = Draws(ORDER.seed, GLOBAL_BATCH).integers(CROP_STUDENT, step, batch.positions, spare)
        filtered = PREPROCESSING.band_pass(torch.from_numpy(batch.signal_uv), valid)
        signal, count = PREPROCESSING.window(filtered, torch.from_numpy(start), valid, lead_mask)
        targets = torch.from_numpy(targets_of(batch))
        loss = module(signal, count, lead_mask, targets, torch.ones(GLOBAL_BATCH))["loss_sum"] / GLOBAL_BATCH
        adamw.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)))
        for group in adamw.param_groups:
            group["lr"] = setting.learning_rate * group.get("learning_rate_scale", 1.0)
        adamw.step()
        losses.append(float(loss))
    return losses, norms, {name: weight.detach().numpy() for name, weight in module.named_parameters()}


@pytest.mark.parametrize(
    ("world_size", "micro_batch", "zero_stage"),
    [(2, 2, 3), *slow((1, 10, 0), (3, 1, 0), (1, 3, 0), (2, 10, 1), (2, 3, 2), (3, 10, 3))],
)
def test_losses_and_weights_are_those_of_the_whole_batch(
    processes: GroupOf, world_size: int, micro_batch: int, zero_stage: int
) -> None:
    # Adam makes a whole step of a rounding error of a gradient near zero.
    settings = {"layer_decay": 0.7, "kind": "attention", "learning_rate": 5e-5}
    losses, norms, weights = plainly(Setting(**settings))
    setting = Setting(micro_batch=micro_batch, zero_stage=zero_stage, **settings)
    for results, found in processes(world_size).run(tune, setting, STEPS):
        assert [result.loss for result in results] == pytest.approx(losses, rel=TOLERANCE)
        assert [result.gradient_norm for result in results] == pytest.approx(norms, rel=TOLERANCE)
        assert largest_difference(found, weights) < TOLERANCE


@pytest.mark.slow
def test_dropout_is_drawn_for_the_row_and_the_step(processes: GroupOf) -> None:
    """Not for the rank or the micro-batch: any number of them drops the same values."""
    setting = Setting(dropout=0.5, learning_rate=5e-5)
    (results, weights), *_ = processes(1).run(tune, setting, STEPS)
    (plain, _), *_ = processes(1).run(tune, Setting(learning_rate=5e-5), STEPS)
    assert results[0].loss != pytest.approx(plain[0].loss, rel=1e-3)
    spread = Setting(dropout=0.5, learning_rate=5e-5, micro_batch=2)
    for others, found in processes(2).run(tune, spread, STEPS):
        assert [other.loss for other in others] == pytest.approx([r.loss for r in results], rel=TOLERANCE)
        assert largest_difference(found, weights) < TOLERANCE


def test_dropout_keeps_the_mean() -> None:
    module = module_of(Setting(dropout=0.4))
    torch.manual_seed(0)
    signal, valid = torch.randn(1, 12, 200).expand(400, -1, -1), torch.full((400,), 200)
    lead_mask, seeds = torch.ones(400, 12, dtype=torch.bool), torch.arange(400) * 7919
    targets = torch.zeros(400, 3)
    dropped = module(signal, valid, lead_mask, targets, torch.ones(400), seeds)["outputs"]
    whole = module(signal[:1], valid[:1], lead_mask[:1])["outputs"]
    error = dropped.std(dim=0) / 20
    assert (error > 0).all()
    assert ((dropped.mean(dim=0) - whole[0]).abs() < 4 * error).all()


def test_a_frozen_encoder_is_not_the_engines_and_stays_as_it_is(processes: GroupOf) -> None:
    setting = Setting(kind="attention", frozen=True)
    assert all(name.startswith("readout.") for name, _ in module_of(setting).named_parameters())
    (results, weights), *_ = processes(1).run(tune, setting, STEPS)
    before = {name: weight.detach().numpy() for name, weight in module_of(setting).named_parameters()}
    assert weights.keys() == before.keys()
    assert largest_difference(weights, before) > 0
    assert results[-1].loss < results[0].loss


def test_a_frozen_encoder_gets_no_gradient() -> None:
    module = module_of(Setting(kind="attention", frozen=True))
    batch = rank_batch(0, Group())
    signal = torch.randn(GLOBAL_BATCH, 12, 200)
    valid, lead_mask = torch.full((GLOBAL_BATCH,), 200), torch.from_numpy(batch.lead_mask)
    targets = torch.from_numpy(targets_of(batch))
    module(signal, valid, lead_mask, targets, torch.ones(GLOBAL_BATCH))["loss_sum"].backward()
    assert all(weight.grad is None for weight in module.encoder_in_use.parameters())
    assert all(weight.grad is not None for weight in module.parameters())


@pytest.mark.parametrize("kind", ENCODERS)
def test_layers_learn_the_slower_the_lower_they_are(kind: str) -> None:
    encoder = EncoderConfig(kind=kind, size="tiny")
    module = module_of(Setting(encoder=encoder, layer_decay=0.5))
    groups = layered_groups(module, WEIGHT_DECAY, 0.5)
    scale_of = {id(w): group["learning_rate_scale"] for group in groups for w in group["params"]}
    assert len(scale_of) == len(list(module.parameters())), "every weight is in one group"
    layers = module.encoder.num_layers
    scales = {name: scale_of[id(weight)] for name, weight in module.named_parameters()}
    assert {scale for name, scale in scales.items() if name.startswith("readout.")} == {1.0}
    assert {s for name, s in scales.items() if name.startswith("encoder.stem.")} == {0.5 ** (layers + 1)}
    stack = f"encoder.{module.encoder.stack}."
    for layer in range(layers):
        found = {scale for name, scale in scales.items() if name.startswith(f"{stack}{layer}.")}
        assert found == {0.5 ** (layers - layer)}
    assert len(set(scales.values())) == layers + 2


def test_one_rate_needs_no_layers() -> None:
    assert len(layered_groups(module_of(Setting()), WEIGHT_DECAY, 1.0)) == 2
