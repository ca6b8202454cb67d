"""A run starts only once it is known to share nothing with what its splits leave to evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ecgdist.config import build
from ecgdist.corpus import Corpus
from ecgdist.corpus.patients import PatientHasher
from ecgdist.errors import DataError
from ecgdist.pretraining.config import PretrainConfig
from ecgdist.pretraining.job import refuse_shared
from ecgdist.pretraining.plan import RunPlan
from tests.corpus.corpora import made_ecg, row, write_corpus


def corpus(folder: Path, *more: dict[str, Any]) -> Corpus:
    """40 ECGs of as many patients, a quarter of them in fold9; `more` rows after them."""
    rows = [row(made_ecg(n), f"r{n}", split="fold9" if n % 4 == 0 else "fold1") for n in range(40)]
    return write_corpus(folder, [*rows, *more])


def plan(corpus: Corpus, **data: Any) -> RunPlan:
    values = {
        "corpus": str(corpus.location), "out": "unused", "encoder": {"size": "tiny"},
        "data": {"lanes": 2, "global_batch": 4, **data},
    }  # fmt: skip
    return RunPlan.of(build(PretrainConfig, values))


COPY = row(made_ecg(8), "copy", patient="somebody", split="fold1")
SAME_PATIENT = row(made_ecg(700), "again", patient="r4", split="fold2")


def test_what_is_linked_is_left_out_and_the_rest_is_clean(tmp_path: Path) -> None:
    laid_out = plan(corpus(tmp_path / "c", COPY, SAME_PATIENT))
    assert laid_out.selection.linked == 2
    assert refuse_shared(laid_out) == []


def test_a_run_that_keeps_linked_rows_does_not_start(tmp_path: Path) -> None:
    packed = corpus(tmp_path / "c", COPY, SAME_PATIENT)
    with pytest.raises(DataError, match="share 1 patients and 1 waveforms") as refused:
        refuse_shared(plan(packed, exclude_linked=False))
    said = str(refused.value)
    assert "patient: made/again#0 = made/r4#0" in said
    assert "waveform (correlation 1.0000): made/copy#0 = made/r8#0" in said
    assert "set data.exclude_linked=true" in said
    assert (
        f"ecgdist check-leak {packed.location} {packed.location} --exclude-split fold9 --test-split fold9"
        in said
    )
    assert refuse_shared(plan(corpus(tmp_path / "clean"), exclude_linked=False)) == []


def test_a_copy_that_fingerprints_do_not_show_is_found_by_its_signal(tmp_path: Path) -> None:
    """It lacks lead II, which the fingerprint of the other is of: so it is not linked, and refused."""
    mask = np.arange(12) == 0
    copy = row(
        (made_ecg(8) * mask[:, None]).astype(np.int16), "lead I", patient="x", split="fold1", lead_mask=mask
    )
    laid_out = plan(corpus(tmp_path / "c", copy))
    assert laid_out.selection.linked == 0
    with pytest.raises(DataError, match=r"made/lead I#0 = made/r8#0.* pack the corpus again and exclude"):
        refuse_shared(laid_out)


def test_what_cannot_be_compared_is_said(tmp_path: Path) -> None:
    """Lead I alone is to be trained on, lead V1 alone is left to evaluation."""
    rows = [
        row(
            (made_ecg(600 + n) * (np.arange(12) == lead)[:, None]).astype(np.int16),
            f"only {lead}", split=split, lead_mask=np.arange(12) == lead,
        )
        for n, (lead, split) in enumerate([(0, "fold1"), (6, "fold9")])
    ]  # fmt: skip
    (said,) = refuse_shared(plan(corpus(tmp_path / "c", *rows)))[-1:]
    assert "leaves to evaluation: NOT COMPARED: waveforms of 1 pretraining rows" in said


def test_other_corpora_are_checked_too(tmp_path: Path) -> None:
    packed = corpus(tmp_path / "c")
    mask = np.arange(12) == 6
    lead_v1 = row((made_ecg(900) * mask[:, None]).astype(np.int16), "only V1", lead_mask=mask)
    where = str(write_corpus(tmp_path / "v1", [lead_v1]).location)
    assert refuse_shared(plan(packed, evaluation_corpora=[where])) == []
    few = row(
        made_ecg(901) * (np.arange(12) == 1)[:, None].astype(np.int16), "II", lead_mask=np.arange(12) == 1
    )
    (said,) = refuse_shared(plan(corpus(tmp_path / "d", few), evaluation_corpora=[where]))
    assert said.startswith(f"data.evaluation_corpora: {where}: NOT COMPARED: waveforms of 1 pretraining rows")
    keyed = write_corpus(
        tmp_path / "k", [row(made_ecg(902), "o")], hasher=PatientHasher(b"another key of 16")
    )
    with pytest.raises(DataError, match="packed with different patient keys"):
        refuse_shared(plan(packed, evaluation_corpora=[str(keyed.location)]))


def test_without_rows_left_out_there_is_nothing_to_compare(tmp_path: Path) -> None:
    assert refuse_shared(plan(corpus(tmp_path / "c", COPY), exclude_splits=())) == []
