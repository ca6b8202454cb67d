"""Masked prediction against loops over tokens and distractors, and what it must not depend on."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError, TrainingError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.encoders import build_encoder
from ecgdist.objectives.config import ObjectiveConfig, check_together
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.part import Window
from ecgdist.objectives.quantiser import diversity_loss
from ecgdist.objectives.wav2vec import diversity_share, prediction_losses, times_drawn
from ecgdist.streaming.draws import hashed, quantiles
from tests.models.batches import ENCODER_CASES, PATCH, TINY, TOKENS, VIT_CASES, WINDOW, windows
from tests.objectives.slow_wav2vec import in_one_piece, part_of
from tests.objectives.whole import ROWS, View, difference, module_of, views_of, whole

SETTINGS = {"method": "wav2vec", "mask_span": 2, "codes": 8, "distractors": 6}
ALONE = build(ObjectiveConfig, {"generative": SETTINGS, "contrastive": {"weight": 0}})
WCR = build(ObjectiveConfig, {"generative": SETTINGS, "contrastive": {"method": "cmsc"}})


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def slow_times(shares: list[list[float]], predicted: list[bool]) -> list[list[int]]:
    """For one record: every distractor of every token, drawn from the list of the other predicted tokens."""
    tokens = range(len(predicted))
    times = [[0 for _ in tokens] for _ in tokens]
    for token in tokens:
        others = [other for other in tokens if predicted[other] and other != token]
        if not predicted[token] or not others:
            continue
        for share in shares[token]:
            times[token][others[int(share * len(others))]] += 1
    return times


def slow_losses(
    context: Tensor, targets: Tensor, codes: list[list[int]], times: list[list[int]], temperature: float
) -> list[float]:
    """For one record, token by token and distractor by distractor."""

    def exponent(token: int, other: int) -> float:
        cosine = context[token] @ targets[other] / context[token].norm() / targets[other].norm()
        return math.exp(cosine.item() / temperature)

    losses = []
    for token in range(len(context)):
        own = exponent(token, token)
        total = own
        for other, count in enumerate(times[token]):
            if codes[other] != codes[token]:
                total += count * exponent(token, other)
        losses.append(-math.log(own / total))
    return losses


def record() -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Context, targets, codes, predicted tokens and shares of three records, one with nothing and one with one."""
    draw = torch.Generator().manual_seed(3)
    predicted = torch.rand(3, 7, generator=draw) < 0.6
    predicted[1], predicted[2] = False, torch.arange(7) == 4
    codes = torch.randint(2, (3, 7, 2), generator=draw)
    shares = torch.rand(3, 7, 5, generator=draw)
    return draws(3, 7, 4), draws(3, 7, 4, seed=1), codes, predicted, shares


def test_distractors_are_drawn_from_the_records_other_predicted_tokens() -> None:
    _, _, _, predicted, shares = record()
    expected = [slow_times(*one) for one in zip(shares.tolist(), predicted.tolist(), strict=True)]
    assert times_drawn(shares, predicted).tolist() == expected
    assert torch.tensor(expected).sum(dim=2).max() == 5


def test_distractors_are_drawn_evenly() -> None:
    shares = quantiles("uniform", hashed(torch.arange(1), 6 * 20_000)).view(1, 6, 20_000)
    times = times_drawn(shares, torch.tensor([[True, True, False, True, True, True]]))[0]
    assert times[2].abs().sum() == times[:, 2].abs().sum() == times.diagonal().abs().sum() == 0
    others = torch.cat([times[0][[1, 3, 4, 5]], times[4][[0, 1, 3, 5]]]) / 20_000
    assert (others - 1 / 4).abs().max() < 0.015


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_losses_equal_a_loop_over_distractors(temperature: float) -> None:
    context, targets, codes, predicted, shares = record()
    times = times_drawn(shares, predicted)
    found = prediction_losses(context, targets, codes, times, temperature)
    for number in range(3):
        expected = slow_losses(
            context[number],
            targets[number],
            codes[number].tolist(),
            times[number].long().tolist(),
            temperature,
        )
        assert found[number].tolist() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    assert found[0].max() > 0


def test_gradient_of_the_losses_is_the_derivative() -> None:
    context, targets, codes, predicted, shares = record()
    times = times_drawn(shares.double(), predicted)
    assert torch.autograd.gradcheck(
        lambda c, q: prediction_losses(c, q, codes, times, 0.5),
        (context.double().requires_grad_(), targets.double().requires_grad_()),
    )


def test_distractors_of_the_same_codes_as_the_target_are_left_out() -> None:
    context, targets, _, predicted, shares = record()
    times = times_drawn(shares, predicted)
    same = prediction_losses(context, targets, torch.zeros(3, 7, 2, dtype=torch.int64), times, 0.1)
    assert same.abs().max() < 1e-5
    assert same.isfinite().all()


def test_shares_of_the_diversity_add_up_to_value_and_gradient_of_the_whole() -> None:
    scores = draws(6, 5, 2, 4).double().requires_grad_()
    predicted = (torch.rand(6, 5, generator=torch.Generator().manual_seed(2)) < 0.5).double()
    number = predicted.sum()

    def usage(values: Tensor) -> Tensor:
        return (values.softmax(dim=-1) * predicted[:, :, None, None]).sum(dim=(0, 1)) / number

    whole_loss = diversity_loss(usage(scores))
    (expected,) = torch.autograd.grad(whole_loss, scores)
    known = usage(scores).detach()
    shares = [diversity_share(scores[rows], predicted[rows], known) for rows in ([0, 3], [1], [2, 4, 5])]
    total = torch.stack(shares).sum() / number
    assert total.item() == pytest.approx(whole_loss.item(), rel=1e-12)
    torch.testing.assert_close(torch.autograd.grad(total, scores)[0], expected)
    assert torch.autograd.gradcheck(lambda values: diversity_loss(usage(values)), (scores,))


@pytest.mark.parametrize("step", [0, 200_000])
@pytest.mark.parametrize("objective", [ALONE, WCR])
def test_losses_and_gradients_equal_loops_over_records_and_tokens(
    objective: ObjectiveConfig, step: int
) -> None:
    module = module_of(objective)
    views = views_of(module)
    views[0].signal[3, :, 2 * PATCH : 9 * PATCH] = 0.5  # flat for a while
    found = whole(module, views, step=step)
    module.zero_grad()
    parts = in_one_piece(module, views[: objective.student_passes], step)
    assert {n: found.parts[n] for n in parts} == pytest.approx(
        {n: v.item() for n, v in parts.items()}, rel=1e-5
    )
    if objective is WCR:
        return
    loss = parts["prediction"] + 0.1 * parts["diversity"] + 10 * parts["feature_penalty"]
    loss.backward()
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    expected = {name: weight.grad for name, weight in module.named_parameters()}
    assert difference(found.gradients, expected) < 1e-5
    assert all(gradient.abs().max() > 0 for gradient in expected.values()), "gradient reaches every weight"


@pytest.mark.parametrize("objective", [ALONE, WCR])
@pytest.mark.parametrize("cuts", [[[0, 1, 2], [3, 4, 5]], [[5, 0, 3, 1], [2], [4]]])
def test_rows_in_parts_add_up_to_the_whole(objective: ObjectiveConfig, cuts: list[list[int]]) -> None:
    """Also counts and looks do, so that the census is the same."""
    module = module_of(objective)
    view = views_of(module)[0]
    rows = [View(*(part[chosen] for part in view)) for chosen in cuts]
    counts = [module.count(*part[:5]) for part in rows]
    torch.testing.assert_close(torch.stack(counts).sum(dim=0), module.count(*view[:5]))
    looks = [module(*part[:5], look_ahead=True)["look"] for part in rows]
    all_rows = module(*view[:5], look_ahead=True)["look"]
    torch.testing.assert_close(torch.stack(looks).sum(dim=0), all_rows)
    filled = view._replace(row_weight=torch.tensor([1.0, 1, 0, 1, 0, 1]))
    some = View(*(part[[0, 1, 3, 5]] for part in view))
    torch.testing.assert_close(
        module(*filled[:5], look_ahead=True)["look"], module(*some[:5], look_ahead=True)["look"]
    )
    torch.testing.assert_close(module.count(*filled[:5]), module.count(*some[:5]))


def test_hidden_samples_change_no_token() -> None:
    module = module_of(WCR)
    view = views_of(module)[0]
    seen = module.see(Window(*view[:3]), view.noise)
    samples = TINY.layout.samples(seen.hidden)
    changed = torch.where(samples, windows(ROWS, seed=3), view.signal)
    after = module.see(Window(changed, *view[1:3]), view.noise)
    assert torch.equal(after.tokens, seen.tokens)
    assert seen.latents is not None
    assert after.latents is not None
    for found, before in zip(after.latents, seen.latents, strict=True):
        assert torch.equal(found[~seen.hidden], before[~seen.hidden])
        assert not torch.equal(found[seen.hidden], before[seen.hidden])


def test_padding_and_missing_leads_take_part_in_nothing() -> None:
    module = module_of(WCR)
    views = views_of(module)
    expected = whole(module, views)
    past = [torch.arange(WINDOW) >= view.valid_samples[:, None, None] for view in views]
    changed = [
        view._replace(
            signal=torch.where(gone | ~view.lead_mask[:, :, None], windows(ROWS, seed=3), view.signal)
        )
        for view, gone in zip(views, past, strict=True)
    ]
    found = whole(module, changed)
    assert found.loss == expected.loss
    assert difference(found.gradients, expected.gradients) == 0


def test_a_student_without_anything_hidden_gives_the_published_encoders_tokens() -> None:
    module = module_of(ALONE)
    view = views_of(module)[0]
    valid = module.encoder.token_valid(view.valid_samples, view.lead_mask, TOKENS)
    latents = module.encoder.latents(*view[:3])
    torch.testing.assert_close(module.encoder.contextualise(latents.tokens, valid), module.encoder(*view[:3]))


def test_what_is_published_is_the_encoder_alone() -> None:
    """`export_model` writes the weights of these names."""
    weights = module_of(WCR).state_dict()
    own = {name.removeprefix("encoder.") for name in weights if name.startswith("encoder.")}
    assert own == set(build_encoder(TINY).state_dict())
    rest = {name.split(".")[1] for name in weights if name.startswith("generative.")}
    assert rest == {"mask_embedding", "quantiser", "project_quantised", "project_context"}


def test_gradients_that_reach_the_convolutions_are_scaled() -> None:
    gradients = []
    for scale in (1.0, 0.1):
        generative = ALONE.generative.model_copy(update={"stem_gradient_scale": scale})
        module = module_of(ALONE.model_copy(update={"generative": generative}))
        gradients.append(whole(module, views_of(module)).gradients)
    for name, gradient in gradients[0].items():
        scaled = name.startswith(("encoder.stem.mix", "encoder.stem.halve", "encoder.stem.quarter"))
        factor = 0.1 if scaled else 1.0
        torch.testing.assert_close(gradients[1][name], factor * gradient, rtol=1e-4, atol=1e-7)


def test_the_temperature_of_choices_decays_to_its_end() -> None:
    part = part_of(module_of(ALONE))
    found = [part.gumbel_temperature(step) for step in (0, 1, 100_000, 10_000_000)]
    assert found == pytest.approx([2.0, 2 * 0.999995, 2 * 0.999995**100_000, 0.5])


def test_the_reading_tells_codes_that_are_not_used() -> None:
    module = module_of(ALONE)
    part, view = part_of(module), views_of(module)[0]

    def perplexity() -> float:
        with torch.no_grad():
            look = module(*view[:5], look_ahead=True)["look"]
        census = torch.cat([module.count(*view[:5]).double(), look])
        return part.readings(census)["code_perplexity"]

    assert 2 < perplexity() <= 8
    with torch.no_grad():
        part.quantiser.score.weight.zero_()
        part.quantiser.score.bias[[3, 8 + 5]] = 1.0
    assert perplexity() == pytest.approx(1.0, abs=1e-4)


def test_a_bfloat16_student_has_float32_losses() -> None:
    module = module_of(WCR)
    views = views_of(module)
    expected = whole(module, views)
    found = whole(module.to(torch.bfloat16), views)
    assert found.parts == pytest.approx(expected.parts, rel=0.1)
    view = views[0]
    census = torch.cat([module.count(*view[:5]).double(), module(*view[:5], look_ahead=True)["look"]])
    seen = module.see(Window(*view[:3]), view.noise)
    sums = part_of(module).sums(seen, Window(*view[:3]), view.row_weight, view.seeds, census, 0)
    assert sums.dtype == torch.float32


def test_defaults_are_those_published() -> None:
    config = build(GenerativeConfig, {"method": "wav2vec"})
    assert (config.mask_share, config.mask_span, config.codebooks, config.codes) == (0.65, 10, 2, 320)
    assert (config.distractors, config.temperature) == (100, 0.1)
    assert (config.gumbel_start, config.gumbel_end, config.gumbel_decay) == (2.0, 0.5, 0.999995)
    assert config.factors == {"prediction": 1.0, "diversity": 0.1, "feature_penalty": 10.0}
    assert config.stem_gradient_scale == 0.1
    base = EncoderConfig(size="base", patch_samples=PATCH)
    with torch.device("meta"):
        objective = ObjectiveConfig(generative=config)
        part = part_of(PretrainingModule(base, objective, 125 * PATCH))
    assert (part.project_context.out_features, part.project_quantised.out_features) == (256, 256)
    assert part.quantiser.codebook.shape == (2, 320, 128)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (
            {"method": "wavvec"},
            "method = 'wavvec': there is no such method; choose one of reconstruction, wav2vec",
        ),
        ({"codes": 64}, "codes = 64 does not belong to method = reconstruction: it is a setting of wav2vec"),
        ({"method": "wav2vec", "mask_ratio": 0.5}, "mask_ratio = 0.5 does not belong to method = wav2vec"),
        ({"method": "wav2vec", "mask": "random"}, "mask = 'random' does not belong to method = wav2vec"),
        ({"method": "wav2vec", "mask_share": 1.0}, "mask_share = 1.0"),
        ({"method": "wav2vec", "gumbel_start": 0.1}, "gumbel_end 0.5 is above gumbel_start 0.1"),
        ({"method": "wav2vec", "stem_gradient_scale": 0}, "stem_gradient_scale = 0"),
        ({"method": "wav2vec", "distractor": 3}, "did you mean distractors"),
    ],
)
def test_a_setting_of_another_method_is_refused_by_name(values: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build(GenerativeConfig, values)


@pytest.mark.parametrize("method", ["reconstruction", "wav2vec"])
def test_what_is_saved_of_a_method_is_read_again(method: str) -> None:
    config = build(GenerativeConfig, {"method": method})
    assert build(GenerativeConfig, config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("contrastive", "said"),
    [
        ({"feature_decoder_layers": 2}, "feature_decoder_layers = 2 decodes tokens that were left out"),
        ({"student_view": "full"}, "a student that reconstructs or predicts sees the masked view"),
    ],
)
def test_what_a_predicting_student_cannot_have_is_refused(contrastive: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(said)):
        build(ObjectiveConfig, {"generative": {"method": "wav2vec"}, "contrastive": contrastive})


def test_without_weight_the_method_hides_nothing_and_says_so() -> None:
    values = {"generative": {"method": "wav2vec", "weight": 0}, "contrastive": {"method": "cmsc"}}
    module = PretrainingModule(TINY, build(ObjectiveConfig, values), WINDOW)
    view = views_of(module)[0]
    assert not module.see(Window(*view[:3]), view.noise).hidden.any()
    values["contrastive"] = {"student_view": "masked"}
    with pytest.raises(ConfigError, match=re.escape("leave generative.method = wav2vec out")):
        build(ObjectiveConfig, values)


@pytest.mark.parametrize("kind", ["xresnet", "s4d"])
def test_an_encoder_without_latents_is_refused_by_name(kind: str) -> None:
    said = (
        f"encoder.kind = {kind} encodes whole windows and cannot replace hidden tokens by a mask embedding, so it "
        "cannot serve generative.method = wav2vec."
    )
    with pytest.raises(ConfigError, match=re.escape(said)):
        check_together(ENCODER_CASES[kind], WCR)
    module = PretrainingModule(
        ENCODER_CASES[kind], build(ObjectiveConfig, {"generative": {"weight": 0}}), WINDOW
    )
    with pytest.raises(ConfigError, match=r"no latents that could be replaced; use encoder.kind = vit"):
        module.encoder.latents(*views_of(module)[0][:3])


@pytest.mark.parametrize("tokens", ["lead", "lead_time"])
def test_tokens_that_are_no_sequence_in_time_are_refused(tokens: str) -> None:
    with pytest.raises(ConfigError, match=f"needs encoder.tokens = time, not {tokens}"):
        check_together(VIT_CASES[f"vit, {tokens}"], WCR)


def test_spans_and_widths_that_do_not_fit_are_refused() -> None:
    for values, said in (
        (
            {"mask_span": 7},
            "generative.mask_span = 7 is more than half of the 12 tokens of a window; use at most 6",
        ),
        ({"mask_span": 2, "codebooks": 3}, "generative.final_dim = 64 cannot be divided among"),
    ):
        objective = build(ObjectiveConfig, {"generative": {"method": "wav2vec"} | values})
        with pytest.raises(ConfigError, match=re.escape(said)):
            PretrainingModule(TINY, objective, WINDOW)


def test_wrong_use_is_refused_with_what_to_do() -> None:
    module = module_of(ALONE)
    view = views_of(module)[0]
    with pytest.raises(TrainingError, match="take the pass with look_ahead first"):
        module(*view[:5])
    with pytest.raises(ConfigError, match="nothing can be reconstructed"):
        module.reconstruct(*view[:4])
    with pytest.raises(DataError, match="windows of 300 samples"):
        module(torch.zeros(ROWS, 12, WINDOW + PATCH), *view[1:5], look_ahead=True)
