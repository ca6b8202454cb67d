import math

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.objectives.contrast import METHODS, ContrastiveConfig
from ecgdist.objectives.moco import info_nce

PATIENTS = torch.tensor([7, 3, 7, 5, 9, 3])


def draws(rows: int, keys: int, dim: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(rows, dim, generator=draw), torch.randn(keys, dim, generator=draw)


def slow_info_nce(queries: Tensor, keys: Tensor, positive: list[int], temperature: float) -> list[float]:
    """Row by row, key by key, for records of `PATIENTS`; query i is record positive[i]."""
    losses = []
    for query, own in zip(queries, positive, strict=True):
        scores = []
        for number, key in enumerate(keys):
            if number != own and PATIENTS[number] == PATIENTS[own]:
                continue
            cosine = (query @ key / query.norm() / key.norm()).item()
            scores.append(math.exp(cosine / temperature))
            if number == own:
                numerator = scores[-1]
        losses.append(-2 * temperature * math.log(numerator / sum(scores)))
    return losses


@pytest.mark.parametrize("temperature", [0.07, 0.2, 1.0])
def test_losses_equal_a_loop_over_keys(temperature: float) -> None:
    queries, keys = draws(4, 6)
    positive = [5, 0, 3, 2]
    losses = info_nce(queries, keys, torch.tensor(positive), PATIENTS[positive], PATIENTS, temperature)
    assert losses.tolist() == pytest.approx(slow_info_nce(queries, keys, positive, temperature), rel=1e-5)


def test_another_record_of_the_same_patient_is_no_negative() -> None:
    queries, keys = draws(1, 6)
    own = torch.tensor([0])
    before = info_nce(queries, keys, own, PATIENTS[own], PATIENTS, 0.2)
    keys[2] = queries[0]
    assert torch.equal(info_nce(queries, keys, own, PATIENTS[own], PATIENTS, 0.2), before)
    keys[1] = queries[0]
    assert info_nce(queries, keys, own, PATIENTS[own], PATIENTS, 0.2) > before


def test_a_batch_of_one_patient_has_nothing_to_contrast() -> None:
    queries, keys = draws(3, 3)
    queries.requires_grad_()
    same = torch.zeros(3, dtype=torch.int64)
    losses = info_nce(queries, keys, torch.arange(3), same, same, 0.2)
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert queries.grad is not None
    assert queries.grad.abs().max() == 0


def test_length_does_not_matter_and_order_does_not() -> None:
    queries, keys = draws(6, 6)
    losses = info_nce(queries, keys, torch.arange(6), PATIENTS, PATIENTS, 0.2)
    scaled = info_nce(100 * queries, keys / 9, torch.arange(6), PATIENTS, PATIENTS, 0.2)
    torch.testing.assert_close(scaled, losses)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    shuffled = info_nce(queries[order], keys[order], torch.arange(6), PATIENTS[order], PATIENTS[order], 0.2)
    torch.testing.assert_close(shuffled, losses[order])


def test_a_share_of_the_rows_has_the_losses_it_has_in_the_whole() -> None:
    queries, keys = draws(6, 6)
    whole = info_nce(queries, keys, torch.arange(6), PATIENTS, PATIENTS, 0.2)
    share = info_nce(queries[2:5], keys, torch.arange(2, 5), PATIENTS[2:5], PATIENTS, 0.2)
    torch.testing.assert_close(share, whole[2:5])


def test_a_sharp_temperature_rewards_a_match_more() -> None:
    keys = torch.eye(4)
    alone = torch.arange(4)
    sharp, soft = (info_nce(keys, keys, alone, alone, alone, t)[0] / (2 * t) for t in (0.1, 1.0))
    assert sharp < soft


def test_bfloat16_is_contrasted_in_float32() -> None:
    queries, keys = draws(6, 6)
    losses = info_nce(queries.bfloat16(), keys, torch.arange(6), PATIENTS, PATIENTS, 0.2)
    assert losses.dtype == torch.float32


def test_gradient_is_the_derivative() -> None:
    queries, keys = (part.double().requires_grad_() for part in draws(3, 6))
    positive = torch.tensor([1, 0, 4])
    assert torch.autograd.gradcheck(
        lambda q, k: info_nce(q, k, positive, PATIENTS[positive], PATIENTS, 0.5), (queries, keys)
    )


def test_a_teacher_that_would_speed_up_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"momentum_end 0.9 is below momentum_start 0.99"):
        build(ContrastiveConfig, {"momentum_start": 0.99, "momentum_end": 0.9})


@pytest.mark.parametrize("values", [{"temperature": 0}, {"weight": -1}, {"weight": math.nan}])
def test_a_value_that_means_nothing_is_refused(values: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        build(ContrastiveConfig, values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"method": "mocco"}, "method = 'mocco'"),
        ({"method": "byol", "temperature": 0.1}, "temperature = 0.1, but byol divides by none"),
        ({"method": "moco", "same_patient": "positive"}, "same_patient = positive needs method = cmsc"),
        ({"method": "simclr", "two_views": True}, "simclr has no teacher"),
        ({"method": "cmsc", "momentum_start": 0.9}, "cmsc has no teacher"),
    ],
)
def test_a_setting_of_another_method_is_refused(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(ContrastiveConfig, values)


@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_of_a_method_is_read_again(method: str) -> None:
    config = build(ContrastiveConfig, {"method": method})
    assert build(ContrastiveConfig, config.model_dump(mode="json")) == config
    assert isinstance(config.build(), METHODS[method])


def test_the_loss_of_a_batch_is_that_of_a_published_library() -> None:
    """Without a common patient, MoCo v3 is its InfoNCE times 2 T."""
    queries, keys = draws(6, 6)
    alone = torch.arange(6)
    expected = NTXentLoss(temperature=0.2)(queries, alone, ref_emb=keys, ref_labels=alone.clone())
    losses = info_nce(queries, keys, alone, alone, alone, 0.2)
    assert losses.mean().item() == pytest.approx(2 * 0.2 * expected.item(), rel=1e-5)
