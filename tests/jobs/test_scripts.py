"""What `ray job submit` runs are the commands of the command line."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

SCRIPTS = sorted((Path(__file__).parents[2] / "jobs").glob("*.py"))


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_a_script_is_the_command_of_its_name(
    script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(script), "--help"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(script), run_name="__main__")
    assert ended.value.code == 0
    assert f"Usage: jobs/{script.name} {script.stem} " in capsys.readouterr().out


def test_there_is_one_for_every_long_job() -> None:
    assert {script.stem for script in SCRIPTS} >= {
        "pack",
        "pretrain",
        "finetune",
        "evaluate",
        "sweep",
        "embed",
        "compare",
        "benchmark",
    }
