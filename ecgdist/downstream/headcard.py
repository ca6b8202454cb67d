"""What a head says of itself: its configuration, and its part of the model card."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from ecgdist.config import Config
from ecgdist.downstream.metrics import Metrics
from ecgdist.modelcard import NOT_A_DEVICE, Sources, cited, quoted, restrictions

HEAD_FORMAT: Literal[2] = 2
HEAD_CONFIG = "head.json"
"""File of a model folder that holds what its head says of itself."""


class HeadConfig(Config):
    """``head.json``, without its hashes."""

    format_version: Literal[2] = HEAD_FORMAT
    kind: Literal["probe", "linear", "attention"]
    """Class in `heads.HEADS` that reads the weights: the probe of `fit-head`, or a readout of `finetune`."""
    task: str
    task_digest: str
    outputs: tuple[str, ...] = Field(min_length=1)
    """What is predicted: labels, or the name of one number."""
    unit: str | None = None
    """Of that number; None for labels."""
    offset: float = 0.0
    """Of a number: this plus `scale` times what the weights give."""
    scale: float = 1.0
    thresholds: tuple[float, ...] = ()
    """Of each label; it is predicted where its probability is at least that. Numbers have none."""
    calibration: str
    """What the probabilities, or numbers, are, and are not."""
    corpus_id: str
    """Corpus that the head was fitted on."""
    patient_key_fingerprint: str
    """Of the key that patients are hashed with."""
    sources: Sources
    """Licence and citation of each source of that corpus."""
    split_note: str
    split_digest: str
    rows: dict[str, int]
    """Rows of each split."""
    left_out: dict[str, str]
    """Labels of the task that could not be fitted, with the reason."""
    validation: dict[str, float] = Field(default_factory=dict)
    """What the validation split said, where it chose the weights."""
    step: int | None = None
    """Steps of training after which it said so."""
    metrics: Metrics | None = None
    """On the test split; F1, sensitivity and specificity at the thresholds above. None where nobody looked at it."""
    method: str | None = None
    """How their intervals were made."""
    seed: int | None = None
    """Of the intervals."""
    command: str
    """The command that fits the same again."""
    versions: dict[str, str]
    warnings: tuple[str, ...] = ()
    """What the figures need beside them, such as a leak that was allowed."""

    @property
    def is_number(self) -> bool:
        """Whether it predicts one number, and not the probability of labels."""
        return self.unit is not None

    @model_validator(mode="after")
    def _one_threshold_each(self) -> Self:
        if len(set(self.outputs)) != len(self.outputs):
            raise ValueError(f"outputs = {', '.join(self.outputs)} names one twice")
        if self.is_number and (len(self.outputs) > 1 or self.thresholds):
            raise ValueError("a number is one output, without a threshold")
        if not self.is_number and len(self.thresholds) != len(self.outputs):
            raise ValueError(f"{len(self.thresholds)} thresholds for the labels {', '.join(self.outputs)}")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("thresholds must be between 0 and 1")
        return self


def head_card(config: HeadConfig, sources: Sources, classifier_hash: str) -> str:
    """Outputs, thresholds and figures of a head, in Markdown.

    Args:
        config: what the head says of itself.
        sources: of encoder and head.
        classifier_hash: of both.
    """
    counts = ", ".join(f"{count:,} {split}" for split, count in config.rows.items())
    notes = [f"**{warning}**" for warning in config.warnings]
    notes += [f"Without {label}: {why}." for label, why in config.left_out.items()]
    return f"""## Classifier ({config.kind}, task {config.task})

**{NOT_A_DEVICE}** {"Numbers" if config.is_number else "Probabilities"} are {config.calibration}

{quoted(restrictions(sources))}{_table(config)}

{_figures(config)}
{"".join(f"{chr(10)}{note}{chr(10)}" for note in notes)}
Fitted on corpus `{config.corpus_id}` ({counts} rows; {config.split_note}; split digest
`{config.split_digest}`) by

```
{config.command}
```

Classifier sha256 `{classifier_hash}`. Sources of encoder and head:

{cited(sources)}
"""


def _figures(config: HeadConfig) -> str:
    if config.metrics is not None:
        return (
            f"Figures are of the test split, with 95 % intervals: {config.method} Macro AUROC "
            f"{config.metrics.macro.auroc}."
        )
    said = ", ".join(f"{name} {value:.4f}" for name, value in config.validation.items())
    return (
        f"Chosen by the validation split ({said} after step {config.step}); the test split was not looked at: "
        f"`ecgdist evaluate FOLDER --mode trained --task {config.task} --corpus CORPUS` gives its figures."
    )


def _table(config: HeadConfig) -> str:
    if config.is_number:
        return f"Predicts {config.outputs[0]} in {config.unit}."
    if config.metrics is None:
        lines = ["| label | threshold |", "| --- | --- |"]
        pairs = zip(config.outputs, config.thresholds, strict=True)
        return "\n".join([*lines, *(f"| {label} | {threshold:.4f} |" for label, threshold in pairs)])
    judged = {figures.label: figures for figures in config.metrics.labels}
    lines = ["| label | threshold | AUROC | sensitivity | specificity |", "| --- | --- | --- | --- | --- |"]
    for label, threshold in zip(config.outputs, config.thresholds, strict=True):
        found = judged.get(label)
        figures = (found.auroc, found.sensitivity, found.specificity) if found else ("none", "none", "none")
        lines.append(f"| {label} | {threshold:.4f} | {' | '.join(map(str, figures))} |")
    return "\n".join(lines)
