import pytest

from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.pretraining.flops import Meter, flops_per_ecg, peak_flops
from tests.pretraining.runs import ARMS, METHODS

WINDOW, PATCH, TOKENS, VISIBLE = 2250, 75, 30, 7
SHAPE = SIZES["small"]


def transformer(tokens: int, width: int, depth: int) -> int:
    """Multiply-adds counted twice: four width x width maps, an MLP of 4 x the width, and two products of attention."""
    return depth * (2 * tokens * 12 * width**2 + 2 * 2 * tokens**2 * width)


def encoder(tokens: int) -> int:
    """With a linear stem."""
    return 2 * tokens * 12 * PATCH * SHAPE.width + transformer(tokens, SHAPE.width, SHAPE.depth)


def decoder() -> int:
    width = SHAPE.decoder_width
    maps = VISIBLE * SHAPE.width * width + TOKENS * width * 12 * PATCH
    return 2 * maps + transformer(TOKENS, width, SHAPE.decoder_depth)


def projector() -> int:
    hidden, out = SHAPE.projector_width, SHAPE.projector_out
    return 2 * (SHAPE.width * hidden + hidden**2 + hidden * out)


def predictor() -> int:
    hidden, out = SHAPE.projector_width, SHAPE.projector_out
    return 2 * (out * hidden + hidden * out)


def counted(objective: ObjectiveConfig) -> int:
    config = EncoderConfig(size="small", stem="linear", patch_samples=PATCH)
    return flops_per_ecg(config, objective, WINDOW)


def test_arms_take_what_their_layers_take() -> None:
    teacher = encoder(TOKENS) + projector()
    assert counted(ARMS["GL"]) == 3 * (encoder(VISIBLE) + decoder())
    assert counted(ARMS["CL"]) == 3 * (encoder(TOKENS) + projector() + predictor()) + teacher
    hybrid = encoder(VISIBLE) + decoder() + projector() + predictor()
    assert counted(ARMS["HL"]) == 3 * hybrid + teacher


def test_methods_without_a_teacher_embed_both_views_twice() -> None:
    assert counted(METHODS["SimCLR"]) == 2 * 4 * (encoder(TOKENS) + projector())
    hybrid = 3 * (encoder(VISIBLE) + decoder() + projector()) + encoder(VISIBLE) + projector()
    assert counted(METHODS["SimCLR, hybrid"]) == 2 * hybrid


def predicting(tokens: int) -> int:
    """Scores, entries and projections of all tokens, and their cosines with each other."""
    codes, out = 2 * 320, SHAPE.projector_out
    maps = SHAPE.width * codes + codes * out // 2 + out * out + SHAPE.width * out
    return 2 * tokens * maps + 2 * tokens**2 * out


def looking(tokens: int) -> int:
    """A linear stem and the scores."""
    return 2 * tokens * (12 * PATCH * SHAPE.width + SHAPE.width * 2 * 320)


def test_masked_prediction_takes_a_pass_of_the_stem_for_its_census() -> None:
    assert counted(METHODS["wav2vec"]) == 3 * (encoder(TOKENS) + predicting(TOKENS)) + looking(TOKENS)
    query = encoder(TOKENS) + projector()
    assert counted(METHODS["WCR"]) == 2 * (3 * (query + predicting(TOKENS)) + query + looking(TOKENS))
    moco = query + predictor() + predicting(TOKENS)
    assert counted(METHODS["wav2vec, MoCo v3"]) == 3 * moco + looking(TOKENS) + query


def test_two_views_take_twice_as_much() -> None:
    one = ObjectiveConfig.model_validate({"contrastive": {"method": "byol"}})
    assert counted(METHODS["BYOL, two views, hybrid"]) == 2 * counted(one)


@pytest.mark.parametrize("kind", ["xresnet", "s4d"])
def test_encoders_without_tokens_to_drop_are_counted_too(kind: str) -> None:
    config = EncoderConfig.model_validate({"kind": kind, "size": "tiny"})
    assert flops_per_ecg(config, ARMS["CL"], WINDOW) > 1e6


def test_the_peak_of_a_device_is_found_by_its_name() -> None:
    assert peak_flops("NVIDIA H100 80GB HBM3", "bf16") == 989.4e12
    assert peak_flops("NVIDIA H100 PCIe", "bf16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-40GB", "fp32") == 19.5e12
    assert peak_flops("Some other device", "bf16") is None


def test_utilisation_is_a_share_of_all_devices_peak() -> None:
    assert Meter(step_flops=6e12, peak_flops=3 * 2e12).share(seconds=2) == pytest.approx(0.5)
