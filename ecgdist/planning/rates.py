"""Speeds: measured ones with their source, and what follows from them for a model that was not measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Literal

import yaml

from ecgdist.config import Config, build
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.flops import PEAKS, flops_per_ecg, peak_flops

CPU_CORE = "cpu core"
"""Kind of a worker that is a process of one thread."""

ASSUMED_MFU = 0.213
"""Share of a device's peak where nothing is measured and none is given: the lowest of the four that Chowdhery et al.
2022 (PaLM, table 3) list, GPT-3's. Small models may reach less."""

ARMS: dict[str, ObjectiveConfig] = {
    "HL": ObjectiveConfig(),
    "GL": ObjectiveConfig.model_validate({"contrastive": {"weight": 0}}),
    "CL": ObjectiveConfig.model_validate({"generative": {"weight": 0}}),
}
"""Objectives by the names that measurements have for them."""
_WINDOW_SAMPLES = 2250
"""Of all measurements: 9 s at 250 Hz."""


class TrainingRate(Config):
    """A measured speed of training, of one worker."""

    kind: str
    """`CPU_CORE`, or a name of `flops.PEAKS`."""
    size: Literal["tiny", "small", "base", "large"]
    arm: Literal["HL", "GL", "CL"]
    precision: Literal["fp32", "bf16"]
    compile: bool = False
    recompute: bool = False
    """Whether activations were recomputed."""
    ecg_per_s: float
    source: str
    """The command, when and where."""

    @property
    def flops(self) -> int:
        """Operations of one ECG."""
        return _flops(self.size, self.arm)


class StreamRate(Config):
    """A measured speed of the stream of one worker."""

    storage: Literal["local", "s3"]
    ecg_per_s: float
    source: str


class RateTable(Config):
    """What was measured; `rates.yaml` is made of the benchmarks' results by ``python -m tests.benchmarks.rates``."""

    training: tuple[TrainingRate, ...]
    stream: tuple[StreamRate, ...]

    @classmethod
    def shipped(cls) -> RateTable:
        """The table of this package."""
        text = (resources.files(__package__) / "rates.yaml").read_text(encoding="utf-8")
        return build(cls, yaml.safe_load(text), "rates.yaml")


class Rate(Config):
    """The speed that a plan reckons with, of one worker, and where it comes from."""

    kind: str
    ecg_per_s: float
    basis: Literal["measured", "given", "derived from a measurement", "derived from a peak"]
    source: str


def choose_rate(
    config: PretrainConfig,
    window_samples: int,
    kind: str = CPU_CORE,
    table: RateTable | None = None,
    mfu: float | None = None,
) -> Rate:
    """The speed of a worker in a run: measured, else by the FLOPs of what was, else by FLOPs and a share of the peak.

    Args:
        config: of the run.
        window_samples: of the model's input.
        kind: `CPU_CORE`, or the name of a GPU, of which a name in `flops.PEAKS` is part.
        table: what was measured; by default what ships.
        mfu: share of the device's peak, instead of any measurement.

    Raises:
        ConfigError: if nothing is known of such a device.
    """
    kind = _known_kind(kind)
    flops = flops_per_ecg(config.encoder, config.objective, window_samples)
    table = RateTable.shipped() if table is None else table
    rates = [one for one in table.training if (one.kind, one.precision) == (kind, config.engine.precision)]
    if mfu is None and rates:
        return _by_measurement(config, flops, rates)
    peak = peak_flops(kind, config.engine.precision)
    if peak is None:
        raise ConfigError(
            f"no speed of a {kind} in {config.engine.precision} is known; measure it here with --measure, or give "
            "one with --rate"
        )
    share = ASSUMED_MFU if mfu is None else mfu
    whose = (
        "an assumption, GPT-3's in Chowdhery et al. 2022, table 3; --mfu sets another"
        if mfu is None
        else "given"
    )
    return Rate(
        kind=kind,
        ecg_per_s=share * peak / flops,
        basis="derived from a peak",
        source=f"not measured: {flops / 1e9:.2f} GFLOP an ECG, {peak / 1e12:g} TFLOP/s by NVIDIA's data sheet for "
        f"{config.engine.precision}, MFU {share:.1%} ({whose})",
    )


def stream_rate(storage: Literal["local", "s3"], table: RateTable | None = None) -> StreamRate:
    """The measured speed of a worker's stream."""
    table = RateTable.shipped() if table is None else table
    return next(one for one in table.stream if one.storage == storage)


def _known_kind(kind: str) -> str:
    if kind == CPU_CORE:
        return kind
    found = next((name for name in PEAKS if name.lower() in kind.lower()), None)
    if found is None:
        raise ConfigError(f"--gpu {kind}: not known; choose one of {', '.join(PEAKS)}, or give its --rate")
    return found


def _by_measurement(config: PretrainConfig, flops: int, rates: Sequence[TrainingRate]) -> Rate:
    def likeness(one: TrainingRate) -> tuple[bool, bool, float]:
        return (
            one.compile != config.engine.compile,
            one.recompute != config.encoder.activation_checkpointing,
            abs(math.log(one.flops / flops)),
        )

    nearest = min(rates, key=likeness)
    same = likeness(nearest) == (False, False, 0.0) and nearest.size == config.encoder.size
    if same and config.encoder.kind == "vit":
        return Rate(kind=nearest.kind, ecg_per_s=nearest.ecg_per_s, basis="measured", source=nearest.source)
    return Rate(
        kind=nearest.kind,
        ecg_per_s=nearest.ecg_per_s * nearest.flops / flops,
        basis="derived from a measurement",
        source=f"not measured: {flops / 1e9:.2f} GFLOP an ECG at the FLOP/s of {nearest.size}, {nearest.arm}"
        f"{', compiled' if nearest.compile else ''}{', recomputing' if nearest.recompute else ''} "
        f"({nearest.ecg_per_s:,.4g} ECG/s of {nearest.flops / 1e9:.2f} GFLOP: {nearest.source})",
    )


@cache
def _flops(size: str, arm: str) -> int:
    return flops_per_ecg(build(EncoderConfig, {"size": size}), ARMS[arm], _WINDOW_SAMPLES)
