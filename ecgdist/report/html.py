"""Pages of one file: templates that may include others, and pictures inside them."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined


@dataclass(frozen=True)
class Image:
    """A picture of a page.

    Attributes:
        uri: the picture itself, see `data_uri`.
        alt: what it shows, for those who do not see it.
        width_mm: width on paper, where it has a scale.
    """

    uri: str
    alt: str
    width_mm: float | None = None


@dataclass(frozen=True)
class Ecg:
    """One ECG on paper, and what there is to say of it."""

    image: Image
    caption: str


def rendered(template: str, **values: Any) -> str:
    """A template of this package as HTML. Every text from outside is escaped."""
    environment = Environment(
        loader=FunctionLoader(_template),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["count"] = lambda number: f"{number:,}"
    return environment.get_template(template).render(values)


def data_uri(kind: str, content: bytes) -> str:
    """Content as a link that holds it."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _template(name: str) -> str:
    return resources.files("ecgdist.report").joinpath(name).read_text(encoding="utf-8")
