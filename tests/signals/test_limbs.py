"""The laws of the limb leads, checked one by one in plain arithmetic, and the names that would mend them."""

from itertools import combinations

import numpy as np
import pytest

from ecgdist.record import STANDARD_LEADS
from ecgdist.signals.limbs import explain_limb_leads, limb_residual_uv
from ecgdist.signals.quality import LIMB_TOLERANCE_UV
from tests.signals.real_ecgs import signals_uv

PAIRS = list(combinations(range(6), 2))


def slow_residual_uv(signal_uv: np.ndarray) -> float:
    i, ii, iii, avr, avl, avf = signal_uv[:6].astype(np.float64)
    laws = (iii - (ii - i), avr + (i + ii) / 2, avl - (i - iii) / 2, avf - (ii + iii) / 2)
    return max(float(np.sqrt(np.mean(law**2))) for law in laws)


def test_the_residual_is_that_of_the_worst_law() -> None:
    for number, signal in enumerate(signals_uv(12)):
        changed = signal.copy()
        changed[number % 6] *= 1.5
        for each in (signal, changed, changed.astype(np.int16)):
            assert limb_residual_uv(each) == pytest.approx(slow_residual_uv(each), rel=1e-4, abs=1e-3)


def test_real_ecgs_obey_the_laws_within_their_rounding() -> None:
    assert max(limb_residual_uv(signal) for signal in signals_uv(353)) < 5


@pytest.mark.parametrize("pair", PAIRS)
def test_an_exchange_of_two_names_is_named(pair: tuple[int, int]) -> None:
    names = " and ".join(STANDARD_LEADS[lead] for lead in pair) + " exchanged"
    seen = named = 0
    for signal in signals_uv(60):
        changed = signal.copy()
        changed[list(pair)] = signal[list(pair[::-1])]
        if limb_residual_uv(changed) <= LIMB_TOLERANCE_UV:
            continue  # two leads so alike that it makes no difference
        seen += 1
        found = explain_limb_leads(changed, LIMB_TOLERANCE_UV)
        assert found is not None
        assert found.flag == "limb_leads_swapped"
        named += found.detail == names
    assert seen > 50
    assert named > 0.95 * seen


def test_a_rotation_of_three_names_is_named() -> None:
    signal = signals_uv(1)[0].copy()
    signal[[3, 4, 5]] = signal[[4, 5, 3]]
    found = explain_limb_leads(signal, LIMB_TOLERANCE_UV)
    assert found is not None
    assert found.detail == "aVR is aVL, aVL is aVF, aVF is aVR"


@pytest.mark.parametrize("lead", range(6))
def test_an_inverted_lead_is_named(lead: int) -> None:
    for signal in signals_uv(20):
        changed = signal.copy()
        changed[lead] *= -1
        if limb_residual_uv(changed) <= LIMB_TOLERANCE_UV:
            continue
        found = explain_limb_leads(changed, LIMB_TOLERANCE_UV)
        assert found is not None
        assert (found.flag, found.detail) == (
            "limb_lead_inverted",
            f"{STANDARD_LEADS[lead]} inverted",
        )


def test_a_wrong_gain_and_noise_have_no_explanation() -> None:
    gain = signals_uv(1)[0].copy()
    gain[1] *= 1.7
    noise = np.random.default_rng(0).normal(0, 300, (12, 1000))
    assert explain_limb_leads(gain, LIMB_TOLERANCE_UV) is None
    assert explain_limb_leads(noise, LIMB_TOLERANCE_UV) is None
