"""The command line: one command per job. Every command is a thin shell around a function of the package."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from typing import Annotated, Any, ParamSpec, TypeVar

import typer
import typer.core
import yaml
from pydantic import BaseModel
from rich.console import Console
from rich.table import Table

from ecgdist.config import Config, load
from ecgdist.errors import EcgdistError, RunStopped

app = typer.Typer(
    help="Pretrain ECG foundation models on a Ray cluster, and measure what they have learned.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


class _PretrainByDefault(typer.core.TyperGroup):
    """``plan CONFIG.yaml`` is ``plan pretrain CONFIG.yaml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, "--help"):
            args = ["pretrain", *args]
        parsed: list[str] = super().parse_args(ctx, args)
        return parsed


plan_app = typer.Typer(
    cls=_PretrainByDefault,
    help="What a job will take: hours, bytes, memory and money. `plan CONFIG.yaml` is `plan pretrain CONFIG.yaml`.",
    no_args_is_help=True,
)
app.add_typer(plan_app, name="plan")
jobs_app = typer.Typer(help="Runs that train somewhere else.", no_args_is_help=True)
app.add_typer(jobs_app, name="jobs")
k8s_app = typer.Typer(help="Manifests for Kubernetes.", no_args_is_help=True)
app.add_typer(k8s_app, name="k8s")
out_console = Console(width=None if sys.stdout.isatty() else 120)
error_console = Console(stderr=True)

P = ParamSpec("P")
R = TypeVar("R")

ConfigFile = Annotated[str | None, typer.Argument(metavar="[CONFIG.yaml]", help="Values in a YAML file.")]
Set = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a value, e.g. a.b=3.")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check and print the resolved configuration, do nothing.")
]
Sources = Annotated[
    list[str], typer.Argument(metavar="KIND[:NAME]=URI...", help="Sources, and at most one CONFIG.yaml.")
]
Exclude = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATTERN", help="Leave out records by source/record_id, e.g. 'ptbxl/*'; repeatable."
    ),
]
Private = Annotated[
    bool | None,
    typer.Option(
        "--private/--not-private",
        help="Show and store keyed ids of records; by default where a patient key is set.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]


def _reported(command: Callable[P, R]) -> Callable[P, R]:
    """Print an error that is meant for the user as one sentence, and exit with status 1; 75 if a run was stopped."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return command(*args, **kwargs)
        except RunStopped as stopped:
            error_console.print(str(stopped), markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(RunStopped.exit_status) from stopped
        except EcgdistError as error:
            error_console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True, style="red")
            raise typer.Exit(1) from error

    return run


@app.command()
@_reported
def demo(
    out: Annotated[str, typer.Option(help="Folder for the corpus and the run.")] = "demo",
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    workers: Annotated[int | None, typer.Option(help="Training workers.")] = None,
) -> None:
    """All of it on the ECGs that ship with the package: pack, pretrain, probe, report."""
    from ecgdist.demo import DemoConfig
    from ecgdist.demo import demo as run_demo

    run_demo(load(DemoConfig, None, _flags(out=out, steps=steps, workers=workers)), out_console)


@app.command()
@_reported
def pack(
    sources: Sources,
    out: Annotated[str | None, typer.Option(help="Folder of the corpus, local or s3://.")] = None,
    exclude: Exclude = None,
    private: Private = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Pack ECGs of any number of sources into a corpus; run again, it goes on where it stopped."""
    from ecgdist.corpus.patients import KEY_FILE_VARIABLE, KEY_VARIABLE, PatientHasher
    from ecgdist.packing import PackConfig
    from ecgdist.packing import pack as run_pack

    file, pairs = _file_and_pairs(sources)
    flags = _flags(overrides, sources=pairs, out=out, exclude=exclude, private=private)
    config = load(PackConfig, file, flags)
    if _shown(dry_run, config):
        return
    _say(str(run_pack(config)))
    if PatientHasher.from_environment().is_public:
        _say(
            f"patients are hashed with the public key: set {KEY_VARIABLE} "
            f"or {KEY_FILE_VARIABLE} to pack data that is not published"
        )


@plan_app.command("pack")
@_reported
def plan_pack(
    sources: Sources,
    out: Annotated[str, typer.Option(help="Folder of the corpus; nothing is written to it.")] = "corpus",
    workers: Annotated[int | None, typer.Option(min=1, help="Cores; default those of this machine.")] = None,
    sample: Annotated[int, typer.Option(min=1, help="Records of each source that are read and packed.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the choice of those records.")] = 0,
    exclude: Exclude = None,
    private: Private = None,
    as_json: AsJson = False,
    overrides: Set = None,
) -> None:
    """Hours, bytes, workers and refusals of a packing, reckoned from a random sample of every source."""
    from ecgdist.packing import PackConfig
    from ecgdist.packing.estimate import estimate_packing, sentences, tables

    file, pairs = _file_and_pairs(sources)
    flags = _flags(overrides, sources=pairs, exclude=exclude, private=private)
    config = load(PackConfig, file, flags, defaults={"out": out})
    estimate = estimate_packing(config, workers, sample, seed)
    _show_plan(estimate, as_json, sentences(estimate), tables(estimate))


@plan_app.command("pretrain")
@_reported
def plan_pretrain(
    config_file: ConfigFile = None,
    workers: Annotated[
        list[int] | None, typer.Option(min=1, help="Numbers of workers, one per GPU or core; repeatable.")
    ] = None,
    gpu: Annotated[
        str | None, typer.Option(metavar="KIND", help="Kind of GPU, e.g. H100; without it, CPU cores.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option(metavar="ECG/S", help="Speed of one worker, if you know it.")
    ] = None,
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure the speed of one core of this machine first.")
    ] = False,
    mfu: Annotated[
        float | None,
        typer.Option(min=0.001, max=1, help="Share of the GPU's peak, instead of measured rates."),
    ] = None,
    stream_rate: Annotated[
        float | None, typer.Option(metavar="ECG/S", help="Speed of one worker's stream, if you know it.")
    ] = None,
    rows: Annotated[
        int | None, typer.Option(min=1, help="Plan without a corpus: ECGs that will be trained on.")
    ] = None,
    ecg_bytes: Annotated[
        float | None, typer.Option(min=1, help="With --rows: bytes of an ECG in the corpus.")
    ] = None,
    network_gbit: Annotated[
        float | None, typer.Option(min=0.001, help="Gbit/s of a worker's link, each way.")
    ] = None,
    latency_us: Annotated[float | None, typer.Option(min=0, help="Microseconds of a message.")] = None,
    storage_gbit: Annotated[
        float | None, typer.Option(min=0.001, help="Gbit/s that storage gives to all workers together.")
    ] = None,
    price_per_gpu_hour: Annotated[
        float | None, typer.Option(min=0, help="Price of one worker's hour, in your money.")
    ] = None,
    as_json: AsJson = False,
    overrides: Set = None,
) -> None:
    """Hours, GPU-hours, bytes, memory and money of a pretraining run on 1 to 512 workers; nothing is started."""
    from ecgdist.planning.estimate import WORKERS, estimate_pretraining
    from ecgdist.planning.request import PlanRequest
    from ecgdist.planning.show import assumptions, sentences, tables
    from ecgdist.pretraining.config import PretrainConfig

    request = PlanRequest(
        gpu=gpu,
        rate=rate,
        measure=measure,
        mfu=mfu,
        stream_rate=stream_rate,
        rows=rows,
        ecg_bytes=ecg_bytes,
        network_gbit=network_gbit,
        latency_us=latency_us,
        storage_gbit=storage_gbit,
        price_per_gpu_hour=price_per_gpu_hour,
    )
    unused = {"out": "run"} | ({} if rows is None else {"corpus": "none"})
    config = load(PretrainConfig, config_file, _flags(overrides), defaults=unused)
    plan = estimate_pretraining(*request.of(config), workers or WORKERS)
    _show_plan(plan, as_json, sentences(plan), tables(plan), assumptions(plan))


@app.command()
@_reported
def doctor(
    config_file: ConfigFile = None,
    storage: Annotated[
        str | None,
        typer.Option(metavar="URI", help="Folder to try, local or s3://; default: the run's parent."),
    ] = None,
    address: Annotated[
        str | None, typer.Option(metavar="URL", help="Dashboard of a Ray cluster, e.g. http://HOST:8265.")
    ] = None,
    as_json: AsJson = False,
    overrides: Set = None,
) -> None:
    """Look for what will fail later: versions, cluster, storage, clocks, memory, GPUs; exits with 1 on an error."""
    from ecgdist.doctor.examine import examine
    from ecgdist.doctor.finding import table
    from ecgdist.pretraining.config import PretrainConfig

    asked = config_file is not None or overrides
    read = (lambda: load(PretrainConfig, config_file, _flags(overrides))) if asked else None
    found = examine(read, storage, address)
    if as_json:
        print(json.dumps(found.model_dump(mode="json") | {"level": found.level}, indent=1))
    else:
        out_console.print(table(found.findings))
        _say(found.verdict())
    if found.level == "error":
        raise typer.Exit(1)


@app.command()
@_reported
def inspect(
    corpus: Annotated[str, typer.Argument(help="Folder of the corpus, local or s3://.")],
    as_json: AsJson = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Also compare every file with its sha256.")
    ] = False,
    html: Annotated[
        str | None, typer.Option(help="Write the whole report, with ECGs and duplicates, to this HTML file.")
    ] = None,
) -> None:
    """Counts of a corpus by source, label, split, lead, quality and reason of refusal."""
    from ecgdist.corpus import Corpus
    from ecgdist.corpus.summary import headline, summarise, tables

    opened = Corpus(corpus)
    if verify:
        opened.verify()
    if html is not None:
        from ecgdist.report.corpus import write_corpus_report
        from ecgdist.storage import Location

        written = write_corpus_report(opened, Location.of(html))
        if not as_json:
            _say(f"report written to {written}")
            return
    summary = summarise(opened)
    if as_json:
        print(summary.model_dump_json(indent=1))
        return
    _say(headline(summary) + ("; every file fits its sha256" if verify else ""))
    for table in tables(summary):
        out_console.print(table)


@app.command("check-leak")
@_reported
def check_leak(
    pretraining: Annotated[str, typer.Argument(help="Corpus to pretrain on, local or s3://.")],
    evaluation: Annotated[str, typer.Argument(help="Corpus to evaluate on, local or s3://.")],
    exclude: Annotated[
        list[str] | None,
        typer.Option("--exclude-split", help="Split that pretraining leaves out; repeatable."),
    ] = None,
    test: Annotated[
        list[str] | None,
        typer.Option("--test-split", help="Split that is tested on, instead of all rows; repeatable."),
    ] = None,
    read_again: Annotated[
        int,
        typer.Option(
            help="Most ECGs to read again for rows of the other side that lack the usual lead (II)."
        ),
    ] = 50_000,
    as_json: AsJson = False,
) -> None:
    """Every patient and waveform that two corpora share; exits with 1 if there is one, or they cannot be compared."""
    from ecgdist.corpus import Corpus
    from ecgdist.corpus.leaks import check_leak as run_check
    from ecgdist.corpus.leaks import rows_in_splits

    ours, theirs = Corpus(pretraining), Corpus(evaluation)
    report = run_check(
        ours,
        theirs,
        ~rows_in_splits(ours, exclude) if exclude else None,
        rows_in_splits(theirs, test) if test else None,
        read_again,
    )
    if as_json:
        print(json.dumps(report.model_dump(mode="json") | {"clean": report.clean}, indent=1))
    else:
        for item in report.shared:
            _say(str(item))
        _say(report.verdict)
    if not report.clean:
        raise typer.Exit(1)


@app.command()
@_reported
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

    flags = _flags(overrides, corpus=corpus, out=out, **{"workers.count": workers})
    config = load(PretrainConfig, config_file, flags)
    if not _shown(dry_run, config):
        run_pretrain(config, out_console)


@app.command()
@_reported
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
    config = load(FineTuneConfig, config_file, _flags(overrides, **places, **{"workers.count": workers}))
    if not _shown(dry_run, config):
        run_finetune(config, out_console)


@app.command()
@_reported
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

    config = load(SweepConfig, config_file, _flags(overrides, out=out, trials=trials))
    if not _shown(dry_run, config):
        run_sweep(config, out_console)


@app.command()
@_reported
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder, local or s3://.")],
    task: Annotated[
        str,
        typer.Option(
            help="Name of a task, the path of a .yaml file, or of a .csv file with labels of your own."
        ),
    ],
    corpus: Annotated[str, typer.Option(help="Corpus with the labels, local or s3://.")],
    mode: Annotated[
        str,
        typer.Option(help="linear: a probe on frozen features; trained: the readout of a fine-tuned model."),
    ] = "linear",
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
    from ecgdist.downstream.evaluate import EvaluateConfig, evaluate_whole
    from ecgdist.report.evaluation import write_evaluation_report
    from ecgdist.storage import Location

    config = load(EvaluateConfig, None, _flags(overrides, model=model, task=task, corpus=corpus, mode=mode))
    if _shown(dry_run, config):
        return
    if config.mode == "trained":
        from ecgdist.downstream.finetuning.judge import evaluate_tuned

        outcome = evaluate_tuned(config)
    else:
        outcome = evaluate_whole(config)
    evaluation = outcome.evaluation
    if out is not None:
        Location.of(out).write_bytes(evaluation.model_dump_json(indent=1).encode())
    if predictions is not None:
        Location.of(predictions).write_bytes(outcome.predictions.parquet(evaluation))
    if html is not None:
        write_evaluation_report(outcome, Location.of(html))
    if as_json:
        print(evaluation.model_dump_json(indent=1))
        return
    for table in evaluation.tables():
        out_console.print(table)
    _say(f"again: {evaluation.provenance.command}")
    for what, where in (("figures", out), ("predictions", predictions), ("report", html)):
        if where is not None:
            _say(f"{what} written to {where}")


@app.command()
@_reported
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

    flags = _flags(overrides, task=task, out=out, **{"pretrain.corpus": corpus})
    config = load(CompareConfig, config_file, flags)
    if not _shown(dry_run, config):
        run_compare(config, out_console)


@app.command("fit-head")
@_reported
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

    config = load(EvaluateConfig, None, _flags(overrides, model=model, task=task, corpus=corpus))
    if _shown(dry_run, config):
        return
    made = run_fit(config, Location.of(out)).config
    for label, reason in made.left_out.items():
        _say(f"label {label} is left out: {reason}")
    for warning in made.warnings:
        _say(warning)
    _say(f"macro AUROC on {made.rows['test']:,} test rows: {made.metrics.macro.auroc}")
    _say(f"classifier of {len(made.labels)} labels written to {out}. {NOT_A_DEVICE}")


@app.command()
@_reported
def predict(
    model: Annotated[str, typer.Argument(help="Folder of `ecgdist fit-head`, local or s3://.")],
    files: Annotated[list[str], typer.Argument(help="WFDB (.hea or record), .npy, HDF5 or .csv files.")],
    rate: Annotated[float | None, typer.Option(help="Hertz, where the file does not say it.")] = None,
    leads: Annotated[
        str | None, typer.Option(help="Leads in order, e.g. I,II,V1, where the file does not say them.")
    ] = None,
    unit: Annotated[str | None, typer.Option(help="V, mV, uV or nV, where the file does not say it.")] = None,
    dataset: Annotated[str | None, typer.Option(help="Dataset in an HDF5 file.")] = None,
    row: Annotated[int | None, typer.Option(help="Record of an array of several, from 0.")] = None,
    ignore_leads: Annotated[str | None, typer.Option(help="Channels to leave out, e.g. RESP,PLETH.")] = None,
    plot: Annotated[
        str | None, typer.Option(help="PNG with the ECG on paper; of several files NAME-1.png and so on.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Probabilities of ECG files. Not a medical device. Exits with 1 if a file cannot be used."""
    from ecgdist.downstream import predict as predicting
    from ecgdist.downstream.heads import load_classifier
    from ecgdist.recordfile import FileOptions
    from ecgdist.storage import Location

    def draw_to(number: int, content: bytes) -> None:
        name = plot if len(files) == 1 else f"{str(plot).removesuffix('.png')}-{number + 1}.png"
        Location.of(str(name)).write_bytes(content)

    flags = _flags(
        rate_hz=rate,
        leads=_words(leads),
        unit=unit,
        dataset=dataset,
        row=row,
        ignore_leads=_words(ignore_leads),
    )
    options, classifier = load(FileOptions, None, flags), load_classifier(model)
    made = list(predicting.predict_files(classifier, files, options, draw_to if plot else None))
    said = predicting.document(classifier, made)
    if as_json:
        print(said.model_dump_json(indent=1))
    else:
        for line in predicting.sentences(said):
            _say(line)
    failed = [prediction for prediction in made if prediction.error is not None]
    for prediction in failed:
        error_console.print(
            f"error: {prediction.file}: {prediction.error}",
            markup=False,
            highlight=False,
            soft_wrap=True,
            style="red",
        )
    if failed:
        raise typer.Exit(1)


@app.command()
@_reported
def embed(
    model: Annotated[str, typer.Argument(help="Model folder, local or s3://.")],
    corpus: Annotated[str, typer.Argument(help="Folder of the corpus, local or s3://.")],
    out: Annotated[str, typer.Option(help="Folder of the embeddings; the same again goes on.")],
    workers: Annotated[int | None, typer.Option(help="Actors; default one per GPU or core.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Embeddings of a corpus as Parquet, one part per shard; run again, it goes on where it stopped."""
    from ecgdist.downstream.embed import EmbedConfig
    from ecgdist.downstream.embed import embed as run_embed

    flags = _flags(overrides, model=model, corpus=corpus, out=out, workers=workers)
    config = load(EmbedConfig, None, flags)
    if _shown(dry_run, config):
        return
    result = run_embed(config)
    for name in result.damaged:
        _say(f"{name} was damaged, unfinished or not of this model and corpus, and was made again")
    manifest = result.manifest
    _say(f"{manifest.rows:,} embeddings in {len(manifest.parts)} parts, {result.made} made now; in {out}")


@app.command()
@_reported
def export(
    model_or_run: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="Folder of a run, or of a model.")],
    out: Annotated[str, typer.Option(help="Model folder to write, or file of another format.")],
    checkpoint: Annotated[
        str, typer.Option(help="Of a run: last, best (by checkpoint.keep_best), or a name.")
    ] = "last",
    format: Annotated[str, typer.Option(help="safetensors, torch.export or onnx.")] = "safetensors",
    corpus: Annotated[
        str | None, typer.Option(help="ECGs that the exported file is checked on; default the shipped ones.")
    ] = None,
) -> None:
    """A checkpoint of a run as a model folder, or an encoder as a torch.export or ONNX file, checked on 100 ECGs."""
    from ecgdist.exporting import export_any

    _say(export_any(model_or_run, out, checkpoint, format, corpus))


@jobs_app.command("stop")
@_reported
def jobs_stop(
    run_or_job: Annotated[
        str, typer.Argument(help="Folder of a run, local or s3://; or, with --address, the id of a Ray job.")
    ],
    address: Annotated[
        str | None, typer.Option(help="Dashboard of the cluster of the Ray job, e.g. http://HOST:8265.")
    ] = None,
    wait_minutes: Annotated[float, typer.Option(min=0, help="How long to wait for the checkpoint.")] = 30,
) -> None:
    """Have a run save a checkpoint and stop; the command that started it goes on from there."""
    from ecgdist.jobs import stop_job, stop_run
    from ecgdist.storage import Location

    wait_s = 60 * wait_minutes
    if address is None:
        _say(str(stop_run(Location.of(run_or_job), wait_s, _say)))
    else:
        _say(str(stop_job(run_or_job, address, wait_s, _say)))


@k8s_app.command("render")
@_reported
def k8s_render(
    config_file: Annotated[str, typer.Argument(metavar="CONFIG.yaml", help="Of pack or of pretrain.")],
    overlay: Annotated[str, typer.Option(help="cpu-dev, gpu, gpu-spot, airgapped, or one of your own.")],
    image: Annotated[str, typer.Option(help="Image of this project, NAME@sha256:DIGEST.")],
    redis_image: Annotated[
        str | None, typer.Option(help="Image of Redis, likewise; without it, one must answer at redis:6379.")
    ] = None,
    bucket_role: Annotated[
        str | None, typer.Option(help="ARN of the role for the bucket; without it, by EKS Pod Identity.")
    ] = None,
    workers_per_pod: Annotated[
        int, typer.Option(min=1, help="Training workers of one pod: the GPUs of one machine.")
    ] = 8,
    worker_gib: Annotated[
        float | None, typer.Option(min=0, help="Memory for one training worker; reckoned if not given.")
    ] = None,
    cluster: Annotated[
        bool, typer.Option("--cluster", help="A standing cluster of that size, instead of the job.")
    ] = False,
    manifests: Annotated[str | None, typer.Option(help="Folder k8s of the repository.")] = None,
    overrides: Set = None,
) -> None:
    """Print the manifests of an overlay with the job, workers, GPUs, CPUs and memory of a configuration."""
    from ecgdist.k8s.render import Job, Site, find_manifests, render, to_yaml

    job, site = Job.load(config_file, overrides or ()), Site(image, redis_image, bucket_role)
    folder = find_manifests(manifests)
    print(to_yaml(render(job, folder, overlay, site, workers_per_pod, worker_gib, cluster)), end="")


@k8s_app.command("check")
@_reported
def k8s_check(
    file: Annotated[str, typer.Argument(help="Manifests in YAML, or - for standard input.")],
) -> None:
    """Check manifests by the rules of KubeRay, Kueue, Pod Security and this project; exits with 1 if one is broken."""
    from ecgdist.k8s.check import check
    from ecgdist.k8s.manifests import load_manifests

    findings = check(load_manifests(file))
    for finding in findings:
        _say(str(finding))
    _say(f"{len(findings)} broken rules" if findings else "no rule is broken")
    if findings:
        raise typer.Exit(1)


@app.command()
@_reported
def report(run: Annotated[str, typer.Argument(help="Folder of a run.")]) -> None:
    """Write the report of a run: report/index.html in its folder, one file that needs nothing else."""
    from ecgdist.report.run import report_run
    from ecgdist.storage import Location

    _say(f"report written to {report_run(Location.of(run))}")


def _say(sentence: str) -> None:
    out_console.print(sentence, markup=False, highlight=False, soft_wrap=True)


def _show_plan(
    plan: BaseModel,
    as_json: bool,
    sentences: Iterable[str],
    tables: Iterable[Table],
    assumptions: Iterable[str] = (),
) -> None:
    """What a job will take, for a program or for a person."""
    if as_json:
        print(plan.model_dump_json(indent=1))
        return
    for sentence in sentences:
        _say(sentence)
    for table in tables:
        out_console.print(table)
    for sentence in assumptions:
        _say(sentence)


def _flags(overrides: list[str] | None = None, **flags: Any) -> list[str]:
    """Flags as overrides, so that a value given by a flag and by --set is refused like one given twice."""
    given = [f"{name}={json.dumps(value)}" for name, value in flags.items() if value is not None]
    return given + list(overrides or [])


def _words(text: str | None) -> list[str] | None:
    """The words of a list such as ``I, II V1``."""
    return text.replace(",", " ").split() if text is not None else None


def _file_and_pairs(sources: list[str]) -> tuple[str | None, list[str] | None]:
    """The CONFIG.yaml among the sources, if there is one, and the others."""
    files = [text for text in sources if "=" not in text and text.endswith((".yaml", ".yml"))]
    if len(files) > 1:
        raise typer.BadParameter(f"more than one configuration file: {', '.join(files)}")
    pairs = [text for text in sources if text not in files]
    return (files[0] if files else None), pairs or None


def _shown(dry_run: bool, config: Config) -> bool:
    if dry_run:
        print(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False), end="")
    return dry_run


def main() -> None:
    """Entry point of the ``ecgdist`` script."""
    app()


if __name__ == "__main__":
    main()
