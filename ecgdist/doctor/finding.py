"""What an examination finds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field
from rich.markup import escape
from rich.table import Table

from ecgdist.config import Config

Level = Literal["ok", "warning", "error"]
LEVELS: tuple[Level, ...] = ("ok", "warning", "error")
"""From the best to the worst."""


class Finding(Config):
    """One thing that was looked at."""

    check: str
    """What was looked at, in a few words."""
    level: Level
    """error: a run will fail or is not safe; warning: it may, or is slower than it could be."""
    measured: str
    """What there is."""
    advice: str | None = None
    """What to do, unless all is well."""
    values: dict[str, float] = Field(default_factory=dict)
    """Numbers behind `measured`; the unit is in the name."""


class Examination(Config):
    """All findings."""

    findings: tuple[Finding, ...]

    @property
    def level(self) -> Level:
        """Of the worst."""
        return max((one.level for one in self.findings), key=LEVELS.index, default="ok")

    def count(self, level: Level) -> int:
        """Findings of a level."""
        return sum(one.level == level for one in self.findings)

    def verdict(self) -> str:
        """All in a sentence."""
        return f"{len(self.findings)} checks: {self.count('error')} errors, {self.count('warning')} warnings"


_STYLE = {"ok": "green", "warning": "yellow", "error": "red"}


def table(findings: Sequence[Finding]) -> Table:
    """Findings for the console, in the order of the examination."""
    shown = Table(show_lines=False)
    for column in ("", "check", "found", "what to do"):
        shown.add_column(column, overflow="fold")
    for one in findings:
        shown.add_row(
            f"[{_STYLE[one.level]}]{one.level}[/]", one.check, escape(one.measured), escape(one.advice or "")
        )
    return shown
