"""Made-up names, ids and dates, planted in source folders; none of them may come out again."""

from __future__ import annotations

import random
import shutil
import string
from pathlib import Path

from tests.packing.folders import DATA, edit, ptbxl_folder

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
