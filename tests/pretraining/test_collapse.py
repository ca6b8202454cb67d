import math

import pytest
import torch

from ecgdist.pretraining import collapse
from ecgdist.pretraining.collapse import ROWS, Spread


def measure(embeddings: torch.Tensor) -> Spread:
    spread = collapse.measure(embeddings)
    assert spread is not None
    return spread


def test_random_directions_are_spread_over_all_dimensions() -> None:
    spread = measure(torch.randn(256, 8, generator=torch.Generator().manual_seed(0)))
    assert spread.embedding_std == pytest.approx(1, abs=0.02)
    assert spread.effective_rank == pytest.approx(8, abs=0.1)
    assert not spread.is_collapsed


def test_a_cosine_of_99_percent_is_a_standard_deviation_of_one_tenth() -> None:
    turn = math.acos(0.99)
    spread = measure(torch.tensor([[1.0, 0.0], [math.cos(turn), math.sin(turn)]] * 4))
    # Of two values alone, the deviation from their mean is half of their distance, sqrt(2 - 2 * 0.99).
    assert spread.embedding_std == pytest.approx(math.sqrt(0.02) / 2, rel=1e-3)
    assert spread.effective_rank == pytest.approx(1, rel=1e-3)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_one_direction_for_all_is_a_collapse_whatever_its_length(scale: float) -> None:
    noise = torch.randn(64, 16, generator=torch.Generator().manual_seed(0))
    assert measure(scale * (torch.ones(64, 16) + 1e-3 * noise)).is_collapsed


def test_one_dimension_is_a_collapse_though_records_differ() -> None:
    sides = torch.randn(64, 1, generator=torch.Generator().manual_seed(0))
    spread = measure(sides * torch.randn(1, 16, generator=torch.Generator().manual_seed(1)))
    assert spread.embedding_std > 0.5
    assert spread.effective_rank == pytest.approx(1, abs=1e-3)
    assert spread.is_collapsed


def test_records_without_signal_do_not_count() -> None:
    embeddings = torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    padded = torch.cat([torch.zeros(3, 4), embeddings])
    assert measure(padded) == measure(embeddings)
    assert collapse.measure(padded[:4]) is None


def test_no_more_than_so_many_records_are_looked_at() -> None:
    embeddings = torch.randn(ROWS + 9, 4, generator=torch.Generator().manual_seed(0))
    assert measure(embeddings) == measure(embeddings[:ROWS])
