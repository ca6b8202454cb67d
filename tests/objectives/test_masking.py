import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecgdist.objectives.masking import LIMB_LEADS, limb_group_mask, per_lead_mask, random_mask, span_mask
from ecgdist.record import STANDARD_LEADS


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


@pytest.mark.parametrize("ratio", [0.5, 0.75, 0.9])
def test_every_lead_is_masked_as_if_it_were_alone(ratio: float) -> None:
    noise = noise_of(3, 12 * 10)
    valid = torch.ones(3, 12, 10, dtype=torch.bool)
    valid[1, :, 7:], valid[2, 3:] = False, False
    kept, kept_valid, hidden = per_lead_mask(noise, valid.flatten(1), ratio)
    for lead in range(12):
        own = slice(lead * 10, lead * 10 + 10)
        for row in range(3):
            expected_kept, expected_hidden = slow_mask(
                noise[row, own].tolist(), valid[row, lead].tolist(), ratio
            )
            used = [n - lead * 10 for n in kept[row][kept_valid[row]].tolist() if n // 10 == lead]
            assert set(used) == expected_kept
            assert set(hidden[row, own].nonzero().flatten().tolist()) == expected_hidden
    assert all(row.tolist() == sorted(set(row.tolist())) for row in kept)


def test_three_quarters_of_st_mem_leave_seven_patches_of_every_lead() -> None:
    kept, kept_valid, hidden = per_lead_mask(noise_of(2, 360), torch.ones(2, 360, dtype=torch.bool), 0.75)
    assert kept.shape == (2, 84)
    assert kept_valid.all()
    assert hidden.reshape(2, 12, 30).sum(dim=2).unique().tolist() == [23]
    assert not torch.equal(hidden[0, :30], hidden[0, 30:60]), "every lead has a mask of its own"


@pytest.mark.parametrize("ratio", [0.3, 0.75])
def test_limb_leads_are_hidden_together_or_shown_together(ratio: float) -> None:
    rows, limbs = 200, [lead in LIMB_LEADS for lead in STANDARD_LEADS]
    valid = torch.ones(rows, 12, dtype=torch.bool)
    valid[::2, 1] = False  # lead II
    kept, kept_valid, hidden = limb_group_mask(noise_of(rows, 12), valid, ratio)
    num_units = max(1, math.floor(7 * (1 - ratio)))
    shown_groups = 0
    for row in range(rows):
        visible = set(kept[row][kept_valid[row]].tolist())
        concealed = set(hidden[row].nonzero().flatten().tolist())
        assert visible | concealed == set(valid[row].nonzero().flatten().tolist())
        assert not visible & concealed
        group = {n for n in range(12) if limbs[n] and valid[row, n]}
        assert group <= visible or group <= concealed
        assert len(visible - group) + (group <= visible) == num_units
        shown_groups += group <= visible
    assert shown_groups / rows == pytest.approx(num_units / 7, abs=0.1)


def test_limb_leads_that_are_all_missing_are_no_unit() -> None:
    valid = torch.ones(1, 12, dtype=torch.bool)
    valid[:, :6] = False
    kept, kept_valid, hidden = limb_group_mask(noise_of(1, 12), valid, 0.5)
    assert kept_valid.sum() == hidden.sum() == 3
    assert hidden[0, :6].sum() == 0
    assert kept[0][kept_valid[0]].min() >= 6


def slow_spans(noise: list[float], num_valid: int, share: float, span: int) -> set[int]:
    """Hidden tokens of one record, span by span."""
    length = min(span, num_valid // 2)
    if length == 0:
        return set()
    number = min(math.floor(round(share * num_valid / length, 6) + 0.5), (num_valid - 1) // length)
    starts = sorted(range(num_valid - length + 1), key=lambda start: (noise[start], start))[:number]
    return {token for start in starts for token in range(start, start + length)}


@settings(max_examples=150, deadline=None)
@given(
    tokens=st.integers(1, 130),
    share=st.sampled_from([1e-9, 0.1, 0.5, 0.65, 0.99]),
    span=st.integers(1, 12),
    seed=st.integers(0, 1000),
    data=st.data(),
)
def test_spans_begin_where_the_noise_is_smallest(
    tokens: int, share: float, span: int, seed: int, data: st.DataObject
) -> None:
    lengths = data.draw(st.lists(st.integers(0, tokens), min_size=1, max_size=5))
    valid = torch.arange(tokens) < torch.tensor(lengths)[:, None]
    noise = noise_of(len(lengths), tokens, seed)
    kept, kept_valid, hidden = span_mask(noise, valid, share, span)
    assert kept.tolist() == [list(range(tokens))] * len(lengths)
    assert torch.equal(kept_valid, valid)
    for row, length in enumerate(lengths):
        found = set(hidden[row].nonzero().flatten().tolist())
        assert found == slow_spans(noise[row].tolist(), length, share, span)
        assert len(found) < max(length, 1), "something stays visible"


def test_the_published_spans_hide_about_half() -> None:
    """49 % of the tokens (Baevski et al. 2020, section 4.2)."""
    _, _, hidden = span_mask(noise_of(400, 500), torch.ones(400, 500, dtype=torch.bool), 0.65, 10)
    assert hidden.float().mean().item() == pytest.approx(0.49, abs=0.02)
