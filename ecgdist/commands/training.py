"""Commands that train without labels, and show what came out."""

from __future__ import annotations

from typing import Annotated

import typer

from ecgdist.commands.shell import ConfigFile, DryRun, Set, as_overrides, out_console, reported, say, shown
from ecgdist.config import load


@reported
def demo(
    out: Annotated[str, typer.Option(help="Folder for the corpus and the run.")] = "demo",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
) -> None:
    """All of it on the ECGs that ship with the package: pack, pretrain, probe, report."""
    from ecgdist.demo import DemoConfig
    from ecgdist.demo import demo as run_demo

    run_demo(load(DemoConfig, None, as_overrides(out=out, steps=steps, workers=workers)), out_console)


@reported
def pretrain(
    config_file: ConfigFile = None,
    corpus: Annotated[str | None, typer.Option(help="Folder of the corpus, local or s3://.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run; the same again resumes.")] = None,
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pretrain on a corpus; the same --out again resumes the run from its last checkpoint."""
    from ecgdist.pretraining.config import PretrainConfig
    from ecgdist.pretraining.job import pretrain as run_pretrain

    flags = as_overrides(overrides, corpus=corpus, out=out, **{"workers.count": workers})
    config = load(PretrainConfig, config_file, flags)
    if not shown(dry_run, config):
        run_pretrain(config, out_console)


@reported
def compare(
    config_file: ConfigFile = None,
    task: Annotated[str | None, typer.Option(help="Name of a task, or the path of a .yaml file.")] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus to pretrain and to probe on.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the comparison; the same again goes on.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pretrain generative, contrastive and hybrid arms alike, with several seeds, and probe them beside each other."""
    from ecgdist.compare import CompareConfig
    from ecgdist.compare import compare as run_compare

    flags = as_overrides(overrides, task=task, out=out, **{"pretrain.corpus": corpus})
    config = load(CompareConfig, config_file, flags)
    if not shown(dry_run, config):
        run_compare(config, out_console)


@reported
def report(run: Annotated[str, typer.Argument(help="Folder of a run.")]) -> None:
    """Write the report of a run: report/index.html in its folder, one file that needs nothing else."""
    from ecgdist.report.run import report_run
    from ecgdist.storage import Location

    say(f"report written to {report_run(Location.of(run))}")
