"""What is planned of a worker's memory, messages and checkpoints, counted in DeepSpeed itself."""

from __future__ import annotations

import gc
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ecgdist.config import build
from ecgdist.planning.communication import step_traffic
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.memory import checkpoint_bytes
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.zero import BUCKET, divided_state
from tests.pretraining.processes import Processes
from tests.pretraining.runs import ENCODER, GLOBAL_BATCH, LANES, ORDER, PREPROCESSING, Setting, SmallRun

WORKERS = 2
MICRO_BATCH = 3
SETTINGS = [(stage, precision) for stage in range(4) for precision in ("fp32", "bf16")]


class Counted(NamedTuple):
    """Of one rank: bytes of its tensors at the end of a backward pass, elements sent, and bytes of its checkpoint."""

    live_bytes: int
    reduced: int
    gathered: int
    saved_bytes: int


class _Collectives(TorchDispatchMode):
    """Counts the elements of collective operations."""

    def __init__(self) -> None:
        super().__init__()
        self.elements: Counter[str] = Counter()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(function)
        if name.startswith("c10d.allreduce_"):
            self.elements["reduced"] += sum(tensor.numel() for tensor in args[0])
        elif name.startswith("c10d._allgather_base_"):
            self.elements["gathered"] += args[0].numel()
        elif name.startswith("c10d._reduce_scatter_base_"):
            self.elements["gathered"] += args[1].numel()
        return function(*args, **(kwargs or {}))


def _live_bytes() -> int:
    gc.collect()
    tensors = [one for one in gc.get_objects() if isinstance(one, Tensor)]
    return sum({t.untyped_storage()._cdata: t.untyped_storage().nbytes() for t in tensors}.values())


def count(stage: int, precision: str) -> Counted:
    """Train two steps; runs in every process of a group."""
    before = _live_bytes()
    run = SmallRun(Setting(zero_stage=stage, precision=precision, micro_batch=MICRO_BATCH))
    run.steps(0, 1)
    live = []
    update = run.engine.update

    def looking(learning_rate: float) -> float:
        live.append(_live_bytes() - before)
        norm: float = update(learning_rate)
        return norm

    run.engine.update = looking
    with _Collectives() as seen:
        run.steps(1, 2)
    with tempfile.TemporaryDirectory() as folder:
        run.engine.save(Path(folder))
        saved = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())
    return Counted(live[0], seen.elements["reduced"], seen.elements["gathered"], saved)


def layout(stage: int, precision: str) -> RunLayout:
    """What is planned for the same run."""
    values = {
        "corpus": "none",
        "out": "run",
        "steps": 50,
        "data": {"lanes": LANES, "global_batch": GLOBAL_BATCH},
        "encoder": ENCODER,
        "engine": {"zero_stage": stage, "precision": precision, "micro_batch": MICRO_BATCH},
        "workers": {"count": WORKERS},
    }
    return RunLayout(build(PretrainConfig, values), ORDER, ORDER.group_rows, 50, PREPROCESSING, None)


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "precision"), SETTINGS)
def test_plans_are_what_deepspeed_does(
    stage: int, precision: str, processes: Callable[[int], Processes]
) -> None:
    counted: list[Counted] = processes(WORKERS).run(count, stage, precision)
    run = layout(stage, precision)
    size = run.config.engine.compute_dtype.itemsize
    traffic = step_traffic(run, stage, WORKERS)
    # A few numbers more are agreed upon by all ranks, and shares are padded to equal lengths.
    for rank in counted:
        assert rank.reduced * size == pytest.approx(traffic.reduced_bytes, rel=0.01, abs=4_000)
        assert rank.gathered * size == pytest.approx(traffic.gathered_bytes, rel=0.01, abs=4_000)
    state = divided_state(run.parameters, stage, WORKERS, precision == "bf16", run.teacher_parameters)
    planned = state.by_zero + state.engine
    if stage in (1, 2):
        planned -= size * BUCKET  # given back at the end of a backward pass
    if stage == 2:
        planned += size * run.parameters  # what was in it
    if stage == 3:
        planned += size * run.whole_under_3
    assert counted[0].live_bytes == pytest.approx(planned, rel=0.03)
    engine = checkpoint_bytes(run) - 4 * run.parameters - 4 * run.teacher_parameters
    assert sum(rank.saved_bytes for rank in counted) == pytest.approx(engine, rel=0.03)
