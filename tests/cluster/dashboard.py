"""What a Grafana dashboard asks Prometheus for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[2] / "cluster/grafana/ecgdist.json"
_WORDS = {"max", "sum", "by", "time", "deriv"}
"""Of PromQL, as far as the dashboard uses it."""


def dashboard() -> dict[str, Any]:
    """The whole file."""
    content: dict[str, Any] = json.loads(FILE.read_text())
    return content


def expressions() -> dict[str, list[str]]:
    """The expressions of every panel, by its title."""
    return {
        panel["title"]: [target["expr"] for target in panel["targets"]] for panel in dashboard()["panels"]
    }


def metrics_in(expression: str) -> set[str]:
    """Names of the metrics in a PromQL expression.

    Raises:
        ValueError: for a word that is neither a metric nor known here.
    """
    without_labels = re.sub(r"\bby \([^)]*\)", "", re.sub(r"\{[^}]*\}|\[\w+\]", "", expression))
    words = set(re.findall(r"[a-zA-Z_:][\w:]*", without_labels)) - _WORDS
    if strange := {word for word in words if not word.startswith("ray_")}:
        raise ValueError(f"{expression}: what is {', '.join(sorted(strange))}?")
    return words


def all_metrics() -> set[str]:
    """Names of all metrics that are asked for."""
    return {name for panel in expressions().values() for each in panel for name in metrics_in(each)}
