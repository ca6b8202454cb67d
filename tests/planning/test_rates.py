"""Speeds: where they come from, and what follows from them."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from ecgdist.config import build
from ecgdist.errors import ConfigError
from ecgdist.planning.rates import ARMS, CPU_CORE, RateTable, TrainingRate, choose_rate, stream_rate
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.flops import flops_per_ecg
from tests.benchmarks.rates import RATES, rates_of
from tests.benchmarks.results import RESULTS

WINDOW = 2250


def config(size: str = "small", arm: str = "HL", **engine: Any) -> PretrainConfig:
    run = build(PretrainConfig, {"corpus": "c", "out": "o", "encoder": {"size": size}, "engine": engine})
    return run.model_copy(update={"objective": ARMS[arm]})


def test_the_speeds_that_ship_are_those_of_the_benchmarks() -> None:
    shipped = yaml.safe_load(RATES.read_text(encoding="utf-8"))
    assert shipped == rates_of(RESULTS.read_text(encoding="utf-8")), "run python -m tests.benchmarks.rates"
    table = RateTable.shipped()
    assert all(
        one.source.startswith("python -m tests.benchmarks.") for one in (*table.training, *table.stream)
    )
    assert {one.storage for one in table.stream} == {"local", "s3"}


def test_a_measured_model_has_its_measured_speed() -> None:
    table = RateTable.shipped()
    for one in table.training:
        if one.kind == CPU_CORE:
            found = choose_rate(config(one.size, one.arm), WINDOW)
            assert (found.basis, found.ecg_per_s, found.source) == ("measured", one.ecg_per_s, one.source)


def test_another_model_has_the_speed_of_the_nearest_by_its_flops() -> None:
    measured = next(one for one in RateTable.shipped().training if (one.kind, one.arm) == (CPU_CORE, "CL"))
    base = config("base")
    found = choose_rate(base, WINDOW)
    assert found.basis == "derived from a measurement"
    assert "not measured" in found.source
    assert measured.source in found.source
    flops = flops_per_ecg(base.encoder, base.objective, WINDOW)
    assert found.ecg_per_s == pytest.approx(measured.ecg_per_s * measured.flops / flops)


def test_a_shorter_window_is_not_what_was_measured() -> None:
    assert choose_rate(config(), WINDOW - 75).basis == "derived from a measurement"


GPU = TrainingRate(
    kind="H100", size="base", arm="HL", precision="bf16", compile=True, ecg_per_s=5000, source="s"
)
TABLE = RateTable(training=(GPU, GPU.model_copy(update={"compile": False, "ecg_per_s": 4000})), stream=())


def test_a_measured_gpu_is_found_by_its_kind() -> None:
    found = choose_rate(
        config("base", precision="bf16", compile=True), WINDOW, "NVIDIA H100 80GB HBM3", TABLE
    )
    assert (found.kind, found.basis, found.ecg_per_s) == ("H100", "measured", 5000)
    assert choose_rate(config("base", precision="bf16"), WINDOW, "h100", TABLE).ecg_per_s == 4000
    other = choose_rate(config("small", precision="bf16"), WINDOW, "H100", TABLE)
    assert other.basis == "derived from a measurement"
    assert other.ecg_per_s > 4000


def test_a_gpu_that_nobody_measured_has_a_share_of_its_peak_and_says_so() -> None:
    run = config("base", precision="bf16")
    flops = flops_per_ecg(run.encoder, run.objective, WINDOW)
    assumed = choose_rate(run, WINDOW, "A100", TABLE)
    assert assumed.basis == "derived from a peak"
    assert assumed.ecg_per_s == pytest.approx(0.213 * 312e12 / flops)
    assert "not measured" in assumed.source
    assert "an assumption" in assumed.source
    given = choose_rate(run, WINDOW, "A100", TABLE, mfu=0.4)
    assert given.ecg_per_s == pytest.approx(0.4 * 312e12 / flops)
    assert "MFU 40.0% (given)" in given.source
    assert choose_rate(run, WINDOW, "H100", TABLE, mfu=0.4).basis == "derived from a peak", "it was asked for"


def test_a_device_of_which_nothing_is_known_is_refused() -> None:
    with pytest.raises(ConfigError, match="--gpu B9000: not known; choose one of H200"):
        choose_rate(config(), WINDOW, "B9000")
    with pytest.raises(ConfigError, match="no speed of a cpu core in bf16 is known; measure it here"):
        choose_rate(config(precision="bf16"), WINDOW)


def test_streams_are_measured_by_storage() -> None:
    assert stream_rate("local").ecg_per_s > stream_rate("s3").ecg_per_s > 0


GPU_SECTION = """## Training on one GPU

`python -m tests.benchmarks.gpu --repeats 10`
2026-12-01, x86_64, 16 cores, 128 GiB, Linux; load 1 over the five minutes before this was written

NVIDIA H100 80GB HBM3, one process; whole steps of 1,024 real ECGs of 12 x 2,500 samples.

| size | arm | precision | ZeRO | micro-batch | compiled | recomputes | ms a step | ECG/s | MFU, % |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
| small | HL | fp32 | 0 | 1,024 |  |  | 90 (88 to 91) | 11,378 | 45.1 (44 to 46) |
| small | HL | bf16 | 0 | 1,024 |  |  | 60 (58 to 61) | 17,067 | 4.5 (4 to 5) |
| small | HL | bf16 | 1 | 1,024 | yes |  | 40 (38 to 41) | 25,600 | 6.9 (6 to 7) |
| small | HL | bf16 | 1 | 64 |  |  | 95 (94 to 96) | 10,779 | 2.9 (2 to 3) |
"""


def test_results_of_a_gpu_become_speeds_when_they_come() -> None:
    others = re.split("^(?=## )", RESULTS.read_text(encoding="utf-8"), flags=re.M)
    kept = [part for part in others if not part.startswith("## Training on one GPU")]
    found = rates_of("".join(kept) + "\n\n" + GPU_SECTION)
    table = build(RateTable, found)
    gpu = [one for one in table.training if one.kind == "H100"]
    assert [(one.precision, one.compile, one.ecg_per_s) for one in gpu] == [
        ("fp32", False, 11378),
        ("bf16", True, 25600),
    ]
    assert gpu[0].source.startswith("python -m tests.benchmarks.gpu --repeats 10, 2026-12-01")
