"""Adding a generative method takes one class and one line of `METHODS`: module and step know none by name."""

from __future__ import annotations

from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.models.interface import Encoder
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.generation import METHODS
from ecgdist.objectives.generative import GenerativeConfig
from ecgdist.objectives.part import GenerativePart, Mask, Seen, Window, encode_kept
from ecgdist.objectives.reconstruction import Masking
from tests.pretraining.runs import OBJECTIVES, Setting, SmallRun


class Levels(GenerativePart):
    """Of every hidden patch, the mean, from the mean of the visible tokens alone."""

    settings: ClassVar[frozenset[str]] = frozenset({"mask_ratio"})

    def __init__(self, encoder: EncoderConfig, config: GenerativeConfig, num_tokens: int) -> None:
        super().__init__(encoder, config, num_tokens)
        self._layout = encoder.layout
        self.predict = nn.Linear(encoder.shape.width, num_tokens)

    @classmethod
    def masking(cls, encoder: EncoderConfig, config: GenerativeConfig) -> Mask:
        return Masking(encoder, config, config.mask_ratio)

    @classmethod
    def factors(cls, config: GenerativeConfig) -> dict[str, float]:
        return {"levels": 2.0}

    def see(self, encoder: Encoder, window: Window, mask: Mask, noise: Tensor) -> Seen:
        return encode_kept(encoder, window, mask, noise)

    def counts(self, window: Window, hidden: Tensor, valid: Tensor, row_weight: Tensor) -> Tensor:
        return (hidden * row_weight[:, None]).sum()[None]

    def sums(
        self,
        seen: Seen,
        window: Window,
        row_weight: Tensor,
        seeds: Tensor | None,
        census: Tensor | None,
        step: int,
    ) -> Tensor:
        levels = self._layout.patchify(window.signal).mean(dim=(2, 3))
        error = (self.predict(seen.embedding) - levels).square()
        return (error * seen.hidden * row_weight[:, None]).sum()[None]


def test_one_class_and_one_line_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="method = 'levels': there is no such method"):
        build(GenerativeConfig, {"method": "levels"})
    monkeypatch.setitem(METHODS, "levels", Levels)
    objective = build(
        ObjectiveConfig, {"generative": {"method": "levels"}, "contrastive": {"method": "cmsc"}}
    )
    monkeypatch.setitem(OBJECTIVES, "levels", objective)
    results = [SmallRun(Setting(arm="levels", micro_batch=rows), plain=True).steps(0, 3) for rows in (10, 3)]
    for whole, parts in zip(*results, strict=True):
        assert parts.parts == pytest.approx(whole.parts, rel=1e-5)
        assert whole.loss == pytest.approx(2 * whole.parts["levels"] + whole.parts["contrastive"])
        assert torch.isfinite(torch.tensor(whole.gradient_norm))
    with pytest.raises(ConfigError, match="codes = 8 does not belong to method = levels"):
        build(GenerativeConfig, {"method": "levels", "codes": 8})
