"""The band-pass against scipy on real ECGs, and what makes it safe to run anywhere."""

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.signal import butter, sosfiltfilt

from ecgdist.signals.filters import Band, band_pass
from ecgdist.signals.resample import resample
from tests.signals.real_ecgs import signals_uv

RATE_HZ = 250.0
ECG_BAND = Band(RATE_HZ, 0.67, 40.0, 5)
NUM_ECGS = 40


@pytest.fixture(scope="module")
def ecgs() -> np.ndarray:
    """``(40, 12, 2500)`` int16 microvolt, as a corpus holds them."""
    at_rate = [resample(x, 100.0, RATE_HZ) for x in signals_uv(NUM_ECGS)]
    return np.rint(np.stack(at_rate)).astype(np.int16)


@pytest.fixture(scope="module")
def sections() -> np.ndarray:
    highpass = butter(5, 0.67, "highpass", fs=RATE_HZ, output="sos")
    lowpass = butter(5, 40.0, "lowpass", fs=RATE_HZ, output="sos")
    return np.vstack([highpass, lowpass])


def ours(signal: np.ndarray, valid: int = 2500, band: Band = ECG_BAND) -> np.ndarray:
    filtered = band_pass(torch.from_numpy(signal), torch.full((len(signal),), valid), band)
    assert filtered.dtype == torch.float32
    return filtered.numpy().astype(np.float64)


def relative_error(actual: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """``(records, leads, samples)``: error in units of the record's standard deviation."""
    return np.abs(actual - expected) / expected.std(axis=(1, 2), keepdims=True)


def by_sosfiltfilt(signal: np.ndarray, sections: np.ndarray, is_highpass: bool = True) -> np.ndarray:
    """scipy's filter, forward and backward, on a signal continued for more than half a minute on each side."""
    x, samples = signal.astype(np.float64), signal.shape[-1]
    line = x[..., :1] + (x[..., -1:] - x[..., :1]) * np.arange(samples) / (samples - 1)
    times = -(-10_000 // samples)
    continued = np.pad(x - line, ((0, 0), (0, 0), (times * samples,) * 2), mode="symmetric")
    filtered = sosfiltfilt(sections, continued, padlen=0)[..., times * samples : (times + 1) * samples]
    return filtered if is_highpass else filtered + line


def test_equals_sosfiltfilt_on_real_ecgs(ecgs: np.ndarray, sections: np.ndarray) -> None:
    assert relative_error(ours(ecgs), by_sosfiltfilt(ecgs, sections)).max() < 1e-5


@pytest.mark.parametrize("valid", [2499, 2000, 1500, 1250, 1249, 997])
def test_a_short_record_is_filtered_as_if_cut_out(ecgs: np.ndarray, sections: np.ndarray, valid: int) -> None:
    padded = ecgs.copy()
    padded[:, :, valid:] = 0
    filtered = ours(padded, valid)
    expected = by_sosfiltfilt(ecgs[:, :, :valid], sections)
    assert relative_error(filtered[:, :, :valid], expected).max() < 1e-5
    assert not filtered[:, :, valid:].any()


def test_its_ends_are_nearer_to_a_longer_recording_than_with_scipys_continuations(
    ecgs: np.ndarray, sections: np.ndarray
) -> None:
    """5 s out of 10 s: what was recorded around them is known, and each continuation is a guess of it."""
    inner = slice(625, 1875)
    longer = by_sosfiltfilt(ecgs, sections)[..., inner]
    short = ecgs[..., inner]

    def root_mean_square(filtered: np.ndarray) -> float:
        return float(np.sqrt((relative_error(filtered, longer) ** 2).mean()))

    def scipys(kind: str, padlen: int) -> float:
        return root_mean_square(sosfiltfilt(sections, short.astype(np.float64), padtype=kind, padlen=padlen))

    error = root_mean_square(ours(short, 1250))
    assert error < 0.4 * min(scipys("odd", 1249), scipys("odd", 30))
    assert error < 0.7 * scipys("constant", 1249)


@pytest.mark.parametrize(
    ("highpass_hz", "lowpass_hz"), [(0.67, 40.0), (0.67, None), (None, 40.0), (None, None)]
)
def test_rows_of_several_lengths_are_filtered_as_if_alone_wherever_they_stand(
    ecgs: np.ndarray, highpass_hz: float | None, lowpass_hz: float | None
) -> None:
    """Runs and strays of one length: even, odd, prime, whole, none."""
    band = Band(RATE_HZ, highpass_hz, lowpass_hz, 5)
    lengths = [2500, 1301, 2500, 2000, 2000, 1301, 2500, 2500, 2500, 2500, 2500, 0, 1301, 1301, 1301, 2499]
    signal, valid = torch.from_numpy(ecgs[: len(lengths)]), torch.tensor(lengths)
    alone = torch.cat([band_pass(signal[i : i + 1], valid[i : i + 1], band) for i in range(len(lengths))])
    for dtype in (torch.int16, torch.int32, torch.int64):
        assert torch.equal(band_pass(signal, valid.to(dtype), band), alone)


@pytest.mark.parametrize("lengths", [[2500], [2500, 2500, 2500], [2500, -1], [2500, 2501]])
def test_lengths_that_do_not_fit_the_rows_are_refused(ecgs: np.ndarray, lengths: list[int]) -> None:
    with pytest.raises(ValueError, match="are not the valid samples"):
        band_pass(torch.from_numpy(ecgs[:2]), torch.tensor(lengths), ECG_BAND)


def test_the_padding_may_hold_anything(ecgs: np.ndarray) -> None:
    garbage = ecgs.copy()
    garbage[:, :, 1800:] = 12345
    np.testing.assert_array_equal(ours(ecgs, 1800), ours(garbage, 1800))


@pytest.mark.parametrize(
    ("highpass_hz", "lowpass_hz", "order"), [(None, 40.0, 5), (0.67, None, 5), (1.0, 30.0, 2)]
)
def test_either_cutoff_can_be_left_out_and_the_order_chosen(
    ecgs: np.ndarray, highpass_hz: float | None, lowpass_hz: float | None, order: int
) -> None:
    cutoffs = {"highpass": highpass_hz, "lowpass": lowpass_hz}
    sections = [butter(order, hz, kind, fs=RATE_HZ, output="sos") for kind, hz in cutoffs.items() if hz]
    expected = by_sosfiltfilt(ecgs, np.vstack(sections), highpass_hz is not None)
    filtered = ours(ecgs, band=Band(RATE_HZ, highpass_hz, lowpass_hz, order))
    assert relative_error(filtered, expected).max() < 1e-5


def test_without_cutoffs_the_signal_is_only_converted(ecgs: np.ndarray) -> None:
    filtered = ours(ecgs, 2000, Band(RATE_HZ, None, None, 5))
    np.testing.assert_array_equal(filtered[:, :, :2000], ecgs[:, :, :2000])
    assert not filtered[:, :, 2000:].any()


def test_a_wave_is_not_shifted_in_time() -> None:
    x = np.zeros((1, 12, 2500))
    x[:, :, 1250] = 1000.0
    filtered = ours(x)[0, 0]
    np.testing.assert_allclose(filtered[1:], filtered[:0:-1], atol=1e-3)
    assert filtered.argmax() == 1250


def test_an_offset_and_a_drift_change_nothing(ecgs: np.ndarray) -> None:
    x = ecgs.astype(np.float64)
    drifting = x + 15_000 + np.linspace(0, 8000, 2500)
    assert relative_error(ours(drifting), ours(x)).max() < 1e-5


def test_a_flat_lead_gives_exact_zeros() -> None:
    assert not ours(np.full((2, 12, 2500), 777, dtype=np.int16)).any()


@pytest.mark.parametrize("valid", [0, 1, 2, 3])
def test_next_to_nothing_gives_finite_values(ecgs: np.ndarray, valid: int) -> None:
    filtered = ours(ecgs[:2], valid)
    assert np.isfinite(filtered).all()
    assert not filtered[:, :, valid:].any()


def test_an_empty_batch_stays_empty() -> None:
    assert ours(np.zeros((0, 12, 2500), dtype=np.int16)).shape == (0, 12, 2500)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("num_threads", [1, 2, 3])
@pytest.mark.parametrize("batch", [1, 2, 7, 32, 40])
def test_a_record_is_bit_equal_in_any_batch_with_any_number_of_threads(
    ecgs: np.ndarray, batch: int, num_threads: int
) -> None:
    signal = torch.from_numpy(ecgs)
    valid = 2500 - 31 * (torch.arange(NUM_ECGS) // 7)
    torch.set_num_threads(1)
    alone = torch.cat([band_pass(signal[i : i + 1], valid[i : i + 1], ECG_BAND) for i in range(batch)])
    torch.set_num_threads(num_threads)
    assert torch.equal(band_pass(signal[:batch], valid[:batch], ECG_BAND), alone)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_gpu_agree(ecgs: np.ndarray) -> None:
    signal, valid = torch.from_numpy(ecgs), torch.full((NUM_ECGS,), 2500)
    on_gpu = band_pass(signal.cuda(), valid.cuda(), ECG_BAND).cpu().numpy()
    assert relative_error(on_gpu, ours(ecgs)).max() < 1e-5
