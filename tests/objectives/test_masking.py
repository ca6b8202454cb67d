import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecgdist.objectives.masking import random_mask


def noise_of(rows: int, tokens: int, seed: int = 0) -> Tensor:
    return torch.rand(rows, tokens, generator=torch.Generator().manual_seed(seed))


def slow_mask(noise: list[float], valid: list[bool], ratio: float) -> tuple[set[int], set[int]]:
    """Kept and hidden patches of one record, by sorting the valid ones."""
    candidates = sorted((number for number, real in enumerate(valid) if real), key=lambda n: (noise[n], n))
    num_kept = max(1, math.floor(round(len(candidates) * (1 - ratio), 9)))
    return set(candidates[:num_kept]), set(candidates[num_kept:])


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(1, 40),
    ratio=st.sampled_from([0.0, 0.1, 0.5, 0.6, 0.75, 0.9, 0.99]),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_the_patches_with_the_smallest_noise_are_kept(
    tokens: int, ratio: float, seed: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(0, tokens), min_size=1, max_size=5))
    valid = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    noise = noise_of(len(lengths), tokens, seed)
    kept, kept_valid, hidden = random_mask(noise, valid, ratio)
    assert (
        kept.shape == kept_valid.shape == (len(lengths), max(1, math.floor(round(tokens * (1 - ratio), 9))))
    )
    for row in range(len(lengths)):
        expected_kept, expected_hidden = slow_mask(noise[row].tolist(), valid[row].tolist(), ratio)
        assert set(kept[row][kept_valid[row]].tolist()) == expected_kept
        assert set(hidden[row].nonzero().flatten().tolist()) == expected_hidden
        assert not hidden[row][kept[row]].any(), "a slot holds a hidden patch"
        assert kept[row].tolist() == sorted(set(kept[row].tolist())), "slots ascend and differ"


def test_three_quarters_of_thirty_patches_leave_seven() -> None:
    kept, kept_valid, hidden = random_mask(noise_of(4, 30), torch.ones(4, 30, dtype=torch.bool), 0.75)
    assert kept.shape == (4, 7)
    assert kept_valid.all()
    assert hidden.sum(dim=1).tolist() == [23] * 4


def test_a_product_that_floats_round_down_keeps_its_token() -> None:
    kept, kept_valid, _ = random_mask(noise_of(1, 20), torch.ones(1, 20, dtype=torch.bool), 0.9)
    assert kept.shape == (1, 2)
    assert kept_valid.all()


def test_ratio_zero_keeps_everything() -> None:
    valid = torch.arange(6) < torch.tensor([[6], [4]])
    kept, kept_valid, hidden = random_mask(noise_of(2, 6), valid, 0.0)
    assert torch.equal(kept, torch.arange(6).expand(2, -1))
    assert torch.equal(kept_valid, valid)
    assert not hidden.any()


@pytest.mark.parametrize("ratio", [0.0, 0.75])
def test_equal_noise_still_keeps_the_right_number(ratio: float) -> None:
    kept, kept_valid, _ = random_mask(torch.zeros(2, 8), torch.ones(2, 8, dtype=torch.bool), ratio)
    assert kept_valid.sum(dim=1).tolist() == [round(8 * (1 - ratio))] * 2
    assert kept[0, 0] == 0


def test_every_patch_is_hidden_equally_often() -> None:
    _, _, hidden = random_mask(noise_of(4000, 12), torch.ones(4000, 12, dtype=torch.bool), 0.75)
    assert (hidden.float().mean(dim=0) - 0.75).abs().max() < 0.03
