import pytest
import torch
from torch import Tensor, nn

from ecgdist.objectives.byol import Byol


def draws(rows: int, keys: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(rows, 4, generator=draw), torch.randn(keys, 4, generator=draw)


def losses(queries: Tensor, keys: Tensor, positive: Tensor) -> Tensor:
    return Byol().losses(queries, keys, positive, positive, torch.arange(len(keys)))


def test_losses_equal_the_squared_distance_of_unit_vectors() -> None:
    queries, keys = draws(3, 6)
    positive = [5, 0, 3]
    expected = [
        sum(
            (a / query.norm() - b / keys[own].norm()).item() ** 2
            for a, b in zip(query, keys[own], strict=True)
        )
        for query, own in zip(queries, positive, strict=True)
    ]
    assert losses(queries, keys, torch.tensor(positive)).tolist() == pytest.approx(expected, rel=1e-5)


def test_losses_equal_those_of_a_published_library() -> None:
    queries, keys = draws(6, 6)
    expected = 2 * nn.CosineEmbeddingLoss(reduction="none")(queries, keys, torch.ones(6))
    torch.testing.assert_close(losses(queries, keys, torch.arange(6)), expected)


def test_other_keys_do_not_matter() -> None:
    queries, keys = draws(2, 6)
    own = torch.tensor([1, 4])
    before = losses(queries, keys, own)
    keys[[0, 2, 3, 5]] = 7.0
    assert torch.equal(losses(queries, keys, own), before)


def test_gradient_is_the_derivative() -> None:
    queries, keys = (part.double().requires_grad_() for part in draws(3, 3))
    assert torch.autograd.gradcheck(lambda q, k: losses(q, k, torch.arange(3)), (queries, keys))
