"""Commands that make a corpus and look at one."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ecgdist.commands.shell import (
    AsJson,
    DryRun,
    Exclude,
    Private,
    Set,
    Sources,
    as_overrides,
    file_and_pairs,
    out_console,
    reported,
    say,
    shown,
)
from ecgdist.config import load


@reported
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

    file, pairs = file_and_pairs(sources)
    flags = as_overrides(overrides, sources=pairs, out=out, exclude=exclude, private=private)
    config = load(PackConfig, file, flags)
    if shown(dry_run, config):
        return
    say(str(run_pack(config)))
    if PatientHasher.from_environment().is_public:
        say(
            f"patients are hashed with the public key: set {KEY_VARIABLE} "
            f"or {KEY_FILE_VARIABLE} to pack data that is not published"
        )


@reported
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
            say(f"report written to {written}")
            return
    summary = summarise(opened)
    if as_json:
        print(summary.model_dump_json(indent=1))
        return
    say(headline(summary) + ("; every file fits its sha256" if verify else ""))
    for table in tables(summary):
        out_console.print(table)


@reported
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
            say(str(item))
        say(report.verdict)
    if not report.clean:
        raise typer.Exit(1)
