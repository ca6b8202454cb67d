"""The notebook runs from top to bottom, one cell after the other, and holds no output in the repository."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import ray

NOTEBOOK = Path(__file__).parent.parent.parent / "jobs/first-steps.ipynb"


def cells(kind: str) -> list[dict[str, Any]]:
    content = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert (content["nbformat"], content["nbformat_minor"]) == (4, 5)
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def test_it_holds_no_output() -> None:
    for cell in cells("code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None


@pytest.mark.ray
@pytest.mark.slow
def test_its_cells_run_in_order(demo: tuple[Path, str], tmp_path: Path) -> None:
    (tmp_path / "demo").symlink_to(demo[0])
    program = "\n\n".join("".join(cell["source"]) for cell in cells("code"))
    environment = os.environ | {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for said in (
        "353 ECGs",
        "vit tiny 128 250.0",
        "(10, 128)",
        "macro AUROC on test 0.",
        "trained on this very ECG:",
    ):
        assert said in done.stdout
    assert (tmp_path / "ecg.png").stat().st_size > 10_000
