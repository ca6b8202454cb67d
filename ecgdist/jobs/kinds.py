"""The commands that can be a job, and which of their settings name files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ecgdist.config import Config
from ecgdist.errors import ConfigError


@dataclass(frozen=True)
class Kind:
    """A command that can be a job.

    Attributes:
        config: gives its configuration class, which takes a while to import.
        places: dotted names of the settings that name a folder or file, or several, which the cluster must see.
        tasks: likewise of those that name a task, which may be a small file of the user's: it travels with the job.
        saves: whether the job can be asked to save a checkpoint and stop.
    """

    config: Callable[[], type[Config]]
    places: tuple[str, ...]
    tasks: tuple[str, ...] = ()
    saves: bool = False


def _pack() -> type[Config]:
    from ecgdist.packing.config import PackConfig

    return PackConfig


def _pretrain() -> type[Config]:
    from ecgdist.pretraining.config import PretrainConfig

    return PretrainConfig


def _finetune() -> type[Config]:
    from ecgdist.downstream.finetuning.config import FineTuneConfig

    return FineTuneConfig


def _evaluate() -> type[Config]:
    from ecgdist.downstream.evaluation_files import EvaluateToFiles

    return EvaluateToFiles


def _sweep() -> type[Config]:
    from ecgdist.downstream.sweep.config import SweepConfig

    return SweepConfig


def _benchmark() -> type[Config]:
    from ecgdist.downstream.benchmark.config import BenchmarkConfig

    return BenchmarkConfig


def _embed() -> type[Config]:
    from ecgdist.downstream.embed import EmbedConfig

    return EmbedConfig


def _compare() -> type[Config]:
    from ecgdist.compare import CompareConfig

    return CompareConfig


_TRAINING = ("corpus", "data.record_rows")
_PRETRAINING = (*_TRAINING, "data.evaluation_corpora")
_TUNING = (*_TRAINING, "model")

KINDS: Mapping[str, Kind] = {
    "pack": Kind(_pack, ("sources", "out")),
    "pretrain": Kind(_pretrain, ("out", *_PRETRAINING), saves=True),
    "finetune": Kind(_finetune, ("out", *_TUNING), tasks=("task",), saves=True),
    "evaluate": Kind(_evaluate, ("model", "corpus", "out", "html", "predictions"), tasks=("task",)),
    "sweep": Kind(
        _sweep,
        ("out", *(f"finetune.{name}" for name in _TUNING), "space.model.choices"),
        tasks=("finetune.task",),
    ),
    "benchmark": Kind(_benchmark, ("model", "corpus", "out"), tasks=("tasks",)),
    "embed": Kind(_embed, ("model", "corpus", "out")),
    "compare": Kind(_compare, ("out", *(f"pretrain.{name}" for name in _PRETRAINING)), tasks=("task",)),
}
"""By the name of the command."""


def kind_of(command: str) -> Kind:
    """The kind of a command.

    Raises:
        ConfigError: if it cannot be a job.
    """
    if command not in KINDS:
        raise ConfigError(f"{command} cannot be submitted; these can: {', '.join(KINDS)}")
    return KINDS[command]
