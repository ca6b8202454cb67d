"""Notes of shards: which shards are finished, and what became of their records.

A shard is finished once its file has its name: its worker gives it as the last act, after it has written the index
rows, the refusals and the note, and files get their names whole. So nobody can see a finished shard without its
note, however suddenly a worker ends, and no finished shard is ever built a second time. A shard of which every record
was refused has no file, and is finished with its note.
"""

from __future__ import annotations

from pydantic import ValidationError

from ecgdist.config import Config
from ecgdist.corpus.manifest import ShardFacts
from ecgdist.errors import DataError, MissingFileError
from ecgdist.storage import Location

PARTS = "parts"
"""Folder of what is only needed until the corpus is whole: the index rows and the note of every shard."""


class ShardNote(Config):
    """What became of the records of a shard."""

    shard: int
    packed: dict[str, int]
    """Packed records by source; a long record has several rows."""
    refused: dict[str, dict[str, int]]
    """Refused records by source and reason. Details are not kept: they may quote the file, and no free text
    enters a corpus."""
    examples: dict[str, int]
    """Refused recordings kept by reason."""
    facts: ShardFacts | None
    """Of the shard's file; None if every record was refused, since then there is none."""

    @property
    def num_refused(self) -> int:
        """Refused records of the shard."""
        return sum(sum(by_reason.values()) for by_reason in self.refused.values())

    @property
    def files(self) -> set[str]:
        """Paths of the files that belong to the note, relative to the corpus."""
        packed = {shard_path(self.shard), part_name(self.shard)} if self.facts else set()
        refused = {refused_name(self.shard)} if self.refused else set()
        return packed | refused | ({examples_name(self.shard)} if self.examples else set())


def shard_name(number: int) -> str:
    """File name of a shard."""
    return f"{number:05d}.parquet"


def shard_path(number: int) -> str:
    """Path of a shard, relative to the corpus."""
    return f"shards/{shard_name(number)}"


def part_name(number: int) -> str:
    """Path of a shard's index rows, relative to the corpus."""
    return f"{PARTS}/{number:05d}.parquet"


def refused_name(number: int) -> str:
    """Path of a shard's refused records, relative to the corpus; only there if it has some."""
    return f"{PARTS}/{number:05d}.refused.parquet"


def examples_name(number: int) -> str:
    """Path of a shard's examples of refused recordings, relative to the corpus; only there if it has some."""
    return f"{PARTS}/{number:05d}.examples.parquet"


def note_name(number: int) -> str:
    """Path of a shard's note, relative to the corpus."""
    return f"{PARTS}/{number:05d}.json"


def write_note(out: Location, note: ShardNote) -> None:
    """Write a note, after the files that it tells of but for the shard's own."""
    (out / note_name(note.shard)).write_bytes(note.model_dump_json().encode())


def finished_note(out: Location, number: int) -> ShardNote | None:
    """The note of a shard that is finished and whose files are all there, or None.

    Raises:
        DataError: if the note is none that this version writes.
        StorageError: if storage cannot be read.
    """
    place = out / note_name(number)
    try:
        note = ShardNote.model_validate_json(place.read_bytes())
    except MissingFileError:
        return None
    except ValidationError as error:
        raise _damaged(place) from error
    if note.shard != number:
        raise _damaged(place)
    return note if all((out / name).is_file() for name in note.files) else None


def _damaged(note: Location) -> DataError:
    return DataError(
        f"{note} is not the note of a shard that this version of ecgdist writes: it was damaged or written by another; "
        "remove that file, and the same command builds its shard again"
    )
