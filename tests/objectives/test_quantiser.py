import math

import pytest
import torch
from torch import Tensor

from ecgdist.objectives.quantiser import (
    LOG_FLOOR,
    Quantiser,
    diversity_loss,
    diversity_slope,
    perplexity,
    straight_through,
)


def draws(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def quantiser_of(width: int = 6, codebooks: int = 2, codes: int = 5, dim: int = 8) -> Quantiser:
    torch.manual_seed(0)
    return Quantiser(width, codebooks, codes, dim)


def test_a_latent_becomes_the_best_entry_of_every_codebook() -> None:
    quantiser = quantiser_of()
    latents, gumbel = draws(3, 4, 6), 3 * draws(3, 4, 2, 5, seed=1)
    found, codes, scores = quantiser(latents, gumbel, 2.0)
    weight, bias = quantiser.score.weight.detach(), quantiser.score.bias.detach()
    for row in range(3):
        for token in range(4):
            latent = latents[row, token]
            normal = (latent - latent.mean()) / (latent.var(correction=0) + 1e-5).sqrt()
            entries = []
            for book in range(2):
                own = [float(weight[book * 5 + code] @ normal + bias[book * 5 + code]) for code in range(5)]
                assert scores[row, token, book].tolist() == pytest.approx(own, rel=1e-4, abs=1e-5)
                noisy = [score + float(gumbel[row, token, book, code]) for code, score in enumerate(own)]
                best = noisy.index(max(noisy))
                assert codes[row, token, book] == best
                entries.append(quantiser.codebook[book, best])
            assert torch.equal(found[row, token], torch.cat(entries))
    assert len(set(codes.flatten().tolist())) > 2
    assert not torch.equal(codes, quantiser(latents, torch.zeros_like(gumbel), 2.0)[1])


def test_a_choice_has_the_gradient_of_its_softmax() -> None:
    scores, slope = draws(3, 5).double().requires_grad_(), draws(3, 5, seed=1).double()
    choice, codes = straight_through(scores, 0.7)
    assert torch.equal(choice, torch.nn.functional.one_hot(codes, 5).double())
    (found,) = torch.autograd.grad((choice * slope).sum(), scores)

    def soft(values: Tensor) -> Tensor:
        return ((values / 0.7).softmax(dim=1) * slope).sum()

    (expected,) = torch.autograd.grad(soft(scores), scores)
    torch.testing.assert_close(found, expected)
    assert torch.autograd.gradcheck(soft, (scores,))


def slow_diversity(usage: list[list[float]]) -> float:
    """(G V - sum over codebooks of exp(entropy)) / (G V)."""
    in_use = 0.0
    for book in usage:
        in_use += math.exp(-sum(share * math.log(share + LOG_FLOOR) for share in book))
    return (len(usage) * len(usage[0]) - in_use) / (len(usage) * len(usage[0]))


def test_diversity_equals_a_loop_and_its_slope_is_the_derivative() -> None:
    usage = (2 * draws(2, 7)).softmax(dim=1).double().requires_grad_()
    loss = diversity_loss(usage)
    assert loss.item() == pytest.approx(slow_diversity(usage.tolist()), rel=1e-5)
    assert torch.autograd.gradcheck(diversity_loss, (usage,))
    torch.testing.assert_close(diversity_slope(usage.detach()), torch.autograd.grad(loss, usage)[0])


def test_the_more_codes_are_in_use_the_smaller_the_loss() -> None:
    one = torch.zeros(2, 8)
    one[:, 3] = 1
    half = torch.cat([torch.full((2, 4), 0.25), torch.zeros(2, 4)], dim=1)
    every = torch.full((2, 8), 1 / 8)
    assert perplexity(one).tolist() == pytest.approx([1, 1], abs=1e-5)
    assert perplexity(half).tolist() == pytest.approx([4, 4], rel=1e-5)
    assert [diversity_loss(usage).item() for usage in (one, half, every)] == pytest.approx(
        [7 / 8, 1 / 2, 0], abs=1e-5
    )
    assert diversity_slope(one).isfinite().all()


def test_a_low_temperature_makes_the_gradient_of_a_choice_firm() -> None:
    slopes = []
    for temperature in (0.05, 2.0):
        scores = torch.tensor([[1.0, 0.0, -1.0]], requires_grad=True)
        choice, _ = straight_through(scores, temperature)
        choice[0, 0].backward()
        slopes.append(scores.grad.abs().max().item())
    assert slopes[0] < 1e-6 < slopes[1]
