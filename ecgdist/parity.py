"""Whether an exported encoder gives what the model gives, on real ECGs with all their leads and with few."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ecgdist.corpus import Corpus
from ecgdist.errors import DataError, RecordRefused
from ecgdist.modelfolder import Model
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source

MOST_DIFFERENCE = 1e-5
RECORDS = 100
LEAD_SUBSETS: dict[str, tuple[str, ...]] = {
    "12 leads": STANDARD_LEADS,
    "the 8 independent leads": ("I", "II", *STANDARD_LEADS[6:]),
    "the 6 limb leads": STANDARD_LEADS[:6],
    "the 6 chest leads": STANDARD_LEADS[6:],
    "I, II and V2": ("I", "II", "V2"),
    "I and II": ("I", "II"),
    "I": ("I",),
    "II": ("II",),
}
_SHORT = ("12 leads", "II")
"""Those that are looked at in a short ECG, too, whose window is padded."""

Floats = npt.NDArray[np.float32]
Run = Callable[[Tensor, Tensor, Tensor], Floats]
"""Windows, valid samples and lead mask to embeddings, by the exported file."""


@dataclass(frozen=True)
class Packed:
    """A packed ECG.

    Attributes:
        name: of its record.
        signal_uv: ``(12, samples)`` int16.
        valid_samples: samples before the padding.
        lead_mask: ``(12,)``.
    """

    name: str
    signal_uv: npt.NDArray[np.int16]
    valid_samples: int
    lead_mask: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Parity:
    """What a check found.

    Attributes:
        records: ECGs that were looked at.
        worst: largest difference of a value of an embedding.
        where: the ECG, and its leads, with that difference.
    """

    records: int
    worst: float
    where: str

    def __str__(self) -> str:
        return (
            f"largest difference {self.worst:.2g} ({self.where}) in {self.records} ECGs, each with "
            f"{'; '.join(LEAD_SUBSETS)}, and cut short"
        )


def check_parity(model: Model, run: Run, corpus: Corpus | None = None) -> Parity:
    """Compare an exported encoder with the model on up to 100 ECGs, those of a corpus or the shipped ones.

    Raises:
        DataError: if they differ by more than `MOST_DIFFERENCE`, naming the worst ECG; if the model itself gives what
            is no number; or if there is no ECG.
        StorageError: if the corpus cannot be read.
    """
    records, worst, where = 0, -1.0, ""
    for packed in shipped_ecgs(model) if corpus is None else corpus_ecgs(corpus):
        names, inputs = variants(model, packed)
        difference = _differences(model, run, inputs, f"{packed.name}, {names[0]}")
        if records == 0:  # a batch of one, too
            alone = _differences(model, run, tuple(each[:1] for each in inputs), packed.name)
            difference[0] = max(difference[0], alone[0])
        records += 1
        if difference.max() > worst:
            worst, where = float(difference.max()), f"{packed.name}, {names[int(difference.argmax())]}"
    if not records:
        raise DataError("there is no ECG to check the exported file on; give another --corpus")
    found = Parity(records, worst, where)
    if worst > MOST_DIFFERENCE:
        raise DataError(
            f"the exported file does not give what the model gives, {found}; at most {MOST_DIFFERENCE:g} is allowed, "
            "so nothing was kept"
        )
    return found


def variants(model: Model, packed: Packed) -> tuple[list[str], tuple[Tensor, Tensor, Tensor]]:
    """An ECG with the lead subsets that it has, as a batch of windows.

    Returns:
        a name for each window, and windows ``(n, 12, window_samples)``, valid samples ``(n,)``, lead mask ``(n, 12)``.
    """
    short = min(packed.valid_samples, model.preprocessing.pack.min_samples)
    chosen = [(name, packed.valid_samples) for name in LEAD_SUBSETS]
    chosen += [(f"{name}, short", short) for name in _SHORT]
    masks = [
        packed.lead_mask & np.isin(STANDARD_LEADS, LEAD_SUBSETS[name.removesuffix(", short")])
        for name, _ in chosen
    ]
    kept = [n for n, mask in enumerate(masks) if mask.any()]
    valid = torch.tensor([chosen[n][1] for n in kept])
    lead_mask = torch.from_numpy(np.stack([masks[n] for n in kept]))
    in_time = torch.arange(packed.signal_uv.shape[1]) < valid[:, None]
    signal = torch.from_numpy(packed.signal_uv)[None] * (lead_mask[:, :, None] & in_time[:, None])
    windows, window_valid = model.preprocessing.inputs(signal.to(torch.int16), valid, lead_mask)
    # The first window of each; the others would only be more of the same.
    return [chosen[n][0] for n in kept], (
        windows[:, 0].contiguous(),
        window_valid[:, 0].contiguous(),
        lead_mask,
    )


@torch.no_grad()
def _differences(model: Model, run: Run, inputs: tuple[Tensor, ...], name: str) -> Floats:
    """``(n,)`` largest difference of each window's embedding; infinite where the file gives what is no number."""
    windows, valid, lead_mask = inputs
    expected = model.encoder.embed(windows, valid, lead_mask).float().numpy()
    if not np.isfinite(expected).all():
        raise DataError(f"the model itself gives values that are not finite for {name}; nothing was exported")
    found = np.abs(run(windows, valid, lead_mask) - expected).max(axis=1)
    return np.where(np.isfinite(found), found, np.inf).astype(np.float32)


def corpus_ecgs(corpus: Corpus) -> Iterator[Packed]:
    """The first rows of a corpus, which must be packed as the model takes it."""
    facts = corpus.columns("lead_mask", "valid_samples", "record_id")
    masks, valid = bits_to_mask(facts["lead_mask"].to_numpy()), facts["valid_samples"].to_numpy()
    for chosen, signals in corpus.iter_signals(np.arange(min(RECORDS, corpus.manifest.rows)), 64):
        for row, signal in zip(chosen.tolist(), signals, strict=True):
            yield Packed(facts["record_id"][row].as_py(), signal, int(valid[row]), masks[row])


def shipped_ecgs(model: Model) -> Iterator[Packed]:
    """The first of the ECGs that ship with the package, packed as the model takes them."""
    source = open_source("ptbxl", str(sample_folder()))
    found = 0
    for listing in source.list_records():
        try:
            segment = model.preprocessing.pack_recording(source.read_record(listing))[0]
        except RecordRefused:
            continue
        yield Packed(
            f"ptbxl/{listing.record_id}", segment.signal_uv, segment.valid_samples, segment.lead_mask
        )
        found += 1
        if found == RECORDS:
            return
