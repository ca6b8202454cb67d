"""The whole path on the ECGs that ship with the package: pack, pretrain, probe, report."""

from __future__ import annotations

from rich.console import Console

from ecgdist.config import Config, build
from ecgdist.downstream.evaluate import EvaluateConfig, evaluate
from ecgdist.downstream.evaluation import Evaluation
from ecgdist.packing import PackConfig, pack
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.job import pretrain
from ecgdist.pretraining.raytrain import local_cpus
from ecgdist.raytools import ray_session
from ecgdist.report.run import EVALUATION, report_run
from ecgdist.sample import sample_folder
from ecgdist.storage import Location

TEST_FOLDS = ("fold7", "fold8")
"""What the probe of the shipped sample tests on; pretraining leaves these folds alone."""

_RECORDS_PER_SHARD = 100


class DemoConfig(Config):
    """The demo's few choices."""

    out: str = "demo"
    """Folder for the corpus and the run."""
    steps: int = 400
    """Optimizer steps; 400 take about two minutes on two cores."""
    workers: int = 2
    """Training workers."""


def demo(config: DemoConfig, console: Console) -> Evaluation:
    """Run the demo; run again, it goes on where it stopped.

    Raises:
        EcgdistError: whatever a step of it meets.
    """
    out, training = Location.of(config.out), pretrain_config(config)
    with ray_session(num_cpus=local_cpus(training)):
        console.rule("1 pack: sources -> corpus")
        packed = pack(
            PackConfig(
                sources=(f"ptbxl={sample_folder()}",),
                out=str(out / "corpus"),
                records_per_shard=_RECORDS_PER_SHARD,
            )
        )
        console.print(str(packed), highlight=False, soft_wrap=True)
        console.rule("2 pretrain: corpus -> model")
        run = pretrain(training, console)
    console.rule("3 evaluate: linear probe beside an untrained encoder")
    evaluation = evaluate(
        EvaluateConfig(model=str(run.model), corpus=str(out / "corpus"), task="ptbxl-super"),
    )
    (run.run / EVALUATION).write_bytes(evaluation.model_dump_json(indent=1).encode())
    for table in evaluation.tables():
        console.print(table)
    console.rule("4 report")
    console.print(f"open {report_run(run.run)}", highlight=False, soft_wrap=True)
    return evaluation


def pretrain_config(config: DemoConfig) -> PretrainConfig:
    """The run of the demo: a tiny encoder, 8 lanes, ZeRO stage 2."""
    out = Location.of(config.out)
    return build(
        PretrainConfig,
        {
            "corpus": str(out / "corpus"),
            "out": str(out / "run"),
            "steps": config.steps,
            "data": {"lanes": 8, "global_batch": 64, "shuffle_rows": 256, "exclude_splits": TEST_FOLDS},
            "encoder": {"size": "tiny"},
            "engine": {"zero_stage": 2},
            "workers": {"count": config.workers},
            "checkpoint": {"every_steps": 100},
        },
    )
