"""When training on labels ends, by what the validation split says."""

from __future__ import annotations

import pytest

from ecgdist.downstream.finetuning.looks import Look, best_look, ends_early, looks_in


def looks(*values: float) -> list[Look]:
    return [Look(10 * (n + 1), value) for n, value in enumerate(values)]


@pytest.mark.parametrize(
    ("values", "mode", "patience", "ends"),
    [
        ((), "max", 1, False),
        ((0.5,), "max", 1, False),
        ((0.5, 0.4), "max", 1, True),
        ((0.5, 0.4), "max", 2, False),
        ((0.5, 0.4, 0.45), "max", 2, True),
        ((0.5, 0.4, 0.6), "max", 2, False),
        ((0.5, 0.5, 0.5), "max", 2, True),
        ((9.0, 8.0, 8.5, 8.1), "min", 2, True),
        ((9.0, 8.0, 7.0), "min", 1, False),
        ((0.9, 0.1, 0.1, 0.1), "max", None, False),
    ],
)
def test_it_ends_when_the_last_looks_were_none_better(
    values: tuple[float, ...], mode: str, patience: int | None, ends: bool
) -> None:
    assert ends_early(looks(*values), mode, patience) is ends


def test_of_equally_good_looks_the_first_is_the_best() -> None:
    assert best_look(looks(0.1, 0.7, 0.7), "max") == (20, 0.7)
    assert best_look(looks(0.7, 0.1, 0.1), "min") == (20, 0.1)


def test_looks_are_read_from_the_metrics_up_to_a_step() -> None:
    rows = [
        {"step": 1, "loss": 2.0},
        {"step": 2, "auc": 0.5},
        {"step": 3, "loss": 1.0},
        {"step": 4, "auc": 0.6},
    ]
    assert looks_in(rows, "auc", 4) == [(2, 0.5), (4, 0.6)]
    assert looks_in(rows, "auc", 3) == [(2, 0.5)]
