"""Quality: what is measured and what is flagged, on real ECGs."""

import numpy as np
import pytest

from ecgdist.signals.quality import (
    EXTREME_UV,
    Measures,
    arms_look_exchanged,
    clipped_leads,
    flat_leads,
    measure,
    quality_flags,
)
from ecgdist.sources import open_source
from tests.packing.folders import DATA
from tests.signals.real_ecgs import signals_uv

ALL = np.ones(12, dtype=bool)
NONE = np.zeros(12, dtype=bool)
RATE_HZ = 500.0


@pytest.fixture
def ecg_uv() -> np.ndarray:
    """A real ECG, ``(12, 1000)`` microvolt."""
    return signals_uv(1)[0].copy()


@pytest.fixture
def ecg_500_uv() -> np.ndarray:
    """A real ECG at 500 Hz, ``(12, 5000)`` microvolt."""
    source = open_source("wfdb", str(DATA / "wfdb/georgia"))
    return np.asarray(source.read_record(source.list_records()[0]).signal_uv, dtype=np.float64).copy()


def flags_of(signal_uv: np.ndarray, mask: np.ndarray = ALL) -> tuple[str, ...]:
    return quality_flags(signal_uv, mask, measure(signal_uv, mask, NONE))


def exchanged_arms(signal_uv: np.ndarray) -> np.ndarray:
    """What a recorder writes with the electrodes of left and right arm exchanged."""
    changed = signal_uv.copy()
    changed[0] = -signal_uv[0]
    changed[[1, 2, 3, 4]] = signal_uv[[2, 1, 4, 3]]
    return changed


def test_a_clean_ecg_has_no_flags(ecg_uv: np.ndarray) -> None:
    assert flags_of(ecg_uv) == ()


def test_measures(ecg_uv: np.ndarray) -> None:
    ecg_uv[7] = -3210.0
    measures = measure(ecg_uv.astype(np.int16), ALL, NONE, nan_share=0.25)
    assert isinstance(measures, Measures)
    assert measures.peak_uv == 3210
    assert measures.nan_share == 0.25
    assert measures.flat_leads.nonzero()[0].tolist() == [7]
    assert measures.limb_residual_uv is not None
    assert measures.limb_residual_uv < 3


def test_the_peak_of_the_deepest_int16_is_positive() -> None:
    assert measure(np.full((12, 9), -32768, dtype=np.int16), ALL, NONE).peak_uv == 32768


def test_limb_leads_are_not_judged_when_one_is_missing(ecg_uv: np.ndarray) -> None:
    ecg_uv[5] = 0
    mask = ALL.copy()
    mask[5] = False
    assert measure(ecg_uv, mask, NONE).limb_residual_uv is None
    assert flags_of(ecg_uv, mask) == ()


@pytest.mark.parametrize("lead", range(6))
def test_a_wrong_gain_in_any_limb_lead_is_flagged(ecg_uv: np.ndarray, lead: int) -> None:
    ecg_uv[lead] *= 2
    assert flags_of(ecg_uv) == ("limb_leads_inconsistent",)


def test_exchanged_names_are_flagged_and_recognised(ecg_uv: np.ndarray) -> None:
    ecg_uv[[4, 5]] = ecg_uv[[5, 4]]
    assert flags_of(ecg_uv) == ("limb_leads_inconsistent", "limb_leads_swapped")


def test_an_inverted_lead_is_flagged_and_recognised(ecg_uv: np.ndarray) -> None:
    ecg_uv[3] *= -1
    assert flags_of(ecg_uv) == ("limb_lead_inverted", "limb_leads_inconsistent")


def test_a_flat_lead_is_flagged_and_a_missing_one_is_not_flat(ecg_uv: np.ndarray) -> None:
    ecg_uv[[7, 9]] = 0
    ecg_uv[8] = -123.0
    mask = ALL.copy()
    mask[9] = False
    assert flat_leads(ecg_uv, mask).nonzero()[0].tolist() == [7, 8]
    assert flags_of(ecg_uv, mask) == ("flat_leads",)


@pytest.mark.parametrize("sign", [-1, 1])
def test_an_extreme_amplitude_is_flagged(ecg_uv: np.ndarray, sign: int) -> None:
    ecg_uv[8, 100] = sign * EXTREME_UV
    assert flags_of(ecg_uv) == ()
    ecg_uv[8, 100] *= 1.001
    assert flags_of(ecg_uv) == ("extreme_amplitude",)


def test_flags_are_sorted(ecg_uv: np.ndarray) -> None:
    ecg_uv[0] = 0
    ecg_uv[8, 100] = 2 * EXTREME_UV
    clipped = ALL & (np.arange(12) == 8)
    flags = quality_flags(ecg_uv, ALL, measure(ecg_uv, ALL, clipped, nan_share=0.1))
    assert flags == (
        "clipped_leads", "extreme_amplitude", "flat_leads", "limb_leads_inconsistent", "nan_filled",
    )  # fmt: skip


def test_constant_signals_are_all_flat() -> None:
    assert flags_of(np.zeros((12, 500))) == ("all_flat", "flat_leads")


class TestClipping:
    @pytest.mark.parametrize("lead", [1, 6, 9])
    @pytest.mark.parametrize("sides", ["both", "upper", "lower"])
    def test_a_really_clipped_ecg(self, ecg_500_uv: np.ndarray, lead: int, sides: str) -> None:
        """Every R or S wave is cut at half the height of the lead, as by a saturated amplifier."""
        signal = ecg_500_uv
        signal[lead] *= 4000 / np.abs(signal[lead]).max()
        high = 2000.0 if sides != "lower" else np.inf
        low = -2000.0 if sides != "upper" else -np.inf
        cut = signal[lead].clip(low, high)
        assert not clipped_leads(signal, RATE_HZ).any()
        reached = (cut == high) | (cut == low)
        signal[lead] = cut
        expected = [lead] if reached.sum() > 30 else []
        assert clipped_leads(signal, RATE_HZ).nonzero()[0].tolist() == expected

    def test_a_long_saturation_is_one_plateau(self, ecg_500_uv: np.ndarray) -> None:
        ecg_500_uv[2, 1000:1400] = 5000.0
        assert clipped_leads(ecg_500_uv, RATE_HZ).nonzero()[0].tolist() == [2]

    def test_no_shipped_or_tested_real_ecg_is_clipped(self, ecg_500_uv: np.ndarray) -> None:
        assert not clipped_leads(ecg_500_uv, RATE_HZ).any()
        found = [clipped_leads(signal, 100.0).any() for signal in signals_uv(353)]
        assert sum(found) <= 1

    @pytest.mark.parametrize(
        "change",
        [
            pytest.param(lambda x: np.pad(x[:, 800:-800] + 4000, ((0, 0), (800, 800))), id="zero padding"),
            pytest.param(lambda x: np.concatenate([x, x[:, -1:].repeat(100, axis=1)], axis=1), id="held end"),
            pytest.param(lambda x: np.round(x / 400) * 400 * 0.2, id="coarse steps, small amplitude"),
            pytest.param(lambda x: x * 0 + 700.0, id="constant"),
            pytest.param(lambda x: np.where(x < 100, 0.0, x), id="quiet baseline at zero"),
        ],
    )
    def test_what_is_no_clipping(self, ecg_500_uv: np.ndarray, change: object) -> None:
        assert callable(change)
        assert not clipped_leads(change(ecg_500_uv), RATE_HZ).any()


class TestArms:
    def test_exchanged_arms_are_suspected_and_obey_einthoven(self, ecg_uv: np.ndarray) -> None:
        assert flags_of(exchanged_arms(ecg_uv)) == ("arm_leads_reversed_suspected",)

    def test_most_exchanges_are_found_and_no_shipped_ecg_is_suspected(self) -> None:
        signals = signals_uv(353)
        assert sum(arms_look_exchanged(signal, ALL) for signal in signals) == 0
        assert sum(arms_look_exchanged(exchanged_arms(signal), ALL) for signal in signals) > 0.6 * 353

    def test_nothing_is_suspected_without_the_leads_to_tell(self, ecg_uv: np.ndarray) -> None:
        signal = exchanged_arms(ecg_uv)
        for lead in (0, 3, 11):
            mask = ALL.copy()
            mask[lead] = False
            assert not arms_look_exchanged(signal, mask)
        assert not arms_look_exchanged(np.zeros((12, 100)), ALL)
