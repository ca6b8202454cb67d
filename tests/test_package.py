"""The wheel: what ships, how big it is, and that it works where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MOST_BYTES = 15_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--wheel-dir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, timeout=300)
    (built,) = folder.glob("*.whl")
    return built


def test_the_wheel_is_small_and_whole(wheel: Path) -> None:
    assert wheel.stat().st_size <= MOST_BYTES
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    wanted = {
        "ecgdist/py.typed",
        "ecgdist/report/template.html",
        "ecgdist/report/sections/curves.html",
        "ecgdist/downstream/tasks/ptbxl-super.yaml",
        "ecgdist/sample/NOTICE.md",
        "ecgdist/sample/ptb-xl/LICENSE.txt",
        "ecgdist/sample/ptb-xl/ptbxl_database.csv",
        "ecgdist/sample/ptb-xl/scp_statements.csv",
    }
    assert wanted <= names
    signals = [name for name in names if name.endswith(".dat")]
    assert len(signals) == 353
    assert {name.removesuffix(".dat") + ".hea" for name in signals} <= names
    assert not [name for name in names if name.startswith("tests")]
    assert [name for name in names if name.endswith("licenses/LICENSE")]


def test_the_wheel_works_without_the_checkout(wheel: Path, tmp_path: Path) -> None:
    """Unpacked beside the installed dependencies, as pip would; the sample packs and its task is found."""
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    code = """
import sys
import ecgdist
from ecgdist.downstream.tasks import load_task
from ecgdist.sample import sample_folder
from ecgdist.sources import open_source
assert ecgdist.__file__.startswith(sys.argv[1]), ecgdist.__file__
source = open_source("ptbxl", str(sample_folder()))
records = source.list_records()
print(len(records), source.read_record(records[0]).signal_uv.shape, list(load_task("ptbxl-super").labels))
"""
    command = [sys.executable, "-c", code, str(tmp_path / "site")]
    environment = {"PYTHONPATH": str(tmp_path / "site"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "353 (12, 1000) ['NORM', 'MI', 'STTC', 'CD', 'HYP']\n"
