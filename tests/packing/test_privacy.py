"""No raw patient id, name, date or free text enters a corpus; a keyed hash stands for the patient."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from ecgdist.corpus import Corpus
from ecgdist.errors import ConfigError, DataError
from ecgdist.sources import open_source
from tests.packing.folders import DATA, edit, georgia_folder, pack_to, ptbxl_folder

pytestmark = pytest.mark.ray

PATIENT_ID = "987654321"
NAME = "Maria Mustermann"
DATE = "03.02.1987"
REPORT = f"Sinusrhythmus, Frau {NAME}, geb. {DATE}, Linkstyp"
SECRETS = (PATIENT_ID, NAME, "Mustermann", DATE, "1987-02-03", "Sinusrhythmus", "Linkstyp", "Feb-1987")


def identified(number: int, row: dict[str, str]) -> dict[str, str]:
    """A row with all that a hospital's table may hold; in rows 3 to 5 the columns have slipped."""
    row = {**row, "patient_id": f"{PATIENT_ID}.0", "recording_date": "1987-02-03 11:22:33", "report": REPORT}
    if number in (3, 4, 5):
        row[{3: "scp_codes", 4: "patient_id", 5: "ecg_id"}[number]] = REPORT
    return row


@pytest.fixture
def hospital(ray_cluster: None, tmp_path: Path) -> tuple[str, str]:
    ptbxl = ptbxl_folder(tmp_path / "ptb-xl", 8, identified)
    header = sorted(ptbxl.rglob("*.hea"))[0]
    header.write_text(header.read_text() + f"# Name: {NAME}\n")
    broken = sorted(ptbxl.rglob("*.hea"))[1]
    first, *rest = broken.read_text().splitlines()
    broken.write_text("\n".join([f"{first} {DATE} {NAME}".replace(" 12 ", " twelve "), *rest]))
    wfdb = georgia_folder(tmp_path / "wfdb", "a", "b")
    edit(wfdb / "a.hea", "12 500 5000", "12 500 5000 11:22:33 03-Feb-1987")
    edit(wfdb / "a.hea", "# Dx: ", f"# Name: {NAME}\n# Dx: {REPORT},")
    edit(wfdb / "b.hea", "0 V6", f"0 {NAME}")
    return f"ptbxl={ptbxl}", f"wfdb={wfdb}"


def every_written_text(folder: Path) -> str:
    """All files as text, the Parquet files decompressed too."""
    texts = []
    for path in folder.rglob("*"):
        if path.is_file():
            texts.append(path.read_bytes().decode("latin-1"))
        if path.suffix == ".parquet":
            table = pq.read_table(path)
            texts.append(str(table.to_pydict()) + str(table.schema) + str(table.schema.metadata))
    return "\n".join(texts)


def test_no_id_name_date_or_free_text_is_written(hospital: tuple[str, str], tmp_path: Path) -> None:
    corpus = pack_to(tmp_path / "corpus", *hospital, max_refused_share=0.6).corpus
    assert corpus.manifest.refused == {"unknown_lead": 1, "unreadable_header": 1, "unreadable_metadata": 3}
    assert corpus.manifest.rows == 5
    written = every_written_text(tmp_path / "corpus")
    assert "unreadable_metadata" in written  # the search sees what is there
    assert [secret for secret in SECRETS if secret in written] == []


def test_nothing_is_written_by_a_packing_that_stops(hospital: tuple[str, str], tmp_path: Path) -> None:
    """The person at the keyboard may see what is wrong with a file; the folder may not keep it."""
    with pytest.raises(DataError, match=NAME):
        pack_to(tmp_path / "corpus", *hospital, max_refused_share=0.1)
    written = every_written_text(tmp_path / "corpus")
    assert [secret for secret in SECRETS if secret in written] == []


def test_the_columns_are_an_allow_list(hospital: tuple[str, str], tmp_path: Path) -> None:
    corpus = pack_to(tmp_path / "corpus", *hospital, max_refused_share=0.6).corpus
    facts = [
        "record_id", "source", "patient_key", "segment", "lead_mask", "valid_samples", "age", "sex", "day",
        "labels", "split", "quality", "source_rate_hz", "source_samples", "nan_share", "flat_leads", "clipped_leads",
        "peak_uv", "limb_residual_uv", "fingerprint",
    ]  # fmt: skip
    shard = pq.ParquetFile(tmp_path / "corpus/shards/00000.parquet")
    assert shard.schema_arrow.names == ["signal", *facts]
    assert corpus.index.column_names == ["shard", "row_group", "row", *facts]
    assert corpus.refused.column_names == ["source", "record_id", "reason"]


def keys_by_record(corpus: Corpus) -> dict[tuple[str, str], str]:
    columns = (corpus.index[name].to_pylist() for name in ("source", "record_id", "patient_key"))
    return {(source, record): key for source, record, key in zip(*columns, strict=True)}


def test_one_patient_has_one_key_in_all_folders_of_a_kind(ray_cluster: None, tmp_path: Path) -> None:
    def patients(number: int, row: dict[str, str]) -> dict[str, str]:
        return {**row, "patient_id": ("7", "7", "8", "")[number]}

    one, two = (ptbxl_folder(tmp_path / name, 4, patients) for name in ("one", "two"))
    ids = [listing.record_id for listing in open_source("ptbxl", str(one)).list_records()]
    keys = keys_by_record(pack_to(tmp_path / "corpus", f"ptbxl={one}", f"ptbxl={two}").corpus)
    first, same, other, nobody = (keys["ptbxl", record] for record in ids)
    assert first == same
    assert len({first, other, nobody}) == 3
    assert [keys["ptbxl-2", record] for record in ids[:3]] == [first, same, other]
    assert keys["ptbxl-2", ids[3]] != nobody, "records without a patient id are patients of their own"
    assert all(len(key) == 32 for key in keys.values())


def test_records_of_another_kind_are_other_patients(ray_cluster: None, tmp_path: Path) -> None:
    corpus = pack_to(
        tmp_path / "corpus", f"ptbxl={DATA / 'ptb-xl'}", f"wfdb={DATA / 'ptb-xl'}", max_refused_share=0.5
    ).corpus
    assert len(set(keys_by_record(corpus).values())) == corpus.manifest.rows == 4


def test_a_key_of_ones_own_changes_all_keys_and_the_fingerprint(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"ptbxl={ptbxl_folder(tmp_path / 'ptb-xl', 5)}"
    corpora = [pack_to(tmp_path / "public", source).corpus]
    for name in ("one", "two", "one-again"):
        monkeypatch.setenv("ECGDIST_PATIENT_KEY", f"the key of hospital {name.removesuffix('-again')}")
        corpora.append(pack_to(tmp_path / name, source).corpus)
        assert b"the key of hospital" not in (tmp_path / name / "manifest.json").read_bytes()
    public, one, two, one_again = corpora
    fingerprints = {corpus.manifest.patient_key_fingerprint for corpus in (public, one, two)}
    assert len(fingerprints) == 3
    assert not set(keys_by_record(public).values()) & set(keys_by_record(one).values())
    assert not set(keys_by_record(one).values()) & set(keys_by_record(two).values())
    assert one_again.corpus_id == one.corpus_id
    assert keys_by_record(one_again) == keys_by_record(one)


def test_a_short_key_protects_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECGDIST_PATIENT_KEY", "hunter2")
    with pytest.raises(ConfigError, match="has 7 characters; give at least 16") as caught:
        pack_to(tmp_path / "corpus", f"ptbxl={DATA / 'ptb-xl'}")
    assert "hunter2" not in str(caught.value)
