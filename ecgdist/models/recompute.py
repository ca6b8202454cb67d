"""Activation checkpointing (Chen et al. 2016): less memory for a second forward pass."""

from __future__ import annotations

from typing import Any

from torch import is_grad_enabled, nn
from torch.utils.checkpoint import checkpoint


def call(layer: nn.Module, *inputs: Any, recompute: bool) -> Any:
    """What `layer` makes of `inputs`; with `recompute`, its activations are made again in the backward pass."""
    if recompute and is_grad_enabled():
        # No layer of ours draws random numbers, so their state need not be kept for the second pass.
        return checkpoint(layer, *inputs, use_reentrant=False, preserve_rng_state=False)
    return layer(*inputs)
