"""Versions: those that this package is tested with, and those of Ray that are not safe."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata

from packaging.requirements import Requirement
from packaging.version import Version

from ecgdist.doctor.finding import Finding

RAY_FLOOR = "2.60"
"""Oldest Ray that is used; all of `ADVISORIES` are fixed in it."""

_PINNED = ("torch", "deepspeed", "pyarrow", "boto3")
"""Packages beside Ray whose pins are looked at."""


@dataclass(frozen=True)
class Advisory:
    """A published weakness of Ray, and the version that has none of it any more."""

    name: str
    what: str
    fixed_in: str


ADVISORIES = (
    Advisory("CVE-2025-62593", "code execution through the dashboard by DNS rebinding", "2.52.0"),
    Advisory("CVE-2026-27482", "DELETE requests to the dashboard without authentication", "2.54.0"),
    Advisory("CVE-2026-41486", "code execution when Parquet is read", "2.55.0"),
    Advisory("CVE-2026-57516", "code execution in read_webdataset", "2.56.0"),
)


def ray_finding(version: str, where: str = "installed") -> Finding:
    """Whether a version of Ray may be used, with the advisories that it is open to."""
    check = f"Ray ({where})"
    if Version(version) >= Version(RAY_FLOOR):
        return Finding(check=check, level="ok", measured=version)
    open_to = [one for one in ADVISORIES if Version(version) < Version(one.fixed_in)]
    named = "; ".join(f"{one.name}: {one.what} (fixed in {one.fixed_in})" for one in open_to)
    return Finding(
        check=check,
        level="error",
        measured=f"{version}, older than {RAY_FLOOR}{'; open to ' + named if named else ''}",
        advice=f"install ray>={RAY_FLOOR} there; do not run on this cluster until then",
    )


def pin_findings(installed: Mapping[str, str | None], requirements: Sequence[str]) -> list[Finding]:
    """Whether packages have the versions that a distribution asks for.

    Args:
        installed: versions by name; None for a package that is not there.
        requirements: as in a distribution's metadata, e.g. ``torch==2.13.0``.
    """
    asked = {one.name.lower(): one for one in map(Requirement, requirements) if one.marker is None}
    findings = []
    for name, version in installed.items():
        wanted = asked[name].specifier
        fits = version is not None and wanted.contains(version, prereleases=True)
        findings.append(
            Finding(
                check=name,
                level="ok" if fits else "error" if version is None else "warning",
                measured=version or "not installed",
                advice=None if fits else f"install {name}{wanted}, which the tests run with",
            )
        )
    return findings


def version_findings() -> list[Finding]:
    """Python (older ones do not install this package), Ray and the pinned packages of this environment."""
    requirements = metadata.requires("ecgdist") or []
    ray = installed_version("ray")
    return [
        Finding(check="Python", level="ok", measured=platform.python_version()),
        Finding(check="Ray (installed)", level="error", measured="not installed", advice="install ray")
        if ray is None
        else ray_finding(ray),
        *pin_findings({name: installed_version(name) for name in _PINNED}, requirements),
    ]


def installed_version(name: str) -> str | None:
    """Version of a package in this environment, or None."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
