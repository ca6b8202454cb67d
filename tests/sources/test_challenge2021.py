"""The Challenge 2021 training set: its subsets, on real files."""

from __future__ import annotations

import shutil
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import DataError
from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all
from tests.sources.made_wfdb import make_record, real_ecg
from tests.sources.test_challenge import CPSC, DATA, GEORGIA, ORPHAN, copy_record, edit

REAL = DATA / "challenge2021"
PTB_XL = REAL / "ptb-xl" / "g1" / "HR00001"


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """Real records of five subsets as PhysioNet lays them out."""
    root = tmp_path_factory.mktemp("challenge-2021")
    for subset in ("ptb-xl", "ningbo", "cpsc_2018_extra"):
        shutil.copytree(REAL / subset, root / "training" / subset)
    copy_record(CPSC, root / "training" / "cpsc_2018" / "g1")
    copy_record(GEORGIA, root / "training" / "georgia" / "g8")
    copy_record(ORPHAN, root / "training" / "georgia" / "g8")
    return open_source("challenge2021", str(root))


class TestChallenge2021(SourceContract):
    pass


IDS = [
    "cpsc_2018/g1/A0064", "cpsc_2018_extra/g1/Q0001", "georgia/g8/E07500", "georgia/g8/E07510",
    "ningbo/g1/JS20004", "ptb-xl/g1/HR00001",
]  # fmt: skip


@pytest.mark.parametrize("below", ["", "training"])
def test_an_id_begins_with_its_subset_whichever_folder_is_given(source: Source, below: str) -> None:
    root = source.root / below if below else source.root
    assert [each.record_id for each in open_source("challenge2021", root).list_records()] == IDS


def test_the_archives_of_the_challenge_have_the_same_subsets(source: Source, tmp_path: Path) -> None:
    training = Path(source.root.uri) / "training"
    shutil.copytree(training / "ptb-xl" / "g1", tmp_path / "WFDB_PTBXL")
    shutil.copytree(training / "georgia" / "g8", tmp_path / "WFDB_Ga")
    found = [each.record_id for each in open_source("challenge2021", str(tmp_path)).list_records()]
    assert found == ["georgia/E07500", "georgia/E07510", "ptb-xl/HR00001"]


def test_a_data_set_under_both_of_its_names_is_said(source: Source, tmp_path: Path) -> None:
    published = Path(source.root.uri) / "training" / "ptb-xl"
    for groups, name in ((published, "published"), (published / "g1", "flat")):
        root = tmp_path / name
        shutil.copytree(groups, root / "training" / "ptb-xl")
        shutil.copytree(published / "g1", root / "WFDB_PTBXL")
        said = "holds records of ptb-xl twice: HR00001 is in WFDB_PTBXL and in training/ptb-xl; move one of these two"
        with pytest.raises(DataError, match=said):
            open_source("challenge2021", str(root)).list_records()


def test_one_pattern_leaves_ptb_xl_out_and_nothing_else(source: Source) -> None:
    ids = [f"{source.kind}/{each.record_id}" for each in source.list_records()]
    assert [each for each in ids if fnmatchcase(each, "challenge2021/ptb-xl/*")] == [
        "challenge2021/ptb-xl/g1/HR00001"
    ]


def test_hr_is_ptb_xl_under_the_number_of_its_ecg_id(source: Source) -> None:
    copied = source.read_record(source.list_records()[-1])
    original = open_source("ptbxl", str(DATA / "ptb-xl"))
    first = original.read_record(original.list_records()[0])
    assert (copied.record_id, first.record_id) == ("ptb-xl/g1/HR00001", "1")
    np.testing.assert_array_equal(copied.signal_uv, first.signal_uv)
    assert copied.patient_id is None, "the Challenge publishes no patient, and none is invented"


def test_labels_are_of_one_vocabulary(source: Source) -> None:
    labels = {each.record_id: each.labels for each in read_all(source)[0]}
    assert labels == {
        "cpsc_2018/g1/A0064": ("snomed:164889003",),
        "cpsc_2018_extra/g1/Q0001": ("snomed:164867002", "snomed:427084000"),
        "georgia/g8/E07500": labels["georgia/g8/E07500"],
        "ningbo/g1/JS20004": ("snomed:284470004", "snomed:427084000", "snomed:427172004", "snomed:55827005"),
        "ptb-xl/g1/HR00001": ("snomed:251146004", "snomed:426783006"),
    }


def test_an_age_of_300_means_above_89(tmp_path: Path) -> None:
    edit(copy_record(PTB_XL, tmp_path / "ptb-xl" / "g1").with_suffix(".hea"), "#Age: 56", "#Age: 300")
    ((recording,), _) = read_all(open_source("challenge2021", str(tmp_path)))
    assert recording.age == 90


def test_an_early_header_without_label_and_with_another_gain(tmp_path: Path) -> None:
    expected = real_ecg() * 5.0
    copied = copy_record(PTB_XL, tmp_path / "ptb-xl" / "g1")
    shutil.copyfile(REAL / "HR00001_early.hea", copied.with_suffix(".hea"))
    ((recording,), refusals) = read_all(open_source("challenge2021", str(tmp_path)))
    assert not refusals
    assert recording.labels == ()
    np.testing.assert_array_equal(recording.signal_uv, expected)


@pytest.mark.parametrize(
    ("name", "rate_hz", "seconds"),
    [("ptb/g1/S0001", 1000, 5.0), ("st_petersburg_incart/g1/I0001", 257, 5000 / 257)],
)
def test_made_records_of_other_rates_keep_them(
    tmp_path: Path, name: str, rate_hz: int, seconds: float
) -> None:
    make_record(tmp_path / name, real_ecg(), STANDARD_LEADS, rate_hz, suffix=".mat")
    ((recording,), refusals) = read_all(open_source("challenge2021", str(tmp_path)))
    assert not refusals
    assert recording.rate_hz == rate_hz
    assert recording.signal_uv.shape[1] / rate_hz == seconds
    assert PackStep().segments(recording)
    assert recording.flags == ("patient_unknown",)  # both hold several ECGs of most patients


def test_a_record_in_no_subset_is_refused(tmp_path: Path) -> None:
    copy_record(GEORGIA, tmp_path / "georgia" / "g8")
    copy_record(CPSC, tmp_path / "more")
    _, refusals = read_all(open_source("challenge2021", str(tmp_path)))
    assert {key: refused.reason for key, refused in refusals.items()} == {"more/A0064": "unknown_subset"}


def test_a_subset_alone_names_what_to_do() -> None:
    with pytest.raises(
        DataError, match=r"has none of the folders chapman_shaoxing, cpsc_2018, .* its own kind of source"
    ):
        open_source("challenge2021", str(GEORGIA.parent.parent / "mitdb")).list_records()
