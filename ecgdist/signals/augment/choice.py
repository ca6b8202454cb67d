"""Which augmentations there are, and which a run uses."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Annotated
from zlib import crc32

from pydantic import BeforeValidator, SerializeAsAny

from ecgdist.config import Config, build
from ecgdist.errors import ConfigError
from ecgdist.signals.augment.interference import BaselineWander, GaussianNoise, Powerline
from ecgdist.signals.augment.leads import AmplitudeScale, LeadDrop
from ecgdist.signals.augment.timing import ResizedCrop, TimeOut, TimeShift
from ecgdist.signals.augment.view import Augmentation

AUGMENTATIONS: dict[str, type[Augmentation]] = {
    "resized_crop": ResizedCrop,
    "time_out": TimeOut,
    "time_shift": TimeShift,
    "lead_drop": LeadDrop,
    "amplitude_scale": AmplitudeScale,
    "gaussian_noise": GaussianNoise,
    "baseline_wander": BaselineWander,
    "powerline": Powerline,
}


def _by_name(value: object) -> object:
    """Build the augmentation that a name, or a mapping with one, stands for."""
    if isinstance(value, Augmentation):
        return value
    settings = {"name": value} if isinstance(value, str) else value
    name = settings.get("name") if isinstance(settings, Mapping) else None
    accepted = ", ".join(AUGMENTATIONS)
    if not isinstance(settings, Mapping) or not isinstance(name, str):
        raise ValueError(
            f"give a name or a mapping with one, such as {{name: time_out, p: 0.5}}; accepted are {accepted}"
        )
    if name not in AUGMENTATIONS:
        close = difflib.get_close_matches(name, AUGMENTATIONS, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        raise ValueError(f"unknown augmentation {name}; accepted are {accepted}{hint}")
    try:
        return build(AUGMENTATIONS[name], settings, name)
    except ConfigError as error:
        raise ValueError(str(error)) from error


Choice = Annotated[SerializeAsAny[Augmentation], BeforeValidator(_by_name)]


class AugmentConfig(Config):
    """What is done to each view of an ECG, in this order; by default nothing.

    An entry is a name, or a mapping with a name, a probability and a strength:
    ``student: [time_out, {name: gaussian_noise, p: 0.3, rms_uv: 10}]``.
    """

    student: tuple[Choice, ...] = ()
    """Of the view that is trained on."""
    teacher: tuple[Choice, ...] = ()
    """Of the view that the teacher sees; an arm without a teacher makes none."""

    def check(self, rate_hz: float) -> None:
        """Refuse a sampling rate that an augmentation does not fit.

        Raises:
            ConfigError: naming it.
        """
        for augmentation in (*self.student, *self.teacher):
            augmentation.check(rate_hz)


def stream_keys(augmentations: Sequence[Augmentation]) -> list[tuple[int, int]]:
    """A key for the random numbers of each: its name, and how often that came before in the sequence.

    So leaving one out, or adding one, leaves the numbers of the others as they were.
    """
    seen: Counter[str] = Counter()
    keys = []
    for augmentation in augmentations:
        name = type(augmentation).model_fields["name"].default
        keys.append((crc32(name.encode()), seen[name]))
        seen[name] += 1
    return keys
