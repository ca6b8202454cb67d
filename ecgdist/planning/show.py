"""A plan in words and tables."""

from __future__ import annotations

from collections.abc import Iterable

from rich.table import Table

from ecgdist.planning.estimate import PretrainEstimate
from ecgdist.planning.rates import CPU_CORE

_GIB = 2**30
_MOST_COLUMNS = 6
"""Numbers of workers for which the table of memory has room."""


def sentences(plan: PretrainEstimate) -> list[str]:
    """The run in words, before the tables."""
    rate = plan.rate
    read = (
        "bytes read: unknown without a corpus (--ecg-bytes)"
        if plan.read_bytes is None
        else f"{_bytes(plan.read_bytes)} to read from storage ({plan.read_amplification:.2f} times what is used)"
    )
    impossible = [f"{number} workers: {why}" for number, why in list(plan.not_possible.items())[:1]]
    return [
        "an estimate, in closed form, from the assumptions below:",
        f"{plan.steps:,} steps of {plan.global_batch:,}, {plan.epochs:,.1f} passes over {plan.ecgs:,} ECGs: "
        f"{plan.ecgs_seen:,} ECGs, {plan.total_pflop:,.3g} PFLOP; {plan.parameters / 1e6:.1f} M parameters",
        f"one {rate.kind} trains {rate.ecg_per_s:,.4g} ECG/s: {rate.basis}",
        f"{read}; a checkpoint takes {_bytes(plan.checkpoint_bytes)}, those in storage at most "
        f"{_bytes(plan.checkpoints_kept_bytes)}",
        *impossible,
    ]


def assumptions(plan: PretrainEstimate) -> list[str]:
    """What the plan stands on."""
    return ["assumptions:", *(f"- {text}" for text in plan.assumptions)]


def tables(plan: PretrainEstimate) -> list[Table]:
    """The run by number of workers, and its memory by precision and ZeRO stage."""
    return [_steps(plan), _takes(plan), _memory(plan)] if plan.by_workers else []


def _steps(plan: PretrainEstimate) -> Table:
    columns = [
        "workers",
        "ZeRO",
        "ECGs each",
        "s a step",
        "computing",
        "communicating",
        "reading",
        "bound by",
    ]
    shown = _table("a step, by workers", [*columns, "ECG/s", "efficiency"])
    for one in plan.by_workers:
        seconds = (one.step_s, one.compute_s, one.communicate_s, one.stream_s)
        shown.add_row(
            *(f"{one.workers}", f"{one.zero_stage}", f"{one.rows:,}"),
            *(f"{value:,.3g}" for value in seconds),
            *(one.bound, f"{one.ecg_per_s:,.4g}", f"{one.efficiency:.0%}"),
        )
    return shown


def _takes(plan: PretrainEstimate) -> Table:
    """What the whole run takes."""
    unit = "core-hours" if plan.rate.kind == CPU_CORE else "GPU-hours"
    shown = _table(
        "the run, by workers", ["workers", "time", unit, "cost", "MB/s of storage", "GiB of a worker"]
    )
    for one in plan.by_workers:
        shown.add_row(
            *(f"{one.workers}", duration(one.hours), f"{one.gpu_hours:,.4g}"),
            "no price" if one.cost is None else f"{one.cost:,.2f}",
            *(f"{one.storage_bytes_per_s / 1e6:,.3g}", f"{one.memory.total / _GIB:.2f}"),
        )
    return shown


def _memory(plan: PretrainEstimate) -> Table:
    numbers = sorted({one.workers for one in plan.state_memory})
    if len(numbers) > _MOST_COLUMNS:
        last = len(numbers) - 1
        numbers = sorted(
            {numbers[round(place * last / (_MOST_COLUMNS - 1))] for place in range(_MOST_COLUMNS)}
        )
    shown = _table(
        "GiB of a worker, of these its state", ["precision", "ZeRO", *(f"{n} workers" for n in numbers)]
    )
    for precision in ("fp32", "bf16"):
        for stage in range(4):
            found = {
                one.workers: one.memory
                for one in plan.state_memory
                if (one.precision, one.zero_stage) == (precision, stage)
            }
            cells = (f"{found[n].total / _GIB:.2f} ({found[n].state / _GIB:.2f})" for n in numbers)
            shown.add_row(precision, f"{stage}", *cells)
    return shown


def duration(hours: float) -> str:
    """A time in the unit that suits it."""
    if hours >= 48:
        return f"{hours / 24:,.1f} days"
    if hours >= 1:
        return f"{hours:.1f} h"
    return f"{hours * 60:.1f} min" if hours * 60 >= 1 else f"{hours * 3600:.1f} s"


def _table(title: str, columns: Iterable[str]) -> Table:
    shown = Table(title=title)
    for column in columns:
        shown.add_column(column, justify="right")
    return shown


def _bytes(count: float) -> str:
    return f"{count / 1e9:,.2f} GB" if count >= 1e9 else f"{count / 1e6:,.1f} MB"
