"""What holds for every arm: the order of a batch, flat leads, nothing hidden, recomputed activations."""

from __future__ import annotations

import pytest
import torch

from ecgdist.objectives.config import ObjectiveConfig
from tests.models.batches import PATCH, TINY
from tests.objectives.whole import PATIENTS, ROWS, View, difference, module_of, views_of, whole
from tests.pretraining.runs import OBJECTIVES

NOTHING = 1e-9
"""A share of tokens so small that none is hidden."""


def all_visible(objective: ObjectiveConfig) -> ObjectiveConfig:
    share = {"reconstruction": "mask_ratio", "wav2vec": "mask_share"}[objective.generative.method]
    generative = objective.generative.model_copy(update={share: NOTHING})
    return objective.model_copy(update={"generative": generative})


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_the_order_of_a_batch_changes_neither_loss_nor_gradient(arm: str) -> None:
    module = module_of(OBJECTIVES[arm])
    views, order = views_of(module), torch.tensor([4, 2, 0, 5, 1, 3])
    expected = whole(module, views)
    found = whole(module, [View(*(part[order] for part in view)) for view in views], PATIENTS[order])
    assert found.loss == pytest.approx(expected.loss, rel=1e-5)
    assert found.parts == pytest.approx(expected.parts, rel=1e-5)
    assert difference(found.gradients, expected.gradients) < 1e-5


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_where_nothing_is_hidden_a_generative_part_adds_nothing(arm: str) -> None:
    objective = all_visible(OBJECTIVES[arm])
    module = module_of(objective)
    found = whole(module, views_of(module))
    generative = {name: value for name, value in found.parts.items() if name != "contrastive"}
    assert set(generative.values()) <= {0.0}
    assert all(gradient.isfinite().all() for gradient in found.gradients.values())
    own = [gradient for name, gradient in found.gradients.items() if name.startswith("generative.")]
    assert bool(own) == (objective.generative.weight > 0)
    assert all(gradient.abs().max() == 0 for gradient in own)
    assert found.loss == pytest.approx(found.parts.get("contrastive", 0.0))
    learns = any(gradient.abs().max() > 0 for gradient in found.gradients.values())
    assert learns == (objective.contrastive.weight > 0)


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_flat_leads_and_flat_records_leave_loss_and_gradient_finite(arm: str) -> None:
    module = module_of(OBJECTIVES[arm])
    views = views_of(module)
    expected = whole(module, views)
    for view in views:
        view.signal[:3, 4] = 0.3  # a constant lead
        view.signal[3] = 0.7  # a constant record
        view.signal[5, :, : 4 * PATCH] = 0  # an electrode that came off for a while
    found = whole(module, views)
    assert found.loss != pytest.approx(expected.loss, rel=1e-6)
    assert found.loss < 2 * expected.loss
    largest = max(gradient.abs().max() for gradient in expected.gradients.values())
    assert all(gradient.abs().max() < 100 * largest for gradient in found.gradients.values())


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_recomputing_activations_changes_neither_loss_nor_gradient(arm: str) -> None:
    usual, frugal = (
        module_of(OBJECTIVES[arm], TINY.model_copy(update={"activation_checkpointing": again}))
        for again in (False, True)
    )
    calls: list[bool] = []
    for module in (usual, frugal):
        block = module.encoder.get_submodule("transformer.blocks.0")
        block.register_forward_pre_hook(lambda *_, is_frugal=module is frugal: calls.append(is_frugal))
    views = views_of(usual)
    expected, found = whole(usual, views), whole(frugal, views)
    assert found.loss == pytest.approx(expected.loss, rel=1e-6)
    assert difference(found.gradients, expected.gradients) < 1e-6
    assert calls.count(True) == calls.count(False) + OBJECTIVES[arm].student_passes, "blocks run once more"


def test_the_batch_of_these_tests_has_what_is_rare() -> None:
    views = views_of(module_of(OBJECTIVES["HL"]))
    assert len(set(PATIENTS.tolist())) < ROWS
    assert all(not view.lead_mask.all() and len(set(view.valid_samples.tolist())) > 1 for view in views)
