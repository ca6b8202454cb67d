"""Files of a checkpoint that could run code are refused before anything loads them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from ecgdist.errors import DataError
from ecgdist.pretraining.engine import to_universal
from ecgdist.pretraining.pickles import refuse_code
from tests.pretraining.processes import Processes
from tests.pretraining.resume import SAVED_AT, run_through
from tests.pretraining.runs import Setting, SmallRun, slow

GroupOf = Callable[[int], Processes]


class Planted:
    """Creates a file when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def plant(file: Path, mark: Path) -> None:
    # A file that this test has just had written.
    torch.save({**torch.load(file, weights_only=False), "extra": Planted(mark)}, file)


@pytest.mark.parametrize("zero_stage", [*slow(0, 1, 2), 3])
@pytest.mark.parametrize("precision", ["fp32", *slow("bf16")])
def test_what_is_saved_holds_no_code_and_planted_code_does_not_run(
    processes: GroupOf, tmp_path: Path, zero_stage: int, precision: str
) -> None:
    setting = Setting(zero_stage=zero_stage, precision=precision)
    processes(1).run(run_through, setting, str(tmp_path), (SAVED_AT,), 1)
    (folder,) = (tmp_path / "checkpoints").glob("*/engine")
    refuse_code(folder)
    for number, file in enumerate(sorted(folder.rglob("*.pt"))):
        whole, mark = file.read_bytes(), tmp_path / f"mark-{number}"
        plant(file, mark)
        (answer,) = processes(1).run(load_from, setting, str(folder))
        assert isinstance(answer, DataError)
        assert f"{file.name} of a checkpoint holds something else than tensors" in str(answer)
        assert not mark.exists()
        file.write_bytes(whole)


def load_from(setting: Setting, folder: str) -> None:
    SmallRun(setting).engine.load(Path(folder))


def test_planted_code_does_not_run_in_the_conversion_to_another_number_of_workers(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    mark = tmp_path / "mark"
    (state / "zero_pp_rank_0_mp_rank_00_optim_states.pt").write_bytes(pickle.dumps(Planted(mark), protocol=2))
    with pytest.raises(DataError, match="could run as code"):
        to_universal(tmp_path)
    assert not mark.exists()


def test_a_file_that_is_no_pickle_is_refused(tmp_path: Path) -> None:
    for content in (b"", b"PK\x03\x04", b"\x80\x02}", b"text"):
        (tmp_path / "state.pt").write_bytes(content)
        with pytest.raises(DataError, match=r"state\.pt"):
            refuse_code(tmp_path)
