"""Settings of a fine-tuning run that do not go together say so."""

from __future__ import annotations

from typing import Any

import pytest

from ecgdist.config import build
from ecgdist.downstream.finetuning.config import FineTuneConfig
from ecgdist.errors import ConfigError

GIVEN = {"task": "ptbxl-super", "corpus": "c", "out": "o", "model": "m"}


def config(**changes: Any) -> FineTuneConfig:
    values = {name: value for name, value in (GIVEN | changes).items() if value is not None}
    return build(FineTuneConfig, values)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": None}, "mode = finetune needs model"),
        ({"mode": "attention", "model": None}, "mode = attention needs model"),
        ({"mode": "scratch", "model": None}, "takes either model"),
        ({"mode": "scratch", "encoder": {"kind": "s4d"}}, "takes either model"),
        ({"encoder": {"kind": "s4d"}}, "come with the model"),
        ({"mode": "scratch", "device": {"window_s": 5}}, "device comes with the model"),
        ({"mode": "attention", "layer_decay": 0.8}, "leave out readout.kind and layer_decay"),
        ({"mode": "attention", "readout": {"kind": "linear"}}, "leave out readout.kind"),
        ({"checkpoint": {"keep_best": {"metric": "loss"}}}, "checkpoint.keep_best is settled"),
        ({"label_share": 0}, "label_share = 0"),
        ({"imbalance": "smote"}, "imbalance = 'smote'"),
        ({"workers": {"count": 9}}, "more than data.lanes = 8"),
        ({"steps": 5, "epochs": 2}, "set the same thing"),
        ({"seeded": {}, "folds": {"train": ["a"], "validation": ["b"], "test": ["c"]}}, "both set the split"),
        ({"optimizer": {"learning_rate": None}}, "optimizer.learning_rate = None"),
        ({"learning_rate": 1}, "unknown key learning_rate"),
    ],
)
def test_what_does_not_fit_is_named(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        config(**changes)


def test_a_frozen_encoder_is_read_by_attention_and_a_trained_one_by_its_mean() -> None:
    assert config(mode="attention").readout_kind == "attention"
    assert config().readout_kind == "linear"
    assert config(readout={"kind": "attention"}).readout_kind == "attention"


def test_the_place_of_a_model_may_change_when_a_run_goes_on() -> None:
    assert config().fixed_part() == config(model="elsewhere", allow_leak=True).fixed_part()
    assert config().fixed_part() != config(label_share=0.1).fixed_part()
