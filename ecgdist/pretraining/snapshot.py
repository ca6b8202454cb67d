"""A copy of one rank's training state, which training no longer changes: files on the local disk, weights in memory."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from ecgdist.errors import StorageError
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.checkpoint import STUDENT, TEACHER
from ecgdist.pretraining.documents import Facts, file_facts, files_below
from ecgdist.pretraining.engine import ZeroEngine
from ecgdist.pretraining.group import Group
from ecgdist.scratch import new_scratch

_TORCH_WRITES = ("PytorchStreamWriter", "inline_container")
"""Parts of torch that a `RuntimeError` names when a file cannot be written."""


@dataclass(frozen=True)
class Snapshot:
    """One rank's part of a checkpoint.

    Attributes:
        folder: temporary, on the local disk; holds DeepSpeed's files. `remove` it.
        weights: what rank 0 adds, by file name; copies in memory, since writing them can wait.
    """

    folder: Path
    weights: dict[str, dict[str, Tensor]]

    @classmethod
    def take(cls, engine: ZeroEngine[Any], teacher: MomentumTeacher | None, group: Group) -> Snapshot:
        """Copy the state as it is now; all ranks together.

        Raises:
            StorageError: if the local disk fails.
        """
        snapshot = cls(new_scratch("snapshot"), {})
        try:
            with _local_disk(snapshot.folder):
                engine.save(snapshot.folder / "engine")
            student = engine.full_weights()
        except BaseException:
            snapshot.remove()
            raise
        if group.rank == 0:
            snapshot.weights[STUDENT] = student
            if teacher is not None:
                tensors = teacher.state_dict().items()
                snapshot.weights[TEACHER] = {
                    n: t.detach().to("cpu", copy=True).contiguous() for n, t in tensors
                }
        return snapshot

    def finish(self) -> dict[str, Facts]:
        """Write what is in memory, and note every file by its path in `folder`.

        Raises:
            StorageError: if the local disk fails.
        """
        with _local_disk(self.folder):
            for file, tensors in self.weights.items():
                save_file(tensors, self.folder / file)
            self.weights.clear()
            return {path: file_facts(self.folder / path) for path in files_below(self.folder)}

    def remove(self) -> None:
        """Free the disk."""
        shutil.rmtree(self.folder, ignore_errors=True)


@contextmanager
def _local_disk(folder: Path) -> Iterator[None]:
    """Say in one sentence that the disk failed, whichever library met it."""
    try:
        yield
    except (OSError, SafetensorError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not any(word in str(error) for word in _TORCH_WRITES):
            raise
        raise StorageError(
            f"a checkpoint cannot be written to {folder.parent} ({error}); free some space there, or set TMPDIR to a "
            "folder of a larger disk"
        ) from error
