"""The configurations that are shown are valid, and plans of them say what can be."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import load
from ecgdist.jobs.kinds import KINDS
from ecgdist.pretraining.config import PretrainConfig

CONFIGS = Path(__file__).parents[2] / "jobs" / "configs"
FILES = sorted(path for path in CONFIGS.glob("*.yaml") if path.name != "kustomization.yaml")
PRETRAINING = sorted(CONFIGS.glob("pretrain-*.yaml"))
PUBLIC_ECGS, PTBXL_ECGS, ECG_BYTES = 1_311_991, 21_799, 16_000
GPU_GIB = 80


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_is_valid_and_writes_into_the_bucket_or_beside_the_demo(path: Path) -> None:
    out = load(KINDS[path.stem.partition("-")[0]].config(), path).model_dump()["out"]
    assert "/" not in out if path.stem.endswith("-sample") else out.startswith("s3://ecgdist/")


def test_there_is_one_for_every_command_and_every_kind_of_cluster() -> None:
    assert {path.stem.partition("-")[0] for path in FILES} == set(KINDS)
    wanted = {"cpu-dev", "cpu", "gpu", "gpu-node", "gpu-spot"}
    assert {path.stem.removeprefix("pretrain-") for path in PRETRAINING} == wanted


def plan(path: Path, rows: int, *words: str) -> dict[str, Any]:
    """What `ecgdist plan` says of a configuration with the workers that it asks for."""
    workers = str(load(PretrainConfig, path).workers.most)
    size = ["--rows", str(rows), "--ecg-bytes", str(ECG_BYTES), "--workers", workers]
    result = CliRunner().invoke(app, ["plan", str(path), "--json", *size, *words])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.mark.parametrize(
    "name", ["gpu", *(pytest.param(name, marks=pytest.mark.slow) for name in ("gpu-node", "gpu-spot"))]
)
def test_a_plan_of_all_public_ecgs_on_gpus_fits_into_them_and_takes_hours(name: str) -> None:
    found = plan(CONFIGS / f"pretrain-{name}.yaml", PUBLIC_ECGS, "--gpu", "H100", "--network-gbit", "400")
    (planned,) = found["by_workers"]
    state_gib = sum(planned["memory"].values()) / 2**30
    assert 1 < state_gib < 0.8 * GPU_GIB
    assert 0.3 < planned["hours"] < 48
    assert 50e6 < found["parameters"] < 150e6
    assert found["epochs"] == pytest.approx(100)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cpu-dev", "cpu"])
def test_a_plan_of_ptbxl_on_cpus_fits_into_a_machine_and_takes_less_than_a_night(name: str) -> None:
    found = plan(CONFIGS / f"pretrain-{name}.yaml", PTBXL_ECGS)
    (planned,) = found["by_workers"]
    assert sum(planned["memory"].values()) / 2**30 < 4
    assert planned["hours"] < 8
