"""Configuration: frozen pydantic trees, filled from YAML and dotted overrides.

Every room keeps its own configuration class beside the thing it configures; this file holds what they share.
A wrong or unknown key is reported by its dotted name with the value given and what would be accepted.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping, Sequence, Set
from pathlib import Path
from typing import Any, TypeVar, Union

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from ecgdist.errors import ConfigError

C = TypeVar("C", bound="Config")


class Config(BaseModel):
    """Base of every configuration class: frozen, and an unknown key is an error."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True
    )


def refuse_foreign_settings(
    config: Config, choice: str, shared: Set[str], settings_of: Mapping[str, Set[str]]
) -> None:
    """Refuse settings that belong to another choice than the one made; for validators.

    A value equal to the default says nothing, and saved configurations hold every field.

    Args:
        config: what was asked for.
        choice: the field that chooses.
        shared: other fields that every choice has.
        settings_of: the fields that belong to each choice.

    Raises:
        ValueError: naming the setting, and whose it is.
    """
    chosen = getattr(config, choice)
    own = {choice} | shared | settings_of[chosen]
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if name not in own and value != field.default:
            owners = [other for other, settings in settings_of.items() if name in settings]
            raise ValueError(
                f"{name} = {value!r} does not belong to {choice} = {chosen}: it is a setting of "
                f"{', '.join(owners)}; leave it out, or choose that {choice}"
            )


def build(cls: type[C], values: Mapping[str, Any], origin: str = "configuration") -> C:
    """Validate `values` as a `cls`.

    Raises:
        ConfigError: naming every wrong key, its value and what is accepted.
    """
    try:
        return cls.model_validate(dict(values))
    except ValidationError as error:
        lines = [_explain(cls, dict(item)) for item in error.errors()]
        raise ConfigError(f"{origin}: " + "; ".join(lines)) from error


def load(
    cls: type[C],
    path: str | Path | None = None,
    overrides: Sequence[str] = (),
    defaults: Mapping[str, Any] | None = None,
) -> C:
    """Read a configuration: `defaults`, under the YAML file, under ``a.b=c`` overrides.

    Raises:
        ConfigError: for a missing or malformed file or override, one given twice, or a wrong key or value.
    """
    values: dict[str, Any] = merged({}, defaults or {})
    if path is not None:
        values = merged(values, read_yaml(path))
    return build(cls, merged(values, parse_overrides(overrides)), str(path) if path else "configuration")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """The mapping in a YAML file, local or s3://; an empty file is an empty mapping."""
    try:
        content = yaml.safe_load(_read_text(path))
    except OSError as error:
        raise ConfigError(f"configuration file {path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise ConfigError(f"configuration file {path} is not valid YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"configuration file {path} must hold `key: value` lines, not a {type(content).__name__}"
        )
    return content


def _read_text(path: str | Path) -> str:
    if str(path).startswith("s3://"):
        # Imported here, so that the command line does not wait for a storage client that it does not need.
        from ecgdist.storage import Location

        return Location.of(path).read_bytes().decode("utf-8")
    return Path(path).read_text(encoding="utf-8")


def parse_overrides(overrides: Sequence[str]) -> dict[str, Any]:
    """``["a.b=1", "a.c=x"]`` as ``{"a": {"b": 1, "c": "x"}}``; values are read as YAML."""
    tree: dict[str, Any] = {}
    seen: set[str] = set()
    for text in overrides:
        key, equals, raw = text.partition("=")
        key = key.strip()
        if not equals or not key:
            raise ConfigError(f"--set {text!r} is not of the form key.subkey=value")
        if key in seen:
            raise ConfigError(f"--set {key} is given twice; give it once")
        seen.add(key)
        try:
            value = yaml.safe_load(raw)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {key}: {raw!r} is not a YAML value") from error
        node = tree
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise ConfigError(f"--set {key}: {parent} is already set to a plain value by another --set")
        if isinstance(node.get(last), dict):
            raise ConfigError(f"--set {key}: keys below {last} are already set by another --set")
        node[last] = value
    return tree


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `above` in place of its own, key by key at every depth."""
    both = dict(below)
    for key, value in above.items():
        old = both.get(key)
        both[key] = merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return both


def _explain(cls: type[BaseModel], error: Mapping[str, Any]) -> str:
    location: tuple[Any, ...] = error["loc"]
    name = ".".join(str(part) for part in location) or "(top level)"
    if error["type"] == "extra_forbidden":
        accepted = sorted(_fields_at(cls, location[:-1]))
        close = difflib.get_close_matches(str(location[-1]), accepted, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        return f"unknown key {name} (value {error['input']!r}); accepted here: {', '.join(accepted)}{hint}"
    if error["type"] == "missing":
        return f"{name} is required and not given"
    message = str(error["msg"]).removeprefix("Value error, ")
    if error["type"] == "value_error" and not location:
        return message
    return f"{name} = {error['input']!r}: {message}"


def _fields_at(cls: type[BaseModel], location: Sequence[Any]) -> list[str]:
    """Names of the fields of the configuration class that `location` leads to."""
    current: type[BaseModel] | None = cls
    for part in location:
        if current is None or part not in current.model_fields:
            return []
        current = _config_class(current.model_fields[part].annotation)
    return list(current.model_fields) if current is not None else []


def _config_class(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (Union, types.UnionType):
        found = [c for c in map(_config_class, typing.get_args(annotation)) if c is not None]
        return found[0] if found else None
    return None
