import pytest
import torch

from ecgdist.errors import ConfigError
from ecgdist.models.layout import Layout
from tests.models.batches import PATCH, TOKENS, VIT_CASES, WINDOW, ragged, windows

COUNTS = {"vit, time": TOKENS, "vit, lead": 12, "vit, lead_time": 12 * TOKENS}


def test_a_nine_second_window_is_thirty_patches_twelve_leads_or_patches_of_every_lead() -> None:
    assert Layout("time", 75).num_tokens(2250) == 30
    assert Layout("lead", 2250).num_tokens(2250) == 12
    assert Layout("lead_time", 75).num_tokens(2250) == 360


def test_a_window_that_does_not_fit_is_refused_with_what_would() -> None:
    with pytest.raises(ConfigError, match=r"encoder\.patch_samples = 75 must be the window's 2250 samples"):
        Layout("lead", 75).num_tokens(2250)
    with pytest.raises(ConfigError, match="use 2250 or 2325"):
        Layout("lead_time", 75).num_tokens(2260)


@pytest.mark.parametrize("case", VIT_CASES)
def test_cutting_is_undone_and_a_token_is_where_it_says(case: str) -> None:
    layout, signal = VIT_CASES[case].layout, windows(2)
    patches = layout.patchify(signal)
    count = COUNTS[case]
    assert patches.shape == (2, count, layout.rows, layout.patch_samples)
    assert torch.equal(layout.unpatchify(patches), signal)
    marked = torch.zeros(2, count, dtype=torch.bool)
    marked[1, -2] = True
    assert torch.equal(signal[1][layout.samples(marked)[1]], patches[1, -2].flatten())


def test_a_patch_of_one_lead_is_numbered_lead_by_lead() -> None:
    layout, signal = VIT_CASES["vit, lead_time"].layout, windows(1)
    number = 6 * TOKENS + 4
    assert torch.equal(layout.patchify(signal)[0, number, 0], signal[0, 6, 4 * PATCH : 5 * PATCH])
    assert layout.leads(12 * TOKENS, signal.device)[number] == 6
    positions = layout.positions(12 * TOKENS, 8, signal.device)
    assert torch.equal(positions[number], positions[4])
    assert not torch.equal(positions[number], positions[5])


def test_padded_patches_and_tokens_of_missing_leads_are_not_valid() -> None:
    _, valid_samples, lead_mask = ragged(4)
    valid_samples[3] = 0
    valid = {
        case: config.layout.token_valid(valid_samples, lead_mask, COUNTS[case])
        for case, config in VIT_CASES.items()
    }
    assert valid["vit, time"].sum(dim=1).tolist() == [12, 7, 12, 0]
    assert valid["vit, lead"].sum(dim=1).tolist() == [12, 12, 3, 0]
    assert valid["vit, lead_time"].sum(dim=1).tolist() == [144, 84, 36, 0]
    assert torch.equal(valid["vit, lead_time"].reshape(4, 12, 12)[1], valid["vit, time"][1].expand(12, -1))


@pytest.mark.parametrize("case", VIT_CASES)
def test_present_values_of_valid_tokens_are_the_recorded_samples(case: str) -> None:
    layout, (_, valid_samples, lead_mask) = VIT_CASES[case].layout, ragged(4)
    recorded = (torch.arange(WINDOW) < valid_samples[:, None])[:, None, :] & lead_mask[:, :, None]
    valid = layout.token_valid(valid_samples, lead_mask, COUNTS[case])
    present = layout.present(valid_samples, lead_mask, COUNTS[case])
    shape = (4, COUNTS[case], layout.rows, layout.patch_samples)
    seen = (present & valid[:, :, None, None]).expand(shape)
    in_valid = layout.samples(valid) & recorded
    assert torch.equal(layout.unpatchify(seen), in_valid)
