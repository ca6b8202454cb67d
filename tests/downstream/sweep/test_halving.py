"""Which trials of a sweep end: by Ray Tune's own rule where results come in order, and by results alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from ray.tune.schedulers.async_hyperband import _Bracket

from ecgdist.downstream.halving import (
    HalvingConfig,
    HalvingPlace,
    Shown,
    at_rung,
    decision,
    rungs_between,
    survives,
)

GRACE, FACTOR, LOOKS = 100, 3, (90, 200, 310, 500, 950)


class Trial:
    """What Ray's scheduler knows of a trial."""

    def __init__(self, number: int) -> None:
        self.trial_id = str(number)


def curves(seed: int, trials: int) -> list[Shown]:
    """What trials would show if none was ended."""
    random = np.random.default_rng(seed)
    return [
        [(samples, float(value)) for samples, value in zip(LOOKS, random.random(5), strict=True)]
        for _ in range(trials)
    ]


def ended_at(seed: int, trials: int, mode: str, order: list[int] | None = None) -> dict[int, int]:
    """The samples at which each trial was ended, when trials take turns of one look in some order."""
    whole = curves(seed, trials)
    shown: list[list[tuple[int, float]]] = [[] for _ in range(trials)]
    ended: dict[int, int] = {}
    done: set[int] = set()
    turns = np.random.default_rng(seed) if order is None else None
    while len(done) < trials:
        left = [n for n in range(trials) if n not in done]
        number = int(turns.choice(left)) if turns is not None else left[0]
        place = HalvingPlace(grace_samples=GRACE, factor=FACTOR, trials="", number=number)
        own = whole[number][: len(shown[number]) + 1]
        verdicts = [
            decision(rung, value, place, mode, lambda n: (shown[n], n in done))
            for rung in rungs_between(0, own[-1][0], place)
            if (value := at_rung(own, rung)) is not None
        ]
        shown[number] = list(own)
        if None in verdicts:
            shown[number] = list(own[:-1]) if len(own) > 1 else []
            continue  # it waits
        if False in verdicts:
            ended[number] = own[-1][0]
            done.add(number)
        elif len(own) == len(LOOKS):
            done.add(number)
    return ended


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("mode", ["max", "min"])
def test_one_after_the_other_it_decides_as_ray_tunes_scheduler(seed: int, mode: str) -> None:
    bracket = _Bracket(GRACE, 10**6, FACTOR, 0)
    expected: dict[int, int] = {}
    for number, curve in enumerate(curves(seed, 8)):
        for samples, value in curve:
            if bracket.on_result(Trial(number), samples, value if mode == "max" else -value) == "STOP":
                expected[number] = samples
                break
    assert ended_at(seed, 8, mode, order=list(range(8))) == expected
    assert expected, "a sweep in which nothing ends shows nothing"


@pytest.mark.parametrize("seed", range(20))
def test_which_end_does_not_depend_on_who_is_faster(seed: int) -> None:
    assert ended_at(seed, 6, "max") == ended_at(seed, 6, "max", order=list(range(6)))


def test_a_trial_waits_for_those_before_it_and_for_no_other() -> None:
    place = HalvingPlace(grace_samples=100, factor=2, trials="", number=2)
    for state in itertools.product([None, "shown", "ended"], repeat=2):

        def look(number: int, state: tuple[str | None, ...] = state) -> tuple[Shown, bool]:
            return ([(120, 0.9)] if state[number] == "shown" else []), state[number] == "ended"

        found = decision(100, 0.5, place, "max", look)
        if None in state:
            assert found is None
        else:
            assert found is ("shown" not in state)


def test_the_first_to_come_goes_on_and_the_best_part_does() -> None:
    assert survives(0.1, [], 3, "max")
    assert survives(0.9, [0.1, 0.2, 0.8], 3, "max")
    assert not survives(0.2, [0.1, 0.5, 0.8], 3, "max")
    assert survives(0.2, [0.1, 0.5, 0.8], 3, "min")
    assert not survives(0.5, [0.1, 0.2, 0.8], 3, "min")


def test_rungs_are_powers_and_a_rung_is_met_by_the_first_look_behind_it() -> None:
    config = HalvingConfig(grace_samples=100, factor=3)
    assert rungs_between(0, 950, config) == [100, 300, 900]
    assert rungs_between(100, 899, config) == [300]
    shown = [(90, 0.1), (200, 0.2), (310, 0.3)]
    assert at_rung(shown, 100) == 0.2
    assert at_rung(shown, 300) == 0.3
    assert at_rung(shown, 900) is None
