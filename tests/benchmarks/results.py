"""`RESULTS.md`: each benchmark writes its own section, and leaves those of the others as they are."""

from __future__ import annotations

import os
import platform
import re
import statistics
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")
_HEAD = """# Results

Written by the benchmarks themselves, each section by the command in it; nothing here is edited by hand.
A cell is the median of the repeats and, in parentheses, their range.
"""
_VERSIONS = ("ray", "torch", "pyarrow", "numpy")


def write_section(title: str, command: str, paragraphs: Iterable[str]) -> None:
    """Replace the section with this title, or add it at the end."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else _HEAD
    body = "\n\n".join([f"## {title}", f"`{command}`  \n{machine()}; {load()}", *paragraphs])
    parts = re.split(r"(?m)^(?=## )", text)
    kept = [part for part in parts if not part.startswith(f"## {title}\n")]
    place = next((i for i, part in enumerate(parts) if part.startswith(f"## {title}\n")), len(kept))
    kept.insert(place, body)
    RESULTS.write_text("\n\n".join(part.strip() for part in kept) + "\n", encoding="utf-8")


def machine() -> str:
    """Where and when this is measured, without a name of the machine."""
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    versions = ", ".join(f"{name} {version(name)}" for name in _VERSIONS)
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.machine()}, {os.cpu_count()} cores, {memory_gib:.0f} GiB, "
        f"{platform.system()}, Python {sys.version_info.major}.{sys.version_info.minor}, {versions}"
    )


def load() -> str:
    """How busy the machine was in the last minutes, the benchmark itself included."""
    return f"load {os.getloadavg()[1]:.0f} over the five minutes before this was written"


def cell(values: Sequence[float], digits: int = 0) -> str:
    """Median and range."""
    if not values:
        return "not measured"
    low, high = min(values), max(values)
    return f"{statistics.median(values):,.{digits}f} ({low:,.{digits}f} to {high:,.{digits}f})"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first to the right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
