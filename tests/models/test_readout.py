"""Readouts: what they compute, beside a slow loop, and what they must not see."""

from __future__ import annotations

import math

import pytest
import torch

from ecgdist.models.readout import READOUTS, AttentionReadout, LinearReadout

DIM, OUTPUTS = 64, 3


def tokens(count: int = 7) -> tuple[torch.Tensor, torch.Tensor]:
    """Five records; the last has no valid token, and two others are padded."""
    torch.manual_seed(1)
    valid = torch.ones(5, count, dtype=torch.bool)
    valid[1, 4:] = valid[3, 2:] = valid[4] = False
    return torch.randn(5, count, DIM), valid


def attention() -> AttentionReadout:
    torch.manual_seed(2)
    readout = AttentionReadout(DIM, OUTPUTS).double()
    torch.nn.init.normal_(readout.query)
    return readout


@torch.no_grad()
def test_attention_is_the_softmax_over_valid_tokens_head_by_head() -> None:
    readout = attention()
    values, valid = tokens()
    found = readout.pooled(values.double(), valid)
    width = DIM // readout.heads
    for record in range(4):
        parts = []
        for head in range(readout.heads):
            here = slice(head * width, (head + 1) * width)
            query = readout.query[here]
            scores, carried = [], []
            for token in torch.nonzero(valid[record]).flatten():
                both = readout.key_value(readout.norm(values[record, token].double()))
                key, value = both[:DIM][here], both[DIM:][here]
                scores.append(float(query @ key) / math.sqrt(width))
                carried.append(value)
            weight = [math.exp(score) / sum(map(math.exp, scores)) for score in scores]
            parts.append(sum(w * v for w, v in zip(weight, carried, strict=True)))
        expected = readout.out_norm(torch.cat(parts))
        torch.testing.assert_close(found[record], expected, rtol=1e-5, atol=1e-8)


def test_attention_begins_as_the_mean() -> None:
    readout = AttentionReadout(DIM, OUTPUTS)
    values, valid = tokens()
    value = readout.key_value(readout.norm(values))[..., DIM:]
    means = torch.stack([value[n][valid[n]].mean(dim=0) for n in range(4)])
    torch.testing.assert_close(readout.pooled(values, valid)[:4], readout.out_norm(means))


def test_linear_is_the_mean_over_valid_tokens_and_one_map() -> None:
    readout = LinearReadout(DIM, OUTPUTS)
    values, valid = tokens()
    means = torch.stack([values[n][valid[n]].mean(dim=0) for n in range(4)])
    torch.testing.assert_close(
        readout(values, valid)[:4], means @ readout.linear.weight.T + readout.linear.bias
    )


@pytest.mark.parametrize("kind", READOUTS)
def test_padding_is_not_seen_and_a_record_of_padding_alone_gives_numbers(kind: str) -> None:
    readout = READOUTS[kind](DIM, OUTPUTS)
    values, valid = tokens()
    other = values.masked_fill(~valid[:, :, None], 99.0)
    torch.testing.assert_close(readout(values, valid)[:4], readout(other, valid)[:4])
    assert torch.isfinite(readout(values, valid)).all()


@pytest.mark.parametrize("dim", [32, 48, 128, 192])
def test_heads_divide_any_width(dim: int) -> None:
    readout = AttentionReadout(dim, OUTPUTS)
    assert dim % readout.heads == 0
    assert readout(torch.randn(2, 3, dim), torch.ones(2, 3, dtype=torch.bool)).shape == (2, OUTPUTS)


def test_what_is_dropped_reaches_no_output() -> None:
    readout = LinearReadout(DIM, OUTPUTS)
    values, valid = tokens()
    kept = torch.zeros(5, DIM)
    torch.testing.assert_close(readout(values, valid, kept), readout.linear.bias.expand(5, -1))
