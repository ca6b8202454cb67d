"""What every kind of encoder promises, whatever a token is."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import ENCODERS, build_encoder
from ecgdist.models.interface import Encoder
from tests.models.batches import ENCODER_CASES, WINDOW, ragged, windows

STATE_NAMES = Path(__file__).with_name("state_names.json")
CROPPED = {"vit, time": 175, "vit, lead_time": 175, "xresnet": 185, "s4d": 185}
"""Samples of row 1 of `ragged` that its tokens stand for: seven whole patches, or all of them. A window of whole
leads has one length."""
LEADS = {12: range(12), 8: (0, 1, 6, 7, 8, 9, 10, 11), 2: (1, 7), 1: (1,)}


@pytest.fixture(params=ENCODER_CASES)
def case(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def encoder_of(case: str, **changes: object) -> Encoder:
    torch.manual_seed(0)
    return build_encoder(ENCODER_CASES[case].model_copy(update=changes))


def valid_of(encoder: Encoder, valid_samples: Tensor, lead_mask: Tensor, window: int = WINDOW) -> Tensor:
    return encoder.token_valid(valid_samples, lead_mask, encoder.num_tokens(window))


def test_every_window_has_its_tokens_and_zeros_stand_for_those_without_signal(case: str) -> None:
    encoder = encoder_of(case)
    signal, valid_samples, lead_mask = ragged(4)
    tokens = encoder(signal, valid_samples, lead_mask)
    valid = valid_of(encoder, valid_samples, lead_mask)
    assert tokens.shape == (4, encoder.num_tokens(WINDOW), encoder.dim)
    assert encoder.dim == ENCODER_CASES[case].shape.width
    assert torch.equal(tokens.abs().sum(dim=2) > 0, valid)
    torch.testing.assert_close(
        encoder.embed(signal, valid_samples, lead_mask)[1], tokens[1][valid[1]].mean(0)
    )


@pytest.mark.parametrize("filling", [3.0, float("nan")])
def test_what_stands_in_padding_and_in_missing_leads_changes_nothing(case: str, filling: float) -> None:
    encoder = encoder_of(case)
    signal, valid_samples, lead_mask = ragged(4)
    past = torch.arange(WINDOW) >= valid_samples[:, None, None]
    changed = signal.masked_fill(past | ~lead_mask[:, :, None], filling)
    assert torch.equal(encoder(signal, valid_samples, lead_mask), encoder(changed, valid_samples, lead_mask))


@pytest.mark.parametrize("case", CROPPED)
@pytest.mark.parametrize("precision", [(torch.float32, 2e-5), (torch.float64, 1e-12)])
def test_a_padded_record_has_the_tokens_that_it_has_alone(
    case: str, precision: tuple[torch.dtype, float]
) -> None:
    dtype, tolerance = precision
    encoder, length = encoder_of(case).to(dtype), CROPPED[case]
    signal, valid_samples, lead_mask = ragged(4)
    tokens = encoder(signal.to(dtype), valid_samples, lead_mask)[1]
    alone = encoder(signal[1:2, :, :length].to(dtype), torch.tensor([length]), lead_mask[1:2])[0]
    assert len(alone) == encoder.num_tokens(length)
    torch.testing.assert_close(
        tokens[valid_of(encoder, valid_samples, lead_mask)[1]], alone, atol=tolerance, rtol=tolerance
    )


def test_a_record_has_the_tokens_that_it_has_alone_in_a_batch(case: str) -> None:
    encoder = encoder_of(case)
    batch = ragged(4)
    together = encoder(*batch)
    for row in range(4):
        alone = encoder(*(part[row : row + 1] for part in batch))
        torch.testing.assert_close(together[row], alone[0], atol=2e-5, rtol=2e-5)


def test_twelve_eight_two_or_one_lead_and_which_matters(case: str) -> None:
    encoder = encoder_of(case)
    lead_mask = torch.zeros(len(LEADS) + 1, 12, dtype=torch.bool)
    for row, leads in enumerate([*LEADS.values(), (9,)]):
        lead_mask[row, list(leads)] = True
    signal = windows(1)[:, :1].expand(len(lead_mask), 12, -1)
    embedding = encoder.embed(signal, torch.full((len(lead_mask),), WINDOW), lead_mask)
    assert embedding.isfinite().all()
    for row in range(len(lead_mask) - 1):
        assert not torch.allclose(embedding[row], embedding[row + 1], atol=1e-3)


@pytest.mark.parametrize("seconds", [2.5, 5.0, 9.0, 10.0])
def test_windows_of_two_and_a_half_to_ten_seconds(case: str, seconds: float) -> None:
    window = round(250 * seconds)
    encoder = encoder_of(case, **({"patch_samples": window} if case == "vit, lead" else {}))
    signal = windows(1, window=window)
    tokens = encoder(signal, torch.tensor([window - 1]), torch.ones(1, 12, dtype=torch.bool))
    assert tokens.shape[1] == encoder.num_tokens(window)
    assert tokens.isfinite().all()


def test_nothing_but_padding_is_zero_and_has_a_finite_gradient(case: str) -> None:
    encoder = encoder_of(case)
    signal, valid_samples, lead_mask = ragged(4)
    valid_samples[0], lead_mask[3] = 0, False
    embedding = encoder.embed(signal, valid_samples, lead_mask)
    assert torch.equal(embedding[0], torch.zeros(encoder.dim))
    assert embedding.isfinite().all()
    embedding.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in encoder.parameters())


def test_a_small_batch_is_learned_and_by_every_weight(case: str) -> None:
    encoder = encoder_of(case, **({"patch_samples": 100} if case == "vit, lead" else {}))
    head = nn.Linear(encoder.dim, 3)
    signal, _, lead_mask = ragged(3)
    batch, answer = (signal[:, :, :100], torch.tensor([100, 85, 100]), lead_mask), torch.arange(3)
    rate = 3e-4 if encoder.drops_tokens else 3e-3
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=rate)
    losses: list[float] = []
    while len(losses) < 60 and (not losses or losses[-1] > 0.2):
        loss = F.cross_entropy(head(encoder.embed(*batch)), answer)
        optimizer.zero_grad()
        loss.backward()
        if not losses:
            idle = [n for n, w in encoder.named_parameters() if w.grad is None or w.grad.abs().max() == 0]
            assert idle == []
        optimizer.step()
        losses.append(loss.item())
    # Of equal chances it is log 3.
    assert losses[-1] <= 0.2, losses
    assert torch.equal(head(encoder.embed(*batch)).argmax(dim=1), answer)


def test_names_and_shapes_of_the_weights_stay_what_saved_models_have(case: str) -> None:
    """A change makes every saved model of that kind unreadable; see `state_names` below for how to renew them."""
    assert state_names(case) == json.loads(STATE_NAMES.read_text(encoding="utf-8"))[case]


def state_names(case: str) -> dict[str, list[int]]:
    """``python -c "from tests.models.test_encoders import renew; renew()"`` writes them anew."""
    return {name: list(weight.shape) for name, weight in encoder_of(case).state_dict().items()}


def renew() -> None:
    names = {case: state_names(case) for case in ENCODER_CASES}
    STATE_NAMES.write_text(json.dumps(names, indent=0) + "\n", encoding="utf-8")


def test_recomputing_blocks_gives_the_same_gradients(case: str) -> None:
    batch, gradients = ragged(3), []
    for again in (False, True):
        encoder = encoder_of(case, activation_checkpointing=again)
        encoder.embed(*batch).square().sum().backward()
        gradients.append([weight.grad for weight in encoder.parameters()])
    for one, other in zip(*gradients, strict=True):
        assert one is not None
        assert torch.equal(one, other)


def test_bfloat16_is_near_float32(case: str) -> None:
    encoder, batch = encoder_of(case), ragged(4)
    expected = encoder.embed(*batch)
    embedding = encoder.to(torch.bfloat16).embed(*batch)
    assert embedding.dtype == torch.bfloat16
    assert F.cosine_similarity(embedding.float(), expected, dim=1).min() > 0.99


def test_wrong_input_is_refused(case: str) -> None:
    encoder, (signal, valid_samples, lead_mask) = encoder_of(case), ragged(4)
    with pytest.raises(DataError, match=r"\(4, 8, 300\)"):
        encoder(signal[:, :8], valid_samples, lead_mask[:, :8])
    if not encoder.drops_tokens:
        with pytest.raises(ConfigError, match="encodes whole windows and cannot leave tokens out"):
            encoder(signal, valid_samples, lead_mask, torch.zeros(4, 1, dtype=torch.int64))


def test_another_kind_may_not_have_its_settings(case: str) -> None:
    config = ENCODER_CASES[case]
    own = ENCODERS[config.kind].settings
    for name, value in {"tokens": "lead_time", "patch_samples": 50, "stem": "linear"}.items():
        values = {"kind": config.kind, "size": "tiny", name: value}
        if name in own:
            assert getattr(build(EncoderConfig, values), name) == value
            continue
        with pytest.raises(ConfigError, match=f"{name} = .* does not belong to kind = {config.kind}.*of vit"):
            build(EncoderConfig, values)


def test_what_is_saved_of_a_configuration_is_read_again(case: str) -> None:
    config = ENCODER_CASES[case]
    assert build(EncoderConfig, config.model_dump(mode="json")) == config
