"""Errors whose message is written for the person at the keyboard.

The command line prints an `EcgdistError` as one sentence and exits with a non-zero status; anything else
is a defect of ours and keeps its traceback.
"""


class EcgdistError(Exception):
    """Base class: what happened, which value, what to do next."""


class ConfigError(EcgdistError):
    """A configuration key or value that cannot be used."""


class DataError(EcgdistError):
    """A corpus, source folder or model folder that is not what it should be."""


class StorageError(EcgdistError):
    """A path or bucket that cannot be read or written.

    Attributes:
        uri: the path or address that the message names, or None.
        may_pass: whether trying again later may help: storage was away or busy, it did not refuse.
    """

    def __init__(self, message: str, uri: str | None = None, may_pass: bool = False) -> None:
        super().__init__(message)
        self.uri = uri
        self.may_pass = may_pass


class MissingFileError(StorageError):
    """A file that is not there, in a folder or bucket that answers."""


class TrainingError(EcgdistError):
    """A run that had to stop; names the step, the rank and the records."""


class RunStopped(EcgdistError):  # noqa: N818 - it is what somebody asked for
    """A run that saved and left before its end because it was asked to; the same command goes on from there."""

    exit_status = 75
    """Of the command: EX_TEMPFAIL of ``sysexits.h``, "try again later"."""


class RecordRefused(DataError):  # noqa: N818 - it is an outcome that packing counts, not a failure
    """One recording cannot enter a corpus.

    Attributes:
        reason: short slug that refusals are counted by, e.g. ``"nan"``, ``"unknown_lead"``.
        detail: one sentence for the person who will look at the file.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}"


class OutsideLinkError(RecordRefused):
    """A file or folder of a source that a symbolic link puts outside of the source's folder; it was not read."""
