"""Patient keys: a keyed hash, so that a corpus can group ECGs by patient without knowing who that is."""

from __future__ import annotations

import hashlib
import hmac
import os
from dataclasses import dataclass, field

from ecgdist.errors import ConfigError

KEY_VARIABLE = "ECGDIST_PATIENT_KEY"
_PUBLIC_KEY = b"ecgdist public data"
_MIN_KEY_CHARS = 16


@dataclass(frozen=True)
class PatientHasher:
    """Hashes the ids of patients with one key.

    Without a key of one's own the hash uses a constant that everybody can read: right for public data, where
    ids are published anyway; for hospital data set ``ECGDIST_PATIENT_KEY``.
    """

    key: bytes = field(default=_PUBLIC_KEY, repr=False)

    @classmethod
    def from_environment(cls) -> PatientHasher:
        """The hasher for ``ECGDIST_PATIENT_KEY``, or the public one.

        Raises:
            ConfigError: if the key is too short to protect anybody.
        """
        secret = os.environ.get(KEY_VARIABLE)
        if secret is None:
            return cls()
        if len(secret) < _MIN_KEY_CHARS:
            raise ConfigError(
                f"{KEY_VARIABLE} has {len(secret)} characters; give at least {_MIN_KEY_CHARS} random ones"
            )
        return cls(secret.encode())

    @property
    def is_public(self) -> bool:
        """Whether this is the constant key of public data."""
        return self.key == _PUBLIC_KEY

    @property
    def fingerprint(self) -> str:
        """Tells two keys apart without giving either away."""
        return hashlib.sha256(b"fingerprint:" + self.key).hexdigest()[:16]

    def patient_key(self, source: str, patient_id: str | None, record_id: str) -> str:
        """A patient's key, 32 hexadecimal digits. A record without a patient id is a patient of its own."""
        name = f"patient:{source}:{patient_id}" if patient_id is not None else f"record:{source}:{record_id}"
        return hmac.new(self.key, name.encode(), hashlib.sha256).hexdigest()[:32]
