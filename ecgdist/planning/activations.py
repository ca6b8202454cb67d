"""Memory of what a forward pass leaves for its backward pass, without making it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.objectives.method import PairContrast, TeacherContrast
from ecgdist.objectives.part import Seen, Window
from ecgdist.record import NUM_LEADS


def activation_bytes(
    encoder: EncoderConfig,
    objective: ObjectiveConfig,
    window_samples: int,
    rows: int,
    global_batch: int,
    dtype: torch.dtype = torch.float32,
) -> int:
    """Bytes that the student's forward pass over one view of `rows` ECGs keeps for its backward pass.

    What autograd saves is counted on tensors without content, every piece of memory once, the weights not at all. Of
    attention it is what fused kernels save: their inputs, the output and a number for each query (Dao et al. 2022,
    FlashAttention, section 3). Values that are freed at once, and what allocators lose, are not in it.

    Args:
        encoder, objective, window_samples: of the student.
        rows: ECGs of a micro-batch.
        global_batch: rows that they are contrasted with.
        dtype: of weights and matrix products.
    """
    with torch.device("meta"), _FusedAttention():
        module = PretrainingModule(encoder, objective, window_samples).to(dtype)
        window = Window(
            torch.zeros(rows, NUM_LEADS, window_samples),
            torch.full((rows,), window_samples),
            torch.ones(rows, NUM_LEADS, dtype=torch.bool),
        )
        noise = torch.zeros(rows, module.num_tokens)
        held = [*module.parameters(), *module.buffers(), *window, noise]
        stacks = [part for part in module.modules() if isinstance(part, nn.ModuleList)]
        layers = [layer for stack in stacks for layer in stack]
        return saved_bytes(lambda: _losses(module, objective, window, noise, global_batch), held, layers)


def saved_bytes(
    forward: Callable[[], object], held: Sequence[Tensor] = (), layers: Sequence[nn.Module] = ()
) -> int:
    """Bytes of memory that autograd keeps after a forward pass.

    Args:
        forward: the pass; what it returns is held while the bytes are counted.
        held: tensors whose memory is not counted, because it is there anyway.
        layers: whose inputs are kept for the backward pass, too, in which they may be recomputed.
    """
    # The storages themselves are kept, so that no freed one's address is taken for another's.
    saved: dict[int, torch.UntypedStorage] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        saved[storage._cdata] = storage
        return tensor

    def keep_inputs(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
        for value in inputs:
            if isinstance(value, Tensor) and value.requires_grad:
                keep(value)

    hooks = [layer.register_forward_pre_hook(keep_inputs) for layer in layers]
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        made = forward()
    for hook in hooks:
        hook.remove()
    before = {tensor.untyped_storage()._cdata for tensor in held}
    num_bytes = sum(storage.nbytes() for address, storage in saved.items() if address not in before)
    del made
    return num_bytes


def view_bytes(objective: ObjectiveConfig, window_samples: int, rows: int) -> int:
    """Bytes of the views of a worker's rows, which are on its device in fp32 for a whole step."""
    views = 2 if objective.contrastive.weight > 0 else 1
    return views * rows * NUM_LEADS * window_samples * torch.float32.itemsize


def _losses(
    module: PretrainingModule, objective: ObjectiveConfig, window: Window, noise: Tensor, global_batch: int
) -> list[object]:
    """`PretrainingModule.forward` but for its questions about values, which tensors without content cannot answer."""
    rows = len(noise)
    seen = module.see(window, noise)
    made: list[object] = [seen]
    if (part := module.generative) is not None:
        weight, seeds = torch.ones(rows), torch.zeros(rows, dtype=torch.int64)
        look = part.look(module.encoder, window, seen.hidden, weight)
        census = torch.cat([module.count(*window, noise, weight).double(), look])
        made.append(part.sums(seen, window, weight, seeds, census, 0))
    if module.projector is not None:
        made.append(_contrast(module, objective, seen, global_batch))
    return made


def _contrast(module: PretrainingModule, objective: ObjectiveConfig, seen: Seen, global_batch: int) -> object:
    query, contrast = module.query(seen), objective.contrastive.build()
    numbers, patient = torch.arange(len(query)), torch.zeros(global_batch, dtype=torch.int64)
    keys = torch.zeros(global_batch, query.shape[1])
    if isinstance(contrast, TeacherContrast):
        return contrast.losses(query, keys, numbers, patient[: len(query)], patient)
    assert isinstance(contrast, PairContrast)
    live = keys.index_copy(0, numbers, query.float())
    return contrast.losses(live, keys, patient), contrast.losses(keys, live, patient)


class _FusedAttention(TorchFunctionMode):
    """Has attention save what a fused kernel saves, where tensors without content would take the slow way."""

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        arguments: Sequence[Any] = (),
        named: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is F.scaled_dot_product_attention:
            return _Fused.apply(*arguments[:3], (named or {}).get("attn_mask"))  # type: ignore[no-untyped-call]
        return function(*arguments, **(named or {}))


class _Fused(torch.autograd.Function):
    """Shapes and saved tensors of a fused attention kernel."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        out = torch.empty_like(query)
        per_query = torch.empty(query.shape[:-1], dtype=torch.float32)
        ctx.save_for_backward(query, key, value, out, per_query, *([] if mask is None else [mask]))
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:  # pragma: no cover
        raise NotImplementedError("only what is saved for it is wanted")
