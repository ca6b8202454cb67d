"""What to pack, and how."""

from __future__ import annotations

from pydantic import Field, field_validator

from ecgdist.config import Config
from ecgdist.preprocessing import PackStep


class PackConfig(Config):
    """What to pack, and how."""

    sources: tuple[str, ...]
    """``KIND=URI`` for each source, for example ``ptbxl=s3://ecg/ptb-xl``. The kinds `wfdb`, `npy` and `hdf5` can be
    given the name of the data set, which stays in the corpus: ``npy:clinic=/data/clinic``. Patients and records of one
    name are the same, those of two are not."""
    out: str
    """Folder of the corpus, local or s3://; it must be empty, or hold a packing of the same records."""
    pack: PackStep = PackStep()
    """Rate, length and limits of the packed signals."""
    records_per_shard: int = Field(default=2048, ge=1)
    """Records listed per shard; 2,048 records of 10 s at 250 Hz are about 33 MB."""
    exclude: tuple[str, ...] = ()
    """Records to leave out knowingly, as patterns on ``source/record_id``: ``challenge2021/ptb-xl/*``."""
    follow_links: bool = False
    """Read what links put outside of a local source's folder, too; else such records are refused, and a linked folder
    outside is an error."""
    private: bool | None = None
    """Keyed ids stand for the ids of records, in the corpus and in every message, and ages end at 90; by default
    where ``ECGDIST_PATIENT_KEY`` is set."""
    relative_dates: bool = False
    """Keep the days between the ECGs of a patient: ``day`` counts from a day that the patient key hides, another for
    each patient. Without it nothing of a date is kept."""
    max_refused_share: float = Field(default=0.005, ge=0.0, le=1.0)
    """Packing stops when more than this share of the records is refused; among fewer than 200, one is too many."""

    @field_validator("sources")
    @classmethod
    def _pairs(cls, sources: tuple[str, ...]) -> tuple[str, ...]:
        if not sources:
            raise ValueError("name at least one source as KIND=URI")
        for text in sources:
            kind, equals, uri = text.partition("=")
            if not (kind and equals and uri):
                raise ValueError(f"{text!r} is not of the form KIND=URI, for example ptbxl=/data/ptb-xl")
        return sources
