"""Tasks go by data set: every layout of one takes part under the ids that its publisher gives."""

from __future__ import annotations

from pathlib import Path

import pytest

from ecgdist.downstream.assign import assign_splits
from ecgdist.downstream.evaluate import index_table
from ecgdist.downstream.tasks import load_task
from tests.packing.folders import georgia_folder, pack_to, ptbxl_folder

pytestmark = pytest.mark.ray


@pytest.mark.slow
def test_ptb_xl_at_100_hz_is_ptb_xl(ray_cluster: None, tmp_path: Path) -> None:
    folder = ptbxl_folder(tmp_path / "ptb-xl", 60)
    tables = {
        kind: index_table(pack_to(tmp_path / kind, f"{kind}={folder}").corpus)
        for kind in ("ptbxl", "ptbxl100")
    }
    assert set(tables["ptbxl100"]["source"]) == {"ptbxl"}
    task = load_task("ptbxl-super")
    digests = {kind: assign_splits(table, task).digest for kind, table in tables.items()}
    assert digests["ptbxl"] == digests["ptbxl100"]
    assert list(tables["ptbxl"]["patient_key"]) == list(tables["ptbxl100"]["patient_key"])


def test_records_of_a_second_folder_of_a_data_set_carry_its_name(ray_cluster: None, tmp_path: Path) -> None:
    ptb_xl = ptbxl_folder(tmp_path / "ptb-xl", 2)
    georgia = georgia_folder(tmp_path / "georgia", "a")
    corpus = pack_to(tmp_path / "corpus", f"wfdb={georgia}", f"ptbxl100={ptb_xl}", f"ptbxl={ptb_xl}").corpus
    table = index_table(corpus)
    assert list(zip(table["source"], table["record_id"], strict=True)) == [
        ("wfdb", "a"), ("ptbxl", "ptbxl100/1"), ("ptbxl", "ptbxl100/2"), ("ptbxl", "1"), ("ptbxl", "2"),
    ]  # fmt: skip
