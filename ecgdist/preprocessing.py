"""From a recording to model input: the one object that packing, training, evaluation and prediction share.

It has two steps. The *pack step* runs once per recording, in numpy, and its result is stored: leads by name,
microvolt, one rate, segments of one length, int16. The *device step* runs on every batch, in torch, where the
model is: band-pass, window, scaling. The object is saved in the model folder: weights never travel without
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from ecgdist.config import Config
from ecgdist.errors import DataError, RecordRefused
from ecgdist.record import NUM_LEADS, Recording, arrange_leads, microvolts_per_unit
from ecgdist.signals.filters import Band, band_pass
from ecgdist.signals.quality import Mask, Measures, clipped_leads, measure, quality_flags
from ecgdist.signals.resample import rate_ratio, resample, resampled_length
from ecgdist.signals.rules import QualityRules, fill_gaps, find_gaps
from ecgdist.signals.segments import segment_bounds, to_int16
from ecgdist.signals.windows import cut_windows, standardise, within

_MIN_RATE_HZ = 50.0
"""A slower corpus does not hold the QRS complex, which reaches 25 Hz and more."""


def _require_whole(name: str, seconds: float, rate_hz: float) -> None:
    samples = seconds * rate_hz
    if round(samples) < 1 or abs(samples - round(samples)) > 1e-6 * samples:
        raise ValueError(
            f"{name} = {seconds:g} is {samples:g} samples at {rate_hz:g} Hz; it must be a whole number"
        )


@dataclass(frozen=True, eq=False)
class Segment:
    """A stretch of a recording as a corpus stores it.

    Attributes:
        signal_uv: ``(12, num_samples)`` int16 microvolt, standard lead order; zero where nothing is.
        segment: its number within the recording, from 0.
        lead_mask: ``(12,)``, True where a lead is present.
        valid_samples: samples that are signal; the rest is padding.
        quality: sorted flags, see `quality_flags`, and those of the recording; ``tail_dropped`` on the last
            segment says that the recording went on for less than `PackStep.min_duration_s`.
        measures: what was measured on it.
    """

    signal_uv: npt.NDArray[np.int16]
    segment: int
    lead_mask: npt.NDArray[np.bool_]
    valid_samples: int
    quality: tuple[str, ...]
    measures: Measures


class PackStep(Config):
    """How recordings become the equal int16 segments of a corpus."""

    rate_hz: float = Field(default=250.0, ge=_MIN_RATE_HZ, allow_inf_nan=False)
    """Sampling rate of the segments."""
    duration_s: float = Field(default=10.0, gt=0, allow_inf_nan=False)
    """Length of a segment; longer recordings are cut into several, shorter ones padded."""
    min_duration_s: float = Field(default=5.0, gt=0, allow_inf_nan=False)
    """Least signal in a segment; a shorter recording is refused, a shorter remainder dropped with a flag."""
    ignore_leads: tuple[str, ...] = ("vx", "vy", "vz")
    """Channels to leave out knowingly, whatever their case; any other unknown channel is refused."""
    rules: QualityRules = QualityRules()
    """Which recordings are refused for their quality."""

    @field_validator("ignore_leads")
    @classmethod
    def _lower_case(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(sorted({name.strip().lower() for name in names}))

    @model_validator(mode="after")
    def _lengths_fit(self) -> PackStep:
        _require_whole("duration_s", self.duration_s, self.rate_hz)
        _require_whole("min_duration_s", self.min_duration_s, self.rate_hz)
        if self.min_duration_s > self.duration_s:
            raise ValueError(
                f"min_duration_s = {self.min_duration_s:g} is longer than duration_s = {self.duration_s:g}; "
                "every segment would be refused"
            )
        return self

    @property
    def num_samples(self) -> int:
        """Samples of a segment."""
        return round(self.duration_s * self.rate_hz)

    @property
    def min_samples(self) -> int:
        """Least signal in a segment, in samples."""
        return round(self.min_duration_s * self.rate_hz)

    def segments(self, recording: Recording) -> list[Segment]:
        """Cut a recording into segments; see `Preprocessing.pack_recording`."""
        source_uv, lead_mask = self._arranged(recording)
        ratio = float(rate_ratio(recording.rate_hz, self.rate_hz))
        total = resampled_length(source_uv.shape[1], recording.rate_hz, self.rate_hz)
        bounds, dropped = segment_bounds(total, self.num_samples, self.min_samples)
        spans = [slice(round(start / ratio), round(stop / ratio)) for start, stop in bounds]
        nan_shares = [0.0] * len(spans)
        gaps = find_gaps(source_uv)
        if gaps is not None:
            nan_shares = [float(gaps[lead_mask, span].mean()) for span in spans]
            self.rules.check_gaps(gaps, max(nan_shares))
            source_uv, lead_mask = fill_gaps(source_uv, gaps, lead_mask)
        signal_uv = self._converted(source_uv, lead_mask, recording.rate_hz)
        cut = []
        for number, ((start, stop), span, nan_share) in enumerate(
            zip(bounds, spans, nan_shares, strict=True)
        ):
            piece = signal_uv[:, start:stop]
            clipped = clipped_leads(source_uv[:, span], recording.rate_hz)
            measures = measure(piece, lead_mask, clipped, nan_share)
            flags = {*quality_flags(piece, lead_mask, measures), *recording.flags}
            if dropped and number == len(bounds) - 1:
                flags.add("tail_dropped")
            padded = np.zeros((NUM_LEADS, self.num_samples), dtype=np.int16)
            padded[:, : stop - start] = piece
            cut.append(Segment(padded, number, lead_mask, stop - start, tuple(sorted(flags)), measures))
        return cut

    def _arranged(self, recording: Recording) -> tuple[npt.NDArray[np.floating], Mask]:
        """The recording as it came, in standard lead order: ``(12, samples)`` microvolt, and its lead mask."""
        signal_uv = recording.signal_uv
        if signal_uv.ndim != 2:
            raise RecordRefused("bad_shape", f"the signal has shape {signal_uv.shape}, not (leads, samples)")
        self.rules.check_rate(recording.rate_hz)
        signal_uv, lead_mask = arrange_leads(signal_uv, recording.leads, frozenset(self.ignore_leads))
        if resampled_length(signal_uv.shape[1], recording.rate_hz, self.rate_hz) < self.min_samples:
            seconds = signal_uv.shape[1] / recording.rate_hz
            raise RecordRefused(
                "too_short",
                f"{seconds:.4g} s of signal is less than min_duration_s = {self.min_duration_s:g}",
            )
        return signal_uv, lead_mask

    def _converted(
        self, source_uv: npt.NDArray[np.floating], lead_mask: Mask, rate_hz: float
    ) -> npt.NDArray[np.int16]:
        """A finite signal as int16 microvolt at the rate of the corpus, unless a rule refuses it."""
        self.rules.check_signal(source_uv, lead_mask, rate_hz)
        resampled_uv = resample(source_uv, rate_hz, self.rate_hz)
        self.rules.check_amplitude(resampled_uv)  # a steep spike overshoots
        return to_int16(resampled_uv)


class DeviceStep(Config):
    """What happens to a batch on the device, before the model."""

    window_s: float = Field(default=9.0, gt=0, allow_inf_nan=False)
    """Length of the model's input, cut out of a segment."""
    highpass_hz: float | None = Field(default=0.67, gt=0)
    """Lower cut-off against baseline wander, or null. 0.67 Hz (40 beats per minute) is the most that the
    AHA's recommendations allow a filter without phase distortion (Kligfield et al., Circulation 2007,
    115:1306)."""
    lowpass_hz: float | None = Field(default=40.0, gt=0)
    """Upper cut-off against muscle and mains noise, or null."""
    filter_order: int = Field(default=5, ge=1, le=10)
    """Order of each Butterworth filter, which runs forward and backward."""
    scaling: Literal["record", "none"] = "record"
    """``record``: zero mean and unit standard deviation over all leads and samples of the window together,
    which keeps the proportions between leads. ``none``: millivolt."""


class Preprocessing(Config):
    """Turns recordings into model input, the same way everywhere."""

    pack: PackStep = PackStep()
    """Done once, when a corpus is packed."""
    device: DeviceStep = DeviceStep()
    """Done on every batch."""

    @model_validator(mode="after")
    def _steps_fit(self) -> Preprocessing:
        window_s, duration_s = self.device.window_s, self.pack.duration_s
        _require_whole("device.window_s", window_s, self.pack.rate_hz)
        if window_s > duration_s:
            raise ValueError(
                f"device.window_s = {window_s:g} is longer than a segment, pack.duration_s = {duration_s:g}"
            )
        low, high, nyquist_hz = self.device.highpass_hz, self.device.lowpass_hz, self.pack.rate_hz / 2
        for name, hz in (("highpass_hz", low), ("lowpass_hz", high)):
            if hz is not None and hz >= nyquist_hz:
                raise ValueError(
                    f"device.{name} = {hz:g} must be below {nyquist_hz:g} Hz, half of pack.rate_hz; "
                    "give a lower value, or null for no such filter"
                )
        if low is not None and high is not None and low >= high:
            raise ValueError(f"device.highpass_hz = {low:g} must be below device.lowpass_hz = {high:g}")
        return self

    @property
    def num_samples(self) -> int:
        """Samples of a segment."""
        return self.pack.num_samples

    @property
    def window_samples(self) -> int:
        """Samples of a window, the model's input."""
        return round(self.device.window_s * self.pack.rate_hz)

    def pack_recording(self, recording: Recording) -> list[Segment]:
        """Cut a recording into consecutive int16 segments that do not overlap.

        A remainder of at least `PackStep.min_duration_s` becomes a padded last segment.

        Raises:
            RecordRefused: with reason ``unknown_lead``, ``duplicate_lead``, ``no_leads``, ``lead_count``,
                ``bad_shape``, ``bad_rate``, ``too_short``, or one of the `QualityRules`: ``nan``, ``amplitude``,
                ``all_flat``, ``flat_leads``, ``clipped_leads``, ``limb_leads_inconsistent``.
        """
        return self.pack.segments(recording)

    def convert(
        self, signal: npt.ArrayLike, rate_hz: float, leads: Sequence[str], unit: str = "mV"
    ) -> list[Segment]:
        """Pack one ECG from memory: the same int16 samples as if it had come from a source.

        Args:
            signal: ``(leads, samples)`` in `unit`.
            rate_hz: sampling rate.
            leads: the name of each row.
            unit: V, mV, uV or nV.

        Raises:
            RecordRefused: as `pack_recording`, and ``unknown_unit``.
        """
        signal_uv = np.asarray(signal, dtype=np.float64) * microvolts_per_unit(unit)
        return self.pack_recording(Recording("array", "array", signal_uv, rate_hz, tuple(leads)))

    def band_pass(self, signal: Tensor, valid_samples: Tensor) -> Tensor:
        """Filter whole segments.

        Args:
            signal: ``(batch, 12, num_samples)`` microvolt, int16 as stored or floating point.
            valid_samples: ``(batch,)`` integers.

        Returns:
            ``(batch, 12, num_samples)`` float32 microvolt, zero from `valid_samples` on.

        Raises:
            DataError: for segments of another shape.
        """
        expected = (valid_samples.shape[0], NUM_LEADS, self.num_samples)
        if tuple(signal.shape) != expected:
            raise DataError(
                f"segments have shape {tuple(signal.shape)}, not (batch, leads, samples) = {expected}: "
                "they were packed with other settings; pack the recordings again, or use `convert`"
            )
        step = self.device
        band = Band(self.pack.rate_hz, step.highpass_hz, step.lowpass_hz, step.filter_order)
        return band_pass(signal, valid_samples, band)

    def last_start(self, valid_samples: Tensor) -> Tensor:
        """``(batch,)``: the last start of a window without padding; 0 for a segment shorter than a window."""
        return (valid_samples.to(torch.int64) - self.window_samples).clamp(min=0)

    def window_starts(self, valid_samples: Tensor) -> Tensor:
        """``(batch, windows)``: the first and the last window, or the only one that there is."""
        last = self.last_start(valid_samples)
        if self.window_samples == self.num_samples:
            return last[:, None]
        return torch.stack([torch.zeros_like(last), last], dim=1)

    @torch.no_grad()
    def window(
        self, filtered: Tensor, start: Tensor, valid_samples: Tensor, lead_mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cut one window out of each filtered segment and scale it.

        Args:
            filtered: ``(batch, 12, num_samples)`` microvolt, from `band_pass`.
            start: ``(batch,)`` int64, at most ``num_samples - window_samples``; see `last_start`.
            valid_samples: ``(batch,)`` integers, of the segments.
            lead_mask: ``(batch, 12)`` bool, True where a lead is present.

        Returns:
            ``(batch, 12, window_samples)`` float32, zero in missing leads and padding; and ``(batch,)``
            int64, the valid samples of each window.
        """
        cut, valid = self.cut(filtered, start, valid_samples)
        return self.scale(cut, valid, lead_mask), valid

    @torch.no_grad()
    def cut(self, filtered: Tensor, start: Tensor, valid_samples: Tensor) -> tuple[Tensor, Tensor]:
        """The first half of `window`, without scaling.

        Returns:
            ``(batch, 12, window_samples)`` float32 microvolt, and ``(batch,)`` int64, the valid samples of each
            window.
        """
        valid = (valid_samples.to(torch.int64) - start).clamp(0, self.window_samples)
        return cut_windows(filtered, start, self.window_samples), valid

    @torch.no_grad()
    def scale(self, cut: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        """The second half of `window`.

        Args:
            cut: ``(batch, 12, window_samples)`` microvolt; it may be overwritten.
            valid_samples: ``(batch,)`` int64, of the windows.
            lead_mask: ``(batch, 12)`` bool.
        """
        if self.device.scaling == "none":
            return torch.where(within(cut, valid_samples, lead_mask), cut / 1000, 0.0)
        is_reusable = cut.dtype == torch.float32 and cut.is_contiguous()
        return standardise(cut, valid_samples, lead_mask, out=cut if is_reusable else None)

    def inputs(self, signal: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Model input for evaluation, the windows of `window_starts`; average the embeddings over them.

        Args:
            signal: ``(batch, 12, num_samples)`` microvolt, int16 as stored or floating point.
            valid_samples: ``(batch,)`` integers.
            lead_mask: ``(batch, 12)`` bool.

        Returns:
            ``(batch, windows, 12, window_samples)`` float32 and ``(batch, windows)`` int64 valid samples.

        Raises:
            DataError: for segments of another shape.
        """
        filtered = self.band_pass(signal, valid_samples)
        starts = self.window_starts(valid_samples).unbind(1)
        cut = [self.window(filtered, start, valid_samples, lead_mask) for start in starts]
        windows, valid = zip(*cut, strict=True)
        return torch.stack(windows, dim=1), torch.stack(valid, dim=1)
