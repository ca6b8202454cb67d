"""The ZeRO stage of a run that names none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.models.config import SIZES, EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.job import check_folder, claim_run, pretrain
from ecgdist.pretraining.plan import RunPlan
from ecgdist.pretraining.zero import STATE_BYTES, count_parameters, default_stage, state_bytes
from ecgdist.storage import Location


def test_parameters_are_counted_without_making_them() -> None:
    encoder, objective = EncoderConfig(size="tiny"), ObjectiveConfig()
    module = PretrainingModule(encoder, objective, 2250)
    assert count_parameters(encoder, objective, 2250) == sum(p.numel() for p in module.parameters())


def test_what_each_stage_splits() -> None:
    """Weight 4, gradient 4, Adam 8, and the teacher's 4 on every worker."""
    assert [state_bytes(1, stage, 1) for stage in range(4)] == [20, 20, 20, 20]
    assert [state_bytes(1, stage, 4) for stage in range(4)] == [20, 14, 11, 8]


@pytest.mark.parametrize("size", SIZES)
def test_every_size_fits_whole(size: str) -> None:
    parameters = count_parameters(build(EncoderConfig, {"size": size}), ObjectiveConfig(), 2250)
    assert default_stage(parameters, 1, is_bf16=False) == 0
    assert default_stage(parameters, 1, is_bf16=True) == 1, "DeepSpeed is slow in bf16 without ZeRO"


def test_larger_models_take_the_lowest_stage_that_fits() -> None:
    edge = STATE_BYTES // 20
    assert [default_stage(edge + more, 8, is_bf16=False) for more in (0, 1)] == [0, 1]
    stages = [default_stage(parameters, 64, is_bf16=False) for parameters in range(10**8, 4 * 10**9, 10**7)]
    assert stages == sorted(stages)
    assert set(stages) == {0, 1, 2, 3}
    assert default_stage(10**11, 2, is_bf16=True) == 3, "nothing fits: the one that takes least"


def plan(corpus: Corpus, out: Path, **engine: Any) -> RunPlan:
    values = {
        "corpus": str(corpus.location),
        "out": str(out),
        "steps": 2,
        "data": {"lanes": 4, "global_batch": 16},
        "device": {"window_s": 2.5, "lowpass_hz": 40},
        "encoder": {"size": "tiny", "patch_samples": 25},
        "engine": engine,
    }
    return RunPlan.of(build(PretrainConfig, values))


@pytest.mark.ray
@pytest.mark.slow
def test_a_run_goes_on_with_the_stage_it_began_with(sample_corpus: Corpus, tmp_path: Path) -> None:
    run = Location.of(str(tmp_path / "run"))
    claim_run(run, plan(sample_corpus, tmp_path / "run", zero_stage=2))
    unnamed = plan(sample_corpus, tmp_path / "run")
    assert unnamed.config.engine.zero_stage == 0, "the rule's, for a new run"
    result = pretrain(
        unnamed.config.model_copy(
            update={"engine": unnamed.config.engine.model_copy(update={"zero_stage": None})}
        )
    )
    assert check_folder(result.run, plan(sample_corpus, tmp_path / "run", zero_stage=2))
