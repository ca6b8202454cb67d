"""A small batch with all that an augmentation has to respect, and what every one must leave alone."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from ecgdist.record import NUM_LEADS
from ecgdist.signals.augment import Augmentation, Randoms, Rows, View

RATE_HZ = 100.0
SAMPLES = 200
VALID = (SAMPLES, 120, SAMPLES, 1, 0, 150)

Array = npt.NDArray[np.floating]


def batch(seed: int = 0) -> View:
    """Six made-up records: one is short, one has three leads, one has one, one has one sample, one has none."""
    random = np.random.default_rng(seed)
    time_s = np.arange(SAMPLES) / RATE_HZ
    frequency_hz, phase = random.uniform(0.5, 15, (2, len(VALID), NUM_LEADS, 1))
    signal_uv = 1000 * np.sin(2 * np.pi * frequency_hz * time_s + phase)
    lead_mask = np.ones((len(VALID), NUM_LEADS), np.bool_)
    lead_mask[2, 3:] = False
    lead_mask[5, [0, *range(2, 12)]] = False
    inside = (np.arange(SAMPLES) < np.array(VALID)[:, None])[:, None] & lead_mask[:, :, None]
    return View(
        torch.from_numpy(np.where(inside, signal_uv, 0)).float(),
        torch.tensor(VALID),
        torch.from_numpy(lead_mask),
    )


def randoms(augmentation: Augmentation, seed: int = 1) -> Randoms:
    """Random numbers for `batch`."""
    generator = np.random.default_rng(seed)
    uniform = generator.random((len(VALID), augmentation.num_uniform), dtype=np.float32)
    normal = generator.standard_normal((len(VALID), augmentation.num_normal, SAMPLES), dtype=np.float32)
    return Randoms(torch.from_numpy(uniform), torch.from_numpy(normal) if augmentation.num_normal else None)


def rows(view: View) -> list[tuple[Array, int, npt.NDArray[np.bool_]]]:
    """Each record for itself: its signal in float64, valid samples and lead mask."""
    signal_uv = view.signal_uv.double().numpy()
    return list(zip(signal_uv, view.valid_samples.tolist(), view.lead_mask.numpy(), strict=True))


def applied(augmentation: Augmentation, view: View, rate_hz: float, numbers: Randoms) -> View:
    """What becomes of a view if all of it is changed."""
    return augmentation.effect(Rows(view), rate_hz, numbers).of(view)
