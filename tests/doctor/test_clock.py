"""Clocks, by the time that a server says."""

from __future__ import annotations

from email.utils import formatdate

import pytest

from ecgdist.doctor.clock import clock_finding

NOW = 1_790_000_000.0


@pytest.mark.parametrize(
    ("skew_s", "level", "word"),
    [
        (0, "ok", ""),
        (20, "ok", "ahead"),
        (-20, "ok", "behind"),
        (60, "warning", "ahead"),
        (-600, "warning", "behind"),
        (1000, "error", "ahead"),
        (-3600, "error", "behind"),
    ],
)
def test_a_wrong_clock_is_judged_by_what_s3_refuses(skew_s: float, level: str, word: str) -> None:
    found = clock_finding("storage server", formatdate(NOW + skew_s, usegmt=True), NOW, NOW + 1)
    assert found.level == level
    assert word in found.measured
    assert found.values["skew_s"] == pytest.approx(skew_s, abs=found.values["uncertain_s"])
    assert (found.advice is None) == (level == "ok")


@pytest.mark.parametrize("date", [None, "yesterday"])
def test_a_server_that_does_not_say_the_time_is_warned_of(date: str | None) -> None:
    assert clock_finding("storage server", date, NOW, NOW).level == "warning"
