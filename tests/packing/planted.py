"""Made-up names, ids and dates, planted in source folders; none of them may come out again."""

from __future__ import annotations

import random
import shutil
import string
from pathlib import Path

import h5py
import numpy as np

from tests.packing.folders import DATA, edit, ptbxl_folder
from tests.sources.made import (
    code15_row,
    made_code15,
    made_ecg_uv,
    made_ukbiobank,
    own_row,
    write_csv,
    write_hdf5,
)

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class Planted:
    """Gives out secrets and keeps them. No two are alike, and none occurs by chance in a log."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.secrets: list[str] = []

    def name(self) -> str:
        """One word of ten letters, such as Kelmarivok."""
        pairs = (self._random.choice("bdfgklmnprstvw") + self._random.choice("aeiou") for _ in range(5))
        return self._kept("".join(pairs).capitalize())

    def identifier(self) -> str:
        """Twelve digits."""
        return self._kept("9" + "".join(self._random.choice(string.digits) for _ in range(11)))

    def date(self, header: bool = False) -> str:
        """A day of the 20th century, ISO or as in a WFDB header."""
        year, month, day = (self._random.randint(*span) for span in ((1920, 1989), (1, 12), (1, 28)))
        text = f"{day:02d}-{_MONTHS[month - 1]}-{year}" if header else f"{year}-{month:02d}-{day:02d}"
        return text if text in self.secrets else self._kept(text)

    def found_in(self, text: str) -> list[str]:
        """The secrets that a text gives away."""
        return [secret for secret in self.secrets if secret in text]

    def _kept(self, secret: str) -> str:
        assert secret not in self.secrets
        self.secrets.append(secret)
        return secret


def plant_wfdb(path: Path, planted: Planted, count: int) -> Path:
    """Copies of a real record with names in file names and headers; every third is broken in some way."""
    path.mkdir(parents=True)
    broken = 0
    for number in range(count):
        name = f"{planted.name()}_{planted.identifier()}_{planted.date()}"
        header, signal = path / f"{name}.hea", path / f"{name}.mat"
        header.write_text((DATA / "wfdb/georgia/E07500.hea").read_text().replace("E07500", name))
        shutil.copyfile(DATA / "wfdb/georgia/E07500.mat", signal)
        edit(header, "12 500 5000", f"12 500 5000 11:22:33 {planted.date(header=True)}")
        header.write_text(header.read_text() + f"# Name: {planted.name()}\n# Id: {planted.identifier()}\n")
        if number % 3 == 0:
            _break(header, signal, planted, broken)
            broken += 1
    return path


def _break(header: Path, signal: Path, planted: Planted, way: int) -> None:
    if way % 6 == 0:
        edit(header, "0 V6", f"0 {planted.name()}")
    elif way % 6 == 1:
        edit(header, "/mV", f"/{planted.name()}")
    elif way % 6 == 2:
        edit(header, " 12 500 5000", f" twelve {planted.name()} 500 5000")
    elif way % 6 == 3:
        signal.write_bytes(f"{planted.name()} born {planted.date()}".encode())
    elif way % 6 == 4:
        signal.unlink()
    else:
        header.unlink()


def plant_ptbxl(path: Path, planted: Planted, count: int) -> Path:
    """A PTB-XL folder whose table holds what a hospital's may; every fourth row has slipped in some way."""
    header = [""]

    def change(number: int, row: dict[str, str]) -> dict[str, str]:
        report = f"Sinusrhythmus, {planted.name()}, geb. {planted.date()}"
        row = {**row, "patient_id": f"{planted.identifier()}.0", "report": report, "nurse": planted.name()}
        row |= {"recording_date": f"{planted.date()} 11:22:33", "device": planted.identifier()}
        if number % 4 == 0:
            cell = [
                {"scp_codes": report},
                {"scp_codes": str({planted.name(): 100.0})},
                {"ecg_id": planted.name()},
                {"sex": planted.name()},
                {"strat_fold": f"fold {planted.name()}"},
                {"age": planted.name()},
                {"filename_hr": planted.name(), "filename_lr": planted.name()},
            ][number // 4 % 7]
            row |= cell
        elif number == 1:
            header[0] = row["filename_lr"]
        return row

    ptbxl_folder(path, count, change)
    comment = path / f"{header[0]}.hea"
    comment.write_text(comment.read_text() + f"# Name: {planted.name()} {planted.identifier()}\n")
    return path


def plant_own(path: Path, planted: Planted, kind: str, count: int) -> Path:
    """Own `.npy` or HDF5 files with names in table, file names and attributes; every fourth row cannot be used."""
    path.mkdir(parents=True)
    rows = []
    for number in range(count):
        file = f"{planted.name()}-{planted.date()}.{kind}"
        signal_mv = made_ecg_uv(number, 2500) / 1000
        if kind == "npy":
            np.save(path / file, signal_mv)
        else:
            write_hdf5(path / file, ecg=signal_mv)
            with h5py.File(path / file, "a") as opened:
                opened.attrs["patient"] = planted.name()
                opened["ecg"].attrs["recorded"] = planted.date()
        row = own_row(f"{planted.name()}.{number}", file, patient_id=planted.identifier(), age=40)
        row |= {"name": planted.name(), "born": planted.date(), "remark": f"{planted.name()}, Linkstyp"}
        if number % 4 == 0:
            row |= [
                {"labels": f"Sinus rhythm, {planted.name()}"},
                {"unit": planted.name()},
                {"leads": " ".join(planted.name() for _ in range(12))},
                {"file": f"{planted.name()}.{kind}"},
                {"rate_hz": planted.name()},
                {"record_id": f"{planted.name()}, {planted.name()}"},
            ][number // 4 % 6]
        rows.append(row)
    write_csv(path / "records.csv", rows)
    return path


def plant_ukbiobank(path: Path, planted: Planted, count: int) -> Path:
    """XML files named after the participant, with names and dates inside; two cannot be used."""
    made_ukbiobank(path, [f"{planted.identifier()}_20205_2_0.xml" for _ in range(count)])
    files = sorted(path.glob("*.xml"))
    for file in files:
        text = file.read_text(encoding="latin-1").replace("Planted", planted.name())
        text = text.replace("Sinus rhythm", f"Sinus rhythm, {planted.name()}, born {planted.date()}")
        file.write_text(text, encoding="latin-1")
    edit(files[0], 'lead="V6"', f'lead="{planted.name()}"')
    edit(files[1], "<PatientInfo>", f"<{planted.name()}>")
    (path / f"{planted.name()}_{planted.date()}.xml").write_text("<CardiologyXML/>")
    return path


def plant_code15(path: Path, planted: Planted, count: int) -> Path:
    """CODE-15% with ids of twelve digits and columns and attributes that it does not have; one cell is no number."""
    exams = [int(planted.identifier()) for _ in range(count)]
    rows = [code15_row(exam, 0, patient_id=int(planted.identifier())) for exam in exams]
    rows[0]["age"] = planted.name()
    rows[1]["AF"] = planted.name()
    made_code15(path, [row | {"name": planted.name(), "date": planted.date()} for row in rows], {0: exams})
    with h5py.File(path / "exams_part0.hdf5", "a") as opened:
        opened.attrs["technician"] = planted.name()
    return path
