import pytest
import torch

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.models.vit import VitEncoder


def test_default_patch_is_three_tenths_of_a_second_at_250_hz() -> None:
    assert EncoderConfig().patch_samples / 250 == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("size", "low", "high"),
    [("tiny", 0.5e6, 1e6), ("small", 21e6, 23e6), ("base", 85e6, 89e6), ("large", 302e6, 308e6)],
)
@pytest.mark.parametrize("stem", ["conv", "linear"])
def test_encoder_has_the_number_of_parameters_its_name_promises(
    size: str, low: float, high: float, stem: str
) -> None:
    with torch.device("meta"):
        encoder = VitEncoder(build(EncoderConfig, {"size": size, "stem": stem}))
    count = sum(weight.numel() for weight in encoder.parameters())
    print(f"{size} {stem}: {count / 1e6:.2f} M parameters")
    assert low < count < high


@pytest.mark.parametrize("name", SIZES)
def test_widths_divide_among_heads_and_hold_sine_cosine_pairs(name: str) -> None:
    size = SIZES[name]
    assert size.width % (2 * size.heads) == 0
    assert size.decoder_width % (2 * size.decoder_heads) == 0


def test_bigger_sizes_learn_more_slowly() -> None:
    rates = [SIZES[name].peak_learning_rate for name in ("tiny", "small", "base", "large")]
    assert rates == sorted(rates, reverse=True)
    assert all(0 < size.warmup_share < 0.5 for size in SIZES.values())


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"size": "huge"}, "size = 'huge'"),
        ({"patch_samples": 0}, "patch_samples = 0"),
        ({"stem": "mlp"}, "stem"),
        ({"kind": "resnet"}, "kind = 'resnet': there is no such encoder; choose one of vit, xresnet, s4d"),
        ({"tokens": "patch"}, "tokens = 'patch'"),
        ({"kind": "s4d", "patch_samples": 25}, "patch_samples = 25 does not belong to kind = s4d"),
    ],
)
def test_a_wrong_value_is_refused_by_name(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(EncoderConfig, values)
