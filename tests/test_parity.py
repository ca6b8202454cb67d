"""An exported encoder is compared with the model on real ECGs, with all leads and with few."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from ecgdist.errors import DataError
from ecgdist.exporting import Embedder, in_torch
from ecgdist.modelfolder import Model
from ecgdist.models.encoders import build_encoder
from ecgdist.parity import LEAD_SUBSETS, MOST_DIFFERENCE, Floats, check_parity, shipped_ecgs, variants
from ecgdist.record import STANDARD_LEADS
from tests.corpus.corpora import made_ecg, row, write_corpus
from tests.test_modelfolder import model_config


@pytest.fixture(scope="module")
def model() -> Model:
    torch.manual_seed(3)
    config = model_config(preprocessing={"pack": {"rate_hz": 100.0}})
    return Model(config, build_encoder(config.encoder), "in memory")


def test_the_lead_subsets_are_those_that_matter() -> None:
    assert [len(leads) for leads in LEAD_SUBSETS.values()] == [12, 8, 6, 6, 3, 2, 1, 1]
    for leads in LEAD_SUBSETS.values():
        assert set(leads) <= set(STANDARD_LEADS)


def test_every_subset_and_a_short_ecg_are_what_the_model_would_be_fed(model: Model) -> None:
    packed = next(shipped_ecgs(model))
    names, (windows, valid, lead_mask) = variants(model, packed)
    assert names == [*LEAD_SUBSETS, "12 leads, short", "II, short"]
    for n, name in enumerate(names):
        leads = LEAD_SUBSETS[name.removesuffix(", short")]
        assert [lead for lead, on in zip(STANDARD_LEADS, lead_mask[n].tolist(), strict=True) if on] == list(
            leads
        )
        samples = 500 if "short" in name else 1000
        signal_uv = np.zeros((1, 12, 1000), dtype=np.int16)
        for lead in leads:
            signal_uv[0, STANDARD_LEADS.index(lead), :samples] = packed.signal_uv[
                STANDARD_LEADS.index(lead), :samples
            ]
        expected, expected_valid = model.preprocessing.inputs(
            torch.from_numpy(signal_uv), torch.tensor([samples]), lead_mask[n : n + 1]
        )
        assert torch.equal(windows[n], expected[0, 0])
        assert int(valid[n]) == int(expected_valid[0, 0]) == min(samples, 900)


def test_the_model_agrees_with_itself_on_100_real_ecgs(model: Model) -> None:
    seen: list[int] = []
    own = in_torch(Embedder(model.encoder))

    def run(windows: Tensor, valid: Tensor, lead_mask: Tensor) -> Floats:
        seen.append(len(windows))
        return own(windows, valid, lead_mask)

    found = check_parity(model, run)
    assert (found.records, found.worst) == (100, 0.0)
    assert seen == [10, 1, *[10] * 99]


@pytest.mark.parametrize("wrong", [2e-5, np.nan])
def test_one_value_that_differs_for_one_lead_is_enough(model: Model, tmp_path: Path, wrong: float) -> None:
    corpus = write_corpus(tmp_path / "c", [row(made_ecg(n), f"r{n}") for n in range(3)])
    own = in_torch(Embedder(model.encoder))
    calls = []

    def run(windows: Tensor, valid: Tensor, lead_mask: Tensor) -> Floats:
        found = own(windows, valid, lead_mask)
        calls.append(1)
        only_ii = (lead_mask.sum(dim=1) == 1) & lead_mask[:, 1]
        if len(calls) == 3:  # of the second record
            found[int(only_ii.nonzero()[0]), 5] += wrong
        return found

    with pytest.raises(DataError, match=r"does not give what the model gives, .* \(r1, II\) in 3 ECGs"):
        check_parity(model, run, corpus)
    calls.extend([1] * 10)
    assert check_parity(model, run, corpus).worst < MOST_DIFFERENCE


def test_a_difference_in_a_batch_of_one_counts(model: Model, tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path / "c", [row(made_ecg(0), "r0")])
    own = in_torch(Embedder(model.encoder))
    with pytest.raises(DataError, match="does not give what the model gives"):
        check_parity(model, lambda *inputs: own(*inputs) + (len(inputs[0]) == 1), corpus)


def test_leads_that_an_ecg_does_not_have_are_not_looked_at(model: Model, tmp_path: Path) -> None:
    mask = np.isin(STANDARD_LEADS, ["V1", "V2"])
    signal_uv = np.where(mask[:, None], made_ecg(0), 0).astype(np.int16)
    corpus = write_corpus(tmp_path / "c", [row(signal_uv, "r0", lead_mask=mask)])
    seen: list[Tensor] = []
    own = in_torch(Embedder(model.encoder))
    check_parity(model, lambda *inputs: (seen.append(inputs[2]), own(*inputs))[1], corpus)
    assert seen[0].any(dim=1).all()
    # 12, 8, chest, and I, II and V2; none of the limb leads.
    assert len(seen[0]) == 4 + 1


def test_a_model_that_gives_no_numbers_is_not_exported(tmp_path: Path, model: Model) -> None:
    corpus = write_corpus(tmp_path / "c", [row(made_ecg(0), "r0")])
    broken = Model(model.config, build_encoder(model.config.encoder), "broken")
    with torch.no_grad():
        next(broken.encoder.parameters()).fill_(torch.nan)
    with pytest.raises(DataError, match="the model itself gives values that are not finite for r0"):
        check_parity(broken, in_torch(Embedder(broken.encoder)), corpus)


def test_a_corpus_without_ecgs_is_no_check(tmp_path: Path, model: Model) -> None:
    with pytest.raises(DataError, match="no ECG to check the exported file on"):
        check_parity(model, in_torch(Embedder(model.encoder)), write_corpus(tmp_path / "c", []))
