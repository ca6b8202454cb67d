"""Data sets in the Challenge's format: Chapman and Ningbo, Georgia, CPSC 2018, from real files."""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pytest

from ecgdist.errors import DataError, RecordRefused
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS, Recording
from ecgdist.sources import Source, open_source
from ecgdist.storage import Location
from tests.sources.contract import SourceContract, read_all
from tests.sources.made_wfdb import make_record, real_ecg

DATA = Path(__file__).parents[1] / "data"
GEORGIA = DATA / "wfdb" / "georgia" / "E07500"
EARLY_GEORGIA = DATA / "wfdb" / "quirks" / "E00015"
ORPHAN = DATA / "wfdb" / "quirks" / "E07510"
CPSC = DATA / "wfdb" / "cpsc_2018" / "A0064"
EXTRA = DATA / "challenge2021" / "cpsc_2018_extra" / "g1" / "Q0001"
NINGBO = DATA / "challenge2021" / "ningbo" / "g1" / "JS20004"


def copy_record(record: Path, folder: Path) -> Path:
    """Copy what there is of a record's two files; the path of the copy without suffix."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".hea", ".mat"):
        if record.with_suffix(suffix).exists():
            shutil.copyfile(record.with_suffix(suffix), folder / f"{record.name}{suffix}")
    return folder / record.name


def edit(header: Path, old: str, new: str) -> None:
    text = header.read_text(encoding="utf-8")
    assert old in text
    header.write_text(text.replace(old, new), encoding="utf-8")


def read(kind: str, folder: Path) -> dict[str, Recording]:
    """The records of a folder by id, of which none is refused."""
    recordings, refusals = read_all(open_source(kind, str(folder)))
    assert not refusals
    return {recording.record_id: recording for recording in recordings}


def reasons(kind: str, folder: Path) -> dict[str, str]:
    _, refusals = read_all(open_source(kind, str(folder)))
    return {record_id: refused.reason for record_id, refused in refusals.items()}


class TestGeorgia(SourceContract):
    @pytest.fixture
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Source:
        folder = tmp_path_factory.mktemp("georgia")
        copy_record(GEORGIA, folder / "g7")
        copy_record(EARLY_GEORGIA, folder)
        copy_record(ORPHAN, folder / "g7")
        return open_source("georgia", str(folder))

    def test_the_layouts_of_2020_and_2021_give_the_same_ids(self, source: Source) -> None:
        assert [each.record_id for each in source.list_records()] == ["E00015", "E07500", "E07510"]

    def test_an_early_header_with_a_date_and_a_mat_name_is_a_valid_ecg(self, source: Source) -> None:
        (early,) = [each for each in read_all(source)[0] if each.record_id == "E00015"]
        assert early.leads == STANDARD_LEADS
        assert (early.rate_hz, early.age, early.sex) == (500, 67, "male")
        stored = np.fromfile(EARLY_GEORGIA.with_suffix(".mat"), "<i2", offset=24).reshape(5000, 12).T
        np.testing.assert_allclose(early.signal_uv, stored / 4.88)

    def test_a_header_alone_is_a_missing_signal(self, source: Source) -> None:
        assert reasons("georgia", Path(source.root.uri)) == {"E07510": "missing_signal"}


class TestCpsc2018(SourceContract):
    @pytest.fixture
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Source:
        folder = tmp_path_factory.mktemp("cpsc")
        copy_record(CPSC, folder / "Training_WFDB")
        copy_record(EXTRA, folder / "Training_2")
        copy_record(GEORGIA, folder / "Training_2")
        return open_source("cpsc2018", str(folder))

    def test_both_vocabularies_give_one(self, source: Source) -> None:
        recordings = {each.record_id: each for each in read_all(source)[0]}
        assert "#Dx: AF" in CPSC.with_suffix(".hea").read_text()
        assert recordings["A0064"].labels == ("snomed:164889003",)
        assert recordings["Q0001"].labels == ("snomed:164867002", "snomed:427084000")

    def test_records_of_another_data_set_are_refused(self, source: Source) -> None:
        assert reasons("cpsc2018", Path(source.root.uri)) == {"E07500": "foreign_record"}


class TestChapmanNingbo(SourceContract):
    """Real records of Ningbo in the folders of ecg-arrhythmia 1.0.0, and its two headers with merged lines."""

    @pytest.fixture
    def source(self, tmp_path_factory: pytest.TempPathFactory) -> Source:
        root = tmp_path_factory.mktemp("ecg-arrhythmia") / "WFDBRecords"
        copy_record(NINGBO, root / "20" / "200")
        make_record(root / "01" / "019" / "JS01052", real_ecg(), STANDARD_LEADS, suffix=".mat")
        merge_first_lines(root / "01" / "019" / "JS01052.hea")
        make_record(root / "01" / "010" / "JS00001", real_ecg(), STANDARD_LEADS, suffix=".mat")
        return open_source("chapman-ningbo", str(root.parent))

    def test_ids_are_names_and_every_record_is_its_own_patient(self, source: Source) -> None:
        listings = source.list_records()
        assert [each.record_id for each in listings] == ["JS00001", "JS01052", "JS20004"]
        assert {each.patient_id for each in listings} == {None}

    def test_a_header_whose_first_lines_are_merged_is_refused_by_name(self, source: Source) -> None:
        assert reasons("chapman-ningbo", Path(source.root.uri)) == {"JS01052": "unreadable_header"}

    def test_flat_leads_are_read_and_flagged(self, source: Source) -> None:
        (flat,) = [each for each in read_all(source)[0] if each.record_id == "JS20004"]
        assert [lead for lead, row in zip(flat.leads, flat.signal_uv, strict=True) if not row.any()] == [
            "V2", "V4", "V6",
        ]  # fmt: skip
        (segment,) = PackStep().segments(flat)
        assert segment.measures.flat_leads.sum() == 3


def merge_first_lines(header: Path) -> None:
    """What was published of JS01052: the record line runs into the gain of the first lead."""
    first, second, *rest = header.read_text(encoding="utf-8").splitlines()
    header.write_text("\n".join([first + second[second.index("000/mV") :], *rest, ""]), encoding="utf-8")
    assert header.read_text().startswith("JS01052 12 500 5000000/mV 16 0 ")


def test_the_renamed_record_of_ningbo_is_read_by_its_header(tmp_path: Path) -> None:
    copied = copy_record(NINGBO, tmp_path / "ningbo" / "g13")
    copied.with_suffix(".mat").rename(copied.with_name("JS23074.mat"))
    copied.with_suffix(".hea").rename(copied.with_name("S23074.hea"))
    edit(copied.with_name("S23074.hea"), "JS20004 12", "S23074 12")
    edit(copied.with_name("S23074.hea"), "JS20004.mat", "JS23074.mat")
    expected = read("wfdb", NINGBO.parent)["JS20004"].signal_uv
    for kind, record_id in (("chapman-ningbo", "S23074"), ("challenge2021", "ningbo/g13/S23074")):
        np.testing.assert_array_equal(read(kind, tmp_path)[record_id].signal_uv, expected)


def test_no_header_is_opened_to_list_the_renamed_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[str] = []
    open_file = Location.open

    def watched(file: Location) -> AbstractContextManager[BinaryIO]:
        opened.append(file.name)
        return open_file(file)

    monkeypatch.setattr(Location, "open", watched)
    for name in ("S23074.hea", "JS23074.mat", "JS00001.hea", "JS00001.mat"):
        (tmp_path / name).write_bytes(b"")
    source = open_source("chapman-ningbo", str(tmp_path))
    assert [each.record_id for each in source.list_records()] == ["JS00001", "S23074"]
    assert opened == []
    (tmp_path / "JS00002.mat").write_bytes(b"")
    source.list_records()
    assert sorted(opened) == ["JS00001.hea", "S23074.hea"]


@pytest.mark.parametrize("age", ["NaN", "-1"])
def test_an_age_that_is_none_is_unknown(tmp_path: Path, age: str) -> None:
    edit(copy_record(GEORGIA, tmp_path).with_suffix(".hea"), "# Age: ", f"# Age: {age}\n#was: ")
    assert read("georgia", tmp_path)["E07500"].age is None


def test_codes_and_never_words_are_labels(tmp_path: Path) -> None:
    header = copy_record(GEORGIA, tmp_path).with_suffix(".hea")
    edit(header, "# Dx: ", "# Dx: Jane Roe,713427006,59118001,63593006,PVC\n#was: ")
    assert read("georgia", tmp_path)["E07500"].labels == (
        "snomed:164884008", "snomed:284470004", "snomed:59118001",
    )  # fmt: skip


def test_a_second_file_of_a_name_is_refused_without_its_path(tmp_path: Path) -> None:
    copy_record(GEORGIA, tmp_path / "2020")
    copy_record(GEORGIA, tmp_path / "2021" / "g7")
    assert reasons("georgia", tmp_path) == {"E07500 (file 2)": "duplicate_id"}


def test_a_folder_of_another_data_set_says_so(tmp_path: Path) -> None:
    copy_record(CPSC, tmp_path)
    with pytest.raises(
        DataError, match="none with a name of georgia like E00001; check the path and the kind"
    ):
        open_source("georgia", str(tmp_path)).list_records()


def test_a_signal_without_a_header_keeps_its_refusal(tmp_path: Path) -> None:
    copy_record(GEORGIA, tmp_path)
    (tmp_path / "E00001.mat").write_bytes(b"")
    (lost, _) = open_source("georgia", str(tmp_path)).list_records()
    assert lost.record_id == "E00001"
    with pytest.raises(RecordRefused, match="missing_header"):
        open_source("georgia", str(tmp_path)).read_record(lost)
