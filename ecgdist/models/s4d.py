"""A structured state-space encoder (S4D) in plain torch: the strongest encoder trained from scratch on ECGs.

After Gu, Gupta, Goel & Re 2022, "On the Parameterization and Initialization of Diagonal State Space Models"
(arXiv 2206.11893), and, for ECGs, Mehari & Strodthoff 2023.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.models import recompute
from ecgdist.models.config import EncoderConfig, Size
from ecgdist.models.interface import WholeWindowEncoder
from ecgdist.models.patches import at_least_float32
from ecgdist.models.transformer import initialise
from ecgdist.record import NUM_LEADS

_STEP_RANGE = (1e-3, 1e-1)
"""Initial step sizes are log-uniform between these (Gu et al. 2022, as in S4)."""


@dataclass(frozen=True, kw_only=True)
class S4dSize(Size):
    """The size of an S4D encoder.

    Attributes:
        depth: layers.
        state: size N of the state of each channel; half of it is stored, the other half is its conjugate.
    """

    depth: int
    state: int


# base is the shape of Mehari & Strodthoff 2023 (width 512, 4 layers, N = 8, both directions; peak learning rate and
# weight decay 1e-3, theirs at a batch of 128); every other value is ours.
S4D_SIZES: dict[str, S4dSize] = {
    "tiny": S4dSize(
        width=64, depth=2, state=8, projector_width=256, projector_out=64,
        peak_learning_rate=2e-3, weight_decay=1e-3, warmup_share=0.1,
    ),
    "small": S4dSize(
        width=256, depth=4, state=8, projector_width=1024, projector_out=128,
        peak_learning_rate=1e-3, weight_decay=1e-3, warmup_share=0.1,
    ),
    "base": S4dSize(
        width=512, depth=4, state=8, projector_width=2048, projector_out=256,
        peak_learning_rate=1e-3, weight_decay=1e-3, warmup_share=0.1,
    ),
    "large": S4dSize(
        width=768, depth=8, state=16, projector_width=4096, projector_out=256,
        peak_learning_rate=5e-4, weight_decay=1e-3, warmup_share=0.1,
    ),
}  # fmt: skip


class S4d(nn.Module):
    """A linear state space for each channel, with a diagonal matrix, run forwards and backwards in time.

    In continuous time x' = A x + B u, y = 2 Re(C x) + D u, with one complex state per mode; the factor and the real
    part stand for the conjugate modes, which are not stored. Held over a step of d (zero-order hold),

        x_k = a x_{k-1} + b u_k,    a = exp(d A),    b = (exp(d A) - 1) / A    (B = 1)

    which is a convolution with K_l = 2 Re(sum_n C_n b_n a_n^l), the Vandermonde product of Gu et al. 2022,
    section 3. Modes begin as S4D-Lin (section 4), A_n = -1/2 + i pi n, and C is standard normal. Both directions
    share A and d and have a C each; the backward one starts one step later, so that a sample counts once.
    """

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.width, self.modes = width, state // 2
        low, high = (math.log(step) for step in _STEP_RANGE)
        self.log_step = nn.Parameter(torch.rand(width) * (high - low) + low)
        # The modes are kept flat, because weight decay is for parameters of more than one dimension and would pull
        # them to one frequency; Gu et al. train them without.
        self.log_decay = nn.Parameter(torch.full((width * self.modes,), math.log(0.5)))
        self.frequency = nn.Parameter(math.pi * torch.arange(self.modes, dtype=torch.float32).repeat(width))
        self.output = nn.Parameter(torch.randn(2, width, self.modes, 2) * math.sqrt(0.5))
        self.skip = nn.Parameter(torch.randn(width))

    def discrete(self) -> tuple[Tensor, Tensor, Tensor]:
        """log a and b ``(width, modes)``, and C ``(2, width, modes)`` of both directions, all complex."""
        shape = (self.width, self.modes)
        decay = at_least_float32(self.log_decay).exp().reshape(shape)
        mode = torch.complex(-decay, at_least_float32(self.frequency).reshape(shape))
        log_a = mode * at_least_float32(self.log_step).exp()[:, None]
        c = at_least_float32(self.output)
        # expm1, because a slow mode's a is so near 1 that float32 would lose digits of a - 1.
        return log_a, torch.expm1(log_a) / mode, torch.complex(c[..., 0], c[..., 1])

    def kernels(self, samples: int) -> Tensor:
        """K of both directions: ``(2, width, samples)`` real."""
        log_a, b, c = self.discrete()
        powers = (log_a[:, :, None] * torch.arange(samples, device=log_a.device)).exp()
        kernels: Tensor = 2 * torch.einsum("dhn,hnl->dhl", c * b, powers).real
        return kernels

    def forward(self, u: Tensor) -> Tensor:
        """``(batch, width, time)`` -> the same; what is zero in padding adds nothing anywhere."""
        samples = u.shape[2]
        forwards, backwards = self.kernels(samples)
        # Twice the length keeps the circular convolution of the FFT from wrapping around.
        unused = forwards.new_zeros(self.width, 1)
        kernel = torch.cat([forwards, unused, backwards[:, : samples - 1].flip(1)], dim=1)
        length = 2 * samples
        inputs = at_least_float32(u)
        spectrum = torch.fft.rfft(inputs, n=length) * torch.fft.rfft(kernel, n=length)
        mixed = torch.fft.irfft(spectrum, n=length)[..., :samples]
        out: Tensor = mixed + inputs * at_least_float32(self.skip)[:, None]
        return out.to(u.dtype)


class S4dLayer(nn.Module):
    """Pre-norm residual layer: state space, GELU, and a gated linear unit that mixes channels (Gu et al. 2022)."""

    def __init__(self, width: int, state: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.state_space = S4d(width, state)
        self.mix = nn.Linear(width, 2 * width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(batch, time, width)`` -> the same; `valid` ``(batch, time)`` bool."""
        # The norm's bias stands in padding, and must not reach the state.
        u = self.norm(x).masked_fill(~valid[:, :, None], 0)
        y = self.state_space(u.transpose(1, 2)).transpose(1, 2)
        out: Tensor = x + F.glu(self.mix(F.gelu(y)), dim=2)
        return out


class S4dEncoder(WholeWindowEncoder):
    """Layers of S4D over the time of an ECG; `Encoder`. A token is two samples: 125 a second at 250 Hz.

    The stem, a convolution of stride 2, costs nothing of a signal filtered below 40 Hz, and Mehari & Strodthoff
    2023 work at 100 Hz. Between layers everything is place by place, so that setting padding to zero before each
    state space keeps it out of every valid token. Where we differ from them: layer norm before the layer, and no
    dropout.
    """

    sizes = S4D_SIZES
    stack = "layers"
    patch_samples = 2

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        shape = S4D_SIZES[config.size]
        self.activation_checkpointing = config.activation_checkpointing
        self.stem = nn.Conv1d(NUM_LEADS, shape.width, kernel_size=5, stride=2, padding=2)
        self.layers = nn.ModuleList(S4dLayer(shape.width, shape.state) for _ in range(shape.depth))
        self.norm = nn.LayerNorm(shape.width)
        self.apply(initialise)

    def encode(self, signal: Tensor, valid: Tensor) -> Tensor:
        """See `WholeWindowEncoder.encode`."""
        x = self.stem(signal).transpose(1, 2)
        valid = valid[:, ::2]
        for layer in self.layers:
            x = recompute.call(layer, x, valid, recompute=self.activation_checkpointing)
        out: Tensor = self.norm(x)
        return out.masked_fill(~valid[:, :, None], 0)
