"""What a head says of itself: its configuration, and its part of the model card."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.downstream.metrics import Metrics
from ecgdist.modelcard import NOT_A_DEVICE, Sources, cited, quoted, restrictions

HEAD_FORMAT: Literal[1] = 1


class HeadConfig(Config):
    """``head.json``, without its hashes."""

    format_version: Literal[1] = HEAD_FORMAT
    kind: Literal["linear"] = "linear"
    """Class in `heads.HEADS` that reads the weights."""
    task: str
    task_digest: str
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[float, ...]
    """Of each label; it is predicted where its probability is at least that."""
    calibration: str
    """What the probabilities are, and are not."""
    corpus_id: str
    """Corpus that the head was fitted on."""
    patient_key_fingerprint: str
    """Of the key that the patients in ``head_patients.parquet`` are hashed with."""
    sources: Sources
    """Licence and citation of each source of that corpus."""
    split_note: str
    split_digest: str
    rows: dict[str, int]
    """Rows of each split."""
    left_out: dict[str, str]
    """Labels of the task that could not be fitted, with the reason."""
    metrics: Metrics
    """On the test split; F1, sensitivity and specificity at the thresholds above."""
    method: str
    """How its intervals were made."""
    seed: int
    """Of the intervals."""
    command: str
    """The command that fits the same again."""
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()
    """What the figures need beside them, such as a leak that was allowed."""

    @model_validator(mode="after")
    def _one_threshold_each(self) -> Self:
        if len(self.thresholds) != len(self.labels) or len(set(self.labels)) != len(self.labels):
            raise ValueError(f"{len(self.thresholds)} thresholds for the labels {', '.join(self.labels)}")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("thresholds must be between 0 and 1")
        return self


def head_card(config: HeadConfig, sources: Sources, classifier_hash: str) -> str:
    """Labels, thresholds and figures of a head, in Markdown.

    Args:
        config: what the head says of itself.
        sources: of encoder and head.
        classifier_hash: of both.
    """
    counts = ", ".join(f"{count:,} {split}" for split, count in config.rows.items())
    notes = [f"**{warning}**" for warning in config.warnings]
    notes += [f"Without {label}: {why}." for label, why in config.left_out.items()]
    return f"""## Classifier ({config.kind}, task {config.task})

**{NOT_A_DEVICE}** Probabilities are {config.calibration}

{quoted(restrictions(sources))}{_table(config)}

Figures are of the test split, with 95 % intervals: {config.method} Macro AUROC {config.metrics.macro.auroc}.
{"".join(f"{chr(10)}{note}{chr(10)}" for note in notes)}
Fitted on corpus `{config.corpus_id}` ({counts} rows; {config.split_note}; split digest
`{config.split_digest}`) by

```
{config.command}
```

Classifier sha256 `{classifier_hash}`. Sources of encoder and head:

{cited(sources)}
"""


def _table(config: HeadConfig) -> str:
    judged = {figures.label: figures for figures in config.metrics.labels}
    lines = ["| label | threshold | AUROC | sensitivity | specificity |", "| --- | --- | --- | --- | --- |"]
    for label, threshold in zip(config.labels, config.thresholds, strict=True):
        found = judged.get(label)
        figures = (found.auroc, found.sensitivity, found.specificity) if found else ("none", "none", "none")
        lines.append(f"| {label} | {threshold:.4f} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)
