"""Batched preprocessing and augmentation: beside the per-record way, and as a share of a step.

`python -m tests.benchmarks.augment [--repeats 7]` makes both views of 32 shipped ECGs (12 x 2,500 samples), with no
augmentation, with the two that Mehari & Strodthoff (2022) found best, and with all of them. The per-record way does the
same with scipy and numpy, one ECG after another: `sosfiltfilt`, crop, each augmentation, scaling. It has to give the
same views before anything is measured. As published, every crop is filtered by itself, by a high-pass and then by a
low-pass (ST-MEM); that is measured, too.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch
from scipy.signal import sosfiltfilt

from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.objectives.hybrid import PretrainingModule
from ecgdist.preprocessing import Preprocessing
from ecgdist.pretraining.group import Group
from ecgdist.pretraining.step import TrainingStep
from ecgdist.record import NUM_LEADS
from ecgdist.signals.augment import AUGMENTATIONS, Augmentation, AugmentConfig
from ecgdist.signals.filters import Band
from ecgdist.streaming.batches import RankBatch
from ecgdist.streaming.draws import AUGMENT_STUDENT, AUGMENT_TEACHER, CROP_STUDENT, CROP_TEACHER, Draws
from ecgdist.streaming.order import Order
from tests.benchmarks.results import cell, table, write_section
from tests.pretraining.runs import ARMS, PlainEngine
from tests.signals.real_ecgs import recordings

ROWS, SIZE = 32, "small"
PRE = Preprocessing()
ORDER = Order([ROWS * 4], seed=0, lanes=8, global_batch=ROWS, shuffle_rows=ROWS)


def on_both(names: Sequence[str]) -> AugmentConfig:
    """The same augmentations, at their defaults, on both views."""
    return AugmentConfig.model_validate({"student": list(names), "teacher": list(names)})


NOTHING, EVERYTHING = "nothing", "everything"
CHOICES = {
    NOTHING: on_both([]),
    "resized_crop, time_out": on_both(["resized_crop", "time_out"]),
    EVERYTHING: on_both(list(AUGMENTATIONS)),
}
WITHOUT_NOISE = on_both([name for name in AUGMENTATIONS if name != "gaussian_noise"])

Array = npt.NDArray[np.floating]


def real_batch() -> RankBatch:
    """The first shipped ECGs, of as many patients."""
    segments = [PRE.pack_recording(recording)[0] for recording in recordings(ROWS)]
    numbers = np.arange(ROWS)
    return RankBatch(
        0,
        numbers,
        np.stack([segment.signal_uv for segment in segments]),
        np.array([segment.valid_samples for segment in segments]),
        np.stack([segment.lead_mask for segment in segments]),
        numbers,
        [f"ptbxl/{number}#0" for number in numbers],
    )


def training_step(objective: ObjectiveConfig, augmentations: AugmentConfig) -> TrainingStep:
    """A step of one process on all rows at once."""
    torch.manual_seed(0)
    module = PretrainingModule(EncoderConfig(size=SIZE), objective, PRE.window_samples)
    return TrainingStep(
        PlainEngine(module, 1.0), module.teacher(), objective, PRE, ORDER, Group(), ROWS, 10_000,
        torch.device("cpu"), augmentations,
    )  # fmt: skip


def views_per_record(batch: RankBatch, augmentations: AugmentConfig, each_crop: bool = False) -> list[Array]:
    """Student's and teacher's view, ECG by ECG: twice ``(batch, 12, window)``; `each_crop`: filtered as published."""
    draws, positions = Draws(ORDER.seed, ORDER.global_batch), batch.positions
    band = Band(PRE.pack.rate_hz, PRE.device.highpass_hz, PRE.device.lowpass_hz, PRE.device.filter_order)
    sections = band.sections()
    whole = [one.astype(np.float64) for one in batch.signal_uv]
    if not each_crop:
        whole = [_filtered(sections, one) for one in whole]
    spare = np.full(ROWS, PRE.num_samples - PRE.window_samples + 1)
    views = []
    for crop, stream, chosen in (
        (CROP_STUDENT, AUGMENT_STUDENT, augmentations.student),
        (CROP_TEACHER, AUGMENT_TEACHER, augmentations.teacher),
    ):
        starts = draws.integers(crop, batch.step, positions, spare)
        numbers = [_uniform(draws, stream, batch.step, positions, one) for one in chosen]
        rows = []
        for row in range(ROWS):
            signal_uv = whole[row][:, starts[row] : starts[row] + PRE.window_samples]
            if each_crop:
                for half in np.split(sections, 2):
                    signal_uv = sosfiltfilt(half, signal_uv)
            present = batch.lead_mask[row].copy()
            for augmentation, uniform in zip(chosen, numbers, strict=True):
                if uniform[row, 0] < augmentation.p:
                    change = PER_RECORD[type(augmentation).model_fields["name"].default]
                    signal_uv = change(signal_uv, present, augmentation, uniform[row, 1:].astype(np.float64))
            inside = signal_uv[present]
            rows.append(
                np.where(present[:, None], (signal_uv - inside.mean()) / max(inside.std(), 1.0), 0.0).astype(
                    np.float32
                )
            )
        views.append(np.stack(rows))
    return views


def _filtered(sections: Array, signal_uv: Array) -> Array:
    """An ECG continued on each side for as long as it is, which is near enough to without end."""
    samples = signal_uv.shape[1]
    first, last = signal_uv[:, :1], signal_uv[:, -1:]
    rest = signal_uv - (first + (last - first) * (np.arange(samples) / (samples - 1)))
    continued = np.pad(rest, ((0, 0), (samples, samples)), mode="symmetric")
    return sosfiltfilt(sections, continued, padlen=0)[:, samples : 2 * samples]


def _uniform(
    draws: Draws, stream: int, step: int, positions: npt.NDArray[np.int64], one: Augmentation
) -> npt.NDArray[np.float32]:
    key = crc32(type(one).model_fields["name"].default.encode())
    return draws.uniform((stream, key, 0), step, positions, 1 + one.num_uniform)


def _crop(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    share, last = 1 / (1 + chosen.stretch * u[0]), signal_uv.shape[1] - 1
    position = u[1] * (1 - share) * last + np.arange(last + 1) * share
    before = position.astype(np.int64)
    x = position - before
    weights = (
        ((-0.5 * x + 1) * x - 0.5) * x,
        (1.5 * x - 2.5) * x * x + 1,
        ((-1.5 * x + 2) * x + 0.5) * x,
        (0.5 * x - 0.5) * x * x,
    )
    return sum(
        signal_uv[:, np.clip(before + offset, 0, last)] * weight
        for offset, weight in zip((-1, 0, 1, 2), weights, strict=True)
    )


def _time_out(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    length = min(round(u[0] * chosen.longest_s * PRE.pack.rate_hz), signal_uv.shape[1])
    start = int(u[1] * (signal_uv.shape[1] - length + 1))
    silent = signal_uv.copy()
    silent[:, start : start + length] = 0
    return silent


def _time_shift(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    shift = round((2 * u[0] - 1) * chosen.longest_s * PRE.pack.rate_hz)
    moved = np.zeros_like(signal_uv)
    if shift >= 0:
        moved[:, shift:] = signal_uv[:, : signal_uv.shape[1] - shift]
    else:
        moved[:, :shift] = signal_uv[:, -shift:]
    return moved


def _lead_drop(signal_uv: Array, present: npt.NDArray[np.bool_], chosen: Any, u: Array) -> Array:
    kept = present & (u >= chosen.lead_p)
    if not kept.any():
        kept[np.argmax(np.where(present, u, -1))] = True
    present[:] = kept
    return np.where(kept[:, None], signal_uv, 0)


def _amplitude(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    factor = (1 + chosen.change) ** (2 * u - 1)
    return signal_uv * np.concatenate([np.repeat(factor[:1], 6), factor[1:]])[:, None]


def _leads(electrodes: Array) -> Array:
    right, left, leg = electrodes[:3]
    limbs = [
        left - right,
        leg - right,
        leg - left,
        right - (left + leg) / 2,
        left - (right + leg) / 2,
        leg - (right + left) / 2,
    ]
    return np.concatenate([np.stack(limbs), electrodes[3:] - (right + left + leg) / 3])


def _noise(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    normal = np.random.default_rng(int(u[0] * 2**24)).standard_normal((9, signal_uv.shape[1]))
    return signal_uv + _leads(normal * (u[0] * chosen.rms_uv / np.sqrt(2))) * present[:, None]


def _wander(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    frequency_hz = chosen.lowest_hz + (chosen.highest_hz - chosen.lowest_hz) * u[1:4]
    time_s = np.arange(signal_uv.shape[1]) / PRE.pack.rate_hz
    wave = np.sin(2 * np.pi * (frequency_hz[:, None] * time_s + u[4:7, None])).mean(axis=0)
    return signal_uv + (_leads(u[7:] - 0.5) * present)[:, None] * (u[0] * chosen.amplitude_uv * wave)


def _hum(signal_uv: Array, present: Array, chosen: Any, u: Array) -> Array:
    frequency_hz = chosen.frequencies_hz[int(u[1] * len(chosen.frequencies_hz))]
    time_s = np.arange(signal_uv.shape[1]) / PRE.pack.rate_hz
    wave = np.sin(2 * np.pi * (frequency_hz * time_s + u[2]))
    return signal_uv + (_leads(u[3:] - 0.5) * present)[:, None] * (u[0] * chosen.amplitude_uv * wave)


PER_RECORD: dict[str, Callable[..., Array]] = {
    "resized_crop": _crop,
    "time_out": _time_out,
    "time_shift": _time_shift,
    "lead_drop": _lead_drop,
    "amplitude_scale": _amplitude,
    "gaussian_noise": _noise,
    "baseline_wander": _wander,
    "powerline": _hum,
}


def require_the_same(batch: RankBatch) -> None:
    """Another result would be no comparison. Noise itself is drawn otherwise, so it is left out here."""
    for augmentations in (CHOICES[NOTHING], WITHOUT_NOISE):
        views = training_step(ObjectiveConfig(), augmentations)._views(batch).views
        for view, theirs in zip(views, views_per_record(batch, augmentations), strict=True):
            ours = view.signal
            assert ours.shape == (ROWS, NUM_LEADS, PRE.window_samples)
            difference = float(np.abs(ours.numpy() - theirs).max())
            if difference > 2e-3:
                raise RuntimeError(f"the views differ by {difference:g} standard deviations of a record")


def milliseconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began)


def measure(batch: RankBatch, repeats: int, threads: int) -> dict[str, list[float]]:
    """Milliseconds of each way, which take turns."""
    torch.set_num_threads(threads)
    ways: dict[str, Callable[[], object]] = {}
    for name, augmentations in CHOICES.items():
        ways[f"batched, {name}"] = partial(training_step(ObjectiveConfig(), augmentations)._views, batch)
        ways[f"per record, {name}"] = partial(views_per_record, batch, augmentations)
        ways[f"as published, {name}"] = partial(views_per_record, batch, augmentations, True)
    for arm, objective in ARMS.items():
        for name, augmentations in CHOICES.items():
            step = training_step(objective, augmentations)
            ways[f"views, {arm}, {name}"] = partial(step._views, batch)
            ways[f"step, {arm}, {name}"] = partial(step, batch, 1e-5)
    found: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, work in ways.items():
            spent = milliseconds(work)
            if repeat:
                found[name].append(spent)
    return found


def main() -> None:
    """Measure and write the section."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    batch = real_batch()
    require_the_same(batch)
    threads = torch.get_num_threads()
    found = {number: measure(batch, arguments.repeats, number) for number in sorted({1, threads})}
    paragraphs = [
        f"Both views of {ROWS} ECGs of 12 x {PRE.num_samples:,} samples, float32 out, on the CPU: band-pass, two "
        f"windows of {PRE.window_samples:,}, augmentations, scaling. *Everything* is all {len(AUGMENTATIONS)} "
        "augmentations on both views at their defaults (each on half of the ECGs, leads dropped from all); the pair is "
        "the best of Mehari & Strodthoff (2022). Per "
        "record: `sosfiltfilt` with the same continuation and numpy, in one process; its views equal ours. As "
        "published: each crop is filtered by itself, high-pass, then low-pass, with scipy's short continuation. "
        f"Milliseconds; {arguments.repeats} repeats, all ways in turn; ratios within a repeat.",
        table(
            ["torch threads", "augmentations", "batched", "per record", "ratio", "as published", "ratio"],
            [
                [
                    str(number),
                    name,
                    cell(values[f"batched, {name}"], 1),
                    *_beside(values, f"batched, {name}", f"per record, {name}"),
                    *_beside(values, f"batched, {name}", f"as published, {name}"),
                ]
                for number, values in found.items()
                for name in CHOICES
            ],
        ),
        f"Share of a training step (`{SIZE}`, batch of {ROWS}: forward, backward and AdamW; the "
        "generative arm has one view):",
        table(
            ["torch threads", "arm", "augmentations", "views", "step", "% of the step"],
            [
                [str(number), arm, name, *_share(values, f"views, {arm}, {name}", f"step, {arm}, {name}")]
                for number, values in found.items()
                for arm in ARMS
                for name in CHOICES
            ],
        ),
    ]
    command = f"python -m tests.benchmarks.augment --repeats {arguments.repeats}"
    write_section("Preprocessing and augmentation", command, paragraphs)
    print("\n\n".join(paragraphs))


def _beside(values: dict[str, list[float]], ours: str, theirs: str) -> Sequence[str]:
    ratios = [b / a for a, b in zip(values[ours], values[theirs], strict=True)]
    return cell(values[theirs], 1), cell(ratios, 1)


def _share(values: dict[str, list[float]], part: str, whole: str) -> Sequence[str]:
    shares = [100 * a / b for a, b in zip(values[part], values[whole], strict=True)]
    return cell(values[part], 1), cell(values[whole]), cell(shares, 1)


if __name__ == "__main__":
    main()
