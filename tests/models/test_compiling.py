"""Compiled layers: the same losses and gradients, weights under the same names."""

from __future__ import annotations

import shutil

import pytest

from ecgdist.errors import ConfigError
from ecgdist.models.compiling import check_compiler, compile_all
from tests.models.batches import ENCODER_CASES
from tests.models.test_encoders import encoder_of
from tests.pretraining.runs import Setting, SmallRun, largest_difference


@pytest.mark.parametrize("case", ENCODER_CASES)
def test_compiling_changes_no_name_of_a_weight(case: str) -> None:
    encoder = encoder_of(case)
    before = list(encoder.state_dict())
    compile_all(encoder, None)
    assert list(encoder.state_dict()) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("arm", ["HL", "SimCLR, hybrid"])
def test_compiled_layers_train_alike(arm: str) -> None:
    # Micro-batches of four and of three rows: no size is compiled for alone.
    plain = SmallRun(Setting(arm=arm, micro_batch=4), plain=True)
    compiled = SmallRun(Setting(arm=arm, micro_batch=4, compile=True), plain=True)
    for mine, theirs in zip(compiled.steps(0, 3), plain.steps(0, 3), strict=True):
        assert mine.loss == pytest.approx(theirs.loss, rel=1e-5)
        assert mine.gradient_norm == pytest.approx(theirs.gradient_norm, rel=1e-4)
    assert largest_difference(compiled.engine.gradients, plain.engine.gradients) < 1e-4


def test_without_a_compiler_the_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    check_compiler()
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigError, match=r"engine.compile = true .* install g\+\+"):
        check_compiler()
