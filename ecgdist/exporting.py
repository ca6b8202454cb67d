"""An encoder as one file that runs without this package: ``torch.export`` or ONNX, kept only if it agrees.

The file takes what the device step gives: filtered, cut and scaled windows. The band-pass is not in it: it works in
float64 in the frequency domain. ``FILE.json`` beside it says exactly what to feed, with the whole preprocessing.
"""

from __future__ import annotations

import importlib
import json
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import check_signals
from ecgdist.errors import ConfigError, DataError, RecordRefused
from ecgdist.modelfolder import Model, load
from ecgdist.pretraining.export import RUN, export_model
from ecgdist.record import STANDARD_LEADS, bits_to_mask
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from ecgdist.storage import Location

FORMATS = ("safetensors", "torch.export", "onnx")
MOST_DIFFERENCE = 1e-5
LEAD_SUBSETS = {
    12: STANDARD_LEADS,
    8: ("I", "II", "V1", "V2", "V3", "V4", "V5", "V6"),
    2: ("I", "II"),
    1: ("II",),
}
_RECORDS = 100
_INPUTS = ("windows", "valid_samples", "lead_mask")
Packed = tuple[str, npt.NDArray[np.int16], int, npt.NDArray[np.bool_]]
Run = Callable[[Tensor, Tensor, Tensor], npt.NDArray[np.float32]]


class Embedder(nn.Module):
    """`Encoder.embed` as a module: windows, valid samples and lead mask -> ``(batch, dim)``."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.encoder = model.encoder

    def forward(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        return self.encoder.embed(windows, valid_samples, lead_mask)


def export_any(origin: str, out: str, checkpoint: str, form: str, corpus: str | None) -> str:
    """Export a run or a model folder; the sentence that says what was written.

    Raises:
        ConfigError: for an unknown format, or one whose packages are missing.
        DataError: if there is nothing to export, `out` exists, or the exported file does not agree.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form} is not known; accepted: {', '.join(FORMATS)}")
    where, target = Location.of(origin), Location.of(out)
    is_run = (where / RUN).exists()
    if form == "safetensors":
        if not is_run:
            load(where)
            raise ConfigError(
                f"{where} is a model folder already; copy it, or give --format torch.export or onnx"
            )
        return f"model written to {export_model(where, target, checkpoint)}"
    if target.exists():
        raise DataError(f"{target} exists; choose another --out, or remove it first")
    with tempfile.TemporaryDirectory(prefix="ecgdist-export-") as scratch:
        if is_run:
            where = export_model(where, Location.of(f"{scratch}/model"), checkpoint)
        worst = export_file(load(where), target, form, Corpus(corpus) if corpus else None)
    return f"{form} file written to {target}, what to feed it to {target}.json; {worst}"


def export_file(model: Model, out: Location, form: str, corpus: Corpus | None = None) -> str:
    """Write an encoder as one file, if it agrees with the model on 100 ECGs with 12, 8, 2 and 1 leads.

    Returns:
        what the check found, in a sentence.

    Raises:
        ConfigError: if a package is missing, or the format cannot hold this kind of encoder.
        DataError: if it does not agree, naming the worst record; nothing is kept then.
    """
    module = Embedder(model).eval()
    with tempfile.TemporaryDirectory(prefix="ecgdist-export-") as scratch:
        path = Path(scratch) / "encoder"
        run = _WRITERS[form](module, path, model)
        records, worst, worst_name = 0, 0.0, ""
        for name, signal_uv, valid, present in _checked_on(model, corpus):
            records += 1
            difference, leads = _difference(model, run, signal_uv, valid, present)
            if not difference <= worst:
                worst, worst_name = difference, f"{name} with {leads} leads"
        if not records:
            raise DataError("there is no ECG to check the exported file on; give another --corpus")
        if not worst <= MOST_DIFFERENCE:
            raise DataError(
                f"the {form} file differs from the model by {worst:.2g} (at most {MOST_DIFFERENCE:g} is allowed), "
                f"most in {worst_name}; nothing was kept"
            )
        said = f"largest difference {worst:.2g} in {records} ECGs with 12, 8, 2 and 1 leads"
        Location(f"{out.uri}.json").write_bytes(_sidecar(model, form, said))
        out.upload(path)
    return said


def _difference(
    model: Model, run: Run, signal_uv: npt.NDArray[np.int16], valid: int, present: npt.NDArray[np.bool_]
) -> tuple[float, int]:
    """The largest difference over the lead subsets of an ECG, and the subset's size; NaN counts as infinite."""
    worst, worst_leads = -1.0, 0
    for count, leads in LEAD_SUBSETS.items():
        mask = present & np.isin(STANDARD_LEADS, leads)
        if not mask.any():
            continue
        signal = torch.from_numpy(np.where(mask[:, None], signal_uv, 0).astype(np.int16))[None]
        lead_mask = torch.from_numpy(mask)[None]
        windows, window_valid = model.preprocessing.inputs(signal, torch.tensor([valid]), lead_mask)
        inputs = (windows[0], window_valid[0], lead_mask.expand(windows.shape[1], -1).contiguous())
        with torch.no_grad():
            expected = model.encoder.embed(*inputs).float().numpy()
        difference = float(np.abs(run(*inputs) - expected).max())
        difference = float("inf") if np.isnan(difference) else difference
        if difference > worst:
            worst, worst_leads = difference, count
    return worst, worst_leads


def _checked_on(model: Model, corpus: Corpus | None) -> Iterator[Packed]:
    """Up to 100 packed ECGs: the first rows of a corpus, or the shipped ones."""
    if corpus is not None:
        check_signals(model, corpus)
        facts = corpus.columns("lead_mask", "valid_samples", "record_id")
        masks, valid = bits_to_mask(facts["lead_mask"].to_numpy()), facts["valid_samples"].to_numpy()
        for chosen, signals in corpus.iter_signals(np.arange(min(_RECORDS, corpus.manifest.rows)), 64):
            for row, signal in zip(chosen, signals, strict=True):
                yield facts["record_id"][int(row)].as_py(), signal, int(valid[row]), masks[row]
        return
    source = open_source("ptbxl", str(sample_folder()))
    found = 0
    for listing in source.list_records():
        try:
            segment = model.preprocessing.pack_recording(source.read_record(listing))[0]
        except RecordRefused:
            continue
        yield listing.record_id, segment.signal_uv, segment.valid_samples, segment.lead_mask
        found += 1
        if found == _RECORDS:
            return


def _example(model: Model) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[dict[int, Any], ...]]:
    samples = model.preprocessing.window_samples
    mask = torch.ones(3, len(STANDARD_LEADS), dtype=torch.bool)
    mask[1, 2:] = False
    valid = torch.tensor([samples, samples - samples // 4, samples // 2])
    batch = torch.export.Dim("batch", min=1, max=65536)
    return (torch.zeros(3, len(STANDARD_LEADS), samples), valid, mask), ({0: batch}, {0: batch}, {0: batch})


def _torch_export(module: Embedder, path: Path, model: Model) -> Run:
    example, shapes = _example(model)
    torch.export.save(torch.export.export(module, example, dynamic_shapes=shapes), f"{path}.pt2")
    shutil.move(f"{path}.pt2", path)
    with path.open("rb") as file:
        loaded = torch.export.load(file).module()  # type: ignore[arg-type]

    def run(windows: Tensor, valid: Tensor, mask: Tensor) -> npt.NDArray[np.float32]:
        with torch.no_grad():
            result: npt.NDArray[np.float32] = loaded(windows, valid, mask).numpy()
        return result

    return run


def _onnx(module: Embedder, path: Path, model: Model) -> Run:
    try:
        importlib.import_module("onnxscript")
        runtime = importlib.import_module("onnxruntime")
    except ImportError:
        raise ConfigError("ONNX needs more packages; install them with pip install 'ecgdist[onnx]'") from None
    kind = model.config.encoder.kind
    example, shapes = _example(model)
    try:
        program = torch.onnx.export(
            module,
            example,
            dynamo=True,
            dynamic_shapes=shapes,
            input_names=list(_INPUTS),
            output_names=["embedding"],
            verbose=False,
        )
        assert program is not None
        program.save(str(path), external_data=False)
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ConfigError(
            f"ONNX cannot hold this encoder of kind {kind} ({type(error).__name__}); use --format torch.export"
        ) from error

    def run(*inputs: Tensor) -> npt.NDArray[np.float32]:
        feed = {name: tensor.numpy() for name, tensor in zip(_INPUTS, inputs, strict=True)}
        result: npt.NDArray[np.float32] = session.run(None, feed)[0]
        return result

    return run


_WRITERS: dict[str, Callable[[Embedder, Path, Model], Run]] = {"torch.export": _torch_export, "onnx": _onnx}


def _sidecar(model: Model, form: str, check: str) -> bytes:
    samples = model.preprocessing.window_samples
    content = {
        "format": form,
        "model_hash": model.model_hash,
        "inputs": {
            "windows": f"(batch, 12, {samples}) float32, after the device step: band-passed, cut and scaled as in "
            "`preprocessing`; zero in missing leads and padding; leads in the order of `leads`",
            "valid_samples": "(batch,) int64: samples of each window that are signal, the rest is padding",
            "lead_mask": "(batch, 12) bool: true where a lead is present",
        },
        "output": f"(batch, {model.dim}) float32: the embedding of each window; an ECG's is the mean over the windows "
        "that start at its first sample and as late as they fit",
        "leads": STANDARD_LEADS,
        "preprocessing": model.preprocessing.model_dump(mode="json"),
        "check": check,
        "notice": "Not a medical device. For research only.",
    }
    return json.dumps(content, indent=1).encode() + b"\n"
