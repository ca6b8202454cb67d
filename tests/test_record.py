"""Leads are matched by name, whatever their case and order; units are voltages."""

from __future__ import annotations

import numpy as np
import pytest

from ecgdist.errors import RecordRefused
from ecgdist.record import (
    STANDARD_LEADS,
    arrange_leads,
    bits_to_mask,
    canonical_lead,
    mask_to_bits,
    microvolts_per_unit,
)


def test_leads_are_matched_by_name_not_position() -> None:
    signal = np.arange(24.0).reshape(12, 2)
    shuffled = np.random.default_rng(0).permutation(12)
    names = tuple(STANDARD_LEADS[i].upper() for i in shuffled)
    arranged, present = arrange_leads(signal[shuffled], names)
    np.testing.assert_array_equal(arranged, signal)
    assert present.all()


def test_missing_leads_are_zero_and_off() -> None:
    arranged, present = arrange_leads(np.ones((2, 3)), ("V5", "MLII"))
    assert [STANDARD_LEADS[i] for i in np.flatnonzero(present)] == ["II", "V5"]
    assert arranged[~present].sum() == 0


@pytest.mark.parametrize(("name", "lead"), [("avr", "aVR"), (" AVL ", "aVL"), ("v1", "V1"), ("X", None)])
def test_canonical_names(name: str, lead: str | None) -> None:
    assert canonical_lead(name) == lead


def test_refusals_name_their_reason() -> None:
    with pytest.raises(RecordRefused, match="'vx' is not one of") as unknown:
        arrange_leads(np.ones((1, 3)), ("vx",))
    assert unknown.value.reason == "unknown_lead"
    with pytest.raises(RecordRefused, match="duplicate_lead"):
        arrange_leads(np.ones((2, 3)), ("I", "i"))
    with pytest.raises(RecordRefused, match="no_leads"):
        arrange_leads(np.ones((1, 3)), ("vx",), frozenset({"vx"}))
    with pytest.raises(RecordRefused, match="lead_count"):
        arrange_leads(np.ones((2, 3)), ("I",))


@pytest.mark.parametrize(
    ("unit", "factor"), [("mV", 1e3), ("mv", 1e3), ("uV", 1), ("µV", 1), ("V", 1e6), ("nV", 1e-3)]
)
def test_units(unit: str, factor: float) -> None:
    assert microvolts_per_unit(unit) == factor


def test_other_units_are_refused() -> None:
    with pytest.raises(RecordRefused, match="unit 'mmHg' is not a voltage"):
        microvolts_per_unit("mmHg")


def test_masks_and_bits() -> None:
    mask = np.zeros(12, dtype=bool)
    mask[[0, 11]] = True
    assert mask_to_bits(mask) == 0b100000000001
    np.testing.assert_array_equal(bits_to_mask(mask_to_bits(mask)), mask)
    assert bits_to_mask(np.array([0, 4095])).shape == (2, 12)
