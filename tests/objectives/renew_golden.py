"""Write the golden losses anew: ``python -m tests.objectives.renew_golden``; say in the commit why."""

from __future__ import annotations

import json
from pathlib import Path

from tests.pretraining.runs import Setting, SmallRun

GOLDEN = Path(__file__).with_name("golden_losses.json")
STEPS = 5


def five_steps(arm: str) -> list[dict[str, float]]:
    """Loss and its parts over five steps of a tiny model on made-up ECGs, float32 on the CPU."""
    results = SmallRun(Setting(arm=arm, learning_rate=3e-3), plain=True).steps(0, STEPS)
    return [{"loss": result.loss} | result.parts for result in results]


if __name__ == "__main__":
    from tests.pretraining.runs import OBJECTIVES

    golden = {arm: five_steps(arm) for arm in OBJECTIVES}
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {GOLDEN}")
