import json

import pytest

from tests.objectives.renew_golden import GOLDEN, five_steps


def test_five_steps_of_the_tiny_hybrid_follow_the_golden_losses() -> None:
    expected = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for step, (seen, golden) in enumerate(zip(five_steps(), expected, strict=True)):
        assert seen == pytest.approx(golden, rel=1e-4), f"step {step}"
    assert expected[-1]["loss"] < expected[0]["loss"]
