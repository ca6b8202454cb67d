"""Settings that a sweep draws, and configurations of sweeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ecgdist.config import build
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.downstream.sweep.job import _Search
from ecgdist.downstream.sweep.result import choose, ranked
from ecgdist.downstream.sweep.space import Dimension, Suggestions
from ecgdist.downstream.sweep.trial import Outcome, Record
from ecgdist.errors import ConfigError
from ecgdist.storage import Location

SPACE = {
    "optimizer.learning_rate": {"low": 1e-4, "high": 1e-2, "log": True},
    "readout.kind": {"choices": ["linear", "attention"]},
    "patience": {"low": 2, "high": 9, "whole": True},
}
GIVEN = {
    "out": "o",
    "finetune": {"model": "m", "task": "ptbxl-super", "corpus": "c"},
    "space": SPACE,
}


def space() -> dict[str, Dimension]:
    return {name: build(Dimension, values) for name, values in SPACE.items()}


@pytest.mark.parametrize("search", ["random", "tpe"])
def test_a_draw_depends_on_its_number_and_on_what_was_told(search: Any) -> None:
    first, again = (Suggestions(search, space(), 3, "max") for _ in range(2))
    for number in range(12):
        drawn = first.draw(number)
        values = first.values(drawn)
        assert 1e-4 <= values["optimizer.learning_rate"] <= 1e-2
        assert values["readout.kind"] in ("linear", "attention")
        assert values["patience"] in range(2, 10)
        assert again.draw(number) == drawn
        for suggestions in (first, again):
            suggestions.tell(drawn, values["optimizer.learning_rate"])
    assert len({json.dumps(first.draw(number)) for number in range(12)}) == 12
    assert Suggestions(search, space(), 4, "max").draw(0) != first.draw(0)


def test_tpe_learns_from_what_it_is_told() -> None:
    suggestions = Suggestions("tpe", {"x": Dimension(low=0.0, high=1.0)}, 0, "max")
    found = []
    for number in range(60):
        drawn = suggestions.draw(number)
        found.append(drawn["x"])
        suggestions.tell(drawn, -abs(drawn["x"] - 0.8))
    near = [abs(x - 0.8) < 0.2 for x in found]
    assert sum(near[-20:]) > 14, "by chance it would be eight"


def test_a_grid_has_every_combination_once() -> None:
    both = {"a": Dimension(choices=(1, 2, 3)), "b": Dimension(choices=("x", None))}
    suggestions = Suggestions("grid", both, 0, "max")
    assert suggestions.grid is not None
    found = [suggestions.values(suggestions.draw(number)) for number in range(len(suggestions.grid))]
    assert found == [{"a": a, "b": b} for a in (1, 2, 3) for b in ("x", None)]
    with pytest.raises(ConfigError, match=r"optimizer\.learning_rate has low and high"):
        Suggestions("grid", space(), 0, "max")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"space": {"learning_rate": {"choices": [1]}}}, "unknown key learning_rate"),
        ({"space": {"out": {"choices": ["a"]}}}, "space.out is settled"),
        ({"space": {"patience": {"choices": [1], "low": 1}}}, "either choices, or low and high"),
        ({"space": {"patience": {"low": 3, "high": 2}}}, "not below high"),
        ({"space": {"patience": {"low": 0, "high": 2, "log": True}}}, "no logarithm"),
        ({"space": {}}, "space"),
        ({"finetune": {"task": "t", "corpus": "c"}}, "needs model"),
        ({"finetune": GIVEN["finetune"] | {"out": "x"}}, "finetune.out is settled"),
        ({"halving": {"factor": 3}}, "halving.grace_samples is required"),
        ({"search": "genetic"}, "search = 'genetic'"),
    ],
)
def test_what_cannot_be_swept_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        build(SweepConfig, GIVEN | changes)


def test_a_trial_is_the_shared_part_with_its_own_settings() -> None:
    config = build(SweepConfig, GIVEN | {"halving": {"grace_samples": 50}})
    trial = config.trial(7, {"optimizer.learning_rate": 0.002, "readout.kind": "attention", "patience": 4})
    assert (trial.out, trial.optimizer.learning_rate, trial.readout.kind) == (
        "o/trials/00007",
        0.002,
        "attention",
    )
    assert trial.halving is not None
    assert (trial.halving.number, trial.halving.trials, trial.halving.factor) == (7, "o/trials", 3)


def test_the_best_is_chosen_by_validation_and_of_equals_the_first() -> None:
    values = {0: 0.7, 1: None, 2: 0.9, 3: 0.9, 4: 0.8}
    outcomes = [
        Outcome(record=Record(number=n, drawn={}, values={}), state="done" if v else "failed", value=v)
        for n, v in values.items()
    ]
    assert [each.record.number for each in ranked(outcomes, "max")] == [2, 3, 4, 0, 1]
    assert [each.record.number for each in ranked(outcomes, "min")] == [0, 4, 2, 3, 1]
    chosen = choose(outcomes, "max")
    assert chosen is not None
    assert chosen.record.number == 2
    assert choose(outcomes[1:2], "max") is None


def test_a_trial_finds_what_lies_beside_the_sweep_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray Tune runs every trial in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    search = _Search(build(SweepConfig, GIVEN), Location.of("o/trials"), said.append)
    settings = search.suggest("first")["finetune"]
    places = {"model": "m", "corpus": "c", "out": "o/trials/00000"}
    assert {name: settings[name] for name in places} == {n: str(tmp_path / at) for n, at in places.items()}
    assert settings["task"] == "ptbxl-super"
    assert said[0].startswith("trial 0: ")
