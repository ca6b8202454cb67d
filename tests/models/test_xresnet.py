import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.config import build
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.models.xresnet import XRESNET_SIZES, Block, MaskedGroupNorm

EXPANSIONS = {"basic": 1, "bottleneck": 4}
VALID = torch.arange(11) < torch.tensor([[11], [7]])


def zero_past_the_end(seed: int, channels: int) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    signal = torch.randn(2, channels, 11, generator=draw, dtype=torch.float64)
    return signal.masked_fill(~VALID[:, None, :], 0)


def block_of(kind: str, stride: int, channels_in: int = 4) -> Block:
    torch.manual_seed(0)
    return Block(channels_in, 4, EXPANSIONS[kind], stride).double()


def test_the_norm_is_a_group_norm_of_the_valid_places() -> None:
    torch.manual_seed(0)
    norm = MaskedGroupNorm(32).double()
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = 3 + torch.randn(2, 32, 11, dtype=torch.float64)
    normal = norm(x, VALID)
    for row, length in enumerate((11, 7)):
        expected = F.group_norm(x[row : row + 1, :, :length], 2, norm.weight, norm.bias)
        torch.testing.assert_close(normal[row : row + 1, :, :length], expected, atol=1e-12, rtol=1e-12)
        assert normal[row, :, length:].abs().sum() == 0


@pytest.mark.parametrize("kind", EXPANSIONS)
@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_keeps_padding_out_of_what_is_valid(kind: str, stride: int) -> None:
    block, x = block_of(kind, stride), zero_past_the_end(0, 4)
    out, valid = block(x, VALID)
    alone, _ = block(x[1:, :, :7], VALID[1:, :7])
    assert valid.sum(dim=1).tolist() == [-(-11 // stride), -(-7 // stride)]
    assert out.shape[1] == 4 * EXPANSIONS[kind]
    torch.testing.assert_close(out[1:, :, : alone.shape[2]], alone, atol=1e-12, rtol=1e-12)
    assert out.masked_select(~valid[:, None, :]).abs().sum() == 0


def test_a_shortcut_that_halves_the_rate_is_the_mean_of_two_or_of_the_last_one() -> None:
    block, x = block_of("basic", 2), zero_past_the_end(0, 4).abs()
    for conv in block.convs:
        torch.nn.init.zeros_(conv.norm.weight)
    out, _ = block(x, VALID)
    for row, length in enumerate((11, 7)):
        for place in range(0, length, 2):
            pair = x[row, :, place : min(place + 2, length)]
            torch.testing.assert_close(out[row, :, place // 2], pair.mean(dim=1))


@pytest.mark.parametrize(("kind", "stride"), [("basic", 2), ("bottleneck", 1)])
def test_the_gradient_is_the_derivative(kind: str, stride: int) -> None:
    block, x = block_of(kind, stride), zero_past_the_end(0, 4)
    weights = [weight.detach().clone().requires_grad_() for weight in block.parameters()]
    names = [name for name, _ in block.named_parameters()]

    def run(x: Tensor, *weights: Tensor) -> Tensor:
        inputs = (x * VALID[:, None, :], VALID)
        out: Tensor = torch.func.functional_call(block, dict(zip(names, weights, strict=True)), inputs)[0]
        return out

    assert torch.autograd.gradcheck(run, (x.requires_grad_(), *weights), fast_mode=True)


@pytest.mark.parametrize("name", XRESNET_SIZES)
def test_the_width_of_a_size_is_what_its_last_stage_gives(name: str) -> None:
    size = XRESNET_SIZES[name]
    assert size.width == size.channels[-1] * size.expansion


def test_bottlenecks_make_an_encoder_too() -> None:
    with torch.device("meta"):
        encoder = build_encoder(build(EncoderConfig, {"kind": "xresnet", "size": "small"}))
        tokens = encoder(torch.zeros(1, 12, 500), torch.tensor([500]), torch.ones(1, 12, dtype=torch.bool))
    assert tokens.shape == (1, 16, 256)
