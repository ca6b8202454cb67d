"""Rules of refusal: each has its own reason, names leads and values, and says which setting decides."""

from dataclasses import replace

import numpy as np
import pytest

from ecgdist.errors import RecordRefused
from ecgdist.packing import PackConfig
from ecgdist.preprocessing import PackStep
from ecgdist.signals.rules import SETTINGS, QualityRules, fill_gaps, find_gaps
from tests.signals.real_ecgs import recordings, signals_uv

ALL = np.ones(12, dtype=bool)


@pytest.fixture
def ecg_uv() -> np.ndarray:
    """A real ECG, ``(12, 1000)`` microvolt at 100 Hz."""
    return signals_uv(1)[0].copy()


def refusal(signal_uv: np.ndarray, **rules: float) -> RecordRefused:
    """Why a recording with this signal is refused."""
    step = PackStep(rate_hz=100.0, rules=QualityRules(**rules))
    with pytest.raises(RecordRefused) as refused:
        step.segments(replace(recordings(1)[0], signal_uv=signal_uv))
    return refused.value


def packed_flags(signal_uv: np.ndarray, **rules: float) -> tuple[str, ...]:
    (segment,) = PackStep(rate_hz=100.0, rules=QualityRules(**rules)).segments(
        replace(recordings(1)[0], signal_uv=signal_uv)
    )
    return segment.quality


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_sample_without_a_value_is_refused_naming_lead_and_count(ecg_uv: np.ndarray, value: float) -> None:
    ecg_uv[3, 5:8] = value
    ecg_uv[11, 0] = value
    found = refusal(ecg_uv)
    assert found.reason == "nan"
    assert "aVR (3 of 1000), V6 (1 of 1000): a share of 0.0003333" in found.detail
    assert "rules.max_nan_share = 0" in found.detail


def test_all_without_a_value_is_always_refused(ecg_uv: np.ndarray) -> None:
    assert refusal(np.full_like(ecg_uv, np.nan), max_nan_share=0.999).reason == "nan"


def test_gaps_are_filled_by_straight_lines_where_they_are_allowed(ecg_uv: np.ndarray) -> None:
    whole = ecg_uv.copy()
    ecg_uv[3, 500:510] = np.nan
    ecg_uv[4, :20] = np.inf
    ecg_uv[5, 990:] = np.nan
    step = PackStep(rate_hz=100.0, rules=QualityRules(max_nan_share=0.01))
    (segment,) = step.segments(replace(recordings(1)[0], signal_uv=ecg_uv))
    assert "nan_filled" in segment.quality
    assert segment.measures.nan_share == pytest.approx(40 / 12_000)
    line = np.linspace(whole[3, 499], whole[3, 510], 12)
    np.testing.assert_allclose(segment.signal_uv[3, 499:511], line, atol=0.51)
    np.testing.assert_allclose(segment.signal_uv[4, :20], whole[4, 20], atol=0.51)
    np.testing.assert_allclose(segment.signal_uv[5, 990:], whole[5, 989], atol=0.51)
    untouched = [lead for lead in range(12) if lead not in (3, 4, 5)]
    np.testing.assert_allclose(segment.signal_uv[untouched], whole[untouched], atol=0.51)
    assert np.isnan(ecg_uv[3, 500])  # the recording itself is left as it was


def test_a_lead_without_any_value_becomes_a_missing_one(ecg_uv: np.ndarray) -> None:
    ecg_uv[7] = np.nan
    assert refusal(ecg_uv, max_nan_share=0.08).reason == "nan"
    step = PackStep(rate_hz=100.0, rules=QualityRules(max_nan_share=0.09))
    (segment,) = step.segments(replace(recordings(1)[0], signal_uv=ecg_uv))
    assert segment.lead_mask.tolist() == [lead != 7 for lead in range(12)]
    assert not segment.signal_uv[7].any()
    assert "flat_leads" not in segment.quality


def test_the_limit_holds_in_every_segment() -> None:
    """A gap of one second in ten minutes is a tenth of its segment."""
    signal = np.tile(signals_uv(1)[0], 60)
    signal[:, 30_050:30_150] = np.nan
    assert "a share of 0.1, over" in refusal(signal, max_nan_share=0.05).detail
    segments = PackStep(rate_hz=100.0, rules=QualityRules(max_nan_share=0.1)).segments(
        replace(recordings(1)[0], signal_uv=signal)
    )
    assert [s.segment for s in segments if "nan_filled" in s.quality] == [30]
    assert [s.measures.nan_share for s in segments if s.measures.nan_share] == [pytest.approx(0.1)]


def test_finite_signals_have_no_gaps_even_if_their_sum_has_no_value() -> None:
    assert find_gaps(np.full((12, 10), 1e308)) is None
    assert find_gaps(np.zeros((12, 0))) is None


def test_filling_leaves_the_original_alone() -> None:
    signal = np.array([[1.0, np.nan, 3.0]])
    gaps = find_gaps(signal)
    assert gaps is not None
    filled, mask = fill_gaps(signal, gaps, np.array([True]))
    assert filled.tolist() == [[1.0, 2.0, 3.0]]
    assert mask.tolist() == [True]


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_amplitude_beyond_the_limit_is_refused_naming_the_lead(ecg_uv: np.ndarray, sign: int) -> None:
    ecg_uv[6, 3] = sign * 32767.0
    QualityRules().check_amplitude(ecg_uv)
    ecg_uv[6, 3] = sign * 32768.0
    found = refusal(ecg_uv)
    assert found.reason == "amplitude"
    assert "V1 reaches 32768 µV, over rules.max_abs_uv = 32767" in found.detail


def test_constant_leads(ecg_uv: np.ndarray) -> None:
    ecg_uv[[6, 9]] = 100.0
    assert packed_flags(ecg_uv) == ("flat_leads",)
    assert packed_flags(ecg_uv, max_flat_leads=2) == ("flat_leads",)
    found = refusal(ecg_uv, max_flat_leads=1)
    assert found.reason == "flat_leads"
    assert "constant leads: V1, V4 (2), over rules.max_flat_leads = 1" in found.detail
    assert refusal(np.full_like(ecg_uv, 7.0)).reason == "all_flat"
    assert refusal(np.full_like(ecg_uv, 7.0), max_flat_leads=11).reason == "all_flat"


def test_clipped_leads(ecg_uv: np.ndarray) -> None:
    ecg_uv[8, 200:260] = 4000.0
    assert packed_flags(ecg_uv) == ("clipped_leads",)
    assert packed_flags(ecg_uv, max_clipped_leads=1) == ("clipped_leads",)
    found = refusal(ecg_uv, max_clipped_leads=0)
    assert found.reason == "clipped_leads"
    assert "clipped leads: V3 (1), over rules.max_clipped_leads = 0" in found.detail


def test_limb_leads(ecg_uv: np.ndarray) -> None:
    assert packed_flags(ecg_uv, max_limb_residual_uv=25) == ()
    ecg_uv[1] *= 1.5
    assert packed_flags(ecg_uv) == ("limb_leads_inconsistent",)
    found = refusal(ecg_uv, max_limb_residual_uv=25)
    assert found.reason == "limb_leads_inconsistent"
    assert "µV (RMS), over rules.max_limb_residual_uv = 25" in found.detail


def test_the_lowest_rate_can_be_set(ecg_uv: np.ndarray) -> None:
    assert refusal(ecg_uv, min_rate_hz=200).reason == "bad_rate"
    assert packed_flags(ecg_uv, min_rate_hz=100) == ()


def test_every_setting_exists() -> None:
    models = {"": PackConfig, "pack": PackStep, "pack.rules": QualityRules}
    for setting in SETTINGS.values():
        path, _, name = setting.rpartition(".")
        assert name in models[path].model_fields, setting
