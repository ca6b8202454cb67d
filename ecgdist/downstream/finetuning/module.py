"""What a fine-tuning run trains: an encoder with a readout, or a readout on a frozen encoder."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ecgdist.downstream.finetuning.goals import Goal
from ecgdist.models.interface import Encoder
from ecgdist.models.patches import at_least_float32
from ecgdist.models.readout import Readout
from ecgdist.pretraining.engine import parameter_groups
from ecgdist.streaming.draws import hashed, quantiles


class TaskModule(nn.Module):
    """Windows to outputs, and to losses where targets are given.

    A frozen encoder is no submodule, so that no engine splits, saves or steps it.

    Attributes:
        readout: on the encoder's tokens.
    """

    def __init__(self, encoder: Encoder, readout: Readout, goal: Goal, dropout: float, frozen: bool) -> None:
        super().__init__()
        self.readout, self._goal, self._dropout, self._is_frozen = readout, goal, dropout, frozen
        if frozen:
            encoder.eval().requires_grad_(False)
            self._beside = (encoder,)
        else:
            self.encoder = encoder

    @property
    def is_frozen(self) -> bool:
        """Whether the readout alone is trained."""
        return self._is_frozen

    @property
    def encoder_in_use(self) -> Encoder:
        """The encoder, trained or frozen."""
        return self._beside[0] if self._is_frozen else self.encoder

    def forward(
        self,
        signal: Tensor,
        valid_samples: Tensor,
        lead_mask: Tensor,
        targets: Tensor | None = None,
        row_weight: Tensor | None = None,
        seeds: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Outputs of some windows, or the loss of some rows of the global batch, as a sum.

        Args:
            signal: ``(batch, 12, samples)``, filtered and scaled.
            valid_samples: ``(batch,)`` int64.
            lead_mask: ``(batch, 12)`` bool.
            targets: ``(batch, outputs)``; None for outputs alone.
            row_weight: ``(batch,)`` 1, or 0 for a row that only fills the batch; with targets.
            seeds: ``(batch,)`` int64, of which dropout is drawn; with targets.

        Returns:
            ``outputs`` ``(batch, outputs)``, detached; with targets ``loss_sum`` (0-d), too.
        """
        outputs = at_least_float32(self._outputs(signal, valid_samples, lead_mask, seeds))
        found = {"outputs": outputs.detach()}
        if targets is not None and row_weight is not None:
            found["loss_sum"] = (self._goal.losses(outputs, targets) * row_weight).sum()
        return found

    def _outputs(
        self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor, seeds: Tensor | None
    ) -> Tensor:
        encoder = self.encoder_in_use
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._is_frozen):
            tokens = encoder(signal, valid_samples, lead_mask)
        valid = encoder.token_valid(valid_samples, lead_mask, tokens.shape[1])
        kept = None
        if seeds is not None and self._dropout:
            drawn = quantiles("uniform", hashed(seeds, self.readout.dim))
            kept = (drawn >= self._dropout) / (1 - self._dropout)
        outputs: Tensor = self.readout(tokens.to(self.readout.linear.weight.dtype), valid, kept)
        return outputs


def layered_groups(module: TaskModule, weight_decay: float, layer_decay: float) -> list[dict[str, object]]:
    """Groups for AdamW in which every layer of the encoder has a learning rate of its own.

    With L layers, the one of layer l is layer_decay^(L + 1 - l) times the readout's (Clark et al. 2020, section 3.1,
    and He et al. 2022, appendix A.1); the stem is layer 0.
    """
    if layer_decay == 1 or module.is_frozen:
        return [group for group in parameter_groups(module, weight_decay) if group["params"]]
    encoder = module.encoder
    groups: list[dict[str, object]] = []
    for layer in range(encoder.num_layers + 1):
        part = nn.ParameterList(w for n, w in encoder.named_parameters() if encoder.layer_of(n) == layer)
        groups += parameter_groups(part, weight_decay, layer_decay ** (encoder.num_layers + 1 - layer))
    groups += parameter_groups(module.readout, weight_decay, 1.0)
    return [group for group in groups if group["params"]]
