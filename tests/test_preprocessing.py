"""Preprocessing: one object from a recording to model input, the same everywhere (no skew)."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from ecgdist.config import build
from ecgdist.errors import ConfigError, DataError, RecordRefused
from ecgdist.preprocessing import DeviceStep, PackStep, Preprocessing, Segment
from ecgdist.record import NUM_LEADS, STANDARD_LEADS, Recording
from ecgdist.signals.resample import resample
from ecgdist.signals.rules import QualityRules
from ecgdist.signals.segments import to_int16
from tests.signals.real_ecgs import recordings

PRE = Preprocessing()


def recording(
    signal_uv: np.ndarray, rate_hz: float = 250.0, leads: tuple[str, ...] = STANDARD_LEADS
) -> Recording:
    return Recording("r", "test", signal_uv, rate_hz, leads)


def noise_uv(num_samples: int, num_leads: int = NUM_LEADS) -> np.ndarray:
    """Whole microvolts, no two samples of a lead alike by chance for long."""
    return (
        np.random.default_rng(num_samples).integers(-2000, 2000, (num_leads, num_samples)).astype(np.float64)
    )


def batch(segments: list[Segment]) -> tuple[Tensor, Tensor, Tensor]:
    """Signal, valid samples and lead mask of segments, as the stream delivers them."""
    return (
        torch.from_numpy(np.stack([s.signal_uv for s in segments])),
        torch.tensor([s.valid_samples for s in segments]),
        torch.from_numpy(np.stack([s.lead_mask for s in segments])),
    )


@pytest.fixture(scope="module")
def mixed() -> list[Segment]:
    """40 real ECGs: every third short, every fourth without some leads."""
    segments = []
    for number, ecg in enumerate(recordings(40)):
        signal, leads = ecg.signal_uv, ecg.leads
        if number % 3 == 2:
            signal = signal[:, : 520 + 11 * number]
        if number % 4 == 3:
            signal, leads = signal[:8], leads[:8]
        segments += PRE.pack_recording(replace(ecg, signal_uv=signal, leads=leads))
    assert len(segments) == 40
    return segments


class TestPacking:
    def test_a_record_becomes_int16_microvolt_at_the_rate_of_the_corpus(self) -> None:
        ecg = recordings(1)[0]
        (segment,) = PRE.pack_recording(ecg)
        assert segment.signal_uv.dtype == np.int16
        assert segment.signal_uv.shape == (12, 2500)
        assert (segment.segment, segment.valid_samples, segment.quality) == (0, 2500, ())
        assert segment.lead_mask.all()
        error_uv = segment.signal_uv - resample(ecg.signal_uv, 100.0, 250.0)
        assert np.abs(error_uv).max() < 0.51

    def test_leads_are_found_by_name_whatever_their_order_and_case(self) -> None:
        ecg = recordings(1)[0]
        order = np.random.default_rng(0).permutation(12)
        shuffled = replace(
            ecg, signal_uv=ecg.signal_uv[order], leads=tuple(ecg.leads[i].lower() for i in order)
        )
        np.testing.assert_array_equal(
            PRE.pack_recording(shuffled)[0].signal_uv, PRE.pack_recording(ecg)[0].signal_uv
        )

    def test_a_missing_lead_is_zero_and_off_in_the_mask(self) -> None:
        ecg = recordings(1)[0]
        (segment,) = PRE.pack_recording(replace(ecg, signal_uv=ecg.signal_uv[[1, 10]], leads=("II", "V5")))
        assert segment.lead_mask.nonzero()[0].tolist() == [1, 10]
        assert not segment.signal_uv[~segment.lead_mask].any()
        assert segment.signal_uv[segment.lead_mask].any(axis=1).all()

    def test_listed_channels_are_ignored_and_others_refused(self) -> None:
        signal = noise_uv(2500, 2)
        (segment,) = PRE.pack_recording(recording(signal, leads=("V1", "VX")))
        assert segment.lead_mask.sum() == 1
        with pytest.raises(RecordRefused, match="RESP"):
            PRE.pack_recording(recording(signal, leads=("V1", "RESP")))
        also = Preprocessing(pack=PackStep(ignore_leads=(" Resp",)))
        np.testing.assert_array_equal(
            also.pack_recording(recording(signal, leads=("V1", "RESP")))[0].signal_uv, segment.signal_uv
        )

    @settings(max_examples=60, deadline=None)
    @given(st.integers(1250, 12_000))
    def test_segments_hold_every_sample_once_or_say_what_was_dropped(self, num_samples: int) -> None:
        signal = noise_uv(num_samples)
        segments = PRE.pack_recording(recording(signal))
        assert [s.segment for s in segments] == list(range(len(segments)))
        kept = np.concatenate([s.signal_uv[:, : s.valid_samples] for s in segments], axis=1)
        np.testing.assert_array_equal(kept, signal[:, : kept.shape[1]])
        assert all(s.valid_samples == 2500 for s in segments[:-1])
        assert all(not s.signal_uv[:, s.valid_samples :].any() for s in segments)
        dropped = num_samples - kept.shape[1]
        assert dropped < 1250
        assert ["tail_dropped" in s.quality for s in segments] == [False] * (len(segments) - 1) + [
            dropped > 0
        ]

    def test_a_long_recording_is_resampled_whole_so_segments_have_no_seams(self) -> None:
        signal = np.concatenate([ecg.signal_uv for ecg in recordings(3)], axis=1)
        segments = PRE.pack_recording(recording(signal, 100.0))
        joined = np.concatenate([s.signal_uv for s in segments], axis=1)
        np.testing.assert_array_equal(joined, to_int16(resample(signal, 100.0, 250.0)))

    def test_quality_is_judged_segment_by_segment(self) -> None:
        signal = noise_uv(7500)[:1]
        signal[0, 2500:5000] = 7.0
        signal[0, 6000] = 12_000.0
        segments = PRE.pack_recording(recording(signal, leads=("V1",)))
        assert [s.quality for s in segments] == [(), ("all_flat", "flat_leads"), ("extreme_amplitude",)]


class TestRefusal:
    @pytest.mark.parametrize(
        ("reason", "changes"),
        [
            ("too_short", {"signal_uv": noise_uv(1249)}),
            ("too_short", {"signal_uv": noise_uv(0)}),
            ("too_short", {"signal_uv": noise_uv(2500), "rate_hz": 1000.0}),
            ("all_flat", {"signal_uv": np.full((12, 2500), 3.0)}),
            ("nan", {"signal_uv": np.full((12, 2500), np.nan)}),
            ("amplitude", {"signal_uv": noise_uv(2500) * 20}),
            ("bad_rate", {"rate_hz": 0.5}),
            ("bad_rate", {"rate_hz": 0.0}),
            ("bad_rate", {"rate_hz": float("nan")}),
            ("bad_rate", {"rate_hz": float("inf")}),
            ("bad_shape", {"signal_uv": np.zeros(2500)}),
            ("lead_count", {"signal_uv": noise_uv(2500).T}),
            ("duplicate_lead", {"leads": ("II", "ii", *STANDARD_LEADS[2:])}),
            ("unknown_lead", {"leads": ("X9", *STANDARD_LEADS[1:])}),
            ("no_leads", {"signal_uv": noise_uv(2500, 3), "leads": ("vx", "vy", "vz")}),
        ],
    )
    def test_each_reason(self, reason: str, changes: dict[str, Any]) -> None:
        with pytest.raises(RecordRefused) as refused:
            PRE.pack_recording(replace(recording(noise_uv(2500)), **changes))
        assert refused.value.reason == reason
        assert len(refused.value.detail) > 20

    def test_exactly_the_shortest_duration_is_kept(self) -> None:
        (segment,) = PRE.pack_recording(recording(noise_uv(1250)))
        assert segment.valid_samples == 1250

    def test_a_missing_value_in_an_ignored_channel_does_no_harm(self) -> None:
        signal = noise_uv(2500, 2)
        signal[1] = np.nan
        assert PRE.pack_recording(recording(signal, leads=("V1", "vz")))[0].lead_mask.sum() == 1

    def test_a_spike_that_overshoots_int16_in_resampling_is_refused_not_wrapped(self) -> None:
        signal = noise_uv(1000)
        signal[6, 400:] = 32_700.0
        signal[6, :400] = -32_700.0
        with pytest.raises(RecordRefused, match="V1 reaches") as refused:
            PRE.pack_recording(recording(signal, 100.0))
        assert refused.value.reason == "amplitude"

    def test_the_limit_can_be_lower(self) -> None:
        strict = Preprocessing(pack=PackStep(rules=QualityRules(max_abs_uv=1000)))
        with pytest.raises(RecordRefused, match="max_abs_uv = 1000"):
            strict.pack_recording(recording(noise_uv(2500)))


class TestNoSkew:
    @pytest.mark.parametrize(
        ("unit", "in_uv"), [("V", 1e6), ("mV", 1e3), ("uV", 1.0), ("µV", 1.0), ("nV", 1e-3)]
    )
    def test_an_array_in_any_unit_gives_the_int16_of_packing(self, unit: str, in_uv: float) -> None:
        for ecg in recordings(12):
            (packed,) = PRE.pack_recording(ecg)
            (converted,) = PRE.convert(ecg.signal_uv / in_uv, ecg.rate_hz, list(ecg.leads), unit)
            np.testing.assert_array_equal(converted.signal_uv, packed.signal_uv)
            assert converted.quality == packed.quality

    def test_half_microvolts_go_the_same_way_in_float32_millivolt(self) -> None:
        exact_uv = np.random.default_rng(0).integers(-6000, 6000, (12, 2500)) / 2
        (packed,) = PRE.pack_recording(recording(exact_uv))
        (converted,) = PRE.convert((exact_uv / 1000).astype(np.float32), 250.0, STANDARD_LEADS)
        np.testing.assert_array_equal(converted.signal_uv, packed.signal_uv)

    def test_an_unknown_unit_is_refused(self) -> None:
        with pytest.raises(RecordRefused, match="mmHg"):
            PRE.convert(noise_uv(2500), 250.0, STANDARD_LEADS, "mmHg")

    @pytest.fixture
    def threads(self) -> Iterator[None]:
        before = torch.get_num_threads()
        yield
        torch.set_num_threads(before)

    @pytest.mark.usefixtures("threads")
    @pytest.mark.parametrize("num_threads", [1, 2])
    @pytest.mark.parametrize("size", [1, 2, 7, 32, 40])
    def test_model_input_is_bit_equal_in_any_batch(
        self, mixed: list[Segment], size: int, num_threads: int
    ) -> None:
        torch.set_num_threads(1)
        alone = [PRE.inputs(*batch([segment])) for segment in mixed[:size]]
        torch.set_num_threads(num_threads)
        windows, valid = PRE.inputs(*batch(mixed[:size]))
        assert torch.equal(windows, torch.cat([w for w, _ in alone]))
        assert torch.equal(valid, torch.cat([v for _, v in alone]))

    def test_stored_int16_and_the_same_values_as_floats_give_the_same_input(
        self, mixed: list[Segment]
    ) -> None:
        signal, valid, mask = batch(mixed)
        assert torch.equal(PRE.inputs(signal, valid, mask)[0], PRE.inputs(signal.float(), valid, mask)[0])

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_cpu_and_gpu_agree(self, mixed: list[Segment]) -> None:
        on_cpu = PRE.inputs(*batch(mixed))[0]
        on_gpu = PRE.inputs(*(part.cuda() for part in batch(mixed)))[0].cpu()
        torch.testing.assert_close(on_gpu, on_cpu, rtol=0, atol=1e-5)


class TestDeviceStep:
    def test_a_window_is_cut_from_the_filtered_segment_and_scaled_by_record(
        self, mixed: list[Segment]
    ) -> None:
        signal, valid, mask = batch(mixed)
        filtered = PRE.band_pass(signal, valid)
        start = torch.arange(40) * 6
        windows, inside = PRE.window(filtered, start, valid, mask)
        assert windows.shape == (40, 12, 2250)
        assert windows.dtype == torch.float32
        for row in range(40):
            length = min(2250, int(valid[row] - start[row]))
            assert inside[row] == length
            cut = filtered[row, mask[row], start[row] : start[row] + length].double().numpy()
            expected = (cut - cut.mean()) / cut.std()
            np.testing.assert_allclose(windows[row, mask[row], :length].numpy(), expected, atol=1e-5)
            assert not windows[row, :, length:].any()
            assert not windows[row, ~mask[row]].any()

    def test_without_scaling_the_input_is_in_millivolt(self, mixed: list[Segment]) -> None:
        plain = Preprocessing(device=DeviceStep(highpass_hz=None, lowpass_hz=None, scaling="none"))
        windows, _ = plain.inputs(*batch(mixed))
        torch.testing.assert_close(windows[0, 0], batch(mixed)[0][0, :, :2250].float() / 1000)

    def test_evaluation_takes_the_first_and_the_last_window(self, mixed: list[Segment]) -> None:
        valid = torch.tensor([2500, 2400, 2250, 1300])
        assert PRE.window_starts(valid).tolist() == [[0, 250], [0, 150], [0, 0], [0, 0]]
        signal, valid, mask = batch(mixed)
        windows, inside = PRE.inputs(signal, valid, mask)
        assert windows.shape == (40, 2, 12, 2250)
        assert torch.equal(inside, valid.clamp(max=2250)[:, None].expand(-1, 2))
        last, _ = PRE.window(PRE.band_pass(signal, valid), PRE.last_start(valid), valid, mask)
        assert torch.equal(windows[:, 1], last)

    def test_one_window_when_it_is_the_whole_segment(self, mixed: list[Segment]) -> None:
        whole = Preprocessing(device=DeviceStep(window_s=10.0))
        assert whole.inputs(*batch(mixed[:2]))[0].shape == (2, 1, 12, 2500)

    def test_a_flat_record_gives_zeros(self) -> None:
        signal = torch.full((2, 12, 2500), 300, dtype=torch.int16)
        mask = torch.ones(2, 12, dtype=torch.bool)
        windows, _ = PRE.inputs(signal, torch.tensor([2500, 1300]), mask)
        assert not windows.any()

    def test_the_gain_of_the_record_does_not_matter(self, mixed: list[Segment]) -> None:
        signal, valid, mask = batch(mixed[:4])
        torch.testing.assert_close(
            PRE.inputs(signal, valid, mask)[0],
            PRE.inputs(signal.int() * 4, valid, mask)[0],
            rtol=0,
            atol=1e-5,
        )

    @pytest.mark.parametrize("shape", [(2, 12, 5000), (2, 8, 2500), (12, 2500)])
    def test_segments_of_another_shape_are_refused_naming_both(self, shape: tuple[int, ...]) -> None:
        with pytest.raises(DataError, match=r"\(2, 12, 2500\)"):
            PRE.band_pass(torch.zeros(shape), torch.tensor([2500, 2500]))


class TestConfiguration:
    def test_it_survives_json(self) -> None:
        ours = Preprocessing(
            pack=PackStep(rate_hz=500.0, ignore_leads=("RESP",), rules=QualityRules(max_abs_uv=20_000)),
            device=DeviceStep(window_s=5.0, highpass_hz=None, scaling="none"),
        )
        again = Preprocessing.model_validate_json(ours.model_dump_json())
        assert again == ours
        assert (again.num_samples, again.window_samples) == (5000, 2500)

    def test_the_defaults(self) -> None:
        assert (PRE.num_samples, PRE.window_samples) == (2500, 2250)
        assert (PRE.device.highpass_hz, PRE.device.lowpass_hz) == (0.67, 40.0)

    @pytest.mark.parametrize(
        ("values", "message"),
        [
            (
                {"device": {"window_s": 12}},
                "device.window_s = 12 is longer than a segment, pack.duration_s = 10",
            ),
            ({"device": {"lowpass_hz": 125}}, "device.lowpass_hz = 125 must be below 125 Hz"),
            (
                {"device": {"highpass_hz": 200, "lowpass_hz": None}},
                "device.highpass_hz = 200 must be below 125 Hz",
            ),
            ({"device": {"highpass_hz": 50}}, "device.highpass_hz = 50 must be below device.lowpass_hz = 40"),
            ({"device": {"window_s": 2.001}}, "device.window_s = 2.001 is 500.25 samples at 250 Hz"),
            ({"device": {"filter_order": 0}}, "device.filter_order = 0"),
            ({"device": {"scaling": "lead"}}, "device.scaling = 'lead'"),
            ({"pack": {"duration_s": 10.0001}}, "duration_s = 10.0001 is 2500.03 samples"),
            ({"pack": {"min_duration_s": 11}}, "min_duration_s = 11 is longer than duration_s = 10"),
            ({"pack": {"rate_hz": 0.25}}, "pack.rate_hz = 0.25"),
            ({"pack": {"rate_hz": float("inf")}}, "pack.rate_hz = inf"),
            ({"pack": {"rules": {"max_abs_uv": 40_000}}}, "pack.rules.max_abs_uv = 40000"),
            ({"pack": {"rules": {"max_nan": 0.1}}}, "unknown key pack.rules.max_nan (value 0.1)"),
            ({"pack": {"rules": {"max_nan_share": 1.0}}}, "pack.rules.max_nan_share = 1.0"),
            ({"pack": {"rules": {"max_flat_leads": 12}}}, "pack.rules.max_flat_leads = 12"),
            ({"pack": {"leads": ["I"]}}, "unknown key pack.leads"),
        ],
    )
    def test_a_wrong_value_is_named(self, values: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError) as wrong:
            build(Preprocessing, values)
        assert message in str(wrong.value)
