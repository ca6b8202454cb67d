"""Weights that training leaves as they are."""

from __future__ import annotations

import torch
from torch import nn


def freeze(module: nn.Module) -> None:
    """Leave a module's weights as they are drawn, whatever the engine does with them.

    They stay trainable by name, with a gradient of zero and without weight decay (`is_frozen`): engines that split
    weights, gradients and optimizer over processes, and their checkpoints, then treat them like all others.
    """
    for weight in module.parameters():
        weight.register_hook(torch.zeros_like)  # type: ignore[no-untyped-call]
        weight._ecgdist_is_frozen = True  # type: ignore[attr-defined]


def is_frozen(weight: nn.Parameter) -> bool:
    """Whether `freeze` was called on it."""
    return getattr(weight, "_ecgdist_is_frozen", False)
