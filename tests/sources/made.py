"""Small files in exactly the layouts in which data sets are published, made here because those are too large to ship.

The signals are invented; names, types, shapes, units and columns are the published ones.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import numpy.typing as npt

from ecgdist.record import STANDARD_LEADS

Array = npt.NDArray[Any]


def made_ecg_uv(seed: int, num_samples: int) -> npt.NDArray[np.float64]:
    """``(12, samples)`` microvolt, never all zero, in which the limb leads obey Einthoven and Goldberger."""
    random = np.random.default_rng(seed)
    beats = (np.arange(num_samples) % 350 < 20) * 900.0 + 40.0
    one, two, *chest = (
        np.round(random.uniform(0.3, 1.0) * beats + random.normal(0, 20, num_samples)) for _ in range(8)
    )
    limbs = [one, two, two - one, -(one + two) / 2, one - two / 2, two - one / 2]
    return np.array([*limbs, *chest])


def write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_hdf5(path: Path, /, **arrays: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values)


def padded(signal: Array, num_samples: int) -> Array:
    """A ``(leads, samples)`` signal in the middle of zeros, as ``(num_samples, leads)``."""
    before = (num_samples - signal.shape[1]) // 2
    return np.pad(signal, ((0, 0), (before, num_samples - signal.shape[1] - before))).T


def code15_row(exam_id: int, part: int, **changes: Any) -> dict[str, Any]:
    """A row of exams.csv."""
    row = {
        "exam_id": exam_id, "age": 50, "is_male": True, "nn_predicted_age": 51.2,
        "1dAVb": False, "RBBB": False, "LBBB": False, "SB": False, "ST": False, "AF": False,
        "patient_id": 7000 + exam_id, "death": "", "timey": "", "normal_ecg": False,
        "trace_file": f"exams_part{part}.hdf5",
    }  # fmt: skip
    assert changes.keys() <= row.keys()
    return row | changes


def made_code15(folder: Path, rows: Sequence[Mapping[str, Any]], parts: Mapping[int, Sequence[int]]) -> Path:
    """CODE-15%: the rows of exams.csv, and for each part the ids of its exams; the row of zeros is added."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "exams.csv", rows)
    for part, ids in parts.items():
        signals = [padded(made_ecg_uv(exam, 4096 if exam % 2 else 2800) / 1000, 4096) for exam in ids]
        write_hdf5(
            folder / f"exams_part{part}.hdf5",
            exam_id=np.array([*ids, 0], np.int64),
            tracings=np.array([*signals, np.zeros((4096, 12))], np.float32),
        )
    return folder


def ikem_row(exam_id: int, **changes: Any) -> dict[str, Any]:
    """A row of exams.csv."""
    row = {
        "exam_id": exam_id, "patient_id": f"{exam_id:040x}", "age": 61, "is_male": 1, "weight": -1, "height": -1,
        "ventricular_rate": 71, "atrial_rate": -1, "acquisition_date": "05-17-2017",
    }  # fmt: skip
    assert changes.keys() <= row.keys()
    return row | changes


IKEM_ROWS = [6, 7, 8, 9, 10, 11, 1, 0]  # V1 to V6, II, I, as places in the standard order


def made_ikem(
    folder: Path,
    rows: Sequence[Mapping[str, Any]],
    parts: Mapping[int, Sequence[int]],
    real_lengths: Mapping[int, int] | None = None,
) -> Path:
    """IKEM: eight leads of int16 microvolt, with the lengths of those exams that are shorter than 4,096."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "exams.csv", rows)
    for part, ids in parts.items():
        lengths = [(real_lengths or {}).get(exam, 4096) for exam in ids]
        signals = np.zeros((len(ids), 4096, 8), np.int16)
        for row, (exam, length) in enumerate(zip(ids, lengths, strict=True)):
            signals[row, :length] = made_ecg_uv(exam, length)[IKEM_ROWS].T
        write_hdf5(
            folder / f"exams_part_{part}.hdf5",
            exam_id=np.array(ids, np.int64),
            real_lengths=np.array(lengths, np.int64),
            hashes=np.array([b"0" * 40] * len(ids)),
            tracings=signals,
        )
    return folder


def samitrop_row(exam_id: int, **changes: Any) -> dict[str, Any]:
    """A row of exams.csv."""
    row = {
        "exam_id": exam_id, "age": 63, "is_male": False, "normal_ecg": False, "death": True, "timey": 1.25,
        "nn_predicted_age": 70.1,
    }  # fmt: skip
    assert changes.keys() <= row.keys()
    return row | changes


def made_samitrop(folder: Path, rows: Sequence[Mapping[str, Any]], num_exams: int | None = None) -> Path:
    """SaMi-Trop: one array of float64 without ids."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "exams.csv", rows)
    exams = range(len(rows) if num_exams is None else num_exams)
    signals = [padded(made_ecg_uv(exam, 2800 if exam else 4000) / 1000, 4096) for exam in exams]
    write_hdf5(folder / "exams.hdf5", tracings=np.array(signals))
    return folder


def sph_row(ecg_id: str, **changes: Any) -> dict[str, Any]:
    """A row of metadata.csv."""
    row = {
        "ECG_ID": ecg_id, "AHA_Code": "1", "Patient_ID": "S00001", "Age": 55, "Sex": "M", "N": 5000,
        "Date": "2020-03-04",
    }  # fmt: skip
    assert changes.keys() <= row.keys()
    return row | changes


def made_sph(folder: Path, rows: Sequence[Mapping[str, Any]]) -> Path:
    """SPH: a float16 file for every row, of the length that it states."""
    folder.mkdir(parents=True, exist_ok=True)
    write_csv(folder / "metadata.csv", rows)
    for seed, row in enumerate(rows):
        signal = made_ecg_uv(seed, int(row["N"])) / 1000
        write_hdf5(folder / "records" / f"{row['ECG_ID']}.h5", ecg=signal.astype(np.float16))
    return folder


def ukbiobank_xml(
    steps: Array, leads: Sequence[str] = STANDARD_LEADS, strip: str = "<StripData>{}</StripData>"
) -> str:
    """A resting ECG as CardioSoft writes it, cut down to what readers of it use, with what must not be read."""
    waveforms = "".join(
        f'<WaveformData lead="{lead}">{",".join(map(str, values))}</WaveformData>'
        for lead, values in zip(leads, steps, strict=True)
    )
    content = (
        f'<NumberOfLeads>{len(leads)}</NumberOfLeads><SampleRate units="Hz">500</SampleRate>'
        f"<ChannelSampleCountTotal>{steps.shape[1]}</ChannelSampleCountTotal>"
        f'<Resolution units="uVperLsb">5</Resolution>{waveforms}'
    )
    median = '<WaveformData lead="I">1,2,3</WaveformData>'
    return (
        '<?xml version="1.0" encoding="ISO-8859-1"?>\n<CardiologyXML>'
        "<ObservationDateTime><Day>17</Day><Month>5</Month><Year>2016</Year></ObservationDateTime>"
        '<PatientInfo><Name><FamilyName>Planted</FamilyName></Name><Age units="years">63</Age>'
        "<Gender>FEMALE</Gender></PatientInfo>"
        f"{strip.format(content)}"
        f"<RestingECGMeasurements><MedianSamples>{median}</MedianSamples></RestingECGMeasurements>"
        "<Interpretation><Diagnosis><DiagnosisText>Sinus rhythm</DiagnosisText></Diagnosis></Interpretation>"
        "</CardiologyXML>"
    )


def made_ukbiobank(folder: Path, names: Sequence[str]) -> Path:
    """UK Biobank: one XML file of each name."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(names):
        steps = (made_ecg_uv(seed, 5000) / 5).astype(int)
        (folder / name).write_text(ukbiobank_xml(steps), encoding="latin-1")
    return folder


def own_row(record_id: str, file: str, **changes: Any) -> dict[str, Any]:
    """A row of records.csv with every column that it may have."""
    row = {
        "record_id": record_id, "file": file, "row": "", "dataset": "ecg", "rate_hz": 250, "unit": "mV",
        "leads": " ".join(STANDARD_LEADS), "patient_id": "", "age": "", "sex": "", "labels": "", "split": "",
    }  # fmt: skip
    assert changes.keys() <= row.keys()
    return row | changes
