"""What a private packing hides: ids that may be file names, errors that may quote files, and extreme ages.

In every packing, private or not, labels and splits are short codes: nothing that a person wrote passes as one.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date

from ecgdist.corpus.patients import KEY_FILE_VARIABLE, KEY_VARIABLE, PatientHasher
from ecgdist.errors import (
    ConfigError,
    DataError,
    EcgdistError,
    OutsideLinkError,
    RecordRefused,
    StorageError,
)
from ecgdist.record import Recording

_LABEL = re.compile(r"[a-z0-9]+:[A-Za-z0-9+_.()/-]{1,40}")
_SCP_LABEL = re.compile(r"scp:[0-9A-Z_()/]{1,8}")
_SNOMED_LABEL = re.compile(r"snomed:[0-9]{1,18}")
_SPLIT = re.compile(r"[a-z0-9][a-z0-9_.-]{0,23}")
_FLAG = re.compile(r"[a-z0-9][a-z0-9_]{0,39}")

_EPOCH_DAY = date(2000, 1, 1).toordinal()
_CENTURY_DAYS = 36_525

_AGE_OVER_89_AS = 90.0
"""Ages above 89 identify: the HIPAA Privacy Rule, 45 CFR 164.514(b)(2)(i)(C), puts them in one class, 90 or older."""


def is_private(wanted: bool | None, hasher: PatientHasher) -> bool:
    """Whether a packing is private: as wanted, else if it hashes with a key of one's own.

    Raises:
        ConfigError: if it is wanted with the public key, with which everybody can try ids.
    """
    if wanted and hasher.is_public:
        raise ConfigError(
            f"private = true needs a key of your own: set {KEY_VARIABLE} or {KEY_FILE_VARIABLE}"
        )
    return not hasher.is_public if wanted is None else wanted


def keyed_record_id(hasher: PatientHasher, dataset: str, record_id: str) -> str:
    """What stands for a record's id in a private corpus: 32 hexadecimal digits, the same in every folder."""
    return hmac.new(
        hasher.key, f"id:{dataset}:{record_id}".encode(errors="surrogatepass"), hashlib.sha256
    ).hexdigest()[:32]


def refuse_free_text(recording: Recording) -> None:
    """Refuse a recording whose labels, split or flags are not short codes.

    Raises:
        RecordRefused: ``bad_label``, ``bad_split`` or ``bad_flag``.
    """
    for label in recording.labels:
        if not all(form.fullmatch(label) for form in _forms(label)):
            raise RecordRefused("bad_label", f"{label!r} is not a code with a prefix, such as scp:NORM")
    if recording.split is not None and not _SPLIT.fullmatch(recording.split):
        raise RecordRefused("bad_split", f"{recording.split!r} is not a short name, such as fold3")
    for flag in recording.flags:
        if not _FLAG.fullmatch(flag):
            raise RecordRefused("bad_flag", f"{flag!r} is not a short name, such as tail_dropped")


def _forms(label: str) -> list[re.Pattern[str]]:
    vocabularies = {"scp:": _SCP_LABEL, "snomed:": _SNOMED_LABEL}
    return [_LABEL, *(form for prefix, form in vocabularies.items() if label.startswith(prefix))]


def capped_age(age: float | None) -> float | None:
    """An age as a private corpus holds it."""
    return _AGE_OVER_89_AS if age is not None and age > 89 else age


def relative_day(hasher: PatientHasher, owner: str, recording: Recording) -> int | None:
    """The day of a recording, counted from one that the patient key hides within a century, another for each patient.

    Days between the ECGs of one patient stay; nothing else of a date can be told without the key.
    """
    if recording.day is None or recording.patient_id is None:
        return None
    name = f"day:{owner}:{recording.patient_id}".encode(errors="surrogatepass")
    shift = int.from_bytes(hmac.new(hasher.key, name, hashlib.sha256).digest()[:8])
    return recording.day - _EPOCH_DAY + shift % _CENTURY_DAYS


@contextmanager
def hiding_names(
    private: bool, doing: Callable[[], str], let_through: tuple[type[Exception], ...] = (ConfigError,)
) -> Iterator[None]:
    """In a private packing, turn an error that may quote a file or its name into one that does not.

    What is left says what was done (`doing`), and the kind of failure. Errors of the kinds `let_through` stay as they
    are: the settings' own, or refusals, whose detail is hidden where it would be shown.
    """
    if not private:
        yield
        return
    try:
        yield
    except let_through:
        raise
    except EcgdistError as error:
        kind = StorageError if isinstance(error, StorageError) else DataError
        raise kind(f"{doing()}: {_cause(error)}; {_HINT}") from None
    except Exception as error:  # noqa: BLE001 - the message of a defect may quote what was read
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(place.filename)}, line {place.lineno}"
        raise DataError(f"{doing()}: {type(error).__name__} in {where}; this is a defect; {_HINT}") from None


_HINT = "the full message is hidden because this packing is private (private = false shows it)"


def _cause(error: EcgdistError) -> str:
    """The kind of failure, in words that no file has chosen."""
    if isinstance(error, OutsideLinkError):
        return "a link leads out of the source's folder; follow_links=true reads through it"
    cause = error.__cause__
    if isinstance(cause, OSError) and cause.errno:
        return os.strerror(cause.errno)
    kind = "storage fails" if isinstance(error, StorageError) else "it is not as its layout says"
    return kind if cause is None else f"{kind} ({type(cause).__name__})"
