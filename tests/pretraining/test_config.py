"""A configuration that cannot work is refused before anything starts, in one sentence."""

from __future__ import annotations

from typing import Any

import pytest

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.pretraining.config import PretrainConfig


def config(**values: Any) -> PretrainConfig:
    return build(PretrainConfig, {"corpus": "corpus", "out": "run", **values})


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            {"data": {"lanes": 8, "global_batch": 20}},
            "data.global_batch = 20 is no multiple of data.lanes = 8; use 16 or 24",
        ),
        (
            {"data": {"lanes": 8, "global_batch": 5}},
            "data.global_batch = 5 is no multiple of data.lanes = 8; use 8",
        ),
        (
            {"data": {"lanes": 2}, "workers": {"count": 3}},
            "workers.count = 3 is more than data.lanes = 2: every worker needs a lane",
        ),
        (
            {"data": {"lanes": 2}, "workers": {"min": 1, "max": 3}},
            "workers.max = 3 is more than data.lanes = 2: every worker needs a lane",
        ),
        ({"workers": {"min": 3, "max": 2}}, "workers.min = 3 is more than workers.max = 2"),
        ({"workers": {"max": 2}}, "workers.min and workers.max go together; give both, or workers.count"),
        (
            {"workers": {"count": 2, "min": 1, "max": 2}},
            "workers.count = 2 and workers.min, workers.max set the same thing; give one of them",
        ),
        ({"steps": 10, "epochs": 2.0}, "steps = 10 and epochs = 2.0 set the same thing; give one of them"),
        ({"engine": {"zero_stag": 1}}, "unknown key engine.zero_stag"),
        ({"engine": {"zero_stag": 1}}, "did you mean zero_stage?"),
        ({"engine": {"zero_stage": 4}}, "engine.zero_stage = 4"),
        ({"engine": {"precision": "fp16"}}, "engine.precision = 'fp16'"),
        ({"optimizer": {"learning_rate": 0}}, "optimizer.learning_rate = 0"),
        ({"optimizer": {"betas": [0.9, 1.0]}}, "optimizer.betas.1 = 1.0"),
        ({"optimizer": {"betas": [-0.1, 0.9]}}, "optimizer.betas.0 = -0.1"),
        ({"steps": 0}, "steps = 0"),
        (
            {"augment": {"student": ["blur"]}},
            "augment.student.0 = 'blur': unknown augmentation blur; accepted",
        ),
        ({"augment": {"studnt": []}}, "unknown key augment.studnt"),
    ],
)
def test_a_wrong_value_is_named(values: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError) as raised:
        config(**values)
    assert sentence in str(raised.value)


def test_the_length_of_a_run_is_given_in_steps_or_in_epochs() -> None:
    assert config(steps=7).total_steps(10) == 7
    assert config(epochs=2.5).total_steps(10) == 25
    assert config(epochs=0.01).total_steps(10) == 1
    assert config().total_steps(10) == 1000


@pytest.mark.parametrize(
    ("workers", "range_"),
    [({}, (1, 1)), ({"count": 3}, (3, 3)), ({"min": 2, "max": 4}, (2, 4)), ({"min": 2, "max": 2}, (2, 2))],
)
def test_the_number_of_workers_is_one_or_a_range(workers: dict[str, int], range_: tuple[int, int]) -> None:
    found = config(workers=workers)
    assert (found.workers.least, found.workers.most) == range_
    assert found.workers.is_elastic == ("max" in workers)
    assert build(PretrainConfig, found.model_dump(mode="json")) == found


@pytest.mark.parametrize(
    ("rows", "global_batch"), [(1_000_000, 1024), (4096, 1024), (4000, 960), (300, 64), (10, 64)]
)
def test_the_global_batch_fits_a_small_corpus(rows: int, global_batch: int) -> None:
    assert config().data.resolved_global_batch(rows) == global_batch


def test_a_given_global_batch_is_kept() -> None:
    assert config(data={"lanes": 4, "global_batch": 12}).data.resolved_global_batch(10**6) == 12


@pytest.mark.parametrize(
    "free",
    [
        {"out": "elsewhere"},
        {"corpus": "moved"},
        {"workers": {"count": 4}},
        {"workers": {"min": 1, "max": 4}},
        {"checkpoint": {"every_steps": 5}},
        {"log_every_steps": 1},
        {"engine": {"micro_batch": 2}},
        {"data": {"stream": {"threads": 2}}},
        {"data": {"record_rows": "rows"}},
    ],
)
def test_what_changes_no_result_may_change_on_resume(free: dict[str, Any]) -> None:
    assert config(**free).fixed_part() == config().fixed_part()


@pytest.mark.parametrize(
    "fixed",
    [
        {"seed": 1},
        {"steps": 5},
        {"data": {"lanes": 32}},
        {"data": {"shuffle_rows": 64}},
        {"engine": {"zero_stage": 2}},
        {"engine": {"precision": "bf16"}},
        {"encoder": {"size": "tiny"}},
        {"objective": {"contrastive": {"temperature": 0.1}}},
        {"device": {"window_s": 5}},
        {"optimizer": {"clip_norm": 2}},
        {"augment": {"student": ["time_out"]}},
        {"augment": {"teacher": ["time_out"]}},
    ],
)
def test_what_changes_results_is_fixed_for_a_run(fixed: dict[str, Any]) -> None:
    assert config(**fixed).fixed_part() != config().fixed_part()


def test_the_strength_of_an_augmentation_is_fixed_and_none_is_as_before_there_were_any() -> None:
    weak, strong = (
        config(augment={"student": [{"name": "time_out", "longest_s": seconds}]}) for seconds in (1, 2)
    )
    assert weak.fixed_part() != strong.fixed_part()
    assert build(PretrainConfig, strong.model_dump(mode="json")) == strong
    assert config().fixed_part()["augment"] == {}


def test_checkpoints_come_by_time_unless_steps_are_asked_for() -> None:
    usual, by_steps = (
        config().checkpoint,
        config(checkpoint={"every_minutes": None, "every_steps": 50}).checkpoint,
    )
    assert (usual.every_minutes, usual.every_steps, usual.keep_last, usual.keep_best) == (15, None, 2, None)
    assert not any(usual.due_at(step) for step in range(1, 1000))
    assert [step for step in range(1, 151) if by_steps.due_at(step)] == [50, 100, 150]


@pytest.mark.parametrize("part", ["generative", "contrastive"])
def test_the_best_checkpoint_is_judged_by_a_value_that_the_run_has(part: str) -> None:
    metric = {"generative": "reconstruction", "contrastive": "contrastive"}[part]
    settings = {"checkpoint": {"keep_best": {"metric": metric}}, "objective": {part: {"weight": 0}}}
    with pytest.raises(
        ConfigError, match=rf"keep_best\.metric = {metric}, but the objective has no such part"
    ):
        config(**settings)
    assert config(checkpoint=settings["checkpoint"]).checkpoint.keep_best is not None
    with pytest.raises(ConfigError, match=r"keep_best\.metric"):
        config(checkpoint={"keep_best": {"metric": "accuracy"}})
