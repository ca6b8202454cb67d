"""The picture of all augmentations on a real ECG."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ecgdist.errors import DataError
from ecgdist.report.augmentations import LEADS, draw_augmentations
from ecgdist.report.ecgpaper import Change, draw_changes
from ecgdist.signals.augment import AUGMENTATIONS


@pytest.mark.slow
def test_the_command_writes_a_picture(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ecgdist.report.augmentations"]
    done = subprocess.run(
        [*command, str(tmp_path / "out.png"), "1"], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"wrote {tmp_path / 'out.png'}\n"
    assert (tmp_path / "out.png").read_bytes()[:4] == b"\x89PNG"
    assert subprocess.run(command, capture_output=True, timeout=120).returncode == 1


def test_every_augmentation_changes_what_is_shown_of_it() -> None:
    figure = draw_augmentations()
    captions = [text.get_text().split()[0] for text in figure.axes[0].texts if "=" in text.get_text()]
    assert captions == list(AUGMENTATIONS)
    traces = [np.asarray(line.get_ydata()) for line in figure.axes[0].lines]
    pairs = [trace for trace in traces if len(trace) > 1000]
    assert len(pairs) == 2 * len(LEADS) * len(AUGMENTATIONS)
    for number, name in enumerate(AUGMENTATIONS):
        moved_mm = [
            float(np.nan_to_num(np.abs(after - before), nan=np.inf).max())
            for before, after in zip(
                pairs[4 * number : 4 * number + 4 : 2], pairs[4 * number + 1 :: 2], strict=False
            )
        ]
        assert max(moved_mm) > 1, f"{name} can be seen"


def test_an_ecg_that_is_not_shipped_is_named() -> None:
    with pytest.raises(DataError, match="no shipped ECG has the id 0; ids are those of PTB-XL"):
        draw_augmentations("0")


def test_before_and_after_share_a_baseline_and_a_scale() -> None:
    before = np.linspace(0, 1, 500)
    figure = draw_changes([Change(before, before + 0.5, "II", "raised by 0.5 mV")], 250.0)
    low, high = [
        np.asarray(line.get_ydata()) for line in figure.axes[0].lines if len(line.get_data()[0]) == 500
    ]
    np.testing.assert_allclose(high - low, 5)  # 10 mm/mV
    assert "raised by 0.5 mV" in [text.get_text() for text in figure.axes[0].texts]
