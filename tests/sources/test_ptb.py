"""PTB Diagnostic: a real record in its published folder, and what its comments may say."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from ecgdist.preprocessing import PackStep
from ecgdist.record import STANDARD_LEADS, arrange_leads
from ecgdist.sources import Source, open_source
from tests.sources.contract import SourceContract, read_all

REAL = Path(__file__).parents[1] / "data" / "wfdb" / "ptbdb"


def copy_patient(root: Path, patient: str, name: str = "s0010_re", reason: str | None = None) -> Path:
    """The real record under a patient and a name, with a reason for admission; the header of the copy."""
    folder = root / patient
    folder.mkdir(parents=True, exist_ok=True)
    for suffix in (".dat", ".xyz"):
        shutil.copyfile(REAL / f"s0010_re{suffix}", folder / f"{name}{suffix}")
    header = (REAL / "s0010_re.hea").read_text().replace("s0010_re", name)
    if reason is not None:
        header += (
            f"# Diagnose:\n# Reason for admission: {reason}\n# Additional diagnoses: Diabetes mellitus\n"
        )
    (folder / f"{name}.hea").write_text(header)
    return folder / f"{name}.hea"


@pytest.fixture
def source(tmp_path_factory: pytest.TempPathFactory) -> Source:
    root = tmp_path_factory.mktemp("ptbdb")
    copy_patient(root, "patient001", reason="Myocardial infarction")
    copy_patient(root, "patient001", "s0014lre", reason="n/a")
    (copy_patient(root, "patient002", "s0015lre").with_suffix(".xyz")).unlink()
    return open_source("ptb", str(root))


class TestPtb(SourceContract):
    pass


def test_the_patient_is_the_folder_and_not_in_the_id(source: Source) -> None:
    assert [(each.record_id, each.patient_id) for each in source.list_records()] == [
        ("s0010_re", "patient001"), ("s0014lre", "patient001"), ("s0015lre", "patient002"),
    ]  # fmt: skip


def test_a_record_without_its_frank_leads_is_refused(source: Source) -> None:
    _, refusals = read_all(source)
    assert {key: refused.reason for key, refused in refusals.items()} == {"s0015lre": "missing_signal"}


def test_rate_age_sex_and_leads(source: Source) -> None:
    recording = source.read_record(source.list_records()[0])
    assert (recording.rate_hz, recording.age, recording.sex) == (1000, 81, "female")
    assert recording.leads == (*map(str.lower, STANDARD_LEADS), "vx", "vy", "vz")


def test_packing_takes_the_twelve_leads_by_name_and_leaves_the_frank_leads(source: Source) -> None:
    recording = source.read_record(source.list_records()[0])
    (segment,) = PackStep(rate_hz=1000, duration_s=5).segments(recording)
    twelve, present = arrange_leads(recording.signal_uv[:12], recording.leads[:12])
    assert present.all()
    np.testing.assert_array_equal(segment.signal_uv, np.rint(twelve))


@pytest.mark.parametrize(
    ("reason", "labels"),
    [
        ("Myocardial infarction", ("ptb:myocardial-infarction",)),
        ("Healthy control", ("ptb:healthy-control",)),
        ("Heart failure (NYHA 2)", ("ptb:heart-failure-nyha-2",)),
        ("Valvular heart disease", ("ptb:valvular-heart-disease",)),
        ("n/a", ()),
        ("Mrs Roe fell on 01/10/1990", ()),
    ],
)
def test_a_reason_is_a_label_only_if_the_data_set_has_it(
    tmp_path: Path, reason: str, labels: tuple[str, ...]
) -> None:
    copy_patient(tmp_path, "patient003", reason=reason)
    ((recording,), _) = read_all(open_source("ptb", str(tmp_path)))
    assert recording.labels == labels


def test_a_record_outside_of_a_patients_folder_is_its_own_patient() -> None:
    ((recording,), _) = read_all(open_source("ptb", str(REAL)))
    assert (recording.record_id, recording.patient_id) == ("s0010_re", None)
