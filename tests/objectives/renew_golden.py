"""Write the golden losses anew: ``python -m tests.objectives.renew_golden [ARM ...]``; say in the commit why.

Without names, of all arms; with names, of these alone.
"""

from __future__ import annotations

import json
import sys
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

    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    golden |= {arm: five_steps(arm) for arm in sys.argv[1:] or OBJECTIVES}
    GOLDEN.write_text(json.dumps(golden, indent=2) + "\n", encoding="utf-8")
    print(f"wrote {GOLDEN}")
