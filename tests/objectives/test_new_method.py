"""Adding a contrastive method takes one class and one line of `METHODS`: module and step know none by name."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.contrast import METHODS, ContrastiveConfig
from ecgdist.objectives.method import PairContrast
from tests.pretraining.runs import OBJECTIVES, Setting, SmallRun


class Alignment(PairContrast):
    """The distance of a record's two unit vectors, squared (Wang & Isola 2020, eq. 1, alpha = 2)."""

    default_temperature = None

    def losses(self, own: Tensor, other: Tensor, patient: Tensor) -> Tensor:
        return (F.normalize(own, dim=1) - F.normalize(other, dim=1)).square().sum(dim=1)


def test_its_losses_equal_a_loop() -> None:
    draw = torch.Generator().manual_seed(0)
    own, other = torch.randn(5, 3, generator=draw), torch.randn(5, 3, generator=draw)
    expected = [
        sum((a / one.norm() - b / two.norm()).item() ** 2 for a, b in zip(one, two, strict=True))
        for one, two in zip(own, other, strict=True)
    ]
    assert Alignment().losses(own, other, torch.arange(5)).tolist() == pytest.approx(expected, rel=1e-5)


def test_one_class_and_one_line_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="method = 'alignment': there is no such method"):
        build(ContrastiveConfig, {"method": "alignment"})
    monkeypatch.setitem(METHODS, "alignment", Alignment)
    objective = build(ObjectiveConfig, {"contrastive": {"method": "alignment"}})
    monkeypatch.setitem(OBJECTIVES, "alignment", objective)
    results = [
        SmallRun(Setting(arm="alignment", micro_batch=rows), plain=True).steps(0, 3) for rows in (10, 3)
    ]
    for whole, parts in zip(*results, strict=True):
        assert parts.parts == pytest.approx(whole.parts, rel=1e-5)
    # Nothing holds embeddings apart here: they come together at once.
    assert results[0][2].parts["contrastive"] < results[0][0].parts["contrastive"] / 2
    with pytest.raises(ConfigError, match=r"temperature = 0.1, but alignment divides by none"):
        build(ContrastiveConfig, {"method": "alignment", "temperature": 0.1})
