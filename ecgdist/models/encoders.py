"""The encoders there are. To add one: its file, its line here, and its name in the tests of the interface."""

from __future__ import annotations

from ecgdist.models.config import EncoderConfig
from ecgdist.models.interface import Encoder
from ecgdist.models.s4d import S4dEncoder
from ecgdist.models.vit import VitEncoder
from ecgdist.models.xresnet import XresnetEncoder

ENCODERS: dict[str, type[Encoder]] = {
    "vit": VitEncoder,
    "xresnet": XresnetEncoder,
    "s4d": S4dEncoder,
}
"""`EncoderConfig.kind` to class."""


def build_encoder(config: EncoderConfig) -> Encoder:
    """The encoder that a configuration names, with fresh weights from torch's random state."""
    return ENCODERS[config.kind](config)
