import math

import pytest
import torch
from pytorch_metric_learning.losses import NTXentLoss
from torch import Tensor

from ecgdist.objectives.simclr import SimClr

PATIENTS = torch.tensor([7, 3, 7, 5, 9, 3])
ALONE = torch.arange(6)


def views(rows: int = 6, dim: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(rows, dim, generator=draw), torch.randn(rows, dim, generator=draw)


def slow_nt_xent(own: Tensor, other: Tensor, patient: Tensor, temperature: float) -> list[float]:
    """Anchor by anchor, key by key; views of zeros are left out."""
    losses = []
    for i in range(len(own)):
        if own[i].norm() == 0 or other[i].norm() == 0:
            losses.append(0.0)
            continue
        scores = {}
        for name, view in (("own", own), ("other", other)):
            for k in range(len(own)):
                is_anchor = name == "own" and k == i
                if is_anchor or view[k].norm() == 0 or (k != i and patient[k] == patient[i]):
                    continue
                cosine = (own[i] @ view[k] / own[i].norm() / view[k].norm()).item()
                scores[name, k] = math.exp(cosine / temperature)
        losses.append(-math.log(scores["other", i] / sum(scores.values())))
    return losses


@pytest.mark.parametrize("temperature", [0.1, 0.5])
@pytest.mark.parametrize("patient", [ALONE, PATIENTS])
def test_losses_equal_a_loop_over_anchors_and_keys(temperature: float, patient: Tensor) -> None:
    own, other = views()
    other[3] = 0
    losses = SimClr(temperature).losses(own, other, patient)
    assert losses.tolist() == pytest.approx(slow_nt_xent(own, other, patient, temperature), rel=1e-5)


def test_the_batch_has_the_loss_of_a_published_library() -> None:
    own, other = views()
    method = SimClr(0.5)
    loss = torch.cat([method.losses(own, other, ALONE), method.losses(other, own, ALONE)]).mean()
    expected = NTXentLoss(temperature=0.5)(torch.cat([own, other]), torch.cat([ALONE, ALONE]))
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_gradient_is_the_derivative() -> None:
    own, other = (view.double().requires_grad_() for view in views())
    assert torch.autograd.gradcheck(lambda a, b: SimClr(0.5).losses(a, b, PATIENTS), (own, other))


def test_permuting_the_batch_permutes_the_losses() -> None:
    own, other = views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    losses = SimClr(0.5).losses(own, other, PATIENTS)
    shuffled = SimClr(0.5).losses(own[order], other[order], PATIENTS[order])
    torch.testing.assert_close(shuffled, losses[order])


def test_a_batch_without_signal_has_no_loss_and_no_gradient() -> None:
    own, other = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4)
    losses = SimClr(0.5).losses(own, other, ALONE[:3])
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert own.grad is not None
    assert own.grad.abs().max() == 0


def test_bfloat16_is_contrasted_in_float32() -> None:
    own, other = views()
    assert SimClr(0.5).losses(own.bfloat16(), other.bfloat16(), ALONE).dtype == torch.float32


@pytest.mark.parametrize("parts", [[[0, 1, 2, 3, 4, 5]], [[0, 3], [1, 5, 2], [4]]])
def test_shares_of_rows_add_up_to_value_and_gradient_of_the_whole(parts: list[list[int]]) -> None:
    """Both views pass in parts, each part with what is cached of the rest."""
    method = SimClr(0.5)
    first, second = (view.requires_grad_() for view in views())
    whole = method.losses(first, second, PATIENTS).sum() + method.losses(second, first, PATIENTS).sum()
    expected = torch.autograd.grad(whole, (first, second))
    total, gradients = 0.0, [torch.zeros(6, 4), torch.zeros(6, 4)]
    for number, view in enumerate((first, second)):
        cached = torch.cat([view, (second, first)[number]]).detach()
        for part in parts:
            share = method.share(view[part], cached, torch.tensor(part), PATIENTS, torch.ones(len(part)))
            total += share.item()
            gradients[number] += torch.autograd.grad(share, view)[0]
    assert total == pytest.approx(whole.item(), rel=1e-6)
    for found, right in zip(gradients, expected, strict=True):
        torch.testing.assert_close(found, right)


def test_a_row_that_only_fills_adds_nothing() -> None:
    first, second = views()
    row = first[:1].clone().requires_grad_()
    share = SimClr(0.5).share(row, torch.cat([first, second]), torch.tensor([0]), PATIENTS, torch.zeros(1))
    share.backward()
    assert share.item() == 0
    assert row.grad is not None
    assert row.grad.abs().max() == 0
