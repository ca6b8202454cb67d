import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.transformer import Attention
from ecgdist.models.vit import VitEncoder
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.reconstruction import Masking
from tests.models.batches import PATCH, TINY, TOKENS, VIT_CASES, WINDOW, ragged, windows

KEPT = torch.tensor([[0, 4, 9], [1, 2, 5], [3, 7, 11], [0, 1, 2]])


def encoder_of(config: EncoderConfig = TINY) -> VitEncoder:
    torch.manual_seed(0)
    return VitEncoder(config)


def stem_inputs(encoder: VitEncoder) -> list[tuple[int, ...]]:
    shapes: list[tuple[int, ...]] = []
    encoder.stem.register_forward_hook(lambda _, inputs, __: shapes.append(tuple(inputs[0].shape)))
    return shapes


def test_attention_equals_a_loop_over_queries() -> None:
    torch.manual_seed(0)
    attention = Attention(8, 2)
    x = torch.randn(2, 5, 8)
    mask = torch.tensor([[True, True, False, True, False], [True] * 5])
    out = attention(x, mask)
    q, k, v = attention.qkv(x).split(8, dim=2)
    for row in range(2):
        for query in range(5):
            heads = []
            for part in (slice(0, 4), slice(4, 8)):
                scores = k[row, mask[row], part] @ q[row, query, part] / 4**0.5
                heads.append(scores.softmax(dim=0) @ v[row, mask[row], part])
            torch.testing.assert_close(out[row, query], attention.out(torch.cat(heads)), atol=1e-6, rtol=1e-5)


def test_a_width_that_heads_cannot_share_is_refused() -> None:
    with pytest.raises(ConfigError, match="width of 10 cannot be divided among 4 heads"):
        Attention(10, 4)


@pytest.mark.parametrize("stem", ["conv", "linear"])
def test_hidden_samples_change_no_visible_token(stem: str) -> None:
    encoder = encoder_of(build(EncoderConfig, {"size": "tiny", "patch_samples": PATCH, "stem": stem}))
    signal, valid_samples, lead_mask = ragged(4)
    visible = torch.zeros(4, TOKENS, dtype=torch.bool).scatter(1, KEPT, True)
    hidden = ~visible.repeat_interleave(PATCH, dim=1)[:, None, :]
    changed = torch.where(hidden, 1000 * windows(4, seed=1), signal)
    before = encoder(signal, valid_samples, lead_mask, KEPT)
    after = encoder(changed, valid_samples, lead_mask, KEPT)
    assert torch.equal(before, after)


def test_only_kept_patches_reach_the_stem() -> None:
    encoder = encoder_of()
    shapes = stem_inputs(encoder)
    tokens = encoder(*ragged(4), KEPT)
    assert shapes == [(4, 3, 12, PATCH)]
    assert tokens.shape == (4, 3, 128)


def test_keeping_every_patch_is_the_same_as_not_choosing() -> None:
    encoder = encoder_of()
    batch = ragged(4)
    every = torch.arange(TOKENS).expand(4, -1)
    assert torch.equal(encoder(*batch, every), encoder(*batch))


@pytest.mark.parametrize("filling", [3.0, float("nan")])
def test_what_stands_in_padding_and_in_missing_leads_changes_nothing(filling: float) -> None:
    encoder = encoder_of()
    signal, valid_samples, lead_mask = ragged(4)
    past = torch.arange(WINDOW) >= valid_samples[:, None, None]
    changed = signal.masked_fill(past | ~lead_mask[:, :, None], filling)
    assert torch.equal(encoder(signal, valid_samples, lead_mask), encoder(changed, valid_samples, lead_mask))


def test_a_padded_record_has_the_tokens_it_has_alone_and_zeros_after() -> None:
    encoder = encoder_of()
    signal, valid_samples, lead_mask = ragged(4)
    tokens = encoder(signal, valid_samples, lead_mask)
    alone = encoder(signal[1:2, :, : 7 * PATCH], torch.tensor([7 * PATCH]), lead_mask[1:2])
    torch.testing.assert_close(tokens[1, :7], alone[0], atol=1e-5, rtol=1e-5)
    assert torch.equal(tokens[1, 7:], torch.zeros(TOKENS - 7, 128))


def test_an_unused_slot_is_as_if_it_were_not_there() -> None:
    encoder = encoder_of()
    batch = ragged(4)
    kept_valid = torch.ones_like(KEPT, dtype=torch.bool)
    kept_valid[:, 2] = False
    with_slot = encoder(*batch, KEPT, kept_valid)
    without = encoder(*batch, KEPT[:, :2])
    torch.testing.assert_close(with_slot[:, :2], without, atol=1e-5, rtol=1e-5)
    assert torch.equal(with_slot[:, 2], torch.zeros(4, 128))


def test_a_record_of_nothing_but_padding_is_zero_and_has_a_finite_gradient() -> None:
    encoder = encoder_of()
    signal, valid_samples, lead_mask = ragged(4)
    valid_samples[0] = 0
    lead_mask[3] = False
    embedding = encoder.embed(signal, valid_samples, lead_mask)
    assert torch.equal(embedding[0], torch.zeros(128))
    assert embedding.isfinite().all()
    embedding.square().sum().backward()
    assert all(weight.grad.isfinite().all() for weight in encoder.parameters() if weight.grad is not None)


def test_an_embedding_is_the_mean_of_the_valid_tokens() -> None:
    encoder = encoder_of()
    batch = ragged(4)
    tokens = encoder(*batch)
    embedding = encoder.embed(*batch)
    torch.testing.assert_close(embedding[0], tokens[0].mean(dim=0))
    torch.testing.assert_close(embedding[1], tokens[1, :7].mean(dim=0))


def test_permuting_the_batch_permutes_the_tokens() -> None:
    encoder = encoder_of()
    batch = ragged(4)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = encoder(*(part[order] for part in batch))
    torch.testing.assert_close(shuffled, encoder(*batch)[order], atol=1e-5, rtol=1e-5)


def test_tokens_know_their_place() -> None:
    encoder = encoder_of()
    signal = windows(1)[:, :, :PATCH].repeat(1, 1, TOKENS)
    tokens = encoder(signal, torch.tensor([WINDOW]), torch.ones(1, 12, dtype=torch.bool))
    assert not torch.allclose(tokens[0, 0], tokens[0, 5], atol=1e-3)


@pytest.mark.parametrize("seconds", [2.4, 5.1, 9.0, 9.9])
def test_a_window_of_any_whole_number_of_patches_works(seconds: float) -> None:
    encoder = encoder_of(EncoderConfig(size="tiny"))
    window = round(seconds * 250)
    tokens = encoder(windows(1, window=window), torch.tensor([window]), torch.ones(1, 12, dtype=torch.bool))
    assert tokens.shape == (1, window // 75, 128)


def test_a_window_of_broken_patches_is_refused() -> None:
    signal = torch.zeros(1, 12, 260)
    with pytest.raises(ConfigError, match="260 samples"):
        encoder_of()(signal, torch.tensor([260]), torch.ones(1, 12, dtype=torch.bool))


def gradients(config: EncoderConfig, batch: tuple[Tensor, Tensor, Tensor]) -> list[Tensor]:
    encoder = encoder_of(config)
    encoder(*batch, KEPT).square().sum().backward()
    return [weight.grad for weight in encoder.parameters() if weight.grad is not None]


def test_activation_checkpointing_changes_no_gradient() -> None:
    plain = gradients(TINY, ragged(4))
    recomputed = gradients(TINY.model_copy(update={"activation_checkpointing": True}), ragged(4))
    assert len(plain) == len(recomputed) == len(list(encoder_of().parameters()))
    assert all(torch.equal(a, b) for a, b in zip(plain, recomputed, strict=True))


def test_a_bfloat16_encoder_takes_float32_signals() -> None:
    encoder = encoder_of()
    expected = encoder.embed(*ragged(4))
    embedding = encoder.to(torch.bfloat16).embed(*ragged(4))
    assert embedding.dtype == torch.bfloat16
    torch.testing.assert_close(embedding.float(), expected, atol=0.1, rtol=0.1)


def masks_of(case: str) -> list[Masking]:
    """Every mask that the tokens of a case allow."""
    grouped = [GenerativeConfig(group_limb_leads=True)] if case == "vit, lead" else []
    drawn = [GenerativeConfig(mask="random")] if case == "vit, lead_time" else []
    return [Masking(VIT_CASES[case], config, 0.75) for config in (GenerativeConfig(), *grouped, *drawn)]


@pytest.mark.parametrize("case", VIT_CASES)
def test_hidden_samples_change_no_visible_token_in_any_layout_under_any_mask(case: str) -> None:
    encoder, batch = encoder_of(VIT_CASES[case]), ragged(4)
    count = encoder.num_tokens(WINDOW)
    noise = torch.rand(4, count, generator=torch.Generator().manual_seed(3))
    for mask in masks_of(case):
        kept, kept_valid, hidden = mask(noise, encoder.token_valid(batch[1], batch[2], count))
        assert hidden.any(dim=1).all()
        before = encoder(*batch, kept, kept_valid)
        changed = torch.where(encoder.layout.samples(hidden), 1000 * windows(4, seed=1), batch[0])
        assert torch.equal(before, encoder(changed, *batch[1:], kept, kept_valid))
        assert torch.equal(before.abs().sum(dim=2) > 0, kept_valid)


@pytest.mark.parametrize("case", VIT_CASES)
def test_keeping_every_token_is_the_same_as_not_choosing_in_any_layout(case: str) -> None:
    encoder, batch = encoder_of(VIT_CASES[case]), ragged(4)
    every = torch.arange(encoder.num_tokens(WINDOW)).expand(4, -1)
    assert torch.equal(encoder(*batch, every), encoder(*batch))


def test_patches_of_one_lead_know_their_lead_and_their_time() -> None:
    encoder = encoder_of(VIT_CASES["vit, lead_time"])
    signal = windows(1)[:, :1, :PATCH].repeat(1, 12, TOKENS)
    tokens = encoder(signal, torch.tensor([WINDOW]), torch.ones(1, 12, dtype=torch.bool))[0]
    by_lead = tokens.reshape(12, TOKENS, -1)
    assert not torch.allclose(by_lead[2, 5], by_lead[3, 5], atol=1e-3)
    assert not torch.allclose(by_lead[2, 5], by_lead[2, 6], atol=1e-3)


def test_a_short_whole_lead_is_encoded_without_its_padding() -> None:
    encoder, (signal, valid_samples, lead_mask) = encoder_of(VIT_CASES["vit, lead"]), ragged(4)
    shorter = encoder(signal, valid_samples - 30, lead_mask)
    assert not torch.allclose(encoder(signal, valid_samples, lead_mask)[1], shorter[1], atol=1e-3)


def test_the_gradient_of_the_lead_embedding_is_the_derivative() -> None:
    encoder = encoder_of(VIT_CASES["vit, lead_time"]).double()
    signal, valid_samples, lead_mask = ragged(3)
    kept = torch.tensor([[3, 14, 100]]).expand(3, -1)
    assert encoder.lead_embedding is not None
    weight = encoder.lead_embedding.weight.detach().clone().requires_grad_()

    def run(weight: Tensor) -> Tensor:
        inputs = (signal.double(), valid_samples, lead_mask, kept)
        return torch.func.functional_call(encoder, {"lead_embedding.weight": weight}, inputs)

    assert torch.autograd.gradcheck(run, (weight,), fast_mode=True)
