"""The ECGs that ship with the package."""

from __future__ import annotations

import csv
from pathlib import Path

from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
from tests.sources.contract import read_all

PERSONAL = {"report", "recording_date", "nurse", "site", "device"}


def files() -> list[Path]:
    return [path for path in sample_folder().parent.rglob("*") if path.is_file() and path.suffix != ".pyc"]


def test_all_of_it_can_be_read() -> None:
    recordings, refusals = read_all(open_source("ptbxl", str(sample_folder())))
    assert not refusals
    assert len(recordings) == 353
    assert {recording.signal_uv.shape for recording in recordings} == {(12, 1000)}
    assert {recording.rate_hz for recording in recordings} == {100.0}
    assert {recording.split for recording in recordings} == {f"fold{fold}" for fold in range(1, 9)}
    assert len({recording.patient_id for recording in recordings}) == 339
    assert all(recording.labels for recording in recordings)


def test_the_table_has_no_free_text_and_no_date() -> None:
    with (sample_folder() / "ptbxl_database.csv").open(newline="", encoding="utf-8") as file:
        table = csv.DictReader(file)
        assert not PERSONAL & set(table.fieldnames or ())
        assert {row["filename_hr"] for row in table} == {""}


def test_it_is_small_and_carries_its_licence() -> None:
    assert sum(path.stat().st_size for path in files()) < 10_000_000
    notice = (sample_folder().parent / "NOTICE.md").read_text(encoding="utf-8")
    for said in ("CC BY 4.0", "353", "339", "https://doi.org/10.1038/s41597-020-0495-6", *PERSONAL):
        assert said in notice
    assert "Creative Commons" in (sample_folder() / "LICENSE.txt").read_text(encoding="utf-8")
    assert (sample_folder() / "scp_statements.csv").is_file()
