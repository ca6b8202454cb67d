"""Settings of a benchmark: each training is a valid fine-tuning, and what does not go together is refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from ecgdist.config import build
from ecgdist.downstream.benchmark.config import BenchmarkConfig, Cell
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.errors import ConfigError
from ecgdist.models.config import EncoderConfig
from ecgdist.preprocessing import DeviceStep


def config(**changes: Any) -> BenchmarkConfig:
    values = {"model": "/m", "corpus": "/c", "out": "/b", "tasks": ["ptbxl-super", "ptbxl-age"]}
    return build(BenchmarkConfig, values | changes)


def training(settings: BenchmarkConfig, mode: Any, rows: int = 640, **cell: Any) -> FineTuneConfig:
    chosen = Cell(**{"task": "ptbxl-super", "mode": mode, "share": 0.1, "seed": 3} | cell)
    return settings.training(chosen, rows, EncoderConfig(size="tiny"), DeviceStep(window_s=5))


def test_every_predictor_is_there_once() -> None:
    settings = config(label_shares=[1.0, 0.1], label_seeds=[0, 4], modes=["linear", "s4d"])
    cells = list(settings.cells("ptbxl-age"))
    assert len(set(cells)) == len(cells) == 8
    assert cells[0] == Cell("ptbxl-age", "linear", 0.1, 0)
    assert len({cell.folder for cell in cells}) == 8


def test_each_mode_is_trained_as_finetune_would() -> None:
    settings = config(steps=100, looks=5, finetune={"layer_decay": 0.8, "workers": {"count": 2}})
    tuned = training(settings, "finetune")
    assert (tuned.model, tuned.encoder, tuned.layer_decay) == ("/m", None, 0.8)
    assert (tuned.steps, tuned.seed, tuned.label_seed, tuned.label_share) == (100, 3, 3, 0.1)
    assert tuned.out == "/b/runs/ptbxl-super-finetune-0.1-seed-3"
    assert training(settings, "scratch").model == "/m"
    assert training(settings, "attention").layer_decay == 1
    rival = training(settings, "xresnet")
    assert (rival.mode, rival.model, rival.device) == ("scratch", None, DeviceStep(window_s=5))
    assert rival.encoder == EncoderConfig(kind="xresnet", size="tiny")


@pytest.mark.parametrize("rows", [3, 17, 640, 5000])
def test_it_looks_at_the_validation_split_so_many_times_whatever_the_rows(rows: int) -> None:
    tuned = training(config(steps=100, looks=5), "finetune", rows)
    batch = tuned.data.resolved_global_batch(rows, 64)
    assert batch <= rows
    assert max(1, round(tuned.evaluate_epochs * (rows // batch))) == 20


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"tasks": ["a/x.csv", "b/x.csv"]}, "two files of one name"),
        ({"label_seeds": [1, 1]}, "label_seeds = .* names one twice"),
        ({"modes": ["linear", "magic"]}, "modes"),
        ({"label_shares": [0.0]}, "label_shares"),
        ({"finetune": {"steps": 3}}, "finetune.steps is settled by the benchmark"),
        ({"finetune": {"layer_dekay": 0.8}}, "unknown key layer_dekay"),
    ],
    ids=str,
)
def test_what_does_not_go_together_is_named(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        config(**changes)


def test_tasks_modes_and_seeds_may_be_added_later() -> None:
    first = config().fixed_part()
    assert first == config(tasks=["ptbxl-sub"], modes=["s4d"], label_seeds=[9], concurrent=4).fixed_part()
    assert first != config(steps=7).fixed_part()
    assert first != config(finetune={"layer_decay": 0.5}).fixed_part()
