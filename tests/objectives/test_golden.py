import json

import pytest

from tests.objectives.renew_golden import GOLDEN, five_steps
from tests.pretraining.runs import OBJECTIVES


@pytest.mark.parametrize("arm", OBJECTIVES)
def test_five_steps_of_every_arm_follow_the_golden_losses(arm: str) -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))[arm]
    for step, (seen, golden) in enumerate(zip(five_steps(arm), expected, strict=True)):
        assert seen == pytest.approx(golden, rel=1e-4), f"step {step}"
