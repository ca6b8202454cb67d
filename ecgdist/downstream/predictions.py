"""What was predicted for the records of a test split, beside the truth: what figures and plots are reckoned from."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from ecgdist.downstream.evaluation import Evaluation
from ecgdist.downstream.judged import Records
from ecgdist.downstream.tasks import patients_of

METADATA = b"ecgdist"
"""Key of the Parquet file's metadata that holds the proof, as JSON."""
PRETRAINED, RANDOM_ENCODER = "pretrained", "random_encoder"

FloatArray = npt.NDArray[np.float64]
BoolArray = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Predictions:
    """Predictions of one or more predictors for the same records, each record once.

    Attributes:
        columns: the labels, or the one number that is predicted.
        source: the data set of each of the ``n`` records.
        record_id: its id there.
        patient: ``(n,)`` numbers of the patients, in the order of their keys; records of one patient have the same.
        first_row: ``(n,)`` rows of the corpus, the first segment of each record.
        segments: ``(n,)`` how many segments a prediction is the mean of.
        truth: ``(n, columns)``, 1 or 0 of labels.
        arms: ``(n, columns)`` probabilities, or numbers, by predictor; the first one is judged, the others are its
            controls.
        thresholds: ``(columns,)``, chosen on validation: where the first arm's probability is at least that, the label
            is predicted. None for numbers.
    """

    columns: tuple[str, ...]
    source: tuple[str, ...]
    record_id: tuple[str, ...]
    patient: Ints
    first_row: Ints
    segments: Ints
    truth: FloatArray
    arms: Mapping[str, FloatArray]
    thresholds: FloatArray | None = None

    @classmethod
    def of(
        cls,
        index: pd.DataFrame,
        records: Records,
        columns: Sequence[str],
        truth: npt.ArrayLike,
        arms: Mapping[str, FloatArray],
        thresholds: FloatArray | None = None,
    ) -> Predictions:
        """Those for chosen records of an index; `truth` and `arms` have a row for each record.

        Raises:
            ValueError: if something has another shape.
        """
        facts = records.facts(index)
        shape = (len(facts), len(columns))
        found = np.asarray(truth, dtype=np.float64)
        for name, values in {"truth": found, **arms}.items():
            if values.shape != shape:
                raise ValueError(f"{name} has shape {values.shape}, not (records, columns) = {shape}")
        _, patient = np.unique(patients_of(facts).to_numpy(dtype=np.str_), return_inverse=True)
        return cls(
            columns=tuple(columns),
            source=tuple(facts["source"].astype(str)),
            record_id=tuple(facts["record_id"].astype(str)),
            patient=patient.astype(np.int64),
            first_row=records.first,
            segments=np.bincount(records.record, minlength=len(facts)).astype(np.int64),
            truth=found,
            arms=dict(arms),
            thresholds=thresholds,
        )

    @property
    def judged(self) -> FloatArray:
        """``(n, columns)`` by the first arm."""
        return next(iter(self.arms.values()))

    @property
    def positive(self) -> BoolArray:
        """``(n, labels)``, True where a label is true."""
        true: BoolArray = self.truth == 1
        return true

    @property
    def predicted(self) -> BoolArray:
        """``(n, labels)``, True where the first arm predicts a label."""
        assert self.thresholds is not None, "numbers have no threshold"
        said: BoolArray = self.judged >= self.thresholds
        return said

    def name(self, record: int) -> str:
        """What a reader calls a record."""
        return f"{self.source[record]}/{self.record_id[record]}"

    def parquet(self, evaluation: Evaluation) -> bytes:
        """A Parquet file with a row for each record.

        Its columns are source, record_id, patient, segments, and one for each label or number, named after who says
        it: ``truth:MI``, ``pretrained:MI``, ``random_encoder:MI``. Its metadata has the evaluation's proof.
        """
        columns: dict[str, Any] = {
            "source": self.source,
            "record_id": self.record_id,
            "patient": self.patient,
            "segments": self.segments,
        }
        truth = self.truth if self.thresholds is None else self.positive
        for who, values in {"truth": truth, **self.arms}.items():
            columns |= {f"{who}:{name}": values[:, number] for number, name in enumerate(self.columns)}
        proof = evaluation.model_dump(mode="json", include={"task", "kind", "split_digest", "provenance"})
        said = {
            "columns": self.columns,
            "arms": list(self.arms),
            "thresholds": None if self.thresholds is None else self.thresholds.tolist(),
        }
        table = pa.table({name: pa.array(values) for name, values in columns.items()})
        buffer = io.BytesIO()
        content = json.dumps(said | proof).encode()
        pq.write_table(table.replace_schema_metadata({METADATA: content}), buffer, compression="zstd")
        return buffer.getvalue()
