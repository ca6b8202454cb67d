"""Patches and tokens: cutting a window, which patches are real, where they stand, and their mean."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn

from ecgdist.errors import ConfigError, DataError
from ecgdist.record import NUM_LEADS


def num_tokens(window_samples: int, patch_samples: int) -> int:
    """How many patches a window holds.

    Raises:
        ConfigError: if the window is not a whole number of patches.
    """
    count, rest = divmod(window_samples, patch_samples)
    if rest or count == 0:
        near = " or ".join(str(n * patch_samples) for n in (count, count + 1) if n)
        raise ConfigError(
            f"a window of {window_samples} samples is not a whole number of patches of {patch_samples} "
            f"samples; use {near}"
        )
    return count


def check_leads(signal: Tensor) -> None:
    """Check that a model input has the shape ``(batch, 12, samples)``.

    Raises:
        DataError: if not.
    """
    if signal.ndim != 3 or signal.shape[1] != NUM_LEADS:
        raise DataError(
            f"a model input has the shape (batch, {NUM_LEADS}, samples), this one has {tuple(signal.shape)}; "
            "arrange the leads first and put zeros for missing ones"
        )


def patchify(signal: Tensor, patch_samples: int) -> Tensor:
    """Cut a window into consecutive patches: ``(batch, 12, samples)`` -> ``(batch, tokens, 12, patch)``.

    Raises:
        ConfigError: if the window is not a whole number of patches.
        DataError: if the signal does not have 12 leads.
    """
    check_leads(signal)
    num_tokens(signal.shape[2], patch_samples)
    return rearrange(signal, "b l (n p) -> b n l p", p=patch_samples)


def unpatchify(patches: Tensor) -> Tensor:
    """The inverse of `patchify`: ``(batch, tokens, 12, patch)`` -> ``(batch, 12, samples)``."""
    return rearrange(patches, "b n l p -> b l (n p)")


def token_valid(valid_samples: Tensor, tokens: int, patch_samples: int) -> Tensor:
    """Which patches hold signal only: ``(batch,)`` -> ``(batch, tokens)`` bool.

    A patch that padding reaches into counts as padding, so that no model output depends on how a record was
    padded.
    """
    ends = torch.arange(1, tokens + 1, device=valid_samples.device) * patch_samples
    return ends <= valid_samples[:, None]


def gather_tokens(tokens: Tensor, index: Tensor) -> Tensor:
    """Pick tokens by number: ``(batch, tokens, ...)`` and ``(batch, picked)`` -> ``(batch, picked, ...)``."""
    rows = torch.arange(len(index), device=index.device)[:, None]
    return tokens[rows, index]


def sincos_positions(tokens: int, width: int, device: torch.device) -> Tensor:
    """Fixed positions ``(tokens, width)`` in float32: sines, then cosines (Vaswani et al. 2017, section 3.5).

    They are computed where they are used rather than kept in a buffer, which a bfloat16 model would round.
    """
    half = width // 2
    frequency = torch.pow(10_000.0, -torch.arange(half, dtype=torch.float32, device=device) / half)
    angle = torch.arange(tokens, dtype=torch.float32, device=device)[:, None] * frequency
    return torch.cat([angle.sin(), angle.cos()], dim=1)


def pool(tokens: Tensor, valid: Tensor) -> Tensor:
    """Mean over valid tokens: ``(batch, tokens, dim)`` and ``(batch, tokens)`` bool -> ``(batch, dim)``.

    A row without a valid token gives zeros.
    """
    weight = valid[:, :, None].to(at_least_float32(tokens).dtype)
    mean = (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
    return mean.to(tokens.dtype)


def at_least_float32(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 if that is what it is in."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def dtype_of(module: nn.Module) -> torch.dtype:
    """The type of a module's weights. It reads no value, so it holds for partitioned (ZeRO-3) weights too."""
    return next(module.parameters()).dtype
