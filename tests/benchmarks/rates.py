"""The speeds that `ecgdist plan` reckons with, out of the results of the benchmarks.

`python -m tests.benchmarks.rates` writes `ecgdist/planning/rates.yaml`. It measures nothing: every speed is a cell of
`RESULTS.md`, with the command that made it. A test fails while the two differ.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

import ecgdist.planning
from ecgdist.pretraining.flops import PEAKS
from tests.benchmarks.results import RESULTS

RATES = Path(ecgdist.planning.__file__).with_name("rates.yaml")
_HEAD = "# Made of tests/benchmarks/RESULTS.md by: python -m tests.benchmarks.rates\n"
_ARMS_ROWS = 32
_STREAMS = {"local": "Stream beside other loaders: local", "s3": "Stream beside other loaders: s3"}


def rates_of(text: str) -> dict[str, Any]:
    """The table of speeds that results in Markdown hold."""
    arms, gpu = _section(text, "Arms"), _section(text, "Training on one GPU")
    return {
        "training": [*([] if arms is None else _of_arms(arms)), *([] if gpu is None else _of_gpu(gpu))],
        "stream": [_of_stream(storage, _section(text, title)) for storage, title in _STREAMS.items()],
    }


def _section(text: str, title: str) -> str | None:
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", text, re.M | re.S)
    return found[1] if found else None


def _source(section: str) -> str:
    """The command, the day and the machine."""
    command, machine = re.search(r"^`(python -m [^`]+)` *\n(.+)$", section, re.M).groups()  # type: ignore[union-attr]
    day, architecture, cores = machine.split(", ")[:3]
    return f"{command}, {day}, {architecture}, {cores}"


def _rows(section: str) -> list[list[str]]:
    return [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in section.splitlines()
        if line.startswith("| ")
    ]


def _number(cell: str) -> float:
    """The median."""
    return float(cell.split(" ")[0].replace(",", ""))


def _of_arms(section: str) -> list[dict[str, Any]]:
    assert f"Whole steps of {_ARMS_ROWS} shipped ECGs, one process of one thread, `small`, float32" in section
    return [
        {
            "kind": "cpu core",
            "size": "small",
            "arm": name,
            "precision": "fp32",
            "ecg_per_s": round(_ARMS_ROWS / (_number(milliseconds) / 1000), 2),
            "source": _source(section),
        }
        for name, milliseconds, *_ in _rows(section)
        if name in ("HL", "GL", "CL")
    ]


def _of_gpu(section: str) -> list[dict[str, Any]]:
    """The settings with the largest micro-batch, under the ZeRO stage that a run takes by itself."""
    name = re.search(r"^(.+), one process; whole steps", section, re.M)[1]  # type: ignore[index]
    kind = next(known for known in PEAKS if known in name)
    rows = _rows(section)
    found = []
    for size, arm, precision, stage, micro_batch, compiled, recomputes, _, ecg_per_s, *_ in rows[1:]:
        if micro_batch != "1,024" or stage != ("0" if precision == "fp32" else "1"):
            continue
        found.append(
            {
                "kind": kind,
                "size": size,
                "arm": arm,
                "precision": precision,
                "compile": compiled == "yes",
                "recompute": recomputes == "yes",
                "ecg_per_s": _number(ecg_per_s),
                "source": f"{_source(section)}, {name}",
            }
        )
    return found


def _of_stream(storage: str, section: str | None) -> dict[str, Any]:
    assert section is not None
    ours = next(row for row in _rows(section) if row[0] == "this stream (Ray Data)")
    return {"storage": storage, "ecg_per_s": _number(ours[1]), "source": _source(section)}


def main() -> None:
    """Write the table."""
    made = rates_of(RESULTS.read_text(encoding="utf-8"))
    RATES.write_text(_HEAD + yaml.safe_dump(made, sort_keys=False, width=120), encoding="utf-8")
    print(
        f"{len(made['training'])} speeds of training and {len(made['stream'])} of streams written to {RATES}"
    )


if __name__ == "__main__":
    main()
