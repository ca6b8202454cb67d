"""The report of a sweep: one file that shows what the sweep's folder holds, and loads nothing."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from ecgdist.config import build
from ecgdist.downstream.evaluate import EvaluateConfig, evaluate_whole
from ecgdist.downstream.finetuning.rivals import name_of
from ecgdist.downstream.sweep.config import SweepConfig
from ecgdist.downstream.sweep.result import write_result
from ecgdist.downstream.sweep.trial import Outcome, Record
from ecgdist.errors import DataError
from ecgdist.report.sweep import SweepReport, gathered, render, write_sweep_report
from ecgdist.storage import Location
from tests.report.browser import DESKTOP_PX, PHONE_PX, Browser, problems
from tests.report.test_evaluation_report import EVIL, NOTICE, folder, text_of

__all__ = ["folder"]

RATES = (0.0003, 0.001, 0.003, 0.01)
ENDS = (256, 64, 256, 64)
"""ECGs after which a trial ended."""
VALUES = (0.71, 0.65, 0.8125, None)
METRIC = "validation_auroc"


@dataclass(frozen=True)
class Swept:
    """A finished sweep of four trials, one of which failed, with its report."""

    folder: Path
    report: SweepReport
    page: str


@pytest.fixture(scope="module")
def swept(folder: Path) -> Swept:
    """The folder that four trials would leave; their figures are made up, those on the test split are real."""
    where = {name: str(folder / name) for name in ("model", "corpus")}
    task = str(folder / "labels.yaml")
    evaluation = evaluate_whole(build(EvaluateConfig, {**where, "task": task, "resamples": 100})).evaluation
    out = folder / "sweep"
    config = build(
        SweepConfig,
        {
            "out": str(out),
            "finetune": {
                **where, "task": task,
            },
            "space": {
                "optimizer.learning_rate": {"low": 1e-4, "high": 1e-1, "log": True},
                "readout.dropout": {"choices": [0.0, 0.3]},
                "augment": {"choices": [[], ["time_shift"]]},
            },
            "trials": 4,
            "halving": {"grace_samples": 64, "factor": 2},
        },
    )  # fmt: skip
    outcomes = []
    for number, (rate, end, value) in enumerate(zip(RATES, ENDS, VALUES, strict=True)):
        drawn = {"optimizer.learning_rate": rate, "readout.dropout": number % 2, "augment": number // 2}
        values = {
            "optimizer.learning_rate": rate, "readout.dropout": 0.3 * (number % 2),
            "augment": ["time_shift"] if number // 2 else [],
        }  # fmt: skip
        record = Record(number=number, drawn=drawn, values=values)
        if value is None:
            outcomes.append(Outcome(record=record, state="failed", error=f"{EVIL} in /home/somebody/run"))
        else:
            outcomes.append(Outcome(record=record, state="done", value=value, step=end // 32))
        rows = [
            {"step": n // 32, "samples": n, METRIC: (value or 0.5) - 0.1 * (end - n) / end}
            for n in range(32, end + 1, 32)
        ]
        run = out / "trials" / name_of(number)
        run.mkdir(parents=True)
        (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    (out / "sweep.json").write_text(json.dumps(config.fixed_part()))
    target = Location.of(out)
    result = write_result(target, config, outcomes, outcomes[2], evaluation, target / "trials/00002/model")
    report = gathered(target, result)
    assert write_sweep_report(target) == target / "report.html"
    return Swept(out, report, (out / "report.html").read_text())


def test_it_is_what_is_drawn_of_the_folder(swept: Swept) -> None:
    assert render(swept.report) == swept.page
    assert NOTICE in text_of(swept.page)[:300]


def test_trials_are_in_the_order_of_the_validation_split(swept: Swept) -> None:
    assert [each.number for each in swept.report.trials] == [2, 0, 1, 3]
    assert [each.samples for each in swept.report.trials] == [256, 256, 64, 64]
    assert [each.is_chosen for each in swept.report.trials] == [True, False, False, False]
    assert "Of 4 trials, 3 came to a figure. Trial 2 is the best" in swept.report.summary
    assert "2, the best 0.003 0 [&#34;time_shift&#34;] 0.8125 8 256" in text_of(swept.page)


def test_rungs_and_best_settings_are_shown(swept: Swept) -> None:
    assert swept.report.rungs == [64, 128, 256]
    assert "(64, 128, 256 ECGs)" in text_of(swept.page)
    assert swept.report.best == {
        "optimizer.learning_rate": "0.003", "readout.dropout": "0", "augment": '["time_shift"]',
    }  # fmt: skip
    assert "trial 2 went from 0.7250 at 32 to 0.8125 at 256" in swept.report.learning.alt


def test_the_test_figures_are_those_of_the_evaluation(swept: Swept) -> None:
    figures = json.loads((swept.folder / "evaluation.json").read_text())["pretrained"]["metrics"]["macro"][
        "auroc"
    ]
    shown = f"{figures['value']:.3f} ({figures['low']:.3f} to {figures['high']:.3f})"
    assert shown in text_of(swept.page)


def test_it_needs_nothing_else_and_escapes_what_others_wrote(swept: Swept) -> None:
    assert "<script" not in swept.page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", swept.page)
    assert "default-src 'none'" in swept.page
    assert str(swept.folder.parent) not in swept.page
    assert "/home/somebody" not in swept.page


def test_a_sweep_that_has_not_ended_has_no_report(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no finished sweep"):
        write_sweep_report(Location.of(tmp_path))


@pytest.mark.browser
@pytest.mark.parametrize("width_px", [PHONE_PX, DESKTOP_PX])
def test_it_can_be_read_on_a_telephone_and_on_a_desktop(
    browser: Browser, swept: Swept, width_px: int
) -> None:
    assert problems(browser, swept.folder / "report.html", width_px) == []
