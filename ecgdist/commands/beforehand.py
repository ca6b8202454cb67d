"""Commands that say what a job will take and what would fail, before it starts."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ecgdist.commands.shell import (
    AsJson,
    ConfigFile,
    Exclude,
    Private,
    Set,
    Sources,
    as_overrides,
    file_and_pairs,
    out_console,
    reported,
    say,
    show_plan,
)
from ecgdist.config import load


@reported
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

    file, pairs = file_and_pairs(sources)
    flags = as_overrides(overrides, sources=pairs, exclude=exclude, private=private)
    config = load(PackConfig, file, flags, defaults={"out": out})
    estimate = estimate_packing(config, workers, sample, seed)
    show_plan(estimate, as_json, sentences(estimate), tables(estimate))


@reported
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
    config = load(PretrainConfig, config_file, as_overrides(overrides), defaults=unused)
    plan = estimate_pretraining(*request.of(config), workers or WORKERS)
    show_plan(plan, as_json, sentences(plan), tables(plan), assumptions(plan))


@reported
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
    read = (lambda: load(PretrainConfig, config_file, as_overrides(overrides))) if asked else None
    found = examine(read, storage, address)
    if as_json:
        print(json.dumps(found.model_dump(mode="json") | {"level": found.level}, indent=1))
    else:
        out_console.print(table(found.findings))
        say(found.verdict())
    if found.level == "error":
        raise typer.Exit(1)
