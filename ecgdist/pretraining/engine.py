"""DeepSpeed around the student: what a training step needs of it, and nothing else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import deepspeed
import torch
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor

from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.config import EngineConfig, OptimizerConfig

_TAG = "state"


class DeepSpeedEngine:
    """A student whose weights, gradients and optimizer DeepSpeed may split over workers (ZeRO).

    Attributes:
        module: the student; under ZeRO-3 its weights are partitioned.
    """

    def __init__(
        self,
        module: PretrainingModule,
        config: EngineConfig,
        optimizer: OptimizerConfig,
        weight_decay: float,
        num_micro_batches: int,
        universal: bool = False,
    ) -> None:
        """Hand the student to DeepSpeed. torch's process group must be up; every rank calls this together.

        Args:
            universal: load a universal checkpoint later on, one that was saved with another number of workers.
        """
        self.stage = config.zero_stage
        self.module = module
        settings = {
            "train_micro_batch_size_per_gpu": config.micro_batch,
            "gradient_accumulation_steps": num_micro_batches,
            "gradient_clipping": optimizer.clip_norm,
            "zero_optimization": {"stage": config.zero_stage},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": config.precision == "bf16"},
            "checkpoint": {"load_universal": universal},
        }
        _avoid_compiling()
        adamw = torch.optim.AdamW(
            parameter_groups(module, weight_decay), lr=0.0, betas=optimizer.betas, weight_decay=weight_decay
        )
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=adamw, config=settings, dist_init_required=False
        )

    def forward(self, *inputs: Tensor | None) -> dict[str, Tensor]:
        """The student's sums for a micro-batch."""
        outputs: dict[str, Tensor] = self._engine(*inputs)
        return outputs

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients, which DeepSpeed averages over ranks and sums over micro-batches."""
        # The loss is divided by counts of the global batch already; dividing by micro-batches again would be wrong.
        self._engine.backward(loss, scale_wrt_gas=False)
        if not last:
            self._engine.step()

    def update(self, learning_rate: float) -> float:
        """Change the weights; returns the norm of the gradient before clipping."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()
        norm = self._engine.get_global_grad_norm()
        return float(norm) if norm is not None else float("nan")

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        """Move the teacher towards the student's present weights, on every rank alike."""
        named = list(self.module.student_parameters())
        with self._whole([weight for _, weight in named]):
            teacher.update(named, momentum)

    def full_weights(self) -> dict[str, Tensor]:
        """The student's trainable weights, whole and in fp32, on the CPU of every rank. All ranks call this together."""
        weights = {}
        for name, weight in self.module.named_parameters():
            # DeepSpeed keeps fp32 copies only where it trains in lower precision or splits the optimizer.
            full = safe_get_full_fp32_param(weight) if hasattr(weight, "_hp_mapping") or self.stage == 3 else None
            whole = weight.detach() if full is None else full
            weights[name] = whole.to("cpu", torch.float32, copy=True).contiguous()
        return weights

    def save(self, folder: Path) -> None:
        """Write this rank's part of the training state below `folder`. All ranks call this together."""
        self._engine.save_checkpoint(os.fspath(folder), tag=_TAG)

    def load(self, folder: Path) -> None:
        """Restore the training state from `folder`, which holds every rank's part."""
        self._engine.load_checkpoint(os.fspath(folder), tag=None)

    def _whole(self, weights: list[torch.nn.Parameter]) -> Any:
        if self.stage < 3:
            return nullcontext()
        return deepspeed.zero.GatheredParameters(weights, modifier_rank=None)


def parameter_groups(module: torch.nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay; biases, norms and learned tokens do not."""
    decayed, plain = [], []
    for _, weight in module.named_parameters():
        (decayed if weight.ndim > 1 else plain).append(weight)
    return [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]


def to_universal(folder: Path) -> None:
    """Convert a checkpoint of ZeRO 1-3 in place, so that any number of workers can load it."""
    from deepspeed.checkpoint import ds_to_universal

    options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    source, target = folder / _TAG, folder / "universal"
    with _quiet():
        ds_to_universal.main(
            _Options(input_folder=str(source), output_folder=str(target), inject_missing_state=True, **options)
        )
    (folder / "latest").write_text("universal")


class _Options:
    """Named values, as the converter's command line would parse them."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what the converter prints to nowhere."""
    with open(os.devnull, "w") as sink:
        from contextlib import redirect_stderr, redirect_stdout

        with redirect_stdout(sink), redirect_stderr(sink):
            yield


def _avoid_compiling() -> None:
    """On CPU, keep DeepSpeed from compiling its shared-memory communication for a minute; gloo does that work here."""
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
