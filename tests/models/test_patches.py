import math

import pytest
import torch

from ecgdist.errors import ConfigError, DataError
from ecgdist.models.patches import (
    gather_tokens,
    num_tokens,
    patchify,
    pool,
    sincos_positions,
    token_valid,
    unpatchify,
)
from tests.models.batches import PATCH, TOKENS, WINDOW, windows


def test_a_nine_second_window_is_thirty_patches() -> None:
    assert num_tokens(2250, 75) == 30


def test_a_window_of_broken_patches_is_refused_with_the_nearest_that_fit() -> None:
    with pytest.raises(ConfigError, match=r"1000 samples.*patches of 75 samples; use 975 or 1050"):
        num_tokens(1000, 75)
    with pytest.raises(ConfigError, match="use 75"):
        num_tokens(10, 75)


def test_a_signal_without_twelve_leads_is_refused() -> None:
    with pytest.raises(DataError, match=r"\(1, 8, 300\)"):
        patchify(torch.zeros(1, 8, 300), PATCH)


def test_patch_n_holds_samples_from_n_times_its_length() -> None:
    signal = windows(2)
    patches = patchify(signal, PATCH)
    assert patches.shape == (2, TOKENS, 12, PATCH)
    assert torch.equal(patches[1, 3], signal[1, :, 3 * PATCH : 4 * PATCH])
    assert torch.equal(unpatchify(patches), signal)


def test_a_patch_is_valid_if_padding_does_not_reach_into_it() -> None:
    valid = token_valid(torch.tensor([WINDOW, 2 * PATCH, 2 * PATCH - 1, 2 * PATCH + 1, 0]), TOKENS, PATCH)
    assert valid.sum(dim=1).tolist() == [TOKENS, 2, 1, 2, 0]
    assert valid[1, :2].all()


def test_gather_picks_by_row() -> None:
    tokens = torch.arange(2 * 4 * 3).reshape(2, 4, 3)
    picked = gather_tokens(tokens, torch.tensor([[0, 2], [3, 1]]))
    assert torch.equal(picked, torch.stack([tokens[0, [0, 2]], tokens[1, [3, 1]]]))


def test_positions_follow_their_formula_and_do_not_depend_on_the_length() -> None:
    positions = sincos_positions(7, 8, torch.device("cpu"))
    for place in range(7):
        for i in range(4):
            angle = place / 10_000 ** (i / 4)
            assert positions[place, i].item() == pytest.approx(math.sin(angle), abs=1e-6)
            assert positions[place, 4 + i].item() == pytest.approx(math.cos(angle), abs=1e-6)
    assert torch.equal(sincos_positions(30, 8, torch.device("cpu"))[:7], positions)


def test_pool_is_the_mean_over_valid_tokens_and_zero_without_any() -> None:
    tokens = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    valid = torch.tensor([[True, False, True, False], [False] * 4])
    pooled = pool(tokens, valid)
    torch.testing.assert_close(pooled[0], (tokens[0, 0] + tokens[0, 2]) / 2)
    assert torch.equal(pooled[1], torch.zeros(3))
