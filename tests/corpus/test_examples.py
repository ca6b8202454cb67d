"""Examples of refused recordings: what can be shown of whatever was refused, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from ecgdist.corpus.examples import EXAMPLES, PER_REASON, Examples, first_of_each_reason, refused_examples
from ecgdist.corpus.schema import plain_bytes, read_plain, table
from ecgdist.record import STANDARD_LEADS, Recording
from tests.signals.real_ecgs import recordings


def kept(*found: tuple[str, Recording]) -> list:
    """Examples of recordings refused for a reason, written and read again."""
    examples = Examples()
    for number, (reason, recording) in enumerate(found):
        examples.add("hospital", f"r{number}", reason, recording)
    return refused_examples(read_plain(plain_bytes(table(examples.rows, EXAMPLES))))


@pytest.fixture
def ecg() -> Recording:
    return recordings(1)[0]


def test_an_example_is_the_recording_in_millivolt(ecg: Recording) -> None:
    (example,) = kept(("amplitude", ecg))
    assert (example.source, example.record_id, example.reason) == ("hospital", "r0", "amplitude")
    assert (example.rate_hz, example.leads) == (100.0, STANDARD_LEADS)
    np.testing.assert_allclose(example.signal_mv, ecg.signal_uv / 1000, atol=0.0005001)


def test_samples_without_a_value_stay_without_and_high_ones_are_cut(ecg: Recording) -> None:
    signal = ecg.signal_uv.copy()
    signal[0, :4] = [np.nan, np.inf, -np.inf, 1e9]
    signal[1, 0] = -1e9
    (example,) = kept(("nan", replace(ecg, signal_uv=signal)))
    assert np.isnan(example.signal_mv).sum() == 3
    assert example.signal_mv[0, 3] == 32.767
    assert example.signal_mv[1, 0] == -32.767


def test_only_the_first_ten_seconds_and_the_first_of_each_reason_are_kept(ecg: Recording) -> None:
    long = replace(ecg, signal_uv=np.tile(ecg.signal_uv, 3))
    found = kept(*[("nan", long)] * 5, *[("amplitude", ecg)] * 2)
    assert [example.record_id for example in found] == ["r0", "r1", "r2", "r5", "r6"]
    assert {example.signal_mv.shape for example in found} == {(12, 1000)}


def test_leads_that_have_no_standard_name_are_left_out(ecg: Recording) -> None:
    few = replace(ecg, signal_uv=ecg.signal_uv[:4], leads=("V2", "RESP", "v2", "aVR"))
    (example,) = kept(("unknown_lead", few))
    assert example.leads == ("aVR", "V2")
    np.testing.assert_allclose(example.signal_mv, ecg.signal_uv[[3, 0]] / 1000, atol=0.0005001)


@pytest.mark.parametrize(
    "changes",
    [
        {"signal_uv": np.zeros(100)},
        {"signal_uv": np.zeros((12, 0))},
        {"rate_hz": 0.5},
        {"rate_hz": float("nan")},
        {"rate_hz": float("inf")},
        {"leads": ("resp",) * 12},
        {"leads": ()},
    ],
)
def test_what_cannot_be_drawn_is_not_kept_and_takes_no_place(ecg: Recording, changes: dict) -> None:
    bad = replace(ecg, **changes)
    assert [example.record_id for example in kept(*[("bad", bad)] * 4, ("bad", ecg))] == ["r4"]


def test_more_names_than_rows_do_no_harm(ecg: Recording) -> None:
    (example,) = kept(("lead_count", replace(ecg, signal_uv=ecg.signal_uv[:3])))
    assert example.leads == ("I", "II", "III")


def test_the_first_of_many_tables() -> None:
    rows = [
        {
            "source": "s",
            "record_id": str(i),
            "reason": "ab"[i % 2],
            "lead_mask": 1,
            "rate_hz": 1,
            "signal": b"",
        }
        for i in range(20)
    ]
    first = first_of_each_reason(pa.concat_tables([table(rows[:5], EXAMPLES), table(rows[5:], EXAMPLES)]))
    assert first["record_id"].to_pylist() == [str(i) for i in range(2 * PER_REASON)]
