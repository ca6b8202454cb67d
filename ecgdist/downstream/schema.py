"""The JSON document of an evaluation: read it, and its published schema.

``python -m ecgdist.downstream.schema`` prints the schema that ships beside this module.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Annotated, Any

from pydantic import Field, TypeAdapter, ValidationError

from ecgdist.downstream.evaluation import SCHEMA_VERSION, Evaluation
from ecgdist.downstream.label_evaluation import MultilabelEvaluation
from ecgdist.downstream.number_evaluation import RegressionEvaluation
from ecgdist.errors import DataError

SCHEMA_FILE = "evaluation.schema.json"

_ANY: TypeAdapter[MultilabelEvaluation | RegressionEvaluation] = TypeAdapter(
    Annotated[MultilabelEvaluation | RegressionEvaluation, Field(discriminator="kind")]
)


def read_evaluation(content: bytes, origin: str) -> Evaluation:
    """The evaluation in a JSON document.

    Args:
        content: the document.
        origin: where it comes from, for an error.

    Raises:
        DataError: if it is none, or one of another version.
    """
    try:
        return _ANY.validate_json(content)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "the document"
        raise DataError(
            f"{origin} is no evaluation of schema version {SCHEMA_VERSION} ({place}: {first['msg']}); evaluate again"
        ) from error


def evaluation_schema() -> dict[str, Any]:
    """The JSON schema of evaluations, made from their classes."""
    schema = _ANY.json_schema(mode="serialization")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"ecgdist evaluation, version {SCHEMA_VERSION}",
        **schema,
    }


def published_schema() -> dict[str, Any]:
    """The JSON schema that ships with the package."""
    text = resources.files("ecgdist.downstream").joinpath(SCHEMA_FILE).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


if __name__ == "__main__":
    print(json.dumps(evaluation_schema(), indent=1))
