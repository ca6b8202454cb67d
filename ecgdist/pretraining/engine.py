"""DeepSpeed around the student: what a training step needs of it, and nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch

# Named here, since DeepSpeed warns on every start that it had to find out that there is no GPU.
os.environ.setdefault("DS_ACCELERATOR", "cuda" if torch.cuda.is_available() else "cpu")

import deepspeed
from deepspeed.utils import safe_get_full_fp32_param
from torch import Tensor

from ecgdist.errors import DataError
from ecgdist.models.freezing import is_frozen
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.config import AdamWConfig, EngineConfig
from ecgdist.pretraining.nonfinite import GradientWatch
from ecgdist.pretraining.pickles import refuse_code

_TAG, _UNIVERSAL = "state", "universal"
_SCALE = "learning_rate_scale"

Module = TypeVar("Module", bound=torch.nn.Module)

for _name in ("all_gather_into_tensor", "reduce_scatter_tensor"):
    # DeepSpeed 0.19 calls them in every step under these names, which torch 2.13 says each time are old.
    warnings.filterwarnings("ignore", rf"`torch\.distributed\.{_name}` is deprecated", FutureWarning)


class ZeroEngine(Generic[Module]):
    """A module whose weights, gradients and optimizer DeepSpeed may split over workers (ZeRO).

    Attributes:
        module: what is trained; under ZeRO-3 its weights are partitioned.
    """

    def __init__(
        self,
        module: Module,
        groups: list[dict[str, Any]],
        config: EngineConfig,
        optimizer: AdamWConfig,
        num_micro_batches: int,
        universal: bool = False,
    ) -> None:
        """Hand the module to DeepSpeed. torch's process group must be up; every rank calls this together.

        Args:
            groups: for AdamW, as of `parameter_groups`.
            universal: load a universal checkpoint later on, saved with another number of workers.
        """
        self.stage = config.stage
        self._is_bf16 = config.precision == "bf16"
        self._tells_norm = config.stage > 0 or self._is_bf16
        self.module = module
        settings = {
            "train_micro_batch_size_per_gpu": config.micro_batch,
            "gradient_accumulation_steps": num_micro_batches,
            "gradient_clipping": optimizer.clip_norm,
            "zero_optimization": {"stage": config.stage},
            "zero_allow_untested_optimizer": True,
            "bf16": {"enabled": config.precision == "bf16"},
            "checkpoint": {"load_universal": universal},
        }
        _avoid_compiling()
        adamw = torch.optim.AdamW(groups, lr=0.0, betas=optimizer.betas)
        self._engine, *_ = deepspeed.initialize(
            model=module, optimizer=adamw, config=settings, dist_init_required=False
        )
        self._watch = GradientWatch(module)
        # In bf16 without ZeRO, DeepSpeed begins with a step without gradients, which Adam would count.
        for state in self.optimizer.state.values():
            state["step"].zero_()

    @property
    def optimizer(self) -> Any:
        """DeepSpeed's optimizer; its `param_groups` and `state` are AdamW's, for this rank's share."""
        return self._engine.optimizer

    def forward(self, *inputs: Tensor, **named: Tensor | int | None) -> dict[str, Tensor]:
        """What the module makes of a micro-batch."""
        outputs: dict[str, Tensor] = self._engine(*inputs, **named)
        return outputs

    def backward(self, loss: Tensor, last: bool) -> None:
        """Accumulate gradients, which DeepSpeed averages over ranks and sums over micro-batches."""
        # The loss is divided by counts of the global batch already; their number of parts does not matter.
        self._engine.backward(loss, scale_wrt_gas=False)
        if not last:
            self._engine.step()

    def take_not_finite(self) -> Tensor:
        """Whether this rank's last backward pass made a gradient that is not finite: 0-d bool."""
        return self._watch.take()

    def update(self, learning_rate: float) -> float:
        """Change the weights; returns the norm of the gradient before clipping."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate * group.get(_SCALE, 1.0)
        # Without ZeRO in fp32, DeepSpeed clips but does not tell the norm; every rank has the whole gradient.
        plain = [] if self._tells_norm else [w.grad for w in self.module.parameters() if w.grad is not None]
        own_norm = torch.nn.utils.get_total_norm(plain)
        self._engine.step()
        return float(self._engine.get_global_grad_norm() if self._tells_norm else own_norm)

    def full_weights(self) -> dict[str, Tensor]:
        """The weights, whole, in fp32, on the CPU of every rank. All ranks call this together."""
        copies = self._unsplit_copies()
        weights = {}
        for name, weight in self.module.named_parameters():
            # DeepSpeed keeps fp32 copies only where it trains in lower precision or splits the optimizer.
            split = hasattr(weight, "_hp_mapping") or self.stage == 3
            full = safe_get_full_fp32_param(weight) if split else copies.get(weight, weight)
            weights[name] = full.detach().to("cpu", torch.float32, copy=True).contiguous()
        return weights

    def save(self, folder: Path) -> None:
        """Write this rank's part of the training state below `folder`. All ranks call this together."""
        self._engine.save_checkpoint(os.fspath(folder), tag=_TAG)
        for script in folder.glob("*.py"):  # DeepSpeed's own tools; a folder of data holds no code
            script.unlink()

    def load(self, folder: Path) -> None:
        """Restore the training state from `folder`, which holds every rank's part.

        Raises:
            DataError: if DeepSpeed finds no state there, or a file holds more than tensors and plain values.
        """
        refuse_code(folder)
        optimizer = self.optimizer
        settings = [
            {key: value for key, value in g.items() if key != "params"} for g in optimizer.param_groups
        ]
        tag = _UNIVERSAL if self._engine.load_universal_checkpoint() else _TAG
        path = None
        if (folder / tag).is_dir():
            path, _ = self._engine.load_checkpoint(os.fspath(folder), tag=tag)
        if path is None:
            raise DataError(f"{folder} holds no training state that DeepSpeed can read")
        # Under ZeRO-3, a universal checkpoint gives every group the settings of the first, and all groups one
        # and the same counter of steps, which each of them then moves on.
        for group, own in zip(optimizer.param_groups, settings, strict=True):
            group.update(own)
        for state in optimizer.state.values():
            state["step"] = state["step"].clone()

    def _unsplit_copies(self) -> dict[torch.nn.Parameter, Tensor]:
        """The fp32 copies of bf16 weights without ZeRO, which DeepSpeed's public functions do not find."""
        if not (self.stage == 0 and self._is_bf16):
            return {}
        groups = zip(self.optimizer.fp16_groups, self.optimizer.fp32_groups, strict=True)
        return {low: full for lows, fulls in groups for low, full in zip(lows, fulls, strict=True)}


class DeepSpeedEngine(ZeroEngine[PretrainingModule]):
    """The engine of a student, which a teacher may follow."""

    def __init__(
        self,
        module: PretrainingModule,
        config: EngineConfig,
        optimizer: AdamWConfig,
        weight_decay: float,
        num_micro_batches: int,
        universal: bool = False,
    ) -> None:
        """Hand the student to DeepSpeed; see `ZeroEngine`."""
        groups = parameter_groups(module, weight_decay)
        super().__init__(module, groups, config, optimizer, num_micro_batches, universal)

    def update_teacher(self, teacher: MomentumTeacher, momentum: float) -> None:
        """Move the teacher towards the student's present weights, on every rank alike."""
        named = list(self.module.student_parameters())
        with self._whole([weight for _, weight in named]):
            teacher.update(named, momentum)

    def _whole(self, weights: list[torch.nn.Parameter]) -> Any:
        if self.stage < 3:
            return nullcontext()
        return deepspeed.zero.GatheredParameters(weights, modifier_rank=None)


def parameter_groups(
    module: torch.nn.Module, weight_decay: float, scale: float | None = None
) -> list[dict[str, Any]]:
    """Two groups for AdamW: matrices decay; biases, norms, learned tokens and frozen weights do not.

    Args:
        module: what is trained, or a part of it.
        weight_decay: of matrices.
        scale: what the learning rate is multiplied by for them.
    """
    decayed: list[torch.nn.Parameter] = []
    plain: list[torch.nn.Parameter] = []
    for _, weight in module.named_parameters():
        (decayed if weight.ndim > 1 and not is_frozen(weight) else plain).append(weight)
    more = {} if scale is None else {_SCALE: scale}
    return [
        {"params": decayed, "weight_decay": weight_decay} | more,
        {"params": plain, "weight_decay": 0.0} | more,
    ]


def to_universal(folder: Path) -> None:
    """Convert a checkpoint of ZeRO 1-3 in place, so that any number of workers can load it.

    Raises:
        DataError: if a file holds more than tensors and plain values.
    """
    from deepspeed.checkpoint import ds_to_universal

    refuse_code(folder)

    options = {"num_extract_workers": 1, "num_merge_workers": 1, "keep_temp_folder": False, "strict": True}
    source, target = folder / _TAG, folder / _UNIVERSAL
    with _quiet():
        ds_to_universal.main(
            _Options(
                input_folder=str(source), output_folder=str(target), inject_missing_state=True, **options
            )
        )


class _Options:
    """Named values, as the converter's command line would parse them."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)


@contextmanager
def _quiet() -> Iterator[None]:
    """Send what the converter prints to nowhere."""
    with open(os.devnull, "w") as sink, redirect_stdout(sink), redirect_stderr(sink):
        yield


def _avoid_compiling() -> None:
    """On CPU, keep DeepSpeed from compiling its own communication, which takes a minute; gloo does."""
    if not torch.cuda.is_available():
        deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
