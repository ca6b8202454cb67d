"""Memory of a worker, and bytes of a checkpoint."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Literal

from ecgdist.config import Config
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.planning.activations import activation_bytes, view_bytes
from ecgdist.planning.layout import RunLayout
from ecgdist.pretraining.config import EngineConfig, PretrainConfig
from ecgdist.pretraining.step import micro_batches
from ecgdist.pretraining.zero import default_stage, divided_state

Precision = Literal["fp32", "bf16"]
_FEW_ROWS = 2, 4


class WorkerMemory(Config):
    """Bytes of one worker's device (or process, on CPUs) while it trains."""

    weights: float
    gradients: float
    optimizer: float
    """Adam's moments, in bf16 with the fp32 copy of the weights."""
    teacher: float
    engine: float
    """What DeepSpeed keeps beside what ZeRO asks for; see `zero.StateBytes`."""
    activations: float
    """Of one micro-batch."""
    views: float
    """Of the worker's rows of a step."""

    @property
    def state(self) -> float:
        """What is there between steps, with gradients."""
        return self.weights + self.gradients + self.optimizer + self.teacher + self.engine

    @property
    def total(self) -> float:
        """All of it."""
        return self.state + self.activations + self.views


class StateMemory(Config):
    """Memory of a worker under a precision and a ZeRO stage."""

    precision: Precision
    zero_stage: int
    workers: int
    memory: WorkerMemory


def worker_memory(
    layout: RunLayout, workers: int, precision: Precision | None = None, stage: int | None = None
) -> WorkerMemory:
    """Memory of the busiest of so many workers.

    Args:
        layout: the run.
        workers: among which ZeRO divides.
        precision, stage: instead of the run's own.
    """
    config, order = layout.config, layout.order
    precision = precision or config.engine.precision
    stage = stage_of(config, layout.parameters, workers) if stage is None else stage
    rows = len(order.positions_of(0, workers))
    at_once = -(-rows // micro_batches(order, workers, config.engine.micro_batch))
    is_bf16 = precision == "bf16"
    state = divided_state(layout.parameters, stage, workers, is_bf16, layout.teacher_parameters)
    return WorkerMemory(
        weights=state.weights,
        gradients=state.gradients,
        optimizer=state.optimizer,
        teacher=state.teacher,
        engine=state.engine,
        activations=_activations(
            config.encoder, config.objective, layout.window_samples, at_once, order.global_batch, precision
        ),
        views=view_bytes(config.objective, layout.window_samples, rows),
    )


def state_table(layout: RunLayout, workers: Sequence[int]) -> list[StateMemory]:
    """`worker_memory` for both precisions, all stages and some numbers of workers."""
    precisions: tuple[Precision, ...] = ("fp32", "bf16")
    return [
        StateMemory(
            precision=precision,
            zero_stage=stage,
            workers=number,
            memory=worker_memory(layout, number, precision, stage),
        )
        for precision in precisions
        for stage in range(4)
        for number in workers
    ]


def stage_of(config: PretrainConfig, parameters: int, workers: int) -> int:
    """The ZeRO stage of a run that has at least so many workers."""
    if config.engine.zero_stage is not None:
        return config.engine.zero_stage
    return default_stage(parameters, workers, config.engine.precision == "bf16")


def checkpoint_bytes(layout: RunLayout) -> float:
    """Bytes of a checkpoint, over all ranks.

    Per parameter the student's 4 and Adam's 8; the engine's own weights, but for stage 3 (4, in bf16 2); and the fp32
    copy of stages 1 to 3, and of bf16 (4). The teacher, where there is one, takes 4 for each of its own.
    """
    config = layout.config
    stage = stage_of(config, layout.parameters, config.workers.least)
    return layout.parameters * (4 + _engine_bytes(config.engine, stage)) + 4 * layout.teacher_parameters


def _engine_bytes(engine: EngineConfig, stage: int) -> int:
    is_bf16 = engine.precision == "bf16"
    own_weights = 0 if stage == 3 else 2 if is_bf16 else 4
    return 8 + own_weights + (4 if stage > 0 or is_bf16 else 0)


def _activations(
    encoder: EncoderConfig,
    objective: ObjectiveConfig,
    window_samples: int,
    rows: int,
    global_batch: int,
    precision: Precision,
) -> float:
    """`activation_bytes`, which grow by the same with every row, out of those of few rows."""
    few, more = (
        _counted(encoder, objective, window_samples, number, global_batch, precision) for number in _FEW_ROWS
    )
    return few + (more - few) / (_FEW_ROWS[1] - _FEW_ROWS[0]) * (rows - _FEW_ROWS[0])


@lru_cache(maxsize=16)
def _counted(
    encoder: EncoderConfig,
    objective: ObjectiveConfig,
    window_samples: int,
    rows: int,
    global_batch: int,
    precision: Precision,
) -> int:
    dtype = EngineConfig(precision=precision).compute_dtype
    return activation_bytes(encoder, objective, window_samples, rows, max(rows, global_batch), dtype)
