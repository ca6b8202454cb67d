"""What a model says of itself: its configuration, where it comes from, and the card that a person reads."""

from __future__ import annotations

import json
import re
from typing import Any

from pydantic import field_validator

from ecgdist.config import Config, build
from ecgdist.models.config import EncoderConfig
from ecgdist.objectives.config import ObjectiveConfig
from ecgdist.preprocessing import Preprocessing
from ecgdist.record import STANDARD_LEADS

FORMAT_VERSION = 3
"""Of a model folder, and of the run that it comes from; 3 since the band-pass continues the ends of a segment in
another way."""

NOT_A_DEVICE = "For research only. Not a medical device."
"""Stands wherever somebody could take a prediction for more than it is."""

_LIMITS = f"""## Limits

{NOT_A_DEVICE} Not evaluated for any clinical use.
Figures of an evaluation belong to its corpus.
"""

Sources = dict[str, dict[str, str]]
"""Licence and citation of each source."""

_RESTRICTING = re.compile(r"\b(nc|nd|non-?commercial|no[nt] for commercial|no derivative)", re.IGNORECASE)


class Provenance(Config):
    """Where a model comes from."""

    corpus_id: str
    patient_key_fingerprint: str
    """Of the key that the patients in ``pretraining_patients.parquet`` are hashed with."""
    sources: Sources
    """Licence and citation of each source of the corpus."""
    exclude_splits: tuple[str, ...]
    rows: int
    """Rows of the corpus that were trained on."""
    steps: int
    global_batch: int
    settings: dict[str, Any]
    """The run's configuration."""
    versions: dict[str, str]


class ModelConfig(Config):
    """``config.json`` of a model folder."""

    format_version: int = FORMAT_VERSION
    leads: tuple[str, ...] = STANDARD_LEADS
    """Order of the leads in the model's input; there is only this one."""
    encoder: EncoderConfig
    preprocessing: Preprocessing
    provenance: Provenance

    @field_validator("leads")
    @classmethod
    def _standard_order(cls, leads: tuple[str, ...]) -> tuple[str, ...]:
        if leads != STANDARD_LEADS:
            raise ValueError(
                f"this version feeds a model the leads {', '.join(STANDARD_LEADS)}, in that order"
            )
        return leads


def model_card(config: ModelConfig, model_hash: str, num_patients: int) -> str:
    """The card of a model, in Markdown."""
    origin, pre = config.provenance, config.preprocessing
    sources = cited(origin.sources)
    versions = ", ".join(f"{name} {number}" for name, number in origin.versions.items())
    left_out = ", ".join(origin.exclude_splits) or "none"
    how, settings = _learned(origin)
    band = f"high-pass {_hertz(pre.device.highpass_hz)}, low-pass {_hertz(pre.device.lowpass_hz)}"
    return f"""# ECG encoder ({config.encoder.kind}, {config.encoder.size})

{quoted(restrictions(origin.sources))}{how}

```python
import ecgdist

model = ecgdist.load("path/of/this/folder")
# (leads, samples) -> ({config.encoder.shape.width},)
embedding = model.embed(signal_mv, rate_hz=500, leads=["I", "II", "V1"])
```

## Input

12 leads ({", ".join(config.leads)}; missing ones allowed), {pre.pack.rate_hz:g} Hz,
windows of {pre.device.window_s:g} s, {band},
scaling `{pre.device.scaling}`. `embed` converts any other rate, unit
and lead order; `config.json` has every setting.

## Training

{origin.rows:,} ECG segments of {num_patients:,} patients, corpus `{origin.corpus_id}`;
splits left out: {left_out}.
{origin.steps:,} steps of {origin.global_batch:,}. Weights sha256 `{model_hash}`.

```json
{settings}
```

Versions: {versions}.

## Data

{sources}

{_LIMITS}"""


def _learned(origin: Provenance) -> tuple[str, str]:
    """How a model was trained, in a sentence and in its settings."""
    settings = origin.settings
    if "objective" in settings:
        objective = build(ObjectiveConfig, settings["objective"], "settings of the run")
        how = f"Pretrained with `ecgdist` by {objective.arm}, after Song et al., arXiv 2407.07110;"
        return f"{how}\nevery value is our own.", json.dumps(settings["objective"], indent=1)
    names = ("task", "mode", "label_share", "readout", "layer_decay", "imbalance", "optimizer", "augment")
    shown = {name: settings[name] for name in names}
    before = settings["model_hash"]
    begun = "from scratch" if before is None else f"beginning with the weights `{before}`"
    return f"Trained with `ecgdist` on the labels of {settings['task']}, {begun}.", json.dumps(
        shown, indent=1
    )


def restrictions(sources: Sources) -> str:
    """A loud sentence that names the sources whose licence forbids commercial use or derivatives, if any does."""
    bound = [name for name, facts in sources.items() if _RESTRICTING.search(facts["licence"])]
    if not bound:
        return ""
    named = "; ".join(f"{name} ({sources[name]['licence']})" for name in bound)
    return f"RESTRICTED: trained on data whose licence limits what may be done with it: {named}."


def quoted(sentence: str) -> str:
    """A sentence as a paragraph of a card that cannot be overlooked; nothing for an empty one."""
    return f"> **{sentence}**\n\n" if sentence else ""


def cited(sources: Sources) -> str:
    """A list of sources with licence and citation, in Markdown."""
    return "\n".join(
        f"* **{name}**: {facts['licence']}. {facts['citation']}" for name, facts in sources.items()
    )


def _hertz(cutoff_hz: float | None) -> str:
    return "none" if cutoff_hz is None else f"{cutoff_hz:g} Hz"
