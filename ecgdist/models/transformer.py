"""Transformer blocks that the encoder and the decoder share."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional as F

from ecgdist.errors import ConfigError
from ecgdist.models import recompute


class Attention(nn.Module):
    """Multi-head self-attention (Vaswani et al. 2017, section 3.2) over the keys that a mask allows."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ConfigError(
                f"a width of {width} cannot be divided among {heads} heads; choose a multiple of {heads}"
            )
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor, key_mask: Tensor) -> Tensor:
        """``(batch, tokens, width)`` -> the same; `key_mask` ``(batch, tokens)``: True = may be attended."""
        q, k, v = rearrange(self.qkv(x), "b n (three h d) -> three b h n d", three=3, h=self.heads)
        # Every head and every query of a record share its mask.
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=key_mask[:, None, None, :])
        out: Tensor = self.out(rearrange(mixed, "b h n d -> b n (h d)"))
        return out


class Block(nn.Module):
    """Pre-norm block: attention, then a four times wider MLP with GELU, each added to its input."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm_attention = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm_mlp = nn.LayerNorm(width)
        self.widen = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)

    def forward(self, x: Tensor, key_mask: Tensor) -> Tensor:
        """``(batch, tokens, width)`` -> the same; `key_mask` as in `Attention`."""
        x = x + self.attention(self.norm_attention(x), key_mask)
        x = x + self.narrow(F.gelu(self.widen(self.norm_mlp(x))))
        return x


class Transformer(nn.Module):
    """A stack of blocks and a last LayerNorm; padded tokens are not attended to and come out as zeros."""

    def __init__(self, width: int, depth: int, heads: int, activation_checkpointing: bool = False) -> None:
        super().__init__()
        self.activation_checkpointing = activation_checkpointing
        self.blocks = nn.ModuleList(Block(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """``(batch, tokens, width)`` -> the same; `valid` ``(batch, tokens)``: True = not padding."""
        # A softmax over no key at all is NaN: a row of nothing but padding attends to itself, and is zero in
        # the end.
        key_mask = valid | ~valid.any(dim=1, keepdim=True)
        for block in self.blocks:
            x = recompute.call(block, x, key_mask, recompute=self.activation_checkpointing)
        out: Tensor = self.norm(x)
        return out.masked_fill(~valid[:, :, None], 0)


def initialise(module: nn.Module) -> None:
    """Glorot-uniform weights and zero biases (Glorot & Bengio 2010, eq. 16) for a linear layer."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
