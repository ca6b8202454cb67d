"""Adding an encoder takes one class and one line of `ENCODERS`: nothing else knows the kinds."""

import pytest
import torch
from torch import Tensor, nn

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig, Size
from ecgdist.models.encoders import ENCODERS, build_encoder
from ecgdist.models.interface import WholeWindowEncoder
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from tests.models.batches import WINDOW, ragged

SIZE = Size(
    width=8,
    projector_width=16,
    projector_out=4,
    peak_learning_rate=1e-3,
    weight_decay=0.0,
    warmup_share=0.1,
)


class SampleEncoder(WholeWindowEncoder):
    """Every sample by itself."""

    sizes = dict.fromkeys(("tiny", "small", "base", "large"), SIZE)
    patch_samples = 1

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.map = nn.Linear(12, self.dim)

    def encode(self, signal: Tensor, valid: Tensor) -> Tensor:
        mapped: Tensor = self.map(signal.transpose(1, 2))
        return mapped.masked_fill(~valid[:, :, None], 0)


def test_one_class_and_one_line_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="kind = 'sample': there is no such encoder"):
        build(EncoderConfig, {"kind": "sample"})
    monkeypatch.setitem(ENCODERS, "sample", SampleEncoder)
    config = build(EncoderConfig, {"kind": "sample"})
    assert build_encoder(config).embed(*ragged(4)).shape == (4, 8)
    objective = build(ObjectiveConfig, {"generative": {"weight": 0}})
    module = PretrainingModule(config, objective, WINDOW)
    teacher, number = module.teacher(), torch.arange(4)
    assert teacher is not None
    noise = torch.rand(4, module.num_tokens)
    outputs = module(*ragged(4), noise, torch.ones(4), teacher.keys(*ragged(4)), number, number, number)
    assert outputs["contrastive_sum"] > 0
    with pytest.raises(ConfigError, match="kind = sample encodes whole windows"):
        PretrainingModule(config, ObjectiveConfig(), WINDOW)
    with pytest.raises(ConfigError, match="stem = 'linear' does not belong to kind = sample"):
        build(EncoderConfig, {"kind": "sample", "stem": "linear"})
