import pytest
import torch
from torch import nn

from ecgdist.config import build
from ecgdist.models.config import EncoderConfig
from ecgdist.models.patches import patchify
from ecgdist.models.stem import STEMS
from tests.models.batches import windows


def stem_of(name: str, patch_samples: int) -> nn.Module:
    torch.manual_seed(0)
    return STEMS[name](build(EncoderConfig, {"size": "tiny", "stem": name, "patch_samples": patch_samples}))


@pytest.mark.parametrize("name", STEMS)
@pytest.mark.parametrize("patch_samples", [4, 25, 30, 75])
def test_a_patch_becomes_a_token(name: str, patch_samples: int) -> None:
    patches = patchify(windows(2, window=3 * patch_samples), patch_samples)
    assert stem_of(name, patch_samples)(patches).shape == (2, 3, 128)


@pytest.mark.parametrize("name", STEMS)
def test_a_token_depends_on_its_own_patch_only(name: str) -> None:
    stem = stem_of(name, 25)
    patches = patchify(windows(2), 25)
    changed = patches.clone()
    changed[:, 5] += 100
    before, after = stem(patches), stem(changed)
    others = [n for n in range(patches.shape[1]) if n != 5]
    assert torch.equal(before[:, others], after[:, others])
    assert not torch.equal(before[:, 5], after[:, 5])


def test_the_convolution_sees_the_order_of_samples_and_of_leads() -> None:
    stem = stem_of("conv", 25)
    patches = patchify(windows(1), 25)
    token = stem(patches)
    assert not torch.allclose(token, stem(patches.flip(3)), atol=1e-3)
    assert not torch.allclose(token, stem(patches.flip(2)), atol=1e-3)
