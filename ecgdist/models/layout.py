"""Token layouts: what part of a window a token is, which tokens are real, and which of their values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor

from ecgdist.errors import ConfigError
from ecgdist.models import patches
from ecgdist.record import NUM_LEADS

Tokens = Literal["time", "lead", "lead_time"]


@dataclass(frozen=True)
class Layout:
    """How a window is cut into tokens; the three of Na et al. 2024 (ST-MEM, figure 2).

    * ``time``: a token is a patch of all leads (MTAE).
    * ``lead``: a token is one whole lead (MLAE); the window is one patch.
    * ``lead_time``: a token is a patch of one lead (ST-MEM). Tokens are numbered lead by lead:
      number = lead * patches + patch.

    Attributes:
        tokens: one of the three.
        patch_samples: samples in one patch.
    """

    tokens: Tokens
    patch_samples: int

    @property
    def rows(self) -> int:
        """Leads in one token."""
        return NUM_LEADS if self.tokens == "time" else 1

    @property
    def sequences(self) -> int:
        """Tokens that stand for the same time: 1, or one for each lead."""
        return NUM_LEADS // self.rows

    def num_tokens(self, window_samples: int) -> int:
        """How many tokens a window holds.

        Raises:
            ConfigError: if the window is not a whole number of patches, or not one patch where a token is a
                whole lead.
        """
        if self.tokens == "lead" and window_samples != self.patch_samples:
            raise ConfigError(
                f"encoder.tokens = lead makes one token of a whole lead, so encoder.patch_samples = "
                f"{self.patch_samples} must be the window's {window_samples} samples; set it to {window_samples}"
            )
        return self.sequences * patches.num_tokens(window_samples, self.patch_samples)

    def patchify(self, signal: Tensor) -> Tensor:
        """Cut a window: ``(batch, 12, samples)`` -> ``(batch, tokens, rows, patch)``.

        Raises:
            ConfigError: as `num_tokens`.
            DataError: if the signal does not have 12 leads.
        """
        patches.check_leads(signal)
        self.num_tokens(signal.shape[2])
        if self.tokens == "time":
            return patches.patchify(signal, self.patch_samples)
        return rearrange(signal, "b l (n p) -> b (l n) 1 p", p=self.patch_samples)

    def unpatchify(self, values: Tensor) -> Tensor:
        """The inverse of `patchify`: ``(batch, tokens, rows, patch)`` -> ``(batch, 12, samples)``."""
        if self.tokens == "time":
            return patches.unpatchify(values)
        return rearrange(values, "b (l n) 1 p -> b l (n p)", l=NUM_LEADS)

    def token_valid(self, valid_samples: Tensor, lead_mask: Tensor, tokens: int) -> Tensor:
        """Which tokens hold signal: ``(batch,)`` and ``(batch, 12)`` -> ``(batch, tokens)`` bool.

        A patch that padding reaches into counts as padding, so that no model output depends on how a record was
        padded. A whole lead is real as soon as it holds a sample: short records would have no token at all
        otherwise, and its padding is left out by `present`. A token of one lead is real only if the lead is there;
        one of all leads is, whichever are missing.

        Args:
            valid_samples: samples from here on are padding.
            lead_mask: True = present.
            tokens: how many the window holds.
        """
        count = tokens // self.sequences
        if self.tokens == "time":
            return patches.token_valid(valid_samples, count, self.patch_samples)
        if self.tokens == "lead":
            return lead_mask & (valid_samples > 0)[:, None]
        in_time = patches.token_valid(valid_samples, count, self.patch_samples)
        return rearrange(lead_mask[:, :, None] & in_time[:, None, :], "b l n -> b (l n)")

    def present(self, valid_samples: Tensor, lead_mask: Tensor, tokens: int) -> Tensor:
        """Which values of a valid token were recorded, as bool that broadcasts to ``(batch, tokens, rows, patch)``.

        Args:
            valid_samples, lead_mask, tokens: as in `token_valid`.
        """
        if self.tokens == "time":
            return lead_mask[:, None, :, None]
        per_token = lead_mask.repeat_interleave(tokens // NUM_LEADS, dim=1)[:, :, None, None]
        if self.tokens == "lead_time":
            return per_token
        time = torch.arange(self.patch_samples, device=valid_samples.device)
        return per_token & (time < valid_samples[:, None])[:, None, None, :]

    def positions(self, tokens: int, width: int, device: torch.device) -> Tensor:
        """Fixed positions ``(tokens, width)`` in float32: of a token's time, or of its lead if it has no other."""
        if self.tokens != "lead_time":
            return patches.sincos_positions(tokens, width, device)
        return patches.sincos_positions(tokens // NUM_LEADS, width, device).repeat(NUM_LEADS, 1)

    def leads(self, tokens: int, device: torch.device) -> Tensor:
        """The number of each token's lead, ``(tokens,)`` int64; for layouts whose token is of one lead."""
        return torch.arange(NUM_LEADS, device=device).repeat_interleave(tokens // NUM_LEADS)

    def samples(self, marked: Tensor) -> Tensor:
        """The samples of marked tokens: ``(batch, tokens)`` bool -> ``(batch, 12, samples)`` bool."""
        values = marked[:, :, None, None].expand(-1, -1, self.rows, self.patch_samples)
        return self.unpatchify(values)
