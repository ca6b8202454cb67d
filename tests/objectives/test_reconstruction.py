import re

import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.layout import Layout
from ecgdist.models.patches import token_valid
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.masking import random_mask
from ecgdist.objectives.reconstruction import (
    FLAT_VARIANCE,
    Masking,
    PatchTargets,
    patch_targets,
    reconstruction_sums,
)
from tests.models.batches import PATCH, TOKENS, VIT_CASES, WINDOW, ragged, windows

ALL_LEADS = torch.ones(1, 12, dtype=torch.bool)
TIME = Layout("time", PATCH)


def slow_sums(
    prediction: Tensor, signal: Tensor, lead_mask: Tensor, hidden: Tensor, row_weight: Tensor
) -> tuple[float, float]:
    """The sum of patch errors and their number, patch by patch."""
    error, count = 0.0, 0.0
    for row in range(len(signal)):
        for token in range(hidden.shape[1]):
            samples = signal[row, lead_mask[row], token * PATCH : (token + 1) * PATCH].double().flatten()
            if not hidden[row, token] or row_weight[row] == 0 or samples.var() < FLAT_VARIANCE:
                continue
            target = (samples - samples.mean()) / (samples.var() + 1e-6).sqrt()
            guess = prediction[row, token].reshape(12, PATCH)[lead_mask[row]].double().flatten()
            error += (guess - target).square().mean().item()
            count += 1
    return error, count


def targets_of(signal: Tensor, lead_mask: Tensor, layout: Layout = TIME) -> PatchTargets:
    return patch_targets(signal, torch.full((len(signal),), signal.shape[2]), lead_mask, layout)


def masked_batch() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Signal (one patch of row 3 flat), lead mask, hidden, row weight (row 4 fills) and a prediction."""
    signal, valid_samples, lead_mask = ragged(5)
    signal[3, :, 2 * PATCH : 6 * PATCH] = 0.5
    draw = torch.Generator().manual_seed(1)
    valid = token_valid(valid_samples, TOKENS, PATCH)
    _, _, hidden = random_mask(torch.rand(5, TOKENS, generator=draw), valid, 0.75)
    row_weight = torch.tensor([1.0, 1, 1, 1, 0])
    prediction = torch.randn(5, TOKENS, 12 * PATCH, generator=draw)
    return signal, lead_mask, hidden, row_weight, prediction


def test_sums_equal_a_loop_over_patches() -> None:
    signal, lead_mask, hidden, row_weight, prediction = masked_batch()
    targets = targets_of(signal, lead_mask)
    error, count = reconstruction_sums(prediction, targets, hidden, row_weight)
    slow_error, slow_count = slow_sums(prediction, signal, lead_mask, hidden, row_weight)
    assert error.item() == pytest.approx(slow_error, rel=1e-5)
    assert count.item() == slow_count
    assert 0 < slow_count < hidden.sum()


def test_targets_have_mean_zero_and_variance_one_over_present_leads() -> None:
    signal, _, lead_mask = ragged(5)
    targets = targets_of(signal, lead_mask)
    for row in (0, 2):
        values = targets.values[row, 3][lead_mask[row]]
        assert values.mean().item() == pytest.approx(0, abs=1e-5)
        assert values.var().item() == pytest.approx(1, abs=1e-3)
    assert targets.values[2, :, ~lead_mask[2]].abs().max() == 0


def test_predicting_the_target_costs_nothing() -> None:
    signal, lead_mask, hidden, row_weight, _ = masked_batch()
    targets = targets_of(signal, lead_mask)
    error, _ = reconstruction_sums(targets.values.flatten(2), targets, hidden, row_weight)
    assert error == 0


def test_the_scale_and_offset_of_a_record_do_not_matter() -> None:
    signal = windows(1)
    plain = targets_of(signal, ALL_LEADS).values
    torch.testing.assert_close(targets_of(3 * signal + 2, ALL_LEADS).values, plain, atol=1e-4, rtol=1e-4)


def test_a_constant_lead_beside_others_is_part_of_the_target() -> None:
    signal = windows(1)
    signal[:, 4] = 0.3
    targets = targets_of(signal, ALL_LEADS)
    assert targets.values.isfinite().all()
    assert (targets.variance > FLAT_VARIANCE).all()


@pytest.mark.parametrize("case", ["flat", "all visible", "no leads", "only fills"])
def test_nothing_to_reconstruct_counts_nothing(case: str) -> None:
    signal = torch.full((1, 12, TOKENS * PATCH), 0.7) if case == "flat" else windows(1)
    lead_mask = ALL_LEADS & (case != "no leads")
    hidden = torch.full((1, TOKENS), case != "all visible")
    row_weight = torch.tensor([0.0 if case == "only fills" else 1.0])
    targets = targets_of(signal, lead_mask)
    sums = reconstruction_sums(torch.ones(1, TOKENS, 12 * PATCH), targets, hidden, row_weight)
    assert [part.item() for part in sums] == [0, 0]


def test_bfloat16_predictions_are_summed_in_float32() -> None:
    signal, lead_mask, hidden, row_weight, prediction = masked_batch()
    targets = targets_of(signal.bfloat16(), lead_mask)
    error, _ = reconstruction_sums(prediction.bfloat16(), targets, hidden, row_weight)
    assert targets.values.dtype == error.dtype == torch.float32


def test_gradient_is_the_derivative() -> None:
    draw = torch.Generator().manual_seed(0)
    signal = torch.randn(2, 12, 8, generator=draw, dtype=torch.float64)
    lead_mask = torch.ones(2, 12, dtype=torch.bool)
    lead_mask[1, 3:] = False
    targets: PatchTargets = targets_of(signal, lead_mask, Layout("time", 4))
    hidden = torch.tensor([[True, False], [True, True]])
    prediction = torch.randn(2, 2, 48, generator=draw, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda guess: reconstruction_sums(guess, targets, hidden, torch.ones(2))[0], (prediction,)
    )


def slow_layout_sums(
    prediction: Tensor, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, hidden: Tensor, tokens: str
) -> tuple[float, float]:
    """The same as `slow_sums` where a token is of one lead."""
    length = WINDOW if tokens == "lead" else PATCH
    per_lead = WINDOW // length
    error, count = 0.0, 0.0
    for row in range(len(signal)):
        for token in range(hidden.shape[1]):
            lead, start = token // per_lead, token % per_lead * length
            stop = min(start + length, int(valid_samples[row]))
            samples = signal[row, lead, start:stop].double()
            if not hidden[row, token] or not lead_mask[row, lead] or samples.var() < FLAT_VARIANCE:
                continue
            target = (samples - samples.mean()) / (samples.var() + 1e-6).sqrt()
            error += (prediction[row, token, : stop - start].double() - target).square().mean().item()
            count += 1
    return error, count


@pytest.mark.parametrize("tokens", ["lead", "lead_time"])
def test_sums_of_single_leads_equal_a_loop_over_patches(tokens: str) -> None:
    layout = VIT_CASES[f"vit, {tokens}"].layout
    signal, valid_samples, lead_mask = ragged(5)
    signal[3, 4] = 0.3  # a flat lead
    signal[3, 5, : 3 * PATCH] = 0  # a lead that is flat for a while
    signal[1, :, valid_samples[1] :] = 7  # padding that is no zero
    count = layout.num_tokens(WINDOW)
    draw = torch.Generator().manual_seed(1)
    valid = layout.token_valid(valid_samples, lead_mask, count)
    _, _, hidden = random_mask(torch.rand(5, count, generator=draw), valid, 0.75)
    prediction = torch.randn(5, count, layout.patch_samples, generator=draw)
    targets = patch_targets(signal, valid_samples, lead_mask, layout)
    error, num = reconstruction_sums(prediction, targets, hidden, torch.ones(5))
    slow_error, slow_num = slow_layout_sums(prediction, signal, valid_samples, lead_mask, hidden, tokens)
    assert error.item() == pytest.approx(slow_error, rel=1e-5)
    assert num.item() == slow_num
    assert 0 < slow_num < hidden.sum()


@pytest.mark.parametrize(
    ("tokens", "values", "said"),
    [
        ("time", {"mask": "per_lead"}, "mask = per_lead needs encoder.tokens = lead_time, not time"),
        ("lead", {"mask": "per_lead"}, "not lead:"),
        ("time", {"group_limb_leads": True}, "group_limb_leads needs encoder.tokens = lead, not time"),
        ("lead_time", {"group_limb_leads": True}, "not lead_time"),
    ],
)
def test_a_mask_that_the_tokens_cannot_have_is_refused(
    tokens: str, values: dict[str, object], said: str
) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        Masking(VIT_CASES[f"vit, {tokens}"], build(GenerativeConfig, values), 0.75)


def test_two_masks_at_once_are_refused() -> None:
    with pytest.raises(ConfigError, match="choose one of them"):
        build(GenerativeConfig, {"mask": "per_lead", "group_limb_leads": True})
