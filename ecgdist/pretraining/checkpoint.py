"""Checkpoints: folders in the run's storage, each with a `checkpoint.json` that is written last.

``checkpoints/step-00000120-<attempt>/`` holds ``checkpoint.json`` (state, value of the metric, bytes and sha256 of
every other file, and its own sha256), ``student.safetensors`` (whole fp32 weights, for publishing),
``teacher.safetensors``, ``engine/``, DeepSpeed's own files, which restore the optimizer, and ``notes/``, what each
rank says that it uploaded. A folder without a fitting ``checkpoint.json`` is none. `writer` writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import load_file

from ecgdist.config import Config, build
from ecgdist.errors import ConfigError, DataError, MissingFileError
from ecgdist.objectives.teacher import MomentumTeacher
from ecgdist.patience import log_waiting, patiently
from ecgdist.pretraining.config import KeepBest
from ecgdist.pretraining.documents import Facts, document, file_facts, parse
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


class Score(Config):
    """What a checkpoint is judged by."""

    metric: str
    mode: Literal["min", "max"]
    value: float
    """Mean over the steps since the checkpoint before."""

    @property
    def badness(self) -> float:
        """Lower is better."""
        return self.value if self.mode == "min" else -self.value


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

    def folder(self, name: str) -> Location:
        """Where a checkpoint is."""
        return self._root / name

    def names(self) -> list[str]:
        """Checkpoints that have a `checkpoint.json`, oldest first."""
        return sorted(name for name, files in self._listed().items() if CHECKPOINT in files)

    def restore(
        self, local: Path, group: Group, tell: Callable[[BaseException | None], Any] = log_waiting
    ) -> tuple[Restored | None, list[str]]:
        """Download the newest whole checkpoint into `local`, on every rank. Rank 0 decides which one that is.

        Args:
            tell: told every failure of storage that is waited for.

        Returns:
            The checkpoint, or None if there is none, and a sentence for every damaged or unfinished one passed over.

        Raises:
            DataError: if there are checkpoints, and all of them are damaged.
            StorageError: if storage cannot be read, for minutes if it is away.
        """
        restored: Restored | None = None
        warnings: list[str] = []
        if group.rank == 0:
            restored, warnings = patiently(partial(self._newest, local), tell=tell)
        name, warnings = group.from_first((restored.name if restored else None, warnings))
        if name is not None and restored is None:
            restored = patiently(partial(self.fetch, name, local), tell=tell)
        return restored, warnings

    def fetch(self, name: str, local: Path, only: tuple[str, ...] | None = None) -> Restored:
        """Download a checkpoint, or some of its files, and check every byte.

        Raises:
            DataError: naming the file that is missing or differs.
        """
        folder = self._root / name
        try:
            content = parse(folder / CHECKPOINT)
            state, files = build(TrainState, content["state"]), dict(content["files"])
        except (DataError, KeyError, TypeError, ConfigError) as error:
            raise DataError(f"checkpoint {name}: {CHECKPOINT} is damaged ({error})") from error
        for path, facts in files.items():
            if only is not None and path not in only:
                continue
            if path.startswith("/") or ".." in path.split("/"):
                raise DataError(
                    f"checkpoint {name}: {CHECKPOINT} names {path!r}, which is outside of its folder"
                )
            target = local / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                (folder / path).download(target)
            except (
                MissingFileError
            ) as error:  # any other failure of storage says nothing about the checkpoint
                raise DataError(f"checkpoint {name}: file {path} is missing ({error})") from error
            if file_facts(target) != facts:
                raise DataError(f"checkpoint {name}: file {path} differs from its sha256 in {CHECKPOINT}")
        return Restored(name, state, local / name)

    def best(self, measure: KeepBest | None = None) -> str | None:
        """The checkpoint with the best value; None if none has one.

        Args:
            measure: None takes what the newest one was measured by.
        """
        return self._best(self.names(), measure)

    def commit(self, name: str, state: TrainState, score: Score | None, files: Mapping[str, Facts]) -> None:
        """Write the `checkpoint.json` of a folder whose files are all there: from now on it is whole."""
        content = {
            "state": state.model_dump(mode="json"),
            "score": None if score is None else score.model_dump(mode="json"),
            "files": dict(sorted(files.items())),
        }
        (self._root / name / CHECKPOINT).write_bytes(document(content))

    def prune(self, newest: str, keep_last: int, measure: KeepBest | None) -> None:
        """Keep `newest`, whole ones of earlier steps and the best; later ones were damaged, others interrupted."""
        listed = self._listed()
        whole = sorted(name for name, files in listed.items() if CHECKPOINT in files)
        earlier = [name for name in whole if _step_part(name) < _step_part(newest)]
        keep = {newest, *earlier[max(0, len(earlier) - keep_last + 1) :]}
        if measure is not None:
            keep |= {self._best([*earlier, newest], measure) or newest}
        for name in sorted(listed.keys() - keep):
            # First the list of files: a kill in between then leaves nothing that looks whole.
            (self._root / name / CHECKPOINT).delete()
            (self._root / name).delete()

    def collect_unfinished(self) -> None:
        """Remove what interrupted uploads left; only for who alone writes to the run."""
        for name, files in self._listed().items():
            if CHECKPOINT not in files:
                (self._root / name).delete()

    def _newest(self, local: Path) -> tuple[Restored | None, list[str]]:
        warnings: list[str] = []
        damaged = False
        for name, files in sorted(self._listed().items(), reverse=True):
            if CHECKPOINT not in files:
                warnings.append(
                    f"checkpoint {name} has no {CHECKPOINT}: its upload was interrupted; it is passed over"
                )
                continue
            try:
                return self.fetch(name, local), warnings
            except DataError as error:
                damaged = True
                warnings.append(f"{error}; the checkpoint before it is taken")
        if damaged:
            raise DataError(
                f"no checkpoint of this run is whole: {'; '.join(warnings)}. Start again with another --out"
            )
        return None, warnings

    def _best(self, names: list[str], measure: KeepBest | None) -> str | None:
        scores = {name: score for name in names if (score := self._score(name)) is not None}
        if not scores:
            return None
        newest = scores[max(scores)]
        by = (newest.metric, newest.mode) if measure is None else (measure.metric, measure.mode)
        fitting = [name for name, score in scores.items() if (score.metric, score.mode) == by]
        return min(fitting, key=lambda name: scores[name].badness, default=None)

    def _score(self, name: str) -> Score | None:
        try:
            content = parse(self._root / name / CHECKPOINT).get("score")
            return None if content is None else build(Score, content)
        except (DataError, ConfigError, TypeError, MissingFileError):
            return None  # a damaged checkpoint is not the best one

    def _listed(self) -> dict[str, set[str]]:
        """Files of every checkpoint by its name, finished or not."""
        found: dict[str, set[str]] = {}
        for path in self._root.list_files():
            name, slash, file = path.partition("/")
            if slash:
                found.setdefault(name, set()).add(file)
        return found


def load_teacher(teacher: MomentumTeacher, restored: Restored) -> None:
    """Give the teacher the exact weights and buffers it was saved with."""
    teacher.load_state_dict(load_file(restored.folder / TEACHER), strict=True)


def step_of(name: str) -> int:
    """Steps done at a checkpoint, by its name."""
    return int(_step_part(name).removeprefix("step-"))


def _step_part(name: str) -> str:
    """``step-00000120`` of ``step-00000120-<attempt>``."""
    return name[: len("step-") + 8]


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
