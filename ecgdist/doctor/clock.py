"""Clocks: requests to storage are signed with the time, and storage refuses those of another time."""

from __future__ import annotations

from email.utils import parsedate_to_datetime

from ecgdist.doctor.finding import Finding, Level

REFUSED_S = 15 * 60
"""S3 refuses a request whose time differs by more (RequestTimeTooSkewed)."""
_WARNED_S = 30.0
_RESOLUTION_S = 1.0
"""Of the ``Date`` header."""


def clock_finding(server: str, date: str | None, before_s: float, after_s: float) -> Finding:
    """How far a server's clock is from this machine's.

    Args:
        server: whose clock it is.
        date: ``Date`` header of an answer.
        before_s, after_s: this machine's time, seconds since 1970, when it asked and when it was answered.
    """
    check = f"clock against the {server}"
    try:
        there_s = parsedate_to_datetime(date or "").timestamp() + _RESOLUTION_S / 2
    except (TypeError, ValueError):
        return Finding(
            check=check,
            level="warning",
            measured="its answers do not say the time",
            advice="compare the clocks by hand",
        )
    skew_s = there_s - (before_s + after_s) / 2
    uncertain_s = (_RESOLUTION_S + after_s - before_s) / 2
    measured = f"{abs(skew_s):.1f} s {'ahead' if skew_s > 0 else 'behind'}, give or take {uncertain_s:.1f} s"
    values = {"skew_s": skew_s, "uncertain_s": uncertain_s}
    if abs(skew_s) <= _WARNED_S + uncertain_s:
        return Finding(check=check, level="ok", measured=measured, values=values)
    level: Level = "error" if abs(skew_s) + uncertain_s >= REFUSED_S else "warning"
    advice = f"set this machine's clock by NTP; S3 refuses requests that differ by {REFUSED_S // 60} minutes"
    return Finding(check=check, level=level, measured=measured, advice=advice, values=values)
