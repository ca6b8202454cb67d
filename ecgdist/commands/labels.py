"""Commands that train and judge a model on labels."""

from __future__ import annotations

from typing import Annotated

import typer

from ecgdist.commands.shell import (
    AsJson,
    ConfigFile,
    DryRun,
    Set,
    as_overrides,
    file_or_folder,
    out_console,
    reported,
    say,
    shown,
    words,
)
from ecgdist.config import load


@reported
def finetune(
    config_file: ConfigFile = None,
    model: Annotated[str | None, typer.Option(help="Model folder, local or s3://.")] = None,
    task: Annotated[
        str | None, typer.Option(help="Name of a task, or the path of a .yaml or .csv file.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus with the labels, local or s3://.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the run; the same again resumes.")] = None,
    mode: Annotated[
        str | None, typer.Option(help="finetune: all weights; attention: a readout; scratch: no pretraining.")
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Train a model on labelled ECGs, judged by the validation split alone; the same --out again resumes."""
    from ecgdist.downstream.finetuning.config import FineTuneConfig
    from ecgdist.downstream.finetuning.job import finetune as run_finetune

    places = {"model": model, "task": task, "corpus": corpus, "out": out, "mode": mode}
    config = load(
        FineTuneConfig, config_file, as_overrides(overrides, **places, **{"workers.count": workers})
    )
    if not shown(dry_run, config):
        run_finetune(config, out_console)


@reported
def sweep(
    config_file: ConfigFile = None,
    out: Annotated[str | None, typer.Option(help="Folder of the sweep; the same again goes on.")] = None,
    trials: Annotated[int | None, typer.Option(help="Most trials.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Fine-tune with many settings, choose by the validation split, judge the chosen model once on the test split."""
    from ecgdist.downstream.sweep.config import SweepConfig
    from ecgdist.downstream.sweep.job import sweep as run_sweep
    from ecgdist.report.sweep import write_sweep_report
    from ecgdist.storage import Location

    config = load(SweepConfig, config_file, as_overrides(overrides, out=out, trials=trials))
    if shown(dry_run, config):
        return
    run_sweep(config, out_console)
    say(f"report written to {write_sweep_report(Location.of(config.out))}")


@reported
def benchmark(
    config_file: ConfigFile = None,
    model: Annotated[str | None, typer.Option(help="Model folder, local or s3://.")] = None,
    tasks: Annotated[
        str | None, typer.Option(help="Names of tasks, or paths of .yaml or .csv files, with commas between.")
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus with the labels, local or s3://.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the benchmark; the same again goes on.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Ways to use a model on labels, side by side: probe, fine-tuning, from scratch, with few and many labels."""
    from ecgdist.benchmark import benchmark as run_benchmark
    from ecgdist.downstream.benchmark.config import BenchmarkConfig

    flags = as_overrides(overrides, model=model, tasks=words(tasks), corpus=corpus, out=out)
    config = load(BenchmarkConfig, config_file, flags)
    if not shown(dry_run, config):
        run_benchmark(config, out_console)


@reported
def evaluate(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CONFIG.yaml", help="Model folder, local or s3://; or values in a YAML file."
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(
            help="Name of a task, the path of a .yaml file, or of a .csv file with labels of your own."
        ),
    ] = None,
    corpus: Annotated[str | None, typer.Option(help="Corpus with the labels, local or s3://.")] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="linear: a probe on frozen features (the default); trained: the head in the model folder."
        ),
    ] = None,
    out: Annotated[str | None, typer.Option(help="Also write the figures to this JSON file.")] = None,
    html: Annotated[
        str | None, typer.Option(help="Write a report, with curves and ECGs, to this HTML file.")
    ] = None,
    predictions: Annotated[
        str | None,
        typer.Option(help="Write truth and predictions of every test record to this Parquet file."),
    ] = None,
    as_json: AsJson = False,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Figures of a model on labelled ECGs, beside the same probe on an untrained encoder."""
    from ecgdist.downstream.evaluate import evaluate_whole
    from ecgdist.downstream.evaluation_files import EvaluateToFiles

    file, folder = file_or_folder(model)
    judged = {"model": folder, "task": task, "corpus": corpus, "mode": mode}
    written = {"out": out, "html": html, "predictions": predictions}
    config = load(EvaluateToFiles, file, as_overrides(overrides, **judged, **written))
    if shown(dry_run, config):
        return
    if config.mode == "trained":
        from ecgdist.downstream.finetuning.judge import evaluate_tuned

        outcome = evaluate_tuned(config.evaluation)
    else:
        outcome = evaluate_whole(config.evaluation)
    said = list(config.write(outcome))
    if as_json:
        print(outcome.evaluation.model_dump_json(indent=1))
        return
    for table in outcome.evaluation.tables():
        out_console.print(table)
    for sentence in (f"again: {outcome.evaluation.provenance.command}", *said):
        say(sentence)


@reported
def fit_head(
    model: Annotated[str, typer.Argument(help="Model folder, local or s3://.")],
    task: Annotated[
        str,
        typer.Option(
            help="Name of a task with labels, the path of a .yaml file, or of a .csv file with labels of your own."
        ),
    ],
    corpus: Annotated[str, typer.Option(help="Corpus with the labels, local or s3://.")],
    out: Annotated[str, typer.Option(help="Model folder with the head to write, local or s3://.")],
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """The model with the linear probe of a task, in a folder that `predict` takes. Not a medical device."""
    from ecgdist.downstream.evaluate import EvaluateConfig
    from ecgdist.downstream.fithead import fit_head as run_fit
    from ecgdist.modelcard import NOT_A_DEVICE
    from ecgdist.storage import Location

    config = load(EvaluateConfig, None, as_overrides(overrides, model=model, task=task, corpus=corpus))
    if shown(dry_run, config):
        return
    made = run_fit(config, Location.of(out)).config
    for label, reason in made.left_out.items():
        say(f"label {label} is left out: {reason}")
    for warning in made.warnings:
        say(warning)
    if made.metrics is not None:
        say(f"macro AUROC on {made.rows['test']:,} test rows: {made.metrics.macro.auroc}")
    say(f"classifier of {len(made.outputs)} labels written to {out}. {NOT_A_DEVICE}")
