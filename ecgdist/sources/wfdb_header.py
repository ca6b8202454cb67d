"""WFDB header text: what we take from it ourselves, and the mended form that the `wfdb` package is given.

The package refuses headers that other WFDB readers accept: a record name with an extension (``E00015.mat``),
a date such as ``05-May-2020``, a file name with two dots; and it drops the µ of ``µV``, which makes it volt.
None of these is a defect of the ECG, so they are mended in the text. The grammar is that of the WFDB manual,
header(5).
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from ecgdist.errors import RecordRefused
from ecgdist.record import Sex

# name[/segments] leads [rate[/counter] [samples]] ...; the time and date that may follow are not used.
_RECORD_LINE = re.compile(
    r"(?P<name>[^\s/]+)(?P<segments>/\d+)?\s+(?P<leads>\d+)"
    r"(?:\s+(?P<rate>\d+\.?\d*)(?:/\S*)?(?:\s+(?P<samples>\d+))?)?(?:\s.*)?"
)
# file format[xsamples_per_frame][:skew][+byte_offset] ...
_SIGNAL_LINE = re.compile(r"(\S+)\s+(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?(?:\s+(.*))?")

# The abbreviations of the China Physiological Signal Challenge 2018 (Liu et al. 2018, table 2).
_CPSC_LABELS = frozenset({"Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"})

_SEX: dict[str, Sex] = {"male": "male", "m": "male", "female": "female", "f": "female"}


@dataclass(frozen=True)
class SignalLine:
    """Where one lead's samples are: file, WFDB format, samples per frame, skew in frames, byte offset."""

    file: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int


@dataclass(frozen=True)
class Header:
    """A header as read.

    Attributes:
        text: mended ASCII text, in which the signal files are called by their `aliases`.
        num_samples: samples per lead in frames, or None if the header leaves it to the length of the file.
        signals: one entry per lead.
    """

    text: str
    num_samples: int | None
    signals: tuple[SignalLine, ...]

    @property
    def aliases(self) -> dict[str, str]:
        """Published name of every signal file -> its name in `text`."""
        return _aliases(self.signals)


def parse_header(raw: bytes) -> Header:
    """Read and mend a header file.

    Raises:
        RecordRefused: ``unreadable_header`` if it is not one, ``multi_segment`` if it joins several records.
    """
    lines = [line.strip() for line in _decode(raw).splitlines()]
    comments = [line for line in lines if line.startswith("#")]
    content = [line for line in lines if line and not line.startswith("#")]
    if not content:
        raise _unreadable("the header is empty")
    match = _RECORD_LINE.fullmatch(content[0])
    if match is None:
        raise _unreadable(f"record line {content[0]!r} is not `name leads rate samples`")
    if match["segments"]:
        raise RecordRefused("multi_segment", f"{match['name']} joins records that have headers of their own")
    if int(match["leads"]) != len(content) - 1 or len(content) == 1:
        raise _unreadable(f"the header announces {match['leads']} leads and describes {len(content) - 1}")
    signals, rests = zip(*(_signal_line(line) for line in content[1:]), strict=True)
    aliases = _aliases(signals)
    mended = [" ".join(filter(None, ("record", match["leads"], match["rate"], match["samples"])))]
    mended += [f"{aliases[s.file]} {_format_field(s)} {rest}" for s, rest in zip(signals, rests, strict=True)]
    text = "\n".join([*mended, *comments, ""]).encode("ascii", "replace").decode("ascii")
    return Header(text, int(match["samples"] or 0) or None, signals)


def named_files(raw: bytes) -> set[str]:
    """Names of the files that the lines of a header may point to, whether or not it is a valid header."""
    lines = (line.split() for line in _decode(raw).splitlines())
    return {words[0] for words in lines if words and not words[0].startswith("#")}


def parse_age(text: str | None) -> float | None:
    """Years from ``"56"``; None for nothing, ``"NaN"``, a negative number or words."""
    try:
        age = float(text or "")
    except ValueError:
        return None
    return age if math.isfinite(age) and age >= 0 else None


def parse_sex(text: str | None) -> Sex | None:
    """``"Female"``, ``"f"``, ``"MALE"`` ... or None."""
    return _SEX.get((text or "").strip().lower())


def parse_labels(text: str | None) -> tuple[str, ...]:
    """Codes of a ``Dx`` comment: ``"59118001,AF"`` -> ``("cpsc:AF", "snomed:59118001")``.

    Words that are neither a SNOMED CT code nor a CPSC abbreviation are free text, which is never a label.
    """
    codes = [code.strip() for code in (text or "").split(",")]
    snomed = {f"snomed:{code}" for code in codes if code.isascii() and code.isdigit()}
    return tuple(sorted(snomed | {f"cpsc:{code}" for code in codes if code in _CPSC_LABELS}))


def comment_fields(comments: Sequence[str]) -> dict[str, str]:
    """``["Age: 56", "Dx: AF"]`` -> ``{"age": "56", "dx": "AF"}``; of a repeated key the first is kept."""
    fields: dict[str, str] = {}
    for comment in comments:
        key, colon, value = comment.partition(":")
        if colon:
            fields.setdefault(key.strip().lower(), value.strip())
    return fields


def _unreadable(detail: str) -> RecordRefused:
    return RecordRefused("unreadable_header", detail)


def _decode(raw: bytes) -> str:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("µ", "u").replace("μ", "u")


def _signal_line(line: str) -> tuple[SignalLine, str]:
    match = _SIGNAL_LINE.fullmatch(line)
    if match is None:
        raise _unreadable(f"signal line {line!r} is not `file format gain/unit ...`")
    file, wfdb_format, per_frame, skew, offset, rest = match.groups()
    return SignalLine(file, wfdb_format, int(per_frame or 1), int(skew or 0), int(offset or 0)), rest or ""


def _format_field(signal: SignalLine) -> str:
    return f"{signal.format}x{signal.samples_per_frame}:{signal.skew}+{signal.byte_offset}"


def _aliases(signals: Sequence[SignalLine]) -> dict[str, str]:
    names = dict.fromkeys(signal.file for signal in signals)
    return {name: f"signal{index}" for index, name in enumerate(names)}
