"""WFDB headers: every field that reading needs, and the mended text that the `wfdb` package is given.

The package refuses headers that other WFDB readers accept: a record name with an extension (``E00015.mat``),
a date such as ``05-May-2020``, a file name with two dots; and it drops the µ of ``µV``, which makes it volt.
None of these is a defect of the ECG. The grammar is that of the WFDB manual, header(5). A header is data from
outside: its size and every number in it have a limit, and it can name no file but those beside it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from ecgdist.errors import RecordRefused
from ecgdist.record import MOST_YEARS, Sex

MAX_HEADER_BYTES = 2**20
"""A header of a twelve-lead ECG has less than a thousandth of this."""

MAX_RATE_HZ = 100_000.0
"""No recorder of surface ECGs comes near; a larger number is in another unit, or is no rate."""

_DEFAULT_RATE_HZ = 250.0
_DEFAULT_GAIN = 200.0
_DEFAULT_UNIT = "mV"
_MOST_DIGITS = 18

# name[/segments] leads [rate[/counter] [samples]] [time and date, which are not used]
_RECORD_LINE = re.compile(
    r"(?P<name>[^\s/]+)(?P<segments>/\d+)?\s+(?P<leads>\d+)"
    r"(?:\s+(?P<rate>\d++(?:\.\d*+)?)(?:/\S*)?(?:\s+(?P<samples>\d+))?)?(?:\s+(?P<rest>\S.*))?"
)
# file format[xsamples_per_frame][:skew][+byte_offset] ...
_SIGNAL_LINE = re.compile(r"(\S+)\s+(\d+)(?:x(\d+))?(?::(\d+))?(?:\+(\d+))?(?:\s+(.*))?")
# gain[(baseline)][/unit] [resolution [zero [initial value [checksum [block size [name]]]]]]
_CALIBRATION = re.compile(
    r"(?P<gain>[^\s(/]*)(?:\((?P<baseline>[-+]?\d+)\))?(?:/(?P<unit>\S+))?(?:\s+\d+)?(?:\s+(?P<zero>[-+]?\d+))?"
    r"(?:\s+[-+]?\d+)?(?:\s+(?P<checksum>[-+]?\d+))?(?:\s+\d+)?(?:\s+(?P<name>\S.*))?"
)
_TIME = re.compile(r"\d*:[\d:.]*(\s.*)?")

# The abbreviations of the China Physiological Signal Challenge 2018 (Liu et al. 2018, table 2).
_CPSC_LABELS = frozenset({"Normal", "AF", "I-AVB", "LBBB", "RBBB", "PAC", "PVC", "STD", "STE"})

# Not str.splitlines: a comment may hold U+2028, or a Windows ellipsis, which is 0x85.
_LINE_END = re.compile(r"\r\n|\r|\n")

_SEX: dict[str, Sex] = {"male": "male", "m": "male", "female": "female", "f": "female"}


@dataclass(frozen=True)
class SignalLine:
    """One lead: where its samples are, and what they mean.

    Attributes:
        file: name of the signal file.
        format: WFDB format.
        samples_per_frame: samples of this lead in one frame.
        skew: frames by which its samples come too late in the file.
        byte_offset: bytes of the file before the first frame.
        gain: digital units per `unit`; finite and positive.
        baseline: digital value of 0 `unit`.
        unit: as published.
        checksum: 16-bit sum of the samples, or None.
        name: as published; empty if it has none.
        calibration: the text from the gain on.
    """

    file: str
    format: str
    samples_per_frame: int
    skew: int
    byte_offset: int
    gain: float
    baseline: int
    unit: str
    checksum: int | None
    name: str
    calibration: str


@dataclass(frozen=True)
class Header:
    """A header as read.

    Attributes:
        frame_rate_hz: frames per second; a lead may have several samples in a frame.
        num_samples: samples per lead in frames, or None if the header leaves it to the length of the file.
        signals: one entry per lead.
        comments: comment lines without their ``#``.
    """

    frame_rate_hz: float
    num_samples: int | None
    signals: tuple[SignalLine, ...]
    comments: tuple[str, ...]

    @cached_property
    def files(self) -> dict[str, list[int]]:
        """Name of every signal file -> numbers of the leads in it, in their order there."""
        rows: dict[str, list[int]] = {}
        for row, signal in enumerate(self.signals):
            rows.setdefault(signal.file, []).append(row)
        return rows

    @property
    def aliases(self) -> dict[str, str]:
        """Published name of every signal file -> its name in `text`."""
        return {name: f"signal{index}" for index, name in enumerate(self.files)}

    @property
    def text(self) -> str:
        """The header for the `wfdb` package: mended ASCII text, in which signal files go by their `aliases`."""
        aliases = self.aliases
        lines = [f"record {len(self.signals)} {self.frame_rate_hz:.12g} {self.num_samples or ''}".rstrip()]
        lines += [f"{aliases[each.file]} {_format_field(each)} {each.calibration}" for each in self.signals]
        return "\n".join([*lines, ""]).encode("ascii", "replace").decode("ascii")


def parse_header(raw: bytes) -> Header:
    """Read a header file.

    Raises:
        RecordRefused: ``unreadable_header`` if it is not one, ``multi_segment`` if it joins several records,
            ``bad_gain`` or ``bad_rate`` for a gain or a rate that no recorder has.
    """
    if len(raw) > MAX_HEADER_BYTES:
        raise _unreadable(f"the header has more than {MAX_HEADER_BYTES} bytes")
    if b"\0" in raw:
        raise _unreadable("the header holds NUL bytes, so it is not text")
    lines = [line.strip() for line in _LINE_END.split(_decode(raw))]
    comments = tuple(line.strip(" \t#") for line in lines if line.startswith("#"))
    content = [line for line in lines if line and not line.startswith("#")]
    if not content:
        raise _unreadable("the header is empty")
    match = _RECORD_LINE.fullmatch(content[0])
    if match is None or not (match["samples"] or match["rest"] is None or _TIME.fullmatch(match["rest"])):
        raise _unreadable(f"record line {_quoted(content[0])} is not `name leads rate samples`")
    if match["segments"]:
        raise RecordRefused(
            "multi_segment", f"{match['name'][:80]} joins records that have headers of their own"
        )
    if _whole(match["leads"]) != len(content) - 1 or len(content) == 1:
        raise _unreadable(
            f"the header announces {_whole(match['leads'])} leads and describes {len(content) - 1}"
        )
    signals = tuple(_signal_line(line) for line in content[1:])
    return Header(_rate(match["rate"]), _whole(match["samples"] or "0") or None, signals, comments)


def named_files(raw: bytes) -> set[str]:
    """Names of the files that the lines of a header may point to, whether or not it is a valid header."""
    lines = (line.split() for line in _LINE_END.split(_decode(raw[:MAX_HEADER_BYTES])))
    return {words[0] for words in lines if words and not words[0].startswith("#")}


def parse_age(text: str | None) -> float | None:
    """Years from ``"56"``; None for nothing, ``"NaN"``, a negative number or words."""
    try:
        age = float(text or "")
    except ValueError:
        return None
    return age if 0 <= age <= MOST_YEARS else None


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


def _signal_line(line: str) -> SignalLine:
    match = _SIGNAL_LINE.fullmatch(line)
    if match is None:
        raise _unreadable(f"signal line {_quoted(line)} is not `file format gain/unit ...`")
    file, wfdb_format, per_frame, skew, offset, rest = match.groups()
    calibration = (rest or "").strip()
    fields = _CALIBRATION.fullmatch(calibration)
    if fields is None:
        raise _unreadable(f"{_quoted(calibration)} is not `gain(baseline)/unit ...`")
    return SignalLine(
        file=file,
        format=wfdb_format,
        samples_per_frame=_whole(per_frame or "1") or 1,
        skew=_whole(skew or "0"),
        byte_offset=_whole(offset or "0"),
        gain=_gain(fields["gain"]),
        # Without a baseline, the value at the middle of the converter's range stands for 0.
        baseline=_whole(fields["baseline"] or fields["zero"] or "0"),
        unit=fields["unit"] or _DEFAULT_UNIT,
        checksum=_whole(fields["checksum"]) if fields["checksum"] else None,
        name=fields["name"] or "",
        calibration=calibration,
    )


def _whole(digits: str) -> int:
    if len(digits) > _MOST_DIGITS:
        raise _unreadable(f"a number has {len(digits)} digits, more than {_MOST_DIGITS}")
    return int(digits)


def _rate(text: str | None) -> float:
    rate_hz = float(text) if text else _DEFAULT_RATE_HZ
    if not rate_hz > 0:
        raise _unreadable(f"the sampling rate is {rate_hz:g} Hz")
    if rate_hz > MAX_RATE_HZ:
        detail = f"the sampling rate is {rate_hz:g} Hz, more than {MAX_RATE_HZ:g}; check its unit"
        raise RecordRefused("bad_rate", detail)
    return rate_hz


def _gain(text: str) -> float:
    """The gain; absent or 0, it was not measured, and header(5) says 200."""
    try:
        gain = float(text or "0")
    except ValueError:
        gain = math.nan
    if not 0 <= gain < math.inf:
        raise RecordRefused("bad_gain", f"{_quoted(text)} is not a gain: a positive number of digital units")
    return gain or _DEFAULT_GAIN


def _quoted(text: str) -> str:
    """Text from a header for a message, cut to what fits into one."""
    return repr(text if len(text) <= 80 else f"{text[:80]}...")


def _format_field(signal: SignalLine) -> str:
    return f"{signal.format}x{signal.samples_per_frame}:{signal.skew}+{signal.byte_offset}"
