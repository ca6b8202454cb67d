"""The loss of a whole batch in one pass, for any arm: what tests of properties take apart and put together again."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule, combine
from tests.models.batches import TINY, WINDOW, ragged

PATIENTS = torch.tensor([1, 2, 3, 4, 1, 6])
ROWS = len(PATIENTS)


class View(NamedTuple):
    """One view of a batch, as `PretrainingModule` takes it, and the seeds of what else is drawn."""

    signal: Tensor
    valid_samples: Tensor
    lead_mask: Tensor
    noise: Tensor
    row_weight: Tensor
    seeds: Tensor


class Whole(NamedTuple):
    """The loss of a batch, its parts, and the gradients by name."""

    loss: float
    parts: dict[str, float]
    gradients: dict[str, Tensor]


def module_of(objective: ObjectiveConfig, encoder: EncoderConfig = TINY) -> PretrainingModule:
    """The same weights each time."""
    torch.manual_seed(0)
    return PretrainingModule(encoder, objective, WINDOW)


def views_of(module: PretrainingModule) -> list[View]:
    """Two views of `ROWS` records; one record is short, another lacks leads, and two are of one patient."""
    draw = torch.Generator().manual_seed(5)
    views = []
    for number in range(2):
        noise = torch.rand(ROWS, module.num_tokens, generator=draw)
        seeds = torch.randint(2**60, (ROWS,), generator=draw)
        views.append(View(*ragged(ROWS, seed=number), noise, torch.ones(ROWS), seeds))
    return views


def whole(module: PretrainingModule, views: list[View], patient: Tensor = PATIENTS, step: int = 0) -> Whole:
    """Look ahead, make keys, judge every view, and go back."""
    module.zero_grad()
    objective, rows = module.config, len(patient)
    shown = views[: objective.student_passes]
    census = sum(module.count(*view[:5]).double() for view in shown)
    keys: list[Tensor | None] = [None] * len(shown)
    with torch.no_grad():
        teacher = module.teacher()
        if teacher is not None:
            keys = [teacher.keys(*views[1 - number][:3]) for number in range(len(shown))]
        if module.looks_ahead:
            looked = [module(*view[:5], look_ahead=True) for view in shown]
            if "look" in looked[0]:
                census = torch.cat([census, sum(each["look"] for each in looked)])
            if "query" in looked[0]:
                queries = [each["query"] for each in looked]
                keys = [torch.cat(queries), torch.cat(queries[::-1])]
    loss, parts = torch.zeros(()), dict.fromkeys(objective.losses, 0.0)
    for view, own_keys in zip(shown, keys, strict=True):
        outputs = module(
            *view[:5],
            *(own_keys, torch.arange(rows), patient, patient),
            seeds=view.seeds,
            census=census,
            step=step,
        )
        share, values = combine(outputs, census, rows, objective)
        loss = loss + share
        for name, value in values.items():
            parts[name] += value.item()
    loss.backward()
    named = {name: weight.grad for name, weight in module.named_parameters() if weight.grad is not None}
    return Whole(loss.item(), parts, {name: gradient.clone() for name, gradient in named.items()})


def difference(found: dict[str, Tensor], expected: dict[str, Tensor]) -> float:
    """The largest difference of two gradients, as a share of the largest value."""
    assert found.keys() == expected.keys()
    scale = max(gradient.abs().max() for gradient in expected.values())
    return max((found[name] - gradient).abs().max() / scale for name, gradient in expected.items()).item()
