from typing import Any

import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.encoders import build_encoder
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule, combine
from ecgdist.objectives.reconstruction import patch_targets
from tests.models.batches import PATCH, TINY, TOKENS, WINDOW, ragged, windows

ROWS = 6
ARMS = {
    "HL": {},
    "GL": {"contrastive": {"weight": 0}},
    "CL": {"generative": {"weight": 0}},
    "masked CL": {"generative": {"weight": 0}, "contrastive": {"student_view": "masked"}},
}


def module_of(arm: str) -> PretrainingModule:
    torch.manual_seed(0)
    return PretrainingModule(TINY, build(ObjectiveConfig, ARMS[arm]), WINDOW)


def batch_for(module: PretrainingModule) -> dict[str, Tensor]:
    """What `forward` takes, for a whole global batch; rows 0 and 4 are of one patient."""
    signal, valid_samples, lead_mask = ragged(ROWS)
    patients = torch.tensor([1, 2, 3, 4, 1, 6])
    batch = {
        "signal": signal,
        "valid_samples": valid_samples,
        "lead_mask": lead_mask,
        "noise": torch.rand(ROWS, TOKENS, generator=torch.Generator().manual_seed(5)),
        "row_weight": torch.ones(ROWS),
    }
    teacher = module.teacher()
    if teacher is not None:
        batch |= {
            "keys": teacher.keys(windows(ROWS, seed=9), torch.full((ROWS,), WINDOW), lead_mask),
            "positive": torch.arange(ROWS),
            "query_patient": patients,
            "key_patient": patients,
        }
    return batch


def rows_of(batch: dict[str, Tensor], rows: Any) -> dict[str, Tensor]:
    """Some rows of a global batch, against the keys of all."""
    return {name: part if name.startswith("key") else part[rows] for name, part in batch.items()}


def tokens_in(module: PretrainingModule, batch: dict[str, Tensor]) -> Tensor:
    names = ("signal", "valid_samples", "lead_mask", "noise", "row_weight")
    return module.count(*(batch[name] for name in names))


def loss_and_gradients(
    module: PretrainingModule, shares: list[dict[str, Tensor]], tokens: Tensor
) -> tuple[float, dict[str, Tensor]]:
    """The loss of a global batch computed share by share, and its gradients."""
    module.zero_grad()
    total = 0.0
    for share in shares:
        loss, _ = combine(module(**share), tokens, ROWS, module.config)
        loss.backward()
        total += loss.item()
    return total, {
        name: weight.grad.clone() for name, weight in module.named_parameters() if weight.grad is not None
    }


def difference(gradients: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference, as a share of the largest gradient."""
    scale = max(gradient.abs().max() for gradient in expected.values())
    return max((gradients[name] - gradient).abs().max() / scale for name, gradient in expected.items()).item()


@pytest.mark.parametrize("arm", ARMS)
def test_gradient_reaches_every_weight_and_no_weight_is_idle(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    _, gradients = loss_and_gradients(module, [batch], tokens_in(module, batch))
    assert gradients.keys() == dict(module.named_parameters()).keys()
    assert [name for name, gradient in gradients.items() if gradient.abs().max() == 0] == []


def test_an_arm_of_weight_zero_is_neither_built_nor_computed() -> None:
    prefixes = {
        arm: {name.split(".")[0] for name, _ in module_of(arm).named_parameters()}
        for arm in ("HL", "GL", "CL")
    }
    assert prefixes == {
        "HL": {"encoder", "generative", "projector", "predictor"},
        "GL": {"encoder", "generative"},
        "CL": {"encoder", "projector", "predictor"},
    }
    assert module_of("GL").teacher() is None
    for arm, absent in {"GL": "contrastive", "CL": "reconstruction"}.items():
        module = module_of(arm)
        outputs = module(**batch_for(module))
        assert not [name for name in outputs if name.startswith(absent)]
        assert combine(outputs, torch.tensor([1.0]), ROWS, module.config)[1].keys().isdisjoint({absent})


def test_the_hybrid_loss_is_the_weighted_sum_of_its_arms() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    config = build(ObjectiveConfig, {"generative": {"weight": 2}, "contrastive": {"weight": 0.5}})
    outputs = module(**batch)
    tokens = tokens_in(module, batch)
    loss, parts = combine(outputs, tokens, ROWS, config)
    assert parts["reconstruction"] == outputs["reconstruction_sum"] / tokens
    assert parts["contrastive"] == outputs["contrastive_sum"] / ROWS
    torch.testing.assert_close(loss, 2 * parts["reconstruction"] + 0.5 * parts["contrastive"])


@pytest.mark.parametrize(("progress", "factor"), [(0.05, 0.25), (0.2, 1.0), (1.0, 1.0)])
def test_a_weight_rises_over_its_share_of_the_run(progress: float, factor: float) -> None:
    sums = {"reconstruction_sum": torch.tensor(6.0), "contrastive_sum": torch.tensor(16.0)}
    config = build(ObjectiveConfig, {"contrastive": {"weight": 0.5, "ramp_share": 0.2}})
    loss, parts = combine(sums, torch.tensor([3.0]), 8, config, progress)
    assert loss.item() == pytest.approx(2 + factor * 0.5 * 2)
    assert parts["contrastive"].item() == 2


def test_the_same_seed_gives_the_same_weights_in_every_arm() -> None:
    hybrid = module_of("HL").state_dict()
    for arm in ("GL", "CL"):
        assert all(torch.equal(weight, hybrid[name]) for name, weight in module_of(arm).state_dict().items())
    torch.manual_seed(0)
    bare = build_encoder(TINY).state_dict()
    assert all(torch.equal(weight, hybrid[f"encoder.{name}"]) for name, weight in bare.items())


@pytest.mark.parametrize(("arm", "encoded"), [("HL", 3), ("GL", 3), ("CL", TOKENS), ("masked CL", 3)])
def test_a_masked_student_encodes_the_visible_patches_only(arm: str, encoded: int) -> None:
    module = module_of(arm)
    shapes: list[tuple[int, ...]] = []
    batch = batch_for(module)
    module.encoder.stem.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    module(**batch)
    assert shapes == [(ROWS, encoded, 12, PATCH)]


def test_hidden_samples_do_not_change_the_contrast() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    _, hidden = module.reconstruct(
        *(batch[name] for name in ("signal", "valid_samples", "lead_mask", "noise"))
    )
    changed = torch.where(hidden, windows(ROWS, seed=3), batch["signal"])
    before, after = module(**batch), module(**batch | {"signal": changed})
    assert torch.equal(before["embedding"], after["embedding"])
    assert torch.equal(before["contrastive_sum"], after["contrastive_sum"])
    assert not torch.equal(before["reconstruction_sum"], after["reconstruction_sum"])


@pytest.mark.parametrize("arm", ARMS)
def test_samples_past_the_end_of_a_record_change_nothing(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    past = torch.arange(WINDOW) >= batch["valid_samples"][:, None, None]
    changed = torch.where(past, windows(ROWS, seed=3), batch["signal"])
    before, after = module(**batch), module(**batch | {"signal": changed})
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("arm", ARMS)
@pytest.mark.parametrize("cuts", [[[0, 1, 2], [3, 4, 5]], [[0], [1, 2], [3, 4, 5]], [[5, 0, 3, 1], [2, 4]]])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_micro_batches_add_up_to_the_whole(
    arm: str, cuts: list[list[int]], dtype: torch.dtype, tolerance: float
) -> None:
    module = module_of(arm)
    batch = {
        name: part.to(dtype) if part.is_floating_point() else part for name, part in batch_for(module).items()
    }
    module.to(dtype)
    tokens = tokens_in(module, batch)
    shares = [rows_of(batch, rows) for rows in cuts]
    assert torch.equal(tokens, sum(tokens_in(module, share) for share in shares))
    whole, gradients = loss_and_gradients(module, [batch], tokens)
    summed, added = loss_and_gradients(module, shares, tokens)
    assert summed == pytest.approx(whole, rel=min(tolerance, 1e-6))
    assert difference(added, gradients) < tolerance


@pytest.mark.parametrize("arm", ARMS)
def test_a_row_that_only_fills_adds_nothing(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    tokens = tokens_in(module, batch)
    share = rows_of(batch, [0, 1, 2, 3, 4, 5, 5])
    share["row_weight"] = torch.tensor([1.0] * ROWS + [0.0])
    share["signal"][ROWS], share["valid_samples"][ROWS], share["lead_mask"][ROWS] = 0, 0, False
    whole, gradients = loss_and_gradients(module, [batch], tokens)
    filled, same = loss_and_gradients(module, [share], tokens)
    assert filled == pytest.approx(whole, rel=1e-6)
    assert difference(same, gradients) < 1e-5


def test_a_record_too_short_for_one_patch_leaves_the_loss_finite() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    batch["valid_samples"][0] = PATCH - 1
    loss, gradients = loss_and_gradients(module, [batch], tokens_in(module, batch))
    assert loss < 10
    assert all(gradient.isfinite().all() and gradient.abs().max() < 100 for gradient in gradients.values())


def test_permuting_the_batch_permutes_embeddings_and_keeps_sums() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    before, after = module(**batch), module(**rows_of(batch, order))
    torch.testing.assert_close(after["embedding"], before["embedding"][order], atol=1e-5, rtol=1e-5)
    for name in ("reconstruction_sum", "contrastive_sum"):
        torch.testing.assert_close(after[name], before[name], atol=1e-5, rtol=1e-5)


def test_a_bfloat16_student_has_float32_losses() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    expected = module(**batch)
    outputs = module.to(torch.bfloat16)(**batch)
    for name in ("reconstruction_sum", "contrastive_sum"):
        assert outputs[name].dtype == torch.float32
        torch.testing.assert_close(outputs[name], expected[name], rtol=0.05, atol=0.05)


def test_reconstruction_leaves_what_was_seen_and_fills_what_was_hidden() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    signal, lead_mask = batch["signal"], batch["lead_mask"]
    waveform, hidden = module.reconstruct(signal, batch["valid_samples"], lead_mask, batch["noise"])
    filled = hidden & lead_mask[:, :, None]
    assert torch.equal(waveform[~filled], signal[~filled])
    assert (waveform[filled] != signal[filled]).float().mean() > 0.99
    assert (hidden == hidden[:, :1]).all()
    assert hidden[:, 0].sum(dim=1).tolist() == [PATCH * patches for patches in (9, 6, 9, 9, 9, 9)]


def test_reconstruction_of_a_perfect_decoder_is_the_signal() -> None:
    module = module_of("HL")
    batch = batch_for(module)
    layout = TINY.layout
    perfect = patch_targets(
        batch["signal"], batch["valid_samples"], batch["lead_mask"], layout
    ).values.flatten(2)
    module.generative.decoder.register_forward_hook(lambda *_: perfect)
    names = ("signal", "valid_samples", "lead_mask", "noise")
    waveform, _ = module.reconstruct(*(batch[name] for name in names))
    torch.testing.assert_close(waveform, batch["signal"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"generative": {"weight": 0}, "contrastive": {"weight": 0}}, "both 0"),
        ({"generative": {"weight": -0.5}}, "generative.weight = -0.5"),
        ({"generative": {"mask_ratio": 1.0}}, "generative.mask_ratio = 1.0"),
        ({"contrastive": {"student_view": "full"}}, "student_view = full needs generative.weight = 0"),
        ({"contrastive": {"momentun_end": 1.0}}, "did you mean momentum_end"),
    ],
)
def test_a_configuration_that_means_nothing_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(ObjectiveConfig, values)


def test_wrong_use_is_refused_with_what_to_do() -> None:
    hybrid, contrastive = module_of("HL"), module_of("CL")
    batch = batch_for(hybrid)
    with pytest.raises(TrainingError, match="compute the keys"):
        hybrid(**batch | {"keys": None})
    with pytest.raises(DataError, match="windows of 300 samples and was given 325"):
        hybrid(**batch | {"signal": torch.zeros(ROWS, 12, WINDOW + PATCH)})
    with pytest.raises(ConfigError, match="nothing can be reconstructed"):
        contrastive.reconstruct(*(batch[name] for name in ("signal", "valid_samples", "lead_mask", "noise")))
    with pytest.raises(ConfigError, match="310 samples"):
        PretrainingModule(TINY, ObjectiveConfig(), WINDOW + 10)
