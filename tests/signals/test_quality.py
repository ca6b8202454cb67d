"""Quality: what is refused, what is flagged."""

import numpy as np
import pytest

from ecgdist.errors import RecordRefused
from ecgdist.signals.quality import (
    EXTREME_UV,
    flat_leads,
    limb_residual_uv,
    quality_flags,
    refuse_amplitude,
    refuse_unusable,
)
from tests.signals.real_ecgs import signals_uv

ALL = np.ones(12, dtype=bool)


@pytest.fixture
def ecg_uv() -> np.ndarray:
    """A real ECG, ``(12, 1000)`` microvolt."""
    return signals_uv(1)[0].copy()


def test_a_clean_ecg_has_no_flags(ecg_uv: np.ndarray) -> None:
    assert quality_flags(ecg_uv, ALL) == ()
    refuse_unusable(ecg_uv, ALL, 32767)


def test_real_ecgs_obey_einthoven_within_their_rounding() -> None:
    assert max(limb_residual_uv(x) for x in signals_uv(24)) < 3


@pytest.mark.parametrize("lead", range(6))
def test_a_wrong_gain_in_any_limb_lead_is_flagged(ecg_uv: np.ndarray, lead: int) -> None:
    ecg_uv[lead] *= 2
    assert "limb_leads_inconsistent" in quality_flags(ecg_uv, ALL)


def test_exchanged_names_are_flagged(ecg_uv: np.ndarray) -> None:
    ecg_uv[[0, 1]] = ecg_uv[[1, 0]]
    assert quality_flags(ecg_uv, ALL) == ("limb_leads_inconsistent",)


def test_limb_leads_are_not_judged_when_one_is_missing(ecg_uv: np.ndarray) -> None:
    ecg_uv[5] = 0
    mask = ALL.copy()
    mask[5] = False
    assert quality_flags(ecg_uv, mask) == ()


def test_a_flat_lead_is_flagged_and_a_missing_one_is_not_flat(ecg_uv: np.ndarray) -> None:
    ecg_uv[[7, 9]] = 0
    ecg_uv[8] = -123.0
    mask = ALL.copy()
    mask[9] = False
    assert flat_leads(ecg_uv, mask).nonzero()[0].tolist() == [7, 8]
    assert quality_flags(ecg_uv, mask) == ("flat_leads",)
    refuse_unusable(ecg_uv, mask, 32767)


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_extreme_amplitude_is_flagged(ecg_uv: np.ndarray, sign: int) -> None:
    ecg_uv[8, 100] = sign * EXTREME_UV
    assert quality_flags(ecg_uv, ALL) == ()
    ecg_uv[8, 100] *= 1.001
    assert quality_flags(ecg_uv, ALL) == ("extreme_amplitude",)


def test_flags_are_sorted(ecg_uv: np.ndarray) -> None:
    ecg_uv[0] = 0
    ecg_uv[8, 100] = 2 * EXTREME_UV
    assert quality_flags(ecg_uv, ALL) == ("extreme_amplitude", "flat_leads", "limb_leads_inconsistent")


def test_constant_signals_are_all_flat() -> None:
    constant = np.full((12, 500), 7.0)
    assert quality_flags(np.zeros((12, 500)), ALL) == ("all_flat", "flat_leads")
    with pytest.raises(RecordRefused, match="every lead is constant") as refused:
        refuse_unusable(constant, ALL, 32767)
    assert refused.value.reason == "all_flat"


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_without_a_value_is_refused_naming_lead_and_count(ecg_uv: np.ndarray, value: float) -> None:
    ecg_uv[3, 5:8] = value
    ecg_uv[11, 0] = value
    with pytest.raises(RecordRefused, match=r"aVR \(3 of 1000\), V6 \(1 of 1000\)") as refused:
        refuse_unusable(ecg_uv, ALL, 32767)
    assert refused.value.reason == "nan"


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_amplitude_beyond_the_limit_is_refused_naming_the_lead(ecg_uv: np.ndarray, sign: int) -> None:
    ecg_uv[6, 3] = sign * 32767.0
    refuse_amplitude(ecg_uv, 32767)
    ecg_uv[6, 3] = sign * 32768.0
    with pytest.raises(RecordRefused, match="V1 reaches 32768 µV") as refused:
        refuse_unusable(ecg_uv, ALL, 32767)
    assert refused.value.reason == "amplitude"
