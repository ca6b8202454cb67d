"""A plan as a whole: by hand, in its shape beside a real run, and as the command prints it."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from ecgdist.cli import app
from ecgdist.config import build
from ecgdist.planning.communication import Network, step_traffic
from ecgdist.planning.estimate import Circumstances, estimate_pretraining
from ecgdist.planning.layout import RunLayout
from ecgdist.planning.measure import measure_training
from ecgdist.planning.rates import Rate, StreamRate
from ecgdist.planning.show import duration
from ecgdist.pretraining.config import PretrainConfig
from tests.corpus.corpora import made_ecg, row, write_corpus

TINY = {"size": "tiny"}
RATE = Rate(kind="cpu core", ecg_per_s=100, basis="given", source="a test")
FAST = StreamRate(storage="local", ecg_per_s=1e9, source="a test")
FREE = Network(bytes_per_s=1e15, latency_s=0)


def layout(rows: int = 10_000, ecg_bytes: float | None = 16_000, **changed: Any) -> RunLayout:
    values = {
        "corpus": "none",
        "out": "run",
        "steps": 500,
        "data": {"lanes": 64, "global_batch": 256},
        "encoder": TINY,
        **changed,
    }
    return RunLayout.of_rows(build(PretrainConfig, values), rows, ecg_bytes)


def test_hours_and_money_are_those_of_the_busiest_worker() -> None:
    given = Circumstances(RATE, FAST, FREE, price_per_gpu_hour=3)
    for workers in (1, 2, 3, 48, 64):
        (found,) = estimate_pretraining(layout(), given, [workers]).by_workers
        loads = [0] * workers
        for lane in range(64):
            loads[lane % workers] += 4
        assert found.rows == max(loads)
        hours = 500 * max(loads) / 100 / 3600
        assert found.hours == pytest.approx(hours, rel=1e-6)
        assert found.gpu_hours == pytest.approx(workers * hours, rel=1e-6)
        assert found.cost == pytest.approx(3 * workers * hours, rel=1e-6)
        assert found.efficiency == pytest.approx(256 / max(loads) / workers, rel=1e-6)
        assert found.bound == "compute"


def test_a_step_waits_for_the_slowest_of_what_it_needs() -> None:
    slow_stream = StreamRate(storage="s3", ecg_per_s=50, source="a test")
    (reading,) = estimate_pretraining(layout(), Circumstances(RATE, slow_stream, FREE), [4]).by_workers
    assert (reading.bound, reading.step_s) == ("stream", pytest.approx(64 / 50))
    network = Network(bytes_per_s=1e6, latency_s=0.01)
    (sending,) = estimate_pretraining(layout(), Circumstances(RATE, FAST, network), [4]).by_workers
    assert sending.bound == "communication"
    expected = network.seconds(step_traffic(layout(), sending.zero_stage, 4), 4)
    assert sending.communicate_s == pytest.approx(expected)
    assert sending.step_s == pytest.approx(64 / 100 + expected)


def test_storage_that_all_workers_share_is_a_limit() -> None:
    run = layout()
    given = Circumstances(RATE, FAST, FREE, storage_bytes_per_s=1e6)
    (found,) = estimate_pretraining(run, given, [64]).by_workers
    assert found.bound == "stream"
    assert found.storage_bytes_per_s == pytest.approx(1e6)
    assert found.step_s >= 256 * 16_000 / 1e6


def test_totals_are_sums_over_all_steps() -> None:
    run = layout()
    found = estimate_pretraining(run, Circumstances(RATE, FAST), [1, 128])
    assert found.ecgs_seen == 500 * 256
    assert found.epochs == pytest.approx(500 / (10_000 // 256))
    assert found.total_pflop == pytest.approx(500 * 256 * run.flops_per_ecg / 1e15)
    assert found.read_bytes == pytest.approx(500 * 256 * 16_000 * found.read_amplification)
    assert found.checkpoints_kept_bytes == 3 * found.checkpoint_bytes
    assert found.by_workers[0].cost is None, "there is no price that was not given"
    assert found.not_possible == {128: "needs data.lanes of at least 128; it is 64"}
    assert estimate_pretraining(layout(ecg_bytes=None), Circumstances(RATE, FAST), [1]).read_bytes is None


def test_a_plan_of_a_corpus_is_that_of_its_rows(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "corpus", [row(made_ecg(n), f"{n}") for n in range(40)])
    values = {
        "corpus": str(corpus.location),
        "out": "run",
        "steps": 10,
        "data": {"lanes": 4, "global_batch": 8},
        "encoder": {"size": "tiny", "patch_samples": 75},
    }
    run = RunLayout.of_corpus(build(PretrainConfig, values))
    (shard,) = corpus.manifest.shards
    assert run.ecg_bytes == shard.bytes / 40
    assert run.order.num_rows == 40
    assert run.window_samples == 900, "100 Hz"


@pytest.mark.slow
def test_the_shape_of_a_real_measurement_is_that_of_its_prediction() -> None:
    """One and two real processes; times are not compared, they are those of a busy machine."""
    run = layout(data={"lanes": 2, "global_batch": 8}, engine={"zero_stage": 1})
    measured = {n: measure_training(run.config, run.preprocessing, n, rows=8 // n, steps=2) for n in (1, 2)}
    rate = measured[1].rate()
    assert rate.basis == "measured"
    assert rate.ecg_per_s == pytest.approx(8 / (sum(measured[1].seconds) / 2), rel=1e-6)
    predicted = {
        one.workers: one for one in estimate_pretraining(run, Circumstances(rate, FAST), [1, 2]).by_workers
    }
    for workers, real in measured.items():
        assert len(real.seconds) == 2
        assert min(real.seconds) > 0
        assert predicted[workers].rows == real.rows
        assert predicted[workers].step_s > 0
    assert predicted[1].step_s == pytest.approx(8 / rate.ecg_per_s), "what was measured is predicted"
    assert predicted[1].step_s > predicted[2].compute_s == pytest.approx(4 / rate.ecg_per_s)
    assert predicted[1].communicate_s == 0 < predicted[2].communicate_s


def plan(folder: Path, *arguments: str, text: str | None = None) -> Result:
    (folder / "run.yaml").write_text(
        text or "corpus: none\nsteps: 1000\nencoder: {size: tiny}\ndata: {lanes: 64, global_batch: 256}\n"
    )
    return CliRunner().invoke(app, ["plan", str(folder / "run.yaml"), *arguments])


def test_the_command_prints_its_assumptions_beside_its_tables(tmp_path: Path) -> None:
    result = plan(tmp_path, "--rows", "100000", "--ecg-bytes", "16000", "--price-per-gpu-hour", "2.5")
    assert result.exit_code == 0, result.output
    for part in (
        "1,000 steps of 256",
        "GB to read",
        "by workers",
        "GiB of a worker",
        "assumptions:",
        "not measured",
    ):
        assert part in result.output, part
    assert "needs data.lanes" in result.output
    assert not (tmp_path / "run").exists()


def test_json_is_the_whole_plan(tmp_path: Path) -> None:
    result = plan(tmp_path, "--rows", "100000", "--gpu", "A100", "--workers", "2", "--workers", "8", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [one["workers"] for one in found["by_workers"]] == [2, 8]
    assert found["rate"]["basis"] == "derived from a peak"
    assert found["price_per_gpu_hour"] is None
    assert len(found["state_memory"]) == 2 * 4 * 2
    assert all(math.isfinite(one["hours"]) for one in found["by_workers"])


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--rows", "9999", "--rate", "5", "--measure"], "--rate and --measure say the same thing"),
        (["--rows", "9999", "--mfu", "0.3"], "name the kind of GPU"),
        (["--rows", "9999", "--gpu", "B9000"], "--gpu B9000: not known"),
        (["--rows", "9999", "--gpu", "H100", "--measure"], "--measure measures a core of this machine"),
        (["--rows", "9999", "--rate", "0"], "--rate 0 is not a number of ECG/s above 0"),
        (["--rows", "10"], "global_batch = 256 is more than the 10 selected rows"),
        (["--ecg-bytes", "5"], "--ecg-bytes goes with --rows"),
        ([], "none is not a corpus"),
        (["--rows", "9999", "--set", "workers.accelerator=gpu"], "name the kind of GPU"),
    ],
)
def test_what_cannot_be_planned_is_said_in_a_sentence(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = plan(tmp_path, *arguments)
    assert result.exit_code == 1
    assert sentence in " ".join(result.stderr.split())


def test_pack_is_still_planned_by_its_name() -> None:
    shown = CliRunner().invoke(app, ["plan", "--help"]).output
    assert "pack" in shown
    assert "pretrain" in shown
    wrong = CliRunner().invoke(app, ["plan", "pack", "ptbxxl=x"])
    assert "unknown source kind 'ptbxxl'" in wrong.output


@pytest.mark.parametrize(
    ("hours", "text"), [(0.001, "3.6 s"), (0.5, "30.0 min"), (3, "3.0 h"), (240, "10.0 days")]
)
def test_times_have_a_unit_that_suits_them(hours: float, text: str) -> None:
    assert duration(hours) == text
