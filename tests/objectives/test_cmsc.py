import math

import pytest
import torch
from torch import Tensor

from ecgdist.objectives.cmsc import Cmsc

PATIENTS = torch.tensor([7, 3, 7, 5, 9, 3])


def views(rows: int = 6, dim: int = 4) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(rows, dim, generator=draw), torch.randn(rows, dim, generator=draw)


def slow_cmsc(
    first: Tensor, second: Tensor, patient: list[int], temperature: float, same_positive: bool
) -> float:
    """Half the mean over pairs of one patient of -log softmax over rows, and half that over columns."""
    rows = range(len(first))
    usable = [[bool(first[i].norm() > 0 and second[j].norm() > 0) for j in rows] for i in rows]

    def exponent(i: int, j: int) -> float:
        cosine = first[i] @ second[j] / first[i].norm() / second[j].norm()
        return math.exp(cosine.item() / temperature)

    pairs = [
        (i, j)
        for i in rows
        for j in rows
        if usable[i][j] and (i == j or (same_positive and patient[i] == patient[j]))
    ]

    def in_sum(i: int, j: int) -> bool:
        return usable[i][j] and (i == j or same_positive or patient[i] != patient[j])

    total = 0.0
    for i, j in pairs:
        row = sum(exponent(i, k) for k in rows if in_sum(i, k))
        column = sum(exponent(k, j) for k in rows if in_sum(k, j))
        total -= math.log(exponent(i, j) / row) / 2 + math.log(exponent(i, j) / column) / 2
    return total / len(pairs)


def batch_loss(method: Cmsc, first: Tensor, second: Tensor, patient: Tensor) -> Tensor:
    return torch.cat([method.losses(first, second, patient), method.losses(second, first, patient)]).mean()


@pytest.mark.parametrize("same_positive", [True, False])
@pytest.mark.parametrize("empty", [[], [1], [1, 2]])
def test_the_loss_equals_a_loop_over_pairs(same_positive: bool, empty: list[int]) -> None:
    first, second = views()
    second[empty] = 0
    loss = batch_loss(Cmsc(0.1, same_positive), first, second, PATIENTS)
    expected = slow_cmsc(first, second, PATIENTS.tolist(), 0.1, same_positive)
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_records_without_a_common_patient_are_told_apart_as_in_clip() -> None:
    """Then the loss is half the cross-entropy of rows and half that of columns."""
    first, second = views()
    alone = torch.arange(6)
    scores = torch.nn.functional.normalize(first) @ torch.nn.functional.normalize(second).T / 0.1
    entropy = torch.nn.functional.cross_entropy
    expected = (entropy(scores, alone) + entropy(scores.T, alone)) / 2
    for same_positive in (True, False):
        loss = batch_loss(Cmsc(0.1, same_positive), first, second, alone)
        torch.testing.assert_close(loss, expected)


@pytest.mark.parametrize("same_positive", [True, False])
def test_gradient_is_the_derivative(same_positive: bool) -> None:
    first, second = (view.double().requires_grad_() for view in views())
    method = Cmsc(0.5, same_positive)
    assert torch.autograd.gradcheck(lambda a, b: method.losses(a, b, PATIENTS), (first, second))


def test_permuting_the_batch_permutes_the_losses() -> None:
    first, second = views()
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    losses = Cmsc(0.1).losses(first, second, PATIENTS)
    torch.testing.assert_close(Cmsc(0.1).losses(first[order], second[order], PATIENTS[order]), losses[order])


def test_a_batch_without_signal_has_no_loss_and_no_gradient() -> None:
    first, second = torch.zeros(3, 4, requires_grad=True), torch.zeros(3, 4)
    losses = Cmsc(0.1).losses(first, second, torch.arange(3))
    losses.sum().backward()
    assert losses.tolist() == [0, 0, 0]
    assert first.grad is not None
    assert first.grad.abs().max() == 0
