"""Write the golden losses anew: ``python -m tests.objectives.renew_golden``; say in the commit why."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from ecgdist.objectives.hybrid import ObjectiveConfig, PretrainingModule, combine
from tests.models.batches import TINY, TOKENS, WINDOW, ragged, windows

GOLDEN = Path(__file__).with_name("golden_losses.json")
ROWS, STEPS = 8, 5


def five_steps() -> list[dict[str, float]]:
    """Loss and its parts over five steps of the tiny hybrid on one made-up batch, float32 on the CPU."""
    torch.manual_seed(0)
    module = PretrainingModule(TINY, ObjectiveConfig(), WINDOW)
    teacher = module.teacher()
    assert teacher is not None
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3)
    signal, valid_samples, lead_mask = ragged(ROWS)
    number = torch.arange(ROWS)
    losses = []
    for step in range(STEPS):
        noise = torch.rand(ROWS, TOKENS, generator=torch.Generator().manual_seed(step))
        keys = teacher.keys(signal + 0.1 * windows(ROWS, seed=step + 1), valid_samples, lead_mask)
        sums = module(
            signal, valid_samples, lead_mask, noise, torch.ones(ROWS), keys, number, number // 2, number // 2
        )
        loss, parts = combine(sums, sums["reconstruction_tokens"], ROWS, module.config)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        teacher.update(module.student_parameters(), 0.9)
        losses.append({"loss": loss.item()} | {name: part.item() for name, part in parts.items()})
    return losses


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(five_steps(), indent=2) + "\n", encoding="utf-8")
    print(f"wrote {GOLDEN}")
