"""Commands that use a model."""

from __future__ import annotations

from typing import Annotated

import typer

from ecgdist.commands.shell import (
    AsJson,
    DryRun,
    Set,
    as_overrides,
    error_console,
    file_or_folder,
    reported,
    say,
    shown,
    words,
)
from ecgdist.config import load


@reported
def predict(
    model: Annotated[str, typer.Argument(help="Model folder of `fit-head` or `finetune`, local or s3://.")],
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
    """What a model says of ECG files. Not a medical device. Exits with 1 if a file cannot be used."""
    from ecgdist.downstream import predict as predicting
    from ecgdist.downstream.classifier import load_classifier
    from ecgdist.recordfile import FileOptions
    from ecgdist.storage import Location

    def draw_to(number: int, content: bytes) -> None:
        name = plot if len(files) == 1 else f"{str(plot).removesuffix('.png')}-{number + 1}.png"
        Location.of(str(name)).write_bytes(content)

    flags = as_overrides(
        rate_hz=rate,
        leads=words(leads),
        unit=unit,
        dataset=dataset,
        row=row,
        ignore_leads=words(ignore_leads),
    )
    options, classifier = load(FileOptions, None, flags), load_classifier(model)
    made = list(predicting.predict_files(classifier, files, options, draw_to if plot else None))
    said = predicting.document(classifier, made)
    if as_json:
        print(said.model_dump_json(indent=1))
    else:
        for line in predicting.sentences(said):
            say(line)
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


@reported
def embed(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL|CONFIG.yaml", help="Model folder, local or s3://; or values in a YAML file."
        ),
    ],
    corpus: Annotated[str | None, typer.Argument(help="Folder of the corpus, local or s3://.")] = None,
    out: Annotated[str | None, typer.Option(help="Folder of the embeddings; the same again goes on.")] = None,
    workers: Annotated[int | None, typer.Option(help="Actors; default one per GPU or core.")] = None,
    overrides: Set = None,
    dry_run: DryRun = False,
) -> None:
    """Embeddings of a corpus as Parquet, one part per shard; run again, it goes on where it stopped."""
    from ecgdist.downstream.embed import EmbedConfig
    from ecgdist.downstream.embed import embed as run_embed

    file, folder = file_or_folder(model)
    flags = as_overrides(overrides, model=folder, corpus=corpus, out=out, workers=workers)
    config = load(EmbedConfig, file, flags)
    if shown(dry_run, config):
        return
    result = run_embed(config)
    for name in result.damaged:
        say(f"{name} was damaged, unfinished or not of this model and corpus, and was made again")
    manifest = result.manifest
    say(
        f"{manifest.rows:,} embeddings in {len(manifest.parts)} parts, {result.made} made now; in {config.out}"
    )


@reported
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

    say(export_any(model_or_run, out, checkpoint, format, corpus))
