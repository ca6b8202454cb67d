"""Checkpoints: folders in the run's storage, each with a `checkpoint.json` that is written last.

``checkpoints/step-00000120-<attempt>/`` holds ``checkpoint.json`` (state, bytes and sha256 of every
other file, and its own sha256), ``student.safetensors`` (whole fp32 weights, for publishing),
``teacher.safetensors``, and ``engine/``, DeepSpeed's own files, which restore the optimizer. A folder
without a fitting ``checkpoint.json`` is none.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor

from ecgdist.config import Config, build
from ecgdist.errors import ConfigError, DataError, StorageError
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.pretraining.engine import DeepSpeedEngine
from ecgdist.pretraining.group import Group
from ecgdist.storage import Location

CHECKPOINT = "checkpoint.json"
STUDENT = "student.safetensors"
TEACHER = "teacher.safetensors"


class TrainState(Config):
    """All that resuming needs beside weights and optimizer; draws depend on the step alone."""

    step: int
    """Optimizer steps done; the next step has this number."""
    total_steps: int
    world_size: int
    corpus_id: str
    settings: dict[str, Any]
    """`PretrainConfig.fixed_part` of the run."""

    def refuse_other_run(self, other: TrainState) -> None:
        """Refuse to go on as `other` (the run that was asked for) from this state.

        Raises:
            ConfigError: naming every difference.
        """
        mine = {"corpus_id": self.corpus_id, "total_steps": self.total_steps, **dict(_flat(self.settings))}
        wanted = {
            "corpus_id": other.corpus_id,
            "total_steps": other.total_steps,
            **dict(_flat(other.settings)),
        }
        names = sorted(n for n in mine.keys() | wanted.keys() if mine.get(n) != wanted.get(n))
        if names:
            shown = "; ".join(f"{n} was {mine.get(n)!r}, is now {wanted.get(n)!r}" for n in names)
            raise ConfigError(
                f"this run cannot be resumed with other settings: {shown}. "
                "Put them back, or use another --out"
            )


@dataclass(frozen=True)
class Restored:
    """A whole checkpoint, downloaded and checked."""

    name: str
    state: TrainState
    folder: Path

    @property
    def engine_folder(self) -> Path:
        """DeepSpeed's files."""
        return self.folder / "engine"


class CheckpointStore:
    """The checkpoints of a run."""

    def __init__(self, run: Location) -> None:
        self._root = run / "checkpoints"

    def save(
        self,
        engine: DeepSpeedEngine,
        teacher: MomentumTeacher | None,
        state: TrainState,
        group: Group,
        keep_last: int,
    ) -> str:
        """Save a checkpoint; all ranks call this together. Returns its name."""
        name = group.from_first(f"step-{state.step:08d}-{uuid.uuid4().hex[:8]}")
        folder = self._root / name
        with tempfile.TemporaryDirectory(prefix="ecgdist-checkpoint-") as temporary:
            local = Path(temporary)
            engine.save(local / "engine")
            weights = engine.full_weights()
            if group.rank == 0:
                save_file(weights, local / STUDENT)
                if teacher is not None:
                    save_file(_named(teacher.state_dict()), local / TEACHER)
            # Hashes are taken before the upload, so that they also cover what the network does to a file.
            facts = {path: _facts(local / path) for path in _files(local)}
            with ThreadPoolExecutor(4) as pool:
                list(pool.map(lambda path: (folder / path).upload(local / path), facts))
        everyone = group.gather_objects(facts)
        if group.rank == 0:
            files = {path: fact for part in everyone for path, fact in part.items()}
            content: dict[str, Any] = {
                "state": state.model_dump(mode="json"),
                "files": dict(sorted(files.items())),
            }
            content["sha256"] = _digest(content)
            (folder / CHECKPOINT).write_bytes(json.dumps(content, indent=1).encode())
            self._prune(name, keep_last)
        group.wait()
        return str(name)

    def restore(self, local: Path, group: Group) -> tuple[Restored | None, list[str]]:
        """Download the newest whole checkpoint into `local`, on every rank. Rank 0 decides which one that is.

        Returns:
            The checkpoint, or None if there is none, and a sentence for every damaged one passed over.

        Raises:
            DataError: if there are checkpoints, and all of them are damaged.
            StorageError: if storage cannot be read.
        """
        restored: Restored | None = None
        warnings: list[str] = []
        if group.rank == 0:
            restored, warnings = self._newest(local)
        name, warnings = group.from_first((restored.name if restored else None, warnings))
        if name is not None and restored is None:
            restored = self.fetch(name, local)
        return restored, warnings

    def names(self) -> list[str]:
        """Checkpoints that have a `checkpoint.json`, oldest first."""
        found = {
            path.split("/")[0]
            for path in self._root.list_files()
            if path.count("/") == 1 and path.endswith(CHECKPOINT)
        }
        return sorted(found)

    def fetch(self, name: str, local: Path, only: tuple[str, ...] | None = None) -> Restored:
        """Download a checkpoint, or some of its files, and check every byte.

        Raises:
            DataError: naming the file that is missing or differs.
        """
        folder = self._root / name
        content = _read_json(folder / CHECKPOINT)
        if content.pop("sha256", None) != _digest(content):
            raise DataError(f"checkpoint {name}: {CHECKPOINT} is damaged (it differs from its own sha256)")
        try:
            state, files = build(TrainState, content["state"]), dict(content["files"])
        except (KeyError, TypeError, ConfigError) as error:
            raise DataError(f"checkpoint {name}: {CHECKPOINT} is damaged ({error})") from error
        for path, facts in files.items():
            if only is not None and path not in only:
                continue
            target = local / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                (folder / path).download(target)
            except StorageError as error:
                if (folder / path).is_file():  # storage that fails says nothing about the checkpoint
                    raise
                raise DataError(f"checkpoint {name}: file {path} is missing ({error})") from error
            if _facts(target) != facts:
                raise DataError(f"checkpoint {name}: file {path} differs from its sha256 in {CHECKPOINT}")
        return Restored(name, state, local / name)

    def _newest(self, local: Path) -> tuple[Restored | None, list[str]]:
        warnings: list[str] = []
        for name in reversed(self.names()):
            try:
                return self.fetch(name, local), warnings
            except DataError as error:
                warnings.append(f"{error}; the checkpoint before it is taken")
        if warnings:
            raise DataError(
                f"no checkpoint of this run is whole: {'; '.join(warnings)}. Start again with another --out"
            )
        return None, warnings

    def _prune(self, newest: str, keep_last: int) -> None:
        """Keep `newest` and whole ones of earlier steps; later ones were damaged, others interrupted."""
        earlier = [name for name in self.names() if _step_part(name) < _step_part(newest)]
        keep = {newest, *earlier[max(0, len(earlier) - keep_last + 1) :]}
        for name in sorted({path.split("/")[0] for path in self._root.list_files()} - keep):
            # First the list of files: a kill in between then leaves nothing that looks whole.
            (self._root / name / CHECKPOINT).delete()
            (self._root / name).delete()


def load_teacher(teacher: MomentumTeacher, restored: Restored) -> None:
    """Give the teacher the exact weights and buffers it was saved with."""
    teacher.load_state_dict(load_file(restored.folder / TEACHER), strict=True)


def _step_part(name: str) -> str:
    """``step-00000120`` of ``step-00000120-<attempt>``."""
    return name.rsplit("-", 1)[0]


def _named(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _files(folder: Path) -> list[str]:
    return sorted(os.fspath(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def _facts(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _read_json(where: Location) -> dict[str, Any]:
    try:
        content = json.loads(where.read_bytes())
    except ValueError as error:
        raise DataError(f"{where} is damaged ({error})") from error
    if not isinstance(content, dict):
        raise DataError(f"{where} is damaged (not a JSON object)")
    return content


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
