"""The generative arms MTAE, MLAE and ST-MEM, and what encoders that cannot drop tokens are refused."""

import re

import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.layout import Tokens
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule, combine
from ecgdist.objectives.reconstruction import patch_targets
from ecgdist.pretraining.config import PretrainConfig
from tests.models.batches import ENCODER_CASES, VIT_CASES, WINDOW, ragged, windows

ROWS = 4
LIMBS = {"generative": {"group_limb_leads": True}}
ARMS = {"MTAE": ("vit, time", {}), "MLAE": ("vit, lead", {}), "ST-MEM": ("vit, lead_time", {})}
ALL_ARMS = ARMS | {"MLAE, limb group": ("vit, lead", LIMBS)}
FULL_VIEW = {"generative": {"weight": 0}}


def module_of(arm: str) -> PretrainingModule:
    torch.manual_seed(0)
    case, objective = ALL_ARMS[arm]
    return PretrainingModule(VIT_CASES[case], build(ObjectiveConfig, objective), WINDOW)


def batch_for(module: PretrainingModule) -> dict[str, Tensor]:
    signal, valid_samples, lead_mask = ragged(ROWS)
    teacher = module.teacher()
    assert teacher is not None
    number = torch.arange(ROWS)
    return {
        "signal": signal,
        "valid_samples": valid_samples,
        "lead_mask": lead_mask,
        "noise": torch.rand(ROWS, module.num_tokens, generator=torch.Generator().manual_seed(5)),
        "row_weight": torch.ones(ROWS),
        "keys": teacher.keys(windows(ROWS, seed=9), torch.full((ROWS,), WINDOW), lead_mask),
        "positive": number,
        "query_patient": number,
        "key_patient": number,
    }


def inputs(batch: dict[str, Tensor], *more: str) -> list[Tensor]:
    return [batch[name] for name in ("signal", "valid_samples", "lead_mask", "noise", *more)]


@pytest.mark.parametrize("arm", ALL_ARMS)
def test_gradient_reaches_every_weight_and_the_count_is_that_of_the_loss(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    outputs = module(**batch)
    tokens = module.count(*inputs(batch, "row_weight"))
    assert tokens > 0
    loss, _ = combine(outputs, tokens, ROWS, module.config)
    loss.backward()
    idle = [n for n, w in module.named_parameters() if w.grad is None or w.grad.abs().max() == 0]
    assert idle == []


@pytest.mark.parametrize("arm", ALL_ARMS)
def test_padding_and_missing_leads_change_nothing(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    past = torch.arange(WINDOW) >= batch["valid_samples"][:, None, None]
    changed = torch.where(past | ~batch["lead_mask"][:, :, None], windows(ROWS, seed=3), batch["signal"])
    before, after = module(**batch), module(**batch | {"signal": changed})
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("arm", ALL_ARMS)
def test_hidden_samples_change_the_targets_alone(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    _, hidden = module.reconstruct(*inputs(batch))
    changed = torch.where(hidden, windows(ROWS, seed=3), batch["signal"])
    before, after = module(**batch), module(**batch | {"signal": changed})
    assert torch.equal(before["embedding"], after["embedding"])
    assert not torch.equal(before["reconstruction_sum"], after["reconstruction_sum"])


@pytest.mark.parametrize("arm", ALL_ARMS)
def test_reconstruction_of_a_perfect_decoder_is_the_signal(arm: str) -> None:
    module = module_of(arm)
    batch = batch_for(module)
    layout = VIT_CASES[ALL_ARMS[arm][0]].layout
    targets = patch_targets(batch["signal"], batch["valid_samples"], batch["lead_mask"], layout)
    module.generative.decoder.register_forward_hook(lambda *_: targets.values.flatten(2))
    waveform, hidden = module.reconstruct(*inputs(batch))
    torch.testing.assert_close(waveform, batch["signal"], atol=1e-5, rtol=1e-5)
    assert 0.5 < hidden[0].float().mean() < 0.95


@pytest.mark.parametrize("arm", ARMS)
def test_shares_of_a_batch_add_up_to_the_whole(arm: str) -> None:
    module = module_of(arm).double()
    batch = {
        n: part.double() if part.is_floating_point() else part
        for n, part in batch_for(module_of(arm)).items()
    }
    whole = module(**batch)
    shares = [
        module(**{n: part if n.startswith("key") else part[rows] for n, part in batch.items()})
        for rows in ([0], [1, 3], [2])
    ]
    for name in ("reconstruction_sum", "contrastive_sum"):
        torch.testing.assert_close(sum(share[name] for share in shares), whole[name], atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize(("tokens", "kept"), [("time", 3), ("lead", 3), ("lead_time", 36)])
def test_a_masked_student_encodes_a_quarter_of_its_tokens(tokens: Tokens, kept: int) -> None:
    torch.manual_seed(0)
    module = PretrainingModule(VIT_CASES[f"vit, {tokens}"], ObjectiveConfig(), WINDOW)
    shapes: list[int] = []
    module.encoder.stem.register_forward_hook(lambda _, given, __: shapes.append(given[0].shape[1]))
    module(**batch_for(module) | {"row_weight": torch.ones(ROWS)})
    assert shapes[-1] == kept


@pytest.mark.parametrize("kind", ["xresnet", "s4d"])
def test_an_encoder_of_whole_windows_serves_contrast_with_the_full_view(kind: str) -> None:
    torch.manual_seed(0)
    module = PretrainingModule(ENCODER_CASES[kind], build(ObjectiveConfig, FULL_VIEW), WINDOW)
    batch = batch_for(module)
    outputs = module(**batch)
    expected = module.encoder.embed(batch["signal"], batch["valid_samples"], batch["lead_mask"])
    torch.testing.assert_close(outputs["embedding"], expected)
    combine(outputs, torch.zeros(0), ROWS, module.config)[0].backward()
    assert all(weight.grad is not None and weight.grad.abs().max() > 0 for weight in module.parameters())


@pytest.mark.parametrize("kind", ["xresnet", "s4d"])
@pytest.mark.parametrize(
    ("objective", "asked"),
    [
        ({}, "generative.weight = 1."),
        ({"contrastive": {"weight": 0}}, "generative.weight = 1."),
        (FULL_VIEW | {"contrastive": {"student_view": "masked"}}, "contrastive.student_view = masked."),
    ],
)
def test_and_is_refused_to_masked_objectives(kind: str, objective: dict[str, object], asked: str) -> None:
    said = re.escape(
        f"encoder.kind = {kind} encodes whole windows and cannot leave hidden tokens out, so it cannot serve "
        f"{asked} It serves contrastive learning with the full view (generative.weight = 0, "
        "contrastive.student_view = auto or full); masked objectives need encoder.kind = vit"
    )
    with pytest.raises(ConfigError, match=said):
        PretrainingModule(ENCODER_CASES[kind], build(ObjectiveConfig, objective), WINDOW)
    values = {"corpus": "c", "out": "o", "encoder": {"kind": kind}, "objective": objective}
    with pytest.raises(ConfigError, match=said):
        build(PretrainConfig, values)
    assert build(PretrainConfig, values | {"objective": FULL_VIEW}).encoder.kind == kind
