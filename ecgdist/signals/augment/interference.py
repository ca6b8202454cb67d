"""Augmentations that add something: noise, baseline wander, mains hum.

They are added in microvolt after the band-pass and before scaling, so that a strength is what reaches the model
beside an ECG of about 1,000 microvolt, whatever the filter. Added before the filter they would be an augmentation in
name only: of the default filter, 50 Hz keeps 5.8 % of its amplitude, 60 Hz 0.5 %, and wander of 0.3 Hz 0.03 %; and
the filter, the most expensive part, would have to run for each view. The price is that a model meets more of them
here than its own filter will let through later; that is what makes it robust.

All arise at the electrodes, so the leads get them through the electrodes, and limb leads go on obeying Einthoven's
law: a lead that breaks it would give an augmented record away.
"""

from __future__ import annotations

import math
from typing import ClassVar, Literal

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ecgdist.errors import ConfigError
from ecgdist.record import NUM_LEADS
from ecgdist.signals.augment.effect import Added, Waved
from ecgdist.signals.augment.view import Augmentation, Randoms, Rows

NUM_ELECTRODES = 9
"""Right arm, left arm, left leg, and six on the chest. (The right leg is the amplifier's ground.)"""

_NUM_WAVES = 3


def electrode_leads(potential: Tensor) -> Tensor:
    """The twelve leads between electrodes: ``(rows, 9, ...)`` -> ``(rows, 12, ...)``.

    Args:
        potential: of the right arm, left arm, left leg and the chest electrodes 1 to 6, any unit.
    """
    right, left, leg = potential[:, 0], potential[:, 1], potential[:, 2]
    leads = potential.new_empty((len(potential), NUM_LEADS, *potential.shape[2:]))
    torch.sub(left, right, out=leads[:, 0])
    torch.sub(leg, right, out=leads[:, 1])
    torch.sub(leg, left, out=leads[:, 2])
    # Goldberger's leads are against the mean of the two other limbs, the chest leads against that of all three
    # (Wilson's central terminal).
    torch.sub(right, left + leg, alpha=0.5, out=leads[:, 3])
    torch.sub(left, right + leg, alpha=0.5, out=leads[:, 4])
    torch.sub(leg, right + left, alpha=0.5, out=leads[:, 5])
    torch.sub(potential[:, 3:], ((right + left + leg) / 3)[:, None], out=leads[:, 6:])
    return leads


def gaussian_noise(rows: Rows, rms_uv: float, uniform: Tensor, normal: Tensor) -> Added:
    """Add white noise of up to `rms_uv` microvolt in leads I, II and III.

    Electrodes are independent, so the augmented leads get 0.87 and the chest leads 0.82 of it.

    Args:
        rows: what to change.
        rms_uv: largest root mean square.
        uniform: ``(rows, 1)``: how much.
        normal: ``(rows, 9, samples)``, of the electrodes.
    """
    sigma_uv = (uniform.double() * rms_uv / math.sqrt(2)).float()
    noise_uv = electrode_leads(normal * (sigma_uv * rows.in_time)[:, None])
    return Added(noise_uv.mul_(rows.lead_mask[:, :, None].float()))


def baseline_wander(
    rows: Rows, rate_hz: float, amplitude_uv: float, lowest_hz: float, highest_hz: float, uniform: Tensor
) -> Waved:
    """Add a slow wave of up to `amplitude_uv` microvolt, of another size and sign in each electrode.

    The wave is the mean of three sines of random frequency and phase.

    Args:
        rows: what to change.
        rate_hz: sampling rate.
        amplitude_uv: no lead gets more.
        lowest_hz, highest_hz: between these lie the frequencies.
        uniform: ``(rows, 16)``: how much, three frequencies, three phases, nine electrodes.
    """
    share = uniform.double()
    frequency_hz = lowest_hz + (highest_hz - lowest_hz) * share[:, 1 : 1 + _NUM_WAVES]
    phase = share[:, 1 + _NUM_WAVES : 1 + 2 * _NUM_WAVES]
    wave = _sine(rows, frequency_hz / rate_hz, phase).mean(dim=1)
    return _waved(rows, wave, amplitude_uv * share[:, :1], share[:, 1 + 2 * _NUM_WAVES :])


def powerline(
    rows: Rows, rate_hz: float, amplitude_uv: float, frequencies_hz: tuple[float, ...], uniform: Tensor
) -> Waved:
    """Add a sine of the mains frequency of up to `amplitude_uv` microvolt, of another size in each electrode.

    Args:
        rows: what to change.
        rate_hz: sampling rate, above twice every frequency.
        amplitude_uv: no lead gets more.
        frequencies_hz: a record gets one of them.
        uniform: ``(rows, 12)``: how much, which frequency, the phase, nine electrodes.
    """
    share = uniform.double()
    choices = torch.tensor(frequencies_hz, dtype=torch.float64, device=share.device)
    frequency_hz = choices[(share[:, 1] * len(choices)).long().clamp(max=len(choices) - 1)]
    wave = _sine(rows, frequency_hz[:, None] / rate_hz, share[:, 2:3])[:, 0]
    return _waved(rows, wave, amplitude_uv * share[:, :1], share[:, 3:])


def _sine(rows: Rows, turns_per_sample: Tensor, phase: Tensor) -> Tensor:
    """``(rows, waves)`` float64 each -> ``(rows, waves, samples)`` float32; a phase of 1 is a turn."""
    turns = torch.addcmul(phase[:, :, None], turns_per_sample[:, :, None], rows.time.double())
    # Of a fraction of a turn, float32 has enough digits, and its sine is four times faster.
    return turns.frac_().float().mul_(2 * math.pi).sin_()


def _waved(rows: Rows, wave: Tensor, amplitude_uv: Tensor, electrodes: Tensor) -> Waved:
    """``(rows, samples)`` with a gain for each lead: ``(rows, 9)`` in [0, 1) are electrodes from -1/2 to 1/2.

    A lead is a difference of potentials, so its gain lies in [-1, 1].
    """
    gain_uv = electrode_leads(electrodes - 0.5) * amplitude_uv * rows.lead_mask
    return Waved(gain_uv.float(), wave * rows.in_time)


class GaussianNoise(Augmentation):
    """White noise, as of tense muscles and amplifiers.

    May destroy: small waves. P waves (about 100 microvolt), f waves of atrial fibrillation, pacemaker spikes and late
    potentials drown in it; noise between the QRS complexes resembles fine fibrillation. It is white up to half the
    sampling rate, so most of it lies above a 40 Hz low-pass.
    """

    num_uniform: ClassVar[int] = 1
    num_normal: ClassVar[int] = NUM_ELECTRODES

    name: Literal["gaussian_noise"] = "gaussian_noise"
    rms_uv: float = Field(default=20.0, ge=0, allow_inf_nan=False)
    """Largest root mean square in a limb lead, in microvolt."""

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Added:
        assert randoms.normal is not None
        return gaussian_noise(rows, self.rms_uv, randoms.uniform, randoms.normal)


class BaselineWander(Augmentation):
    """A slow drift, as of breathing (from 0.15 Hz) and movement (about 1 Hz).

    May destroy: the ST segment. A deviation of 100 microvolt (1 mm) in neighbouring leads is the criterion of an acute
    infarct, and wander near the heart rate moves it beat by beat as much; T waves change their shape, and a wave that
    goes with breathing hides electrical alternans.
    """

    num_uniform: ClassVar[int] = 1 + 2 * _NUM_WAVES + NUM_ELECTRODES

    name: Literal["baseline_wander"] = "baseline_wander"
    amplitude_uv: float = Field(default=100.0, ge=0, allow_inf_nan=False)
    """No lead gets more, in microvolt."""
    lowest_hz: float = Field(default=0.15, gt=0, allow_inf_nan=False)
    """Lowest frequency."""
    highest_hz: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    """Highest frequency."""

    @model_validator(mode="after")
    def _a_range(self) -> BaselineWander:
        if self.lowest_hz > self.highest_hz:
            raise ValueError(f"lowest_hz = {self.lowest_hz:g} is above highest_hz = {self.highest_hz:g}")
        return self

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Waved:
        return baseline_wander(
            rows, rate_hz, self.amplitude_uv, self.lowest_hz, self.highest_hz, randoms.uniform
        )

    def check(self, rate_hz: float) -> None:
        _below_half(self.name, self.highest_hz, rate_hz)


class Powerline(Augmentation):
    """Hum of the mains, 50 or 60 Hz.

    May destroy: fine detail. Notches and slurs in the QRS complex (fragmentation, delta and epsilon waves) and
    pacemaker spikes have the same frequencies; regular ripple between beats can pass for fast flutter. Hum as strong
    as an f wave makes atrial fibrillation hard to see.
    """

    num_uniform: ClassVar[int] = 3 + NUM_ELECTRODES

    name: Literal["powerline"] = "powerline"
    amplitude_uv: float = Field(default=50.0, ge=0, allow_inf_nan=False)
    """No lead gets more, in microvolt."""
    frequencies_hz: tuple[float, ...] = (50.0, 60.0)
    """A record gets one of them."""

    @field_validator("frequencies_hz")
    @classmethod
    def _some(cls, frequencies_hz: tuple[float, ...]) -> tuple[float, ...]:
        if not frequencies_hz or not all(0 < hz < math.inf for hz in frequencies_hz):
            raise ValueError("give one or more frequencies above 0, e.g. [50, 60]")
        return frequencies_hz

    def effect(self, rows: Rows, rate_hz: float, randoms: Randoms) -> Waved:
        return powerline(rows, rate_hz, self.amplitude_uv, self.frequencies_hz, randoms.uniform)

    def check(self, rate_hz: float) -> None:
        _below_half(self.name, max(self.frequencies_hz), rate_hz)


def _below_half(name: str, hz: float, rate_hz: float) -> None:
    if hz >= rate_hz / 2:
        raise ConfigError(
            f"augmentation {name}: {hz:g} Hz cannot be told apart at {rate_hz:g} samples per second; "
            f"give less than {rate_hz / 2:g} Hz, or leave it out"
        )
