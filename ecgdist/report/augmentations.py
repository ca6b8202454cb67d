"""What each augmentation does to a real ECG: `python -m ecgdist.report.augmentations OUT.png [ECG]`.

The ECG is one of those that ship with the package, filtered as by default, and each augmentation is drawn at its full
strength in two leads over what was there before.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure

from ecgdist.errors import DataError
from ecgdist.preprocessing import Preprocessing
from ecgdist.record import STANDARD_LEADS
from ecgdist.report.ecgpaper import Change, draw_changes, png
from ecgdist.sample import sample_folder
from ecgdist.signals.augment import AUGMENTATIONS, Augmentation, Randoms, Rows, View
from ecgdist.signals.augment.choice import stream_keys
from ecgdist.sources import open_source
from ecgdist.streaming.draws import AUGMENT_STUDENT, Draws

LEADS = ("II", "V2")
ECG = "297"
"""Sinus rhythm with one ventricular ectopic beat."""
_SEED = 1556
"""Of the random numbers; chosen so that `lead_drop` takes one of the two leads and `time_out` the ectopic beat."""

_VISIBLE: dict[str, dict[str, float]] = {
    "amplitude_scale": {"change": 0.5},
    "gaussian_noise": {"rms_uv": 50},
    "baseline_wander": {"amplitude_uv": 300},
    "powerline": {"amplitude_uv": 200},
}
"""Strengths for what would hardly be seen on paper at its default."""


def draw_augmentations(record: str = ECG) -> Figure:
    """One sheet of ECG paper with a pair of strips for each augmentation there is.

    Args:
        record: id of a shipped ECG.

    Raises:
        DataError: if none has it.
    """
    view, rate_hz = _window(record)
    changes = []
    for name, kind in AUGMENTATIONS.items():
        augmentation = kind.model_validate(_VISIBLE.get(name, {}))
        after = augmentation.effect(Rows(view), rate_hz, _randoms(augmentation, view)).of(view)
        for number, lead in enumerate(LEADS):
            row = STANDARD_LEADS.index(lead)
            before_mv, after_mv = (one.signal_uv[0, row].double().numpy() / 1000 for one in (view, after))
            present = bool(after.lead_mask[0, row])
            changes.append(
                Change(
                    before_mv,
                    after_mv if present else np.full_like(after_mv, np.nan),
                    lead if present else f"{lead}: missing",
                    "" if number else _caption(augmentation),
                )
            )
    return draw_changes(
        changes, rate_hz, f"PTB-XL {record}, before and after each augmentation at full strength"
    )


def _window(record: str) -> tuple[View, float]:
    """The first window of an ECG, filtered and not yet scaled."""
    source = open_source("ptbxl", str(sample_folder()))
    found = [listed for listed in source.list_records() if listed.record_id == record]
    if not found:
        raise DataError(f"no shipped ECG has the id {record}; ids are those of PTB-XL, such as {ECG}")
    preprocessing = Preprocessing()
    (segment, *_) = preprocessing.pack_recording(source.read_record(found[0]))
    valid = torch.tensor([segment.valid_samples])
    filtered = preprocessing.band_pass(torch.from_numpy(segment.signal_uv)[None], valid)
    cut, valid = preprocessing.cut(filtered, torch.zeros(1, dtype=torch.int64), valid)
    return View(cut, valid, torch.from_numpy(segment.lead_mask)[None]), preprocessing.pack.rate_hz


def _randoms(augmentation: Augmentation, view: View) -> Randoms:
    """Drawn as in training, with the first number, which is the strength of most, at its largest."""
    ((name, occurrence),) = stream_keys([augmentation])
    draws, stream, first = Draws(_SEED, 1), (AUGMENT_STUDENT, name, occurrence), np.zeros(1, np.int64)
    uniform = torch.from_numpy(draws.uniform(stream, 0, first, augmentation.num_uniform))
    uniform[:, 0] = 1 - 2**-24
    if not augmentation.num_normal:
        return Randoms(uniform)
    samples = view.signal_uv.shape[-1]
    normal = draws.normal(stream, 0, first, augmentation.num_normal * samples, torch.device("cpu"))
    return Randoms(uniform, normal.view(1, augmentation.num_normal, samples))


def _caption(augmentation: Augmentation) -> str:
    settings = augmentation.model_dump(exclude={"name", "p"})
    values = ", ".join(f"{key} = {value}" for key, value in settings.items())
    return f"{type(augmentation).model_fields['name'].default}   {values}"


def main() -> None:
    """Write the picture."""
    if len(sys.argv) not in (2, 3):
        raise SystemExit("usage: python -m ecgdist.report.augmentations OUT.png [ECG]")
    Path(sys.argv[1]).write_bytes(png(draw_augmentations(*sys.argv[2:])))
    print(f"wrote {sys.argv[1]}")


if __name__ == "__main__":
    main()
