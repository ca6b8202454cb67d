"""A wrong or unknown key names the key, the value and what is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from ecgdist.config import Config, build, load, parse_overrides
from ecgdist.errors import ConfigError


class Inner(Config):
    rate_hz: float = Field(default=250.0, gt=0)
    kind: str = "a"


class Outer(Config):
    name: str
    inner: Inner = Inner()
    maybe: Inner | None = None


def test_file_then_overrides(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("name: x\ninner:\n  rate_hz: 100\n  kind: b\n")
    config = load(Outer, tmp_path / "c.yaml", ["inner.rate_hz=500", "maybe.kind=c"])
    assert config == Outer(name="x", inner=Inner(rate_hz=500, kind="b"), maybe=Inner(kind="c"))


def test_an_unknown_key_names_its_neighbours() -> None:
    with pytest.raises(
        ConfigError,
        match=r"unknown key inner.rate \(value 3\).*accepted here: kind, rate_hz.*did you mean rate_hz",
    ):
        build(Outer, {"name": "x", "inner": {"rate": 3}})


def test_a_wrong_value_is_named_with_what_is_accepted() -> None:
    with pytest.raises(ConfigError, match=r"inner.rate_hz = -5: Input should be greater than 0"):
        build(Outer, {"name": "x", "inner": {"rate_hz": -5}})


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ConfigError, match="name is required"):
        build(Outer, {})


def test_all_errors_are_reported_at_once() -> None:
    with pytest.raises(ConfigError, match=r"name is required.*unknown key foo"):
        build(Outer, {"foo": 1})


def test_a_configuration_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Inner().rate_hz = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["a.b"], "not of the form"),
        (["a=1", "a=2"], "a is given twice"),
        (["a=1", "a.b=2"], "already set to a plain value"),
        (["a.b=2", "a=1"], "already set by another --set"),
        (["a=["], "not a YAML value"),
    ],
)
def test_malformed_overrides_are_refused(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_overrides(overrides)


@pytest.mark.parametrize(
    ("content", "message"), [("- a\n", "must hold `key: value`"), ("a: [\n", "not valid YAML")]
)
def test_malformed_files_are_refused(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "c.yaml").write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(Outer, tmp_path / "c.yaml")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml cannot be read"):
        load(Outer, tmp_path / "none.yaml")
