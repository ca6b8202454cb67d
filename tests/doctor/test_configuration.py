"""A configuration against clusters and machines that are made up, and a corpus that is there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.doctor.configuration import lanes_finding, run_findings
from ecgdist.doctor.examine import examine
from ecgdist.doctor.finding import Finding
from ecgdist.doctor.machine import Machine
from ecgdist.pretraining.config import PretrainConfig
from tests.corpus.corpora import made_ecg, row, write_corpus

MACHINE = Machine(cores=4, shm_bytes=8 * 10**9, memory_bytes=32 * 10**9, scratch_bytes=50 * 10**9)
NODE = {"CPU": 16.0, "GPU": 4.0, "object_store_memory": 8e9, "memory": 64e9}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("made") / "corpus"
    write_corpus(folder, [row(made_ecg(n), f"{n}") for n in range(40)])
    return str(folder)


def config(corpus: str = "none", **changed: Any) -> PretrainConfig:
    values = {
        "corpus": corpus,
        "out": "runs/run",
        "data": {"lanes": 8, "global_batch": 16},
        "encoder": {"size": "tiny"},
        "workers": {"count": 2},
        **changed,
    }
    return build(PretrainConfig, values)


def by_check(findings: Any) -> dict[str, Finding]:
    return {one.check: one for one in findings}


@pytest.mark.parametrize(("lanes", "workers"), [(64, 1), (64, 64), (64, 32), (8, 4), (64, 13)])
def test_lanes_that_divide_well_are_well(lanes: int, workers: int) -> None:
    assert lanes_finding(lanes, workers).level == "ok"


@pytest.mark.parametrize("workers", range(1, 65))
def test_waiting_for_the_busiest_is_what_a_count_of_lanes_says(workers: int) -> None:
    loads = [0] * workers
    for lane in range(64):
        loads[lane % workers] += 1
    idle = sum(max(loads) - load for load in loads) / (max(loads) * workers)
    found = lanes_finding(64, workers)
    assert found.values["idle_share"] == pytest.approx(idle)
    assert found.level == ("warning" if idle > 0.05 else "ok")
    assert (f"a multiple of {workers} in" in str(found.advice)) == (found.level == "warning")
    if "as fast" in str(found.advice):
        fewer = int(str(found.advice).split()[0])
        assert fewer < workers
        assert -(-64 // fewer) == max(loads) < -(-64 // (fewer - 1)), "as fast, and none fewer is"


def test_fewer_lanes_than_workers_are_an_error(tmp_path: Path) -> None:
    assert lanes_finding(8, 9).level == "error"
    (tmp_path / "run.yaml").write_text(
        "corpus: c\nout: o\ndata: {lanes: 4, global_batch: 8}\nworkers: {count: 9}\n"
    )
    result = CliRunner().invoke(app, ["doctor", str(tmp_path / "run.yaml"), "--json"])
    assert result.exit_code == 1
    found = by_check(Finding.model_validate(one) for one in json.loads(result.stdout)["findings"])
    assert found["configuration"].level == "error"
    assert "workers.count = 9 is more than data.lanes = 4" in found["configuration"].measured
    assert found["torch"].level == "ok", "the rest is looked at all the same"


def test_a_run_that_fits_has_no_errors(corpus: str) -> None:
    found = by_check(run_findings(config(corpus), MACHINE))
    assert {one.level for one in found.values()} == {"ok"}, found
    assert set(found) == {
        "lanes",
        "shared memory",
        "cores",
        "object store",
        "corpus",
        "temporary files",
        "memory",
    }
    assert found["corpus"].measured.startswith("40 of 40 ECGs")


def test_a_small_machine_is_told_so(corpus: str) -> None:
    small = replace(MACHINE, shm_bytes=64 * 2**20, cores=1, memory_bytes=10**6, scratch_bytes=10**6)
    found = by_check(run_findings(config(corpus), small))
    levels = {name: found[name].level for name in ("shared memory", "cores", "memory", "temporary files")}
    assert levels == {
        "shared memory": "error",
        "cores": "warning",
        "memory": "error",
        "temporary files": "error",
    }


def test_a_missing_corpus_is_named() -> None:
    found = by_check(run_findings(config("none"), MACHINE))
    assert found["corpus"].level == "error"
    assert "none" in found["corpus"].measured


def test_room_for_workers_and_the_tasks_that_read_for_them_is_looked_for() -> None:
    def room(run: PretrainConfig, *nodes: dict[str, float]) -> Finding:
        found = by_check(run_findings(run, MACHINE, nodes))
        return found.get("room on the cluster") or found["object store"]

    assert room(config(), NODE).level == "ok"
    starved = room(config(), {"CPU": 2.0})
    assert starved.level == "error"
    assert "2 workers with workers.cpus_each = 1 and a read task of 0.5 CPUs each need 3" in starved.measured
    no_gpu = room(config(workers={"count": 2, "accelerator": "gpu"}), {"CPU": 16.0})
    assert no_gpu.level == "error"
    elastic = config(workers={"min": 1, "max": 8, "cpus_each": 2})
    assert room(elastic, NODE).level == "warning", "fewer GPUs than workers"
    store = room(config(workers={"count": 4}), NODE | {"object_store_memory": 1e8})
    assert (store.check, store.level) == ("object store", "warning")
    assert "data.stream.object_store_bytes to 25_000_000" in str(store.advice)


def test_the_whole_examination_is_as_bad_as_its_worst_finding(corpus: str, tmp_path: Path) -> None:
    run = config(corpus).model_copy(update={"out": str(tmp_path / "runs/run")})
    well = examine(lambda: run, machine=MACHINE)
    checks = [one.check for one in well.findings]
    assert {"torch", "GPUs", "lanes", "storage: write and read"} <= set(checks)
    assert well.level in ("ok", "warning"), well.findings
    bad = examine(lambda: run, machine=replace(MACHINE, shm_bytes=0))
    assert (bad.level, bad.count("error")) == ("error", 1)
    assert list((tmp_path / "runs").iterdir()) == [], "nothing is left beside the run"
