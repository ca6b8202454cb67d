"""DeepSpeed's files are pickles, which may hold code that runs when they are loaded: here they are looked through."""

from __future__ import annotations

import zipfile
from pathlib import Path

import torch
from deepspeed.runtime.fp16.loss_scaler import LossScaler
from deepspeed.runtime.zero.config import ZeroStageEnum
from deepspeed.utils.tensor_fragment import fragment_address

from ecgdist.errors import DataError

_OF_DEEPSPEED = [LossScaler, ZeroStageEnum, fragment_address]
"""Plain values of DeepSpeed; with these, torch's restricted unpickler reads all that DeepSpeed writes for us."""


def refuse_code(folder: Path) -> None:
    """Refuse files below `folder` that hold anything but tensors and plain values.

    DeepSpeed itself loads with the full unpickler. One that the restricted unpickler has read to its end names no
    function that the full one could call.

    Raises:
        DataError: naming the file.
    """
    for path in sorted(folder.rglob("*.pt")):
        try:
            with torch.serialization.safe_globals(_OF_DEEPSPEED):
                torch.load(path, map_location="cpu", mmap=zipfile.is_zipfile(path), weights_only=True)
        except Exception as error:  # a broken pickle fails in whatever way the parser stumbles over it
            raise DataError(
                f"{path.name} of a checkpoint holds something else than tensors and numbers, which could run as code "
                "when it is loaded, so it was not; ecgdist did not write it. Do not resume this run before you know "
                "who changed it"
            ) from error
