"""A checkpoint as a model folder, or an encoder as one file that runs without this package: ``torch.export`` or ONNX.

Whatever is written is compared with the model first, and appears whole or not at all. A file takes what the device
step gives: filtered, cut and scaled windows. The band-pass is not in it: it works in float64 in the frequency domain.
What to feed is said in the file itself, as JSON under the name ``ecgdist.json`` (``torch.export``) or the metadata key
``ecgdist`` (ONNX), with the whole preprocessing.
"""

from __future__ import annotations

import importlib
import json
import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ecgdist.corpus import Corpus
from ecgdist.downstream.evaluate import check_signals
from ecgdist.downstream.evaluation import versions
from ecgdist.errors import ConfigError, DataError
from ecgdist.modelcard import NOT_A_DEVICE, restrictions
from ecgdist.modelfolder import CONFIG, Model, load
from ecgdist.models.interface import Encoder
from ecgdist.parity import LEAD_SUBSETS, MOST_DIFFERENCE, Floats, Parity, Run, check_parity
from ecgdist.pretraining.export import RUN, export_model, saved_encoder, saved_student
from ecgdist.record import STANDARD_LEADS
from ecgdist.scratch import scratch_folder
from ecgdist.storage import Location

FORMATS = ("safetensors", "torch.export", "onnx")
SAID = "ecgdist"
"""Under this name (with ``.json`` in a ``torch.export`` file) a file says what it is."""
_INPUTS, _OUTPUT = ("windows", "valid_samples", "lead_mask"), "ecg_embedding"


class Embedder(nn.Module):
    """`Encoder.embed` as a module: windows, valid samples and lead mask -> ``(batch, dim)``."""

    def __init__(self, encoder: Encoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Tensor:
        """See `Encoder.embed`."""
        return self.encoder.embed(windows, valid_samples, lead_mask)


def export_any(
    origin: str, out: str, checkpoint: str = "last", form: str = "safetensors", corpus: str | None = None
) -> str:
    """Export a run or a model folder; the sentence that says what was written.

    Args:
        origin: folder of a run, or model folder.
        out: folder to write for ``safetensors``, else a file.
        checkpoint: of a run, as for `saved_student`.
        form: one of `FORMATS`.
        corpus: ECGs to check on; default the shipped ones.

    Raises:
        ConfigError: for an unknown format, or one whose packages are missing.
        DataError: if there is nothing to export, `out` exists, or what was exported does not agree.
        StorageError: if something cannot be read or written.
    """
    if form not in FORMATS:
        raise ConfigError(f"--format {form} is not known; accepted: {', '.join(FORMATS)}")
    where, target = Location.of(origin), Location.of(out)
    is_run = (where / RUN).exists()
    if not is_run and not (where / CONFIG).exists():
        raise DataError(
            f"{where} is neither a run nor a model folder: it has no {RUN} and no {CONFIG}; give the --out folder of "
            "`ecgdist pretrain`, or one that it exported"
        )
    if form == "safetensors" and not is_run:
        load(where)
        raise ConfigError(
            f"{where} is a model folder already; copy it, or give --format torch.export or onnx"
        )
    if form == "torch.export" and not target.name.endswith(".pt2"):
        raise ConfigError(f"torch.export opens files named *.pt2 only; give --out {out}.pt2")
    if target.is_file() or target.list_files():
        raise DataError(f"{target} exists and is not empty; choose another --out, or remove it first")
    ecgs = Corpus(corpus) if corpus else None
    with scratch_folder("export") as scratch:
        if is_run:
            model, found = _from_run(where, scratch, checkpoint, ecgs)
        else:
            model = load(where)
        if form == "safetensors":
            _copy_folder(scratch / "model", target)
            return f"model written to {target}; {found}"
        found = export_file(model, target, form, ecgs)
    return f"{form} file written to {target}; {found}"


def export_file(model: Model, out: Location, form: str, corpus: Corpus | None = None) -> Parity:
    """Write an encoder as one file, if it agrees with the model on 100 ECGs with all leads and with few.

    Returns:
        what the check found.

    Raises:
        ConfigError: if a package is missing, or the format cannot hold this kind of encoder.
        DataError: if it does not agree, naming the worst record; nothing is kept then.
    """
    if corpus is not None:
        check_signals(model, corpus)
    with scratch_folder("export") as scratch:
        path = scratch / {"torch.export": "encoder.pt2", "onnx": "encoder.onnx"}[form]
        run = _WRITERS[form](Embedder(model.encoder).eval(), path, model)
        found = check_parity(model, run, corpus)
        out.upload(path)
    return found


def _from_run(run: Location, scratch: Path, checkpoint: str, ecgs: Corpus | None) -> tuple[Model, Parity]:
    """The model folder of a checkpoint in ``scratch/model``, compared with the checkpoint's own encoder."""
    student = saved_student(run, scratch, checkpoint)
    model = load(export_model(run, Location.of(scratch / "model"), student.name))
    if ecgs is not None:
        check_signals(model, ecgs)
    return model, check_parity(model, in_torch(Embedder(saved_encoder(run, student))), ecgs)


def _copy_folder(folder: Path, target: Location) -> None:
    """Copy a model folder, its ``config.json`` last: without it, a folder is none."""
    names = sorted((path.name for path in folder.iterdir()), key=lambda name: (name == CONFIG, name))
    for name in names:
        (target / name).upload(folder / name)


def in_torch(module: nn.Module) -> Run:
    """A module as what is compared."""

    @torch.no_grad()
    def run(windows: Tensor, valid_samples: Tensor, lead_mask: Tensor) -> Floats:
        found: Floats = module(windows, valid_samples, lead_mask).float().numpy()
        return found

    return run


def _example(model: Model) -> tuple[tuple[Tensor, Tensor, Tensor], tuple[dict[int, Any], ...]]:
    """Inputs to trace with, and that their first dimension may be any."""
    samples = model.preprocessing.window_samples
    mask = torch.ones(3, len(STANDARD_LEADS), dtype=torch.bool)
    mask[1, 2:] = False
    valid = torch.tensor([samples, samples - samples // 4, samples // 2])
    batch = torch.export.Dim("batch", min=1, max=65536)
    return (torch.zeros(3, len(STANDARD_LEADS), samples), valid, mask), ({0: batch}, {0: batch}, {0: batch})


def _torch_export(module: Embedder, path: Path, model: Model) -> Run:
    example, shapes = _example(model)
    program = torch.export.export(module, example, dynamic_shapes=shapes)
    torch.export.save(program, path, extra_files={f"{SAID}.json": _said(model, "torch.export", {})})
    return in_torch(torch.export.load(path).module())


def _onnx(module: Embedder, path: Path, model: Model) -> Run:
    try:
        onnx, runtime = importlib.import_module("onnx"), importlib.import_module("onnxruntime")
        importlib.import_module("onnxscript")
    except ImportError as error:
        raise ConfigError(
            f"ONNX needs the package {error.name}; install it with pip install 'ecgdist[onnx]'"
        ) from error
    kind = model.config.encoder.kind
    failures: tuple[type[Exception], ...] = (torch.onnx.OnnxExporterError, *_runtime_failures())
    example, shapes = _example(model)
    try:
        with warnings.catch_warnings(), _quiet("torch.onnx._internal.exporter._registration"):
            warnings.simplefilter("ignore")  # of torch about itself
            program = torch.onnx.export(
                module,
                example,
                dynamo=True,
                dynamic_shapes=shapes,
                input_names=list(_INPUTS),
                output_names=[_OUTPUT],
                verbose=False,
            )
        assert program is not None, "dynamo gives a program"
        program.model.metadata_props[SAID] = _said(model, "onnx", {"onnx": onnx.__version__})
        program.save(str(path), external_data=False)
        session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except failures as error:
        raise _cannot_hold(kind, error) from error

    def run(*inputs: Tensor) -> Floats:
        try:
            feed = {name: tensor.numpy() for name, tensor in zip(_INPUTS, inputs, strict=True)}
            found: Floats = session.run(None, feed)[0]
        except failures as error:
            raise _cannot_hold(kind, error) from error
        return found

    return run


def _cannot_hold(kind: str, error: Exception) -> ConfigError:
    cause = str(error).strip().splitlines()[0]
    return ConfigError(f"ONNX cannot hold this encoder of kind {kind} ({cause}); use --format torch.export")


def _runtime_failures() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises of a model that it cannot load or run; its errors have no common class."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    names = (
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names)


class _quiet:  # noqa: N801 - reads as the statement that it is
    """A logger that reports errors only, for the time of a block."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)

    def __enter__(self) -> None:
        self._level = self._logger.level
        self._logger.setLevel(logging.ERROR)

    def __exit__(self, *error: object) -> None:
        self._logger.setLevel(self._level)


_WRITERS: dict[str, Callable[[Embedder, Path, Model], Run]] = {"torch.export": _torch_export, "onnx": _onnx}


def _said(model: Model, form: str, more_versions: dict[str, str]) -> str:
    """What a file says of itself."""
    samples = model.preprocessing.window_samples
    origin = model.config.provenance
    content = {
        "format": form,
        "model_hash": model.model_hash,
        "inputs": {
            "windows": f"(batch, 12, {samples}) float32, after the device step: band-passed, cut and scaled as in "
            "`preprocessing`; zero in missing leads and padding; leads in the order of `leads`",
            "valid_samples": "(batch,) int64: samples of each window that are signal, the rest is padding",
            "lead_mask": "(batch, 12) bool: true where a lead is present",
        },
        _OUTPUT: f"(batch, {model.dim}) float32: the embedding of each window; an ECG's is the mean over the windows "
        "that start at its first sample and as late as they fit",
        "leads": STANDARD_LEADS,
        "preprocessing": model.preprocessing.model_dump(mode="json"),
        "check": f"kept because no value differed from the model's by more than {MOST_DIFFERENCE:g} in up to 100 ECGs, "
        f"each with {'; '.join(LEAD_SUBSETS)}, and cut short",
        "versions": versions() | more_versions,
        "sources": origin.sources,
        "restrictions": restrictions(origin.sources),
        "notice": NOT_A_DEVICE,
    }
    return json.dumps(content, indent=1)
