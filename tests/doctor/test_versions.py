"""Versions: a Ray that is not safe is refused with its advisories, and other packages are compared with their pins."""

from __future__ import annotations

from importlib import metadata

import pytest

from ecgdist.doctor.versions import ADVISORIES, RAY_FLOOR, pin_findings, ray_finding, version_findings


def test_the_installed_packages_are_those_of_the_tests() -> None:
    found = {one.check: one for one in version_findings()}
    assert set(found) == {"Python", "Ray (installed)", "torch", "deepspeed", "pyarrow", "boto3"}
    assert {one.level for one in found.values()} == {"ok"}
    assert found["Ray (installed)"].measured == metadata.version("ray")


@pytest.mark.parametrize(
    ("version", "open_to"),
    [
        ("2.51.9", ["CVE-2025-62593", "CVE-2026-27482", "CVE-2026-41486", "CVE-2026-57516"]),
        ("2.54.0", ["CVE-2026-41486", "CVE-2026-57516"]),
        ("2.55.1", ["CVE-2026-57516"]),
        ("2.59.0", []),
        ("2.60.0rc1", []),
    ],
)
def test_an_older_ray_is_refused_with_its_advisories(version: str, open_to: list[str]) -> None:
    found = ray_finding(version)
    assert found.level == "error"
    assert f"{version}, older than {RAY_FLOOR}" in found.measured
    assert [one.name for one in ADVISORIES if one.name in found.measured] == open_to
    assert found.advice is not None
    assert f"ray>={RAY_FLOOR}" in found.advice


@pytest.mark.parametrize("version", ["2.60.0", "2.61.3", "3.0.0"])
def test_a_ray_from_the_floor_on_is_taken(version: str) -> None:
    assert ray_finding(version).level == "ok"


def test_other_versions_than_the_pinned_ones_are_warned_of() -> None:
    asked = ["torch==2.13.0", "deepspeed==0.19.8", 'pytest>=9; extra == "dev"']
    torch, deepspeed = pin_findings({"torch": "2.13.0+cpu", "deepspeed": "0.18.0"}, asked)
    assert torch.level == "ok", "a local build of the same version is the same version"
    assert (deepspeed.level, deepspeed.advice) == (
        "warning",
        "install deepspeed==0.19.8, which the tests run with",
    )
    (missing,) = pin_findings({"deepspeed": None}, asked)
    assert (missing.level, missing.measured) == ("error", "not installed")
