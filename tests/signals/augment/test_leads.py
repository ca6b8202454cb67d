"""Dropped leads and changed proportions against a loop over records and leads."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ecgdist.signals.augment import Rows, View
from ecgdist.signals.augment.leads import AmplitudeScale, LeadDrop, amplitude_scale, lead_drop
from ecgdist.signals.limbs import limb_residual_uv
from tests.signals.augment.batches import batch, randoms, rows
from tests.signals.real_ecgs import signals_uv


@pytest.mark.parametrize("lead_p", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_each_lead_goes_with_its_number_and_counts_as_missing(lead_p: float) -> None:
    view, (uniform, _) = batch(), randoms(LeadDrop())
    found = lead_drop(Rows(view), lead_p, uniform).of(view)
    for row, (signal_uv, _, lead_mask) in enumerate(rows(view)):
        numbers = uniform[row].numpy()
        kept = [lead for lead in range(12) if lead_mask[lead] and numbers[lead] >= lead_p]
        if not kept:
            kept = [max(np.flatnonzero(lead_mask), key=lambda lead: numbers[lead])]
        assert found.lead_mask[row].nonzero().flatten().tolist() == kept
        for lead in range(12):
            expected = signal_uv[lead] if lead in kept else np.zeros_like(signal_uv[lead])
            np.testing.assert_array_equal(found.signal_uv[row, lead].numpy(), expected.astype(np.float32))


def test_leads_go_as_often_as_asked_and_never_all() -> None:
    present = torch.ones(20_000, 12).bool()
    view = View(torch.ones(20_000, 12, 1), torch.ones(20_000, dtype=torch.int64), present)
    uniform = torch.from_numpy(np.random.default_rng(0).random((20_000, 12), dtype=np.float32))
    kept = lead_drop(Rows(view), 0.5, uniform).of(view).lead_mask
    share = kept.double().mean(dim=0)
    assert (share - 0.5).abs().max() < 5 * 0.5 / 20_000**0.5 + 2**-12  # two thousandths are spared
    assert kept.any(dim=1).all()


def test_a_record_keeps_its_only_lead() -> None:
    view, (uniform, _) = batch(), randoms(LeadDrop())
    for number in range(50):
        alone = lead_drop(Rows(view), 1.0, randoms(LeadDrop(), number).uniform).of(view)
        assert (alone.lead_mask.sum(dim=1) == 1).all()
        assert (alone.lead_mask & ~view.lead_mask).sum() == 0
    none = view._replace(lead_mask=torch.zeros(6, 12).bool())
    assert not lead_drop(Rows(none), 0.5, uniform).of(none).lead_mask.any()


def test_limb_leads_share_a_factor_and_each_chest_lead_has_its_own() -> None:
    view, (uniform, _) = batch(), randoms(AmplitudeScale())
    found = amplitude_scale(0.5, uniform).of(view).signal_uv.numpy()
    for row, (signal_uv, _, _) in enumerate(rows(view)):
        for lead in range(12):
            number = float(uniform[row, 0 if lead < 6 else lead - 5].double())
            np.testing.assert_allclose(
                found[row, lead], signal_uv[lead] * 1.5 ** (2 * number - 1), rtol=1e-6, atol=1e-6
            )


def test_factors_lie_between_the_change_and_its_inverse() -> None:
    view = View(torch.ones(2, 12, 1), torch.ones(2, dtype=torch.int64), torch.ones(2, 12).bool())
    uniform = torch.tensor([[0.0] * 7, [1 - 2**-24] * 7])
    found = amplitude_scale(0.25, uniform).of(view).signal_uv[:, :, 0].numpy()
    np.testing.assert_allclose(found, [[0.8] * 12, [1.25] * 12], rtol=1e-6)


def test_limb_leads_go_on_obeying_einthoven() -> None:
    ecgs = torch.from_numpy(signals_uv(6)).float()
    view = View(ecgs, torch.full((6,), ecgs.shape[-1]), torch.ones(6, 12).bool())
    found = amplitude_scale(0.5, randoms(AmplitudeScale()).uniform).of(view).signal_uv.numpy()
    for before, after in zip(ecgs.numpy(), found, strict=True):
        assert limb_residual_uv(after) < 1.5 * limb_residual_uv(before) + 1e-3
