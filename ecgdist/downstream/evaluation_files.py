"""An evaluation whose figures are written to files: what `ecgdist evaluate` takes from a configuration."""

from __future__ import annotations

from collections.abc import Iterator

from ecgdist.downstream.evaluate import EvaluateConfig
from ecgdist.downstream.outcome import Outcome
from ecgdist.report.evaluation import write_evaluation_report
from ecgdist.storage import Location


class EvaluateToFiles(EvaluateConfig):
    """What to evaluate, on what, and which files to write."""

    out: str | None = None
    """JSON file for the figures, local or s3://."""
    html: str | None = None
    """HTML file for a report, with curves and ECGs."""
    predictions: str | None = None
    """Parquet file for truth and predictions of every test record."""

    @property
    def evaluation(self) -> EvaluateConfig:
        """Without the files, which no figure depends on."""
        return EvaluateConfig(**{name: getattr(self, name) for name in EvaluateConfig.model_fields})

    def write(self, outcome: Outcome) -> Iterator[str]:
        """Write the files that were asked for; says of each what and where it is."""
        evaluation = outcome.evaluation
        if self.out is not None:
            Location.of(self.out).write_bytes(evaluation.model_dump_json(indent=1).encode())
            yield f"figures written to {self.out}"
        if self.predictions is not None:
            Location.of(self.predictions).write_bytes(outcome.predictions.parquet(evaluation))
            yield f"predictions written to {self.predictions}"
        if self.html is not None:
            write_evaluation_report(outcome, Location.of(self.html))
            yield f"report written to {self.html}"
